# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Server-side RPC: how long an answer takes, and what happens when many come at once."""

import time

from helpers import run_until

from . import drivers, rig
from .tables import LESS, Column, Comparison, Row, Table, exactly

_TIMEOUT_S = 60
_LAST_S = 0.2  # a device still answers when the last RPC has come

# --- rpc_round_trip ---


def rpc_round_trip(seconds=3, peers=drivers.PEERS):
    """How long does the server wait for the reply to an RPC?"""

    def question(driver):
        with rig.stand_in() as (server, device):
            driver.open(server.port, serves=True)
            driver.start("serve", seconds=seconds)
            took_ms = _round_trips_ms(device, seconds - _LAST_S)
            driver.answer(seconds + 10)
        if not took_ms:
            return {None: "no reply in %g s" % seconds}
        percents = {"p%d" % percent: rig.percentile(took_ms, percent) for percent in (50, 99)}
        return {**percents, "longest": max(took_ms), "RPCs": len(took_ms)}

    answers, left_out = drivers.ask(peers, question)
    return Comparison(
        "rpc_round_trip",
        "From an RPC of the server to the reply of the device",
        LESS,
        [
            Column("p50", "ms"),
            Column("p99", "ms"),
            Column("longest", "ms", is_pictured=False),
            Column("RPCs", is_pictured=False),
        ],
        answers,
        "RPCs one after the other for %g s, answered with QoS 1." % (seconds - _LAST_S),
        left_out=left_out,
    )


def _round_trips_ms(device, seconds):
    """Of one RPC after the other; the last may have no reply."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch = rig.Stopwatch()
        try:
            device.rpc("echo", len(times), timeout=max(0.01, end + _LAST_S - time.monotonic()))
        except TimeoutError:
            break
        times.append(watch.ms)
    return times


# --- rpc_burst ---


def rpc_burst(rpcs=60):
    """Are RPCs that come all at once answered, although each handler sends three messages?"""
    handled = _Handler()
    with rig.stand_in() as (server, device):
        with rig.online(server.port, queue_size=4 * rpcs, queue_bytes=1 << 20) as client:
            client.rpc("busy")(handled.bind(client))
            rig.settle(client)
            watch = rig.Stopwatch()
            futures = [device.call_rpc("busy", n, timeout=_TIMEOUT_S) for n in range(rpcs)]
            run_until(client, lambda: all(future.done() for future in futures), _TIMEOUT_S)
            took_ms = watch.ms
            run_until(client, lambda: len(handled.attributes) == rpcs, _TIMEOUT_S)
            rig.settle(client)
            dropped = client.stats["dropped"]
        answered = sum(future.result() == number for number, future in enumerate(futures))
        arrived = len({row["n"] for _, row in device.telemetry})
    return Table(
        [
            Row("answered", answered, "", exactly(rpcs)),
            Row("telemetry arrived", arrived, "", exactly(rpcs)),
            Row("attribute requests answered", len(handled.attributes), "", exactly(rpcs)),
            Row("dropped", dropped, "", exactly(0)),
            Row("handlers at work at the same time", handled.deepest, "", exactly(1)),
            Row("until the last reply", took_ms, "ms"),
        ],
        "%d RPCs in one go; each handler sends telemetry, asks for attributes, polls, and returns "
        "its reply." % rpcs,
    )


class _Handler:
    """What an RPC does; *deepest*: how many of it were at work at the same time."""

    def __init__(self):
        self.attributes = []
        self.deepest = self._depth = 0

    def bind(self, client):
        def busy(number):
            self._depth += 1
            self.deepest = max(self.deepest, self._depth)
            client.send_telemetry(rig.reading(number))
            client.request_attributes(callback=self._on_attributes)
            client.check_for_msg()
            self._depth -= 1
            return number

        return busy

    def _on_attributes(self, result, error):
        if error is None:
            self.attributes.append(result)
