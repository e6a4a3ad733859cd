# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""RPC: the server calls and we reply; we call and the rule chain replies."""

import json

import pytest

from clients import (
    RPC_REQUEST,
    RPC_RESPONSE,
    Clock,
    Notes,
    lose,
    online_client,
    packets,
    payloads,
    subscribed,
    values,
)
from fakes import FakePool
from faults.scripted_broker import connack, publish, suback
from helpers import run_for, run_until
from tb_device_mqtt import TBDeviceMqttClient, TBError, TBTimeoutError

REQUESTS = RPC_REQUEST + "+"
SOON_S = 0.1  # how long silence is listened to
NAN = float("nan")
FIVE_MINUTES_S = 300


def call(client, device, method, params=None):
    """What the server gets as the reply to an RPC."""
    reply = device.call_rpc(method, params)
    run_until(client, reply.done)
    return reply.result()


def listen(client, device, handler):
    client.set_server_side_rpc_request_handler(handler)
    subscribed(client, device, REQUESTS)


# --- server-side RPC: handler ---


def test_the_handler_gets_request_id_and_body_and_its_result_is_the_reply(client, device):
    handler = Notes({"on": True})
    listen(client, device, handler)
    assert call(client, device, "setLamp", {"on": True}) == {"on": True}
    assert call(client, device, "getLamp") == {"on": True}
    assert handler.calls == [
        (0, {"method": "setLamp", "params": {"on": True}}),
        (1, {"method": "getLamp", "params": None}),
    ]
    assert all(type(request_id) is int for request_id in handler.firsts)


def test_the_reply_goes_to_the_topic_of_its_request(client, device):
    listen(client, device, Notes("ok"))
    call(client, device, "first")
    call(client, device, "second")
    assert [(topic, payload) for topic, payload, _, _ in device.messages] == [
        ("v1/devices/me/rpc/response/0", b'"ok"'),
        ("v1/devices/me/rpc/response/1", b'"ok"'),
    ]


@pytest.mark.parametrize(
    "params", [None, True, False, 0, 3.5, "text", "", [], [1, [2]], {}, {"a": {"b": None}}, "温度"]
)
def test_params_may_be_any_json(client, device, params):
    handler = Notes(0)
    listen(client, device, handler)
    call(client, device, "method", params)
    assert handler.calls == [(0, {"method": "method", "params": params})]


@pytest.mark.parametrize(
    "reply",
    ["ok", "", 0, 1, True, False, 2.5, [], [1, None], {}, {"a": [1, {"b": None}]}, "温度", (1, 2)],
    ids=repr,
)
def test_the_reply_may_be_any_json(client, device, reply):
    listen(client, device, Notes(reply))
    got = call(client, device, "method")
    assert got == (list(reply) if isinstance(reply, tuple) else reply)
    assert type(got) is not int or type(reply) is int


@pytest.mark.parametrize("before_connect", [True, False])
def test_a_handler_may_be_set_before_and_after_connect(offline, device, before_connect):
    if before_connect:
        offline.set_server_side_rpc_request_handler(Notes("ok"))
    offline.connect()
    if not before_connect:
        offline.set_server_side_rpc_request_handler(Notes("ok"))
    assert call(offline, device, "method") == "ok"


def test_a_handler_in_a_tuple_gets_its_context_behind(client, device):
    handler, context = Notes("ok"), object()
    listen(client, device, (handler, context))
    assert call(client, device, "method") == "ok"
    assert handler.calls[0][-1] is context


def test_the_last_handler_that_was_set_counts(client, device):
    first, second = Notes(1), Notes(2)
    listen(client, device, first)
    client.set_server_side_rpc_request_handler(second)
    assert call(client, device, "method") == 2
    assert first.calls == []


def test_without_a_handler_rpc_is_unsubscribed(server, client, device):
    handler = Notes(1)
    listen(client, device, handler)
    client.set_server_side_rpc_request_handler(None)
    run_until(client, lambda: REQUESTS not in device.subscriptions)
    assert packets(server).count("UNSUBSCRIBE") == 1


def test_without_a_handler_but_with_a_method_rpc_stays_subscribed(server, client, device):
    client.rpc("known")(Notes("ok"))
    listen(client, device, Notes(1))
    client.set_server_side_rpc_request_handler(None)
    assert call(client, device, "known") == "ok"
    assert "UNSUBSCRIBE" not in packets(server)


@pytest.mark.parametrize("handler", [3, "text", {}, (3, 4)])
def test_a_handler_that_can_not_be_called_is_refused(client, handler):
    with pytest.raises(TypeError):
        client.set_server_side_rpc_request_handler(handler)


# --- server-side RPC: decorator ---


@pytest.mark.parametrize("before_connect", [True, False])
def test_a_decorated_function_answers_its_method(offline, device, before_connect):
    if not before_connect:
        offline.connect()

    @offline.rpc("add")
    def add(params):
        return params["a"] + params["b"]

    offline.connect()
    assert call(offline, device, "add", {"a": 1, "b": 2}) == 3
    assert add({"a": 3, "b": 4}) == 7  # it is still what it was


def test_a_decorated_function_gets_params_alone(client, device):
    method = Notes("ok")
    client.rpc("method")(method)
    call(client, device, "method", [1, 2])
    call(client, device, "method")
    assert method.calls == [([1, 2],), (None,)]


