# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Keys, values and times: what the server would lose or store as text is refused by name."""

import json
import re
import time

import pytest

import tb_device_mqtt
from clients import Notes, offline_client, online_client, subscribed, values
from helpers import run_until
from local_server.mqtt311 import publish
from tb_device_mqtt import TBDeviceMqttClient

NAN = float("nan")
TS = 1700000000000
REQUESTS = "v1/devices/me/rpc/request/+"
LOST_KEYS = ("a<b", "<b>", "a<b>c", "T<sub>in</sub>", "{{x}}", "x{{y}}z", "{{}}", "a<1<B", "}}{{}}")
KEPT_KEYS = (
    "a>b",
    "a&b",
    "{{x",
    "<",
    "{x}",
    "PM<2.5",
    "a<",
    "x}}",
    "}}{{",
    "it's",
    '"',
    ",",
    "a\tb",
)
KEPT_KEYS += (" leading", "ts", "values", "deleted", "< b", "<é")


@pytest.fixture
def lenient(server, device):
    with online_client(server, strict=False) as client:
        yield client


def sent(client, device):
    """The JSON of each message that has left."""
    assert client.flush(5)
    return [json.loads(payload) for _, payload, _, _ in device.messages]


# --- numbers that would be stored as text ---


@pytest.mark.parametrize(
    "number",
    [9.5e18, 2**63, 2**64, 1e200, -(2**63) - 1, -9.5e18, 2.0**63, -(2.0**63), float("inf")],
)
@pytest.mark.parametrize("method", ["send_telemetry", "send_attributes"])
def test_a_number_beyond_64_bits_is_refused_by_key(client, device, method, number):
    with pytest.raises(ValueError, match="'level' must be a finite 64 bit number"):
        getattr(client, method)({"a": 1, "level": number})
    assert client.pending_messages_count == 0


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 9.2e18, -9.2e18])
def test_a_number_of_64_bits_is_stored_as_one(client, device, number):
    client.send_telemetry({"level": number})
    assert client.flush(5)
    ((_, stored),) = device.telemetry
    assert stored == {"level": number}
    assert isinstance(stored["level"], int)


def test_a_number_beyond_64_bits_is_left_out_if_not_strict(lenient, device):
    lenient.send_telemetry({"a": 1, "level": 1e200, "count": 2**64})
    assert sent(lenient, device) == [{"a": 1}]
    assert lenient.stats["left_out"] == 2


def test_inside_of_a_json_value_a_number_may_be_any_that_json_has(client, device):
    client.send_telemetry({"cfg": {"big": 2**64, "far": [1e200]}})
    assert sent(client, device) == [{"cfg": {"big": 2**64, "far": [1e200]}}]


def test_what_is_wrong_deep_inside_is_named_with_its_path(client):
    with pytest.raises(ValueError, match=r"'cfg.limits.high' must be a finite .* not nan"):
        client.send_telemetry({"cfg": {"limits": {"high": NAN}}})


# --- keys ---


@pytest.mark.parametrize("key", LOST_KEYS)
@pytest.mark.parametrize("method", ["send_telemetry", "send_attributes"])
def test_a_key_for_which_the_server_drops_the_message_is_refused_by_name(client, method, key):
    with pytest.raises(ValueError, match="key must be without markup") as caught:
        getattr(client, method)({"good": 1, key: 2})
    assert repr(key) in str(caught.value)
    assert client.pending_messages_count == 0


@pytest.mark.parametrize("key", KEPT_KEYS)
def test_a_key_that_only_looks_odd_passes(client, device, key):
    client.send_telemetry({"good": 1, key: 2})
    client.send_attributes({key: 3})
    assert client.flush(5)
    assert values(device) == [{"good": 1, key: 2}]
    assert device.client_attributes == {key: 3}


def test_a_key_like_markup_is_left_out_if_not_strict(lenient, device):
    lenient.send_telemetry({"good": 1, "a<b": 2, "{{k}}": 3})
    assert sent(lenient, device) == [{"good": 1}]
    assert lenient.stats["left_out"] == 2


def test_inside_of_a_value_keys_may_look_like_markup(client, device):
    client.send_telemetry({"page": {"<b>": "<i>", "{{x}}": 1}})
    assert values_of(client, device) == [{"page": {"<b>": "<i>", "{{x}}": 1}}]


