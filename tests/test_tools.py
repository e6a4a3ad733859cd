# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The tools of the tests do what they say."""

import errno
import select
import socket
import ssl
import struct
import threading
import time
from types import SimpleNamespace

import pytest

from faults import scripted_broker as wire
from faults.proxy import FIN, RST, FaultProxy
from faults.scripted_broker import ScriptedBroker
from faults.sockets import (
    BOARD_POOLS,
    AirLiftPool,
    BlindPoll,
    CountingPool,
    EspressifPool,
    PicoPool,
    WiznetPool,
)
from helpers import free_port, is_listening, need, run_until, wait_until

BIG = bytes(range(256)) * 2000


class Peer:
    """A TCP server of one connection at a time; the newest one is *sock*."""

    def __init__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(8)
        self.port = self._listener.getsockname()[1]
        self.sock = None

    def accept(self):
        self._listener.settimeout(5)
        self.sock, _ = self._listener.accept()
        self.sock.settimeout(5)
        return self.sock

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        if self.sock is not None:
            self.sock.close()
        self._listener.close()


@pytest.fixture
def peer():
    made = Peer()
    yield made
    made.close()


@pytest.fixture
def proxy(peer):
    with FaultProxy(peer.port) as made:
        yield made


@pytest.fixture
def client(proxy, peer):
    """A client behind the proxy; its server side is ``peer.sock``."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.accept()
        yield sock


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        assert more, "the stream ended after %d of %d bytes" % (len(data), count)
        data += more
    return data


def read_to_end(sock):
    data = b""
    while True:
        more = sock.recv(65536)
        if not more:
            return data
        data += more


# --- proxy ---------------------------------------------------------------------------------------


def test_a_healthy_proxy_changes_nothing(client, peer, proxy):
    client.sendall(b"there")
    assert read_exactly(peer.sock, 5) == b"there"
    peer.sock.sendall(b"and back")
    assert read_exactly(client, 8) == b"and back"
    assert proxy.to_server.passed == 5
    assert [(way, data) for way, _, data in proxy.transcript] == [
        ("to_server", b"there"),
        ("to_client", b"and back"),
    ]
    assert proxy.accepted == proxy.connections == 1


def test_much_data_passes_both_ways(client, peer):
    sender = threading.Thread(target=client.sendall, args=(BIG,))
    sender.start()
    assert read_exactly(peer.sock, len(BIG)) == BIG
    sender.join()


def test_a_fin_passes(client, peer, proxy):
    client.sendall(b"last")
    client.close()
    assert read_to_end(peer.sock) == b"last"
    peer.sock.close()
    wait_until(lambda: proxy.connections == 0)


def test_a_reset_passes(client, peer):
    peer.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_chunks_arrive_one_by_one(client, peer, proxy):
    proxy.to_server.chunk, proxy.to_server.gap = 1, 0.005
    client.sendall(b"abc")
    assert [peer.sock.recv(10) for _ in range(3)] == [b"a", b"b", b"c"]


def test_a_delay_keeps_order_and_does_not_slow_the_rate(client, peer, proxy):
    proxy.round_trip(0.2)
    started = time.monotonic()
    for number in range(20):
        client.sendall(bytes([number]))
        time.sleep(0.002)
    assert read_exactly(peer.sock, 20) == bytes(range(20))
    assert 0.1 <= time.monotonic() - started < 0.5


def test_segments_are_seen_send_by_send(client, peer, proxy):
    for data in (b"one", b"two", b"three"):
        client.sendall(data)
        read_exactly(peer.sock, len(data))
    assert [segment.data for segment in proxy.segments()] == [b"one", b"two", b"three"]
    times = [segment.at for segment in proxy.segments()]
    assert times == sorted(times)
    assert proxy.received() == b"onetwothree"


def test_a_black_hole_swallows_the_end_too(client, peer, proxy):
    proxy.black_hole()
    client.sendall(b"lost")
    peer.sock.close()
    client.settimeout(0.1)
    with pytest.raises(socket.timeout):
        client.recv(1)
    assert proxy.connections == 1
    assert proxy.to_server.passed == 0


def test_a_hole_of_one_direction_leaves_the_other(client, peer, proxy):
    proxy.to_server.hole = True
    client.sendall(b"lost")
    peer.sock.sendall(b"seen")
    assert read_exactly(client, 4) == b"seen"


@pytest.mark.parametrize("after", [0, 1, 7, 10])
def test_a_cut_with_fin_after_any_byte(client, peer, proxy, after):
    proxy.to_client.cut(after, FIN)
    peer.sock.sendall(b"0123456789")
    assert read_to_end(client) == b"0123456789"[:after]
    assert read_to_end(peer.sock) == b""
    wait_until(lambda: proxy.connections == 0)


@pytest.mark.parametrize("after", [0, 1, 9])
def test_a_cut_with_rst_after_any_byte(client, peer, proxy, after):
    proxy.to_server.cut(after, RST)
    client.sendall(b"0123456789")
    with pytest.raises(ConnectionResetError):
        while True:
            assert client.recv(10) != b""
    assert proxy.to_server.passed == after


def test_a_cut_counts_from_now_and_happens_once(proxy, peer):
    for expected in (b"0123", b"0123456789"):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
            peer.accept().sendall(b"x")
            assert read_exactly(client, 1) == b"x"
            if expected == b"0123":
                proxy.to_client.cut(4, FIN)
            peer.sock.sendall(b"0123456789")
            assert read_exactly(client, len(expected)) == expected


def test_every_connection_can_be_cut(proxy, peer):
    proxy.to_client.cut(3, FIN, every=True)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
            peer.accept().sendall(b"0123456789")
            assert read_to_end(client) == b"012"


def test_a_pause_in_mid_stream(client, peer, proxy):
    proxy.to_client.pause(after=4, seconds=0.2)
    peer.sock.sendall(b"0123456789")
    assert read_exactly(client, 4) == b"0123"
    started = time.monotonic()
    assert read_exactly(client, 6) == b"456789"
    assert time.monotonic() - started > 0.15


def test_a_held_direction_makes_the_sender_wait(client, proxy):
    proxy.to_server.held = True
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        for _ in range(10000):
            client.send(BIG)
    assert proxy.to_server.passed == 0


@pytest.mark.parametrize("how", [FIN, RST])
def test_a_cut_now_ends_both_sides(client, peer, proxy, how):
    proxy.cut_now(how)
    for sock in (client, peer.sock):
        if how == FIN:
            assert sock.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
    assert proxy.connections == 0


def test_a_fin_is_no_reset_for_a_client_that_goes_on_sending(client, proxy):
    proxy.cut_now(FIN)
    for _ in range(3):
        client.sendall(b"more")
        time.sleep(0.01)
    assert client.recv(1) == b""


def test_injected_bytes_come_behind_the_others(client, peer, proxy):
    proxy.to_client.gap = 0.01
    peer.sock.sendall(b"real ")
    wait_until(lambda: proxy.transcript)
    proxy.inject(b"injected")
    assert read_exactly(client, 13) == b"real injected"


def connect_and_read(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        return client.recv(1)


def test_a_refusing_proxy_accepts_and_resets(proxy):
    proxy.refuse = True
    with pytest.raises(ConnectionResetError):
        connect_and_read(proxy.port)
    assert proxy.accepted == 1


def test_listening_can_stop_and_start_on_the_same_port(client, peer, proxy):
    port = proxy.port
    proxy.stop_listening()
    assert not is_listening(port)
    client.sendall(b"still here")
    assert read_exactly(peer.sock, 10) == b"still here"
    proxy.listen()
    assert proxy.port == port
    assert is_listening(port)


def test_a_server_that_is_down_resets_the_client():
    with FaultProxy(free_port()) as proxy, pytest.raises(ConnectionResetError):
        connect_and_read(proxy.port)


def test_healing_ends_every_fault(client, peer, proxy):
    proxy.round_trip(1)
    proxy.black_hole()
    proxy.to_server.cut(2)
    proxy.heal()
    client.sendall(b"well")
    assert read_exactly(peer.sock, 4) == b"well"


# --- scripted broker -----------------------------------------------------------------------------

CONNECT_PACKET = (
    b"\x10\x24\x00\x04MQTT\x04\xc6\x00\x3c\x00\x02id\x00\x04will\x00\x03bye\x00\x05TOKEN\x00\x02pw"
)


def connect_to(broker):
    return socket.create_connection(("127.0.0.1", broker.port), timeout=5)


def test_a_script_reads_and_answers_packets():
    def script(connection):
        asked = connection.accept(session_present=1).credentials
        assert asked == ("id", "TOKEN", b"pw", 60, True, "will", b"bye")
        connection.suback(connection.expect(wire.SUBSCRIBE))
        read = connection.expect(wire.PUBLISH)
        assert (read.topic, read.payload, read.packet_id) == ("a/b", b"hello", 258)
        assert (read.quality_of_service, read.duplicate) == (1, True)
        connection.puback(read.packet_id)

    with ScriptedBroker(script) as broker, connect_to(broker) as client:
        client.sendall(CONNECT_PACKET)
        assert read_exactly(client, 4) == b"\x20\x02\x01\x00"
        client.sendall(b"\x82\x0a\x00\x07\x00\x01a\x01\x00\x01b\x00")
        assert read_exactly(client, 6) == b"\x90\x04\x00\x07\x01\x00"
        client.sendall(b"\x3a\x0c\x00\x03a/b\x01\x02hello")
        assert read_exactly(client, 4) == b"\x40\x02\x01\x02"
        assert len(broker.packets) == 3


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (wire.publish("t", b"x"), b"\x30\x04\x00\x01tx"),
        (wire.publish("t", b"x", 1, 258, True, True), b"\x3b\x06\x00\x01t\x01\x02x"),
        (wire.connack(5), b"\x20\x02\x00\x05"),
        (wire.suback(7, (1, 128)), b"\x90\x04\x00\x07\x01\x80"),
        (wire.unsuback(7), b"\xb0\x02\x00\x07"),
        (wire.pingresp(), b"\xd0\x00"),
        (wire.remaining_length(127), b"\x7f"),
        (wire.remaining_length(128), b"\x80\x01"),
        (wire.remaining_length(16384), b"\x80\x80\x01"),
    ],
)
def test_packets_are_those_of_the_specification(made, expected):
    assert made == expected


def test_a_failed_script_fails_the_test():
    def script(connection):
        connection.expect(wire.PUBLISH)

    broker = ScriptedBroker(script)
    with connect_to(broker) as client:
        client.sendall(b"\xc0\x00")
        assert client.recv(1) == b""
    with pytest.raises(AssertionError, match="expected type 3"):
        broker.close()


def test_a_client_that_leaves_fails_nothing():
    with ScriptedBroker(lambda connection: connection.accept()) as broker:
        connect_to(broker).close()
        wait_until(lambda: broker.connections)


def test_a_script_that_waits_does_not_stop_close():
    started = time.monotonic()
    with ScriptedBroker(lambda connection: connection.accept()) as broker, connect_to(broker):
        wait_until(lambda: broker.connections)
    assert time.monotonic() - started < 2
    assert not is_listening(broker.port)


def test_a_script_ends_with_fin_or_rst_by_its_number():
    def script(connection):
        connection.fin() if connection.number == 1 else connection.rst()

    with ScriptedBroker(script) as broker:
        with connect_to(broker) as client:
            assert client.recv(1) == b""
        with pytest.raises(ConnectionResetError):
            connect_and_read(broker.port)


# --- sockets of boards ---------------------------------------------------------------------------


def connected(pool, peer, timeout=1):
    """A socket of the pool, connected to the peer."""
    address = pool.getaddrinfo("127.0.0.1", peer.port, 0, pool.SOCK_STREAM)[0]
    sock = pool.socket(address[0], address[1])
    sock.settimeout(timeout)
    sock.connect(address[-1])
    peer.accept()
    return sock


def outcome(function, *arguments):
    """What it returns; of an exception its errno by name, else its class by name."""
    try:
        return function(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except RuntimeError:
        return "RuntimeError"


def receive(sock, timeout):
    sock.settimeout(timeout)
    return outcome(sock.recv_into, bytearray(16))


def let_arrive():
    time.sleep(0.03)


@pytest.mark.parametrize("pool_class", BOARD_POOLS)
def test_bytes_pass_both_ways(pool_class, peer):
    sock = connected(pool_class(), peer)
    assert sock.send(b"there") == 5
    assert read_exactly(peer.sock, 5) == b"there"
    peer.sock.sendall(b"back")
    let_arrive()
    sock.settimeout(0)
    buffer = bytearray(8)
    assert sock.recv_into(buffer, 3) == 3
    assert sock.recv_into(memoryview(buffer)[3:]) == 1
    assert buffer == b"back\0\0\0\0"
    sock.close()
    assert peer.sock.recv(1) == b""


RECV_INTO = {  # nothing, t=0 / nothing, t>0 / FIN, t=0 / FIN, t>0
    EspressifPool: ("EAGAIN", "ETIMEDOUT", "ENOTCONN", 0),
    PicoPool: ("EAGAIN", "ETIMEDOUT", 0, 0),
    AirLiftPool: (0, "ETIMEDOUT", 0, "ETIMEDOUT"),
    WiznetPool: ("EAGAIN", "ETIMEDOUT", 0, 0),
}


@pytest.mark.parametrize("pool_class", BOARD_POOLS)
def test_nothing_to_read_and_the_end_of_the_stream(pool_class, peer):
    sock = connected(pool_class(), peer)
    nothing = (receive(sock, 0), receive(sock, 0.02))
    peer.sock.close()
    let_arrive()
    assert nothing + (receive(sock, 0), receive(sock, 0.02)) == RECV_INTO[pool_class]


RESET = {
    EspressifPool: ["EAGAIN", "EAGAIN", "ENOTCONN", "ENOTCONN"],
    PicoPool: ["ECONNRESET", "ECONNRESET", "ECONNRESET", "ECONNRESET"],
    AirLiftPool: [0, 0, 0, 0],
    WiznetPool: [0, 0, 0, 0],
}


@pytest.mark.parametrize("pool_class", BOARD_POOLS)
def test_a_reset_at_timeout_0(pool_class, peer):
    sock = connected(pool_class(), peer)
    peer.reset()
    let_arrive()
    assert [receive(sock, 0) for _ in range(4)] == RESET[pool_class]


CLOSED = {
    EspressifPool: ("EBADF", "EBADF", None),
    PicoPool: ("EBADF", "EBADF", None),
    AirLiftPool: (0, "ConnectionError", None),
    WiznetPool: ("RuntimeError", "RuntimeError", "RuntimeError"),
}


@pytest.mark.parametrize("pool_class", BOARD_POOLS)
def test_a_socket_that_we_closed(pool_class, peer):
    pool = pool_class()
    sock = connected(pool, peer)
    sock.settimeout(0)
    assert pool.open_sockets == [sock]
    sock.close()
    assert pool.open_sockets == []
    received = outcome(sock.recv_into, bytearray(1))
    assert (received, outcome(sock.send, b"x"), outcome(sock.close)) == CLOSED[pool_class]


REFUSED = {
    EspressifPool: "ECONNREFUSED",
    PicoPool: "ECONNREFUSED",
    AirLiftPool: "ConnectionError",
    WiznetPool: "ConnectionError",
}


@pytest.mark.parametrize("pool_class", BOARD_POOLS)
def test_a_refused_connection(pool_class):
    pool = pool_class()
    sock = pool.socket(pool.AF_INET, pool.SOCK_STREAM)
    sock.settimeout(1)
    assert outcome(sock.connect, ("127.0.0.1", free_port())) == REFUSED[pool_class]


def test_a_native_socket_that_connects_without_a_timeout_gives_up_at_once(peer):
    for pool, expected in ((EspressifPool(), "ETIMEDOUT"), (PicoPool(), "EINPROGRESS")):
        sock = pool.socket()
        sock.settimeout(0.0005)  # less than a millisecond is 0
        assert outcome(sock.connect, ("127.0.0.1", peer.port)) == expected


def test_pico_connects_in_steps_of_100_ms(peer):
    started = time.monotonic()
    connected(PicoPool(), peer)
    assert time.monotonic() - started >= 0.1


@pytest.mark.parametrize("pool_class", [EspressifPool, PicoPool])
def test_a_full_native_socket_takes_a_part_then_says_eagain(pool_class, peer):
    sock = connected(pool_class(send_buffer_bytes=4096), peer)
    sock.settimeout(0)
    assert 0 < sock.send(BIG) < len(BIG)
    while True:
        sent = outcome(sock.send, BIG)
        if not isinstance(sent, int):
            break
    assert sent == "EAGAIN"


def test_espressif_says_eagain_to_a_send_whatever_the_timeout(peer):
    sock = connected(EspressifPool(send_buffer_bytes=4096), peer, timeout=5)
    started = time.monotonic()
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(BIG)
    assert time.monotonic() - started < 1


def test_wiznet_waits_for_an_acknowledgement(peer):
    sock = connected(WiznetPool(), peer)
    sock.peer_acknowledges = False
    sock.settimeout(0.1)
    started = time.monotonic()
    with pytest.raises(RuntimeError):
        sock.send(b"x")
    assert time.monotonic() - started >= 0.1


def test_wiznet_knows_no_options(peer):
    with pytest.raises(OSError):
        connected(WiznetPool(), peer).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@pytest.mark.parametrize("pool_class", [AirLiftPool, WiznetPool])
def test_only_connected_finds_the_end_on_a_co_processor(pool_class, peer):
    pool = pool_class()
    sock = connected(pool, peer)

    def is_connected():
        return sock._connected() if pool_class is AirLiftPool else sock._connected

    assert is_connected()
    peer.sock.close()
    let_arrive()
    assert not is_connected()
    assert pool.open_sockets == []


@pytest.mark.parametrize("pool_class", BOARD_POOLS)
def test_a_name_that_does_not_resolve(pool_class):
    with pytest.raises((OSError, RuntimeError)):
        pool_class().getaddrinfo("name.invalid", 1)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="this system has no select.poll")
def test_native_sockets_can_be_polled_and_the_others_not(peer):
    for pool in (EspressifPool(), PicoPool()):
        sock = connected(pool, peer)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert poll.poll(0) == []
        peer.sock.sendall(b"x")
        assert poll.poll(1000)
    for pool in (AirLiftPool(), WiznetPool()):
        with pytest.raises(TypeError):
            select.poll().register(connected(pool, peer), select.POLLIN)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="this system has no select.poll")
def test_a_blind_poll_shows_data_and_fin_but_no_reset(peer):
    sock = connected(PicoPool(), peer)
    poll = BlindPoll()
    poll.register(sock, select.POLLIN)
    peer.sock.sendall(b"x")
    assert poll.poll(1000)
    assert receive(sock, 0) == 1
    peer.reset()
    let_arrive()
    assert poll.poll(0) == []
    assert receive(sock, 0) == "ECONNRESET"


@pytest.mark.parametrize("pool_class", BOARD_POOLS)
def test_minimqtt_connects_over_a_board_pool(pool_class):
    minimqtt = pytest.importorskip("adafruit_minimqtt.adafruit_minimqtt")
    with ScriptedBroker(lambda connection: connection.answer_everything()) as broker:
        client = minimqtt.MQTT(
            broker="127.0.0.1", port=broker.port, client_id="x", socket_pool=pool_class()
        )
        client.connect()
        client.publish("topic", "payload", qos=1)
        assert broker.packets[-1].payload == b"payload"
        client.disconnect()


def test_a_counting_pool_counts(peer):
    pool = CountingPool(send_buffer_bytes=4096)
    sock = pool.socket(pool.AF_INET, pool.SOCK_STREAM)
    sock.connect(("127.0.0.1", peer.port))
    peer.accept()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 16384
    sock.send(b"one")
    sock.send(memoryview(b"two"))
    assert pool.sends == [b"one", b"two"]
    assert (pool.opened, pool.closed) == (1, 0)
    sock.close()
    sock.close()
    assert (pool.opened, pool.closed) == (1, 1)
    assert pool.timeout is socket.timeout


def test_counting_pools_are_apart_for_connection_manager():
    assert len({CountingPool(), CountingPool()}) == 2


# --- helpers -------------------------------------------------------------------------------------


class FakeClient:
    state, last_error, stats = "waiting", OSError("gone"), {}

    def __init__(self, slow_call=0):
        self.calls = 0
        self.slow_call = slow_call

    def check_for_msg(self):
        self.calls += 1
        time.sleep(0.05 if self.calls == self.slow_call else 0)


def test_run_until_polls_and_tells_the_longest_call():
    client = FakeClient(slow_call=3)
    assert 50 <= run_until(client, lambda: client.calls == 10) < 500
    assert client.calls == 10


def test_run_until_says_what_the_client_was_doing():
    with pytest.raises(AssertionError, match=r"waiting.*gone"):
        run_until(FakeClient(), lambda: False, timeout=0.01)


def test_a_missing_tool_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr("helpers.IN_CI", False)
    with pytest.raises(pytest.skip.Exception, match="sudo apt-get install some-package"):
        need("no-such-tool", "some-package")


def test_a_missing_tool_fails_in_ci(monkeypatch):
    monkeypatch.setattr("helpers.IN_CI", True)
    with pytest.raises(pytest.fail.Exception, match="no-such-tool is missing"):
        need("no-such-tool")


# --- fixtures ------------------------------------------------------------------------------------


def handshake(port, authority, host="localhost", identity=None):
    context = ssl.create_default_context(cafile=authority)
    if identity:
        context.load_cert_chain(*identity)
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    with plain, context.wrap_socket(plain, server_hostname=host) as sock:
        sock.sendall(CONNECT_PACKET)
        return sock.recv(4)


def serve_tls(pair, port_ready):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port_ready(listener.getsockname()[1])
        plain, _ = listener.accept()
        try:
            with context.wrap_socket(plain, server_side=True) as sock:
                sock.recv(100)
                sock.sendall(b"\x20\x02\x00\x00")
        except OSError:
            plain.close()


@pytest.fixture
def start_tls():
    threads = []

    def start(pair):
        known, found = threading.Event(), SimpleNamespace(port=0)

        def ready(port):
            found.port = port
            known.set()

        threads.append(threading.Thread(target=serve_tls, args=(pair, ready), daemon=True))
        threads[-1].start()
        assert known.wait(5)
        return found.port

    yield start
    for thread in threads:
        thread.join(5)


def test_the_certificate_of_the_server_is_good(certificates, start_tls):
    for host in ("localhost", "127.0.0.1"):
        port = start_tls(certificates.server)
        assert handshake(port, certificates.ca, host) == b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    ("pair", "authority", "why"),
    [
        ("expired", "ca", "expired"),
        ("wrong_host", "ca", "ostname"),
        ("server", "other_ca", "unable to get local issuer|self.signed"),
    ],
)
def test_the_other_certificates_are_bad(certificates, start_tls, pair, authority, why):
    port = start_tls(getattr(certificates, pair))
    with pytest.raises(ssl.SSLCertVerificationError, match=why):
        handshake(port, getattr(certificates, authority))


def mosquitto_answer(port, username=None, password=None):
    """The return code of a plain connection."""
    flags, rest = 2, b""
    if username is not None:
        flags, rest = flags | 128, struct.pack(">H", len(username)) + username.encode()
    if password is not None:
        flags, rest = flags | 64, rest + struct.pack(">H", len(password)) + password.encode()
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x3c\x00\x01x" + rest
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(wire.packet(0x10, body))
        return read_exactly(client, 4)[3]


def test_mosquitto_asks_for_a_password_where_it_should(mosquitto):
    assert mosquitto_answer(mosquitto.plain) == 0
    assert mosquitto_answer(mosquitto.password, "user", "pw") == 0
    assert mosquitto_answer(mosquitto.plain, "TOKEN") == 0
    assert mosquitto_answer(mosquitto.password, "user", "wrong") == 5
    assert mosquitto_answer(mosquitto.password) == 5


def test_mosquitto_asks_for_a_certificate_where_it_should(mosquitto, certificates):
    good = b"\x20\x02\x00\x00"
    assert handshake(mosquitto.tls, certificates.ca) == good
    assert handshake(mosquitto.mutual, certificates.ca, identity=certificates.client) == good
    assert "u'device-1'" in mosquitto.log_text()
    with pytest.raises((OSError, AssertionError)):
        assert handshake(mosquitto.mutual, certificates.ca) == good
    with pytest.raises((OSError, AssertionError)):
        assert handshake(mosquitto.mutual, certificates.ca, identity=certificates.stranger) == good


def test_the_stand_in_answers(server, device):
    assert mosquitto_answer(server.port, "TOKEN_A") == 0
    assert mosquitto_answer(server.port, "TOKEN_B") == 5
    device.wait(lambda known: known.connects == 1)
