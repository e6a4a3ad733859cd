# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Whether what was handed over arrives, although the connection does not stay."""

import random
import time

from faults.proxy import FIN, RST, FaultProxy
from helpers import run_until

from . import rig
from .tables import Row, Table, exactly

_BACKOFF_MS = 20
_IN_HAND = 32  # messages that the main loop keeps under way
_TO_SERVER_BYTES = 60  # roughly, of a message: so the cuts fall all over the run
_TO_CLIENT_BYTES = 4
_END_S = 300

# --- cuts ---


def cuts(messages=5000, cuts=50, runs=3):
    """What arrives over a link that is cut again and again, at any byte?"""
    seen = [_send_over_cuts(messages, cuts, seed) for seed in range(runs)]
    return Table(
        [
            Row("lost", max(each.lost for each in seen), "", exactly(0)),
            Row("first arrivals in order", all(each.in_order for each in seen), "", exactly(True)),
            Row("reported as dropped", max(each.dropped for each in seen), "", exactly(0)),
            Row("connections cut", rig.median([each.cut for each in seen])),
            Row("duplicates", rig.median([each.duplicates for each in seen])),
            Row("time", rig.median([each.took_s for each in seen]), "s"),
        ],
        "%d messages of QoS 1 and %d cuts with FIN or RST behind random bytes of both directions. "
        "Worst (lost, order, dropped) or median of %d runs, seeds 0 to %d."
        % (messages, cuts, runs, runs - 1),
    )


class _Seen:
    """What became of one run."""

    def __init__(self, numbers, messages):
        firsts = list(dict.fromkeys(numbers))
        self.lost = len(set(range(messages)) - set(firsts))
        self.in_order = firsts == sorted(firsts)
        self.duplicates = len(numbers) - len(firsts)


def _send_over_cuts(messages, cuts, seed):
    with rig.stand_in() as (server, device), FaultProxy(server.port) as proxy:
        client = rig.new_client(proxy.port)
        client._link.backoff_ms = _BACKOFF_MS
        _lay_out(proxy, messages, cuts, random.Random(seed))
        watch = rig.Stopwatch()
        client.connect(timeout=0)
        for number in range(messages):
            run_until(client, lambda: client.pending_messages_count < _IN_HAND, _END_S)
            client.send_telemetry(rig.reading(number))
        client.flush(_END_S)
        took_s = watch.s
        client.disconnect()
        seen = _Seen([row["n"] for _, row in device.telemetry], messages)
        seen.took_s, seen.dropped = took_s, client.stats["dropped"]
        seen.cut = proxy.accepted - 1
    return seen


def _lay_out(proxy, messages, cuts, chance):
    for count in range(cuts):
        direction, size = (
            (proxy.to_client, _TO_CLIENT_BYTES)
            if count % 2
            else (proxy.to_server, _TO_SERVER_BYTES)
        )
        direction.cut(after=chance.randrange(messages * size), how=chance.choice((FIN, RST)))


# --- outage ---


def outage(readings=60, interval_s=1.0):
    """What arrives of the readings that are taken while the server is down, and of which time?"""
    taken = {}  # number: ms since 1970
    with rig.stand_in() as (server, device), rig.online(server.port) as client:
        server.stop_listening()
        started = time.monotonic()
        for number in range(readings):
            run_until(client, lambda n=number: time.monotonic() >= started + n * interval_s, _END_S)
            taken[number] = int(time.time() * 1000)
            client.send_telemetry(rig.reading(number))
        end = started + readings * interval_s
        run_until(client, lambda: time.monotonic() >= end, _END_S)
        server.listen_again()
        watch = rig.Stopwatch()
        client.flush(_END_S)
        took_s = watch.s
        device.wait(lambda d: len(d.telemetry) >= readings)
        arrived = {row["n"]: ts for ts, row in device.telemetry}
        packets = sum(topic == rig.TELEMETRY for topic, *_ in device.messages)
    differences = [abs(arrived[number] - taken[number]) for number in arrived]
    return Table(
        [
            Row("arrived", len(arrived), "", exactly(readings)),
            Row("worst difference of their times", max(differences, default=None), "ms"),
            Row("packets that they took", packets),
            Row("all there after the server was back", took_s, "s"),
        ],
        "Server down for %g s, %d readings without a time of their own. The pauses between "
        "attempts are the usual ones: they grow from 1 s to 60 s."
        % (readings * interval_s, readings),
    )
