# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What holds for any bytes, any values and any order of calls: hypothesis, in memory."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from fakes import Clock, MemoryServer
from faults.scripted_broker import PUBACK
from local_server import mqtt311
from world import World

MANY = settings(max_examples=300)

ATTRIBUTES = "v1/devices/me/attributes"
RPC_RESPONSE = "v1/devices/me/rpc/response/"
TOPICS = (
    ATTRIBUTES,
    "v1/devices/me/attributes/response/1",
    "v1/devices/me/rpc/request/7",
    RPC_RESPONSE + "2",
    "another/topic",
)
CONNACK = mqtt311.connack(0, False)
BUFFER_BYTES = 1024
LIMIT_BYTES = 3000
PATIENCE_S = 300  # longer than any pause before an attempt


# --- any bytes ---

MESSAGES = st.builds(
    mqtt311.publish,
    st.sampled_from(TOPICS),
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from((b'{"a":1}', b"[]", b'{"shared":3}', b'{"method":1}', b"1" * 2000)),
    ),
    st.integers(0, 1),
    st.integers(0, 65535),
)
ANSWERS = st.one_of(
    st.builds(mqtt311.puback, st.integers(0, 65535)),
    st.builds(mqtt311.suback, st.integers(0, 65535), st.binary(max_size=6)),
    st.builds(mqtt311.connack, st.integers(0, 255), st.booleans()),
    st.just(mqtt311.pingresp()),
)


@st.composite
def broken(draw, packets):
    """A packet with a byte changed, or cut off."""
    packet = bytearray(draw(packets))
    position = draw(st.integers(0, len(packet) - 1))
    if draw(st.booleans()):
        packet[position] = draw(st.integers(0, 255))
    else:
        del packet[position:]
    return bytes(packet)


ANY_BYTES = st.lists(
    st.one_of(st.binary(max_size=50), MESSAGES, ANSWERS, broken(MESSAGES), broken(ANSWERS)),
    max_size=8,
)


def use_everything(client):
    """Whatever bytes can hit: handlers, watches, requests, a full outbox."""
    client.set_server_side_rpc_request_handler(lambda request_id, body: body["params"]["none"])
    client.subscribe_to_all_attributes(lambda result, *_: result["none"])
    client.shared.setdefault("interval", 10)
    client.request_attributes(callback=lambda result, exception: result["client"]["none"])
    client.send_rpc_call("getTime", callback=lambda *_: None)
    for number in range(10):
        client.send_telemetry({"number": number})


@pytest.mark.parametrize("before", (b"", CONNACK), ids=("before_connack", "after_connack"))
@MANY
@given(pieces=ANY_BYTES)
def test_any_bytes_end_in_a_working_connection(before, pieces):
    with Clock() as clock:
        world = World(clock)
        use_everything(world.client)
        world.listen("#")
        world.open()
        socket = world.socket
        for piece in (before, *pieces):
            socket.feed(piece)
            world.poll()

        # A server that says no more is left, if it was not before for what it has said.
        world.run_until_state("waiting", PATIENCE_S)
        assert not socket.is_open
        world.open_next(PATIENCE_S)
        world.accept()
        world.pool.socket_now.feed(mqtt311.publish("hello", b"again", 1, 1))
        world.run_until(lambda: ("hello", b"again") in world.messages, seconds=1)
        assert world.messages[-1] == ("hello", b"again")


@pytest.mark.parametrize("flags", (1, 2, 8, 15))
def test_a_connack_with_flags_costs_the_connection_and_no_more(flags):
    with Clock() as clock:
        world = World(clock)
        world.go_online()
        world.pool.socket_now.feed(bytes((0x20 | flags, 2, 0, 0)))
        world.run_until_state("waiting", seconds=1)


