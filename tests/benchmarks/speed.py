# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Messages per second, the first one, and what one costs on the wire."""

import contextlib
import tempfile
import time
from pathlib import Path

from faults.proxy import FaultProxy
from helpers import wait_until
from local_server import LocalServer

from . import drivers, rig
from .tables import LESS, MORE, Column, Comparison, Row, above, at_most, exactly

_SLOW_MS = 80
_LINKS = [(qos, round_trip_ms) for qos in (1, 0) for round_trip_ms in (0, 20, _SLOW_MS)]
_RATE = 80  # messages a second at QoS 1 over the slow link
_RATIO = 5  # of that to MiniMQTT's
_KEPT = 32  # messages that the server remembers
_TIMEOUT_S = 60
_ARRIVE_S = 20  # QoS 0: until the server has taken all of what was sent so fast

# --- rate ---


def rate(seconds=1.0, links=_LINKS, peers=(*drivers.PEERS, drivers.MINIMQTT_NO_DELAY)):
    """How many telemetry messages a second go through, over which round trip?"""

    def question(driver):
        return {_link_name(*link): drivers.attempt(_rate, driver, *link, seconds) for link in links}

    answers, left_out = drivers.ask(peers, question)
    return Comparison(
        "rate",
        "Telemetry messages a second",
        MORE,
        [Column(_link_name(*link), "/s", is_pictured=link[0] == 1) for link in links],
        answers,
        "What is sent in %g s, until all is acknowledged; at QoS 0, until it has arrived. To a "
        "client that does not wait for each message up to 32 are handed over. MiniMQTT leaves "
        "Nagle's algorithm on and sends a packet in pieces: TCP_NODELAY set for it from outside "
        "shows the rest of the difference. Server and proxy share an interpreter, which limits the "
        "fastest." % seconds,
        left_out=left_out,
        rows=_rate_budgets(answers),
    )


def _link_name(qos, round_trip_ms):
    return "QoS %d, %d ms" % (qos, round_trip_ms)


def _rate_budgets(answers):
    name = _link_name(1, _SLOW_MS)
    ours, *others = (
        answers.get(peer.name, {}).get(name)
        for peer in (drivers.OURS, drivers.MINIMQTT, drivers.MINIMQTT_NO_DELAY)
    )
    if ours is None:  # that link was not asked for
        return
    yield Row(name, ours, "/s", above(_RATE))
    for what, other in zip(("MiniMQTT's", "it with TCP_NODELAY"), others):
        if isinstance(ours, float) and isinstance(other, float):
            yield Row("%s, ratio to %s" % (name, what), ours / other, "", above(_RATIO))


def _rate(driver, qos, round_trip_ms, seconds):
    if qos == 1 and driver.peer == drivers.CIRCUITPYTHON_SDK:
        return "QoS 0 alone"
    driver.restart()
    far_s = round_trip_ms / 1000
    with rig.stand_in(keep=_KEPT) as (server, device), _link(server, far_s) as port:
        driver.open(port)
        watch = rig.Stopwatch()
        sent = driver.do("send", seconds=seconds, qos=qos, timeout=seconds + _ARRIVE_S)["sent"]
        try:
            wait_until(
                lambda: [row["n"] for _, row in device.telemetry[-1:]] == [sent - 1], _ARRIVE_S
            )
        except AssertionError:
            raise drivers.Failed("not all arrived in %d s" % _ARRIVE_S) from None
        return sent / watch.s


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


def first_telemetry(runs=5, round_trip_ms=_SLOW_MS, peers=(drivers.OURS_QUEUED, *drivers.PEERS)):
    """How many round trips after the start is the first telemetry acknowledged?"""
    with tempfile.TemporaryDirectory() as folder:
        authority = rig.Authority(Path(folder))

        def question(driver):
            if driver.peer is drivers.CIRCUITPYTHON_SDK:
                return {None: "never: QoS 0"}
            return {
                **_first(driver, "", runs, round_trip_ms / 1000),
                **_first(driver, "TLS, ", runs, round_trip_ms / 1000, authority),
            }

        answers, left_out = drivers.ask(peers, question)
    budgets = ((drivers.OURS_QUEUED, exactly(2)), (drivers.OURS, exactly(3)))
    return Comparison(
        "first_telemetry",
        "From the start to the first telemetry that is acknowledged",
        LESS,
        [
            Column("round trips", is_pictured=False),
            Column("time", "ms"),
            Column("TLS, round trips", is_pictured=False),
            Column("TLS, time", "ms"),
        ],
        answers,
        "Medians of %d runs over a link of %d ms, from the client's making; modules are imported "
        "already. Round trips are counted on the wire, as often as bytes go out after bytes have "
        "come in, and one for TCP's handshake, which the link can't delay: its %d ms are added to "
        "the time." % (runs, round_trip_ms, round_trip_ms),
        left_out=left_out,
        rows=[
            Row(peer.name + ", round trips", answers[peer.name].get("round trips"), "", budget)
            for peer, budget in budgets
            if peer.name in answers
        ],
    )


