# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Telemetry: what may be sent, what is refused, and what the server makes of it."""

import json
import time

import pytest

from clients import TELEMETRY, LogNotes, Notes, offline_client, online_client, values
from helpers import run_until

NAN = float("nan")
INFINITY = float("inf")
TS = 1700000000000


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def endless():
    value = []
    value.append(value)
    return value


def send(client, *arguments):
    """Send telemetry, and poll until the server has acknowledged all."""
    message_id = client.send_telemetry(*arguments)
    assert client.flush(5)
    return message_id


# --- the four shapes ---


def test_a_dict_is_stored_at_the_time_of_the_server(client, device):
    before_ms = int(time.time() * 1000)
    send(client, {"temperature": 21.5, "humidity": 40})
    ((ts, stored),) = device.telemetry
    assert stored == {"temperature": 21.5, "humidity": 40}
    assert before_ms <= ts <= time.time() * 1000
    assert device.messages == [(TELEMETRY, b'{"temperature":21.5,"humidity":40}', 1, False)]


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_dicts_is_stored_as_rows_in_order(client, device, kind):
    send(client, kind([{"a": 1}, {"a": 2, "b": 3}, {"a": 4}]))
    assert values(device) == [{"a": 1}, {"a": 2, "b": 3}, {"a": 4}]


def test_a_dict_with_ts_and_values_is_stored_at_that_time(client, device):
    send(client, {"ts": TS, "values": {"a": 1, "b": "two"}})
    assert device.telemetry == [(TS, {"a": 1, "b": "two"})]


def test_a_list_of_ts_and_values_is_stored_as_history(client, device):
    history = [(TS + number * 1000, {"a": number}) for number in range(5)]
    send(client, [{"ts": ts, "values": row} for ts, row in history])
    assert device.telemetry == history


def test_a_list_may_mix_readings_with_and_without_time(client, device):
    send(client, [{"a": 1}, {"ts": TS, "values": {"a": 2}}, {"ts": TS + 5, "values": {"a": 3}}])
    send(client, [{"ts": TS + 7, "values": {"a": 4}}, {"a": 5}, {"a": 6}])
    assert values(device) == [{"a": number} for number in (1, 2, 3, 4, 5, 6)]
    times = {row["a"]: ts for ts, row in device.telemetry}
    assert [times[number] for number in (2, 3, 4)] == [TS, TS + 5, TS + 7]
    assert all(times[number] > TS + 10**9 for number in (1, 5, 6))


@pytest.mark.parametrize("lone", ["ts", "values"])
def test_ts_or_values_alone_is_a_key_like_any_other(client, device, lone):
    send(client, {lone: 5, "a": 1})
    assert values(device) == [{lone: 5, "a": 1}]


def test_what_was_sent_does_not_change_with_the_dict_afterwards(server, device):
    with offline_client(server) as client:
        reading = {"a": 1, "nested": {"b": [1]}}
        client.send_telemetry(reading)
        reading["a"] = 2
        reading["nested"]["b"].append(2)
        client.connect()
        assert client.flush(5)
    assert values(device) == [{"a": 1, "nested": {"b": [1]}}]


# --- conversions that must survive ---


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        0.0,
        -0.5,
        21.123456789,
        1e-5,
        12345678.0,
        1234567.891,
        21.123456789012345,
        0.1234567890123456,
        1.5e-9,
        "",
        "text",
        "Grüße, 温度 🌡 \"'\\\n\t\x00",
        "x" * 2000,
        [1, "two", None, [True, {"three": 3.5}]],
        {"nested": {"deeper": [1, {"empty": {}}]}, "list": []},
    ],
    ids=repr,
)
def test_a_value_survives(client, device, value):
    send(client, {"value": value})
    assert values(device) == [{"value": value}]


@pytest.mark.parametrize("value", [True, False])
def test_a_bool_stays_a_bool(client, device, value):
    send(client, {"value": value})
    assert values(device)[0]["value"] is value