def test_none_of_a_decorated_function_is_the_reply_null(client, device):
    client.rpc("method")(Notes(None))
    assert call(client, device, "method") is None
    assert device.rpc_replies == [(0, b"null")]


def test_one_function_may_answer_several_methods(client, device):
    @client.rpc("one")
    @client.rpc("two")
    def both(params):
        return params

    assert call(client, device, "one", 1) == 1
    assert call(client, device, "two", 2) == 2


def test_methods_come_before_the_handler(client, device):
    handler = Notes("handler")
    client.rpc("known")(Notes("method"))
    listen(client, device, handler)
    assert call(client, device, "known") == "method"
    assert call(client, device, "other") == "handler"
    assert [body["method"] for _, body in handler.calls] == ["other"]


def test_an_unknown_method_is_answered_with_an_error_that_names_it(client, device):
    client.rpc("known")(Notes("ok"))
    reply = call(client, device, "unknownMethod")
    assert list(reply) == ["error"]
    assert "unknownMethod" in reply["error"]
    assert call(client, device, "known") == "ok"


@pytest.mark.parametrize("method", [None, 3, len])
def test_a_decorator_without_a_name_is_refused(client, method):
    with pytest.raises(TypeError, match="method"):
        client.rpc(method)


@pytest.mark.parametrize("is_method", [True, False])
def test_an_exception_is_the_reply_and_harms_nothing(client, device, is_method):
    if is_method:
        client.rpc("method")(Notes(RuntimeError("the valve is stuck")))
    else:
        listen(client, device, Notes(RuntimeError("the valve is stuck")))
    assert call(client, device, "method") == {"error": "RuntimeError: the valve is stuck"}
    assert client.stats["handler_errors"] == 1
    assert str(client.last_error) == "the valve is stuck"
    assert client.connected


def test_an_exception_without_words_is_named_in_the_reply(client, device):
    client.rpc("method")(Notes(KeyError()))
    assert call(client, device, "method") == {"error": "KeyError"}


def test_an_exception_with_too_many_words_is_answered_too(client, device):
    client.rpc("method")(Notes(RuntimeError("long" * 10000)))
    assert call(client, device, "method")["error"].startswith("RuntimeError: longlong")


@pytest.mark.parametrize(
    "result", [NAN, {1, 2}, object(), b"raw", {"a": NAN}, [b"raw"], {b"raw": 2}]
)
@pytest.mark.parametrize("is_method", [True, False])
def test_a_result_that_is_no_json_is_answered_with_an_error(client, device, result, is_method):
    if is_method:
        client.rpc("method")(Notes(result))
    else:
        listen(client, device, Notes(result))
    reply = call(client, device, "method")
    assert list(reply) == ["error"]
    assert "response" in reply["error"] or "key must be a string" in reply["error"]
    assert client.last_error is not None
    assert device.connects == 1


def test_a_result_above_the_limit_is_answered_with_an_error(client, device):
    client.rpc("method")(Notes("x" * 20000))
    assert list(call(client, device, "method")) == ["error"]
    assert device.connects == 1


# --- server-side RPC: send_rpc_reply ---


def test_a_handler_may_send_the_reply_itself(client, device):
    def handler(request_id, body):
        client.send_rpc_reply(request_id, {"method": body["method"]})

    listen(client, device, handler)
    assert call(client, device, "m") == {"method": "m"}
    assert len(device.rpc_replies) == 1


@pytest.mark.parametrize("convert", [int, str])
def test_the_reply_may_be_sent_later(client, device, convert):
    handler = Notes()
    listen(client, device, handler)
    reply = device.call_rpc("slow")
    run_until(client, lambda: handler.calls)
    run_for(client, SOON_S)
    assert not reply.done()
    message_id = client.send_rpc_reply(convert(handler.firsts[0]), "done")
    run_until(client, reply.done)
    assert reply.result() == "done"
    assert device.messages[0][0] == RPC_RESPONSE + "0"  # 0 is an id like any other
    assert isinstance(message_id, int)


def test_replies_may_be_sent_in_another_order(client, device):
    handler = Notes()
    listen(client, device, handler)
    replies = [device.call_rpc("method", number) for number in range(3)]
    run_until(client, lambda: len(handler.calls) == 3)
    for request_id, body in reversed(handler.calls):
        client.send_rpc_reply(request_id, body["params"] * 10)
    run_until(client, lambda: all(reply.done() for reply in replies))
    assert [reply.result() for reply in replies] == [0, 10, 20]


@pytest.mark.parametrize("response", [NAN, {1}, object(), b"raw", {"a": None, "b": NAN}])
def test_a_reply_that_is_no_json_is_refused_to_the_caller(client, device, response):
    with pytest.raises((TypeError, ValueError), match="response"):
        client.send_rpc_reply(0, response)
    assert client.pending_messages_count == 0


def test_a_reply_above_the_limit_is_refused_to_the_caller(client):
    with pytest.raises(ValueError, match="response"):
        client.send_rpc_reply(0, "x" * 20000)
    assert client.pending_messages_count == 0


@pytest.mark.parametrize("request_id", ["abc", None, "", [], "1/2"])
def test_a_reply_to_no_number_is_refused(client, request_id):
    with pytest.raises((TypeError, ValueError)):
        client.send_rpc_reply(request_id, "ok")
    assert client.pending_messages_count == 0


