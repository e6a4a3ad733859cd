# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""compact=True: ThingsBoard's short topics, and not a byte that nobody reads.

The topics are typed from ThingsBoard's MQTT Device API, never taken from the library.
"""

import inspect
import json

import pytest

from clients import Notes, flush, lose, new_client, offline_client, online_client, packets
from faults.scripted_broker import CONNECT, PUBLISH, SUBSCRIBE, packets_of
from helpers import run_for, run_until, wait_until
from tb_device_mqtt import TBDeviceMqttClient

pytestmark = pytest.mark.usefixtures("device")  # nobody gets on the stand-in without one

READING = {"temperature": 21.5, "on": True}
READING_JSON = b'{"temperature":21.5,"on":true}'


@pytest.fixture
def client(server, device):
    """Online, on short topics."""
    with online_client(server, compact=True) as client:
        yield client


@pytest.fixture
def offline(server, device):
    """The same before its first connect."""
    with offline_client(server, compact=True) as client:
        yield client


def sent(device):
    """``[(topic, payload), ...]`` of every PUBLISH."""
    return [message[:2] for message in device.messages]


def sent_packets(proxy):
    return packets_of(proxy.received())


# --- off and on ---


def test_long_topics_are_the_default(server, device):
    with online_client(server) as client:
        client.send_telemetry(READING)
        flush(client)
    assert sent(device) == [("v1/devices/me/telemetry", READING_JSON)]


def test_compact_has_to_be_named():
    parameter = inspect.signature(TBDeviceMqttClient).parameters["compact"]
    assert (parameter.kind, parameter.default) == (parameter.KEYWORD_ONLY, False)


# --- telemetry and attributes ---


@pytest.mark.parametrize(
    "data, payload",
    (
        (READING, READING_JSON),
        ([{"b": [2, None]}], b'{"b":[2,null]}'),
        ({"ts": 1700000000000, "values": {"a": 1}}, b'{"ts":1700000000000,"values":{"a":1}}'),
        (
            [
                {"ts": 1700000000005, "values": {"a": 1}},
                {"ts": 1700000000006, "values": {"a": {"b": "c d"}}},
            ],
            b'[{"ts":1700000000005,"values":{"a":1}},'
            b'{"ts":1700000000006,"values":{"a":{"b":"c d"}}}]',
        ),
    ),
)
def test_telemetry_in_each_of_its_shapes(client, device, data, payload):
    client.send_telemetry(data)
    flush(client)
    assert sent(device) == [("v2/t", payload)]
    stored = [values for _, values in device.telemetry]
    entries = data if isinstance(data, list) else [data]
    assert stored == [entry.get("values", entry) for entry in entries]


def test_client_attributes(client, device):
    client.send_attributes({"version": "1a", "on": True})
    flush(client)
    assert sent(device) == [("v2/a", b'{"version":"1a","on":true}')]
    assert device.client_attributes == {"version": "1a", "on": True}


def test_an_attribute_request_and_its_response(client, device):
    device.push_attributes({"interval": 10})
    answer = Notes()
    client.request_attributes(("version", "on"), "interval", answer)
    run_until(client, lambda: answer.calls)
    ((topic, payload),) = sent(device)
    assert topic == "v2/a/req/1"
    assert payload == b'{"clientKeys":"version,on","sharedKeys":"interval"}'
    assert answer.calls == [({"shared": {"interval": 10}}, None)]
    assert list(device.subscriptions) == ["v2/a/res/+"]


def test_attribute_pushes_and_their_end(client, device):
    told = Notes()
    watch = client.subscribe_to_attribute("interval", told)
    run_until(client, lambda: "v2/a" in device.subscriptions)
    device.push_attributes({"interval": 10})
    device.delete_attributes(["interval"])
    run_until(client, lambda: len(told.calls) == 2)
    assert told.firsts == [{"interval": 10}, {"deleted": ["interval"]}]
    client.unsubscribe_from_attribute(watch)
    run_until(client, lambda: not device.subscriptions)


def test_shared_is_read_and_follows(client, device):
    device.push_attributes({"interval": 10})
    assert dict(client.shared) == {}
    run_until(client, lambda: dict(client.shared) == {"interval": 10})
    device.push_attributes({"interval": 11})
    run_until(client, lambda: dict(client.shared) == {"interval": 11})
    assert sorted(device.subscriptions) == ["v2/a", "v2/a/res/+"]


# --- RPC ---


def rpc(client, device, method, params=None):
    """Call the device, and poll until it has answered."""
    call = device.call_rpc(method, params)
    run_until(client, call.done)
    return call.result()


def test_an_rpc_method_replies(client, device):
    client.rpc("add")(lambda params: {"sum": sum(params)})
    assert rpc(client, device, "add", [1, 2]) == {"sum": 3}
    assert sent(device) == [("v2/r/res/0", b'{"sum":3}')]
    assert list(device.subscriptions) == ["v2/r/req/+"]


def test_an_rpc_handler_replies_when_it_likes(client, device):
    calls = Notes()
    client.set_server_side_rpc_request_handler(calls)
    call = device.call_rpc("measure", 5)
    run_until(client, lambda: calls.calls)
    assert calls.calls == [(0, {"method": "measure", "params": 5})]
    client.send_rpc_reply(0, [1, 2])
    run_until(client, call.done)
    assert call.result() == [1, 2]
    client.set_server_side_rpc_request_handler(None)
    run_until(client, lambda: not device.subscriptions)


def test_an_rpc_call_of_ours_is_answered(client, device):
    device.on_client_rpc = lambda method, params: {method: params}
    answer = Notes()
    client.send_rpc_call("getTime", {"zone": 1}, answer)
    run_until(client, lambda: answer.calls)
    assert sent(device) == [("v2/r/req/1", b'{"method":"getTime","params":{"zone":1}}')]
    assert answer.calls == [(1, {"getTime": {"zone": 1}}, None)]
    assert list(device.subscriptions) == ["v2/r/res/+"]


def test_an_rpc_that_comes_again_is_answered_from_memory(client, device):
    answers = Notes({"on": True})
    client.rpc("setLamp")(answers)
    assert rpc(client, device, "setLamp", True) == {"on": True}
    device.push_rpc("setLamp", True, request_id=0)
    run_until(client, lambda: len(device.rpc_replies) == 2)
    assert len(answers.calls) == 1
    assert sent(device) == [("v2/r/res/0", b'{"on":true}')] * 2


# --- what has no short topic ---


def test_a_claim_stays_where_it_is(client, device):
    client.claim_device("secret", 60000)
    flush(client)
    assert sent(device) == [
        ("v1/devices/me/claim", b'{"secretKey":"secret","durationMs":60000}'),
    ]
    assert device.claim == {"secretKey": "secret", "durationMs": 60000}


def test_plain_mqtt_goes_where_it_is_told(client, device):
    told = Notes()
    client.subscribe("v1/devices/me/attributes", told)
    client.publish("v1/devices/me/telemetry", '{"a":1}')
    flush(client)
    run_until(client, lambda: device.subscriptions)
    device.push_attributes({"b": 2})
    run_until(client, lambda: told.calls)
    assert told.calls == [("v1/devices/me/attributes", b'{"b":2}')]
    assert device.telemetry[0][1] == {"a": 1}


# --- reconnects ---


def test_what_was_not_acknowledged_is_sent_again_on_the_short_topic(server, client, device):
    server.faults.mute_puback = True
    client.rpc("add")(sum)
    client.send_telemetry(READING)
    client.send_attributes({"a": 1})
    call = device.call_rpc("add", [1, 2])
    run_until(client, lambda: len(device.messages) == 3)
    run_until(client, call.done)
    server.faults.mute_puback = False
    lose(client, device)
    run_until(client, lambda: client.connected and not client.pending_messages_count)
    topics = [topic for topic, *_ in device.messages]
    assert topics == ["v2/t", "v2/a", "v2/r/res/0"] * 2
    assert [is_again for *_, is_again in device.messages] == [False] * 3 + [True] * 3


def test_readings_of_an_outage_arrive_as_one_message(server, client, device):
    server.stop_listening()
    run_until(client, lambda: not client.connected)
    for number in range(3):
        client.send_telemetry({"n": number})
    run_for(client, 0.2)
    server.listen_again()
    run_until(client, lambda: client.connected and not client.pending_messages_count)
    assert [topic for topic, _ in sent(device)] == ["v2/t"]
    assert [values["n"] for _, values in device.telemetry] == [0, 1, 2]
    times = [ts for ts, _ in device.telemetry]
    assert times == sorted(set(times))


def test_subscriptions_and_questions_are_there_again_after_a_reconnect(server, client, device):
    server.faults.response_delay = 0.2
    told, answer = Notes(), Notes()
    client.rpc("add")(sum)
    client.subscribe_to_all_attributes(told)
    number = client.request_attributes(callback=answer)
    run_until(client, lambda: device.messages and not client.pending_messages_count)
    lose(client, device)
    run_until(client, lambda: answer.calls)
    assert answer.calls == [({}, None)]
    assert [topic for topic, _ in sent(device)] == ["v2/a/req/%d" % number] * 2
    assert sorted(device.subscriptions) == ["v2/a", "v2/a/res/+", "v2/r/req/+"]
    device.push_attributes({"b": 2})
    run_until(client, lambda: told.calls)
    assert rpc(client, device, "add", [1, 2]) == 3


# --- the wire ---


def listen_to_everything(client):
    client.rpc("add")(sum)
    client.subscribe_to_all_attributes(print)
    client.request_attributes("a", callback=print)
    client.send_rpc_call("getTime", callback=print)


def test_one_subscribe_is_right_behind_connect_and_names_all(proxy):
    with offline_client(proxy, compact=True) as client:
        listen_to_everything(client)
        client.connect()
        flush(client)
    travelled = sent_packets(proxy)
    kinds = [packet.type for packet in travelled]
    assert kinds[:2] == [CONNECT, SUBSCRIBE]
    assert kinds.count(SUBSCRIBE) == 1
    names = sorted(name for name, _ in travelled[1].filters)
    assert names == ["v2/a", "v2/a/res/+", "v2/r/req/+", "v2/r/res/+"]


def test_nothing_is_subscribed_that_nobody_listens_to(server, offline, device):
    offline.send_telemetry(READING)
    offline.send_attributes({"a": 1})
    offline.claim_device()
    offline.connect()
    flush(offline)
    assert device.subscriptions == {}
    assert packets(server) == ["CONNECT", "PUBLISH", "PUBLISH", "PUBLISH"]


def test_nothing_is_sent_that_nobody_reads(server, offline, device):
    """Each packet has its cause: a call of ours, or a message of QoS 1 that wants its PUBACK."""
    offline.rpc("add")(sum)
    offline.connect()
    offline.send_telemetry(READING)
    flush(offline)
    assert rpc(offline, device, "add", [1, 2]) == 3
    run_for(offline, 0.3)
    offline.disconnect()
    wait_until(lambda: not device.online)
    assert sorted(packets(server)) == sorted(
        ["CONNECT", "SUBSCRIBE", "PUBLISH", "PUBACK", "PUBLISH", "DISCONNECT"]
    )


def test_json_has_no_white_space(client, device):
    device.on_client_rpc = lambda method, params: params
    client.rpc("echo")(lambda params: params)
    nested = {"a": [1, {"b": None}], "c": {"d": 2.5}}
    client.send_telemetry([{"ts": 1700000000005, "values": nested}, nested])
    client.send_attributes(nested)
    client.request_attributes(("a", "b"), ("c", "d"))
    client.send_rpc_call("echo", nested)
    client.claim_device("secret", 60000)
    assert rpc(client, device, "echo", nested) == nested
    flush(client)
    payloads = [payload for _, payload in sent(device)]
    assert len(payloads) == 7  # readings with and without time travel apart
    assert [payload for payload in payloads if len(payload.split()) > 1] == []
    assert all(json.loads(payload) for payload in payloads)


@pytest.mark.parametrize("compact, topic", ((True, b"v2/t"), (False, b"v1/devices/me/telemetry")))
@pytest.mark.parametrize("quality_of_service", (0, 1))
def test_bytes_of_a_telemetry_message(proxy, compact, topic, quality_of_service):
    """Two of fixed header, two of the topic's length, at QoS 1 two of packet identifier."""
    with new_client(proxy, compact=compact) as client:
        del proxy.transcript[:]
        client.send_telemetry(READING, quality_of_service)
        flush(client)
        wait_until(proxy.received)
        assert len(proxy.received()) == 4 + len(topic) + 2 * quality_of_service + len(READING_JSON)
        assert topic in proxy.received()


def test_short_topics_save_19_bytes_a_message(proxy):
    sizes = []
    for compact in (False, True):
        with new_client(proxy, compact=compact) as client:
            del proxy.transcript[:]
            client.send_telemetry(READING)
            flush(client)
            sizes.append(len(proxy.received()))
    assert sizes == [59, 40]


def test_a_message_that_was_sent_again_is_as_short(server, proxy, device):
    server.faults.mute_puback = True
    with new_client(proxy, compact=True) as client:
        client.send_telemetry(READING)
        run_until(client, lambda: len(device.messages) == 1)
        server.faults.mute_puback = False
        del proxy.transcript[:]
        proxy.cut_now()
        run_until(client, lambda: not client.connected)
        run_until(client, lambda: client.connected and not client.pending_messages_count)
        _, again = sent_packets(proxy)
        assert (again.type, again.duplicate, again.quality_of_service) == (PUBLISH, True, 1)
        assert again.topic == "v2/t"
