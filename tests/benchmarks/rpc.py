# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Server-side RPC: how long an answer takes, and what happens when many come at once."""

import time

from helpers import run_until

from . import rig
from .tables import Row, Table, exactly

_TIMEOUT_S = 60

# --- rpc_round_trip ---


def rpc_round_trip(calls=1000, runs=3, peer_calls=5):
    """How long does the server wait for the reply to an RPC?"""
    with rig.stand_in() as (server, device), rig.online(server.port, rpc=abs) as client:
        took_ms = [_round_trips_ms(client, device, calls) for _ in range(runs)]
    peer_ms = _peer_round_trips_ms(peer_calls)
    rows = [
        Row("p%d" % percent, rig.median(figures), "ms", peer=rig.percentile(peer_ms, percent))
        for percent, figures in (
            (percent, [rig.percentile(times, percent) for times in took_ms]) for percent in (50, 99)
        )
    ]
    rows.append(Row("longest", max(map(max, took_ms)), "ms", peer=max(peer_ms)))
    return Table(
        rows,
        "Medians of %d runs of %d RPCs, one after the other. MiniMQTT: %d, each answered with "
        "publish(qos=1) in on_message, inside loop()." % (runs, calls, peer_calls),
    )


class _TimedCall:
    """An RPC, and when its reply was there: that may be inside of a long call of the client."""

    def __init__(self, device, params):
        self._watch = rig.Stopwatch()
        self._future = device.call_rpc("echo", params, timeout=_TIMEOUT_S)
        self.took_ms = None
        self._future.add_done_callback(self._note)

    def _note(self, _future):
        self.took_ms = self._watch.ms

    def is_answered(self):
        return self.took_ms is not None


def _round_trips_ms(client, device, calls):
    times = []
    for number in range(calls):
        call = _TimedCall(device, number)
        while not call.is_answered():
            client.check_for_msg()
            time.sleep(0)  # the server's thread is to run
        times.append(call.took_ms)
    return times


def _peer_round_trips_ms(calls):
    def answer(mqtt, topic, _message):
        mqtt.publish(topic.replace("request", "response"), "1", False, 1)

    times = []
    with rig.stand_in() as (server, device), rig.peer(server.port) as mqtt:
        mqtt.on_message = answer
        mqtt.subscribe(rig.RPC_REQUESTS, 1)
        for number in range(calls):
            call = _TimedCall(device, number)
            while not call.is_answered():
                mqtt.loop()
            times.append(call.took_ms)
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
