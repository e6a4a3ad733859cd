# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""TLS, end to end: what *tls* may be, what goes wrong in words, and faults below the encryption."""

import gc
import socket
import ssl
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import tb_device_mqtt
from clients import ATTRIBUTES, Notes, flush, subscribed, values
from faults.proxy import FIN, RST, FaultProxy
from faults.sockets import CountingPool, EspressifPool
from helpers import run_until, wait_until
from local_server import LocalServer
from tb_device_mqtt import TBDeviceMqttClient

NOTICED_MS = 50


@pytest.fixture
def serve(certificates):
    """Call it with a `Pair`: a stand-in that shows this certificate, and its Device A."""
    running = []

    def start(pair):
        running.append(LocalServer(ssl_context=pair.server_context()))
        running[-1].start()
        return running[-1], running[-1].add_device("Device A", token="TOKEN_A")

    yield start
    for server in running:
        server.close()


@pytest.fixture
def tls_server(serve, certificates):
    return serve(certificates.server)[0]


def secure_client(port, tls, **options):
    """Certificates are for localhost; the numeric address would do as well."""
    options = {"access_token": "TOKEN_A", **options}
    client = TBDeviceMqttClient("localhost", port, tls=tls, **options)
    client._link.backoff_ms = 20
    return client


def refusal(port, tls, **options):
    """The words with which the attempt to connect fails."""
    client = secure_client(port, tls, **options)
    with pytest.raises(OSError) as raised:
        client.connect()
    client.disconnect()
    return str(raised.value)


# --- what tls= may be ---


def test_the_path_of_a_ca_file_is_enough(serve, certificates):
    server, device = serve(certificates.server)
    with secure_client(server.port, certificates.ca) as client:
        client.send_telemetry({"temperature": 21.5})
    assert values(device) == [{"temperature": 21.5}]


def test_the_path_of_a_ca_file_is_enough_for_mosquitto(mosquitto, certificates):
    messages = Notes()
    with secure_client(mosquitto.tls, certificates.ca) as client:
        client.subscribe("echo", messages)
        client.publish("echo", "hello")
        run_until(client, lambda: messages.calls)
    assert messages.calls == [("echo", b"hello")]


def test_a_context_brings_the_client_certificate(mosquitto, certificates):
    context = ssl.create_default_context(cafile=certificates.ca)
    context.load_cert_chain(*certificates.client)
    messages = Notes()
    with secure_client(mosquitto.mutual, context, access_token=None) as client:
        client.subscribe("echo", messages)
        client.publish("echo", "hello")
        run_until(client, lambda: messages.calls)
    assert "device-1" in mosquitto.log_text()


# --- a CA file as people have it ---


@pytest.fixture
def ca_file(certificates, tmp_path):
    """Call it with a function: the CA file as that makes it of the right one's bytes."""

    def write(change):
        path = tmp_path / "ca.pem"
        path.write_bytes(change(Path(certificates.ca).read_bytes()))
        return str(path)

    return write


USABLE = {
    "a BOM": lambda pem: b"\xef\xbb\xbf" + pem,
    "an accent": lambda pem: "# Autorit\u00e9 de certification\n".encode() + pem,
    "Latin-1": lambda pem: b"# Autorit\xe9\n" + pem + b"\n# fin \xe0\n",
    "its key beside it": lambda pem: (
        b"-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n" + pem
    ),
    "Windows line ends": lambda pem: pem.replace(b"\n", b"\r\n"),
    "it twice": lambda pem: pem + pem,
    "no line end": lambda pem: pem.rstrip(),
}


@pytest.mark.parametrize("name", USABLE)
def test_a_ca_file_with_other_things_around_the_certificate_does(
    serve, certificates, ca_file, name
):
    server, device = serve(certificates.server)
    with secure_client(server.port, ca_file(USABLE[name])) as client:
        client.send_telemetry({"a": 1})
    assert values(device) == [{"a": 1}]