@pytest.mark.parametrize(
    "value",
    [0.1 + 0.2, 0.1 * 3 * 7, 0.020000000000000004, 1 / 3, 2 / 3 * 1e-3, 1e-17, 1e-300],
    ids=repr,
)
def test_a_float_with_many_decimals_stays_a_number(client, device, value):
    send(client, {"value": value, "nested": [value]})
    stored = values(device)[0]
    assert type(stored["value"]) is float
    assert stored["value"] == pytest.approx(value, rel=1e-12, abs=1e-16)
    assert stored["nested"] == pytest.approx([value], rel=1e-12, abs=1e-16)


def test_a_tuple_is_sent_as_a_list(client, device):
    send(client, {"value": (1, (2, 3))})
    assert values(device) == [{"value": [1, [2, 3]]}]


@pytest.mark.parametrize("key", ["température", "温度", "a b", "a,b", "a.b", "k" * 255, "🌡"])
def test_a_key_may_be_any_text(client, device, key):
    send(client, {key: 1})
    assert values(device) == [{key: 1}]


# --- splitting ---


def test_a_reading_above_the_limit_is_split_between_keys(client, device):
    client.max_message_bytes = 300
    reading = {"key%d" % number: "x" * (number % 50) for number in range(60)}
    send(client, reading)
    merged = {}
    for row in values(device):
        assert not set(row) & set(merged)
        merged.update(row)
    assert merged == reading
    assert len(device.messages) > 5
    assert all(len(payload) <= 300 for _, payload, _, _ in device.messages)


def test_the_parts_of_a_reading_with_time_keep_their_time(client, device):
    client.max_message_bytes = 300
    reading = {"key%d" % number: "x" * 20 for number in range(60)}
    send(client, {"ts": TS, "values": reading})
    assert {ts for ts, _ in device.telemetry} == {TS}
    assert {key: row[key] for row in values(device) for key in row} == reading
    assert all(len(payload) <= 300 for _, payload, _, _ in device.messages)


@pytest.mark.parametrize("with_time", [False, True])
def test_a_list_above_the_limit_is_split_between_readings(client, device, with_time):
    client.max_message_bytes = 300
    readings = [{"number": number, "text": "x" * 10} for number in range(100)]
    if with_time:
        readings = [{"ts": TS + row["number"], "values": row} for row in readings]
    send(client, readings)
    assert [row["number"] for row in values(device)] == list(range(100))
    assert all(len(payload) <= 300 for _, payload, _, _ in device.messages)
    if with_time:
        assert [ts for ts, _ in device.telemetry] == [TS + number for number in range(100)]


def test_a_list_goes_out_in_as_few_messages_as_fit(client, device):
    send(client, [{"number": number} for number in range(100)])
    assert len(device.messages) == 1
    assert len(device.telemetry) == 100


def test_a_long_history_passes_through_a_server_with_its_limit_of_64_kb(server, device):
    with online_client(server, queue_bytes=1 << 20, queue_size=1000) as client:
        client.max_message_bytes = 1 << 20
        readings = [{"number": number, "text": "ä" * 200} for number in range(300)]
        send(client, readings)
        assert values(device) == readings
        assert device.connects == 1


def test_every_message_of_a_split_reading_is_acknowledged_by_number(client, device):
    client.max_message_bytes = 300
    client.on_publish = published = Notes()
    last_id = send(client, {"key%d" % number: "x" * 20 for number in range(60)})
    run_until(client, lambda: len(published.calls) == len(device.messages))
    ids = [call[3] for call in published.calls]
    assert len(set(ids)) == len(ids) > 1
    assert ids[-1] == last_id


# --- quality of service, message ids ---


@pytest.mark.parametrize(
    "of_client, of_call, expected",
    [(1, None, 1), (0, None, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1), (0, 0, 0), (None, None, 1)],
)
def test_quality_of_service_is_that_of_the_call_or_else_of_the_client(
    server, device, of_client, of_call, expected
):
    with online_client(server, quality_of_service=of_client) as client:
        client.send_telemetry({"a": 1}, quality_of_service=of_call)
        run_until(client, lambda: device.messages)
    assert device.messages[0][2] == expected


@pytest.mark.parametrize("quality_of_service", [2, -1, "1", 0.5, [1]])
def test_another_quality_of_service_is_refused(client, device, quality_of_service):
    with pytest.raises((TypeError, ValueError), match="quality_of_service"):
        client.send_telemetry({"a": 1}, quality_of_service)
    send(client, {"b": 2})
    assert values(device) == [{"b": 2}]


