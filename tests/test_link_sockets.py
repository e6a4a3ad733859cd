# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The link over real sockets: those of this computer, and the four families of CircuitPython.

`test_link.py` has what travels, byte by byte; here it is about time, and about what the sockets do.
"""

import contextlib
import gc
import random
import select
import socket
import ssl
import statistics
import time
import tracemalloc

import pytest

from clients import ATTRIBUTES, online_client, subscribed, values
from faults.scripted_broker import PUBLISH, ScriptedBroker
from faults.sockets import (
    BOARD_POOLS,
    AirLiftPool,
    BlindPoll,
    CountingPool,
    EspressifPool,
    PicoPool,
    WiznetPool,
)
from helpers import free_port, run_for, run_until, wait_until
from tb_device_mqtt import TBDeviceMqttClient, _Outbox

POOLS = (CountingPool, *BOARD_POOLS)
NATIVE_POOLS = (CountingPool, EspressifPool, PicoPool)  # those that can be polled
SPI_POOLS = (AirLiftPool, WiznetPool)

# Of a call that does not wait. MiniMQTT's own loop waits for a second at least; between the two
# there is room for a busy machine.
AT_ONCE_MS = 200


def name_of(pool_class):
    return pool_class.__name__


@pytest.fixture(params=POOLS, ids=name_of)
def pool(request):
    return request.param()


def attribute_notes(client):
    """A list to which each pushed shared attribute is appended."""
    pushed = []
    client.subscribe_to_all_attributes(lambda result, *_: pushed.append(result))
    return pushed


# --- every family ---


def test_everything_travels(server, device, pool):
    with online_client(server, socket_pool=pool) as client:
        client.rpc("add")(lambda params: params["a"] + params["b"])
        pushed, answers = attribute_notes(client), []
        for number in range(10):
            client.send_telemetry({"n": number}, number % 2)
        client.send_attributes({"model": "mk1"})
        client.request_attributes(["model"], callback=lambda *answer: answers.append(answer))
        subscribed(client, device, ATTRIBUTES)
        device.push_attributes({"interval": 5})
        reply = device.call_rpc("add", {"a": 1, "b": 2})
        longest_ms = run_until(client, lambda: reply.done() and answers and pushed)
        run_until(client, lambda: client.flush(5))
        assert sorted(row["n"] for row in values(device)) == list(range(10))
        assert reply.result() == 3
        assert answers == [({"client": {"model": "mk1"}}, None)]
        assert pushed == [{"interval": 5}]
        assert longest_ms < AT_ONCE_MS


def test_bytes_may_come_one_by_one(server, device, proxy, pool):
    with online_client(proxy, socket_pool=pool) as client:
        pushed = attribute_notes(client)
        subscribed(client, device, ATTRIBUTES)
        proxy.to_client.chunk = 1
        for number in range(10):
            device.push_attributes({"text": "x" * 20 * number})
        run_until(client, lambda: len(pushed) == 10, timeout=20)
        assert pushed == [{"text": "x" * 20 * number} for number in range(10)]


def test_two_clients_share_a_pool(server, device, pool):
    other_device = server.add_device("Device B", token="TOKEN_B")
    with (
        online_client(server, socket_pool=pool) as client,
        online_client(server, socket_pool=pool, access_token="TOKEN_B") as other,
    ):
        client.send_telemetry({"of": "A"})
        other.send_telemetry({"of": "B"})
        assert client.flush(5) and other.flush(5)
        assert values(device) == [{"of": "A"}] and values(other_device) == [{"of": "B"}]
        other.disconnect()
        client.send_telemetry({"of": "A"})
        assert client.flush(5)


@pytest.mark.parametrize("rst", (False, True), ids=("FIN", "RST"))
def test_the_end_of_a_connection_is_noticed_at_once(server, device, pool, rst):
    with online_client(server, socket_pool=pool) as client:
        run_for(client, 0.05)
        device.disconnect(rst)
        started = time.monotonic()
        longest_ms = run_until(client, lambda: not client.connected)
        noticed_s = time.monotonic() - started
        assert noticed_s < 0.5
        assert longest_ms < AT_ONCE_MS
        client.send_telemetry({"back": True})
        run_until(client, lambda: client.flush(5))
        assert values(device) == [{"back": True}]
        print("noticed after %.1f ms, longest call %.1f ms" % (noticed_s * 1000, longest_ms))


def test_a_reset_that_the_poller_does_not_show_is_found_within_a_second(
    server, device, monkeypatch
):
    """Pico W: a connection that was reset is never readable."""
    monkeypatch.setattr(select, "poll", BlindPoll)
    with online_client(server, socket_pool=PicoPool()) as client:
        run_for(client, 0.05)
        device.disconnect(rst=True)
        started = time.monotonic()
        run_until(client, lambda: not client.connected)
        assert time.monotonic() - started < 1.5


def test_a_poller_that_shows_nothing_at_all_only_delays(server, device, monkeypatch):
    class Blind:
        def register(self, *_arguments):
            """As if it worked."""

        unregister = register

        def poll(self, _timeout=None):
            return []

    monkeypatch.setattr(select, "poll", Blind)
    with online_client(server) as client:
        pushed = attribute_notes(client)
        subscribed(client, device, ATTRIBUTES)
        device.push_attributes({"a": 1})
        started = time.monotonic()
        run_until(client, lambda: pushed)
        assert time.monotonic() - started < 1.5


def answer_until_told(told):
    """A script that answers until `told` has an entry; then it neither reads nor writes."""

    def script(connection):
        while not told:
            connection.answer(connection.read_packet())

    return script


@pytest.mark.parametrize(
    "pool_class, keep_alive",
    ((CountingPool, 2), *((pool_class, 1) for pool_class in POOLS)),
    ids=lambda value: value if isinstance(value, int) else name_of(value),
)
def test_a_silent_server_is_noticed_within_keep_alive(pool_class, keep_alive):
    told = []
    with (
        ScriptedBroker(answer_until_told(told)) as broker,
        online_client(broker, socket_pool=pool_class(), keep_alive=keep_alive) as client,
    ):
        client.send_telemetry({"a": 1})
        assert client.flush(5)
        told.append("silence")
        client.publish("t", b"", 0)  # the script reads this, and then sees it was told
        started = time.monotonic()
        longest_ms = run_until(client, talk_until_lost(client), timeout=10)
        noticed_s = time.monotonic() - started
        assert "PINGRESP" in str(client.last_error)
        assert noticed_s < keep_alive + 0.3
        assert longest_ms < AT_ONCE_MS
        print("noticed after %.2f s, longest call %.1f ms" % (noticed_s, longest_ms))


def talk_until_lost(client, payload=b"x" * 50):
    """A condition for `run_until` that goes on sending."""
    calls = [0]

    def is_lost():
        calls[0] += 1
        if calls[0] % 20 == 0:
            client.publish("t", payload, 0)
            client.publish("t", payload, 1)
        return client.state == "waiting"

    return is_lost


@pytest.mark.parametrize("pool_class", NATIVE_POOLS, ids=name_of)
def test_a_full_socket_blocks_no_call(server, device, proxy, pool_class):
    small = pool_class(send_buffer_bytes=4096)
    with online_client(proxy, socket_pool=small, keep_alive=1) as client:
        proxy.to_server.held = proxy.to_client.held = True
        started = time.monotonic()
        longest_ms = run_until(client, talk_until_lost(client, b"x" * 4000), timeout=10)
        assert time.monotonic() - started < 1.5
        assert longest_ms < AT_ONCE_MS


def test_a_wiznet_chip_that_waits_for_the_peer_costs_two_seconds_once(server, device):
    """Its send() returns when the peer has acknowledged; with a timeout of 0 it waits for ever."""
    pool = WiznetPool()
    with online_client(server, socket_pool=pool) as client:
        pool.sockets[-1].peer_acknowledges = False
        started = time.monotonic()
        client.send_telemetry({"a": 1})
        run_until(client, lambda: not client.connected)
        assert time.monotonic() - started < 4
        run_until(client, lambda: client.flush(5))
        assert values(device) == [{"a": 1}]


# --- nothing is lost ---


class Trouble:
    """Cuts, resets and refusals by a `FaultProxy`: at random, but only where there was progress."""

    def __init__(self, proxy, seed, every):
        self.count = 0
        self._proxy = proxy
        self._chance = random.Random(seed)
        self._every = every
        self._next = every
        self._back_at = None

    def come(self, progress):
        if self._back_at is not None and time.monotonic() > self._back_at:
            self._proxy.listen()
            self._back_at = None
        if progress < self._next:
            return
        self.count += 1
        self._next = progress + self._chance.randrange(self._every // 2, self._every * 3 // 2)
        how = self._chance.choice(("fin", "rst"))
        kind = self._chance.randrange(4)
        if kind == 0:
            self._proxy.to_server.cut(self._chance.randrange(300), how)
        elif kind == 1:
            self._proxy.to_client.cut(self._chance.randrange(30), how)
        else:
            if kind == 2:
                self._proxy.stop_listening()
                self._back_at = time.monotonic() + 0.05
            self._proxy.cut_now(how)


@pytest.mark.parametrize(
    "pool_class, total",
    (
        (CountingPool, 4000),
        (EspressifPool, 4000),
        (PicoPool, 2000),
        (WiznetPool, 400),
        (AirLiftPool, 200),
    ),
    ids=lambda value: value if isinstance(value, int) else name_of(value),
)
def test_nothing_is_lost_on_a_link_that_is_cut_again_and_again(
    server, device, proxy, pool_class, total
):
    pool = pool_class()
    acknowledged, sent = [], []
    with online_client(proxy, socket_pool=pool, queue_size=200, queue_bytes=100000) as client:
        client._link.backoff_ms = 1
        client.on_publish = lambda _client, _data, _topic, number: acknowledged.append(number)
        trouble = Trouble(proxy, seed=total, every=total // 40 if total > 1000 else total // 5)

        def work():
            for _ in range(min(5, total - len(sent), 100 - client.pending_messages_count)):
                sent.append(client.send_telemetry({"n": len(sent)}))
            trouble.come(len(acknowledged))
            return len(acknowledged) == total

        longest_ms = run_until(client, work, timeout=50)

    assert sorted(acknowledged) == sorted(sent)
    assert client.stats["dropped"] == 0
    arrived = [row["n"] for row in values(device)]
    assert list(dict.fromkeys(arrived)) == list(range(total)), "first arrivals are in order"
    opened, closed = opened_and_closed(pool)
    assert opened == closed
    print(
        "%d messages, %d troubles, %d connections, %d resent, %d twice, longest call %.1f ms"
        % (
            total,
            trouble.count,
            opened,
            client.stats["resent"],
            len(arrived) - total,
            longest_ms,
        )
    )


def opened_and_closed(pool):
    """How many sockets of each there were."""
    if isinstance(pool, CountingPool):
        return pool.opened, pool.closed
    return len(pool.sockets), len(pool.sockets) - len(pool.open_sockets)


def slow_reader(connection):
    connection.accept()
    while True:
        packet = connection.read_packet()
        time.sleep(0.002)
        connection.answer(packet)


@pytest.mark.parametrize("pool_class", NATIVE_POOLS, ids=name_of)
def test_large_messages_pass_a_small_send_buffer_unharmed(pool_class):
    payloads = [bytes([65 + number]) * 16000 for number in range(8)]
    with (
        ScriptedBroker(slow_reader, receive_buffer_bytes=4096) as broker,
        online_client(
            broker, socket_pool=pool_class(send_buffer_bytes=4096), queue_bytes=200000
        ) as client,
    ):
        for payload in payloads:
            client.publish("t", payload, 1)
        longest_ms = run_until(client, lambda: client.pending_messages_count == 0, timeout=20)
        arrived = [packet.payload for packet in broker.packets if packet.type == PUBLISH]
        assert arrived == payloads
        assert longest_ms < AT_ONCE_MS


def test_a_long_message_leaves_an_airlift_in_slices(server, device):
    """Each packet of 64 bytes over SPI takes its time: 16000 bytes would be 0.4 s in one call."""
    with online_client(server, socket_pool=AirLiftPool(), queue_bytes=50000) as client:
        text = "x" * 16000
        started = time.monotonic()
        client.send_telemetry({"text": text})
        assert (time.monotonic() - started) * 1000 < AT_ONCE_MS
        longest_ms = run_until(client, lambda: client.pending_messages_count == 0)
        assert longest_ms < AT_ONCE_MS
        assert values(device) == [{"text": text}]


# --- TLS ---


@pytest.fixture
def tls_device(tls_server):
    return tls_server.add_device("Device A", token="TOKEN_A")


@pytest.fixture
def tls_options(certificates):
    return {"tls": ssl.create_default_context(cafile=certificates.ca)}


def test_tls_records_larger_than_the_buffer_arrive_whole_and_at_once(
    tls_server, tls_device, tls_options
):
    """What the TLS layer has decrypted and nobody has read shows in no poller."""
    with online_client(tls_server, **tls_options) as client:
        pushed = attribute_notes(client)
        subscribed(client, tls_device, ATTRIBUTES)
        for size in (1000, 5000, 16000):
            tls_device.push_attributes({"text": "x" * size})
            started = time.monotonic()
            longest_ms = run_until(client, lambda: pushed)
            assert time.monotonic() - started < 0.6, "the check of once a second would find it"
            assert pushed.pop() == {"text": "x" * size}
            assert longest_ms < AT_ONCE_MS


def test_many_messages_in_one_tls_record_all_come_at_once(tls_server, tls_device, tls_options):
    with online_client(tls_server, **tls_options) as client:
        pushed = attribute_notes(client)
        subscribed(client, tls_device, ATTRIBUTES)
        push = b"\x30\x22\x00\x18v1/devices/me/attributes" + b'{"a":1} '
        tls_server.inject(push * 300)
        started = time.monotonic()
        run_until(client, lambda: len(pushed) == 300)
        assert time.monotonic() - started < 0.6


def test_large_messages_pass_a_small_send_buffer_under_tls(tls_server, tls_device, tls_options):
    """A TLS record that was taken in part has to be offered again as it was."""
    small = CountingPool(send_buffer_bytes=4096)
    tls_server.keep = 1000
    with online_client(tls_server, socket_pool=small, queue_bytes=500000, **tls_options) as client:
        texts = [chr(65 + number) * 15000 for number in range(20)]
        for text in texts:
            client.send_telemetry({"text": text})
        longest_ms = run_until(client, lambda: client.pending_messages_count == 0, timeout=20)
        assert [row["text"] for row in values(tls_device)] == texts
        assert longest_ms < AT_ONCE_MS


@pytest.mark.parametrize("rst", (False, True), ids=("FIN", "RST"))
def test_the_end_of_a_tls_connection_is_noticed_at_once(tls_server, tls_device, tls_options, rst):
    with online_client(tls_server, **tls_options) as client:
        run_for(client, 0.05)
        tls_device.disconnect(rst)
        started = time.monotonic()
        run_until(client, lambda: not client.connected)
        assert time.monotonic() - started < 0.5
        client.send_telemetry({"back": True})
        run_until(client, lambda: client.flush(5))


# --- what sockets are asked for ---


class KeepingPool(CountingPool):
    """CPython's sockets, kept in *sockets*."""

    def __init__(self):
        super().__init__()
        self.sockets = []

    def socket(self, *arguments):
        made = super().socket(*arguments)
        self.sockets.append(made)
        return made


