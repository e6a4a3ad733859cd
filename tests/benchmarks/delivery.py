# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Whether what was handed over arrives, although the connection does not stay."""

import random
import time

from faults.proxy import FIN, RST, FaultProxy
from helpers import run_until

from . import drivers, rig
from .tables import MORE, Column, Comparison, Row, Table, exactly

_BACKOFF_MS = 20
_IN_HAND = 32  # messages that the main loop keeps under way
_TO_SERVER_BYTES = 60  # roughly, of a message: so the cuts fall all over the run
_TO_CLIENT_BYTES = 4
_END_S = 300
_ARRIVE_S = 0.5  # for what was sent last without an acknowledgement
_DELIVERING = (*drivers.PEERS, drivers.UMQTT_ROBUST)

# --- cuts ---


def cuts(messages=5000, cuts=50, runs=3, peer_messages=250, deadline_s=15, peers=_DELIVERING):
    """What arrives over a link that is cut again and again, at any byte?"""
    seen = [_send_over_cuts(messages, cuts, seed) for seed in range(runs)]

    def question(driver):
        return _deliver(driver, peer_messages, cuts, deadline_s)

    answers, left_out = drivers.ask(peers, question)
    return Comparison(
        "cuts",
        "Of %d messages over %d cuts, those that arrive within %d s"
        % (peer_messages, cuts, deadline_s),
        MORE,
        [
            Column("arrived", budget=exactly(peer_messages)),
            Column("lost", budget=exactly(0), is_pictured=False),
            Column("duplicates", is_pictured=False),
            Column("connected again", is_pictured=False),
            Column("time", "s", is_pictured=False),
        ],
        answers,
        "Above: %d messages of QoS 1 (the CircuitPython SDK sends QoS 0), one every 4 ms or "
        "slower, and %d cuts with RST, which nobody overlooks, behind random bytes of both "
        "directions. What a call refuses by raising is sent again; lost is what is missing among "
        "those before the last that arrived, or of all. Pauses between attempts to connect are set "
        "to some 20 ms where that can be done. Who is not ready after %d s is ended."
        % (peer_messages, cuts, deadline_s),
        "Below: %d messages, cuts with FIN or RST. Worst (lost, order, dropped) or median of %d "
        "runs, seeds 0 to %d." % (messages, runs, runs - 1),
        left_out=left_out,
        rows=[
            Row("lost", max(each.lost for each in seen), "", exactly(0)),
            Row("first arrivals in order", all(each.in_order for each in seen), "", exactly(True)),
            Row("reported as dropped", max(each.dropped for each in seen), "", exactly(0)),
            Row("connections cut", rig.median([each.cut for each in seen])),
            Row("duplicates", rig.median([each.duplicates for each in seen])),
            Row("time", rig.median([each.took_s for each in seen]), "s"),
        ],
    )


def _deliver(driver, messages, cuts, deadline_s):
    with rig.stand_in() as (server, device), FaultProxy(server.port) as proxy:
        driver.open(proxy.port)
        _lay_out(proxy, messages, cuts, random.Random(0), (RST,))
        watch = rig.Stopwatch()
        failure = None
        try:
            driver.do("deliver", messages=messages, timeout=deadline_s)
        except drivers.Failed as failed:
            failure = str(failed)
        took_s = watch.s
        device.wait(lambda d: len({row["n"] for _, row in d.telemetry}) == messages, _ARRIVE_S)
        numbers = [row["n"] for _, row in device.telemetry]
    arrived = set(numbers)
    sent = messages if failure is None else max(arrived, default=0)
    return {
        "arrived": len(arrived),
        "lost": sent - len(arrived & set(range(sent))),
        "duplicates": len(numbers) - len(arrived),
        "connected again": proxy.accepted - 1,
        "time": took_s if failure is None else failure,
    }


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


def _lay_out(proxy, messages, cuts, chance, ways=(FIN, RST)):
    for count in range(cuts):
        direction, size = (
            (proxy.to_client, _TO_CLIENT_BYTES)
            if count % 2
            else (proxy.to_server, _TO_SERVER_BYTES)
        )
        direction.cut(after=chance.randrange(messages * size), how=chance.choice(ways))


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