@pytest.mark.parametrize("quality_of_service", [0, 1])
def test_on_publish_tells_the_message_id_that_was_returned(client, quality_of_service):
    client.on_publish = published = Notes()
    client.user_data = data = object()
    ids = [client.send_telemetry({"a": number}, quality_of_service) for number in range(5)]
    run_until(client, lambda: len(published.calls) == 5)
    assert published.calls == [(client, data, TELEMETRY, message_id) for message_id in ids]
    assert len(set(ids)) == 5
    assert all(isinstance(message_id, int) and message_id > 0 for message_id in ids)


# --- what is refused ---

BAD = [  # data, error, what its text names
    ({"a": 1, "bad": NAN}, ValueError, "bad"),
    ({"a": 1, "bad": INFINITY}, ValueError, "bad"),
    ({"a": 1, "bad": -INFINITY}, ValueError, "bad"),
    ({"a": 1, "bad": None}, TypeError, "bad"),
    ({"a": 1, "bad": {1, 2}}, TypeError, "bad"),
    ({"a": 1, "bad": object()}, TypeError, "bad"),
    ({"a": 1, "bad": b"bytes"}, TypeError, "bad"),
    ({"a": 1, "bad": bytearray(b"bytes")}, TypeError, "bad"),
    ({"a": 1, "bad": 1j}, TypeError, "bad"),
    ({"a": 1, "bad": len}, TypeError, "bad"),
    ({"a": 1, "bad": [1, NAN]}, ValueError, "bad"),
    ({"a": 1, "bad": {"b": {"c": INFINITY}}}, ValueError, "bad"),
    ({"a": 1, "bad": {"b": [{1, 2}]}}, TypeError, "bad"),
    ({"a": 1, "bad": nested(30)}, ValueError, "bad"),
    ({"a": 1, "bad": nested(100000)}, ValueError, "bad"),
    ({"a": 1, "bad": endless()}, ValueError, "bad"),
    ({"a": 1, "bad": "x" * 20000}, ValueError, "bad"),
    ({"a": 1, "bad": ["x" * 100] * 200}, ValueError, "bad"),
    ({"a": 1, NAN: 1}, ValueError, "key.*nan"),
    ({"a": 1, 42: 1, "42": 1}, ValueError, "key.*42"),
    ({"a": {42: 1, "42": 1}}, ValueError, "key.*42"),
    ({"a": 1, b"raw": 1}, TypeError, "raw"),
    ({"a": 1, ("t",): 1}, TypeError, "'t'"),
    ({"a": 1, "": 1}, ValueError, "''"),
    ({"a": 1, " \t": 1}, ValueError, "key"),
    ({"a": 1, "long" * 64: 1}, ValueError, "longlong"),
    ({"a": {"b": 1, b"raw": 1}}, TypeError, "raw"),
    ({"a": {"": 1}}, ValueError, "''"),
    ([], ValueError, r"\[\]"),
    ((), ValueError, r"\(\)"),
    ({}, ValueError, r"\{\}"),
    ([{}], ValueError, r"\{\}"),
    ([{"a": 1}, {}], ValueError, r"\{\}"),
    (3, TypeError, "3"),
    (2.5, TypeError, "2.5"),
    (True, TypeError, "True"),
    (None, TypeError, "None"),
    ("text", TypeError, "text"),
    (b"raw", TypeError, "raw"),
    ({1, 2}, TypeError, "1, 2"),
    ([{"a": 1}, 7], TypeError, "7"),
    ([{"a": 1}, None], TypeError, "None"),
    ([{"a": 1}, [{"b": 2}]], TypeError, "'b'"),
    ([{"a": 1}, {"bad": NAN}], ValueError, "bad"),
    ([{"ts": TS, "values": {"a": 1}}, {"ts": TS, "values": {"bad": None}}], TypeError, "bad"),
    ({"ts": "1700000000000", "values": {"a": 1}}, TypeError, "ts"),
    ({"ts": 1.7e12, "values": {"a": 1}}, TypeError, "ts"),
    ({"ts": NAN, "values": {"a": 1}}, TypeError, "ts"),
    ({"ts": None, "values": {"a": 1}}, TypeError, "ts"),
    ({"ts": True, "values": {"a": 1}}, TypeError, "ts"),
    ({"ts": [TS], "values": {"a": 1}}, TypeError, "ts"),
    ({"ts": TS, "values": {}}, ValueError, r"\{\}"),
    ({"ts": TS, "values": [1]}, TypeError, r"\[1\]"),
    ({"ts": TS, "values": None}, TypeError, "None"),
    ({"ts": TS, "values": {"bad": NAN}}, ValueError, "bad"),
    ({"ts": TS, "values": {"a": 1}, "metadata": {}}, ValueError, "metadata"),
]


