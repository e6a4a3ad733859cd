# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The stand-in behaves like ThingsBoard: raw sockets for the odd cases, paho-mqtt as a peer."""

import asyncio
import json
import ssl
import subprocess
import sys
import threading
import time
import types
import urllib.request
from pathlib import Path

import paho.mqtt.client as paho
import pytest

import local_server
from local_server import LocalServer
from local_server.faults import Faults, Wire
from raw_peer import (
    WAIT_S,
    Peer,
    connect_packet,
    packet,
    puback,
    publish_packet,
    subscribe_packet,
    text,
)

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
RPC_REQUESTS = "v1/devices/me/rpc/request/+"
RPC_REQUEST = "v1/devices/me/rpc/request/"
RPC_RESPONSE = "v1/devices/me/rpc/response/"


@pytest.fixture
def device(server):
    return server.add_device("Roof", token="TOKEN")


@pytest.fixture
def peer(device, open_peer):
    """A connected device."""
    return open_peer().connect()


# --- CONNECT ---


@pytest.mark.parametrize(
    ("fields", "code"),
    (
        ({"username": "TOKEN"}, 0),
        ({"username": "TOKEN", "password": "any", "client_id": "any"}, 0),
        ({"username": "wrong"}, 5),
        ({"username": "wrong", "password": "any"}, 5),
        ({"password": "TOKEN"}, 5),
        ({"client_id": "someone"}, 2),
        ({"client_id": " "}, 5),
        ({}, 5),
    ),
)
@pytest.mark.parametrize("clean", (True, False))
def test_connack_code_and_session_present(device, open_peer, fields, code, clean):
    peer = open_peer()
    peer.send(connect_packet(clean=clean, **fields))
    assert peer.read() == bytes((0x20, 2, not clean, code))
    assert peer.is_closed() if code else peer.is_alive()
    assert device.connects == (code == 0)


@pytest.mark.parametrize(
    ("stored", "sent", "accepted"),
    (
        ({"username": "u"}, {"username": "u"}, True),
        ({"username": "u"}, {"username": "u", "password": "any", "client_id": "any"}, True),
        ({"username": "u", "password": "p"}, {"username": "u", "password": "p"}, True),
        ({"username": "u", "password": "p"}, {"username": "u", "password": "x"}, False),
        ({"username": "u", "password": "p"}, {"username": "u"}, False),
        ({"client_id": "c"}, {"client_id": "c"}, True),
        ({"client_id": "c"}, {"client_id": "c", "password": "any"}, True),
        ({"client_id": "c"}, {"client_id": "c", "username": "u"}, False),
        ({"client_id": "c", "username": "u"}, {"client_id": "c", "username": "u"}, True),
        ({"client_id": "c", "username": "u"}, {"client_id": "x", "username": "u"}, False),
        ({"client_id": "c", "username": "u"}, {"client_id": "c"}, False),
    ),
)
def test_mqtt_basic_checks_the_parts_that_are_stored(server, open_peer, stored, sent, accepted):
    shed = server.add_device("Shed", **stored)
    open_peer().send(connect_packet(**sent))
    if accepted:
        assert shed.wait(lambda d: d.online)
    else:
        assert shed.wait(lambda d: (None, "out", "CONNACK") in server.packets)
        assert not shed.online


def test_a_wrong_password_of_client_id_and_user_name_is_final(server, open_peer):
    server.add_device("Token", token="u")
    server.add_device("Basic", client_id="c", username="u", password="p")
    peer = open_peer()
    peer.send(connect_packet("c", "u", "wrong"))
    assert peer.read() == b"\x20\x02\x00\x05"


@pytest.mark.parametrize(
    "credentials",
    (
        {},
        {"password": "p"},
        {"client_id": "c", "password": "p"},
        {"token": "t", "username": "u"},
        {"token": "TOKEN"},
    ),
)
def test_credentials_that_thingsboard_does_not_save_are_refused(server, device, credentials):
    with pytest.raises(ValueError):
        server.add_device("Other", **credentials)


def test_a_second_connection_closes_the_first(device, open_peer):
    first = open_peer().connect(client_id="one")
    second = open_peer().connect(client_id="two")
    assert first.is_closed()
    assert second.is_alive()
    assert (device.online, device.connects) == (True, 2)


def test_devices_with_the_same_client_id_do_not_disturb_each_other(server, device, open_peer):
    server.add_device("Shed", token="OTHER")
    first = open_peer().connect(client_id="same")
    open_peer().connect("OTHER", client_id="same")
    assert first.is_alive()


def test_a_second_connect_is_answered_again(device, peer):
    peer.send(connect_packet(username="TOKEN"))
    assert peer.read() == b"\x20\x02\x00\x00"
    assert peer.is_alive()
    assert device.connects == 1


def test_nothing_is_kept_of_an_unclean_session(device, open_peer):
    first = open_peer()
    first.send(connect_packet("c", "TOKEN", clean=False), subscribe_packet((ATTRIBUTES, 1)))
    assert first.read() == b"\x20\x02\x01\x00"
    assert first.read() == b"\x90\x03\x00\x01\x01"
    first.close()
    assert device.wait(lambda d: not d.online)
    second = open_peer()
    second.send(connect_packet("c", "TOKEN", clean=False))
    assert second.read() == b"\x20\x02\x01\x00"
    assert device.push_attributes({"a": 1}) is False
    assert device.subscriptions == {}


def test_disconnect_closes(device, peer):
    peer.send(b"\xe0\x00")
    assert peer.is_closed()
    assert device.wait(lambda d: not d.online)


def test_malformed_bytes_close_silently(device, open_peer):
    peer = open_peer()
    peer.send(b"\x10\x0d" + text("MQTT") + b"\x05\x02\x00\x3c\x00\x00\x00")
    assert peer.is_closed()


# --- before the CONNACK ---


def test_100_packets_may_come_before_the_connack(server, device, open_peer):
    server.faults.connack_delay = 0.1
    peer = open_peer()
    publishes = [publish_packet(TELEMETRY, b'{"n":%d}' % n, packet_id=n) for n in range(1, 101)]
    peer.send(connect_packet(username="TOKEN"), *publishes)
    assert peer.read() == b"\x20\x02\x00\x00"
    assert [peer.read() for _ in publishes] == [puback(n) for n in range(1, 101)]
    assert [row["n"] for _, row in device.telemetry] == list(range(1, 101))


def test_101_packets_before_the_connack_close(server, device, open_peer):
    server.faults.connack_delay = 0.1
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN"), *[publish_packet(TELEMETRY, b"{}")] * 101)
    assert peer.is_closed()
    assert device.connects == 0


def test_packets_before_a_refusal_are_dropped(device, open_peer):
    peer = open_peer()
    peer.send(publish_packet(TELEMETRY, b"{}"), connect_packet(username="wrong"))
    assert peer.read() == b"\x20\x02\x00\x05"
    assert peer.is_closed()
    assert device.messages == []