def values_of(client, device):
    assert client.flush(5)
    return values(device)


JSON_KEYS = {4: True, False: 0, None: "n", 2.5: "f", -7: [1]}


def as_json(data):
    return json.loads(json.dumps(data))


@pytest.mark.parametrize("key", JSON_KEYS)
def test_a_key_that_is_no_string_is_written_as_json_dumps_writes_it(client, device, key):
    data = {key: 1, "deep": {key: [{key: 2}]}}
    client.send_telemetry(data)
    client.send_telemetry({"ts": TS, "values": data})
    client.send_attributes(data)
    assert client.flush(5)
    assert values(device) == [as_json(data)] * 2
    assert device.client_attributes == as_json(data)


def test_such_keys_pass_in_replies_and_calls_too(client, device):
    client.rpc("read")(lambda params: {4: True, "deep": {None: 1}})
    subscribed(client, device, REQUESTS)
    reply = device.call_rpc("read")
    run_until(client, reply.done)
    assert reply.result() == {"4": True, "deep": {"null": 1}}
    client.send_rpc_call("write", {4: True})
    assert sent(client, device)[-1] == {"method": "write", "params": {"4": True}}


def test_boards_get_strings_from_us(monkeypatch, client, device):
    """Their `dumps` writes other keys than strings without quotes, or as "True"."""

    def board_dumps(value, **options):
        assert not isinstance(value, dict) or all(isinstance(key, str) for key in value)
        return json.dumps(value, **options)

    monkeypatch.setattr(tb_device_mqtt, "dumps", board_dumps)
    client.send_telemetry({4: True, None: 1})
    assert sent(client, device) == [{"4": True, "null": 1}]


def test_of_two_keys_that_become_the_same_one_is_left_out_if_not_strict(lenient, device):
    lenient.send_telemetry({4: "first", "4": "second", "a": 1})
    assert sent(lenient, device) == [{"4": "first", "a": 1}]
    assert lenient.stats["left_out"] == 1


# --- times ---


@pytest.mark.parametrize("ts", [1700000000, 0, 5, 10**11 - 1])
def test_a_time_in_seconds_is_refused_with_a_hint(client, ts):
    with pytest.raises(ValueError, match=r"ts must be milliseconds since 1970.*\(seconds\?\)"):
        client.send_telemetry({"ts": ts, "values": {"a": 1}})


@pytest.mark.parametrize("ts", [-1, -TS, TS * 1000, 2**63])
def test_a_time_out_of_all_bounds_is_refused(client, ts):
    with pytest.raises(ValueError, match="ts must be milliseconds since 1970"):
        client.send_telemetry([{"a": 1}, {"ts": ts, "values": {"a": 1}}])
    assert client.pending_messages_count == 0


@pytest.mark.parametrize("ts", [1.7e12, True, "1700000000000", None, [TS]])
def test_a_time_that_is_no_int_is_refused(client, ts):
    with pytest.raises(TypeError, match="ts must be milliseconds since 1970, an int"):
        client.send_telemetry({"ts": ts, "values": {"a": 1}})


def test_a_time_beside_the_values_is_refused_with_the_shape_that_is_wanted(client):
    with pytest.raises(ValueError, match=r'"ts": ms, "values": \{...\}.*\'t\''):
        client.send_telemetry({"ts": TS, "t": 1})


def test_ts_and_values_alone_are_keys_of_attributes(client, device):
    client.send_attributes({"ts": TS, "a": 1})
    assert client.flush(5)
    assert device.client_attributes == {"ts": TS, "a": 1}


ODD = {"ts": 5, "cfg": {"values": {}}}


def test_a_key_named_ts_beside_nested_values_is_a_plain_reading(client, device):
    client.send_telemetry(ODD)
    assert client.flush(5)
    ((ts, stored),) = device.telemetry
    assert stored == ODD
    assert abs(ts - time.time() * 1000) < 60000


def test_so_it_is_when_it_has_to_wait(server, device):
    with offline_client(server) as client:
        client.send_telemetry(ODD)
        client.send_telemetry({"values": 3})
        time.sleep(0.15)
        taken_before_ms = time.time() * 1000 - 100
        client.connect()
        assert client.flush(5)
    assert values(device) == [ODD, {"values": 3}]
    assert all(taken_before_ms - 60000 < ts <= taken_before_ms for ts, _ in device.telemetry)