@pytest.mark.parametrize("data, error, named", BAD, ids=range(len(BAD)))
def test_what_the_server_would_dislike_is_refused_by_name_and_harms_nothing(
    client, device, data, error, named
):
    with pytest.raises((TypeError, ValueError), match=named) as caught:
        client.send_telemetry(data)
    assert caught.type is error
    assert client.pending_messages_count == 0
    send(client, {"good": 1})
    assert [payload for _, payload, _, _ in device.messages] == [b'{"good":1}']
    assert device.connects == 1


@pytest.mark.parametrize("limit", ["max_message_bytes", "queue_bytes"])
def test_a_value_above_either_limit_is_refused_by_name(server, device, limit):
    options = {"queue_bytes": 1000} if limit == "queue_bytes" else {}
    with online_client(server, **options) as client:
        if limit == "max_message_bytes":
            client.max_message_bytes = 1000
        with pytest.raises(ValueError, match=r"large.*limit"):
            client.send_telemetry({"small": 1, "large": "x" * 1000})
        send(client, {"small": "x" * 500})
    assert values(device) == [{"small": "x" * 500}]


def test_a_refused_value_before_connect_is_refused_at_once(server, device):
    with offline_client(server) as client:
        with pytest.raises(ValueError, match="bad"):
            client.send_telemetry({"bad": NAN})
        assert client.pending_messages_count == 0


# --- strict=False ---


@pytest.fixture
def lenient(server, device):
    with online_client(server, strict=False, logger=LogNotes()) as client:
        yield client


def test_not_strict_leaves_out_the_bad_keys_alone_and_counts_them(lenient, device):
    bad = {"nan": NAN, "none": None, "set": {1}, "deep": [NAN], "": 1, b"raw": 2}
    send(lenient, {"first": 1, **bad, "last": 2})
    assert values(device) == [{"first": 1, "last": 2}]
    assert lenient.stats["left_out"] == len(bad)


def test_not_strict_tells_the_logger_what_was_left_out(server, device):
    logger = LogNotes()
    with online_client(server, strict=False, logger=logger) as client:
        client.send_telemetry({"fine": 1, "broken": NAN})
    assert "broken" in logger.text
    assert "fine" not in logger.text


def test_not_strict_works_in_every_shape(lenient, device):
    send(lenient, [{"a": 1, "bad": NAN}, {"bad": NAN}, {"b": 2}])
    send(lenient, [{"ts": TS, "values": {"c": 3, "bad": None}}, {"ts": TS, "values": {"bad": 1j}}])
    assert values(device) == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert lenient.stats["left_out"] == 4


def test_not_strict_with_nothing_left_sends_nothing(lenient, device):
    assert lenient.send_telemetry({"bad": NAN}) is None
    assert lenient.send_telemetry([{"bad": NAN}, {"worse": None}]) is None
    assert lenient.pending_messages_count == 0
    send(lenient, {"good": 1})
    assert [json.loads(payload) for _, payload, _, _ in device.messages] == [{"good": 1}]
    assert lenient.stats["left_out"] == 3


@pytest.mark.parametrize("data", [[], {}, 3, None, "text", [3], {"ts": "now", "values": {"a": 1}}])
def test_not_strict_still_refuses_what_is_no_telemetry_at_all(lenient, device, data):
    with pytest.raises((TypeError, ValueError)):
        lenient.send_telemetry(data)
    assert lenient.stats["left_out"] == 0
    assert lenient.pending_messages_count == 0