def test_an_uncaught_error_before_the_connack_stops_only_the_queue(device, open_peer):
    peer = open_peer()
    bad = publish_packet(TELEMETRY, b'{"ts":null,"values":{}}', packet_id=1)
    good = publish_packet(TELEMETRY, b'{"a":1}', packet_id=2)
    peer.send(bad, good, connect_packet(username="TOKEN"))
    assert peer.read() == b"\x20\x02\x00\x00"
    assert peer.hears_nothing()
    peer.send(b"\xc0\x00")
    assert (peer.read(), peer.read()) == (puback(2), b"\xd0\x00")


def test_an_old_server_forgets_what_came_before_its_connack(server, device, open_peer):
    server.faults.ignore_before_connack = True
    server.faults.connack_delay = 0.05
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN"), publish_packet(TELEMETRY, b'{"a":1}'))
    assert peer.read() == b"\x20\x02\x00\x00"
    assert peer.is_alive()
    assert device.messages == []


@pytest.mark.parametrize(
    "early",
    (
        subscribe_packet((ATTRIBUTES, 1)),
        publish_packet(TELEMETRY, b'{"a":1}'),
        b"\xc0\x00",  # PINGREQ
        b"\xe0\x00",  # DISCONNECT
    ),
    ids=("SUBSCRIBE", "PUBLISH", "PINGREQ", "DISCONNECT"),
)
def test_a_strict_server_closes_when_something_comes_before_its_connack(
    server, device, open_peer, early
):
    server.faults.strict_before_connack = "close"
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN"))
    peer.send(early)
    assert peer.is_closed()
    assert (device.connects, device.messages) == (0, [])


def test_a_strict_server_may_never_answer_instead(server, device, open_peer):
    server.faults.strict_before_connack = "silence"
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN"), subscribe_packet((ATTRIBUTES, 1)))
    assert peer.hears_nothing()
    server.faults.strict_before_connack = None
    peer.send(b"\xc0\x00" * 101, connect_packet(username="TOKEN"))
    assert peer.hears_nothing()
    assert device.connects == 0


@pytest.mark.parametrize("strict", ("close", "silence"))
def test_a_strict_server_serves_who_waits_for_its_connack(server, device, open_peer, strict):
    server.faults.strict_before_connack = strict
    peer = open_peer().connect()
    assert peer.subscribe(ATTRIBUTES) == b"\x90\x03\x00\x01\x01"
    assert peer.is_alive()


# --- SUBSCRIBE ---

ACCEPTED_FILTERS = (
    "v1/devices/me/attributes",
    "v2/a",
    "v2/a/j",
    "v2/a/p",
    "v1/devices/me/rpc/request/+",
    "v2/r/req/+",
    "v2/r/req/j/+",
    "v2/r/req/p/+",
    "v1/devices/me/rpc/response/+",
    "v2/r/res/+",
    "v2/r/res/j/+",
    "v2/r/res/p/+",
    "v1/devices/me/attributes/response/+",
    "v2/a/res/+",
    "v2/a/res/j/+",
    "v2/a/res/p/+",
    "v2/fw/response/+/chunk/+",
    "v2/fw/error",
    "v2/sw/response/+/chunk/+",
    "v2/sw/error",
    "v1/gateway/attributes",
    "v1/gateway/rpc",
    "v1/gateway/attributes/response",
)
REFUSED_FILTERS = (
    "#",
    "+",
    "v1/devices/me/#",
    "v1/devices/me/+",
    "v1/devices/me/rpc/request/5",
    "v1/devices/me/rpc/request/#",
    "v1/devices/me/attributes/response/1",
    "v1/devices/me/telemetry",
    "v1/devices/me/rpc/error",
    "v1/devices/me/attributes/",
    "v2/#",
    "v2/+",
    "v2/t",
    "v2/t/j",
    "v2/a/+",
    "v2/a/res/1",
    "v2/a/req/+",
    "v2/r/req/#",
    "v2/r/req/5",
    "v2/r/res/j/5",
    "/provision/response",
)


def test_suback_grants_exactly_the_known_filters(device, peer):
    names = ACCEPTED_FILTERS + REFUSED_FILTERS
    codes = peer.subscribe(*names)[4:]
    assert codes == b"\x01" * len(ACCEPTED_FILTERS) + b"\x80" * len(REFUSED_FILTERS)
    assert device.subscriptions == dict.fromkeys(ACCEPTED_FILTERS, 1)
    assert peer.is_alive()


def test_suback_grants_qos_1_at_most(peer):
    peer.send(subscribe_packet((ATTRIBUTES, 0), (RPC_REQUESTS, 1), ("v2/a", 2), packet_id=77))
    assert peer.read() == b"\x90\x05\x00\x4d\x00\x01\x01"


def test_unsuback_always_comes(device, peer):
    peer.subscribe(ATTRIBUTES)
    peer.send(packet(0xA2, b"\x00\x05" + text(ATTRIBUTES) + text("never/subscribed")))
    assert peer.read() == b"\xb0\x02\x00\x05"
    assert device.subscriptions == {}
    assert device.push_attributes({"a": 1}) is False


def test_unsubscribing_one_flavour_stops_all(device, peer):
    peer.subscribe(ATTRIBUTES, "v2/a")
    peer.send(packet(0xA2, b"\x00\x05" + text(ATTRIBUTES)))
    peer.read()
    assert device.push_attributes({"a": 1}) is False


# --- PUBLISH ---


@pytest.mark.parametrize(
    "payload",
    (
        b"",
        b"null",
        b"5",
        b'"text"',
        b"[1]",
        b'[{"a":1},2]',
        b"{",
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":1 "b":2}',
        b'{"a":1} x',
        b'{"ts":1,"values":5}',
        b'{"ts":null,"values":{}}',
        b'{"ts":{},"values":{}}',
        b'{"ts":"soon","values":{}}',
        b'{"ts":"1.5e12","values":{}}',
        b'{"a":' + b"[" * 256 + b"]" * 256 + b"}",
    ),
)
@pytest.mark.parametrize("qos", (0, 1))
def test_invalid_telemetry_closes_without_puback(device, peer, payload, qos):
    peer.publish(TELEMETRY, payload, qos=qos)
    assert peer.is_closed()
    assert device.telemetry == []
    assert device.messages == [(TELEMETRY, payload, qos, False)]


@pytest.mark.parametrize("payload", (b"", b"[]", b'[{"a":1}]', b"7", b"{nope"))
def test_invalid_attributes_close_without_puback(device, peer, payload):
    peer.publish(ATTRIBUTES, payload)
    assert peer.is_closed()
    assert device.client_attributes == {}


def test_an_empty_list_is_never_acknowledged(peer):
    peer.publish(TELEMETRY, b"[]")
    assert peer.is_alive()


@pytest.mark.parametrize("payload", (b"{}", b'{"a":null}', b"[{}]"))
def test_nothing_to_store_is_acknowledged(device, peer, payload):
    peer.publish(TELEMETRY, payload, packet_id=9)
    assert peer.read() == puback(9)
    assert device.telemetry == []


