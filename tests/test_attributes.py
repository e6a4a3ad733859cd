# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Attributes: client attributes out, requests for both kinds, shared attributes as they change."""

import time

import pytest

from clients import (
    ATTRIBUTES,
    ATTRIBUTES_REQUEST,
    Clock,
    LogNotes,
    Notes,
    lose,
    offline_client,
    online_client,
    packets,
    payloads,
    subscribed,
)
from faults.scripted_broker import publish
from helpers import run_for, run_until
from tb_device_mqtt import TBError, TBTimeoutError

NAN = float("nan")
RESPONSE = "v1/devices/me/attributes/response/"
SOON_S = 0.1  # how long silence is listened to


def is_timeout(exception):
    return isinstance(exception, TBTimeoutError)


# --- client attributes ---


def test_client_attributes_arrive(client, device):
    attributes = {"firmware": "v1", "nested": {"a": [1, None]}, "on": True, "ratio": 0.1 + 0.2}
    message_id = client.send_attributes(attributes)
    assert client.flush(5)
    assert device.client_attributes == {**attributes, "ratio": pytest.approx(0.3)}
    assert isinstance(message_id, int)


def test_ts_and_values_are_attributes_like_any_other(client, device):
    client.send_attributes({"ts": 1, "values": {"a": 2}})
    assert client.flush(5)
    assert device.client_attributes == {"ts": 1, "values": {"a": 2}}


@pytest.mark.parametrize("quality_of_service", [0, 1])
def test_attributes_are_sent_at_the_quality_of_service_of_the_call(
    client, device, quality_of_service
):
    client.on_publish = published = Notes()
    message_id = client.send_attributes({"a": 1}, quality_of_service)
    run_until(client, lambda: published.calls and device.messages)
    assert published.calls == [(client, None, ATTRIBUTES, message_id)]
    assert device.messages == [(ATTRIBUTES, b'{"a":1}', quality_of_service, False)]


def test_attributes_above_the_limit_are_split_between_keys(client, device):
    client.max_message_bytes = 200
    attributes = {"key%d" % number: "x" * 20 for number in range(40)}
    client.send_attributes(attributes)
    assert client.flush(5)
    assert device.client_attributes == attributes
    assert all(len(payload) <= 200 for _, payload, _, _ in device.messages)


@pytest.mark.parametrize(
    "data, error, named",
    [
        ({"a": 1, "bad": NAN}, ValueError, "bad"),
        ({"a": 1, "bad": None}, TypeError, "bad"),
        ({"a": 1, "bad": {1}}, TypeError, "bad"),
        ({"a": 1, "bad": b"raw"}, TypeError, "bad"),
        ({"a": 1, "bad": [NAN]}, ValueError, "bad"),
        ({"a": 1, "bad": "x" * 20000}, ValueError, "bad"),
        ({"a": 1, b"raw": 1}, TypeError, "raw"),
        ({"a": 1, "": 1}, ValueError, "''"),
        ({"a": 1, "  ": 1}, ValueError, "'  '"),
        ({"a": 1, "long" * 64: 1}, ValueError, "long"),
        ({}, ValueError, r"\{\}"),
        ([], TypeError, r"\[\]"),
        ([{"a": 1}], TypeError, "'a'"),
        ("text", TypeError, "text"),
        (None, TypeError, "None"),
    ],
)
def test_attributes_that_the_server_would_dislike_are_refused_by_name(
    client, device, data, error, named
):
    with pytest.raises((TypeError, ValueError), match=named) as caught:
        client.send_attributes(data)
    assert caught.type is error
    client.send_attributes({"good": 1})
    assert client.flush(5)
    assert [payload for _, payload, _, _ in device.messages] == [b'{"good":1}']
    assert device.connects == 1


def test_not_strict_leaves_out_the_bad_attributes_alone_and_counts_them(server, device):
    with online_client(server, strict=False, logger=LogNotes()) as client:
        client.send_attributes({"a": 1, "nan": NAN, "none": None, "b": 2})
        assert client.send_attributes({"nan": NAN}) is None
        assert client.flush(5)
    assert device.client_attributes == {"a": 1, "b": 2}
    assert client.stats["left_out"] == 3
    assert len(device.messages) == 1


# --- requests ---


@pytest.fixture
def known(device):
    """Attributes of both kinds that the server knows."""
    device.push_attributes({"interval": 10, "mode": "auto", "limits": {"low": 1}})
    return device


def ask(client, *arguments, **options):
    """What came to the callback of a request: (result, exception)."""
    answered = Notes()
    client.request_attributes(*arguments, callback=answered, **options)
    run_until(client, lambda: answered.calls)
    return answered.calls[0]


def test_a_request_is_answered_with_what_was_found_in_both_scopes(client, known):
    client.send_attributes({"firmware": "v1", "uptime": 5})
    result, exception = ask(client, ["firmware"], ["interval", "limits"])
    assert exception is None
    assert result == {
        "client": {"firmware": "v1"},
        "shared": {"interval": 10, "limits": {"low": 1}},
    }
    assert payloads(known, ATTRIBUTES_REQUEST) == [
        {"clientKeys": "firmware", "sharedKeys": "interval,limits"}
    ]


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        iter,
    ],
)
def test_keys_may_be_in_anything_that_holds_names(client, known, kind):
    client.request_timeout = 2
    result, _ = ask(client, None, kind(["interval", "mode"]))
    assert result == {"shared": {"interval": 10, "mode": "auto"}}