def test_tcp_nodelay_is_set_where_the_pool_has_it(server, device):
    pool = KeepingPool()
    with online_client(server, socket_pool=pool):
        assert pool.sockets[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_pool_without_socket_options_will_do(server, device):
    class Bare(CountingPool):
        def __getattr__(self, name):
            if name in ("IPPROTO_TCP", "TCP_NODELAY", "timeout"):
                raise AttributeError(name)
            return super().__getattr__(name)

    with online_client(server, socket_pool=Bare()) as client:
        client.send_telemetry({"a": 1})
        assert client.flush(5)


@pytest.mark.parametrize("pool_class", (EspressifPool, PicoPool, AirLiftPool), ids=name_of)
def test_once_connected_no_socket_is_given_a_time_to_wait(server, device, pool_class, monkeypatch):
    """Espressif loses bytes that come while a timeout ends."""
    given = []
    original = pool_class.socket_class.settimeout

    def settimeout(made, seconds):
        given.append(seconds)
        original(made, seconds)

    monkeypatch.setattr(pool_class.socket_class, "settimeout", settimeout)
    with online_client(server, socket_pool=pool_class()) as client:
        client.send_telemetry({"a": 1})
        assert client.flush(5)
        assert 0 in given
        assert set(given[given.index(0) :]) == {0}
        assert given[0] == client.connect_timeout


@pytest.mark.parametrize("has_memory", (True, False))
def test_a_poller_is_not_asked_for_a_socket_that_is_closed(server, device, monkeypatch, has_memory):
    """Espressif's select() can't bear it."""
    asked, failures = [], [] if has_memory else [MemoryError()]
    rewind = _Outbox.rewind

    def rewind_or_fail(self, reason, was_cut):
        if reason and failures:
            raise failures.pop()
        rewind(self, reason, was_cut)

    class NotingPoll:
        def __init__(self):
            self._poll = real_poll()

        def register(self, registered, events):
            self._socket = registered
            self._poll.register(registered, events)

        def poll(self, timeout):
            asked.append((self._socket, self._socket.is_closed))
            return self._poll.poll(timeout)

    real_poll = select.poll
    monkeypatch.setattr(select, "poll", NotingPoll)
    monkeypatch.setattr(_Outbox, "rewind", rewind_or_fail)
    monkeypatch.setattr("tb_device_mqtt._ACK_TIMEOUT_MS", 50)
    with online_client(server, socket_pool=EspressifPool()) as client:
        server.faults.mute_puback = True
        client.send_attributes({"a": 1})
        run_until(client, lambda: not client.connected)
        server.faults.mute_puback = False
        assert failures == []
        run_until(client, lambda: device.connects == 2 and client.flush(1))
        run_for(client, 0.05)
    client.check_for_msg()
    assert len({id(registered) for registered, _ in asked}) == 2
    assert not any(is_closed for _, is_closed in asked)


def test_an_attempt_that_nobody_answers_costs_connect_timeout(certificates):
    """A listener whose queue is full answers no SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        client = TBDeviceMqttClient("127.0.0.1", listener.getsockname()[1], "TOKEN")
        client.connect_timeout = 0.5
        started = time.monotonic()
        with pytest.raises(OSError, match="no answer"):
            client.connect()
        assert 0.4 < time.monotonic() - started < 1.5
        client.disconnect()


def test_a_port_on_which_nobody_listens_is_told_at_once():
    client = TBDeviceMqttClient("127.0.0.1", free_port(), "TOKEN")
    started = time.monotonic()
    with pytest.raises(OSError, match="no server is listening"):
        client.connect()
    assert time.monotonic() - started < 0.5
    client.disconnect()


class Failing:
    """A TLS context, and a connect(), that raise what boards raise."""

    def __init__(self, failure):
        self._failure = failure

    def wrap_socket(self, _socket, server_hostname=None):
        raise self._failure

    def connect(self, _address):
        raise self._failure


@pytest.mark.parametrize("failure", (MemoryError(), OSError(12, "ENOMEM"), RuntimeError("busy")))
@pytest.mark.parametrize("where", ("wrap_socket", "connect"))
def test_an_attempt_that_fails_leaves_no_socket_open(server, device, monkeypatch, where, failure):
    pool, failing = EspressifPool(), Failing(failure)
    client = TBDeviceMqttClient(
        "127.0.0.1",
        server.port,
        "TOKEN_A",
        socket_pool=pool,
        tls=failing if where == "wrap_socket" else None,
    )
    with monkeypatch.context() as patch:
        if where == "connect":
            patch.setattr(pool.socket_class, "connect", lambda _, address: failing.connect(address))
        with pytest.raises(OSError):
            client.connect()
    assert len(pool.sockets) == 1 and pool.open_sockets == []
    client.disconnect()


def test_disconnect_arrives_as_a_packet_and_a_fin(server, device):
    with online_client(server) as client:
        client.disconnect()
        wait_until(lambda: not device.online)
        assert server.packets[-1] == ("Device A", "in", "DISCONNECT")


# --- idle ---


@pytest.mark.parametrize("pool_class", POOLS, ids=name_of)
def test_an_idle_poll_takes_no_time_and_no_memory_and_sends_nothing(server, device, pool_class):
    pool = pool_class()
    with online_client(server, socket_pool=pool) as client:
        run_for(client, 0.1)
        count_sends = (
            (lambda: len(pool.sends))
            if pool_class is CountingPool
            else (lambda: pool.sockets[-1].sends)
        )
        sends = count_sends()
        medians_us = [statistics.median(idle_us(client, 400)) for _ in range(5)]
        assert min(medians_us) < 1000
        gc.collect()
        tracemalloc.start()
        idle_us(client, 400)
        before, _ = tracemalloc.get_traced_memory()
        idle_us(client, 2000)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 1024
        assert count_sends() == sends
        print("median %.1f us, %d bytes in 2000 polls" % (min(medians_us), after - before))


def idle_us(client, polls):
    """The times of so many polls."""
    times = []
    for _ in range(polls):
        started = time.perf_counter()
        assert client.check_for_msg() == 0
        times.append((time.perf_counter() - started) * 1e6)
    return times


@pytest.mark.parametrize(
    "pool_class, gap_s",
    ((EspressifPool, 1), (PicoPool, 1), (AirLiftPool, 0.06), (WiznetPool, 0.06)),
)
def test_an_idle_socket_is_seldom_read(server, device, pool_class, gap_s):
    """A look at AirLift or WIZnet costs milliseconds; the others say when there is something."""
    pool = pool_class()
    with online_client(server, socket_pool=pool) as client:
        run_for(client, 0.1)
        receives = pool.sockets[-1].receives
        run_for(client, 0.4)
        assert pool.sockets[-1].receives - receives <= 0.4 / gap_s + 4


def test_an_idle_airlift_is_asked_fifty_times_a_second_at_most(server, device, monkeypatch):
    """How much there is to read, and whether it is still connected, which asks again."""
    commands = []

    def count_commands(of_socket, name):
        def counted(self):
            commands.append(name)
            return of_socket(self)

        monkeypatch.setattr(AirLiftPool.socket_class, name, counted)

    for name in ("_available", "_connected"):
        count_commands(getattr(AirLiftPool.socket_class, name), name)
    with online_client(server, socket_pool=AirLiftPool()) as client:
        run_for(client, 0.2)
        del commands[:]
        run_for(client, 1)
        assert len(commands) <= 54


@pytest.mark.parametrize("failure", (RuntimeError("no answer"), TimeoutError("no answer")))
def test_an_airlift_that_does_not_answer_costs_the_connection_alone(
    server, device, monkeypatch, failure
):
    """Its co-processor is asked over SPI whether it is still connected."""

    def ask(_socket):
        raise failure

    with online_client(server, socket_pool=AirLiftPool()) as client:
        monkeypatch.setattr(AirLiftPool.socket_class, "_connected", ask)
        run_until(client, lambda: client.state == "waiting")
        assert "no answer" in str(client.last_error)
        monkeypatch.undo()
        run_until(client, lambda: client.connected)


def test_a_socket_that_fails_when_it_is_polled_is_read_instead(server, device, monkeypatch):
    class Poller:
        def register(self, _socket, _events):
            pass

        def poll(self, _timeout):
            raise OSError(22, "EINVAL")

    monkeypatch.setattr(select, "poll", Poller)
    with online_client(server) as client:
        client.send_telemetry({"a": 1})
        assert client.flush(3)