@pytest.mark.parametrize(
    ("payload", "stored"),
    (
        (b'{"ts":1000,"values":{"a":1}}', [(1000, {"a": 1})]),
        (b'{"ts":"1000","values":{"a":1},"metadata":{}}', [(1000, {"a": 1})]),
        (b'{"ts":1.5e12,"values":{"a":1}}', [(1500000000000, {"a": 1})]),
        (b'[{"ts":1,"values":{"a":1}},{"ts":2,"values":{}}]', [(1, {"a": 1})]),
    ),
)
def test_telemetry_with_ts(device, peer, payload, stored):
    peer.publish(TELEMETRY, payload)
    assert peer.read() == puback(1)
    assert device.telemetry == stored


def test_telemetry_without_ts_has_the_time_of_the_server(device, peer):
    before = int(time.time() * 1000)
    peer.publish(TELEMETRY, b'[{"ts":5,"a":1},{"values":{"b":2}}]')
    assert peer.read() == puback(1)
    (first, one), (second, two) = device.telemetry
    assert (one, two) == ({"ts": 5, "a": 1}, {"values": {"b": 2}})
    assert before <= first <= second <= time.time() * 1000


def test_values_are_stored_as_thingsboard_does(device, peer):
    payload = b'{"a":"007","b":0.30000000000000004,"c":null,"d":NaN,"e":3.0,"f":{"g":[]}}'
    peer.publish(TELEMETRY, payload)
    peer.publish(ATTRIBUTES, payload, packet_id=2)
    assert (peer.read(), peer.read()) == (puback(1), puback(2))
    stored = {"a": 7, "b": "0.30000000000000004", "d": "NaN", "e": 3.0, "f": {"g": []}}
    assert [row for _, row in device.telemetry] == [stored]
    assert device.client_attributes == stored


def test_invalid_utf8_is_replaced(device, peer):
    peer.publish(TELEMETRY, b'{"k":"\xff"}')
    assert peer.read() == puback(1)
    assert device.telemetry[0][1] == {"k": "\ufffd"}


@pytest.mark.parametrize("key", (" ", "k" * 256, "<b>", "{{x}}"))
def test_a_bad_key_is_acknowledged_and_not_stored(device, peer, key):
    peer.publish(TELEMETRY, json.dumps({key: 1, "good": 2}).encode())
    assert peer.read() == puback(1)
    assert device.telemetry == []


@pytest.mark.parametrize(
    "topic",
    ("", "some/topic", "v1/devices/me/", "/provision/request", "v2/", "v2/t/x", "v2/c", "v2/r/req"),
)
def test_an_unknown_topic_is_acknowledged_and_dropped(device, peer, topic):
    peer.publish(topic, b"not json", packet_id=3)
    assert peer.read() == puback(3)
    assert device.messages == [(topic, b"not json", 1, False)]


def test_gateway_topics_are_neither_acknowledged_nor_closed(peer):
    peer.publish("v1/gateway/telemetry", b"not json")
    assert peer.is_alive()


def test_qos_2_is_answered_like_qos_1(device, peer):
    peer.publish(TELEMETRY, b'{"a":1}', qos=2, packet_id=4)
    assert peer.read() == puback(4)
    peer.send(b"\x62\x02\x00\x04")  # PUBREL
    assert peer.is_alive()


def test_a_message_sent_again_is_stored_twice(device, peer):
    peer.publish(TELEMETRY, b'{"a":1}')
    peer.publish(TELEMETRY, b'{"a":1}', dup=True)
    assert (peer.read(), peer.read()) == (puback(1), puback(1))
    assert len(device.telemetry) == 2
    assert [dup for *_, dup in device.messages] == [False, True]


def test_65536_bytes_after_the_header_pass_and_one_more_does_not(device, peer):
    around = len(publish_packet(TELEMETRY, b"", packet_id=1)) - 2
    payload = b'{"k":"%s"}' % (b"x" * (65536 - around - 8))
    assert len(payload) == 65509
    peer.publish(TELEMETRY, payload)
    assert peer.read() == puback(1)
    peer.publish(TELEMETRY, payload + b" ")
    assert peer.is_closed()
    assert len(device.telemetry) == 1


def test_old_telemetry_and_messages_are_dropped(server, open_peer):
    server.keep = 3
    device = server.add_device("Small", token="SMALL")
    peer = open_peer().connect("SMALL")
    for n in range(5):
        peer.publish(TELEMETRY, b'{"n":%d}' % n)
        peer.read()
    assert [row["n"] for _, row in device.telemetry] == [2, 3, 4]
    assert len(device.messages) == 3


# --- attributes ---


@pytest.fixture
def stocked(device, peer):
    """Its client attributes are a, b, "5" and true, its shared ones are b and c."""
    peer.publish(ATTRIBUTES, b'{"a":1,"b":{"x":[]},"5":5,"true":6}')
    assert peer.read() == puback(1)
    device.push_attributes({"b": 2.5, "c": "text"})
    return device


CLIENT = {"a": 1, "b": {"x": []}, "5": 5, "true": 6}
SHARED = {"b": 2.5, "c": "text"}


@pytest.mark.parametrize(
    ("request_payload", "response"),
    (
        (
            {"clientKeys": "a,b", "sharedKeys": "c"},
            {"client": {"a": 1, "b": {"x": []}}, "shared": {"c": "text"}},
        ),
        ({"clientKeys": "a"}, {"client": {"a": 1}}),
        ({"sharedKeys": "b,c"}, {"shared": SHARED}),
        ({"sharedKeys": "b,missing"}, {"shared": {"b": 2.5}}),
        ({"clientKeys": "missing", "sharedKeys": "b"}, {"shared": {"b": 2.5}}),
        ({"clientKeys": "missing"}, {}),
        ({"clientKeys": "a, b"}, {"client": {"a": 1}}),
        ({"clientKeys": "a,"}, {"client": {"a": 1}}),
        ({"clientKeys": ","}, {"client": CLIENT, "shared": SHARED}),
        ({}, {"client": CLIENT, "shared": SHARED}),
        ({"clientKeys": ["a"]}, {"client": {"a": 1}}),
        ({"clientKeys": 5}, {"client": {"5": 5}}),
        ({"clientKeys": True}, {"client": {"true": 6}}),
    ),
    ids=str,
)
def test_attribute_request_is_answered(stocked, peer, request_payload, response):
    peer.publish(ATTRIBUTES + "/request/42", json.dumps(request_payload).encode(), packet_id=2)
    assert peer.read() == puback(2)
    topic, payload, qos, _ = peer.read_publish()
    assert (topic, json.loads(payload), qos) == (ATTRIBUTES + "/response/42", response, 1)


@pytest.mark.parametrize(
    ("request_id", "payload"),
    (
        ("1", b'{"clientKeys":""}'),
        ("1", b'{"sharedKeys":"b,,c"}'),
        ("1", b'{"sharedKeys":",b"}'),
        ("-1", b"{}"),
    ),
)
def test_attribute_request_is_never_answered(stocked, peer, request_id, payload):
    peer.publish(ATTRIBUTES + "/request/" + request_id, payload, packet_id=2)
    assert peer.read() == puback(2)
    assert peer.is_alive()