def test_one_string_is_one_key(client, known):
    client.send_attributes({"firmware": "v1", "f": 0})
    assert ask(client, "firmware", "mode") == (
        {"client": {"firmware": "v1"}, "shared": {"mode": "auto"}},
        None,
    )


def test_names_that_were_not_found_are_absent(client, known):
    assert ask(client, ["none"], ["mode", "none"]) == ({"shared": {"mode": "auto"}}, None)


def test_nothing_found_is_an_empty_result(client, known):
    assert ask(client, ["none"], ["neither"]) == ({}, None)


@pytest.mark.parametrize(
    "arguments", [(), (None, None), ([], []), ((), None), ("", ""), (iter(()), None)]
)
def test_no_keys_at_all_ask_for_everything(client, known, arguments):
    client.send_attributes({"firmware": "v1"})
    assert ask(client, *arguments) == (
        {"client": {"firmware": "v1"}, "shared": known.shared_attributes},
        None,
    )


def test_requests_may_overlap_and_each_gets_its_own_answer(client, known):
    known.push_attributes({"key%d" % number: number for number in range(20)})
    answers = [Notes() for _ in range(20)]
    ids = [
        client.request_attributes(shared_keys="key%d" % number, callback=answers[number])
        for number in range(20)
    ]
    run_until(client, lambda: all(answered.calls for answered in answers))
    assert len(set(ids)) == 20
    for number, answered in enumerate(answers):
        assert answered.calls == [({"shared": {"key%d" % number: number}}, None)]


def test_a_request_needs_no_callback(client, known):
    client.request_attributes(shared_keys="mode")
    assert client.wait_for_msg(5) == 1
    assert client.stats["handler_errors"] == client.stats["unexpected"] == 0


def test_a_callback_in_a_tuple_gets_its_context_behind(client, known):
    answered, context = Notes(), object()
    client.request_attributes(shared_keys="mode", callback=(answered, context))
    run_until(client, lambda: answered.calls)
    assert answered.calls == [({"shared": {"mode": "auto"}}, None, context)]


def test_a_callback_in_a_tuple_gets_its_context_behind_an_exception_too(server, client, device):
    server.faults.response_delay = 60
    answered = Notes()
    client.request_attributes(shared_keys="mode", callback=(answered, 7), timeout=0.05)
    run_until(client, lambda: answered.calls)
    ((result, exception, context),) = answered.calls
    assert (result, context) == (None, 7)
    assert is_timeout(exception)


def test_a_request_before_connect_is_answered_after_it(offline, known):
    answered = Notes()
    offline.request_attributes(shared_keys="mode", callback=answered)
    offline.connect()
    run_until(offline, lambda: answered.calls)
    assert answered.calls == [({"shared": {"mode": "auto"}}, None)]


def test_a_callback_may_ask_again(client, known):
    last = Notes()

    def on_first(result, exception):
        client.request_attributes(shared_keys=list(result["shared"]), callback=last)

    client.request_attributes(shared_keys="mode", callback=on_first)
    run_until(client, lambda: last.calls)
    assert last.calls == [({"shared": {"mode": "auto"}}, None)]


@pytest.mark.parametrize("name", ["client_keys", "shared_keys"])
@pytest.mark.parametrize(
    "keys, error",
    [
        (["a,b"], ValueError),
        ("a,b", ValueError),
        (",", ValueError),
        (["a", ""], ValueError),
        ([" "], ValueError),
        (["k" * 256], ValueError),
        (["a", 7], TypeError),
        ([None], TypeError),
        (7, TypeError),
    ],
)
def test_keys_that_would_break_the_request_are_refused(client, device, name, keys, error):
    with pytest.raises(error):
        client.request_attributes(**{name: keys})
    assert ask(client, ["fine"]) == ({}, None)
    assert len(payloads(device, ATTRIBUTES_REQUEST)) == 1
    assert device.connects == 1


@pytest.mark.parametrize("callback", [3, "text", (3, 4), {}])
def test_a_callback_that_can_not_be_called_is_refused(client, device, callback):
    with pytest.raises(TypeError, match="callback"):
        client.request_attributes(["a"], callback=callback)
    assert client.pending_messages_count == 0


@pytest.mark.parametrize("timeout", [-1, "5", NAN, float("inf"), True])
def test_a_timeout_that_is_none_is_refused(client, timeout):
    with pytest.raises((TypeError, ValueError), match="timeout"):
        client.request_attributes(["a"], timeout=timeout)
    assert client.pending_messages_count == 0


# --- requests: when no answer comes ---


def test_no_answer_is_a_timeout_error(server, client, device):
    server.faults.response_delay = 60
    result, exception = ask(client, ["a"], timeout=0.1)
    assert result is None
    assert is_timeout(exception)
    assert str(exception) == "no %s1 in 0.1 s" % RESPONSE


def test_no_answer_within_request_timeout_is_a_timeout_error(server, client, device):
    server.faults.response_delay = 60
    client.request_timeout = 0.1
    assert is_timeout(ask(client, ["a"])[1])


def test_the_default_timeout_is_ten_seconds(server, client, device, monkeypatch):
    clock = Clock(monkeypatch)
    server.faults.response_delay = 60
    answered = Notes()
    client.request_attributes(["a"], callback=answered)
    clock.skip(9)
    run_for(client, SOON_S)
    assert answered.calls == []
    clock.skip(1.1)
    run_until(client, lambda: answered.calls)
    assert is_timeout(answered.calls[0][1])