def test_a_reply_nobody_waits_for_does_no_harm(client, device):
    client.send_rpc_reply(12345, "ok")
    assert client.flush(5)
    assert device.rpc_replies == [(12345, b'"ok"')]
    assert device.connects == 1


# --- server-side RPC: what waits for the subscription ---


def test_what_waited_is_answered_as_soon_as_the_client_subscribes(server, client, device):
    replies = [device.call_rpc("method", number) for number in range(5)]
    run_for(client, SOON_S)
    client.rpc("method")(lambda params: params * 2)
    run_until(client, lambda: all(reply.done() for reply in replies))
    assert [reply.result() for reply in replies] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("before_connect", [True, False])
def test_what_is_pushed_before_the_suback_is_answered(server, offline, device, before_connect):
    server.faults.push_before_suback = True
    replies = [device.call_rpc("method", number) for number in range(5)]
    if not before_connect:
        offline.connect()
    offline.rpc("method")(lambda params: params * 2)
    offline.connect()
    run_until(offline, lambda: all(reply.done() for reply in replies))
    assert [reply.result() for reply in replies] == [0, 2, 4, 6, 8]
    sent = packets(server, "out")
    assert sent.index("PUBLISH") < sent.index("SUBACK")


def test_a_request_that_makes_no_sense_is_ignored_and_counted(server, client, device):
    listen(client, device, Notes("ok"))
    for topic, payload in (
        ("7", b"not JSON"),
        ("7", b""),
        ("7", b"[]"),
        ("7", b"null"),
        ("7", b'{"params": 1}'),
        ("abc", b'{"method": "m"}'),
        ("", b'{"method": "m"}'),
        ("7/8", b'{"method": "m"}'),
    ):
        before = client.stats["unexpected"]
        server.inject(publish(RPC_REQUEST + topic, payload))
        run_until(client, lambda before=before: client.stats["unexpected"] == before + 1)
    assert device.rpc_replies == []
    assert call(client, device, "method") == "ok"


@pytest.mark.parametrize("method", [None, 3, ["a"], {"a": 1}, True])
def test_a_method_that_is_no_name_does_no_harm(client, device, method):
    client.rpc("known")(Notes("ok"))
    subscribed(client, device, REQUESTS)
    device.push_rpc(method)
    assert call(client, device, "known") == "ok"


# --- the same request twice ---


def test_a_duplicate_is_answered_again_and_not_executed(client, device):
    handler = Notes("ok")
    listen(client, device, handler)
    call(client, device, "method", 1)
    device.push_rpc("method", 1, request_id=0)
    run_until(client, lambda: len(device.rpc_replies) == 2)
    device.push_rpc("method", 1, request_id=0)
    run_until(client, lambda: len(device.rpc_replies) == 3)
    assert device.rpc_replies == [(0, b'"ok"')] * 3
    assert len(handler.calls) == 1
    assert client.stats["rpc_repeated"] == 2


def test_a_duplicate_of_what_is_answered_later_is_not_executed(client, device):
    handler = Notes()
    listen(client, device, handler)
    reply = device.call_rpc("slow", 1)
    device.push_rpc("slow", 1, request_id=0)
    run_until(client, lambda: client.stats["rpc_repeated"] == 1)
    assert len(handler.calls) == 1
    assert device.rpc_replies == []
    client.send_rpc_reply(0, "done")
    run_until(client, reply.done)
    device.push_rpc("slow", 1, request_id=0)
    run_until(client, lambda: len(device.rpc_replies) == 2)
    assert device.rpc_replies == [(0, b'"done"')] * 2
    assert len(handler.calls) == 1


@pytest.mark.parametrize("params", [1, 2])
def test_another_request_with_the_same_params_is_executed(client, device, params):
    handler = Notes("ok")
    listen(client, device, handler)
    call(client, device, "method", 1)
    call(client, device, "method", params)
    assert len(handler.calls) == 2


def test_an_error_is_not_executed_twice_either(client, device):
    method = Notes(RuntimeError("no"))
    client.rpc("method")(method)
    subscribed(client, device, REQUESTS)
    call(client, device, "method")
    device.push_rpc("method", request_id=0)
    run_until(client, lambda: len(device.rpc_replies) == 2)
    assert device.rpc_replies == [(0, b'{"error":"RuntimeError: no"}')] * 2
    assert len(method.calls) == 1


def test_what_was_not_answered_is_pushed_again_after_a_reconnect_and_not_executed(client, device):
    handler = Notes()
    listen(client, device, handler)
    reply = device.call_rpc("slow", 1)
    run_until(client, lambda: handler.calls)
    lose(client, device)
    run_until(client, lambda: client.stats["rpc_repeated"] == 1)
    client.send_rpc_reply(0, "done")
    run_until(client, reply.done)
    assert len(handler.calls) == 1


def test_several_slow_requests_are_executed_once_over_a_reconnect(client, device):
    handler = Notes()
    listen(client, device, handler)
    replies = [device.call_rpc("slow", number) for number in range(10)]
    run_until(client, lambda: len(handler.calls) == 10)
    lose(client, device)
    run_until(client, lambda: client.stats["rpc_repeated"] + len(handler.calls) == 20)
    for request_id, body in handler.calls[:10]:
        client.send_rpc_reply(request_id, body["params"])
    run_until(client, lambda: all(reply.done() for reply in replies))
    assert [reply.result() for reply in replies] == list(range(10))
    assert len(handler.calls) == 10