@pytest.mark.parametrize(
    ("request_id", "payload"),
    (
        ("1", b'{"clientKeys":null}'),
        ("1", b'{"clientKeys":["a","b"]}'),
        ("1", b'{"clientKeys":{}}'),
        ("1", b"[]"),
        ("1", b""),
        ("1", b'"a"'),
        ("x", b"{}"),
        ("2147483648", b"{}"),
        ("", b"{}"),
    ),
)
def test_attribute_request_closes(stocked, peer, request_id, payload):
    peer.publish(ATTRIBUTES + "/request/" + request_id, payload)
    assert peer.is_closed()


def test_attributes_are_pushed_to_a_subscriber_only(device, peer):
    assert device.push_attributes({"missed": 1}) is False
    peer.subscribe(ATTRIBUTES, qos=0)
    assert device.push_attributes({"a": True, "b": "1.10", "c": 0.00001}) is True
    assert peer.read_publish() == (ATTRIBUTES, b'{"a":true,"b":1.1,"c":1.0E-5}', 0, None)
    assert device.delete_attributes(["a", "never"]) is True
    assert peer.read_publish() == (ATTRIBUTES, b'{"deleted":["a","never"]}', 0, None)
    assert device.shared_attributes == {"missed": 1, "b": 1.1, "c": 1e-5}


def test_attributes_that_the_device_publishes_are_not_echoed(device, peer):
    peer.subscribe(ATTRIBUTES)
    peer.publish(ATTRIBUTES, b'{"a":1}')
    assert peer.read() == puback(1)
    assert peer.is_alive()


# --- server-side RPC ---


def test_an_rpc_waits_for_the_subscription_and_counts_from_0(device, peer):
    first, second = device.call_rpc("getValue", True), device.call_rpc("other")
    assert (first.rpc_id, second.rpc_id) == (0, 1)
    assert peer.is_alive()
    assert peer.subscribe(RPC_REQUESTS) == b"\x90\x03\x00\x01\x01"
    assert peer.read_publish() == (RPC_REQUEST + "0", b'{"method":"getValue","params":true}', 1, 1)
    assert peer.read_publish() == (RPC_REQUEST + "1", b'{"method":"other","params":null}', 1, 2)
    peer.publish(RPC_RESPONSE + "1", b'{"b":2}', packet_id=5)
    peer.publish(RPC_RESPONSE + "0", b"", packet_id=6)
    assert (peer.read(), peer.read()) == (puback(5), puback(6))
    assert (first.result(WAIT_S), second.result(WAIT_S)) == (None, {"b": 2})
    assert device.rpc_replies == [(1, b'{"b":2}'), (0, b"")]


def test_an_unanswered_rpc_is_pushed_again_on_each_subscribe(device, peer, open_peer):
    future = device.call_rpc("m")
    for _ in range(2):
        assert peer.subscribe(RPC_REQUESTS)[0] == 0x90
        assert peer.read_publish()[0] == RPC_REQUEST + "0"
    again = open_peer().connect()
    again.subscribe(RPC_REQUESTS)
    assert again.read_publish()[0] == RPC_REQUEST + "0"
    again.publish(RPC_RESPONSE + "0", b"1")
    assert future.result(WAIT_S) == 1
    assert again.read() == puback(1)
    again.subscribe(RPC_REQUESTS)
    assert again.is_alive()


def test_rpc_without_a_reply_is_a_timeout(device, peer):
    with pytest.raises(TimeoutError):
        device.rpc("m", timeout=0.05)
    peer.subscribe(RPC_REQUESTS)
    assert peer.is_alive()


def test_a_late_or_unasked_reply_is_acknowledged_and_kept(device, peer):
    peer.publish(RPC_RESPONSE + "99", b"not json")
    assert peer.read() == puback(1)
    assert device.rpc_replies == [(99, b"not json")]


def test_a_reply_that_is_not_json_is_an_error_for_the_caller(device, peer):
    peer.subscribe(RPC_REQUESTS)
    future = device.call_rpc("m")
    peer.publish(RPC_RESPONSE + "0", b"not json")
    with pytest.raises(ValueError):
        future.result(WAIT_S)


def test_a_one_way_rpc_is_pushed_once(device, peer):
    assert device.push_rpc("held") == 0
    peer.subscribe(RPC_REQUESTS, qos=0)
    assert peer.read_publish() == (RPC_REQUEST + "0", b'{"method":"held","params":null}', 0, None)
    peer.subscribe(RPC_REQUESTS)
    assert peer.is_alive()


def test_an_rpc_id_can_be_used_again_on_purpose(device, peer):
    peer.subscribe(RPC_REQUESTS)
    assert device.push_rpc("m", 1) == 0
    assert device.push_rpc("m", 1, request_id=0) == 0
    assert peer.read_publish()[:2] == peer.read_publish()[:2]


def test_rpc_ids_start_at_0_after_a_restart(server, device):
    device.push_rpc("m")
    assert device.push_rpc("m") == 1
    server.restart_actors()
    assert device.push_rpc("m") == 0


def test_a_restart_forgets_pending_rpcs(server, device, peer):
    future = device.call_rpc("m")
    server.restart_actors()
    with pytest.raises(TimeoutError):
        future.result(0)
    peer.subscribe(RPC_REQUESTS)
    assert peer.is_alive()


def test_a_pending_rpc_ends_with_the_server(device, server):
    future = device.call_rpc("m")
    server.close()
    with pytest.raises(TimeoutError):
        future.result(0)


def test_packet_id_0_comes_after_65535_messages(server, device, open_peer):
    server.max_held_bytes = 1 << 24
    peer = open_peer().connect()

    def read_all():
        rest = b""
        while not rest.endswith(b"end"):
            rest = rest[-50:] + peer.socket.recv(1 << 20)

    peer.subscribe(ATTRIBUTES, qos=0)
    drain = threading.Thread(target=read_all)
    drain.start()

    session = device._record.session

    def push_many():
        for _ in range(65534):
            session.pushes.push_attributes({})

    device._server.call(push_many)
    device._server.inject(b"\x30\x05\x00\x00end")
    drain.join(30)
    peer.subscribe(ATTRIBUTES, qos=1)
    assert (device.push_attributes({"a": 1}), device.push_attributes({"a": 2})) == (True, True)
    assert (peer.read_publish()[3], peer.read_publish()[3]) == (65535, 0)


@pytest.mark.parametrize("order", ("reverse", "shuffle"))
def test_pending_rpcs_can_come_out_of_order(server, device, peer, order):
    server.faults.pending_rpc_order = order
    for _ in range(30):
        device.push_rpc("m")
    peer.subscribe(RPC_REQUESTS)
    came = [int(peer.read_publish()[0][len(RPC_REQUEST) :]) for _ in range(30)]
    assert sorted(came) == list(range(30))
    assert came != sorted(came)
    assert (came == sorted(came)[::-1]) is (order == "reverse")


def test_a_method_may_be_empty_and_waits_for_its_reply(device, peer):
    peer.subscribe(RPC_REQUESTS)
    future = device.call_rpc("")
    assert peer.read_publish()[:2] == (RPC_REQUEST + "0", b'{"method":"","params":null}')
    assert not future.done()
    peer.publish(RPC_RESPONSE + "0", b"1")
    assert future.result(WAIT_S) == 1


# --- client-side RPC ---


