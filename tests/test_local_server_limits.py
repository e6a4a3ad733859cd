# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The stand-in's rate limits, in a time that the tests set."""

import json

import pytest

from local_server import RateLimits
from raw_peer import connect_packet, packet, puback, text

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
REQUEST = "v1/devices/me/attributes/request/"
RPC_REQUESTS = "v1/devices/me/rpc/request/+"
RPC_REQUEST = "v1/devices/me/rpc/request/"
RPC_RESPONSE = "v1/devices/me/rpc/response/"
CLAIM = "v1/devices/me/claim"


class Time:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def now():
    return Time()


@pytest.fixture
def limits(now):
    return RateLimits(now)


@pytest.fixture
def timed(server, now):
    """The server, whose rate limits go by *now*."""
    server.monotonic_s = now
    return server


def passes(limits, data_points=0, times=1000):
    """How many messages pass one after the other."""
    for count in range(times):
        if not limits.allow(data_points):
            return count
    return times


# --- the buckets alone ---


def test_without_limits_everything_passes(limits):
    assert passes(limits) == passes(limits, 10**6) == 1000


def test_a_bucket_is_full_at_first_and_fills_up_smoothly(limits, now):
    limits.messages = "10:1"
    assert passes(limits) == 10
    now.now_s += 0.05
    assert passes(limits) == 0
    now.now_s += 0.05
    assert passes(limits) == 1
    now.now_s += 0.35
    assert passes(limits) == 3
    now.now_s += 3600
    assert passes(limits) == 10


def test_all_windows_must_allow(limits, now):
    limits.messages = "10:1,15:60"
    assert passes(limits) == 10
    now.now_s += 1
    assert passes(limits) == 5
    now.now_s += 1
    assert passes(limits) == 0
    now.now_s += 4
    assert passes(limits) == 1


def test_what_one_window_refuses_takes_nothing_from_another(limits, now):
    limits.messages = "1:1,2:10"
    assert passes(limits) == 1
    assert passes(limits) == passes(limits) == 0
    now.now_s += 1
    assert passes(limits) == 1


def test_a_message_takes_its_data_points(limits, now):
    limits.telemetry_data_points = "10:1"
    assert [limits.allow(4) for _ in range(3)] == [True, True, False]
    assert passes(limits, 1) == 2
    now.now_s += 1
    assert limits.allow(10)


def test_more_data_points_than_the_smallest_window_never_pass(limits, now):
    limits.telemetry_data_points = "100:10,10:1"
    for _ in range(5):
        assert not limits.allow(11)
        now.now_s += 3600


def test_too_many_data_points_cost_a_message_all_the_same(limits):
    limits.telemetry_messages, limits.telemetry_data_points = "2:60", "1:60"
    assert [limits.allow(count) for count in (5, 1, 1)] == [False, True, False]


def test_telemetry_and_other_messages_have_limits_of_their_own(limits):
    limits.messages, limits.telemetry_messages = "1:60", "2:60"
    assert (passes(limits, 1), passes(limits)) == (2, 1)


def test_a_new_text_fills_the_bucket_and_the_same_does_not(limits):
    limits.messages = "2:60"
    assert passes(limits) == 2
    limits.messages = "2:60"
    assert passes(limits) == 0
    limits.messages = "3:60"
    assert passes(limits) == 3
    limits.messages = None
    assert passes(limits) == 1000


def test_a_clock_that_goes_back_takes_nothing(limits, now):
    limits.messages = "2:1"
    assert limits.allow(0)
    now.now_s -= 500
    assert passes(limits) == 1
    now.now_s += 0.5
    assert passes(limits) == 1


@pytest.mark.parametrize("wrong", ("10", "10:", ":1", "0:1", "1:0", "1:1,", "-1:1", "1:1;2:2", "x"))
def test_a_text_that_is_no_limit_is_refused(limits, wrong):
    limits.messages = "1:1"
    with pytest.raises(ValueError):
        limits.messages = wrong
    assert limits.messages == "1:1"


def test_no_text_is_no_limit(limits):
    limits.messages = ""
    assert limits.messages is None
    assert passes(limits) == 1000


# --- what is charged ---