def _first(driver, name, runs, round_trip_s, authority=None):
    try:
        seen = [_first_once(driver, round_trip_s, authority) for _ in range(runs)]
    except drivers.Failed as failed:
        return {name + "round trips": "", name + "time": str(failed)}
    trips, times = zip(*seen)
    return {name + "round trips": rig.median(trips), name + "time": rig.median(times)}


def _first_once(driver, round_trip_s, authority):
    """(round trips, milliseconds)"""
    driver.restart()
    options = {"ca": authority.path(driver.peer)} if authority else {}
    with LocalServer(ssl_context=authority and authority.context) as server:
        server.add_device("Device A", token=rig.TOKEN)
        with FaultProxy(server.port) as proxy:
            proxy.round_trip(round_trip_s)
            seen = driver.do("first", port=proxy.port, variant=driver.peer.variant, **options)
            ways = [segment.way for segment in list(proxy.transcript)]
            driver.do("close")
            wait_until(lambda: not server.connections, _TIMEOUT_S)
    departures = sum(
        way == "to_server" and (not count or ways[count - 1] != way)
        for count, way in enumerate(ways)
    )
    return 1 + departures, seen["took"] + round_trip_s * 1000


# --- wire ---


_APART_S = 0.003  # readings that leave closer to each other tell their times,
_BURST_S = 1.1  # and once one did, the others do so for a while


def wire(messages=50, peers=(drivers.OURS, drivers.OURS_COMPACT, *drivers.PEERS[1:])):
    """How many send() calls, segments and bytes does a message take?"""
    per_message, for_start = _wire_ours(messages)
    rows = []
    for what, packets, least_bytes, (sends, segments, sent_bytes) in (
        ("telemetry", 1, _least_bytes(rig.payload(messages)), per_message),
        ("connect, subscribe, telemetry", 3, None, for_start),
    ):
        for name, unit, budget, value in (
            ("send() calls", "", exactly(packets), sends),
            ("segments", "", at_most(packets), segments),
            ("bytes", "B", at_most(least_bytes), sent_bytes),
        ):
            is_known = value is not None and budget.limit is not None
            rows.append(Row("%s: %s" % (what, name), value, unit, budget if is_known else None))
    answers, left_out = drivers.ask(peers, lambda driver: _wire(driver, messages))
    return Comparison(
        "wire",
        "Bytes that a telemetry message takes",
        LESS,
        [Column("bytes", "B"), Column("TCP segments", is_pictured=False)],
        answers,
        "Mean of %d messages, each acknowledged before the next is sent, of QoS 1 (the "
        "CircuitPython SDK sends QoS 0): what TCP carries for a reading of two values, as each "
        "client writes it, and segments as the kernel of the receiver counts those with data. "
        "compact=True is ThingsBoard's short topics. Below, one packet is to be one send()."
        % messages,
        left_out=left_out,
        rows=rows,
    )


def _wire(driver, messages):
    with rig.stand_in() as (server, device), FaultProxy(server.port) as proxy:
        driver.open(proxy.port)
        _send_one(driver, device)
        before = _received(proxy)
        for _ in range(messages):
            _send_one(driver, device)
        sent_bytes, segments = _means(before, _received(proxy), messages)
    return {"bytes": sent_bytes, "TCP segments": segments}


def _send_one(driver, device):
    """Until it is acknowledged, and at QoS 0 has arrived."""
    before = len(device.messages)
    driver.do("send_one", qos=1)
    wait_until(lambda: len(device.messages) > before, _TIMEOUT_S)


def _received(proxy):
    """(bytes, segments) from the client."""
    (sock,) = proxy.client_sockets
    return len(proxy.received()), rig.segments_received(sock)


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
        time.sleep(_BURST_S)
        for _ in range(messages):
            time.sleep(_APART_S)
            client.send_telemetry(rig.reading(messages))
            client.flush(_TIMEOUT_S)
        end = _counts(pool)
        client.disconnect()
    return _means(start, end, messages), start
