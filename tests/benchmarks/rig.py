# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the benchmarks share: server, clients, MiniMQTT as the peer, and statistics.

Client, server and proxy are threads of one interpreter and take turns: rates would be higher and
maxima lower with the server elsewhere. It is the same for the peer.
"""

import contextlib
import gc
import json
import math
import socket
import ssl
import statistics
import struct
import time
import tracemalloc
import types
from pathlib import Path

import adafruit_connection_manager
import adafruit_minimqtt.adafruit_minimqtt as minimqtt

import tb_device_mqtt
from certificates import Certificates
from helpers import run_for, run_until
from local_server import LocalServer

TOKEN = "TOKEN_A"
CLIENT_ID = "benchmark"  # the same for both: it is part of CONNECT
TELEMETRY = "v1/devices/me/telemetry"
_SETTLE_S = 0.05
_FRAMES = 8  # deep enough to see that json.dumps was called by us
_TCP_INFO_BYTES = 192
_DATA_SEGS_IN, _DATA_SEGS_OUT = 152, 156  # their places in struct tcp_info of Linux

PEER_ERRORS = (minimqtt.MMQTTException, OSError)


def reading(number):
    return {"n": number, "temperature": 21.5}


def payload(number):
    """The same reading as bytes, for a peer that knows no telemetry."""
    return json.dumps(reading(number), separators=(",", ":")).encode()


# --- both sides ---


@contextlib.contextmanager
def stand_in(keep=None, **options):
    """A running server and its device; *keep*: how many rows and messages it remembers."""
    with LocalServer(**options) as server:
        if keep is not None:
            server.keep = keep
        yield server, server.add_device("Device A", token=TOKEN)


class Authority:
    """A certificate authority: *path* of it in the format that a client takes, *context*."""

    def __init__(self, folder):
        made = Certificates(folder)
        self._pem = made.ca
        self._der = str(folder / "ca.der")
        text = Path(made.ca).read_text(encoding="utf-8")
        Path(self._der).write_bytes(ssl.PEM_cert_to_DER_cert(text))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*made.server)

    def path(self, peer):
        return self._der if peer.on_micropython else self._pem


def new_client(port, **options):
    options = {"client_id": CLIENT_ID, "access_token": TOKEN, **options}
    return tb_device_mqtt.TBDeviceMqttClient("127.0.0.1", port, **options)


@contextlib.contextmanager
def online(port, rpc=None, **options):
    """A client that is connected, with nothing under way; *rpc*: function that answers "echo"."""
    client = new_client(port, **options)
    if rpc is not None:
        client.rpc("echo")(rpc)
    client.connect()
    try:
        settle(client)
        yield client
    finally:
        client.disconnect()


def settle(client):
    """Until all is acknowledged, subscriptions too."""
    run_until(client, lambda: client.connected and not client.pending_messages_count, timeout=60)
    run_for(client, _SETTLE_S)


@contextlib.contextmanager
def peer(port, **options):
    """MiniMQTT itself, connected, as its documents say."""
    mqtt = new_peer(port, **options)
    mqtt.connect()
    try:
        yield mqtt
    finally:
        with contextlib.suppress(*PEER_ERRORS):
            mqtt.disconnect()


def new_peer(port, pool=None, **options):
    options = {"client_id": CLIENT_ID, "username": TOKEN, "password": "", **options}
    return minimqtt.MQTT(
        broker="127.0.0.1", port=port, socket_pool=pool or Pool(), connect_retries=1, **options
    )


# --- sockets ---


class Pool(types.ModuleType):
    """CPython's socket module with another socket class; *open*: the sockets not yet closed."""

    def __init__(self, socket_class=socket.socket):
        super().__init__("pool")
        self.__dict__.update(socket.__dict__)
        self._made = []

        def make(*arguments):
            self._made = [*self.open, socket_class(*arguments)]
            return self._made[-1]

        self.socket = make

    @property
    def open(self):
        return [made for made in self._made if made.fileno() >= 0]


class CountingSocket(socket.socket):
    """Counts what is sent through it."""

    sends = sent_bytes = 0

    def send(self, data, *flags):
        sent = super().send(data, *flags)
        self.sends += 1
        self.sent_bytes += sent
        return sent

    @property
    def segments(self):
        """Segments with data that the kernel has sent; None where it does not say."""
        return _tcp_info(self, _DATA_SEGS_OUT)


def segments_received(sock):
    """Segments with data that have come in; None where the kernel does not say."""
    return _tcp_info(sock, _DATA_SEGS_IN)


def _tcp_info(sock, place):
    if not hasattr(socket, "TCP_INFO"):
        return None
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return struct.unpack_from("I", info, place)[0] if len(info) >= place + 4 else None


# --- statistics ---


def median(values):
    return statistics.median(values)


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self):
        self._started = time.perf_counter()

    @property
    def ms(self):
        return self.s * 1000

    @property
    def s(self):
        return time.perf_counter() - self._started


@contextlib.contextmanager
def memory_trace():
    """Trace allocations; gives a function: bytes that the library and MiniMQTT hold now.

    The server is in this process too, so what neither has a part in is left out.
    """
    modules = (tb_device_mqtt, minimqtt, adafruit_connection_manager)
    filters = [tracemalloc.Filter(True, module.__file__, all_frames=True) for module in modules]

    def held_bytes():
        gc.collect()
        return sum(t.size for t in tracemalloc.take_snapshot().filter_traces(filters).traces)

    tracemalloc.start(_FRAMES)
    try:
        yield held_bytes
    finally:
        tracemalloc.stop()