def test_an_answer_that_came_while_nobody_polled_is_told(client, known, monkeypatch):
    clock = Clock(monkeypatch)
    answered = Notes()
    for _ in range(3):
        client.request_attributes(shared_keys="mode", callback=answered)
        time.sleep(SOON_S)
        clock.skip(15)
        client.check_for_msg()
    assert answered.calls == [({"shared": {"mode": "auto"}}, None)] * 3


def test_an_answer_that_came_while_a_handler_waited_is_told(client, known, monkeypatch):
    clock = Clock(monkeypatch)
    answer = Notes()

    def wait(*_):
        client.request_attributes(None, "interval", answer, timeout=5)
        run_until(client, lambda: client._inbox_count)  # the answer waits for this handler
        clock.skip(6)
        client.check_for_msg()

    client.subscribe("v1/devices/me/rpc/request/+", wait)
    run_until(client, lambda: "v1/devices/me/rpc/request/+" in known.subscriptions)
    known.push_rpc("wait")
    run_until(client, lambda: answer.calls)
    assert answer.calls == [({"shared": {"interval": 10}}, None)]


def test_timeout_zero_fails_at_once(server, client, device):
    server.faults.response_delay = 60
    assert is_timeout(ask(client, ["a"], timeout=0)[1])


def test_a_request_times_out_while_offline_and_is_not_asked_later(offline, device):
    answered = Notes()
    offline.request_attributes(["a"], callback=answered, timeout=0.05)
    run_until(offline, lambda: answered.calls)
    assert is_timeout(answered.calls[0][1])
    offline.connect()
    assert offline.flush(5)
    assert device.messages == []


def test_a_late_answer_is_ignored(server, client, known):
    server.faults.response_delay = 0.2
    answered = Notes()
    client.request_attributes(shared_keys="mode", callback=answered, timeout=0.05)
    run_until(client, lambda: client.stats["unexpected"])
    assert len(answered.calls) == 1
    assert is_timeout(answered.calls[0][1])
    assert client.connected


def test_an_answer_that_comes_twice_is_told_once(server, client, known):
    server.faults.response_twice = True
    answered = Notes()
    client.request_attributes(shared_keys="mode", callback=answered)
    run_until(client, lambda: client.stats["unexpected"] == 1)
    assert answered.calls == [({"shared": {"mode": "auto"}}, None)]
    assert client.connected


def test_an_answer_before_the_puback_of_its_request_is_told(server, client, known):
    server.faults.response_before_puback = True
    assert ask(client, None, "mode") == ({"shared": {"mode": "auto"}}, None)
    assert client.flush(5)


@pytest.mark.parametrize(
    "topic, payload",
    [
        ("999", b"{}"),
        ("-1", b"{}"),
        ("", b"{}"),
        ("abc", b"{}"),
        ("1/2", b"{}"),
        ("999", b"not JSON"),
        ("1", b"not JSON"),
        ("1", b'"text"'),
        ("1", b"[]"),
        ("1", b"null"),
        ("1", b'{"shared": 3}'),
        ("1", b'{"shared": null}'),
        ("1", b'{"shared": [5]}'),
        ("1", b'{"shared": []}'),
    ],
)
def test_an_answer_that_makes_no_sense_is_ignored_and_counted(
    server, client, known, topic, payload
):
    server.faults.response_delay = 0.1
    client.shared.get("mode")
    answered = Notes()
    client.request_attributes(shared_keys="mode", callback=answered)
    client.check_for_msg()
    server.inject(publish(RESPONSE + topic, payload))
    run_until(client, lambda: client.stats["unexpected"] == 1)
    run_until(client, lambda: answered.calls)
    assert client.connected
    assert client.shared["mode"] == "auto"


def test_an_answer_to_a_call_does_not_answer_a_request_of_the_same_number(server, client, known):
    server.faults.response_delay = 0.1
    answered = Notes()
    number = client.request_attributes(shared_keys="mode", callback=answered)
    server.inject(publish("v1/devices/me/rpc/response/%d" % number, b'{"shared":{"mode":1}}'))
    run_until(client, lambda: answered.calls)
    assert answered.calls == [({"shared": {"mode": "auto"}}, None)]
    assert client.stats["unexpected"] == 1


@pytest.mark.parametrize("last_id", [(1 << 30) - 3, (1 << 31) - 3])
def test_the_server_takes_the_numbers_of_a_client_that_has_run_for_years(client, known, last_id):
    client._outbox._last_id = last_id
    answered = Notes()
    for _ in range(3):
        client.send_attributes({"a": 1})
        client.request_attributes(shared_keys="mode", callback=answered)
    run_until(client, lambda: len(answered.calls) == 3)
    assert client.flush(5)
    assert client.stats["acknowledged"] == 6
    assert client.stats["connects"] == 1


def test_disconnect_tells_the_callback_an_error_that_is_no_timeout(server, client, device):
    server.faults.response_delay = 60
    answered = Notes()
    client.request_attributes(["a"], callback=answered)
    assert client.flush(5)
    client.disconnect()
    ((result, exception),) = answered.calls
    assert result is None
    assert isinstance(exception, TBError)
    assert not is_timeout(exception)
    assert "disconnect" in str(exception)