def test_client_rpc_is_answered_by_the_handler(device, peer):
    device.on_client_rpc = lambda method, params: {"did": method, "with": params}
    peer.publish(RPC_REQUEST + "7", b'{"method":"getTime","params":[1]}')
    assert peer.read() == puback(1)
    assert peer.read_publish() == (RPC_RESPONSE + "7", b'{"did":"getTime","with":[1]}', 1, 1)


def test_client_rpc_without_a_handler_times_out(server, device, peer):
    server.client_rpc_timeout_s = 0.05
    peer.publish("v2/r/req/7", b'{"method":"getTime"}')
    assert peer.read() == puback(1)
    assert peer.read_publish()[:2] == ("v2/r/res/7", b'{"error":"timeout"}')


def test_session_limits_are_answered_by_the_server(device, peer):
    device.on_client_rpc = lambda method, params: "unexpected"
    peer.publish(RPC_REQUEST + "7", b'{"method":"getSessionLimits","params":{}}')
    assert peer.read() == puback(1)
    assert peer.read_publish()[:2] == (
        RPC_RESPONSE + "7",
        b'{"maxPayloadSize":65536,"maxInflightMessages":100,"rateLimits":'
        b'{"messages":null,"telemetryMessages":null,"telemetryDataPoints":null}}',
    )


def test_session_limits_are_an_ordinary_rpc_on_a_v2_topic(device, peer):
    device.on_client_rpc = lambda method, params: method
    peer.publish("v2/r/req/j/7", b'{"method":"getSessionLimits"}')
    assert peer.read() == puback(1)
    assert peer.read_publish()[:2] == ("v2/r/res/j/7", b'"getSessionLimits"')


@pytest.mark.parametrize(
    ("request_id", "payload"),
    (
        ("x", b'{"method":"m"}'),
        ("1", b"{}"),
        ("1", b'{"method":null}'),
        ("1", b'{"method":{}}'),
        ("1", b"[]"),
        ("1", b""),
    ),
)
def test_client_rpc_that_closes(peer, request_id, payload):
    peer.publish(RPC_REQUEST + request_id, payload)
    assert peer.is_closed()


def test_a_handler_may_read_the_device_but_not_wait_for_it(device, peer):
    seen = []

    def handler(method, params):
        seen.append(device.messages[-1][1])
        with pytest.raises(RuntimeError):
            device.rpc("m")
        return device.push_attributes({"a": 1})

    device.on_client_rpc = handler
    peer.publish(RPC_REQUEST + "1", b'{"method":"m"}')
    assert peer.read() == puback(1)
    assert peer.read_publish()[:2] == (RPC_RESPONSE + "1", b"false")
    assert seen == [b'{"method":"m"}']


@pytest.mark.parametrize("reply", (lambda: 1 / 0, object))
def test_a_handler_that_fails_is_logged_and_times_out(server, device, peer, caplog, reply):
    server.client_rpc_timeout_s = 0.1
    device.on_client_rpc = lambda method, params: reply()
    peer.publish(RPC_REQUEST + "1", b'{"method":"m"}')
    assert peer.read() == puback(1)
    assert peer.read_publish()[1] == b'{"error":"timeout"}'
    assert "_answer_client_rpc" in caplog.text


# --- short topics ---

FLAVOURS = (  # of one message each: long, short, short and JSON
    (TELEMETRY, "v2/t", "v2/t/j"),
    (ATTRIBUTES, "v2/a", "v2/a/j"),
    (ATTRIBUTES + "/request/7", "v2/a/req/7", "v2/a/req/j/7"),
    (ATTRIBUTES + "/response/7", "v2/a/res/7", "v2/a/res/j/7"),
    (RPC_REQUEST + "0", "v2/r/req/0", "v2/r/req/j/0"),
    (RPC_RESPONSE + "0", "v2/r/res/0", "v2/r/res/j/0"),
)
TELEMETRIES, ATTRIBUTE_TOPICS, QUESTIONS, ANSWERS, CALLS, REPLIES = FLAVOURS


@pytest.mark.parametrize("topic", TELEMETRIES)
@pytest.mark.parametrize(
    ("payload", "stored"),
    (
        (b'{"a":1}', [{"a": 1}]),
        (b'[{"a":1},{"b":2}]', [{"a": 1}, {"b": 2}]),
        (b'{"ts":5,"values":{"a":1}}', [{"a": 1}]),
        (b'[{"ts":5,"values":{"a":1}},{"b":2}]', [{"a": 1}, {"b": 2}]),
    ),
)
def test_telemetry_in_every_shape_and_flavour(device, peer, topic, payload, stored):
    peer.publish(topic, payload)
    assert peer.read() == puback(1)
    assert [values for _, values in device.telemetry] == stored


@pytest.mark.parametrize("topic", TELEMETRIES + ATTRIBUTE_TOPICS)
def test_an_invalid_payload_closes_in_every_flavour(peer, topic):
    peer.publish(topic, b"5")
    assert peer.is_closed()


@pytest.mark.parametrize("topic", ATTRIBUTE_TOPICS)
def test_client_attributes_in_every_flavour(device, peer, topic):
    peer.publish(topic, b'{"a":1}')
    assert peer.read() == puback(1)
    assert device.client_attributes == {"a": 1}


@pytest.mark.parametrize(("question", "answer"), zip(QUESTIONS, ANSWERS))
def test_an_attribute_response_has_the_flavour_of_its_request(stocked, peer, question, answer):
    peer.publish(question, b'{"clientKeys":"a","sharedKeys":"c"}')
    assert peer.read() == puback(1)
    assert peer.read_publish()[:2] == (answer, b'{"client":{"a":1},"shared":{"c":"text"}}')


@pytest.mark.parametrize("topic", ("v2/a/req/", "v2/a/req/j/", "v2/a/req/x", "v2/r/res/x"))
def test_a_short_topic_without_a_number_closes(peer, topic):
    peer.publish(topic, b"{}")
    assert peer.is_closed()


@pytest.mark.parametrize("topic", ATTRIBUTE_TOPICS)
def test_attribute_pushes_have_the_flavour_subscribed_last(device, peer, topic):
    peer.subscribe(*(other for other in ATTRIBUTE_TOPICS if other != topic), topic)
    assert device.push_attributes({"a": 1}) is True
    assert peer.read_publish()[:2] == (topic, b'{"a":1}')
    assert device.delete_attributes(["a"]) is True
    assert peer.read_publish()[:2] == (topic, b'{"deleted":["a"]}')


@pytest.mark.parametrize(("call", "reply"), zip(CALLS, REPLIES))
def test_rpc_calls_have_the_flavour_subscribed_last(device, peer, call, reply):
    filters = [topic[:-1] + "+" for topic in CALLS]
    peer.subscribe(*filters)
    peer.subscribe(call[:-1] + "+")
    future = device.call_rpc("getValue", True)
    assert peer.read_publish()[:2] == (call, b'{"method":"getValue","params":true}')
    peer.publish(reply, b'{"value":1}')
    assert peer.read() == puback(1)
    assert future.result(WAIT_S) == {"value": 1}


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_counts_in_any_flavour(device, peer, reply):
    peer.subscribe("v2/r/req/+")
    future = device.call_rpc("getValue")
    assert peer.read_publish()[0] == "v2/r/req/0"
    peer.publish(reply, b"1")
    assert future.result(WAIT_S) == 1