def test_an_end_is_noticed_however_much_is_unsent():
    with Clock() as clock:
        world = World(clock)
        world.listen("#")
        world.go_online()
        socket = world.pool.socket_now
        socket.room = 0
        for number in range(1, 20):  # each wants a PUBACK
            socket.feed(mqtt311.publish("topic", b"", 1, number))
        for _ in range(10):
            world.poll()
        socket.end()
        world.client.subscribe("another", print)
        world.run_until_state("waiting", seconds=1)


# --- valid packets ---

SIZES = st.one_of(
    st.integers(0, 200),
    st.integers(BUFFER_BYTES - 60, BUFFER_BYTES + 60),
    st.integers(LIMIT_BYTES - 40, LIMIT_BYTES + 40),
    st.integers(16300, 16400),  # Remaining Length grows to three bytes
)
STREAM = st.lists(
    st.one_of(
        st.tuples(SIZES, st.integers(0, 1), st.integers(1, 65535)),  # a message
        st.builds(mqtt311.puback, st.integers(1, 65535)),
        st.builds(mqtt311.suback, st.integers(1, 65535), st.just(b"\x01")),
        st.just(mqtt311.pingresp()),
    ),
    max_size=12,
)
SPLITS = st.lists(
    st.one_of(st.integers(1, 5), st.integers(1, 3000)), min_size=1, max_size=20
)  # sizes of the pieces, again and again


def pieces_of(data, sizes):
    pieces, start = [], 0
    while start < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[start : start + size])
        start += size
    return pieces


@MANY
@given(stream=STREAM, sizes=SPLITS)
def test_exactly_the_messages_come_out_of_any_split(stream, sizes):
    data, sent, packet_ids = b"", [], []
    for number, part in enumerate(stream):
        if isinstance(part, bytes):
            data += part
            continue
        size, quality_of_service, packet_id = part
        message = (b"%d " % number).ljust(size, b".")
        data += mqtt311.publish("topic", message, quality_of_service, packet_id)
        sent.append(message)
        if quality_of_service:
            packet_ids.append(packet_id)

    with Clock() as clock:
        world = World(clock, keep_alive=0)
        world.client.max_message_bytes = LIMIT_BYTES
        world.listen("#")
        world.go_online()
        socket = world.pool.socket_now
        for piece in pieces_of(data, sizes):
            socket.feed(piece)
            world.poll(ms=0)
        for _ in range(len(stream) + 2):
            world.poll(ms=0)

        came = [payload for _, payload in world.messages]
        # Whether topic and header count as part of the limit is left open.
        fits = [message for message in sent if len(message) + 9 <= LIMIT_BYTES or message in came]
        assert came == fits
        assert all(len(message) <= LIMIT_BYTES for message in came)
        assert world.client.stats["oversize"] == len(sent) - len(came)
        pubacks = [packet.packet_id for packet in world.sent_of(PUBACK)]
        assert pubacks == packet_ids
        assert world.client.connected


# --- any telemetry ---

KEYS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.text("<{}/!aZ", max_size=8),  # some are markup
    st.text("a", min_size=250, max_size=260),
    st.none(),
    st.integers(),
    st.binary(max_size=4),
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.from_regex(r"-?[0-9]{0,30}\.?[0-9]{0,30}", fullmatch=True),
    st.binary(max_size=10),
    st.sampled_from((object(), 1j, {1, 2}, range(3), "x" * 20000)),
)
VALUES = st.recursive(
    ODD,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=8,
)


def online_with_stand_in(clock, **options):
    server = MemoryServer(clock)
    device = server.add_device("Roof", "TOKEN")
    world = World(clock, server, **options)
    world.client.connect(timeout=0)
    world.run_until_state("online")
    return world, device


def keys_in(value):
    if isinstance(value, dict):
        return list(value) + [key for item in value.values() for key in keys_in(item)]
    if isinstance(value, (list, tuple)):
        return [key for item in value for key in keys_in(item)]
    return []


def as_json(key):
    """A key as `json.dumps` writes it."""
    return next(iter(json.loads(json.dumps({key: 0}))))