def test_a_request_that_disconnect_has_ended_is_not_asked_at_the_next_connect(offline, device):
    answered = Notes()
    offline.connect(timeout=0)
    offline.request_attributes(["a"], callback=answered)
    offline.disconnect()
    assert len(answered.calls) == 1
    offline.connect()
    assert offline.flush(5)
    assert payloads(device, ATTRIBUTES_REQUEST) == []


def test_the_question_is_asked_again_when_the_link_is_lost_before_its_puback(server, client, known):
    server.faults.drop_on = "PUBLISH"
    answered = Notes()
    client.request_attributes(shared_keys="mode", callback=answered)
    run_until(client, lambda: answered.calls)
    run_for(client, SOON_S)
    assert answered.calls == [({"shared": {"mode": "auto"}}, None)]
    assert known.connects == 2
    assert len(payloads(known, ATTRIBUTES_REQUEST)) == 1


def test_a_question_that_is_asked_again_is_a_new_message(server, client, known):
    """MQTT 3.1.1, 3.3.1.1: DUP tells of an earlier attempt to deliver the same message."""
    server.faults.response_delay = 60
    server.faults.mute_puback = True
    client.request_attributes(["a"], callback=Notes())
    run_until(client, lambda: len(payloads(known, ATTRIBUTES_REQUEST)) == 1)
    server.faults.mute_puback = False
    for number in (2, 3):
        lose(client, known)
        run_until(client, lambda: client.connected and not client.pending_messages_count)
        assert len(payloads(known, ATTRIBUTES_REQUEST)) == number
    assert [is_dup for *_, is_dup in known.messages] == [False, True, False]


def test_the_question_is_asked_again_when_the_link_is_lost_after_its_puback(server, client, known):
    server.faults.response_delay = 60
    answered = Notes()
    client.request_attributes(shared_keys="mode", callback=answered)
    assert client.flush(5)
    lose(client, known)
    server.faults.response_delay = 0
    run_until(client, lambda: answered.calls)
    run_for(client, SOON_S)
    assert answered.calls == [({"shared": {"mode": "auto"}}, None)]
    assert len(payloads(known, ATTRIBUTES_REQUEST)) == 2


def test_a_request_survives_several_losses(server, client, known):
    server.faults.response_delay = 60
    answered = Notes()
    client.request_attributes(shared_keys="mode", callback=answered)
    for _ in range(3):
        assert client.flush(5)
        lose(client, known)
        run_until(client, lambda: client.connected)
    server.faults.response_delay = 0
    lose(client, known)
    run_until(client, lambda: answered.calls)
    assert answered.calls == [({"shared": {"mode": "auto"}}, None)]


def test_requests_that_wait_are_bounded(server, device):
    with offline_client(server, queue_size=1000, queue_bytes=1 << 20) as client:
        answered = Notes()
        with pytest.raises(TBError, match="wait"):
            for _ in range(1000):
                client.request_attributes(["a"], callback=answered, timeout=0.1)
        asked = client.pending_messages_count
        assert 8 <= asked <= 200
        run_until(client, lambda: len(answered.calls) == asked)
        assert all(is_timeout(exception) for _, exception in answered.calls)
        assert client.pending_messages_count == 0
        client.connect()
        assert ask(client, ["a"]) == ({}, None)


def test_a_callback_that_raises_is_counted_and_harms_nothing(client, known):
    client.request_attributes(shared_keys="mode", callback=Notes(RuntimeError("mine")))
    run_until(client, lambda: client.stats["handler_errors"] == 1)
    assert str(client.last_error) == "mine"
    assert ask(client, None, "mode") == ({"shared": {"mode": "auto"}}, None)


# --- subscriptions to shared attributes ---


@pytest.fixture
def changed(client, device):
    """A callback that is subscribed to "interval"."""
    notes = Notes()
    client.subscribe_to_attribute("interval", notes)
    subscribed(client, device, ATTRIBUTES)
    return notes


def test_a_subscription_is_told_what_was_pushed(client, device, changed):
    device.push_attributes({"interval": 5, "other": 6})
    run_until(client, lambda: changed.calls)
    assert changed.firsts == [{"interval": 5, "other": 6}]


def test_a_callback_of_result_and_args_fits(client, device):
    results = []

    def on_change(result, *args):
        results.append(result)

    client.subscribe_to_attribute("interval", on_change)
    client.subscribe_to_all_attributes(on_change)
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"interval": 5})
    run_until(client, lambda: results)
    assert results == [{"interval": 5}]
    assert client.stats["handler_errors"] == 0


def test_a_subscription_with_a_context_gets_it_behind(client, device):
    notes, context = Notes(), object()
    client.subscribe_to_attribute("interval", (notes, context))
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"interval": 5})
    run_until(client, lambda: notes.calls)
    assert notes.calls[0][0] == {"interval": 5}
    assert notes.calls[0][-1] is context


def test_a_subscription_is_not_told_other_keys(client, device, changed):
    device.push_attributes({"other": 1})
    device.push_attributes({"interval": 2})
    run_until(client, lambda: changed.calls)
    assert changed.firsts == [{"interval": 2}]


def test_a_subscription_to_all_is_told_every_change(client, device):
    notes = Notes()
    client.subscribe_to_all_attributes(notes)
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"one": 1})
    device.push_attributes({"two": 2})
    device.delete_attributes(["one", "never"])
    run_until(client, lambda: len(notes.calls) == 3)
    assert notes.firsts == [{"one": 1}, {"two": 2}, {"deleted": ["one", "never"]}]