UNUSABLE = {
    "nothing": lambda pem: b"",
    "zeros": lambda pem: bytes(len(pem)),
    "a zero in front": lambda pem: b"\0" + pem[1:],
    "zeros inside": lambda pem: pem[:60] + bytes(100) + pem[160:],
    "half of it": lambda pem: pem[: len(pem) // 2],
    "DER": lambda pem: ssl.PEM_cert_to_DER_cert(pem.decode().strip()),
    "a key": lambda pem: b"-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n",
    "no base64": lambda pem: b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    "Latin-1 inside": lambda pem: pem[:60] + b"\xe9" + pem[60:],
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_ca_file_without_a_certificate_is_refused_by_name(ca_file, name):
    with pytest.raises(ValueError, match=r"tls .*CA file in PEM format") as raised:
        secure_client(8883, ca_file(UNUSABLE[name]))
    assert len(str(raised.value)) < 140


@pytest.mark.parametrize("tls", ("", [], (), 0, 1, b"", b"/ca.pem", 0.0, {}, "S3CRET-TOKEN", "."))
def test_only_none_and_false_mean_no_tls(tls):
    with pytest.raises(ValueError, match="tls") as raised:
        TBDeviceMqttClient("localhost", 1883, access_token="T", tls=tls)
    assert "S3CRET" not in str(raised.value)


@pytest.mark.parametrize("tls", (None, False))
def test_none_and_false_mean_no_tls(server, device, tls):
    with TBDeviceMqttClient("127.0.0.1", server.port, "TOKEN_A", tls=tls):
        assert device.online


def test_a_file_that_may_not_be_read_is_refused_by_the_name_of_the_argument(monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied", "/ca.pem")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match=r"tls .*PermissionError\(13, 'Permission denied'\)"):
        secure_client(8883, "/ca.pem")


def contexts_of(monkeypatch, client_of):
    """The context that the client's connection would have."""
    made = []
    original = ssl.SSLContext.load_verify_locations

    def note(context, *arguments, **options):
        made.append(context)
        return original(context, *arguments, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", note)
    client_of()
    return made


def test_beside_a_ca_file_no_authority_of_the_system_is_trusted(monkeypatch, certificates):
    (context,) = contexts_of(monkeypatch, lambda: secure_client(8883, certificates.ca))
    assert len(context.get_ca_certs()) == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_home_made_authority_does_on_python_3_13_too(monkeypatch, certificates):
    """Its create_default_context() sets VERIFY_X509_STRICT, which wants fields that few set."""

    def strict(*_arguments, **options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(**options)
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    for context in contexts_of(monkeypatch, lambda: secure_client(8883, certificates.ca)):
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize("tls, port", ((None, 1883), (True, 8883)))
def test_the_default_port_follows_tls(tls, port):
    asked = []

    class NotingPool(CountingPool):
        def getaddrinfo(self, host, port, *_options):
            asked.append((host, port))
            raise socket.gaierror(socket.EAI_NONAME, "there is no network in this test")

    client = TBDeviceMqttClient("tb.test", access_token="T", tls=tls, socket_pool=NotingPool())
    client.connect(timeout=0)
    run_until(client, lambda: asked)
    client.disconnect()
    assert asked[0] == ("tb.test", port)


# --- what goes wrong, in words ---


def test_a_ca_that_did_not_sign_it_is_told_in_words(tls_server, certificates):
    assert "CA file" in refusal(tls_server.port, certificates.other_ca)


def test_the_authorities_of_the_system_do_not_do_for_a_private_ca(tls_server):
    assert "CA file" in refusal(tls_server.port, True)


def test_a_certificate_for_another_host_is_told_in_words(serve, certificates):
    server, _ = serve(certificates.wrong_host)
    assert "of another host" in refusal(server.port, certificates.ca)


def test_an_expired_certificate_is_told_in_words(serve, certificates):
    server, _ = serve(certificates.expired)
    assert "has expired" in refusal(server.port, certificates.ca)


def test_a_client_certificate_that_is_missing_or_wrong_is_told_in_words(mosquitto, certificates):
    without = ssl.create_default_context(cafile=certificates.ca)
    wrong = ssl.create_default_context(cafile=certificates.ca)
    wrong.load_cert_chain(*certificates.stranger)
    # Whether its alert or its end is seen first is chance.
    told = [refusal(mosquitto.mutual, context) for context in (without, wrong) * 20]
    assert [words for words in told if "client certificate" not in words] == []


def test_a_tls_port_without_tls_is_told_in_words(tls_server):
    assert "TLS" in refusal(tls_server.port, None)


def test_a_tls_port_of_mosquitto_without_tls_is_told_in_words(mosquitto):
    assert "TLS" in refusal(mosquitto.tls, None)


def test_tls_on_a_plain_port_is_told_in_words(server, device, certificates):
    assert "does this port speak it?" in refusal(server.port, certificates.ca)


def test_tls_on_a_plain_port_of_mosquitto_is_told_in_words(mosquitto, certificates):
    assert "does this port speak it?" in refusal(mosquitto.plain, certificates.ca)


# What boards and computers say, and that it is not the server's TLS.
BOARD_ERRORS = (
    (OSError(118, "EHOSTUNREACH"), "no connection"),
    (OSError(113, "No route to host"), "no connection"),
    (OSError(101, "Network is unreachable"), "no connection"),
    (RuntimeError("Failed to resolve hostname!"), "host not known"),  # WIZnet
    (ConnectionError("Failed to request hostname"), "host not known"),  # AirLift
    (OSError(-0x7F00, "MBEDTLS_ERR_SSL_ALLOC_FAILED"), "too little memory"),
    (OSError(12, "ENOMEM"), "too little memory"),
    (RuntimeError("Out of sockets"), "no socket is left"),
    (OSError(24, "Too many open files"), "no socket is left"),
    (BrokenPipeError(32, "EPIPE"), "does it require a client certificate?"),
    (OSError(5, "EIO"), "no connection"),
    (OSError(-0x7280, "?!"), "does this port speak it?"),
    (
        OSError(
            -0x2700,
            "MBEDTLS_ERR_X509_CERT_VERIFY_FAILED; The certificate Common Name (CN) does not match"
            " with the expected CN",
        ),
        "of another host",
    ),
    (OSError(-0x2700, "MBEDTLS_ERR_X509_CERT_VERIFY_FAILED"), "CA file"),
    (OSError(-0x7200, "MBEDTLS_ERR_SSL_INVALID_RECORD"), "does this port speak it?"),
)


@pytest.mark.parametrize("failure, words", BOARD_ERRORS, ids=lambda value: str(value)[:40])
def test_what_a_board_says_is_told_in_words(monkeypatch, failure, words):
    class Failing(socket.socket):
        def connect(self, _address):
            raise failure

    class Context:
        def wrap_socket(self, wrapped, server_hostname):
            return wrapped

    monkeypatch.setattr(socket, "socket", Failing)
    told = refusal(1883, Context())
    assert words in told
    assert told.count(str(failure.args[-1])) <= 1, "the reason stands twice"


@pytest.mark.parametrize("free, words", ((39000, "too little memory"), (90000, "CA file")))
def test_a_board_with_too_little_memory_takes_a_good_certificate_for_a_bad_one(
    monkeypatch, free, words
):
    class Context:
        def wrap_socket(self, wrapped, server_hostname):
            raise OSError(-0x2700, "MBEDTLS_ERR_X509_CERT_VERIFY_FAILED")

    client = secure_client(1883, Context(), socket_pool=EspressifPool(), client_id="me")
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="circuitpython"))
    monkeypatch.setattr(gc, "mem_free", lambda: free, raising=False)
    monkeypatch.setattr(tb_device_mqtt._MqttClient, "_make_memory", lambda _: None)
    with pytest.raises(OSError, match=words):
        client.connect()
    client.disconnect()


def test_too_little_memory_to_prepare_tls_is_told_in_words():
    class Context:
        def wrap_socket(self, wrapped, server_hostname):
            raise MemoryError("memory allocation failed, allocating 16717 bytes")

    assert "too little memory left (memory allocation failed" in refusal(1883, Context())


def test_too_little_memory_without_tls_is_told_without_tls(monkeypatch):
    class Failing(socket.socket):
        def connect(self, _address):
            raise MemoryError("memory allocation failed")

    monkeypatch.setattr(socket, "socket", Failing)
    assert "TLS" not in refusal(1883, None)


def test_nothing_is_sent_to_a_server_that_can_not_be_trusted(serve, certificates):
    server, _ = serve(certificates.server)
    client = secure_client(server.port, certificates.other_ca)
    client.send_telemetry({"secret": 1})
    client.connect(timeout=0)
    run_until(client, lambda: client.stats["connects"] > 3)
    client.disconnect()
    assert server.packets == []
    assert client.pending_messages_count == 1


class BoardContext:
    """TLS of a board: after a failed handshake its socket is closed, the one below stays open.

    shared-module/ssl/SSLSocket.c of CircuitPython 10 marks itself closed, its close() is empty.
    """

    def __init__(self, fails_at):
        self.fails_at = fails_at

    def wrap_socket(self, _plain, server_hostname):
        if self.fails_at == "wrap_socket":
            raise MemoryError("memory allocation failed, allocating 16717 bytes")
        return self

    def settimeout(self, _seconds):
        """The one below is not told either."""

    def connect(self, _address):
        raise OSError(-0x7200, "MBEDTLS_ERR_SSL_INVALID_RECORD")

    def close(self):
        """Closed already."""


@pytest.mark.parametrize("fails_at", ("wrap_socket", "connect"))
def test_a_handshake_that_fails_leaves_no_socket_open(fails_at):
    pool = EspressifPool()
    client = secure_client(1883, BoardContext(fails_at), socket_pool=pool)
    client._link.backoff_ms = 0
    client.connect(timeout=0)
    run_until(client, lambda: client.stats["connects"] == 9 and client.state == "waiting")
    assert (len(pool.sockets), pool.open_sockets) == (9, [])
    client.disconnect()


# --- faults below the encryption ---


def test_a_record_larger_than_the_buffer_arrives_at_once(mosquitto, certificates):
    messages = Notes()
    payload = bytes(range(256)) * 60
    with secure_client(mosquitto.tls, certificates.ca, queue_bytes=30000) as client:
        client.subscribe("echo", messages)
        client.publish("echo", payload)
        client.publish("echo", "next")
        run_until(client, lambda: len(messages.calls) == 2)
    assert [message for _, message in messages.calls] == [payload, b"next"]


@pytest.mark.parametrize("how", (FIN, RST))
def test_a_cut_inside_of_tls_is_noticed_within_50_ms(serve, certificates, how):
    server, _ = serve(certificates.server)
    took_ms = []
    with FaultProxy(server.port) as proxy:
        client = secure_client(proxy.port, certificates.ca)
        for _ in range(3):  # the best of them: the machine may be busy
            client.connect()
            started = time.perf_counter()
            proxy.cut_now(how)
            while client.connected:
                client.check_for_msg()
            took_ms.append((time.perf_counter() - started) * 1000)
        client.disconnect()
    assert min(took_ms) < NOTICED_MS, took_ms


def test_the_farewell_of_tls_is_noticed_as_the_end(serve, certificates):
    server, device = serve(certificates.server)
    client = secure_client(server.port, certificates.ca)
    client.connect()
    device.disconnect()  # close_notify, then FIN
    run_until(client, lambda: not client.connected)
    assert "closed by the server" in str(client.last_error)
    client.disconnect()


@pytest.mark.parametrize("how", (FIN, RST))
@pytest.mark.parametrize("way", ("to_server", "to_client"))
def test_a_cut_anywhere_in_handshake_or_session_loses_nothing(serve, certificates, way, how):
    server, device = serve(certificates.server)
    sent = 0
    with FaultProxy(server.port) as proxy:
        for after in (0, 1, *range(5, 6000, 60)):
            client = secure_client(proxy.port, certificates.ca)
            client._link.backoff_ms = 1
            getattr(proxy, way).cut(after=after, how=how)
            client.send_telemetry({"number": sent})
            sent += 1
            client.connect(timeout=0)
            flush(client)
            client.disconnect()
            wait_until(lambda: not proxy.connections)
            if client.stats["connects"] == 1:
                break  # the session is over before that byte
        assert after > 300
    arrived = [row["number"] for row in values(device)]
    assert sorted(set(arrived)) == list(range(sent))


def test_an_attempt_into_silence_ends_after_connect_timeout(serve, certificates):
    server, device = serve(certificates.server)
    with FaultProxy(server.port) as proxy:
        proxy.to_client.hole = True
        client = secure_client(proxy.port, certificates.ca)
        client.connect_timeout = 0.3
        client.connect(timeout=0)
        longest_ms = run_until(client, lambda: client.last_error is not None)
        assert 250 < longest_ms < 2000
        assert "no answer" in str(client.last_error)
        proxy.heal()
        client.send_telemetry({"n": 1})
        flush(client)
        client.disconnect()
    assert values(device) == [{"n": 1}]


def test_after_an_outage_all_is_as_before(serve, certificates):
    server, device = serve(certificates.server)
    changes = Notes()
    client = secure_client(server.port, certificates.ca)
    client.subscribe_to_all_attributes(changes)
    client.connect()
    server.stop_listening()
    run_until(client, lambda: not client.connected)
    client.send_telemetry({"n": 1})
    server.listen_again()
    flush(client)
    subscribed(client, device, ATTRIBUTES)
    device.push_attributes({"interval": 5})
    run_until(client, lambda: changes.calls)
    client.disconnect()
    assert changes.firsts == [{"interval": 5}]
    assert [row["n"] for row in values(device)] == [1]


def test_one_byte_at_a_time_is_no_trouble(serve, certificates):
    server, device = serve(certificates.server)
    with FaultProxy(server.port) as proxy:
        proxy.to_client.chunk = proxy.to_server.chunk = 1
        with secure_client(proxy.port, certificates.ca) as client:
            client.send_telemetry({"n": 1})
        assert client.stats["connects"] == 1
    assert values(device) == [{"n": 1}]