def is_named(key, error):
    forms = [key[:32]] if isinstance(key, str) else [key, str(key), json.dumps(key, default=str)]
    return any(repr(form)[:-1] in str(error) for form in forms)


@MANY
@given(key=KEYS, value=VALUES)
def test_any_value_is_refused_by_name_or_stored(key, value):
    with Clock() as clock:
        world, device = online_with_stand_in(clock)
        try:
            world.client.send_telemetry({key: value})
        except (TypeError, ValueError) as error:
            assert any(is_named(name, error) for name in keys_in({key: value}))
            assert world.client.pending_messages_count == 0
        else:
            world.run_until_sent(seconds=5)
            assert [list(values) for _, values in device.telemetry] == [[as_json(key)]]
        assert device.online
        assert device.connects == 1


@MANY
@given(
    values=st.dictionaries(
        st.text("abcdefghij", min_size=1, max_size=3),
        st.one_of(st.integers(-1000, 1000), st.sampled_from((None, math.nan, math.inf, b"x"))),
        min_size=1,
        max_size=8,
    )
)
def test_without_strict_the_odd_values_alone_are_left_out(values):
    good = {key: value for key, value in values.items() if isinstance(value, int)}
    with Clock() as clock:
        world, device = online_with_stand_in(clock, strict=False)
        message_id = world.client.send_telemetry(values)
        world.run_until_sent(seconds=5)
        assert [row for _, row in device.telemetry] == ([good] if good else [])
        assert (message_id is None) == (not good)
        assert world.client.stats["left_out"] == len(values) - len(good)
        assert device.connects == 1


def test_a_number_of_too_many_digits_is_refused():
    with Clock() as clock:
        world, device = online_with_stand_in(clock)
        with pytest.raises((TypeError, ValueError)):
            world.client.send_telemetry({"huge": 10**5000})
        world.run_until_sent(seconds=1)
        assert device.connects == 1


INT64 = st.integers(-(2**63), 2**63 - 1)
READINGS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(10**11, 1 << 42)),  # ts
        st.lists(st.one_of(INT64, st.text("xyz", max_size=40)), min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=12,
)


@MANY
@given(readings=READINGS, limit=st.integers(150, 700), is_online=st.booleans())
def test_every_reading_of_a_split_upload_arrives_once(readings, limit, is_online):
    data, expected = [], {}
    for number, (ts, values) in enumerate(readings):
        reading = {"%d.%d" % (number, index): value for index, value in enumerate(values)}
        expected.update({key: (ts, value) for key, value in reading.items()})
        data.append(reading if ts is None else {"ts": ts, "values": reading})

    with Clock() as clock:
        world, device = online_with_stand_in(clock, queue_size=1000, queue_bytes=1 << 20)
        if not is_online:
            world.pool.socket_now.end()
            world.run_until_state("waiting", PATIENCE_S)
        started_ms = int(clock.time() * 1000)
        world.client.max_message_bytes = limit
        world.client.send_telemetry(data)
        world.run_until_sent(PATIENCE_S)

        rows = [(ts, key, value) for ts, row in device.telemetry for key, value in row.items()]
        assert sorted(key for _, key, _ in rows) == sorted(expected)
        for ts, key, value in rows:
            given_ts, given_value = expected[key]
            # Where the reading had no time, it got one of its own, or the server's.
            assert ts == given_ts or (given_ts is None and 0 <= ts - started_ms < 60000)
            assert str(value) == str(given_value)
        if is_online:
            assert max(len(message[1]) for message in device.messages) <= limit


def test_late_readings_travel_in_messages_within_the_limit():
    with Clock() as clock:
        world, device = online_with_stand_in(clock)
        world.pool.socket_now.end()
        world.run_until_state("waiting", PATIENCE_S)
        world.client.max_message_bytes = 300
        for number in range(20):
            world.client.send_telemetry({"number": number})
        world.run_until_sent(PATIENCE_S)
        assert [values["number"] for _, values in device.telemetry] == list(range(20))
        assert max(len(message[1]) for message in device.messages) <= 300