def test_deleted_keys_reach_the_callbacks_of_those_keys(client, device, changed):
    other = Notes()
    client.subscribe_to_attribute("other", other)
    device.delete_attributes(["interval", "mode"])
    run_until(client, lambda: changed.calls)
    assert changed.firsts == [{"deleted": ["interval", "mode"]}]
    assert other.calls == []


@pytest.mark.parametrize("payload", [b"{}", b'{"deleted":[]}'])
def test_a_push_of_nothing_is_told_to_nobody(server, client, device, payload):
    notes = Notes()
    client.subscribe_to_all_attributes(notes)
    subscribed(client, device, ATTRIBUTES)
    server.inject(publish(ATTRIBUTES, payload))
    assert client.wait_for_msg(5) == 1
    assert notes.calls == []
    assert client.stats["unexpected"] == 0


def test_an_attribute_that_is_named_deleted_does_not_delete(client, device):
    notes = Notes()
    client.subscribe_to_attribute("deleted", notes)
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"deleted": "text"})
    run_until(client, lambda: notes.calls)
    assert notes.firsts == [{"deleted": "text"}]


def test_one_function_on_two_keys_is_called_once_per_push(client, device, changed):
    client.subscribe_to_attribute("mode", changed)
    client.subscribe_to_all_attributes(changed)
    device.push_attributes({"interval": 1, "mode": 2})
    device.push_attributes({"mode": 3})
    run_until(client, lambda: len(changed.calls) == 2)
    run_for(client, SOON_S)
    assert changed.firsts == [{"interval": 1, "mode": 2}, {"mode": 3}]


def test_callbacks_are_called_in_the_order_of_subscription(client, device):
    order = []
    for name in "abcdefghijkl":
        client.subscribe_to_attribute("key", lambda result, *args, name=name: order.append(name))
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"key": 1})
    run_until(client, lambda: len(order) == 12)
    assert order == list("abcdefghijkl")


def test_every_subscription_has_an_id_of_its_own(client):
    ids = [client.subscribe_to_attribute("a", Notes()) for _ in range(5)]
    ids.append(client.subscribe_to_all_attributes(Notes()))
    client.unsubscribe_from_attribute(ids[0])
    ids.append(client.subscribe_to_attribute("a", Notes()))
    assert len(set(ids)) == len(ids)
    assert all(isinstance(subscription, int) for subscription in ids)


def test_after_unsubscribe_that_callback_is_called_no_more(client, device, changed):
    second = Notes()
    second_id = client.subscribe_to_attribute("interval", second)
    client.unsubscribe_from_attribute(second_id)
    device.push_attributes({"interval": 1})
    run_until(client, lambda: changed.calls)
    assert second.calls == []


@pytest.mark.parametrize("clear", ["*", None])
def test_all_subscriptions_can_be_forgotten_at_once(client, device, changed, clear):
    client.subscribe_to_all_attributes(changed)
    if clear:
        client.unsubscribe_from_attribute(clear)
    else:
        client.clean_device_sub_dict()
    run_until(client, lambda: not device.subscriptions)
    assert not device.push_attributes({"interval": 1})
    run_for(client, SOON_S)
    assert changed.calls == []


@pytest.mark.parametrize("unknown", [0, -1, 999, None, "text", 1.5])
def test_an_unknown_id_is_no_error(client, device, changed, unknown):
    client.unsubscribe_from_attribute(unknown)
    device.push_attributes({"interval": 1})
    run_until(client, lambda: changed.calls)


def test_an_id_may_be_given_back_twice(client, device, changed):
    second_id = client.subscribe_to_attribute("interval", Notes())
    client.unsubscribe_from_attribute(second_id)
    client.unsubscribe_from_attribute(second_id)
    device.push_attributes({"interval": 1})
    run_until(client, lambda: changed.calls)


def test_a_callback_may_unsubscribe_itself_and_others(client, device):
    ids, second, third = {}, Notes(), Notes()

    def first(result, *args):
        client.unsubscribe_from_attribute(ids["first"])
        client.unsubscribe_from_attribute(ids["second"])

    ids["first"] = client.subscribe_to_attribute("key", first)
    ids["second"] = client.subscribe_to_attribute("key", second)
    ids["third"] = client.subscribe_to_attribute("key", third)
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"key": 1})
    device.push_attributes({"key": 2})
    run_until(client, lambda: len(third.calls) == 2)
    assert second.calls == []
    assert client.stats["handler_errors"] == 0


def test_a_callback_may_subscribe_another_that_hears_the_next_change(client, device):
    second = Notes()

    def first(result, *args):
        if result["key"] == 1:
            client.subscribe_to_attribute("key", second)

    client.subscribe_to_attribute("key", first)
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"key": 1})
    device.push_attributes({"key": 2})
    run_until(client, lambda: second.calls)
    assert second.firsts[-1] == {"key": 2}
    assert client.stats["handler_errors"] == 0


def test_a_callback_that_raises_keeps_nobody_else_from_being_told(client, device, changed):
    client.subscribe_to_all_attributes(Notes(RuntimeError("mine")))
    last = Notes()
    client.subscribe_to_all_attributes(last)
    device.push_attributes({"interval": 1})
    run_until(client, lambda: last.calls)
    assert client.stats["handler_errors"] == 1
    device.push_attributes({"interval": 2})
    run_until(client, lambda: len(last.calls) == len(changed.calls) == 2)