@pytest.mark.parametrize(("call", "reply"), zip(CALLS, REPLIES))
def test_a_client_rpc_is_answered_in_its_own_flavour(device, peer, call, reply):
    device.on_client_rpc = lambda method, params: [method, params]
    peer.publish(call, b'{"method":"getTime","params":1}')
    assert peer.read() == puback(1)
    assert peer.read_publish()[:2] == (reply, b'["getTime",1]')


def test_a_response_that_is_late_has_the_flavour_of_the_last_request(server, device, peer):
    """The server remembers one flavour for each kind of request, not one for each request."""
    server.faults.response_delay = 0.05
    server.client_rpc_timeout_s = 0.1
    peer.publish("v2/a/req/1", b"{}")
    peer.publish(ATTRIBUTES + "/request/2", b"{}")
    peer.publish(RPC_REQUEST + "3", b'{"method":"m"}')
    peer.publish("v2/r/req/4", b'{"method":"m"}')
    assert [peer.read() for _ in range(4)] == [puback(1)] * 4
    assert sorted(peer.read_publish()[0] for _ in range(4)) == [
        ATTRIBUTES + "/response/1",
        ATTRIBUTES + "/response/2",
        "v2/r/res/3",
        "v2/r/res/4",
    ]


@pytest.mark.parametrize(
    "topic",
    ("v2/t/p", "v2/a/p", "v2/a/req/p/1", "v2/r/req/p/1", "v2/r/res/p/1"),
)
def test_json_on_a_protobuf_topic_closes(peer, topic):
    peer.publish(topic, b"{}")
    assert peer.is_closed()


# --- claim ---


@pytest.mark.parametrize(
    ("payload", "claim"),
    (
        (b"", {"secretKey": "", "durationMs": 86400000}),
        (b"{}", {"secretKey": "", "durationMs": 86400000}),
        (b'{"secretKey":"s","durationMs":60000}', {"secretKey": "s", "durationMs": 60000}),
        (b'{"secretKey":"s","durationMs":0}', {"secretKey": "s", "durationMs": 86400000}),
    ),
)
def test_the_first_claim_stays(device, peer, payload, claim):
    for _ in range(2):
        peer.publish("v1/devices/me/claim", payload)
        assert peer.read() == puback(1)
        assert device.claim == claim
        payload = b'{"secretKey":"another"}'


@pytest.mark.parametrize(
    "payload", (b"[]", b"7", b'{"secretKey":null}', b'{"durationMs":null}', b'{"durationMs":"x"}')
)
def test_a_claim_that_closes(device, peer, payload):
    peer.publish("v1/devices/me/claim", payload)
    assert peer.is_closed()
    assert device.claim is None


NOW_MS = 1700000000000


@pytest.fixture
def claim(server, device, peer):
    """Publish a claim, so many seconds later."""

    def publish(payload, at_s=0):
        server.clock_ms = lambda: NOW_MS + at_s * 1000
        peer.publish("v1/devices/me/claim", payload)
        assert peer.read() == puback(1)

    return publish


@pytest.mark.parametrize("key", ("s", ""))
def test_a_customer_claims_with_the_right_key(device, claim, key):
    claim(json.dumps({"secretKey": key}).encode())
    assert device.customer_claims(key) == "SUCCESS"
    assert device.claim is None
    claim(b"{}")
    assert device.claim is None  # it belongs to the customer, and another claim is ignored
    assert device.customer_claims() == "CLAIMED"


def test_nothing_can_be_claimed_without_a_claim_of_the_device(device):
    assert device.customer_claims() == "FAILURE"


def test_an_attempt_with_a_wrong_key_deletes_the_claim(device, claim):
    claim(b'{"secretKey":"s"}')
    assert device.customer_claims("wrong") == "FAILURE"
    assert device.claim is None
    assert device.customer_claims("s") == "FAILURE"
    claim(b'{"secretKey":"s"}')
    assert device.customer_claims("s") == "SUCCESS"


def test_a_claim_that_is_over_blocks_the_next_until_an_attempt(server, device, claim):
    over = {"secretKey": "s", "durationMs": 60000}
    claim(b'{"secretKey":"s","durationMs":60000}')
    claim(b'{"secretKey":"new"}', at_s=61)
    assert device.claim == over
    assert device.customer_claims("s") == "FAILURE"
    claim(b'{"secretKey":"new"}', at_s=62)
    assert device.customer_claims("new") == "SUCCESS"


def test_a_claim_holds_until_its_duration_is_over(server, device, claim):
    claim(b'{"secretKey":"s","durationMs":60000}')
    server.clock_ms = lambda: NOW_MS + 60000
    assert device.customer_claims("s") == "SUCCESS"


def test_a_claim_is_forgotten_after_a_day(server, device, claim):
    claim(b'{"secretKey":"s","durationMs":%d}' % (7 * 86400000))
    claim(b'{"secretKey":"new"}', at_s=86399)
    assert device.claim["secretKey"] == "s"
    claim(b'{"secretKey":"new"}', at_s=86400)
    assert device.claim["secretKey"] == "new"


# --- limits ---


def test_a_rate_limited_publish_closes_without_puback(device, peer):
    device.rate_limited = True
    peer.publish(TELEMETRY, b'{"a":1}')
    assert peer.is_closed()
    assert device.telemetry == []


def test_a_rate_limit_spares_session_limits_and_unknown_topics(device, peer):
    device.rate_limited = True
    peer.publish(RPC_REQUEST + "1", b'{"method":"getSessionLimits"}')
    assert peer.read() == puback(1)
    assert peer.read_publish()[0] == RPC_RESPONSE + "1"
    peer.publish("unknown", b"")
    assert peer.read() == puback(1)
    assert peer.is_alive()


def test_a_rate_limit_swallows_a_subscription_behind_its_suback(device, peer):
    device.rate_limited = True
    assert peer.subscribe(ATTRIBUTES) == b"\x90\x03\x00\x01\x01"
    assert device.push_attributes({"a": 1}) is False


def test_a_rate_limit_refuses_connect_with_code_3(device, open_peer):
    device.rate_limited = True
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN"))
    assert peer.read() == b"\x20\x02\x00\x03"
    assert peer.is_closed()


def test_an_inactive_session_is_closed(server, device, open_peer):
    unconnected, peer = open_peer(), open_peer().connect()
    server.inactivity_s = 0.3
    assert peer.is_closed()
    assert unconnected.hears_nothing()


