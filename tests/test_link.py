# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What travels between client and server, byte by byte, in memory and in a time of its own.

`test_link_sockets.py` has the same link over real sockets. Chapter numbers are those of the OASIS
standard, MQTT Version 3.1.1.
"""

import errno
import gc
import random
import re
import select
import tracemalloc
from unittest import mock

import pytest

import tb_device_mqtt
from fakes import Clock, FakePool, FakeSocket, MemoryServer
from faults import scripted_broker as mqtt
from faults.scripted_broker import packets_of
from tb_device_mqtt import TBError, TBRefusedError, TBTimeoutError
from world import CONNACK, World

WRAP_MS = 10000  # `Clock`: from then on ticks_ms counts from 0 again
BUFFER_BYTES = 1024  # of the receive buffer: what crosses its end is read in another way

MAY_FOLLOW = {
    "stopped": ("waiting",),
    "waiting": ("connecting", "stopped"),
    "connecting": ("online", "waiting", "stopped"),
    "online": ("waiting", "stopped"),
}


def types_of(packets):
    return [packet.type for packet in packets]


@pytest.fixture
def clock():
    with Clock() as running:
        yield running


@pytest.fixture
def world(clock):
    return World(clock)


@pytest.fixture
def memory_server(clock):
    return MemoryServer(clock)


@pytest.fixture
def memory_device(memory_server):
    return memory_server.add_device("Device", token="TOKEN")


@pytest.fixture
def served(clock, memory_server, memory_device):
    """A `World` whose server is the stand-in."""
    return World(clock, memory_server)


# --- CONNECT ---

MQTT_311 = b"\x00\x04MQTT\x04"


@pytest.mark.parametrize(
    "options, expected",
    (
        ({}, b"\x10\x15" + MQTT_311 + b"\x82\x00\x3c\x00\x02me\x00\x05TOKEN"),
        (
            {"access_token": None, "username": "u", "password": "p"},
            b"\x10\x14" + MQTT_311 + b"\xc2\x00\x3c\x00\x02me\x00\x01u\x00\x01p",
        ),
        (
            {"access_token": "T" * 125},
            b"\x10\x8d\x01" + MQTT_311 + b"\x82\x00\x3c\x00\x02me\x00\x7d" + b"T" * 125,
        ),
        (
            {"access_token": "T" * 111},  # a byte less of remaining length, too
            b"\x10\x7f" + MQTT_311 + b"\x82\x00\x3c\x00\x02me\x00\x6f" + b"T" * 111,
        ),
        (
            {"access_token": None, "username": "u"},
            b"\x10\x11" + MQTT_311 + b"\x82\x00\x3c\x00\x02me\x00\x01u",
        ),
        ({"access_token": None}, b"\x10\x0e" + MQTT_311 + b"\x02\x00\x3c\x00\x02me"),
        (
            {"access_token": None, "keep_alive": 300},
            b"\x10\x0e" + MQTT_311 + b"\x02\x01\x2c\x00\x02me",
        ),
        (
            {"access_token": None, "client_id": "x" * 150},
            b"\x10\xa2\x01" + MQTT_311 + b"\x02\x00\x3c\x00\x96" + b"x" * 150,
        ),
    ),
    ids=(
        "token",
        "user and password",
        "long token",
        "127 bytes",
        "user alone",
        "client id",
        "keep-alive",
        "long client id",
    ),
)
def test_connect_is_these_bytes(clock, options, expected):
    world = World(clock, **options)
    world.open()
    assert world.socket.sent == expected


def test_connect_without_clean_session_says_so(world):
    world.client.clean_session = False
    world.open()
    assert world.sent[0].credentials.clean_session is False


def test_the_will_goes_into_connect(world):
    world.client.will_set("w", "gone", 1, True)
    world.open()
    # 0xae: user name, retained will of quality of service 1, clean session (3.1.2.3)
    assert world.socket.sent == (
        b"\x10\x1e" + MQTT_311 + b"\xae\x00\x3c\x00\x02me\x00\x01w\x00\x04gone\x00\x05TOKEN"
    )


def test_the_will_goes_into_connect_before_user_name_and_password(clock):
    world = World(clock, access_token=None, username="u", password="p")
    world.client.will_set("w", "", 0, False)
    world.open()
    assert world.socket.sent == (
        b"\x10\x19" + MQTT_311 + b"\xc6\x00\x3c\x00\x02me\x00\x01w\x00\x00\x00\x01u\x00\x01p"
    )


def test_all_topics_are_subscribed_in_one_packet_behind_connect(world):
    world.client.subscribe("one", print, 1)
    world.client.subscribe("two", print, 0)
    world.open()
    assert types_of(world.sent) == [mqtt.CONNECT, mqtt.SUBSCRIBE]
    assert sorted(world.sent[1].filters) == [("one", 1), ("two", 0)]


def test_what_was_queued_goes_out_behind_connect(world):
    world.client.send_telemetry({"a": 1})
    world.open()
    world.settle()
    assert types_of(world.sent) == [mqtt.CONNECT, mqtt.PUBLISH]


def test_a_server_that_forgets_what_came_before_connack_gets_it_after(served, memory_server):
    """As ThingsBoard before 3.3."""
    memory_server.faults.ignore_before_connack = True
    memory_server.faults.connack_delay = 0.1
    served.listen("v1/devices/me/attributes")
    served.client.send_telemetry({"a": 1})
    served.client.connect(timeout=0)
    served.run_until(lambda: served.acknowledged, seconds=60)
    assert memory_server.board.accepted == 2
    connack_at = [(way, name) for _, way, name in memory_server.board.packets][-5:]
    assert (
        connack_at
        == [
            ("in", "CONNECT"),
            ("out", "CONNACK"),
            ("in", "SUBSCRIBE"),
            ("out", "SUBACK"),
            ("in", "PUBLISH"),
            ("out", "PUBACK"),
        ][-5:]
    )


def test_acknowledgements_of_what_came_later_do_not_hide_what_was_forgotten(served, memory_server):
    """Or a client that sends all the time is deaf for ever."""
    memory_server.faults.ignore_before_connack = True
    memory_server.faults.connack_delay = 0.1
    served.listen("v1/devices/me/attributes")
    served.client.connect()
    for _ in range(12):
        served.client.send_telemetry({"a": 1})
        served.run(5)
    assert len(served.acknowledged) == 12
    subscribed = [name for _, _, name in memory_server.board.packets if name == "SUBACK"]
    assert len(subscribed) == 1


def test_everything_is_subscribed_again_although_the_server_says_session_present(
    served, memory_server, memory_device
):
    """ThingsBoard says so of every CONNECT without clean session, and keeps nothing."""
    served.client.clean_session = False
    served.client.subscribe_to_all_attributes(print)
    served.client.set_server_side_rpc_request_handler(print)
    served.client.connect()
    served.run_until(lambda: len(memory_device.subscriptions) == 2)
    before = memory_device.subscriptions
    memory_device.disconnect()
    served.run_until(lambda: memory_device.connects == 2, seconds=10)
    served.run_until(lambda: len(memory_device.subscriptions) == 2)
    assert memory_device.subscriptions == before


# --- CONNACK ---


@pytest.mark.parametrize(
    "code, words",
    (
        (1, "does not support"),
        (2, "no access token was given"),
        (3, "rate limit"),
        (4, "password is wrong"),
        (5, "no device has it"),
        (6, "unknown"),
        (255, "unknown"),
    ),
)
def test_a_refusal_says_which_and_why(served, memory_server, code, words):
    memory_server.faults.connack = code
    with pytest.raises(TBRefusedError, match=words) as refused:
        served.client.connect()
    assert refused.value.code == code
    assert served.client.state == "waiting"
    assert served.client.last_error is refused.value


@pytest.mark.parametrize("code, shortest_s, longest_s", ((3, 0.5, 1.1), (5, 30, 61)))
def test_a_refusal_that_will_stay_is_not_tried_again_soon(
    served, memory_server, code, shortest_s, longest_s
):
    memory_server.faults.connack = code
    served.client.connect(timeout=0)
    served.run_until(lambda: len(served.times_of("connecting")) == 2, seconds=70)
    first, second = served.times_of("connecting")
    assert shortest_s * 1000 <= second - first <= longest_s * 1000


def test_after_a_refusal_the_right_answer_connects(served, memory_server):
    memory_server.faults.connack = 5
    with pytest.raises(TBRefusedError):
        served.client.connect()
    memory_server.faults.connack = None
    assert served.client.connect() is True


def test_a_server_that_closes_instead_of_connack_is_told_in_words(served, memory_server):
    memory_server.faults.connack = "close"
    with pytest.raises(
        OSError, match=r"closed by the server before CONNACK: .* require .*certificate\?$"
    ):
        served.client.connect()
    assert served.client.state == "waiting"


def test_a_server_that_never_answers_connect_is_given_up_after_ten_seconds(served, memory_server):
    memory_server.faults.connack = "silence"
    with pytest.raises(TBTimeoutError, match="CONNACK in 10 s"):
        served.client.connect(timeout=20)
    assert served.client.state == "waiting"
    assert 10000 <= served.clock.now_ms <= 10500


def test_connect_gives_up_waiting_before_that_and_the_client_goes_on(served, memory_server):
    memory_server.faults.connack = "silence"
    with pytest.raises(TBTimeoutError, match="in 2 s"):
        served.client.connect(timeout=2)
    assert 2000 <= served.clock.now_ms <= 2100
    memory_server.faults.connack = None
    served.run_until_state("online", seconds=12)


def test_a_tls_alert_is_told_in_words(world):
    world.open()
    world.socket.feed(b"\x15\x03\x01\x00\x02\x02\x46")  # fatal, protocol version
    world.run_until_state("waiting")
    assert isinstance(world.client.last_error, TBError)
    assert "TLS" in str(world.client.last_error)


@pytest.mark.parametrize(
    "answer",
    (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        mqtt.pingresp(),
        mqtt.publish("a/b", b"too early"),
        b"\x20\x00",
        b"\x20\x01\x00",
        b"\x20\xff\xff\xff\xff\x01",
    ),
    ids=("HTTP", "PINGRESP", "PUBLISH", "empty CONNACK", "short CONNACK", "endless length"),
)
def test_whatever_comes_instead_of_connack_ends_the_attempt(world, answer):
    world.listen()
    world.open()
    world.socket.feed(answer)
    world.run_until_state("waiting", seconds=11)  # "H" looks like a PUBACK of 84 bytes
    assert isinstance(world.client.last_error, TBError)
    assert world.messages == []
    world.go_online()


@pytest.mark.parametrize(
    "answer",
    (
        CONNACK,
        b"\xf0\x00",
        b"\x00\x00",
        mqtt.packet(0x10, b"\x00\x04MQTT"),
        mqtt.publish("a/b", b"", quality_of_service=2),
        mqtt.publish("a/b", b"", quality_of_service=3),
        mqtt.packet(0x30, b"\x00\x09short"),
        mqtt.packet(0x32, b"\x00\x03a/b"),
        mqtt.packet(0x40, b"\x00"),
        mqtt.packet(0x90, b"\x00\x01" * 600),
        b"\x30\xff\xff\xff\xff\x01",
    ),
    ids=(
        "second CONNACK",
        "type 15",
        "type 0",
        "CONNECT",
        "QoS 2",
        "QoS 3",
        "topic past the end",
        "no packet id",
        "short PUBACK",
        "long SUBACK",
        "endless length",
    ),
)
def test_a_broken_packet_costs_the_connection_and_no_more(world, answer):
    world.listen()
    world.go_online()
    world.socket.feed(answer)
    world.run_until_state("waiting")
    assert isinstance(world.client.last_error, TBError)
    assert world.messages == []
    world.go_online()
    world.socket.feed(mqtt.publish("a/b", b"well"))
    world.settle()
    assert world.messages == [("a/b", b"well")]


# --- back-off ---


def gaps_of(times):
    return [later - earlier for earlier, later in zip(times, times[1:])]


@pytest.mark.parametrize("chance, share", ((0.0, 0.5), (0.5, 0.75), (1.0, 1.0)))
def test_refused_connections_are_tried_after_pauses_that_double_up_to_a_minute(
    clock, monkeypatch, chance, share
):
    monkeypatch.setattr(tb_device_mqtt, "random", lambda: chance)
    world = World(clock)
    world.pool.refuse = True
    world.client.connect(timeout=0)
    world.run_until(lambda: len(world.times_of("connecting")) == 10, seconds=600, ms=10)
    expected = [1000 * share * pause for pause in (1, 2, 4, 8, 16, 32, 60, 60, 60)]
    assert gaps_of(world.times_of("connecting")) == pytest.approx(expected, abs=50)


def test_a_fleet_spreads_its_attempts(clock, monkeypatch):
    generator = random.Random(1)
    monkeypatch.setattr(tb_device_mqtt, "random", generator.random)
    worlds = [World(clock) for _ in range(40)]
    for each in worlds:
        each.pool.refuse = True
        each.client.connect(timeout=0)
    worlds[0].run_until(
        lambda: (
            [w.client.check_for_msg() for w in worlds[1:]]
            and min(len(w.times_of("connecting")) for w in worlds) >= 2
        )
    )
    pauses = [gaps_of(each.times_of("connecting"))[0] for each in worlds]
    assert 500 <= min(pauses) < 600 and 900 < max(pauses) <= 1050


@pytest.mark.parametrize(
    "listens",
    (
        False,
        True,
    ),
)
def test_a_server_that_hangs_up_on_each_publish_gets_growing_pauses(
    served, memory_server, memory_device, listens
):
    """A rate limit of ThingsBoard: an accepted CONNECT is no success yet, nor is a SUBACK."""
    if listens:
        served.client.subscribe_to_all_attributes(print)
    memory_server.faults.close_on = b"value"
    for number in range(5):
        served.client.send_telemetry({"value": number})
    served.client.connect(timeout=0)
    served.run_until(lambda: memory_device.connects == 5, seconds=200)
    memory_server.faults.close_on = None
    served.run_until(lambda: len(served.acknowledged) == 5, seconds=200)
    gaps = gaps_of(served.times_of("connecting")[:5])
    assert all(later > 1.5 * earlier for earlier, later in zip(gaps, gaps[1:])), gaps
    assert [values["value"] for _, values in memory_device.telemetry][-5:] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("talks", (False, True), ids=("listening", "talking"))
def test_a_server_that_throws_us_out_again_and_again_gets_growing_pauses(
    served, memory_device, talks
):
    """Two devices with one token, each in the place of the other, though all is acknowledged."""
    served.client.subscribe_to_all_attributes(print)
    served.client.connect()
    for count in range(1, 6):
        served.run_until(lambda count=count: memory_device.connects == count, seconds=60)
        served.run_until(lambda: memory_device.subscriptions)
        if talks:
            served.client.send_telemetry({"a": 1})
        served.run(1)
        assert served.client.pending_messages_count == 0
        memory_device.disconnect()
    served.run_until(lambda: memory_device.connects == 6, seconds=60)
    assert "twice" in str(served.client.last_error)
    gaps = gaps_of(served.times_of("connecting"))
    assert gaps == sorted(gaps) and gaps[-1] > 4 * gaps[0], gaps


def check_soon_back(world, device):
    """The connection is lost and, as it was good, the first pause is a short one."""
    device.disconnect()
    world.run_until_state("waiting")
    lost_ms = world.clock.now_ms
    world.run_until_state("online", seconds=2)
    assert world.clock.now_ms - lost_ms < 1100


def fail_six_times(world, server):
    """So that the next pause would be long; then online."""
    server.faults.connack = "close"
    world.client.connect(timeout=0)
    world.run_until(lambda: len(world.times_of("connecting")) == 6, seconds=100)
    server.faults.connack = None
    world.run_until_state("online", seconds=100)


def test_a_puback_alone_does_not_make_the_next_pause_a_short_one(
    served, memory_server, memory_device
):
    """It might have been another client with the same token."""
    fail_six_times(served, memory_server)
    served.client.send_telemetry({"a": 1})
    served.run_until(lambda: served.acknowledged)
    memory_device.disconnect()
    served.run_until_state("waiting")
    lost_ms = served.clock.now_ms
    served.run_until_state("online", seconds=70)
    assert served.clock.now_ms - lost_ms > 10000


def test_a_connection_that_was_cut_while_messages_passed_is_soon_back(
    served, memory_server, memory_device
):
    fail_six_times(served, memory_server)
    served.client.send_telemetry({"a": 1})
    served.run_until(lambda: served.acknowledged)
    memory_server.faults.mute_puback = True
    served.client.send_telemetry({"a": 2})
    served.run(0.1)
    check_soon_back(served, memory_device)


@pytest.mark.parametrize("before_wrap_s", (-100, 10, 40, 60, 75))
def test_after_ten_seconds_a_connection_is_soon_back(
    served, memory_server, memory_device, before_wrap_s
):
    """Whenever the clock starts again: see below."""
    served.clock.now_ms = WRAP_MS - before_wrap_s * 1000
    fail_six_times(served, memory_server)
    served.run(11)
    check_soon_back(served, memory_device)


def test_connections_that_lasted_for_days_are_soon_back(served, memory_device):
    served.client.connect()
    for days in (3, 4, 5, 6, 7):
        served.run(days * 86400, ms=20000)
        memory_device.disconnect()
        served.run_until_state("waiting", seconds=30)
        assert "twice" not in str(served.client.last_error)
        lost_ms = served.clock.now_ms
        served.run_until_state("online", seconds=5)
        assert served.clock.now_ms - lost_ms < 1100


def test_without_a_network_nothing_is_tried_until_it_is_there(clock):
    class Radio:
        connected = False

    world = World(clock, radio=Radio())
    world.client.connect(timeout=0)
    world.run(10)
    assert world.client.state == "waiting" and world.pool.sockets == []
    assert "radio" in str(world.client.last_error)
    Radio.connected = True
    world.open(seconds=1)


# --- receiving ---

STRAY = mqtt.puback(0x3002) + mqtt.suback(9) + mqtt.unsuback(8) + mqtt.pingresp()


def test_a_stream_is_understood_wherever_it_is_cut(world):
    """Packets that nobody waits for are in it: their bytes look like those of other packets."""
    world.listen()
    world.go_online()
    stream = (
        mqtt.publish("a/b", b"one", 1, packet_id=5)
        + STRAY
        + mqtt.publish("a/b", b"two", 0)
        + mqtt.publish("a/b", b"x" * 130, 1, packet_id=6)
    )
    for cut in range(1, len(stream)):
        world.socket.feed(stream[:cut])
        world.poll()
        world.poll()
        world.socket.feed(stream[cut:])
        world.settle(3)
    expected = [("a/b", b"one"), ("a/b", b"two"), ("a/b", b"x" * 130)]
    assert world.messages == expected * (len(stream) - 1)
    acknowledged = [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)]
    assert acknowledged == [5, 6] * (len(stream) - 1)


@pytest.mark.parametrize("gap_ms", (0, 1, 50))
def test_a_stream_is_understood_byte_by_byte(world, gap_ms):
    world.listen()
    world.go_online()
    stream = mqtt.publish("a/b", b"one", 1) + STRAY + mqtt.publish("a/b", b"2" * 200)
    for position in range(len(stream)):
        world.socket.feed(stream[position : position + 1])
        if gap_ms:
            world.poll(gap_ms)
    world.settle(300)
    assert world.messages == [("a/b", b"one"), ("a/b", b"2" * 200)]


HEAD_BYTES = len(mqtt.publish("a/b", b"", 1))
AROUND_THE_BUFFER = tuple(range(BUFFER_BYTES - HEAD_BYTES - 5, BUFFER_BYTES + 6))
LIMIT_BYTES = 4096


@pytest.mark.parametrize("piece_bytes", (None, 1, 7, BUFFER_BYTES))
def test_messages_of_all_sizes_up_to_the_limit_arrive(world, piece_bytes):
    world.client.max_message_bytes = LIMIT_BYTES
    world.listen()
    world.go_online()
    sizes = (0, 1, 119, 120, 127, 128, *AROUND_THE_BUFFER, 2000, LIMIT_BYTES - 128)
    for number, size in enumerate(sizes):
        data = mqtt.publish("a/b", bytes([number]) * size, number % 2, packet_id=number + 1)
        step = piece_bytes or len(data)
        for start in range(0, len(data), step):
            world.socket.feed(data[start : start + step])
        world.run_until(lambda number=number: len(world.messages) > number, seconds=60, ms=1)
    expected = [bytes([number]) * size for number, size in enumerate(sizes)]
    assert [payload for _, payload in world.messages] == expected
    acknowledged = [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)]
    assert acknowledged == [number + 1 for number in range(len(sizes)) if number % 2]
    assert world.client.stats["oversize"] == 0


def test_a_message_of_just_the_limit_arrives(world):
    world.client.max_message_bytes = LIMIT_BYTES
    world.listen()
    world.go_online()
    world.socket.feed(mqtt.publish("a/b", b"x" * LIMIT_BYTES, 1))
    world.settle()
    assert world.messages == [("a/b", b"x" * LIMIT_BYTES)]


@pytest.mark.parametrize("size", (LIMIT_BYTES + 1, 2 * LIMIT_BYTES, 60000, 300000))
@pytest.mark.parametrize("quality_of_service", (0, 1))
@pytest.mark.parametrize("piece_bytes", (3, 700, 1460))
def test_a_message_above_the_limit_is_drained_reported_and_acknowledged(
    world, size, quality_of_service, piece_bytes
):
    world.client.max_message_bytes = LIMIT_BYTES
    world.listen()
    world.go_online()
    data = mqtt.publish("a/b", b"x" * size, quality_of_service, packet_id=77)
    data += mqtt.publish("a/b", b"next", 1, packet_id=78)
    for start in range(0, 2000, piece_bytes):
        world.socket.feed(data[start : min(2000, start + piece_bytes)])
    world.socket.feed(data[2000:])
    world.run_until(lambda: world.messages, seconds=60, ms=1)
    assert world.messages == [("a/b", b"next")]
    assert world.client.stats["oversize"] == 1
    told_bytes = int(re.search("[0-9]+", str(world.client.last_error)).group())
    assert size <= told_bytes <= size + 20
    acknowledged = [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)]
    assert acknowledged == ([77, 78] if quality_of_service else [78])
    assert world.client.connected


class BufferThatCannotBeMoved:
    """A receive buffer for which memory runs out some times when what is in it moves up."""

    def __init__(self, buffer, times):
        self._buffer = buffer
        self._times = times

    def __len__(self):
        return len(self._buffer)

    def __getitem__(self, place):
        return self._buffer[place]

    def __setitem__(self, place, data):
        self._times -= 1
        if self._times >= 0:
            raise MemoryError
        self._buffer[place] = data


def test_a_message_comes_once_although_there_is_no_memory_behind_it(world):
    world.listen()
    world.go_online()
    world.settle()
    link = world.client._link
    link._buffer = link._own_buffer = BufferThatCannotBeMoved(link._own_buffer, 2)
    world.socket.feed(mqtt.publish("a/b", b"1", 1, 7) + mqtt.publish("a/b", b"2", 1, 8))
    for _ in range(2):
        world.poll()
        assert isinstance(world.client.last_error, MemoryError)
    world.settle()
    assert world.messages == [("a/b", b"1"), ("a/b", b"2")]
    assert [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)] == [7, 8]


def test_an_attempt_whose_failure_there_is_no_memory_to_describe_is_made_again(world, monkeypatch):
    failing = mock.Mock(side_effect=MemoryError)
    with monkeypatch.context() as patches:
        patches.setattr(select, "poll", failing)
        patches.setattr(tb_device_mqtt, "_connect_error", failing)
        world.client.connect(timeout=0)
        world.run_until(lambda: failing.call_count == 2)
    world.run(15)
    world.socket.feed(CONNACK)
    world.run_until_state("online")


def test_an_attempt_that_there_was_no_memory_to_end_leaves_no_socket_open(world, monkeypatch):
    opened = []

    class Failing(FakeSocket):
        def __init__(self, pool):
            super().__init__(pool)
            self.is_closed = False
            opened.append(self)

        def connect(self, _address):
            raise ValueError("out of range")

        def close(self):
            self.is_closed = True

    with monkeypatch.context() as patches:
        patches.setattr(world.pool, "socket", lambda *_: Failing(world.pool), raising=False)
        patches.setattr(tb_device_mqtt, "_connect_error", mock.Mock(side_effect=MemoryError))
        world.client.connect(timeout=0)
        world.run_until(lambda: len(opened) == 3)
    assert [socket.is_closed for socket in opened] == [True, True, False]
    world.go_online()
    assert opened[2].is_closed


class SmallMemory(bytearray):
    """No room for more than the receive buffer."""

    def __new__(cls, size=0):
        if size > BUFFER_BYTES:
            raise MemoryError
        return bytearray(size)


def test_a_message_without_memory_for_it_goes_by_and_is_acknowledged(world, monkeypatch):
    world.listen()
    world.go_online()
    monkeypatch.setattr(tb_device_mqtt, "bytearray", SmallMemory, raising=False)
    world.socket.feed(mqtt.publish("a/b", b"1" * 9000, 1, 7) + mqtt.publish("a/b", b"2", 1, 8))
    world.settle()
    assert world.messages == [("a/b", b"2")]
    assert [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)] == [7, 8]
    assert world.client.stats["oversize"] == 1
    assert "no room for a message: 90" in str(world.client.last_error)


def test_a_message_without_memory_for_its_acknowledgement_is_sent_again(world):
    world.go_online()
    note, failures = world.client._link_acknowledged, [MemoryError()]

    def fail_or_note(packet_id):
        if failures:
            raise failures.pop()
        note(packet_id)

    world.client._link_acknowledged = fail_or_note
    number = world.client.send_telemetry({"n": 1})
    (sent,) = world.sent_of(mqtt.PUBLISH)
    world.socket.feed(mqtt.puback(sent.packet_id))
    world.run_until(lambda: len(world.pool.sockets) == 2, seconds=30)
    world.socket.feed(CONNACK)
    world.settle()
    (again,) = world.sent_of(mqtt.PUBLISH)
    world.socket.feed(mqtt.puback(again.packet_id))
    world.settle()
    assert world.acknowledged == [number]
    assert world.client.pending_messages_count == 0


def test_an_announced_size_takes_no_memory_before_it_comes(world):
    world.listen()
    world.go_online()
    tracemalloc.start()
    world.socket.feed(b"\x30" + mqtt.remaining_length(200000000) + b"\x00\x03a/b")
    world.settle()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100000
    assert world.client.connected


def test_one_poll_takes_a_few_packets_only_and_the_rest_is_not_forgotten(world):
    world.listen()
    world.go_online()
    world.socket.feed(b"".join(mqtt.publish("a/b", b"%d" % number) for number in range(200)))
    world.poll()
    assert 1 <= len(world.messages) <= 20
    world.settle()
    assert world.messages == [("a/b", b"%d" % number) for number in range(200)]


# --- handlers ---


def test_a_handler_may_publish_subscribe_and_poll_while_a_publish_is_in_flight(world):
    depth = []

    def handle(*_message):
        depth.append(1)
        assert len(depth) == 1, "handlers run one at a time"
        world.client.publish("inner", b"", 1)
        world.client.subscribe("more", print, 1)
        world.client.unsubscribe("unneeded")
        for _ in range(3):
            assert world.client.check_for_msg() == 0
        depth.pop()

    world.client.subscribe("ask", handle)
    world.client.subscribe("unneeded", print)
    world.go_online()
    outer = world.client.publish("outer", b"", 1)
    world.socket.feed(mqtt.publish("ask", b"", 1, 7) * 2)
    world.settle()
    sent = world.sent[2:]
    assert [packet.topic for packet in sent if packet.type == mqtt.PUBLISH] == ["outer"] + [
        "inner"
    ] * 2
    assert types_of(sent).count(mqtt.UNSUBSCRIBE) == 1
    assert types_of(sent).count(mqtt.SUBSCRIBE) == 1
    for packet in reversed([packet for packet in sent if packet.type == mqtt.PUBLISH]):
        world.socket.feed(mqtt.puback(packet.packet_id))
    world.settle()
    assert len(world.acknowledged) == 3 and world.acknowledged[-1] == outer
    assert world.client.pending_messages_count == 0


def test_a_handler_that_raises_is_counted_and_the_next_message_comes(world):
    seen = []

    def handle(_topic, payload):
        seen.append(payload)
        if payload == b"1":
            raise KeyError("a mistake of the user")

    world.client.subscribe("a/b", handle)
    world.go_online()
    world.socket.feed(mqtt.publish("a/b", b"1", 1, 7) + mqtt.publish("a/b", b"2", 1, 8))
    world.settle()
    assert seen == [b"1", b"2"]
    assert [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)] == [7, 8]
    assert world.client.stats["handler_errors"] == 1
    assert isinstance(world.client.last_error, KeyError)
    assert world.client.connected


def test_a_logger_that_raises_is_counted_and_the_client_goes_on(clock):
    class FullDisk:
        def warning(self, *_message):
            raise OSError(errno.ENOSPC, "no space left")

    world = World(clock, logger=FullDisk())
    world.listen()
    world.go_online()
    world.socket.feed(mqtt.publish("a/b", b"x" * 20000))
    world.settle()
    assert world.client.connected
    world.socket.end()
    world.run_until_state("waiting")
    assert world.client.stats["handler_errors"] == 2
    world.go_online()


def test_a_logger_that_is_interrupted_is_told_what_comes_later(clock):
    told = []

    class Interrupted:
        def warning(self, *message):
            told.append(message)
            raise KeyboardInterrupt

    client = World(clock, strict=False, logger=Interrupted()).client
    for number in (1, 2):
        client.send_telemetry({"none": None})
        with pytest.raises(KeyboardInterrupt):
            client.check_for_msg()
        assert len(told) == number


@pytest.mark.parametrize("quality_of_service", [0, 1])
def test_what_a_logger_sends_when_it_is_told_a_loss_leaves_by_the_next_connection(
    clock, quality_of_service
):
    told = []

    class Reporter:
        def warning(self, text, *arguments):
            if "dropped" in text or not quality_of_service:
                told.append(world.client.publish("log", text % arguments, quality_of_service))

    world = World(clock, logger=Reporter())
    world.client._link._early = False
    world.client.publish("poison", b"", 1)
    while not world.client.stats["dropped"]:
        world.open(100)
        world.socket.feed(CONNACK)
        world.run_until(lambda: world.sent_of(mqtt.PUBLISH))
        world.socket.end()
        world.run_until_state("waiting")
    world.open(100)
    world.socket.feed(CONNACK)
    world.settle()
    assert [packet.type for packet in world.sent].count(mqtt.PUBLISH) == len(told)


@pytest.mark.parametrize("is_pinging", (False, True))
def test_a_logger_may_disconnect(clock, is_pinging):
    """It is called in the middle of reading; behind that a ping may be due."""

    class Guard:
        def warning(self, *_message):
            world.client.disconnect()

    world = World(clock, logger=Guard(), keep_alive=1)
    world.listen()
    world.go_online()
    if is_pinging:
        world.socket.room = 0
        world.client.publish("a/b", b"finds no room")
        world.clock.advance(600)
    world.socket.feed(mqtt.publish("a/b", b"x" * 20000) + mqtt.publish("a/b", b"y"))
    world.settle()
    assert world.client.state == "stopped"
    assert not world.socket.is_open


def test_a_handler_may_disconnect(world):
    world.client.subscribe("a/b", lambda *_: world.client.disconnect())
    world.go_online()
    world.socket.feed(mqtt.publish("a/b", b"1", 1, 7))
    world.settle()
    assert world.client.state == "stopped"
    assert types_of(world.sent)[-2:] == [mqtt.PUBACK, mqtt.DISCONNECT]
    assert not world.socket.is_open


def test_a_handler_may_disconnect_and_connect_again(world):
    def handle(*_message):
        world.client.disconnect()
        world.client.connect(timeout=0)

    world.client.subscribe("a/b", handle)
    world.go_online()
    world.socket.feed(mqtt.publish("a/b", b"1", 1, 7))
    world.run_until(lambda: len(world.pool.sockets) == 2)
    world.socket.feed(CONNACK)
    world.run_until_state("online")
    assert not world.pool.sockets[0].is_open


def test_while_many_messages_wait_for_a_handler_nothing_more_is_read(world):
    """The handler of the first one polls: what comes meanwhile must not fill the memory."""
    taken = []

    def handle(*message):
        taken.append(message)
        for _ in range(100):
            world.deliver()
            world.client.check_for_msg()

    world.client.subscribe("a/b", handle)
    world.go_online()
    for _ in range(200):
        world.socket.feed(mqtt.publish("a/b", b"x" * 100, 1))
    world.poll()
    assert len(world.sent_of(mqtt.PUBACK)) <= 40, "so many were read"
    world.run_until(lambda: len(taken) == 200, ms=1)


def work_for_minutes(world, minutes=2):
    """A handler polls for so long while more messages wait than are read ahead."""

    def handle(*_message):
        if not world.messages:
            world.messages.append("first")
            world.run(minutes * 60, ms=50)

    world.client.subscribe("a/b", handle)
    world.go_online()
    world.client.publish("t", b"", 1)
    for _ in range(100):
        world.socket.feed(mqtt.publish("a/b", b"x", 1))
    for packet in world.sent_of(mqtt.SUBSCRIBE):
        world.socket.feed(mqtt.suback(packet.packet_id))
    for packet in world.sent_of(mqtt.PUBLISH):
        world.socket.feed(mqtt.puback(packet.packet_id))
    for _ in range(4):
        world.socket.feed(mqtt.pingresp())
    world.run(1)
    assert world.messages


def test_a_handler_that_works_for_minutes_and_polls_keeps_the_connection(world):
    """What the server answers meanwhile is there, behind messages that wait to be read."""
    work_for_minutes(world)
    assert world.client.connected
    world.settle()
    assert len(world.sent_of(mqtt.PUBACK)) == 100
    assert world.client.pending_messages_count == 0


def test_a_handler_that_works_for_minutes_still_pings(world):
    """Else a server that checks keep-alive closes the connection (3.1.2.10)."""
    work_for_minutes(world, minutes=5)
    assert world.client.connected
    assert 9 <= len(world.sent_of(mqtt.PINGREQ)) <= 11


# --- sending ---


class WindowsSocket(FakeSocket):
    """Says with the number of Windows that it would have to wait."""

    def send(self, data):
        return self._say(super().send, data)

    def recv_into(self, buffer, size=0):
        return self._say(super().recv_into, buffer, size)

    @staticmethod
    def _say(method, *arguments):
        try:
            return method(*arguments)
        except BlockingIOError as error:
            raise BlockingIOError(10035, "would block") from error


def test_windows_has_a_number_of_its_own_for_a_socket_that_would_have_to_wait(clock):
    pool = FakePool()
    pool.socket = lambda *_: WindowsSocket(pool)
    world = World(clock, pool=pool)
    world.go_online()
    world.socket.room = 5
    world.client.publish("t", b"x" * 20, 0)
    world.settle()
    world.socket.room = None
    world.settle()
    assert world.client.connected
    assert types_of(world.sent) == [mqtt.CONNECT, mqtt.PUBLISH]


class NotingSocket(FakeSocket):
    """What each send() was offered, and what it took, in *sends* of the pool.

    *refusals*: so many of the next send() take nothing.
    """

    refusals = 0

    def send(self, data):
        offered, taken = bytes(data), 0
        try:
            if self.refusals:
                self.refusals -= 1
                raise BlockingIOError(errno.EAGAIN, "no room")
            taken = super().send(data)
        finally:
            self._pool.sends.append((offered, taken))
        return taken


class NotingPool(FakePool):
    def __init__(self):
        super().__init__()
        self.sends = []

    def socket(self, _family=0, _kind=0):
        return NotingSocket(self)


@pytest.fixture
def noting(clock):
    return World(clock, pool=NotingPool(), queue_bytes=100000)


def test_one_packet_is_one_send(noting):
    noting.listen()
    noting.go_online()
    noting.socket.feed(mqtt.suback(0x8001))
    noting.run_until(lambda: noting.sent_of(mqtt.PINGREQ), seconds=31)
    noting.client.send_telemetry({"a": 1})
    noting.client.send_attributes({"b": "x" * 3000})
    noting.client.request_attributes(callback=print)
    noting.client.unsubscribe("a/b")
    noting.socket.feed(mqtt.publish("a/b", b"", 1) * 3)
    noting.settle()
    noting.client.disconnect()
    for offered, taken in noting.pool.sends:
        assert taken == len(offered)
        assert len(packets_of(offered)) == 1
    types = {packets_of(offered)[0].type for offered, _ in noting.pool.sends}
    assert types == {
        mqtt.CONNECT,
        mqtt.PUBLISH,
        mqtt.SUBSCRIBE,
        mqtt.UNSUBSCRIBE,
        mqtt.PUBACK,
        mqtt.PINGREQ,
        mqtt.DISCONNECT,
    }


@pytest.mark.parametrize("seed", range(5))
def test_after_a_partial_send_the_very_same_bytes_are_offered_again(noting, seed):
    """A TLS layer that took a part must not be offered anything else."""
    chance = random.Random(seed)
    noting.listen()
    noting.go_online()
    topics = ["t/%d" % number for number in range(30)]
    for number, topic in enumerate(topics):
        noting.client.publish(topic, b"x" * chance.randrange(400), 1)
        if number % 3 == 0:
            noting.socket.feed(mqtt.publish("a/b", b"", 1, packet_id=number + 1))
        noting.socket.room = chance.choice((0, 0, 1, 2, 50, 400))
        noting.poll()
    noting.socket.room = None
    noting.settle()
    noting.run_until(lambda: acknowledge_all(noting))

    rest = b""
    for offered, taken in noting.pool.sends:
        assert not rest or offered == rest, "other bytes than those that were left"
        rest = offered[taken:]
    assert not rest
    assert [packet.topic for packet in noting.sent_of(mqtt.PUBLISH)] == topics
    assert len(noting.sent_of(mqtt.PUBACK)) == 10


def test_a_wiznet_chip_is_read_without_waiting_although_it_could_not_send(clock, monkeypatch):
    given = []
    monkeypatch.setattr(FakeSocket, "settimeout", lambda _socket, seconds: given.append(seconds))
    pool = FakePool()
    pool._interface = None
    world = World(clock, pool=pool)
    world.listen()
    world.go_online()

    def fail(_data):
        raise RuntimeError("No data was sent")

    world.socket.send = fail
    world.socket.feed(mqtt.publish("a/b", b"to be acknowledged", 1))
    world.run_until(lambda: not world.client.connected)
    assert given[-2:] == [2, 0]


class FullMemory(bytes):
    """A packet without memory for one more view, of its end."""

    def __getitem__(self, piece):
        if piece.start == len(self):
            raise MemoryError
        return super().__getitem__(piece)


def test_a_packet_that_has_gone_needs_no_memory(world, monkeypatch):
    world.go_online()
    monkeypatch.setattr(tb_device_mqtt, "memoryview", FullMemory, raising=False)
    world.client.publish("a/b", b"once", 0)
    world.settle()
    assert [packet.payload for packet in world.sent_of(mqtt.PUBLISH)] == [b"once"]


class NoViewBehindASend(bytes):
    """A packet of which nothing can be cut right after a part of it has gone."""

    has_sent = False

    def __getitem__(self, piece):
        if NoViewBehindASend.has_sent:
            NoViewBehindASend.has_sent = False
            raise MemoryError
        return NoViewBehindASend(super().__getitem__(piece))


def test_a_part_that_has_gone_never_goes_again_although_memory_is_missing_then(world, monkeypatch):
    world.go_online()
    send = FakeSocket.send

    def send_some(socket, data):
        socket.room = 7
        sent = send(socket, data)
        NoViewBehindASend.has_sent = True
        return sent

    monkeypatch.setattr(tb_device_mqtt, "memoryview", NoViewBehindASend, raising=False)
    world.socket.room = 0
    world.client.publish("a/b", b"a message of some length", 0)
    monkeypatch.setattr(FakeSocket, "send", send_some)
    world.settle()
    assert [packet.payload for packet in world.sent_of(mqtt.PUBLISH)] == [
        b"a message of some length"
    ]


def acknowledge_all(world):
    """Acknowledge what came and was not acknowledged; whether that was all."""
    for packet in world.sent_of(mqtt.PUBLISH):
        if packet.packet_id not in world.acknowledged:
            world.socket.feed(mqtt.puback(packet.packet_id))
    world.settle(3)
    return world.client.pending_messages_count == 0


def test_pubacks_leave_in_the_order_of_their_messages(world):
    """MQTT 3.1.1, 4.6."""
    world.listen()
    world.go_online()
    world.socket.room = 3
    world.client.publish("t", b"x" * 100, 1)
    for packet_id in range(1, 10):
        world.socket.feed(mqtt.publish("a/b", b"", 1, packet_id))
    world.settle()
    world.socket.room = None
    world.settle()
    acknowledged = [packet.packet_id for packet in world.sent_of(mqtt.PUBACK)]
    assert acknowledged == list(range(1, 10))


def test_subscriptions_leave_in_the_order_of_their_calls(world):
    world.go_online()
    world.socket.room = 0
    topics = ["t/%d" % number for number in range(30)]
    for topic in topics:
        world.client.subscribe(topic, print)
        world.client.unsubscribe(topic)
    world.socket.room = None
    world.settle()
    expected = [(mqtt.SUBSCRIBE, topic) for topic in topics]
    expected += [(mqtt.UNSUBSCRIBE, topic) for topic in topics]
    sent = [
        (packet.type, packet.filters[0][0])
        for packet in world.sent_of(mqtt.SUBSCRIBE, mqtt.UNSUBSCRIBE)
    ]
    assert sorted(sent) == sorted(expected)
    assert [topic for kind, topic in sent if kind == mqtt.SUBSCRIBE] == topics
    assert [kind for kind, _ in sent] == [mqtt.SUBSCRIBE, mqtt.UNSUBSCRIBE] * 30
    numbers = {p.packet_id for p in world.sent_of(mqtt.SUBSCRIBE, mqtt.UNSUBSCRIBE)}
    assert len(numbers) == 60, "each waits for an answer of its own"


def test_while_acknowledgements_find_no_room_nothing_more_is_read(world):
    """Or a server that sends and never reads fills the memory."""
    world.listen()
    world.go_online()
    world.socket.room = 0
    for _ in range(1000):
        world.socket.feed(mqtt.publish("a/b", b"x", 1))
    world.run(2)
    assert len(world.messages) <= 100


def test_a_public_method_never_raises_what_the_network_does(world):
    world.go_online()
    world.socket.end(reset=True)
    world.client.send_telemetry({"a": 1})
    world.client.subscribe("a/b", print)
    world.client.unsubscribe("a/b")
    world.client.publish("t", b"", 0)
    world.poll()
    assert world.client.state == "waiting"


@pytest.mark.parametrize("room", (None, 0, 5))
def test_a_refusal_is_read_although_the_server_has_closed_when_more_is_sent(world, room):
    world.open()
    world.socket.room = room
    world.client.send_telemetry({"a": 0})
    world.socket.feed(mqtt.connack(5))
    world.socket.end()
    world.client.send_telemetry({"a": 1})  # finds a broken pipe
    world.poll()
    assert isinstance(world.client.last_error, TBRefusedError)
    assert world.client.last_error.code == 5


@pytest.mark.parametrize("chip", ("_interface", "NO_SOCKET_AVAIL"))  # WIZnet, AirLift
def test_a_refusal_is_read_although_a_chip_was_asked_a_moment_ago(clock, chip):
    pool = FakePool()
    setattr(pool, chip, None)
    world = World(clock, pool=pool)
    world.open()
    world.poll()
    world.socket.feed(mqtt.connack(5))
    world.socket.end()
    world.client.send_telemetry({"a": 1})  # finds a broken pipe
    world.poll()
    assert isinstance(world.client.last_error, TBRefusedError)


def test_an_acknowledgement_is_read_although_the_server_has_closed_when_more_is_sent(world):
    world.go_online()
    number = world.client.send_telemetry({"a": 1})
    world.socket.feed(mqtt.puback(world.sent[-1].packet_id))
    world.socket.end()
    world.client.send_telemetry({"a": 2})
    world.poll()
    world.poll()
    assert world.client.state == "waiting"
    assert world.acknowledged == [number]
    assert world.client.pending_messages_count == 1


def test_disconnect_is_said_once(world):
    world.go_online()
    world.client.disconnect()
    world.client.disconnect()
    assert types_of(world.sent) == [mqtt.CONNECT, mqtt.DISCONNECT]
    assert not world.socket.is_open


def test_disconnect_is_not_said_in_the_middle_of_a_packet(noting):
    noting.go_online()
    start = len(noting.socket.sent)
    noting.socket.room = 5
    noting.client.send_telemetry({"a": "x" * 100})
    noting.socket.room = None
    noting.socket.refusals = 1  # the rest finds no room, but a moment later there is some
    noting.client.disconnect(0)
    assert len(noting.socket.sent) == start + 5
    assert not noting.socket.is_open


def test_disconnect_before_connack_closes_the_connection(world):
    world.open()
    world.client.disconnect()
    assert world.client.state == "stopped"
    assert not world.socket.is_open
    world.run(100)
    assert len(world.pool.sockets) == 1


# --- silence ---


def test_an_idle_connection_is_kept_alive_by_a_ping_in_time(served, memory_server):
    served.client.connect()
    served.run(600, ms=50)
    packets = [name for _, way, name in memory_server.board.packets if way == "in"]
    assert 10 <= packets.count("PINGREQ") <= 20
    assert packets.count("CONNECT") == 1


@pytest.mark.parametrize("keep_alive", (1, 2, 5, 20, 60, 600))
@pytest.mark.parametrize("talks", (False, True), ids=("idle", "talking"))
def test_silence_is_noticed_within_keep_alive(clock, keep_alive, talks):
    """Talking into a dead connection is no sign of life."""
    world = World(clock, keep_alive=keep_alive)
    world.go_online()
    silent_ms = clock.now_ms
    while world.client.state == "online":
        if talks:
            world.client.publish("t", b"", 0)
        world.poll(20)
        assert clock.now_ms - silent_ms <= keep_alive * 1000
    assert "PINGRESP" in str(world.client.last_error)
    assert len(world.sent_of(mqtt.PINGREQ)) == 1


def test_who_only_receives_pings_too(world):
    """The server wants to hear something within keep-alive (3.1.2.10)."""
    world.listen()
    world.go_online()
    for _ in range(300):
        world.socket.feed(mqtt.publish("a/b", b"x"))
        pings = len(world.sent_of(mqtt.PINGREQ))
        world.run(1)
        if len(world.sent_of(mqtt.PINGREQ)) > pings:
            world.socket.feed(mqtt.pingresp())
        for packet in world.sent_of(mqtt.SUBSCRIBE):
            world.socket.feed(mqtt.suback(packet.packet_id))
    assert len(world.messages) == 300
    assert 5 <= len(world.sent_of(mqtt.PINGREQ)) <= 10


def test_a_slow_uplink_is_no_silence(clock):
    """1.5 KB in a second: a ping that waits its turn is not one that was not answered."""
    world = World(clock, queue_bytes=100000)
    world.go_online()
    world.socket.room = 0
    for _ in range(4):
        world.client.publish("t", b"x" * 16000, 0)
    for _ in range(4 * 16000 * 20 // 1500):
        world.socket.room += 75
        world.poll(50)
        assert world.client.connected, (clock.now_ms, world.client.last_error)
    world.socket.room = None
    world.settle()
    assert len(world.sent_of(mqtt.PUBLISH)) == 4


def test_a_slow_downlink_is_no_silence(world):
    """The answer to a ping comes behind a message that takes a minute and a half."""
    world.listen()
    world.go_online()
    world.socket.feed(mqtt.suback(world.sent_of(mqtt.SUBSCRIBE)[0].packet_id))
    message = mqtt.publish("a/b", b"x" * 9000)
    for start in range(0, len(message), 100):
        world.socket.feed(message[start : start + 100])
        world.run(1)
        assert world.client.connected, (world.clock.now_ms, world.client.last_error)
    assert world.sent_of(mqtt.PINGREQ)
    world.socket.feed(mqtt.pingresp())
    world.settle()
    assert world.messages == [("a/b", b"x" * 9000)]
    world.run_until_state("waiting", seconds=42)  # silence is noticed as before
    assert "PINGRESP" in str(world.client.last_error)


def test_a_message_that_takes_a_minute_to_leave_is_waited_for(world):
    world.go_online()
    world.socket.room = 0
    world.client.publish("t", b"x" * 6000, 1)
    for _ in range(61):
        world.socket.room = 100
        world.run(1)
    assert world.client.connected
    world.socket.room = None
    world.socket.feed(mqtt.puback(world.sent_of(mqtt.PUBLISH)[0].packet_id) + mqtt.pingresp())
    world.settle()
    assert len(world.acknowledged) == 1
    world.client.publish("t", b"", 1)
    world.run_until_state("waiting", seconds=21)  # and of what has left not longer than before
    assert "no acknowledgement in 20 s" in str(world.client.last_error)


def test_keep_alive_0_means_no_pings(clock):
    world = World(clock, keep_alive=0)
    world.go_online()
    world.run(7200, ms=200)
    assert world.client.connected
    assert types_of(world.sent) == [mqtt.CONNECT]


def test_an_application_that_slept_through_the_answer_stays_connected(world):
    world.go_online()
    world.run_until(lambda: world.sent_of(mqtt.PINGREQ), seconds=60)
    world.socket.feed(mqtt.pingresp())
    world.clock.advance(3600 * 1000)
    world.poll()
    world.poll()
    assert world.client.connected


def test_an_acknowledgement_that_does_not_come_costs_the_connection(served, memory_server):
    served.client.connect()
    memory_server.faults.mute_puback = True
    served.client.send_telemetry({"a": 1})
    sent_ms = served.clock.now_ms
    served.run_until_state("waiting", seconds=30)
    assert 20000 <= served.clock.now_ms - sent_ms <= 20500
    assert "acknowledgement" in str(served.client.last_error)
    memory_server.faults.mute_puback = False
    served.run_until(lambda: served.acknowledged)


def test_a_server_that_takes_nothing_more_costs_the_connection(world):
    world.go_online()
    world.socket.room = 0
    world.client.publish("t", b"", 0)
    world.run_until_state("waiting", seconds=11)
    assert "no acknowledgement in 10 s" in str(world.client.last_error)


# --- the clock starts again ---
# adafruit_ticks counts to 2**29, six days, and begins again at 0. `Clock` does so after 10 s.


def live(world):
    """A life with all that is timed in it; when what happened, counted from its start."""
    start_ms = world.clock.now_ms
    events = []

    def note(name):
        events.append((name, world.clock.now_ms - start_ms))

    world.client.on_state = lambda _client, _data, state, _reason: note(state)
    world.pool.refuse = True  # back-off
    world.client.connect(timeout=0)
    world.run_until(lambda: len(events) >= 8, seconds=60)
    world.pool.refuse = False
    world.run_until(lambda: world.pool.sockets, seconds=60)  # no CONNACK
    world.run_until_state("waiting", seconds=20)
    world.go_online()
    world.run_until_state("waiting", seconds=60)  # no PINGRESP
    world.go_online()
    world.client.request_attributes(callback=lambda *_: note("no answer"))  # deadline
    world.run_until(lambda: events[-1][0] == "no answer", seconds=30)
    world.run_until_state("waiting", seconds=30)  # no PUBACK
    world.go_online()
    world.socket.room = 0
    world.client.publish("t", b"", 0)
    world.run_until_state("waiting", seconds=30)  # no room to send
    return events


@pytest.fixture(scope="module")
def life_far_from_the_wrap():
    with Clock() as clock:
        clock.advance(WRAP_MS + 1000)
        return live(World(clock))


def test_a_life_has_all_that_is_timed(life_far_from_the_wrap):
    names = [name for name, _ in life_far_from_the_wrap]
    assert names.count("online") == 3 and names.count("no answer") == 1
    assert 90000 < life_far_from_the_wrap[-1][1] < 140000


@pytest.mark.parametrize("before_wrap_ms", (0, 1, 500, *range(1000, 130000, 3300)))
def test_the_clock_may_start_again_at_any_time(life_far_from_the_wrap, before_wrap_ms):
    with Clock() as clock:
        clock.now_ms = WRAP_MS - before_wrap_ms
        assert live(World(clock)) == life_far_from_the_wrap


# --- states ---


def test_on_state_sees_allowed_moves_only(served, memory_server, memory_device):
    chance = random.Random(3)
    client, faults = served.client, memory_server.faults
    client.subscribe_to_all_attributes(print)
    for _ in range(400):
        action = chance.randrange(9)
        if action == 0:
            client.connect(timeout=0)
        elif action == 1:
            client.disconnect()
        elif action == 2:
            memory_device.disconnect(rst=chance.random() < 0.5)
        elif action == 3:
            faults.connack = chance.choice((None, None, 3, 5, "close", "silence"))
        elif action == 4:
            memory_server.pool.refuse = chance.random() < 0.3
        elif action == 5:
            client.send_telemetry({"a": 1})
        else:
            served.run(chance.choice((0.1, 1, 15)), ms=50)
    states = served.states()
    assert set(states) == set(MAY_FOLLOW)
    for before, after in zip(states, states[1:]):
        assert after in MAY_FOLLOW[before], (before, after)


def test_on_state_is_told_why_a_connection_was_lost(served, memory_device):
    reasons = []
    served.client.on_state = lambda _client, data, state, why: reasons.append((data, state, why))
    served.client.user_data = "mine"
    served.client.connect()
    memory_device.disconnect()
    served.run_until_state("waiting")
    assert [state for _, state, _ in reasons] == ["waiting", "connecting", "online", "waiting"]
    assert {data for data, _, _ in reasons} == {"mine"}
    assert [reason for _, _, reason in reasons[:3]] == [None] * 3
    assert isinstance(reasons[3][2], OSError)


def test_an_attempt_for_which_the_pystack_is_too_small_is_closed_told_and_made_again(
    world, monkeypatch
):
    failed = []

    def connect(socket, _address):
        failed.append(socket)
        raise RuntimeError("pystack exhausted")

    monkeypatch.setattr(FakeSocket, "close", lambda socket: failed.append("closed"))
    with monkeypatch.context() as patched:
        patched.setattr(FakeSocket, "connect", connect)
        with pytest.raises(RuntimeError, match="pystack"):
            world.client.connect()
    assert failed[1:] == ["closed"]
    assert world.client.state == "waiting"
    world.go_online()


def test_connecting_is_announced_one_poll_before_the_attempt_that_may_block(world):
    world.client.connect(timeout=0)
    world.run_until_state("connecting", ms=1)
    assert world.pool.sockets == []
    assert world.states()[-1] == "connecting"
    world.poll()
    assert len(world.pool.sockets) == 1


# --- idle ---


def test_an_idle_poll_sends_nothing_and_keeps_no_memory(noting):
    noting.listen()
    noting.go_online()
    sends = len(noting.pool.sends)
    idle(noting, 500)
    gc.collect()
    tracemalloc.start()
    idle(noting, 500)
    before, _ = tracemalloc.get_traced_memory()
    idle(noting, 5000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 512
    assert len(noting.pool.sends) == sends


def idle(world, polls):
    for _ in range(polls):
        world.socket.begin_poll()
        assert world.client.check_for_msg() == 0
        world.clock.now_ms += 1


# --- queue ---


def test_a_full_queue_drops_the_oldest_telemetry_and_tells(clock):
    world = World(clock, queue_size=4)
    dropped = []
    world.client.on_drop = lambda *arguments: dropped.append(arguments)
    numbers = [world.client.send_telemetry({"a": number}) for number in range(4)]
    world.client.send_attributes({"kept": True})
    world.client.send_attributes({"kept": False})
    world.poll()
    assert [number for _, _, _, number, _, _ in dropped] == numbers[:2]
    assert world.client.stats["dropped"] == 2
    assert world.client.pending_messages_count == 4


def test_a_queue_is_full_by_its_bytes_too(clock):
    world = World(clock, queue_bytes=1000)
    for _ in range(10):
        world.client.publish("t", b"x" * 300, 1)
    assert world.client.pending_messages_count == 2
    assert world.client.stats["dropped"] == 8


def test_a_message_after_which_the_server_hangs_up_is_dropped_alone(
    served, memory_server, memory_device
):
    memory_server.faults.close_on = b"poison"
    dropped = []
    served.client.on_drop = lambda *arguments: dropped.append(arguments)
    served.client.connect()
    numbers = [
        served.client.publish(
            "v1/devices/me/telemetry", b'{"poison":1}' if n == 3 else b'{"n":%d}' % n
        )
        for n in range(6)
    ]
    served.run_until(lambda: served.client.pending_messages_count == 0, seconds=600)
    served.settle()
    assert [(number, topic) for _, _, topic, number, _, _ in dropped] == [
        (numbers[3], "v1/devices/me/telemetry")
    ]
    assert "8 times" in dropped[0][5]
    assert sorted(served.acknowledged) == sorted(set(numbers) - {numbers[3]})
    stored = [values["n"] for _, values in memory_device.telemetry]
    assert sorted(set(stored)) == [0, 1, 2, 4, 5]
