# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Whatever happens on the way: the client comes back, nothing is lost, no call takes long.

The line is real, with `faults.proxy` in it; the server is the stand-in, or mosquitto with a user
of its own at the other end.
"""

import contextlib
import gc
import itertools
import json
import random
import sys
import time
import tracemalloc

import paho.mqtt.client as paho
import pytest

from clients import Notes, new_client, values
from faults.proxy import FIN, RST, FaultProxy
from faults.sockets import CountingPool
from helpers import wait_until
from tb_device_mqtt import TBTimeoutError

LONGEST_CALL_MS = 50
ATTEMPTS = 3  # a machine that is busy delays any call; a client that waits does so every time
WAYS = ("to_server", "to_client")
PAUSE_S = 0.0003

TELEMETRY = "v1/devices/me/telemetry"
RPC_REQUEST = "v1/devices/me/rpc/request/"
RPC_RESPONSE = "v1/devices/me/rpc/response/"
ATTRIBUTES_REQUEST = "v1/devices/me/attributes/request/"
ATTRIBUTES_RESPONSE = "v1/devices/me/attributes/response/"
PUBACK = b"\x40\x02\x00\x01"
DISCONNECT = b"\xe0\x00"


class Measured:
    """Calls a client and keeps the time of the longest call, attempts to connect excepted."""

    def __init__(self, client):
        self.client = client
        self.longest_ms = 0

    def call(self, method, *arguments, **options):
        attempts = self.client.stats["connects"]
        started = time.perf_counter()
        result = method(*arguments, **options)
        took_ms = (time.perf_counter() - started) * 1000
        if self.client.stats["connects"] == attempts:
            self.longest_ms = max(self.longest_ms, took_ms)
        return result

    def poll(self):
        self.call(self.client.check_for_msg)
        time.sleep(PAUSE_S)

    def poll_until(self, condition, timeout=20):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, (self.client.state, self.client.last_error)
            self.poll()

    def poll_for(self, seconds):
        end = time.monotonic() + seconds
        self.poll_until(lambda: time.monotonic() >= end)


def quickly(scenario, *arguments):
    """Run a scenario, which returns its longest call in ms; more than once if that was long."""
    took_ms = [scenario(*arguments)]
    while took_ms[-1] >= LONGEST_CALL_MS and len(took_ms) < ATTEMPTS:
        took_ms.append(scenario(*arguments))
    assert took_ms[-1] < LONGEST_CALL_MS, took_ms


# --- the two servers, and the session that they have with a device ---


class StandIn:
    """The stand-in, seen by a user who asks a device to count."""

    def __init__(self, server, device):
        self.port = server.port
        self._device = device
        self._replies = {}

    def expect(self, number):
        """Ask for *number*, as soon as a device listens."""
        self._replies[number] = self._device.call_rpc("count", number, timeout=100)

    def stored(self, key):
        """The values of *key*, each once, in the order in which they came first."""
        return list(dict.fromkeys(row[key] for row in values(self._device) if key in row))

    def was_answered(self, number):
        return self._replies[number].done() and self._replies[number].result() == number


def readings_of(payload):
    """The values of one telemetry message; late ones bring their times, and come together."""
    data = json.loads(payload)
    return [row.get("values", row) for row in (data if isinstance(data, list) else [data])]


class Dashboard:
    """What the stand-in does itself, done by another client of a plain broker, namely paho."""

    def __init__(self, port):
        self.port = port
        self._readings = []
        self._answered = set()
        self._paho = paho.Client(paho.CallbackAPIVersion.VERSION2, "dashboard")
        self._paho.on_message = self._on_message
        self._paho.connect("127.0.0.1", port)
        subscribed = Notes()
        self._paho.on_subscribe = subscribed
        self._paho.subscribe("v1/devices/me/#", 1)
        self._paho.loop_start()
        wait_until(lambda: subscribed.calls)

    def close(self):
        self._paho.disconnect()
        self._paho.loop_stop()

    def _on_message(self, _client, _data, message):
        number = message.topic.rsplit("/", 1)[-1]
        if message.topic == TELEMETRY:
            readings = readings_of(message.payload)
            self._readings += readings
            if "session" in readings[0]:
                self._ask(readings[0]["session"])
        elif message.topic.startswith(ATTRIBUTES_REQUEST):
            self._paho.publish(ATTRIBUTES_RESPONSE + number, "{}", 1)
        elif message.topic.startswith(RPC_RESPONSE) and json.loads(message.payload) == int(number):
            self._answered.add(int(number))

    def _ask(self, number):
        # The broker keeps it until this device has it: it is subscribed, and no clean session.
        request = json.dumps({"method": "count", "params": number})
        self._paho.publish(RPC_REQUEST + str(number), request, 1)

    def expect(self, number):
        """It asks by itself when it has the telemetry."""

    def stored(self, key):
        return list(dict.fromkeys(row[key] for row in self._readings if key in row))

    def was_answered(self, number):
        return number in self._answered


@pytest.fixture
def stand_in(server, device):
    return StandIn(server, device)


@pytest.fixture(params=("stand-in", "mosquitto"))
def user(request):
    if request.param == "stand-in":
        yield request.getfixturevalue("stand_in")
        return
    dashboard = Dashboard(request.getfixturevalue("mosquitto").plain)
    yield dashboard
    dashboard.close()


@pytest.fixture
def proxy(user):
    """On the way to *user*."""
    with FaultProxy(user.port) as running:
        yield running


@pytest.fixture
def line(stand_in):
    """A proxy on the way to the stand-in."""
    with FaultProxy(stand_in.port) as running:
        yield running


class Session:
    """A device that listens to RPC, sends a reading and asks for its attributes.

    :param user: `StandIn` or `Dashboard`
    :param port_of: the proxy, or whatever has a *port*
    """

    numbers = iter(range(1000, 100000))  # all of one length: so are the bytes on the wire

    def __init__(self, user, port_of, **options):
        self.number = next(self.numbers)
        self.user = user
        self.port_of = port_of
        self._executed = []
        self._attributes = Notes()
        user.expect(self.number)
        options = {"access_token": "TOKEN_A", "client_id": "device", **options}
        self.client = new_client(port_of, **options)
        self.client._link.backoff_ms = 1
        self.client.clean_session = False
        self.client.rpc("count")(self._count)
        self.measured = Measured(self.client)
        self.measured.call(self.client.send_telemetry, {"session": self.number})
        self.measured.call(self.client.request_attributes, callback=self._attributes)

    def _count(self, number):
        self._executed.append(number)
        return number

    def is_done(self):
        return (
            self.client.pending_messages_count == 0
            and bool(self._attributes.calls)
            and self.user.was_answered(self.number)
            and self.number in self.user.stored("session")
        )

    def start(self):
        """Connect, without all the rest."""
        self.client.connect(timeout=0)
        self.measured.poll_until(lambda: self.client.connected)

    def run(self):
        """Live through it all; the longest call, in ms."""
        self.client.connect(timeout=0)
        self.measured.poll_until(self.is_done)
        return self.end()

    def end(self):
        assert self._executed.count(self.number) == 1
        assert len(self._attributes.calls) == 1
        assert self._attributes.calls[0][1] is None
        self.measured.call(self.client.disconnect, 0)  # else it may wait, on purpose
        return self.measured.longest_ms


@contextlib.contextmanager
def many_sessions(server, count, **options):
    """Devices of the stand-in, each behind a proxy of its own, to wait for all at once."""
    with contextlib.ExitStack() as stack:
        sessions = []
        for _ in range(count):
            token = "TOKEN-%d" % next(Session.numbers)
            user = StandIn(server, server.add_device(token, token=token))
            proxy = stack.enter_context(FaultProxy(server.port))
            sessions.append(Session(user, proxy, access_token=token, **options))
        yield sessions


def poll_all_until_done(sessions, timeout=20):
    end = time.monotonic() + timeout
    while not all(session.is_done() for session in sessions):
        assert time.monotonic() < end, [session.is_done() for session in sessions]
        for session in sessions:
            session.measured.poll()


# --- cuts ---


@pytest.mark.parametrize("how", (FIN, RST))
@pytest.mark.parametrize("way", WAYS)
def test_a_cut_after_any_byte_loses_nothing(user, proxy, way, how):
    def run(session):
        longest_ms = session.run()
        wait_until(lambda: not proxy.connections)
        return longest_ms

    def new_session():
        # A plain broker keeps what belongs to this name, and only this, from session to session.
        return Session(user, proxy, client_id="device-%s-%s" % (way, how))

    def cut_session(after):
        session = new_session()
        getattr(proxy, way).cut(after=after, how=how)
        longest_ms = run(session)
        # Nobody waits for the last PUBACK of a session.
        assert session.client.stats["connects"] >= 2 or after >= whole - len(PUBACK), after
        return longest_ms

    run(new_session())
    whole = len(proxy.received(way))
    if way == "to_server":
        whole -= len(DISCONNECT)
    for after in range(whole):
        quickly(cut_session, after)


@pytest.mark.parametrize("how", (FIN, RST))
def test_a_cut_is_noticed_within_50_ms(stand_in, line, how):
    def notice():
        session = Session(stand_in, line)
        session.run()
        session.start()
        session.measured.poll_for(0.1)
        started = time.perf_counter()
        line.cut_now(how)
        while session.client.connected:
            session.client.check_for_msg()
        took_ms = (time.perf_counter() - started) * 1000
        session.client.disconnect()
        return took_ms

    quickly(notice)


def test_5000_messages_over_50_cuts_arrive_in_order(user, proxy):
    def send_all():
        chance = random.Random(5000)
        cut_at = set(chance.sample(range(20, 4980), 50))
        session = Session(user, proxy, client_id="sender", queue_size=100)
        client, measured = session.client, session.measured
        begin = session.number * 10000
        client.connect(timeout=0)
        for number in range(5000):
            if number in cut_at:
                direction = chance.choice((proxy.to_server, proxy.to_client))
                direction.cut(after=chance.randrange(100), how=chance.choice((FIN, RST)))
            measured.call(client.send_telemetry, {"number": begin + number})
            while client.pending_messages_count > 50:
                measured.poll()
        measured.poll_until(lambda: client.pending_messages_count == 0 and session.is_done())
        wait_until(lambda: begin + 4999 in user.stored("number"))
        numbers = [number - begin for number in user.stored("number") if number >= begin]
        assert numbers == list(range(5000))
        assert client.stats["dropped"] == 0
        assert client.stats["connects"] >= 45  # two cuts may hit one connection
        return session.end()

    quickly(send_all)


# --- silence ---


@pytest.mark.parametrize("ways", (WAYS[:1], WAYS[1:], WAYS), ids=("out", "in", "both"))
def test_silence_is_noticed_and_costs_no_message(user, proxy, ways):
    def fall_silent():
        session = Session(user, proxy, client_id="silent", keep_alive=1)
        session.start()
        for way in ways:
            getattr(proxy, way).hole = True
        session.measured.call(session.client.send_telemetry, {"other": session.number})
        session.measured.poll_until(lambda: not session.client.connected, timeout=4)
        proxy.heal()
        longest_ms = session.run()
        wait_until(lambda: session.number in user.stored("other"))
        return longest_ms

    quickly(fall_silent)


def test_silence_instead_of_connack_ends_the_attempt(user, proxy, monkeypatch):
    def connect():
        session = Session(user, proxy, client_id="unanswered")
        monkeypatch.setattr("tb_device_mqtt._CONNACK_TIMEOUT_MS", 200)
        proxy.to_client.hole = True
        session.client.connect(timeout=0)
        session.measured.poll_until(lambda: session.client.last_error is not None)
        assert isinstance(session.client.last_error, TBTimeoutError)
        proxy.heal()
        return session.run()

    quickly(connect)


def test_without_an_acknowledgement_it_is_sent_again_over_a_new_connection(
    server, stand_in, line, monkeypatch
):
    def go_without():
        session = Session(stand_in, line)
        monkeypatch.setattr("tb_device_mqtt._ACK_TIMEOUT_MS", 300)
        server.faults.mute_puback = True
        session.client.connect(timeout=0)
        session.measured.poll_until(lambda: session.client.stats["connects"] > 1)
        server.faults.mute_puback = False
        return session.run()

    quickly(go_without)


def test_a_server_that_reads_no_more_stalls_no_call(user, proxy):
    def fill_up():
        pool = CountingPool(send_buffer_bytes=4096)
        options = {"keep_alive": 1, "queue_bytes": 1 << 20, "socket_pool": pool}
        session = Session(user, proxy, client_id="full", **options)
        session.start()
        proxy.to_server.held = True
        for _ in range(60):
            session.measured.call(session.client.send_telemetry, {"long": "x" * 16000}, 0)
            session.measured.poll()
        assert session.client.pending_messages_count > 10
        session.measured.poll_until(lambda: not session.client.connected, timeout=15)
        proxy.heal()
        return session.run()

    quickly(fill_up)


# --- slowness ---

PAUSES = (1, 10, 20, 40, 60, 80, 100, 120)  # bytes, of the more than 130 of a session


def test_bytes_that_come_one_by_one_are_no_trouble(user, proxy):
    def trickle():
        for way in WAYS:
            getattr(proxy, way).chunk, getattr(proxy, way).gap = 1, 0.0005
        session = Session(user, proxy, client_id="trickling")
        longest_ms = session.run()
        assert session.client.stats["connects"] == 1
        return longest_ms

    quickly(trickle)


def test_two_seconds_inside_of_a_packet_are_no_trouble(server):
    def pause():
        with many_sessions(server, len(WAYS) * len(PAUSES)) as sessions:
            for session, (way, after) in zip(sessions, itertools.product(WAYS, PAUSES)):
                getattr(session.port_of, way).pause(after=after, seconds=2)
                session.client.connect(timeout=0)
            started = time.monotonic()
            poll_all_until_done(sessions)
            assert time.monotonic() - started > 2
            assert [session.client.stats["connects"] for session in sessions] == [1] * len(sessions)
            return max(session.end() for session in sessions)

    quickly(pause)


# --- acknowledgements ---


@pytest.mark.parametrize(
    "faults",
    (
        {"puback_delay": 0.3},
        {"puback_twice": True},
        {"puback_order": "reverse"},
        {"puback_order": "shuffle", "puback_batch": 8, "puback_twice": True},
    ),
    ids=("late", "twice", "reversed", "shuffled_and_twice"),
)
def test_acknowledgements_in_any_order_are_as_good(server, device, stand_in, faults):
    published = Notes()

    def send():
        session = Session(stand_in, server)
        client = session.client
        client.on_publish = published
        published.calls.clear()
        for name, value in faults.items():
            setattr(server.faults, name, value)
        session.start()
        ids = [session.measured.call(client.send_telemetry, {"n": n}) for n in range(50)]
        session.measured.poll_until(lambda: client.pending_messages_count == 0)
        session.measured.poll_for(0.05)
        assert client.stats["connects"] == 1
        assert client.stats["resent"] == 0
        acknowledged = [message_id for _, _, topic, message_id in published.calls]
        assert sorted(acknowledged) == sorted(set(acknowledged))
        assert set(ids) <= set(acknowledged)
        assert [row["n"] for row in values(device) if "n" in row][-50:] == list(range(50))
        return session.run()

    quickly(send)


# --- bytes that nobody sent ---

GARBAGE = (
    bytes(20),
    b"\xff" * 20,
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x15\x03\x03\x00\x02\x02\x28",  # a TLS alert
    b"\x30\xff\xff\xff\xff\x7f",  # a length of more than four bytes
    b"\x30\xff\xff\xff\x7f",  # a message of 256 MB begins
    b"\x30\x20\x00\x05",  # a message begins
    b"\x30\x05\x00\x03\xff\xfe\xfd",  # its topic is not UTF-8
    b"\x20\x02\x00\x00",  # CONNACK
    b"\xc0\x00\xe0\x00",  # what clients send
    bytes(random.Random(1).randrange(256) for _ in range(3000)),
)


@pytest.mark.parametrize("way", WAYS)
def test_after_garbage_the_client_comes_back(server, way):
    def inject():
        with many_sessions(server, len(GARBAGE), keep_alive=1) as sessions:
            for session, garbage in zip(sessions, GARBAGE):
                session.start()
                session.port_of.inject(garbage, way)
                session.measured.call(session.client.send_telemetry, {"other": 1})
            poll_all_until_done(sessions)
            assert all(session.user.stored("other") == [1] for session in sessions)
            return max(session.end() for session in sessions)

    quickly(inject)


@pytest.mark.parametrize("size", (20000, 300000))
def test_a_message_too_large_is_thrown_away_and_the_next_one_comes(device, stand_in, line, size):
    changes = Notes()

    def push():
        session = Session(stand_in, line)
        client = session.client
        client.subscribe_to_all_attributes(changes)
        session.run()
        session.start()
        session.measured.poll_until(lambda: "v1/devices/me/attributes" in device.subscriptions)
        device.push_attributes({"large": "x" * size})
        device.push_attributes({"small": session.number})
        session.measured.poll_until(lambda: {"small": session.number} in changes.firsts)
        assert client.stats["oversize"] == 1
        assert client.stats["connects"] == 2
        assert not any("large" in change for change in changes.firsts)
        client.disconnect()
        return session.measured.longest_ms

    quickly(push)


# --- outages ---


def test_sixty_readings_of_an_outage_arrive_with_their_times(server, device):
    numbers = itertools.count()

    def live_through_an_outage():
        client = new_client(server)
        measured = Measured(client)
        client.connect()
        server.stop_listening()
        measured.poll_until(lambda: not client.connected)
        taken = []
        for number in itertools.islice(numbers, 60):
            taken.append((number, time.time() * 1000))
            measured.call(client.send_telemetry, {"number": number})
            measured.poll_for(0.1)
        server.listen_again()
        measured.poll_until(lambda: client.pending_messages_count == 0)
        client.disconnect()
        arrived = [(row["number"], ts) for ts, row in device.telemetry][-60:]
        assert [number for number, _ in arrived] == [number for number, _ in taken]
        assert max(abs(ts - at_ms) for (_, ts), (_, at_ms) in zip(arrived, taken)) < 100
        assert taken[-1][1] - taken[0][1] > 5800
        return measured.longest_ms

    quickly(live_through_an_outage)


# --- no leaks ---


def reconnect(client, device, times):
    for count in range(times):
        device.disconnect(rst=bool(count % 2))
        Measured(client).poll_until(lambda: not client.connected)
        client.send_telemetry({"n": 1})
        Measured(client).poll_until(lambda: client.pending_messages_count == 0)


def objects_of_the_client():
    """How many were allocated below the functions of the library; Python 3.9 keeps frames there."""
    gc.collect()
    ours = tracemalloc.Filter(True, "*tb_device_mqtt.py", all_frames=True)
    found = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
    return sum(statistic.count for statistic in found)


def test_200_reconnects_leak_no_socket_and_no_memory(server, device):
    pool = CountingPool()
    client = new_client(server, socket_pool=pool)
    client._link.backoff_ms = 0
    client.rpc("get")(lambda params: params)
    client.subscribe_to_all_attributes(Notes())
    tracemalloc.start(12)
    try:
        client.connect()
        reconnect(client, device, 20)
        pool.sends.clear()
        before = objects_of_the_client()
        reconnect(client, device, 200)
        pool.sends.clear()
        after = objects_of_the_client()
    finally:
        tracemalloc.stop()
    assert client.stats["connects"] >= 221
    assert pool.opened - pool.closed == 1
    client.disconnect()
    assert pool.opened == pool.closed
    assert after - before < 100  # one for each would be 200


def blocks():
    gc.collect()
    return sys.getallocatedblocks()


def test_100000_polls_keep_no_memory(server, device):
    client = new_client(server)
    client.connect()
    Measured(client).poll_for(0.2)
    before = blocks()
    for _ in range(100000):
        client.check_for_msg()
    assert blocks() - before < 100
    client.disconnect()


def test_100000_telemetry_messages_keep_no_memory(server):
    server.keep = 100
    server.add_device("Busy", token="BUSY")
    client = new_client(server, access_token="BUSY", queue_size=64)
    client.connect()
    measured = Measured(client)

    def send(count):
        for number in range(count):
            client.send_telemetry({"number": number})
            while client.pending_messages_count > 40:
                client.check_for_msg()
        measured.poll_until(lambda: client.pending_messages_count == 0)

    while len(server.packets) < 10000:  # so many the stand-in keeps
        send(2000)
    before = blocks()
    send(100000 - client.stats["acknowledged"])
    assert blocks() - before < 500
    assert client.stats["acknowledged"] == 100000
    assert client.stats["resent"] == 0
    assert client.stats["dropped"] == 0
    client.disconnect()