# --- what comes ---


@pytest.mark.parametrize("odd", [5, "", None, ["a"]])
def test_an_odd_name_among_deleted_attributes_does_not_silence_the_others(
    server, client, device, odd
):
    single, every = Notes(), Notes()
    client.subscribe_to_attribute("b", single)
    client.subscribe_to_all_attributes(every)
    subscribed(client, device, "v1/devices/me/attributes")
    server_push(server, {"deleted": ["a", odd, "b"]})
    run_until(client, lambda: single.calls)
    assert every.firsts == [{"deleted": ["a", "b"]}]
    assert client.stats["unexpected"] == 1


def server_push(server, data):
    server.inject(publish("v1/devices/me/attributes", json.dumps(data).encode(), 0, 0))


# --- replies ---


@pytest.mark.parametrize(
    "result, named",
    [
        ({"state": {"level": NAN}}, "ValueError: 'response.state.level' must be a finite"),
        ({"state": [1, {"raw": b"x"}]}, "TypeError: 'response.state.raw' must be"),
        ({"text": "x" * 20000}, r"ValueError: 'response': .* bytes, the limit is"),
    ],
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_reply_that_can_not_be_sent_becomes_an_error_that_names_it(
    client, device, result, named, by_hand
):
    if by_hand:

        def handler(request_id, _body):
            client.send_rpc_reply(request_id, result)

        client.set_server_side_rpc_request_handler(handler)
    else:
        client.rpc("read")(Notes(result))
    subscribed(client, device, REQUESTS)
    reply = device.call_rpc("read")
    run_until(client, reply.done)
    assert re.match(named, reply.result()["error"])


def test_an_error_of_a_handler_names_its_class(client, device):
    client.rpc("read")(Notes(KeyError("x")))
    subscribed(client, device, REQUESTS)
    reply = device.call_rpc("read")
    run_until(client, reply.done)
    assert reply.result() == {"error": "KeyError: 'x'"}


def test_an_error_is_answered_however_small_the_queue(server, device):
    with online_client(server, queue_bytes=200) as client:
        client.rpc("read")(Notes(RuntimeError("🌡" * 500)))
        subscribed(client, device, REQUESTS)
        reply = device.call_rpc("read")
        run_until(client, reply.done)
    assert reply.result()["error"].startswith("Runtime")


@pytest.mark.parametrize("request_id", ["SECRET", None, 1.5, -1, "²", b"1"])
def test_a_request_id_that_is_none_is_refused_by_name(client, request_id):
    with pytest.raises(ValueError, match="request_id must be a number") as caught:
        client.send_rpc_reply(request_id, "ok")
    assert "SECRET" not in str(caught.value)


# --- refusals: they name the argument, cut what came, and tell no secret ---

SECRET = "AbCdEfGh0123456789xY"
LONG = "long" * 5000


@pytest.mark.parametrize(
    "name, options",
    [
        ("port", {"port": SECRET}),
        ("quality_of_service", {"quality_of_service": SECRET}),
        ("keep_alive", {"keep_alive": SECRET}),
        ("queue_size", {"queue_size": SECRET}),
        ("queue_bytes", {"queue_bytes": SECRET}),
        ("tls", {"tls": SECRET}),
        ("access_token", {"access_token": SECRET + "\0"}),
        ("access_token", {"access_token": SECRET + "\ud800"}),
        ("access_token", {"access_token": SECRET + "x" * 65536}),
        ("access_token", {"access_token": SECRET + "é" * 32768}),
        ("access_token", {"access_token": SECRET.encode()}),
        ("username", {"username": SECRET + "\udfff"}),
        ("password", {"username": "u", "password": SECRET + "\0"}),
        ("password", {"username": "u", "password": SECRET + "x" * 65536}),
        ("client_id", {"client_id": SECRET + "\0"}),
        ("client_id", {"client_id": SECRET + "x" * 65536}),
    ],
)
def test_a_secret_in_the_wrong_place_or_that_mqtt_can_not_send_is_told_by_name_alone(name, options):
    with pytest.raises((TypeError, ValueError, OSError), match=name) as caught:
        TBDeviceMqttClient("127.0.0.1", **options)
    assert SECRET not in "%s %r" % (caught.value, caught.value)
    assert len(str(caught.value)) < 150


def test_a_token_in_the_place_of_the_port_is_recognised():
    with pytest.raises(ValueError) as caught:
        TBDeviceMqttClient("127.0.0.1", SECRET)
    assert str(caught.value) == (
        "port must be a number from 1 to 65535, not str (is this the access_token?)"
    )


def test_a_token_in_the_setting_of_the_port_is_not_told(monkeypatch):
    monkeypatch.setenv("THINGSBOARD_HOST", "127.0.0.1")
    monkeypatch.setenv("THINGSBOARD_PORT", SECRET)
    with pytest.raises(ValueError, match="port") as caught:
        TBDeviceMqttClient.from_settings()
    assert SECRET not in str(caught.value)


def test_a_claim_key_in_the_place_of_the_duration_is_not_told(client):
    with pytest.raises(ValueError, match="duration_ms must be a number") as caught:
        client.claim_device("key", SECRET)
    assert SECRET not in str(caught.value)


def test_a_number_out_of_bounds_is_shown():
    with pytest.raises(ValueError, match="port must be a number from 1 to 65535, not 65536"):
        TBDeviceMqttClient("127.0.0.1", 65536)


@pytest.mark.parametrize("host", [None, ""])
def test_a_missing_host_leads_to_its_setting(host):
    with pytest.raises(ValueError, match=r"host is missing .* is THINGSBOARD_HOST set\?"):
        TBDeviceMqttClient(host, access_token=SECRET)


def test_a_missing_setting_is_named():
    with pytest.raises(ValueError, match=r"THINGSBOARD_HOST is not set in settings.toml \(on a c"):
        TBDeviceMqttClient.from_settings()


def test_an_address_with_a_scheme_is_refused_as_host():
    with pytest.raises(ValueError, match="host must be a name or address without mqtt://"):
        TBDeviceMqttClient("mqtt://127.0.0.1")


class Unprintable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.send_telemetry(LONG),
        lambda client: client.send_telemetry([LONG]),
        lambda client: client.send_telemetry(LONG.encode()),
        lambda client: client.send_telemetry({LONG: 1}),
        lambda client: client.send_telemetry({LONG.encode(): 1}),
        lambda client: client.send_telemetry({"a": {LONG: 1}}),
        lambda client: client.send_telemetry({"a" * 255: {"b" * 255: b"raw"}}),
        lambda client: client.send_telemetry({"a": 10**5000}),
        lambda client: client.send_telemetry({"ts": LONG, "values": {"a": 1}}),
        lambda client: client.send_telemetry({"ts": 10**5000, "values": {"a": 1}}),
        lambda client: client.send_telemetry({"ts": TS, "values": [LONG]}),
        lambda client: client.send_telemetry({"ts": TS, LONG: 1}),
        lambda client: client.send_telemetry(Unprintable()),
        lambda client: client.send_telemetry({}),
        lambda client: client.send_attributes([LONG]),
        lambda client: client.request_attributes(LONG),
        lambda client: client.request_attributes("a," + LONG[:99]),
        lambda client: client.request_attributes(timeout=LONG),
        lambda client: client.subscribe_to_attribute("a", LONG),
        lambda client: client.subscribe(LONG, LONG),
        lambda client: client.subscribe("a+" + LONG[:99], print),
        lambda client: client.publish(LONG * 9, ""),
        lambda client: client.publish("#" + LONG[:99], ""),
        lambda client: client.publish("a", [LONG]),
        lambda client: client.send_rpc_call(LONG),
        lambda client: client.send_rpc_reply(LONG, 1),
        lambda client: client.rpc(print),
        lambda client: client.rpc("method")(LONG),
        lambda client: client.claim_device(b"raw"),
        lambda client: client.connect(LONG),
    ],
)
def test_a_refusal_is_short_and_says_what_is_wanted(client, call):
    with pytest.raises((TypeError, ValueError)) as caught:
        call(client)
    text = str(caught.value)
    assert " must " in text or "the limit is" in text
    assert len(text) < 130
    assert "long" * 10 not in text
    assert client.pending_messages_count == 0


def test_a_star_import_brings_the_client_and_its_errors_alone():
    names = {}
    exec("from tb_device_mqtt import *", names)
    names.pop("__builtins__")
    assert sorted(names) == ["TBDeviceMqttClient", "TBError", "TBRefusedError", "TBTimeoutError"]