# --- any order of calls ---


class Calls(RuleBasedStateMachine):
    """A device and a user of the server do what they like, and the network what it likes.

    In the end everything heals. Then all has arrived or was reported, in order; no RPC was
    executed twice; every question got one answer.
    """

    QUEUE_SIZE = 16
    QUEUE_BYTES = 2500
    WORDS = ("stopped", "waiting", "connecting", "online")

    @initialize(is_old=st.booleans())
    def start(self, is_old):
        self.clock = Clock()
        self.clock.__enter__()
        self.server = MemoryServer(self.clock)
        self.device = self.server.add_device("Roof", "TOKEN")
        self.world = World(
            self.clock,
            self.server,
            queue_size=self.QUEUE_SIZE,
            queue_bytes=self.QUEUE_BYTES,
        )
        self.client = self.world.client
        self.server.faults.ignore_before_connack = is_old  # as ThingsBoard before 3.3
        self.numbers = 0
        self.sent = {}  # message id: name of what it carries
        self.dropped = []  # (topic, message id)
        self.executed = []
        self.replies = []  # futures of RPCs, with what they have to answer
        self.answers = {}  # name of a question: how many answers it got
        self.client.on_drop = lambda *drop: self.dropped.append(drop[2:4])
        self.client.rpc("count")(self.count)
        self.client.subscribe_to_all_attributes(lambda *_: None)
        self.client.connect(timeout=0)

    def teardown(self):
        if hasattr(self, "clock"):
            try:
                self.heal()
                self.check_the_end()
            finally:
                self.clock.__exit__()

    def count(self, number):
        self.executed.append(number)
        if number % 3 == 0:  # a handler may do what any other part of a program may
            self.send_telemetry()
            self.client.check_for_msg()
        if number % 5 == 0:
            self.request_attributes()
        return number

    def next_name(self):
        self.numbers += 1
        return "n%d" % self.numbers

    # --- the device ---

    @rule()
    def send_telemetry(self):
        name = self.next_name()
        self.sent[self.client.send_telemetry({name: self.numbers})] = name

    @rule()
    def send_attributes(self):
        name = self.next_name()
        self.sent[self.client.send_attributes({name: self.numbers})] = name

    @rule()
    def send_telemetry_that_may_get_lost(self):
        self.client.send_telemetry({"unimportant": 1}, quality_of_service=0)

    @rule(ms=st.sampled_from((0, 1, 30, 1100, 15000)), times=st.integers(1, 4))
    def poll(self, ms, times):
        for _ in range(times):
            self.world.poll(ms)

    @rule()
    def request_attributes(self):
        self.ask(lambda answer: self.client.request_attributes(callback=answer))

    @rule()
    def call_the_server(self):
        self.ask(lambda answer: self.client.send_rpc_call("getTime", callback=answer))

    def ask(self, question):
        name = self.next_name()
        self.answers[name] = 0

        def answer(*_):
            self.answers[name] += 1

        question(answer)

    @rule()
    def disconnect(self):
        self.client.disconnect()

    @rule()
    def connect(self):
        self.client.connect(timeout=0)

    @rule(listens=st.booleans())
    def listen_or_not(self, listens):
        if listens:
            self.client.subscribe(ATTRIBUTES, lambda *_: None)
        else:
            self.client.unsubscribe(ATTRIBUTES)

    @rule()
    def wait_shortly(self):
        self.world.deliver()
        self.client.wait_for_msg(0.05)
        self.world.deliver()
        self.client.flush(0.05)

    # --- the user of the server ---

    @rule(times=st.sampled_from((1, 1, 20)), size=st.sampled_from((1, 900, 3000, 20000)))
    def push_attributes(self, times, size):
        for _ in range(times):
            self.device.push_attributes({self.next_name(): "x" * size})

    @rule()
    def rpc(self):
        self.numbers += 1
        self.replies.append((self.device.call_rpc("count", self.numbers, 10**6), self.numbers))

    # --- the network and the server ---

    @rule(reset=st.booleans(), arrives=st.booleans())
    def cut(self, reset, arrives):
        if arrives:
            self.server.pool.deliver()
        if self.server.pool.socket_now is not None:
            self.server.pool.socket_now.end(reset)

    @rule(is_down=st.booleans())
    def stop_or_start_the_server(self, is_down):
        self.server.pool.refuse = is_down
        if is_down:
            self.cut(False, False)

    @rule(room=st.sampled_from((None, 0, 1, 20)))
    def fill_the_way_out(self, room):
        if self.server.pool.socket_now is not None:
            self.server.pool.socket_now.room = room

    @rule(is_mute=st.booleans())
    def keep_acknowledgements_back(self, is_mute):
        self.server.faults.mute_puback = is_mute

    @rule(is_silent=st.booleans())
    def freeze_the_server(self, is_silent):
        self.server.faults.silent = is_silent
        if not is_silent:
            self.cut(reset=True, arrives=False)  # nobody forgets one message and goes on

    @rule(size=st.sampled_from((None, 1, 7, 300)))
    def deliver_in_pieces(self, size):
        if self.server.pool.socket_now is not None:
            self.server.pool.socket_now.read_bytes = size

    @rule(connack=st.sampled_from((None, "silence", "close", 3, 5)))
    def refuse_to_connect(self, connack):
        self.server.faults.connack = connack

    @rule(fault=st.sampled_from(("push_before_suback", "puback_twice", "response_twice")))
    def be_odd(self, fault):
        setattr(self.server.faults, fault, True)

    @rule(packet=st.sampled_from(("CONNECT", "SUBSCRIBE", "PUBLISH", "PUBACK", "PINGREQ")))
    def reset_at(self, packet):
        self.server.faults.drop_on = packet

    # --- what always holds ---

    @invariant()
    def bounds_hold(self):
        if not hasattr(self, "client"):
            return
        assert self.client.pending_messages_count <= self.QUEUE_SIZE
        assert self.client.state in self.WORDS
        assert self.client.connected == (self.client.state == "online")

    @invariant()
    def nothing_happens_twice(self):
        if not hasattr(self, "executed"):
            return
        assert max(self.answers.values(), default=0) <= 1
        assert len(self.executed) == len(set(self.executed))

    # --- the end ---

    def heal(self):
        faults, pool = self.server.faults, self.server.pool
        faults.connack = faults.drop_on = None
        faults.silent = faults.mute_puback = False
        pool.refuse = False
        self.deliver_in_pieces(None)
        self.cut(reset=False, arrives=False)  # an RPC that a silent server swallowed comes again
        self.client.connect(timeout=0)

    def check_the_end(self):
        self.world.run_until(self.is_quiet, PATIENCE_S, ms=50)
        arrived = [key for _, values in self.device.telemetry for key in values]
        first = list(dict.fromkeys(key for key in arrived if key != "unimportant"))
        if not self.server.faults.ignore_before_connack:
            assert first == sorted(first, key=lambda name: int(name[1:]))
        arrived = {*first, *self.device.client_attributes}
        reported = {self.sent.get(message_id) for _, message_id in self.dropped}
        assert set(self.sent.values()) - reported <= arrived
        self.nothing_happens_twice()
        for reply, number in self.replies:
            assert not reply.done() or reply.result(0) == number

    def is_quiet(self):
        return (
            self.client.connected
            and self.client.pending_messages_count == 0
            and all(self.answers.values())
            and all(reply.done() or self.is_reported(reply) for reply, _ in self.replies)
        )

    def is_reported(self, reply):
        return any(topic == RPC_RESPONSE + str(reply.rpc_id) for topic, _ in self.dropped)


def test_any_order_of_calls_loses_nothing_and_does_nothing_twice():
    run_state_machine_as_test(Calls, settings=settings(MANY, stateful_step_count=40))
