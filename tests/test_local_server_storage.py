# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the stand-in stores, and what of it a running ThingsBoard was seen to lose."""

import json

import pytest

from raw_peer import puback

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
NOW_MS = 1700000000000


@pytest.fixture
def send(peer):
    """Publish telemetry and see it acknowledged."""

    def publish(*payloads):
        for payload in payloads:
            peer.publish(TELEMETRY, payload)
            assert peer.read() == puback(1)

    return publish


# --- one value per key and millisecond ---


def test_of_two_values_in_one_millisecond_the_later_is_stored(server, device, send):
    server.clock_ms = lambda: NOW_MS
    send(b'{"a":1,"b":1}', b'{"a":2}')
    assert device.stored("a") == [(NOW_MS, 2)]
    assert device.stored("b") == [(NOW_MS, 1)]
    assert [row for _, row in device.telemetry] == [{"a": 1, "b": 1}, {"a": 2}]


def test_a_millisecond_between_two_values_keeps_both(server, device, send):
    times = iter((NOW_MS, NOW_MS + 1))
    server.clock_ms = lambda: next(times)
    send(b'{"a":1}', b'{"a":2}')
    assert device.stored("a") == [(NOW_MS, 1), (NOW_MS + 1, 2)]


def test_values_with_their_own_times_are_all_kept_and_sorted(server, device, send):
    send(b'[{"ts":3,"values":{"a":1}},{"ts":1,"values":{"a":2}},{"ts":2,"values":{"a":3}}]')
    assert device.stored("a") == [(1, 2), (2, 3), (3, 1)]
    assert device.timeseries == {"a": [(1, 2), (2, 3), (3, 1)]}


def test_rows_of_one_list_without_times_replace_each_other(server, device, send):
    server.clock_ms = lambda: NOW_MS
    send(b'[{"a":1},{"a":2},{"ts":%d,"values":{"a":3}}]' % NOW_MS)
    assert device.timeseries == {"a": [(NOW_MS, 3)]}
    assert len(device.telemetry) == 3


def test_a_reading_that_comes_again_is_stored_again_unless_it_has_a_time(server, device, send):
    times = iter((NOW_MS, NOW_MS, NOW_MS + 5, NOW_MS + 5))
    server.clock_ms = lambda: next(times)
    send(*[b'{"ts":7,"values":{"timed":1}}', b'{"untimed":1}'] * 2)
    assert device.stored("timed") == [(7, 1)]
    assert device.stored("untimed") == [(NOW_MS, 1), (NOW_MS + 5, 1)]


def test_the_latest_value_is_that_of_the_latest_time(server, device, send):
    assert device.latest("a") is None
    send(b'{"ts":5,"values":{"a":"new"}}', b'{"ts":4,"values":{"a":"old"}}')
    assert device.latest("a") == "new"


def test_the_values_that_came_first_leave_a_full_database(server, open_peer):
    server.keep = 3
    small = server.add_device("Small", token="SMALL")
    peer = open_peer().connect("SMALL")
    for ts, key in ((9, b"a"), (1, b"b"), (2, b"b"), (1, b"b"), (3, b"b")):
        peer.publish(TELEMETRY, b'{"ts":%d,"values":{"%s":%d}}' % (ts, key, ts))
        peer.read()
    assert small.timeseries == {"b": [(1, 1), (2, 2), (3, 3)]}


# --- keys that lose their message ---

LOST = ("a<b", "<b>", "a<b>c", "T<sub>in</sub>", "{{x}}", "x{{y}}z", "{{\n}}", " ", "", "k" * 256)
KEPT = (
    *("a>b", "a&b", "{{x", "<", "{x}", "PM<2.5", "'", '"', "a,b", "a\tb", " a", "}}{{"),
    *("ts", "values", "deleted", "k" * 255),
)


def publish_both(peer, values):
    for topic in (TELEMETRY, ATTRIBUTES):
        peer.publish(topic, json.dumps(values).encode())
        assert peer.read() == puback(1)


@pytest.mark.parametrize("key", LOST)
def test_a_key_like_markup_loses_its_acknowledged_message(device, peer, key):
    publish_both(peer, {"good": 1, key: 2})
    assert device.telemetry == []
    assert device.timeseries == {}
    assert device.client_attributes == {}


@pytest.mark.parametrize("key", KEPT)
def test_a_key_that_only_looks_odd_is_stored(device, peer, key):
    publish_both(peer, {"good": 1, key: 2})
    assert (device.latest("good"), device.latest(key)) == (1, 2)
    assert device.client_attributes == {"good": 1, key: 2}


@pytest.mark.parametrize("text", (*LOST, *KEPT))
def test_a_value_may_hold_what_a_key_may_not(device, peer, text):
    publish_both(peer, {"k": text})
    assert device.latest("k") == text
    assert device.client_attributes == {"k": text}


def test_a_bad_key_loses_its_own_row_of_a_list_alone(device, send):
    # The server makes a message for the rule engine of each row (DefaultTransportService).
    send(b'[{"ts":1,"values":{"a":1,"<b>":1}},{"ts":2,"values":{"a":2}}]')
    assert device.timeseries == {"a": [(2, 2)]}


# --- what the database can't hold ---


def test_u0000_is_taken_out_of_text(device, peer):
    publish_both(peer, {"k": "\0a\0b\0", "5": "\0005", "json": ["\0"], "n": 5})
    stored = {"k": "ab", "5": "5", "json": ["\0"], "n": 5}
    assert {key: device.latest(key) for key in stored} == stored
    assert device.client_attributes == stored
    assert device.telemetry[0][1]["k"] == "\0a\0b\0"
    device.push_attributes({"k": "a\0b"})
    assert device.shared_attributes == {"k": "ab"}


@pytest.mark.parametrize(
    ("sent", "stored"),
    (
        ({"a": None, "b": [None, {"c": None, "d": [None]}]}, {"b": [None, {"d": [None]}]}),
        ([None, {"a": None}], [None, {}]),
        ({"a": None}, {}),
    ),
)
def test_null_members_of_objects_disappear_and_null_in_a_list_stays(device, peer, sent, stored):
    publish_both(peer, {"k": sent})
    assert device.latest("k") == stored
    assert device.client_attributes == {"k": stored}
    assert device.telemetry[0][1] == {"k": sent}