@pytest.mark.parametrize(
    "sent",
    (
        b"\xc0\x00",
        publish_packet("unknown", b""),
        subscribe_packet(("unknown", 0)),
        packet(0xA2, b"\x00\x05" + text("unknown")),
    ),
    ids=("PINGREQ", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"),
)
def test_whatever_is_handled_is_activity(device, peer, sent):
    session = device._record.session
    before = session.active_at
    peer.send(sent)
    peer.read()
    assert session.active_at > before


def test_a_puback_is_activity_only_if_it_is_that_of_an_rpc(device, peer):
    peer.subscribe(ATTRIBUTES, RPC_REQUESTS)
    session = device._record.session
    device.push_attributes({"a": 1})
    device.push_rpc("m")
    attributes_id, rpc_id = (peer.read_publish()[3] for _ in range(2))
    seen = []
    for packet_id in (attributes_id, rpc_id, rpc_id):
        before, handled = session.active_at, len(device._server.packets)
        peer.send(puback(packet_id))
        assert device.wait(lambda d, n=handled: len(d._server.packets) > n)
        seen.append(session.active_at > before)
    assert seen == [False, True, False]


# --- the server goes and comes ---


@pytest.mark.parametrize("rst", (False, True))
def test_disconnect_by_the_server(device, peer, rst):
    assert device.disconnect(rst=rst) is True
    assert peer.ends_with_reset() is rst
    assert not device.online
    assert device.disconnect() is False


def test_a_connection_accepted_while_the_server_goes_down_is_reset(server, device, open_peer):
    server.board.is_listening = False
    with pytest.raises(ConnectionResetError):  # perhaps already while it connects
        open_peer().socket.recv(1)


@pytest.mark.parametrize("rst", (False, True))
def test_a_server_that_is_down_refuses_and_comes_back_with_its_data(
    server, device, peer, open_peer, rst
):
    peer.publish(TELEMETRY, b'{"a":1}')
    peer.read()
    port = server.port
    server.stop_listening(rst=rst)
    assert peer.ends_with_reset() is rst
    assert (server.connections, device.online) == (0, False)
    with pytest.raises(ConnectionRefusedError):
        open_peer()
    server.listen_again()
    assert server.port == port
    open_peer().connect()
    assert len(device.telemetry) == 1
    assert (server.connections, server.accepted) == (1, 2)


def test_a_port_that_is_taken_is_an_error(server):
    other = LocalServer(port=server.port)
    with pytest.raises(OSError):
        other.start()


def test_data_stay_readable_after_the_end(server, device, peer):
    peer.publish(TELEMETRY, b'{"a":1}')
    peer.read()
    server.close()
    server.close()
    assert device.telemetry[0][1] == {"a": 1}
    assert device.online is False


def test_run_by_hand():
    command = [sys.executable, "-m", "local_server", "--device", "Roof=T1", "--device", "Shed=T2"]
    directory = Path(local_server.__file__).parent.parent
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            port = int(line.partition("MQTT: 127.0.0.1:")[2].partition(",")[0])
            peer = Peer(types.SimpleNamespace(port=port)).connect("T2")
            assert peer.is_alive()
            peer.close()
            url = line.partition("page: ")[2].partition(",")[0]
            with urllib.request.urlopen(url, timeout=WAIT_S) as response:
                assert b"Shed" in response.read()
        finally:
            process.terminate()


def test_packets_are_listed(server, device, peer):
    peer.subscribe(ATTRIBUTES)
    assert server.packets == [
        (None, "in", "CONNECT"),
        ("Roof", "out", "CONNACK"),
        ("Roof", "in", "SUBSCRIBE"),
        ("Roof", "out", "SUBACK"),
    ]


def test_the_list_of_packets_is_bounded(server, peer):
    peer.send(b"\xc0\x00" * 5001)
    for _ in range(5001):
        assert peer.read() == b"\xd0\x00"
    assert server.packets == [("Roof", "in", "PINGREQ"), ("Roof", "out", "PINGRESP")] * 5000


def test_wait_says_whether_the_condition_came_true(device, peer):
    assert device.wait(lambda d: d.online) is True
    assert device.wait(lambda d: d.telemetry, timeout=0.01) is False
    threading.Timer(0.02, peer.publish, (TELEMETRY, b'{"a":1}')).start()
    assert device.wait(lambda d: d.telemetry)


# --- faults ---


def test_connack_code_on_purpose(server, device, open_peer):
    server.faults.connack = 4
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN"))
    assert peer.read() == b"\x20\x02\x00\x04"
    assert peer.is_closed()


def test_connack_close_and_silence(server, device, open_peer):
    server.faults.connack = "close"
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN"))
    assert peer.is_closed()
    server.faults.connack = "silence"
    peer = open_peer()
    peer.send(connect_packet(username="TOKEN"))
    assert peer.hears_nothing()


def test_a_silent_server_handles_nothing(server, device, peer):
    server.faults.silent = True
    peer.send(b"\xc0\x00", publish_packet(TELEMETRY, b'{"a":1}'))
    assert peer.hears_nothing()
    server.faults.silent = False
    assert peer.is_alive()
    assert device.messages == []


def test_pubacks_can_be_muted(server, device, peer):
    server.faults.mute_puback = True
    peer.publish(TELEMETRY, b'{"a":1}')
    assert peer.is_alive()
    assert len(device.telemetry) == 1


def test_pubacks_can_be_late(server, peer):
    server.faults.puback_delay = 0.05
    peer.publish(TELEMETRY, b"{}")
    assert peer.is_alive()  # the PINGRESP overtakes the PUBACK
    assert peer.read() == puback(1)


def test_pubacks_can_come_twice(server, peer):
    server.faults.puback_twice = True
    peer.publish(TELEMETRY, b"{}")
    assert (peer.read(), peer.read()) == (puback(1), puback(1))


def test_pubacks_can_come_in_reverse_and_a_partial_batch_comes_soon(server, peer):
    server.faults.puback_order, server.faults.puback_batch = "reverse", 3
    peer.send(*(publish_packet(TELEMETRY, b"{}", packet_id=n) for n in range(1, 6)))
    assert [peer.read() for _ in range(5)] == [puback(n) for n in (3, 2, 1, 5, 4)]
    peer.publish(TELEMETRY, b"{}", packet_id=6)
    assert peer.read() == puback(6)


def test_pubacks_can_be_shuffled(server, peer):
    server.faults.puback_order, server.faults.puback_batch = "shuffle", 100
    sent = range(1, 101)
    peer.send(*(publish_packet(TELEMETRY, b"{}", packet_id=n) for n in sent))
    came = [peer.read() for _ in sent]
    assert sorted(came) == [puback(n) for n in sent]
    assert came != sorted(came)


def test_everything_can_be_late_in_order(server, peer):
    server.faults.delay = 0.1
    started = time.monotonic()
    peer.send(publish_packet(TELEMETRY, b"{}"), b"\xc0\x00")
    assert peer.read() == puback(1)
    assert time.monotonic() - started >= 0.1
    server.faults.delay = 0
    assert peer.read() == b"\xd0\x00"
    assert peer.is_alive()


def test_a_close_waits_for_late_bytes(server, device, open_peer):
    server.faults.delay = 0.05
    peer = open_peer()
    peer.send(connect_packet(username="wrong"))
    assert peer.read() == b"\x20\x02\x00\x05"
    assert peer.is_closed()


def test_outgoing_bytes_can_come_in_pieces(server, device, peer):
    peer.subscribe(ATTRIBUTES)
    server.faults.chunk = 1
    device.push_attributes({"a": 1})
    assert len(peer.socket.recv(1)) == 1
    server.faults.chunk = 0
    rest = b""
    while not rest.endswith(b'{"a":1}'):
        rest += peer.socket.recv(100)
    assert peer.is_alive()


def test_drop_on_resets_once(server, device, peer, open_peer):
    server.faults.drop_on = "PUBLISH"
    assert peer.is_alive()
    peer.publish(TELEMETRY, b'{"a":1}')
    assert peer.ends_with_reset()
    assert server.faults.drop_on is None
    assert device.messages == []


def test_close_on_closes_as_long_as_it_is_set(server, device, open_peer):
    server.faults.close_on = b"poison"
    for _ in range(2):
        peer = open_peer().connect()
        peer.publish(TELEMETRY, b'{"good":1}')
        assert peer.read() == puback(1)
        peer.publish(TELEMETRY, b'{"poison":1}')
        assert peer.is_closed()
    assert [row for _, row in device.telemetry] == [{"good": 1}] * 2
    assert len(device.messages) == 4


def test_a_push_can_precede_the_suback(server, device, peer):
    server.faults.push_before_suback = True
    device.call_rpc("m")
    peer.send(subscribe_packet((RPC_REQUESTS, 0)))
    assert peer.read_publish()[0] == RPC_REQUEST + "0"
    assert peer.read() == b"\x90\x03\x00\x01\x00"


def test_responses_can_be_late_and_twice(server, peer):
    server.faults.response_delay, server.faults.response_twice = 0.05, True
    peer.publish(ATTRIBUTES + "/request/1", b"{}")
    assert peer.read() == puback(1)
    assert peer.is_alive()  # the PINGRESP overtakes the response
    assert peer.read_publish()[:2] == peer.read_publish()[:2] == (ATTRIBUTES + "/response/1", b"{}")
    server.faults.response_delay = 0
    peer.publish(ATTRIBUTES + "/request/2", b"{}")
    assert peer.read() == puback(1)
    assert peer.read_publish()[:2] == peer.read_publish()[:2] == (ATTRIBUTES + "/response/2", b"{}")
    assert peer.is_alive()


@pytest.mark.parametrize("delay", (0, 0.02))
def test_a_response_can_precede_its_puback(server, device, peer, delay):
    server.faults.response_before_puback, server.faults.response_delay = True, delay
    device.on_client_rpc = lambda method, params: method
    for topic, payload in (
        (ATTRIBUTES + "/request/1", b"{}"),
        (RPC_REQUEST + "1", b'{"method":"m"}'),
    ):
        peer.publish(topic, payload, packet_id=8)
        assert peer.read_publish()[0] == topic.replace("request", "response")
        assert peer.read() == puback(8)


def test_small_packets_leave_at_once(server, peer):
    started = time.monotonic()
    for _ in range(20):
        peer.publish(TELEMETRY, b"{}")
        peer.publish(TELEMETRY, b"{}")
        assert (peer.read(), peer.read()) == (puback(1), puback(1))
    # With Nagle's algorithm each second PUBACK would wait 40 ms for an ACK of the first.
    assert time.monotonic() - started < 0.4


def test_raw_bytes_can_be_injected(server, peer):
    server.inject(b"\xff\x00")
    assert peer.read() == b"\xff\x00"


# --- TLS, other clients, many devices ---


@pytest.fixture
def client_context(certificates):
    return ssl.create_default_context(cafile=certificates.ca)


def test_tls_carries_messages_both_ways(tls_server, client_context):
    device = tls_server.add_device("Roof", token="TOKEN")
    peer = Peer(tls_server, client_context).connect()
    peer.publish(TELEMETRY, b'{"a":1}')
    assert peer.read() == puback(1)
    assert len(device.telemetry) == 1
    device.disconnect()
    assert peer.is_closed()
    assert device.wait(lambda d: tls_server.connections == 0)
    peer.close()


def test_a_tls_server_can_reset_and_go_down(tls_server, client_context):
    tls_server.add_device("Roof", token="TOKEN")
    for rst in (True, False):
        peer = Peer(tls_server, client_context).connect()
        tls_server.stop_listening(rst=rst)
        assert peer.is_closed()
        assert tls_server.connections == 0
        tls_server.listen_again()
        peer.close()


class ForgetfulTransport:
    """As asyncio's TLS transport: closed once more, it can't say any more what it was."""

    def __init__(self):
        self.is_open = True

    def get_extra_info(self, name):
        assert self.is_open
        return object()

    def close(self):
        self.is_open = False

    def abort(self):
        pass


def test_a_tls_session_may_be_closed_already_when_the_server_closes_it():
    loop = asyncio.new_event_loop()
    Wire(loop, ForgetfulTransport(), Faults()).close()
    loop.close()


def test_plain_bytes_on_a_tls_port_are_refused(tls_server):
    peer = Peer(tls_server)
    peer.send(connect_packet(username="TOKEN"))
    assert b"\x20\x02" not in peer.socket.recv(100)
    peer.close()


class PahoDevice:
    """An independent client that answers every RPC with its params."""

    def __init__(self, server, token):
        self.received = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, "same")
        self.client.username_pw_set(token)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", server.port)
        self.client.loop_start()

    def _on_connect(self, client, *_rest):
        client.subscribe([(RPC_REQUESTS, 1), (ATTRIBUTES, 1)])

    def _on_message(self, client, _userdata, message):
        self.received.append(message.topic)
        if message.topic.startswith(RPC_REQUEST):
            params = json.loads(message.payload)["params"]
            client.publish(message.topic.replace("request", "response"), json.dumps(params), 1)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def test_two_paho_devices_do_not_cross(server):
    devices = [server.add_device(name, token=name) for name in ("A", "B")]
    clients = [PahoDevice(server, device.name) for device in devices]
    assert [device.rpc("m", device.name) for device in devices] == ["A", "B"]
    sent = clients[0].client.publish(TELEMETRY, '{"a":1}', 1)
    sent.wait_for_publish(WAIT_S)
    assert [len(device.telemetry) for device in devices] == [1, 0]
    assert devices[1].push_attributes({"a": 1})
    assert devices[1].wait(lambda d: ATTRIBUTES in clients[1].received)
    assert ATTRIBUTES not in clients[0].received
    for client in clients:
        client.close()


def test_1000_devices_connect_and_answer_an_rpc_each(server, open_peer):
    devices = [server.add_device("D%d" % n, token="T%d" % n) for n in range(1000)]
    futures = [device.call_rpc("m", device.name, timeout=30) for device in devices]
    peers = [open_peer() for _ in devices]
    for number, peer in enumerate(peers):
        peer.send(connect_packet(username="T%d" % number), subscribe_packet((RPC_REQUESTS, 1)))
    for peer in peers:
        assert (peer.read()[0], peer.read()[0]) == (0x20, 0x90)
        topic, payload, _, packet_id = peer.read_publish()
        reply = json.dumps(json.loads(payload)["params"]).encode()
        peer.send(puback(packet_id), publish_packet(topic.replace("request", "response"), reply))
    assert [future.result(WAIT_S) for future in futures] == [device.name for device in devices]
    assert server.connections == 1000
