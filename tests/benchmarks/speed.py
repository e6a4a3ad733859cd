# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Messages per second, and what one costs on the wire."""

import contextlib
import json
import socket
import time

from faults.proxy import FaultProxy
from helpers import wait_until

from . import rig
from .tables import Row, Table, above, at_most, exactly

_ROUND_TRIPS_MS = (0, 20, 80)
_SLOW_MS = 80
_RATE = 80  # messages a second at QoS 1 over the slow link
_RATIO = 5  # of that to MiniMQTT's
_IN_HAND = 32
_TIMEOUT_S = 60

# --- rate ---


def rate(seconds=1.0, runs=3):
    """How many telemetry messages a second go through, over which round trip?"""
    rows = []
    for quality_of_service in (1, 0):
        for round_trip_ms in _ROUND_TRIPS_MS:
            rows += _rate_rows(quality_of_service, round_trip_ms, seconds, runs)
    return Table(
        rows,
        "Medians of %d runs of %g s and until all has been acknowledged (QoS 0: has arrived). "
        "MiniMQTT: publish() with the same payload; it leaves Nagle's algorithm on and sends a "
        "packet in pieces, so TCP_NODELAY set for it from outside shows the rest of the difference."
        % (runs, seconds),
    )


def _rate_rows(quality_of_service, round_trip_ms, seconds, runs):
    def rate_of(side):
        return rig.median(
            [_rate(side, quality_of_service, round_trip_ms, seconds) for _ in range(runs)]
        )

    ours, peer, no_delay = map(rate_of, (_Ours, _Peer, _NoDelayPeer))
    is_slow = quality_of_service == 1 and round_trip_ms == _SLOW_MS
    name = "QoS %d, %d ms" % (quality_of_service, round_trip_ms)
    beside = {"with TCP_NODELAY": no_delay}
    budget = above(_RATE) if is_slow else None
    yield Row(name, ours, "/s", budget, peer, beside)
    if is_slow:
        yield Row(name + ", ratio to MiniMQTT's", ours / peer, "", above(_RATIO))
        ratio = ours / no_delay
        yield Row(name + ", ratio to it with TCP_NODELAY", ratio, "", above(_RATIO))


class _Ours:
    """Telemetry from a main loop that always has some more."""

    def __init__(self, port, quality_of_service, pause_s):
        self._client = rig.new_client(port, quality_of_service=quality_of_service)
        self._pause_s = pause_s
        self._client.connect()
        rig.settle(self._client)

    def send(self, number):
        while self._client.pending_messages_count >= _IN_HAND:
            self._client.check_for_msg()
            time.sleep(self._pause_s)
        self._client.send_telemetry(rig.reading(number))

    def finish(self):
        self._client.flush(_TIMEOUT_S)

    def close(self):
        self._client.disconnect()


class _Peer:
    socket_class = socket.socket

    def __init__(self, port, quality_of_service, _pause_s):
        self._mqtt = rig.new_peer(port, rig.Pool(self.socket_class))
        self._quality_of_service = quality_of_service
        self._mqtt.connect()

    def send(self, number):
        self._mqtt.publish(rig.TELEMETRY, rig.payload(number), False, self._quality_of_service)

    def finish(self):
        pass

    def close(self):
        self._mqtt.disconnect()


class _NoDelayPeer(_Peer):
    socket_class = rig.NoDelaySocket


def _rate(side, quality_of_service, round_trip_ms, seconds):
    far_s = round_trip_ms / 1000
    with rig.stand_in(keep=_IN_HAND) as (server, device), _link(server, far_s) as port:
        sender = side(port, quality_of_service, far_s / 100)
        sent = 0
        watch = rig.Stopwatch()
        while watch.s < seconds:
            sender.send(sent)
            sent += 1
        sender.finish()
        last = b'"n":%d,' % (sent - 1)
        wait_until(lambda: any(last in m[1] for m in device.messages[-1:]), _TIMEOUT_S)
        took_s = watch.s
        sender.close()
    return sent / took_s


@contextlib.contextmanager
def _link(server, round_trip_s):
    """A port that leads to the server, so far away."""
    if not round_trip_s:
        yield server.port
        return
    with FaultProxy(server.port) as proxy:
        proxy.round_trip(round_trip_s)
        yield proxy.port


# --- first_telemetry ---


def first_telemetry(runs=5, round_trip_ms=_SLOW_MS):
    """How many round trips after the start is the first telemetry acknowledged?"""
    rows = []
    for name, send, budget in (
        ("queued before connect()", _queue_then_connect, exactly(2)),
        ("sent after connect()", _connect_then_send, exactly(3)),
        ("MiniMQTT, connect() and publish()", _peer_connect_then_send, None),
    ):
        seen = [_first(send, round_trip_ms / 1000) for _ in range(runs)]
        trips = rig.median([trips for trips, _ in seen])
        took_ms = rig.median([took_ms for _, took_ms in seen])
        if budget is None:
            rows += [Row(name, None, peer=trips), Row("- time", None, "ms", peer=took_ms)]
        else:
            rows += [Row(name, trips, "", budget), Row("- time", took_ms, "ms")]
    return Table(
        rows,
        "Medians of %d runs over a link of %d ms, TCP's handshake included: counted as one round "
        "trip, and connect() of the socket takes that long. The others are counted on the wire: "
        "as often as bytes go out after bytes have come in." % (runs, round_trip_ms),
    )