def limit_to_ten(limits):
    for name in ("messages", "telemetry_messages", "telemetry_data_points"):
        setattr(limits, name, None)
        setattr(limits, name, "10:1000000")


def charged(limits):
    """(messages, telemetry messages, data points) since `limit_to_ten`."""
    named, now_ns = limits.named, limits.now_ns()
    left = []
    for name in ("messages", "telemetryMessages", "telemetryDataPoints"):
        count = 0
        while named[name].take(1, now_ns):
            count += 1
        left.append(10 - count)
    return tuple(left)


CHARGES = (  # topic, payload, (messages, telemetry messages, data points)
    (TELEMETRY, b'{"a":1}', (0, 1, 1)),
    (TELEMETRY, b'{"a":1,"b":2,"c":null}', (0, 1, 2)),
    (TELEMETRY, b'[{"a":1},{"ts":1,"values":{"a":1,"b":2}}]', (0, 1, 3)),
    ("v2/t", b'{"a":1}', (0, 1, 1)),
    (TELEMETRY, b"{}", (1, 0, 0)),
    (ATTRIBUTES, b'{"a":1,"b":2}', (0, 1, 2)),
    (ATTRIBUTES, b"{}", (1, 0, 0)),
    (REQUEST + "1", b"{}", (1, 0, 0)),
    (RPC_RESPONSE + "1", b"{}", (1, 0, 0)),
    (RPC_REQUEST + "1", b'{"method":"m"}', (1, 0, 0)),
    (RPC_REQUEST + "1", b'{"method":"getSessionLimits"}', (0, 0, 0)),
    (CLAIM, b"{}", (1, 0, 0)),
    ("unknown", b"{}", (0, 0, 0)),
)


@pytest.mark.parametrize(("topic", "payload", "costs"), CHARGES)
def test_a_publish_is_charged_to_the_tenant_and_to_its_device(
    timed, device, peer, topic, payload, costs
):
    limit_to_ten(timed.tenant_limits)
    limit_to_ten(device.limits)
    peer.publish(topic, payload)
    assert peer.read() == puback(1)
    assert charged(timed.tenant_limits) == charged(device.limits) == costs


@pytest.mark.parametrize(
    ("sent", "messages"),
    (
        (b"\xc0\x00", 0),  # PINGREQ
        (packet(0x82, b"\x00\x01" + text(ATTRIBUTES) + b"\x01" + text(RPC_REQUESTS) + b"\x01"), 2),
        (packet(0x82, b"\x00\x01" + text(ATTRIBUTES + "/response/+") + b"\x01"), 0),
        (packet(0x82, b"\x00\x01" + text("unknown") + b"\x01"), 0),
        (packet(0xA2, b"\x00\x01" + text(ATTRIBUTES) + text(RPC_REQUESTS)), 2),
        (packet(0xA2, b"\x00\x01" + text("unknown")), 0),
    ),
)
def test_other_packets_are_charged_as_messages(timed, device, peer, sent, messages):
    limit_to_ten(device.limits)
    peer.send(sent)
    peer.read()
    assert peer.is_alive()  # the SUBACK was sent before the subscription was charged
    assert charged(device.limits) == (messages, 0, 0)


def test_a_session_is_charged_when_it_opens_and_when_it_closes(timed, device, open_peer):
    limit_to_ten(device.limits)
    open_peer().connect("TOKEN_A")
    assert charged(device.limits) == (1, 0, 0)
    limit_to_ten(device.limits)
    device.disconnect()
    assert charged(device.limits) == (1, 0, 0)


def test_what_only_the_device_refuses_is_charged_to_the_tenant(timed, device, peer):
    limit_to_ten(timed.tenant_limits)
    device.limits.telemetry_messages = "1:60"
    for _ in range(2):
        peer.publish(TELEMETRY, b'{"a":1}')
    assert peer.read() == puback(1)
    assert peer.is_closed()
    assert charged(timed.tenant_limits)[1:] == (2, 2)