@pytest.mark.parametrize(
    "payload",
    [
        b"not JSON",
        b"[]",
        b"3",
        b"null",
        b'"text"',
        b"",
        b"\xff",
        pytest.param(
            b"[" * 16000,
            id="deep",
        ),
    ],
)
def test_a_push_that_makes_no_sense_is_ignored_and_counted(
    server, client, device, changed, payload
):
    server.inject(publish(ATTRIBUTES, payload))
    run_until(client, lambda: client.stats["unexpected"] == 1)
    device.push_attributes({"interval": 1})
    run_until(client, lambda: changed.calls)
    assert changed.firsts == [{"interval": 1}]


def test_what_is_ignored_is_told_to_the_logger(server, device):
    logger = LogNotes()
    with online_client(server, logger=logger) as client:
        server.inject(publish(ATTRIBUTES, b"not JSON"))
        server.inject(publish("not/of/thingsboard", b"{}"))
        run_until(client, lambda: client.stats["unexpected"] == 2)
    assert ATTRIBUTES in logger.text
    assert "not/of/thingsboard" in logger.text


@pytest.mark.parametrize("key", ["", "  ", 7, "k" * 256])
def test_a_key_that_can_not_be_is_refused(client, key):
    with pytest.raises((TypeError, ValueError), match="key"):
        client.subscribe_to_attribute(key, Notes())


@pytest.mark.parametrize("callback", [None, 3, "text"])
def test_a_subscription_without_callback_is_refused(client, callback):
    with pytest.raises(TypeError, match="callback"):
        client.subscribe_to_attribute("key", callback)
    with pytest.raises(TypeError, match="callback"):
        client.subscribe_to_all_attributes(callback)


# --- SUBSCRIBE and UNSUBSCRIBE ---


def test_nothing_is_subscribed_while_nobody_listens(server, client, device):
    client.send_telemetry({"a": 1})
    client.send_attributes({"a": 1})
    client.claim_device("code")
    assert client.flush(5)
    assert "SUBSCRIBE" not in packets(server)


def test_all_topics_go_in_one_subscribe_right_behind_connect(server, offline, device):
    server.faults.connack_delay = 0.1
    offline.subscribe_to_attribute("a", Notes())
    offline.subscribe_to_all_attributes(Notes())
    offline.shared.setdefault("a", 1)
    offline.set_server_side_rpc_request_handler(Notes())
    offline.rpc("method")(Notes())
    offline.connect()
    run_until(offline, lambda: "SUBACK" in packets(server, "out"))
    assert packets(server)[:2] == ["CONNECT", "SUBSCRIBE"]
    assert packets(server).count("SUBSCRIBE") == 1
    directions = [way for _, way, _ in server.packets]
    assert directions[:2] == ["in", "in"]  # SUBSCRIBE did not wait for CONNACK
    assert set(device.subscriptions) == {
        ATTRIBUTES,
        RESPONSE + "+",
        "v1/devices/me/rpc/request/+",
    }


def test_each_connect_subscribes_again_in_one_packet(server, client, device, changed):
    client.set_server_side_rpc_request_handler(Notes())
    subscribed(client, device, "v1/devices/me/rpc/request/+")
    before = packets(server).count("SUBSCRIBE")
    lose(client, device)
    run_until(client, lambda: ATTRIBUTES in device.subscriptions)
    assert set(device.subscriptions) == {ATTRIBUTES, "v1/devices/me/rpc/request/+"}
    assert packets(server).count("SUBSCRIBE") == before + 1
    device.push_attributes({"interval": 1})
    run_until(client, lambda: changed.calls)


def test_more_subscriptions_to_attributes_need_no_more_packets(server, client, device, changed):
    before = packets(server).count("SUBSCRIBE")
    for number in range(10):
        client.subscribe_to_attribute("key%d" % number, Notes())
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    assert packets(server).count("SUBSCRIBE") == before


def test_the_last_one_to_go_unsubscribes(server, client, device):
    ids = [client.subscribe_to_attribute("key", Notes()) for _ in range(3)]
    subscribed(client, device, ATTRIBUTES)
    for subscription in ids[:2]:
        client.unsubscribe_from_attribute(subscription)
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    assert ATTRIBUTES in device.subscriptions
    client.unsubscribe_from_attribute(ids[2])
    run_until(client, lambda: ATTRIBUTES not in device.subscriptions)
    assert packets(server).count("UNSUBSCRIBE") == 1


def test_after_the_last_one_has_gone_the_next_connect_subscribes_to_nothing(
    server, client, device, changed
):
    client.unsubscribe_from_attribute("*")
    run_until(client, lambda: not device.subscriptions)
    before = packets(server).count("SUBSCRIBE")
    lose(client, device)
    run_until(client, lambda: client.connected)
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    assert packets(server).count("SUBSCRIBE") == before


def test_who_comes_back_is_subscribed_again(client, device, changed):
    client.unsubscribe_from_attribute("*")
    run_until(client, lambda: not device.subscriptions)
    client.subscribe_to_attribute("interval", changed)
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"interval": 1})
    run_until(client, lambda: changed.calls)


def test_subscribing_and_unsubscribing_at_once_ends_unsubscribed(client, device):
    for _ in range(5):
        subscription = client.subscribe_to_attribute("key", Notes())
        client.unsubscribe_from_attribute(subscription)
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    run_until(client, lambda: ATTRIBUTES not in device.subscriptions)
    assert device.connects == 1


# --- shared ---