def _slow_socket(round_trip_s):
    class SlowSocket(socket.socket):
        """The proxy can't delay TCP's handshake: the kernel answers it."""

        def connect(self, address):
            time.sleep(round_trip_s)
            super().connect(address)

    return SlowSocket


def _first(send, round_trip_s):
    """(round trips, milliseconds)"""
    with rig.stand_in() as (server, _device), _proxy(server, round_trip_s) as proxy:
        watch = rig.Stopwatch()
        close = send(proxy.port, rig.Pool(_slow_socket(round_trip_s)))
        took_ms = watch.ms
        ways = [segment.way for segment in list(proxy.transcript)]
        close()
    departures = sum(
        way == "to_server" and (not count or ways[count - 1] != way)
        for count, way in enumerate(ways)
    )
    return 1 + departures, took_ms


@contextlib.contextmanager
def _proxy(server, round_trip_s):
    with FaultProxy(server.port) as proxy:
        proxy.round_trip(round_trip_s)
        yield proxy


def _queue_then_connect(port, pool):
    client = rig.new_client(port, socket_pool=pool)
    client.send_telemetry(rig.reading(0))
    client.connect()
    client.flush(_TIMEOUT_S)
    return client.disconnect


def _connect_then_send(port, pool):
    client = rig.new_client(port, socket_pool=pool)
    client.connect()
    client.send_telemetry(rig.reading(0))
    client.flush(_TIMEOUT_S)
    return client.disconnect


def _peer_connect_then_send(port, pool):
    mqtt = rig.new_peer(port, pool)
    mqtt.connect()
    mqtt.publish(rig.TELEMETRY, rig.payload(0), False, 1)
    return mqtt.disconnect


# --- wire ---


def wire(messages=50):
    """How many send() calls, segments and bytes does a message take?"""
    ours, peer = _wire_ours(messages), _wire_peer(messages)
    least = _least_bytes(rig.payload(messages))
    rows = []
    for count, (what, packets, least_bytes) in enumerate(
        (("telemetry", 1, least), ("connect, subscribe, telemetry", 3, None))
    ):
        for name, unit, budget, mine, other in (
            ("send() calls", "", exactly(packets), ours[count][0], peer[count][0]),
            ("segments", "", at_most(packets), ours[count][1], peer[count][1]),
            ("bytes", "B", at_most(least_bytes), ours[count][2], peer[count][2]),
        ):
            is_known = mine is not None and budget.limit is not None
            rows.append(
                Row("%s: %s" % (what, name), mine, unit, budget if is_known else None, other)
            )
    return Table(
        rows,
        "Mean of %d messages of QoS 1, each acknowledged before the next is sent, of %d bytes of "
        "payload; one packet is to be one send(). Segments as the kernel counts those with data, "
        "bytes as given to send(). Telemetry that was queued before connect() tells its time: 30 "
        "bytes more." % (messages, len(rig.payload(messages))),
    )


def _least_bytes(payload):
    """MQTT 3.1.1: fixed header, topic with its length, packet identifier, payload."""
    return 2 + 2 + len(rig.TELEMETRY) + 2 + len(payload)


def _counts(pool):
    (used,) = pool.open
    return used.sends, used.segments, used.sent_bytes


def _means(before, after, messages):
    return [
        None if old is None or new is None else (new - old) / messages
        for old, new in zip(before, after)
    ]


def _wire_ours(messages):
    """(per telemetry message, for the start): send() calls, segments, bytes."""
    pool = rig.Pool(rig.CountingSocket)
    with rig.stand_in() as (server, _device):
        client = rig.new_client(server.port, socket_pool=pool)
        client.rpc("echo")(abs)
        client.send_telemetry(rig.reading(messages))
        client.connect()
        rig.settle(client)
        start = _counts(pool)
        for _ in range(messages):
            client.send_telemetry(rig.reading(messages))
            client.flush(_TIMEOUT_S)
        end = _counts(pool)
        client.disconnect()
    return _means(start, end, messages), start


def _wire_peer(messages):
    pool = rig.Pool(rig.CountingSocket)
    payload = json.dumps(rig.reading(messages), separators=(",", ":"))
    with rig.stand_in() as (server, _device), rig.peer(server.port, pool=pool) as mqtt:
        mqtt.subscribe(rig.RPC_REQUESTS, 1)
        mqtt.publish(rig.TELEMETRY, payload, False, 1)
        start = _counts(pool)
        for _ in range(messages):
            mqtt.publish(rig.TELEMETRY, payload, False, 1)
        end = _counts(pool)
    return _means(start, end, messages), start