def test_the_last_requests_that_were_answered_are_all_remembered(client, device):
    handler = Notes("ok")
    listen(client, device, handler)
    for number in range(4):
        call(client, device, "method", number)
    assert client.flush(5)
    for number in range(4):
        device.push_rpc("method", number, request_id=number)
    run_until(client, lambda: client.stats["rpc_repeated"] == 4)
    assert len(handler.calls) == 4


def test_a_flood_is_executed_once_though_no_reply_was_acknowledged_before_a_loss(
    server, client, device
):
    handler = Notes("ok")
    listen(client, device, handler)
    replies = [device.call_rpc("method", number, timeout=60) for number in range(30)]
    server.faults.silent = True
    run_until(client, lambda: len(handler.calls) == 30)
    lose(client, device)
    server.faults.silent = False
    run_until(client, lambda: all(reply.done() for reply in replies))
    run_for(client, SOON_S)
    assert len(handler.calls) == 30


def served_by_test(handler):
    """A client without a network, what handles its RPCs, and its pool."""
    pool = FakePool()
    client = TBDeviceMqttClient("server.test", access_token="TOKEN_A", socket_pool=pool)
    client._link.backoff_ms = 0
    client.set_server_side_rpc_request_handler(handler)
    client.connect(timeout=0)
    return client, pool


def feed_new_connection(client, pool, *packets):
    """CONNACK, SUBACK and *packets* arrive in one piece on the next connection."""
    count = len(pool.sockets)
    while len(pool.sockets) == count:
        client.check_for_msg()
    pool.socket_now.feed(b"".join((connack(), suback(0x8001), *packets)))
    client.check_for_msg()


def request_of(number):
    return publish(RPC_REQUEST + str(number), b'{"method":"m","params":%d}' % number)


PUBACKS = b"".join(b"\x40\x02\x00" + bytes((packet_id,)) for packet_id in range(1, 4))


def test_a_request_that_comes_again_with_the_puback_of_its_reply_is_not_executed_again():
    """However many requests before it were never answered."""
    handled = []

    def handler(request_id, _body):
        handled.append(request_id)
        return "ok" if request_id == 4 else None

    client, pool = served_by_test(handler)
    feed_new_connection(client, pool, *map(request_of, range(5)))
    assert handled == [0, 1, 2, 3, 4]
    pool.socket_now.end()
    feed_new_connection(client, pool, request_of(4), PUBACKS)
    assert client.stats["acknowledged"] == 1
    assert client.stats["rpc_repeated"] == 1
    assert handled == [0, 1, 2, 3, 4]


def test_a_request_that_waits_over_a_reconnect_is_known_although_its_reply_was_acknowledged():
    handled = []

    def handler(request_id, _body):
        handled.append(request_id)
        if request_id:
            pool.socket_now.feed(request_of(0) + PUBACKS)  # it comes again, before the reply came
            client.check_for_msg()
            assert client.pending_messages_count == 0
            pool.socket_now.end()
            feed_new_connection(client, pool)
        return "ok"

    client, pool = served_by_test(handler)
    feed_new_connection(client, pool, request_of(0))
    client.check_for_msg()
    pool.socket_now.feed(request_of(1))
    client.check_for_msg()
    client.check_for_msg()
    assert client.stats["rpc_repeated"] == 1
    assert handled == [0, 1]


def test_a_reply_that_was_lost_is_sent_again_and_nothing_executed_twice(server, client, device):
    handler = Notes("ok")
    listen(client, device, handler)
    server.faults.drop_on = "PUBLISH"
    assert call(client, device, "method", 1) == "ok"
    assert client.flush(5)
    run_for(client, SOON_S)
    assert device.connects == 2
    assert len(handler.calls) == 1
    assert {reply for _, reply in device.rpc_replies} == {b'"ok"'}


def test_a_reply_that_was_not_acknowledged_before_a_long_outage_keeps_its_request(
    server, client, device, monkeypatch
):
    clock = Clock(monkeypatch)
    handler = Notes("ok")
    listen(client, device, handler)
    server.faults.drop_on = "PUBLISH"
    reply = device.call_rpc("method", 1, timeout=60)
    run_until(client, lambda: not client.connected)
    server.stop_listening()
    clock.skip(3 * FIVE_MINUTES_S)
    run_for(client, SOON_S)
    server.listen_again()
    clock.skip(60)
    run_until(client, reply.done)
    assert reply.result() == "ok"
    run_for(client, SOON_S)
    assert len(handler.calls) == 1


def test_a_slow_request_is_executed_once_over_a_long_outage(server, client, device, monkeypatch):
    clock = Clock(monkeypatch)
    handler = Notes()
    listen(client, device, handler)
    reply = device.call_rpc("slow", 1, timeout=60)
    run_until(client, lambda: handler.calls)
    server.stop_listening()
    run_until(client, lambda: not client.connected)
    clock.skip(3 * FIVE_MINUTES_S)
    server.listen_again()
    run_until(client, lambda: client.stats["rpc_repeated"] == 1)
    client.send_rpc_reply(0, "done")
    run_until(client, reply.done)
    assert len(handler.calls) == 1