def test_devices_share_the_limits_of_the_tenant_alone(timed, device, peer, open_peer):
    timed.add_device("Shed", token="OTHER")
    other = open_peer().connect("OTHER")
    device.limits.telemetry_messages = "1:60"
    timed.tenant_limits.telemetry_messages = "2:60"
    for one in (peer, other):
        one.publish(TELEMETRY, b'{"a":1}')
        assert one.read() == puback(1)
    other.publish(TELEMETRY, b'{"a":1}')
    assert other.is_closed()


# --- what happens above a limit ---


@pytest.mark.parametrize("qos", (0, 1))
def test_a_publish_above_the_limit_closes_and_is_lost(timed, device, peer, open_peer, now, qos):
    device.limits.telemetry_messages = "10:1"
    for number in range(11):
        peer.publish(TELEMETRY, b'{"n":%d}' % number, qos=qos)
    assert [peer.read() for _ in range(10 * qos)] == [puback(1)] * 10 * qos
    assert peer.is_closed()
    assert [row["n"] for _, row in device.telemetry] == list(range(10))
    now.now_s += 0.1
    again = open_peer().connect("TOKEN_A")
    again.publish(TELEMETRY, b'{"n":10}')
    assert again.read() == puback(1)


def test_the_message_limit_from_subscription_to_refusal(timed, device, open_peer, now):
    device.limits.messages = "1:60"
    peer = open_peer().connect("TOKEN_A")
    assert peer.subscribe(ATTRIBUTES) == b"\x90\x03\x00\x01\x01"
    assert device.push_attributes({"a": 1}) is False
    peer.publish(REQUEST + "1", b"{}")
    assert peer.is_closed()
    refused = open_peer()
    refused.send(connect_packet(username="TOKEN_A"))
    assert refused.read() == b"\x20\x02\x00\x03"
    assert refused.is_closed()
    now.now_s += 60
    open_peer().connect("TOKEN_A")


def test_a_wrong_token_is_charged_to_nobody(timed, device, open_peer):
    limit_to_ten(timed.tenant_limits)
    wrong = open_peer()
    wrong.send(connect_packet(username="wrong"))
    assert wrong.read() == b"\x20\x02\x00\x05"
    assert charged(timed.tenant_limits) == (0, 0, 0)


def test_unsubscribing_above_the_limit_is_answered_and_not_done(timed, device, peer):
    peer.subscribe(ATTRIBUTES)
    assert peer.is_alive()  # the SUBACK was sent before the subscription was charged
    device.limits.messages = "1:60"
    peer.publish(CLAIM, b"{}")
    assert peer.read() == puback(1)
    peer.send(packet(0xA2, b"\x00\x05" + text(ATTRIBUTES)))
    assert peer.read() == b"\xb0\x02\x00\x05"
    assert device.push_attributes({"a": 1}) is True


# --- getSessionLimits ---


def session_limits(peer):
    peer.publish(RPC_REQUEST + "7", b'{"method":"getSessionLimits"}')
    assert peer.read() == puback(1)
    topic, payload, _, _ = peer.read_publish()
    assert topic == RPC_RESPONSE + "7"
    return json.loads(payload)["rateLimits"]


def test_session_limits_are_those_of_the_device_as_they_are_now(timed, device, peer):
    timed.tenant_limits.messages = "1000:1"
    device.limits.messages, device.limits.telemetry_data_points = "20:1,600:60", "50:1"
    expected = {"messages": "20:1,600:60", "telemetryMessages": None, "telemetryDataPoints": "50:1"}
    assert session_limits(peer) == expected
    device.limits.messages = None
    assert session_limits(peer) == dict(expected, messages=None)


def test_session_limits_answer_on_v1_in_a_session_that_uses_v2(device, peer):
    peer.subscribe("v2/r/res/+", "v2/r/req/+", "v2/a")
    peer.publish("v2/t", b'{"a":1}')
    assert peer.read() == puback(1)
    assert set(session_limits(peer).values()) == {None}


@pytest.mark.parametrize("topic", ("v2/r/req/7", "v2/r/req/j/7"))
def test_session_limits_on_a_short_topic_get_no_answer(device, peer, topic):
    peer.publish(topic, b'{"method":"getSessionLimits"}')
    assert peer.read() == puback(1)
    assert peer.hears_nothing()
    assert peer.is_alive()