def test_shared_reads_like_a_dict(offline, known):
    shared = offline.shared
    assert dict(shared) == {}
    offline.connect()
    run_until(offline, lambda: "interval" in offline.shared)
    assert offline.shared is shared
    assert shared["interval"] == 10
    assert shared.get("mode") == "auto"
    assert shared.get("none") is None
    assert shared.get("none", 5) == 5
    assert "none" not in shared
    assert len(shared) == 3
    assert sorted(shared) == sorted(shared.keys()) == ["interval", "limits", "mode"]
    assert dict(shared.items()) == known.shared_attributes
    assert "auto" in list(shared.values())
    with pytest.raises(KeyError):
        shared["none"]


def test_shared_is_read_at_its_first_use_when_online_already(client, known):
    assert "mode" not in client.shared
    run_until(client, lambda: client.shared.get("mode") == "auto")


def test_shared_follows_what_is_pushed(client, known):
    run_until(client, lambda: client.shared.get("mode"))
    known.push_attributes({"mode": "manual", "new": [1]})
    run_until(client, lambda: client.shared.get("new"))
    assert client.shared["mode"] == "manual"
    known.delete_attributes(["mode", "never"])
    run_until(client, lambda: "mode" not in client.shared)
    assert client.shared["new"] == [1]


def test_a_callback_finds_the_change_in_shared_already(client, known):
    run_until(client, lambda: client.shared.get("mode"))
    seen = []
    client.subscribe_to_attribute("mode", lambda *args: seen.append(client.shared.get("mode")))
    known.push_attributes({"mode": "manual"})
    known.delete_attributes(["mode"])
    run_until(client, lambda: len(seen) == 2)
    assert seen == ["manual", None]


def test_a_default_counts_while_the_server_knows_no_value(offline, device):
    assert offline.shared.setdefault("interval", 30) == 30
    assert offline.shared["interval"] == 30
    assert "interval" in offline.shared
    offline.connect()
    subscribed(offline, device, ATTRIBUTES)
    device.push_attributes({"interval": 5})
    run_until(offline, lambda: offline.shared["interval"] == 5)
    assert offline.shared.setdefault("interval", 30) == 5
    device.delete_attributes(["interval"])
    run_until(offline, lambda: offline.shared["interval"] == 30)


def test_a_default_does_not_hide_what_the_server_knows(offline, known):
    offline.shared.setdefault("interval", 30)
    offline.connect()
    run_until(offline, lambda: offline.shared["interval"] == 10)


def test_shared_is_read_again_after_each_connect(client, known):
    run_until(client, lambda: client.shared.get("mode"))
    for number in range(3):
        lose(client, known)
        known.push_attributes({"mode": number})
        run_until(client, lambda number=number: client.shared["mode"] == number)


def test_shared_is_read_after_a_connect_at_which_too_many_requests_wait(offline, known):
    offline.shared.get("mode")
    for _ in range(64):
        offline.request_attributes(client_keys="firmware")
    offline.connect()
    run_until(offline, lambda: offline.shared.get("mode") == "auto")
    assert offline.stats["handler_errors"] == 0


def test_changes_while_offline_reach_the_subscriptions(client, known):
    notes, other, everything = Notes(), Notes(), Notes()
    run_until(client, lambda: client.shared.get("mode"))
    client.subscribe_to_attribute("mode", notes)
    client.subscribe_to_attribute("interval", other)
    client.subscribe_to_all_attributes(everything)
    lose(client, known)
    known.push_attributes({"mode": "manual", "interval": 10, "new": 1})
    run_until(client, lambda: notes.calls)
    run_for(client, SOON_S)
    assert notes.firsts == everything.firsts == [{"mode": "manual", "new": 1}]
    assert other.calls == []


def test_deletes_while_offline_reach_the_subscriptions(client, known):
    notes, other = Notes(), Notes()
    run_until(client, lambda: client.shared.get("mode"))
    client.subscribe_to_attribute("mode", notes)
    client.subscribe_to_attribute("interval", other)
    lose(client, known)
    known.delete_attributes(["mode", "limits"])
    run_until(client, lambda: notes.calls)
    assert sorted(notes.firsts[0]["deleted"]) == ["limits", "mode"]
    assert dict(client.shared) == {"interval": 10}
    assert other.calls == []


def test_a_callback_finds_all_that_happened_while_offline_in_shared(client, known):
    seen = []
    run_until(client, lambda: client.shared.get("mode"))
    client.subscribe_to_all_attributes(lambda *_: seen.append(dict(client.shared)))
    lose(client, known)
    known.push_attributes({"mode": "manual"})
    known.delete_attributes(["limits"])
    run_until(client, lambda: len(seen) == 2)
    assert seen == [{"interval": 10, "mode": "manual"}] * 2


def test_a_delete_while_offline_brings_the_default_back(client, known):
    notes = Notes()
    client.shared.setdefault("mode", "default")
    run_until(client, lambda: client.shared["mode"] == "auto")
    client.subscribe_to_attribute("mode", notes)
    lose(client, known)
    known.delete_attributes(["mode"])
    run_until(client, lambda: client.shared["mode"] == "default", timeout=2)
    run_until(client, lambda: notes.calls)
    assert notes.firsts == [{"deleted": ["mode"]}]