def test_after_a_server_restart_the_same_number_with_another_payload_is_executed(
    server, client, device
):
    handler = Notes("ok")
    listen(client, device, handler)
    call(client, device, "method", 1)
    server.restart_actors()
    lose(client, device)
    run_until(client, lambda: REQUESTS in device.subscriptions)
    assert call(client, device, "method", 2) == "ok"
    assert call(client, device, "other", 2) == "ok"
    assert [request_id for request_id, _ in handler.calls] == [0, 0, 1]


def test_after_a_server_restart_the_same_number_and_payload_is_executed(server, client, device):
    handler = Notes("ok")
    listen(client, device, handler)
    call(client, device, "toggle")
    assert client.flush(5)
    server.restart_actors()
    lose(client, device)
    run_until(client, lambda: REQUESTS in device.subscriptions)
    assert call(client, device, "toggle") == "ok"
    assert [request_id for request_id, _ in handler.calls] == [0, 0]


def test_after_five_minutes_the_same_number_and_payload_is_a_new_request(
    server, client, device, monkeypatch
):
    clock = Clock(monkeypatch)
    handler = Notes("ok")
    listen(client, device, handler)
    call(client, device, "method", 1)
    assert client.flush(5)
    clock.skip(FIVE_MINUTES_S - 5)
    device.push_rpc("method", 1, request_id=0)
    run_until(client, lambda: client.stats["rpc_repeated"] == 1)
    assert client.flush(5)  # while its reply is under way, a request is remembered in any case
    clock.skip(6)
    device.push_rpc("method", 1, request_id=0)
    run_until(client, lambda: len(handler.calls) == 2)


def test_five_minutes_later_what_was_never_answered_is_a_new_request(
    server, client, device, monkeypatch
):
    clock = Clock(monkeypatch)
    handler = Notes()
    listen(client, device, handler)
    device.push_rpc("ring", request_id=0)
    run_until(client, lambda: handler.calls)
    server.restart_actors()
    lose(client, device)
    run_until(client, lambda: REQUESTS in device.subscriptions)
    device.push_rpc("ring", request_id=0)
    run_until(client, lambda: client.stats["rpc_repeated"] == 1)
    clock.skip(FIVE_MINUTES_S)
    device.push_rpc("ring", request_id=0)
    run_until(client, lambda: len(handler.calls) == 2)


def test_what_was_not_answered_for_five_minutes_is_not_brought_back_by_a_restart(
    server, client, device, monkeypatch
):
    clock = Clock(monkeypatch)
    handler = Notes()  # as for one-way requests: nobody ever replies
    listen(client, device, handler)
    device.push_rpc("ring", request_id=0)
    run_until(client, lambda: handler.calls)
    clock.skip(FIVE_MINUTES_S)
    run_for(client, SOON_S)
    server.restart_actors()
    lose(client, device)
    run_until(client, lambda: REQUESTS in device.subscriptions)
    device.push_rpc("ring", request_id=0)
    run_until(client, lambda: len(handler.calls) == 2)


def test_a_request_whose_reply_was_dropped_is_not_executed_twice(server, client, device):
    handler = Notes("ok")
    listen(client, device, handler)
    client._outbox._max_size = 1
    server.faults.drop_on = "PUBLISH"
    reply = device.call_rpc("method", 1, timeout=60)
    run_until(client, lambda: not client.connected)
    client.publish("topic", "drops the reply")
    assert client.stats["dropped"] == 1
    client._outbox._max_size = 64  # the request may be pushed again before the PUBACK of that
    run_until(client, reply.done)
    assert len(handler.calls) == 1


def test_a_later_reply_to_a_number_in_new_use_is_the_one_that_is_repeated(server, client, device):
    handler = Notes("first")
    listen(client, device, handler)
    call(client, device, "method", 1)
    server.restart_actors()
    client.set_server_side_rpc_request_handler(Notes("second"))
    assert call(client, device, "method", 2) == "second"
    device.push_rpc("method", 2, request_id=0)
    run_until(client, lambda: client.stats["rpc_repeated"] == 1)
    assert client.flush(5)
    assert device.rpc_replies[-1] == (0, b'"second"')


# --- handlers that use the client ---

USES = {
    "check_for_msg": lambda client: client.check_for_msg(),
    "wait_for_msg": lambda client: client.wait_for_msg(0.01),
    "wait_for_msg() without end": lambda client: client.wait_for_msg(),
    "flush": lambda client: client.flush(0.01),
    "flush() without end": lambda client: client.flush(),
    "flush of something": lambda client: (client.send_telemetry({"a": 1}), client.flush()),
    "connect": lambda client: client.connect(),
    "connect(0)": lambda client: client.connect(timeout=0),
    "send_telemetry": lambda client: client.send_telemetry({"a": 1}),
    "send_attributes": lambda client: client.send_attributes({"a": 1}),
    "request_attributes": lambda client: client.request_attributes(["a"], callback=Notes()),
    "subscribe_to_attribute": lambda client: client.subscribe_to_attribute("a", Notes()),
    "subscribe_to_all": lambda client: client.subscribe_to_all_attributes(Notes()),
    "unsubscribe_from_attribute": lambda client: client.unsubscribe_from_attribute("*"),
    "clean_device_sub_dict": lambda client: client.clean_device_sub_dict(),
    "set_handler": lambda client: client.set_server_side_rpc_request_handler(Notes("other")),
    "rpc": lambda client: client.rpc("another")(Notes()),
    "send_rpc_reply": lambda client: client.send_rpc_reply(999, "ok"),
    "send_rpc_call": lambda client: client.send_rpc_call("getSessionLimits", {}, Notes()),
    "claim_device": lambda client: client.claim_device("code", 60000),
    "shared": lambda client: client.shared.setdefault("a", 1),
    "publish": lambda client: client.publish("any/topic", b"payload"),
    "subscribe": lambda client: client.subscribe("v1/devices/me/attributes", Notes()),
    "unsubscribe": lambda client: client.unsubscribe("v1/devices/me/attributes"),
    "what it says": lambda client: (
        client.state,
        client.connected,
        client.is_connected(),
        client.pending_messages_count,
        client.last_error,
        client.stats,
    ),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_handler_may_call_any_method(client, device, use):
    client.request_timeout = 0.1

    def handler(request_id, body):
        use(client)
        return "ok"

    listen(client, device, handler)
    assert call(client, device, "method") == "ok"
    assert client.flush(5)
    assert client.stats["handler_errors"] == 0
    assert device.connects == 1


@pytest.mark.parametrize("again", [None, 0, 5])
def test_a_handler_may_disconnect_and_connect_again(client, device, again):
    def handler(request_id, body):
        client.disconnect()
        if again is not None:
            client.connect(again)
        return "ok"

    listen(client, device, handler)
    reply = device.call_rpc("method")
    run_until(client, lambda: device.connects == 2 or client.state == "stopped")
    if again is None:
        assert client.state == "stopped"
        assert client.connect()
    run_until(client, reply.done)
    assert reply.result() == "ok"
    assert client.stats["handler_errors"] == 0
    assert device.connects == 2


def test_a_handler_that_leaves_the_client_in_a_hurry_loses_no_reply(client, device):
    order = []

    def handler(request_id, body):
        order.append(body["params"])
        if body["params"] == 1:
            client.disconnect()
        return body["params"]

    listen(client, device, handler)
    replies = [device.call_rpc("method", number) for number in range(4)]
    run_until(client, lambda: client.state == "stopped")
    client.connect()
    run_until(client, lambda: all(reply.done() for reply in replies))
    assert [reply.result() for reply in replies] == [0, 1, 2, 3]
    assert sorted(order) == [0, 1, 2, 3]


def test_flush_in_a_handler_ends_however_much_on_publish_is_to_be_told(client, device):
    client.on_publish = Notes()
    flushed = []

    def handler(request_id, body):
        for number in range(40):
            client.send_telemetry({"a": number})
        flushed.append(client.flush(2))
        return "ok"

    listen(client, device, handler)
    assert call(client, device, "method") == "ok"
    assert flushed == [True]


def test_flush_in_a_handler_ends_as_soon_as_there_is_room_again(client, device):
    flushed = []

    def handler(request_id, body):
        if body["params"] == 0:
            wait_in_line(client)
        if body["params"] == 1:
            client.send_telemetry({"a": 1})
            flushed.append(client.flush(2))
        return "ok"

    listen(client, device, handler)
    replies = [device.call_rpc("method", number) for number in range(17)]
    run_until(client, lambda: all(reply.done() for reply in replies))
    assert flushed == [True]


def test_connect_in_a_handler_works_however_much_is_waiting(client, device):
    connected = []

    def handler(request_id, body):
        if body["params"] == 0 and not connected:
            wait_in_line(client)
            client.disconnect()
            connected.append(client.connect(2))
        return "ok"

    listen(client, device, handler)
    replies = [device.call_rpc("method", number) for number in range(17)]
    run_until(client, lambda: all(reply.done() for reply in replies))
    assert connected == [True]


def wait_in_line(client):
    """Inside a handler: take in what else has come, as far as there is room for it."""
    run_for(client, SOON_S)


class Depth:
    """Wraps handlers, and notes how many of them ran at a time."""

    def __init__(self):
        self.deepest = self._now = 0

    def __call__(self, handler):
        def wrapped(*arguments):
            self._now += 1
            self.deepest = max(self.deepest, self._now)
            try:
                return handler(*arguments)
            finally:
                self._now -= 1

        return wrapped


def test_no_handler_is_called_while_another_runs(server, client, device):
    depth = Depth()
    client.request_timeout = 0.05
    answered = Notes()

    def wait(*_arguments):
        client.wait_for_msg(0.02)
        client.flush(0.02)
        for _ in range(20):
            client.check_for_msg()

    def work(*_arguments):
        client.send_telemetry({"a": 1})
        client.request_attributes(callback=depth(answered))
        wait()

    def handler(request_id, body):
        work()
        if body["params"] == 2:
            client.disconnect()
            client.connect(1)
        return "ok"

    client.on_connect = client.on_disconnect = client.on_state = depth(work)
    client.on_publish = depth(wait)  # each message that it sent would bring the next one
    client.subscribe_to_all_attributes(depth(work))
    client.subscribe("v1/devices/me/rpc/response/+", depth(work))
    listen(client, device, depth(handler))
    replies = []
    for number in range(5):
        replies.append(device.call_rpc("method", number))
        device.push_attributes({"a": number})
    client.send_rpc_call("getSessionLimits", {}, depth(work))
    run_until(client, lambda: all(reply.done() for reply in replies) and answered.calls, timeout=20)
    assert depth.deepest == 1
    assert [reply.result() for reply in replies] == ["ok"] * 5
    assert client.stats["handler_errors"] == 0


def test_sixty_requests_whose_handlers_are_busy_are_answered_exactly_once(server, device):
    count = 60
    answers = {}

    def handler(request_id, body):
        number = body["params"]
        client.send_telemetry({"rpc": number})
        client.request_attributes(
            shared_keys="key%d" % number,
            callback=lambda result, exception: answers.setdefault(number, (result, exception)),
        )
        return {"reply": number}

    device.push_attributes({"key%d" % number: number for number in range(count)})
    with online_client(server, queue_size=1000, queue_bytes=1 << 20) as client:
        listen(client, device, handler)
        replies = [device.call_rpc("method", number) for number in range(count)]
        sent = []

        def all_done():
            if len(sent) < 500:
                client.send_telemetry({"main": len(sent)})
                sent.append(len(sent))
            return all(reply.done() for reply in replies) and len(answers) == count

        run_until(client, all_done, timeout=20)
        assert client.flush(10)
    assert [reply.result() for reply in replies] == [{"reply": number} for number in range(count)]
    assert len(device.rpc_replies) == count
    assert answers == {
        number: ({"shared": {"key%d" % number: number}}, None) for number in range(count)
    }
    rows = values(device)
    assert sorted(row["rpc"] for row in rows if "rpc" in row) == list(range(count))
    assert [row["main"] for row in rows if "main" in row] == sent
    assert device.connects == 1
    assert client.stats["dropped"] == 0


# --- client-side RPC ---


def test_a_call_is_answered_by_the_rule_chain(client, device):
    device.on_client_rpc = lambda method, params: {"method": method, "params": params}
    answered = Notes()
    request_id = client.send_rpc_call("getTime", {"zone": "UTC"}, answered)
    run_until(client, lambda: answered.calls)
    assert answered.calls == [(request_id, {"method": "getTime", "params": {"zone": "UTC"}}, None)]
    assert type(request_id) is int
    assert payloads(device, RPC_REQUEST) == [{"method": "getTime", "params": {"zone": "UTC"}}]


@pytest.mark.parametrize("result", [None, 0, False, "text", [1], {"a": 1}, "", {}])
def test_the_answer_may_be_any_json(client, device, result):
    device.on_client_rpc = lambda method, params: result
    answered = Notes()
    client.send_rpc_call("method", callback=answered)
    run_until(client, lambda: answered.calls)
    assert answered.calls[0][1:] == (result, None)


def test_the_limits_of_the_session_can_be_asked_for(client, device):
    answered = Notes()
    client.send_rpc_call("getSessionLimits", {}, answered)
    run_until(client, lambda: answered.calls)
    assert answered.calls[0][1]["maxPayloadSize"] == 65536


def test_who_calls_subscribes_to_the_answers(client, device):
    client.send_rpc_call("getSessionLimits")
    subscribed(client, device, RPC_RESPONSE + "+")
    assert set(device.subscriptions) == {RPC_RESPONSE + "+"}


def test_a_call_before_connect_is_answered_after_it(offline, device):
    device.on_client_rpc = lambda method, params: "ok"
    answered = Notes()
    offline.send_rpc_call("method", callback=answered)
    offline.connect()
    run_until(offline, lambda: answered.calls)
    assert answered.calls[0][1:] == ("ok", None)


def test_a_call_needs_no_callback(client, device):
    device.on_client_rpc = lambda method, params: "ok"
    client.send_rpc_call("method")
    assert client.wait_for_msg(5) == 1
    assert client.stats["unexpected"] == client.stats["handler_errors"] == 0


def test_a_callback_in_a_tuple_gets_its_context_behind(client, device):
    device.on_client_rpc = lambda method, params: "ok"
    answered = Notes()
    request_id = client.send_rpc_call("method", None, (answered, "context"))
    run_until(client, lambda: answered.calls)
    assert answered.calls == [(request_id, "ok", None, "context")]


def test_a_call_without_answer_is_a_timeout_error(client, device):
    answered = Notes()
    request_id = client.send_rpc_call("method", None, answered, timeout=0.1)
    run_until(client, lambda: answered.calls)
    ((told_id, result, exception),) = answered.calls
    assert (told_id, result) == (request_id, None)
    assert isinstance(exception, TBTimeoutError)


def test_what_the_server_says_after_its_own_timeout_is_a_result(server, client, device):
    server.client_rpc_timeout_s = 0.1
    answered = Notes()
    request_id = client.send_rpc_call("method", None, answered)
    run_until(client, lambda: answered.calls)
    assert answered.calls == [(request_id, {"error": "timeout"}, None)]


def test_a_call_is_not_made_again_when_the_link_is_lost_after_its_puback(client, device):
    answered = Notes()
    request_id = client.send_rpc_call("openValve", None, answered)
    assert client.flush(5)
    lose(client, device)
    run_until(client, lambda: answered.calls and client.connected)
    run_for(client, SOON_S)
    ((told_id, result, exception),) = answered.calls
    assert (told_id, result) == (request_id, None)
    assert isinstance(exception, TBError)
    assert not isinstance(exception, TBTimeoutError)
    assert len(payloads(device, RPC_REQUEST)) == 1


def test_an_answer_that_came_right_before_the_loss_is_told():
    answered = Notes()
    client, pool = served_by_test(Notes())
    feed_new_connection(client, pool)
    request_id = client.send_rpc_call("openValve", None, answered)
    pool.socket_now.feed(PUBACKS + publish(RPC_RESPONSE + str(request_id), b'"ok"'))
    pool.socket_now.end()
    client.check_for_msg()
    assert not client.connected
    assert answered.calls == [(request_id, "ok", None)]
    feed_new_connection(client, pool)
    client.check_for_msg()
    assert len(answered.calls) == 1
    assert client.stats["sent"] == 1


def test_a_call_whose_question_was_lost_is_made_when_the_link_is_back(server, client, device):
    device.on_client_rpc = lambda method, params: "ok"
    server.faults.drop_on = "PUBLISH"
    answered = Notes()
    request_id = client.send_rpc_call("method", None, answered)
    run_until(client, lambda: answered.calls)
    assert answered.calls == [(request_id, "ok", None)]
    assert device.connects == 2


def test_disconnect_ends_a_call(client, device):
    answered = Notes()
    request_id = client.send_rpc_call("method", None, answered)
    assert client.flush(5)
    client.disconnect()
    ((told_id, result, exception),) = answered.calls
    assert (told_id, result) == (request_id, None)
    assert isinstance(exception, TBError)


def test_a_late_answer_to_a_call_is_ignored(server, client, device):
    server.faults.response_delay = 0.2
    answered = Notes()
    client.send_rpc_call("getSessionLimits", {}, answered, timeout=0.05)
    run_until(client, lambda: client.stats["unexpected"] == 1)
    assert len(answered.calls) == 1


def test_an_answer_that_comes_twice_is_told_once(server, client, device):
    server.faults.response_twice = True
    answered = Notes()
    client.send_rpc_call("getSessionLimits", {}, answered)
    run_until(client, lambda: client.stats["unexpected"] == 1)
    assert len(answered.calls) == 1


@pytest.mark.parametrize("topic", ["999", "abc", "", "-1", "1/2"])
def test_an_answer_nobody_waits_for_is_ignored_and_counted(server, client, device, topic):
    server.inject(publish("v1/devices/me/rpc/response/" + topic, b"1"))
    run_until(client, lambda: client.stats["unexpected"] == 1)
    assert client.connected


def test_an_answer_to_an_attribute_request_does_not_answer_a_call(server, client, device):
    answered = Notes()
    number = client.send_rpc_call("method", None, answered, timeout=0.2)
    server.inject(publish("v1/devices/me/attributes/response/%d" % number, b"{}"))
    run_until(client, lambda: answered.calls)
    assert isinstance(answered.calls[0][2], TBTimeoutError)
    assert client.stats["unexpected"] == 1


@pytest.mark.parametrize("params", [NAN, {1}, object(), b"raw", {"a": NAN}, {b"raw": 2}])
def test_params_that_are_no_json_are_refused(client, params):
    with pytest.raises((TypeError, ValueError)):
        client.send_rpc_call("method", params)
    assert client.pending_messages_count == 0


@pytest.mark.parametrize("method", [None, 3, b"raw", ["a"]])
def test_a_method_that_is_no_text_is_refused(client, method):
    with pytest.raises(TypeError, match="method"):
        client.send_rpc_call(method)


@pytest.mark.parametrize("callback", [3, "text", (3, 4)])
def test_a_callback_that_can_not_be_called_is_refused(client, callback):
    with pytest.raises(TypeError, match="callback"):
        client.send_rpc_call("method", None, callback)
    assert client.pending_messages_count == 0


def test_a_callback_that_raises_is_counted_and_harms_nothing(client, device):
    device.on_client_rpc = lambda method, params: "ok"
    client.send_rpc_call("method", None, Notes(RuntimeError("mine")))
    run_until(client, lambda: client.stats["handler_errors"] == 1)
    answered = Notes()
    client.send_rpc_call("method", None, answered)
    run_until(client, lambda: answered.calls)


def test_a_call_inside_the_answer_to_a_call_works(client, device):
    device.on_client_rpc = lambda method, params: method + "!"
    results = []

    def on_answer(request_id, result, exception):
        results.append(result)
        if len(results) < 3:
            client.send_rpc_call(result, None, on_answer)

    client.send_rpc_call("a", None, on_answer)
    run_until(client, lambda: len(results) == 3)
    assert results == ["a!", "a!!", "a!!!"]


def test_calls_and_requests_share_no_number(client, device):
    device.on_client_rpc = lambda method, params: "ok"
    ids = [client.send_rpc_call("m"), client.request_attributes(["a"]), client.send_rpc_call("m")]
    assert len(set(ids)) == 3
    assert client.flush(5)
    topics = [topic.rsplit("/", 1)[1] for topic, _, _, _ in device.messages]
    assert sorted(map(int, topics)) == sorted(ids)
    assert all(json.loads(payload) is not None for _, payload, _, _ in device.messages)


def test_an_rpc_without_a_method_is_answered_too(client, device):
    @client.rpc("known")
    def known(_params):
        return 1

    subscribed(client, device, RPC_REQUEST + "+")
    reply = device.call_rpc("")
    run_until(client, reply.done)
    assert reply.result() == {"error": "LookupError: unknown method"}