def test_nothing_changed_while_offline_and_nobody_is_told(client, known):
    notes = Notes()
    run_until(client, lambda: client.shared.get("mode"))
    client.subscribe_to_all_attributes(notes)
    before = len(payloads(known, ATTRIBUTES_REQUEST))
    lose(client, known)
    run_until(client, lambda: len(payloads(known, ATTRIBUTES_REQUEST)) > before)
    run_for(client, SOON_S)
    assert notes.calls == []


def test_the_first_reading_tells_the_subscriptions_what_is_there(offline, known):
    notes = Notes()
    offline.shared.setdefault("none", 0)
    offline.subscribe_to_attribute("mode", notes)
    offline.connect()
    run_until(offline, lambda: notes.calls)
    assert notes.firsts == [known.shared_attributes]


def test_shared_is_asked_for_again_when_no_answer_came(server, offline, known, monkeypatch):
    monkeypatch.setattr("tb_device_mqtt._SHARED_TIMEOUT_S", 0.1)
    server.faults.response_delay = 60
    offline.shared.setdefault("mode", 0)
    offline.connect()
    run_until(offline, lambda: len(payloads(known, ATTRIBUTES_REQUEST)) == 2)
    server.faults.response_delay = 0
    run_until(offline, lambda: offline.shared["mode"] == "auto")


def test_a_logger_may_ask_when_a_question_that_is_asked_again_finds_the_queue_full(server, known):
    class Asker:
        def warning(self, text, *_arguments):
            if "dropped" in text:
                client.request_attributes(["a"], callback=notes)

    notes = Notes()
    with online_client(server, queue_size=2, logger=Asker()) as client:
        client.request_timeout = 0.5
        server.faults.response_delay = 60
        client.request_attributes(["a"], callback=notes)
        client.request_attributes(["b"], callback=notes)
        assert client.flush(5)
        server.faults.silent = True
        client.send_telemetry({"n": 1})
        client.send_telemetry({"n": 2})
        server.faults.response_delay = 0
        lose(client, known)
        server.faults.silent = False
        run_until(client, lambda: len(notes.calls) == 4)  # two of them dropped: a timeout


def test_shared_that_is_too_long_is_not_asked_for_all_the_time(offline, known, monkeypatch):
    clock = Clock(monkeypatch)
    known.push_attributes({"text": "x" * 5000})
    offline.max_message_bytes = 4000
    assert dict(offline.shared) == {}
    offline.connect()
    run_until(offline, lambda: offline.stats["oversize"] == 1)
    for _ in range(10):
        clock.skip(20)
        run_for(offline, SOON_S)
    assert len(payloads(known, ATTRIBUTES_REQUEST)) == 1


def test_shared_is_read_after_a_reconnect_though_another_question_gets_no_answer(
    server, client, known
):
    shared = client.shared
    run_until(client, lambda: "mode" in shared)
    server.faults.response_delay = 0.3
    notes = Notes()
    client.request_attributes(callback=notes, timeout=0.2)
    assert client.flush(5)
    lose(client, known)
    known.push_attributes({"mode": "changed while offline"})
    run_until(client, lambda: notes.calls)
    assert isinstance(notes.calls[0][1], TBTimeoutError)
    run_until(client, lambda: shared["mode"] == "changed while offline")


def test_shared_learns_from_the_answer_to_a_request_too(server, offline, known):
    offline.shared.setdefault("mode", 0)
    offline.connect()
    run_until(offline, lambda: offline.shared["mode"] == "auto")
    with server.lock:
        known._record.shared_attributes["mode"] = "changed silently"
    assert ask(offline, None, "mode")[1] is None
    assert offline.shared["mode"] == "changed silently"


@pytest.mark.parametrize("value", [["mode"], [1, 2]])
def test_an_attribute_of_the_name_deleted_deletes_nothing(server, client, known, value):
    shared = client.shared
    run_until(client, lambda: "mode" in shared)
    with server.lock:
        known._record.shared_attributes["deleted"] = value
    assert ask(client, None, None)[1] is None
    assert dict(shared) == known.shared_attributes


def test_shared_is_not_read_again_for_a_call_without_answer(server, client, known):
    shared = client.shared
    run_until(client, lambda: "mode" in shared)
    client.send_rpc_call("method", timeout=0)
    run_for(client, SOON_S)
    assert len(payloads(known, ATTRIBUTES_REQUEST)) == 1


def test_without_shared_nobody_asks_at_connect(client, known):
    client.subscribe_to_all_attributes(Notes())
    lose(client, known)
    run_until(client, lambda: ATTRIBUTES in known.subscriptions)
    client.send_telemetry({"a": 1})
    assert client.flush(5)
    assert payloads(known, ATTRIBUTES_REQUEST) == []


def test_who_uses_shared_stays_subscribed_when_the_last_callback_goes(client, known):
    run_until(client, lambda: client.shared.get("mode"))
    client.subscribe_to_all_attributes(Notes())
    client.unsubscribe_from_attribute("*")
    known.push_attributes({"mode": "manual"})
    run_until(client, lambda: client.shared["mode"] == "manual")


@pytest.mark.parametrize(
    "payload", [b'{"deleted":[{"a":1}]}', b'{"deleted":[[1]]}', b'{"deleted":[null,3,"mode"]}']
)
def test_odd_names_among_the_deleted_do_no_harm(server, client, known, payload):
    run_until(client, lambda: client.shared.get("mode"))
    server.inject(publish(ATTRIBUTES, payload))
    client.wait_for_msg(5)
    known.push_attributes({"mode": "manual"})
    run_until(client, lambda: client.shared.get("mode") == "manual")
