# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""How long a call keeps the main loop waiting, and how soon a loss is noticed."""

import time
import tracemalloc

from helpers import run_until

from . import drivers, rig
from .tables import LESS, MORE, Column, Comparison, Row, Table, at_most, below

_LONGEST_MS = 50  # any single call, but for an attempt to connect
_NOTICE_MS = 50  # until a close is found
_STEP_S = 0.25  # between two steps of a trouble
_SPIN_MAX_MS = 1
_INTO_THE_POLL_S = 0.3
# umqtt.robust connects again inside of its methods, and tells nobody.
_NOTICING = drivers.PEERS

# --- idle ---


def idle(polls=20000, seconds=4, peers=drivers.PEERS):
    """What does a poll cost while nothing happens?"""

    def question(driver):
        with rig.stand_in() as (server, _device):
            driver.open(server.port, serves=True)
            seen = driver.do("idle", calls=polls, seconds=seconds, timeout=4 * seconds + 10)
        return {None: seen["text"]} if "text" in seen else seen

    answers, left_out = drivers.ask(peers, question)
    with rig.stand_in() as (server, _device), rig.online(server.port, rpc=abs) as client:
        peak_bytes = _peak_bytes(client, polls // 10)
        left_bytes = _left_bytes(client, polls)
    return Comparison(
        "idle",
        "How long an idle call of the main loop takes",
        LESS,
        [Column("median", "us", below(10)), Column("p99", "us", below(100))],
        answers,
        "%d calls, or as many as there are in %d s, connected and subscribed to RPCs. Of MiniMQTT "
        "and the CircuitPython SDK it is loop() with its default timeout, of paho-mqtt loop(0) "
        "without its thread, of umqtt check_msg(). MicroPython tells whole microseconds."
        % (polls, seconds),
        left_out=left_out,
        rows=[
            Row("most bytes held during a poll", peak_bytes, "B"),
            Row("bytes left by all polls together", left_bytes, "B", at_most(1024)),
        ],
    )


def _peak_bytes(client, polls):
    """Median of the most that was allocated at any moment of a poll."""
    peaks = []
    tracemalloc.start()
    for _ in range(polls):
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        client.check_for_msg()
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    return rig.median(peaks)


def _left_bytes(client, polls):
    with rig.memory_trace() as held_bytes:
        client.check_for_msg()
        before = held_bytes()
        for _ in range(polls):
            client.check_for_msg()
        return held_bytes() - before


# --- animation ---


def animation(seconds=1.5, peers=(drivers.NOBODY, *drivers.PEERS)):
    """How fast does an animation run beside a client that is connected?"""

    def question(driver):
        with rig.stand_in() as (server, _device):
            driver.open(server.port, serves=True)
            return driver.do("animate", seconds=seconds, timeout=seconds + 10)

    with_itself = (*peers, drivers.NOBODY_ON_MICROPYTHON)
    answers, left_out = drivers.ask(with_itself if len(peers) > 2 else peers, question)
    return Comparison(
        "animation",
        "Passes of a main loop beside a client",
        MORE,
        [
            Column("rate", "/s"),
            Column("longest", "ms", is_pictured=False),
        ],
        answers,
        "One pass computes 30 pixels and polls the client once; without a poll where a thread does "
        "the work. The longest is the longest time from one pass to the next, within %g s: on a "
        "busy machine that is the machine's doing." % seconds,
        left_out=left_out,
    )


# --- longest_call ---


def longest_call(seconds=3, runs=3, peer_timeout_s=10):
    """How long can a single call take while the server is late, silent, piecemeal or killed?"""
    rows = []
    for name, trouble in _TROUBLES.items():
        calls = [_suffer(trouble, seconds) for _ in range(runs)]
        worst = max(calls, key=lambda each: each.longest_ms)
        beside = {
            "median": rig.median([each.longest_ms for each in calls]),
            "empty loop": max(each.noise_ms for each in calls),
            "connecting": max(each.attempt_ms for each in calls),
            "which call": worst.longest_name,
        }
        peer_ms = _peer_suffer(trouble, peer_timeout_s)
        rows.append(Row(name, worst.longest_ms, "ms", at_most(_LONGEST_MS), peer_ms, beside))
    return Table(
        rows,
        "Longest of %d runs of %g s with telemetry, attributes, requests and RPCs; beside it the "
        "median of the runs, and apart the attempts to connect. The empty loop runs behind "
        "each call for as long as that took: what it is late by is the machine's doing. MiniMQTT: "
        "loop() and publish(qos=1), recv_timeout %g s." % (runs, seconds, peer_timeout_s),
    )


def _late(server):
    server.faults.delay = 0.1
    yield


def _silent(server):
    server.faults.silent = True
    yield


def _piecemeal(server):
    server.faults.chunk = 1
    yield


def _killed_with_fin(server):
    yield from _killed(server, False)


def _killed_with_rst(server):
    yield from _killed(server, True)


def _killed(server, rst):
    while True:
        server.stop_listening(rst)
        yield
        server.listen_again()
        yield


_TROUBLES = {  # each a generator, moved on again and again
    "100 ms late": _late,
    "silent": _silent,
    "1-byte pieces": _piecemeal,
    "killed with FIN": _killed_with_fin,
    "killed with RST": _killed_with_rst,
}


class Calls:
    """Calls methods and keeps the longest time that one took."""

    longest_ms = attempt_ms = noise_ms = steps = 0
    longest_name = "nothing"

    def __init__(self, client):
        self._client = client

    def call(self, method, *arguments, **options):
        attempts = self._client.stats["connects"]
        watch = rig.Stopwatch()
        result = method(*arguments, **options)
        took_ms = watch.ms
        if self._client.stats["connects"] != attempts:
            self.attempt_ms = max(self.attempt_ms, took_ms)
        elif took_ms > self.longest_ms:
            self.longest_ms, self.longest_name = took_ms, method.__name__
        self.noise_ms = max(self.noise_ms, _empty_loop_ms(took_ms))
        return result


def _empty_loop_ms(like_ms):
    """By how much a loop that does nothing for as long is late."""
    aim_ms = min(like_ms, _SPIN_MAX_MS)
    watch = rig.Stopwatch()
    while watch.ms < aim_ms:
        pass
    return watch.ms - aim_ms


def _suffer(trouble, seconds):
    options = {"rpc": abs, "keep_alive": 2}
    with rig.stand_in() as (server, device), rig.online(server.port, **options) as client:
        client.request_timeout = 0.5
        client._link.backoff_ms = 20
        calls = Calls(client)
        steps = trouble(server)
        watch = rig.Stopwatch()
        for count in _rounds(watch, seconds):
            if watch.s >= calls.steps * _STEP_S:
                calls.steps += 1
                next(steps, None)
            _use(calls, client, device, count)
    return calls


def _rounds(watch, seconds):
    count = 0
    while watch.s < seconds:
        yield count
        count += 1
        time.sleep(0.001)


def _use(calls, client, device, count):
    """One pass of a main loop that uses everything."""
    calls.call(client.check_for_msg)
    if count % 10 == 0:
        calls.call(client.send_telemetry, rig.reading(count))
        calls.call(client.is_connected)
    if count % 100 == 0:
        calls.call(client.send_attributes, {"count": count})
        calls.call(client.request_attributes, "count")
        calls.call(client.send_rpc_call, "getTime")
        device.push_rpc("echo", count)


def _peer_suffer(trouble, timeout_s):
    """The longest call of MiniMQTT; after its first exception there is no more to measure."""
    longest_ms = 0
    options = _peer_timeouts(timeout_s)
    with rig.stand_in() as (server, _device), rig.peer(server.port, **options) as mqtt:
        steps = trouble(server)
        next(steps)
        calls = ((mqtt.loop,), (mqtt.publish, rig.TELEMETRY, rig.payload(0), False, 1))
        for method, *arguments in calls:
            watch = rig.Stopwatch()
            try:
                method(*arguments)
            except rig.PEER_ERRORS:
                break
            finally:
                longest_ms = max(longest_ms, watch.ms)
    return longest_ms


def _peer_timeouts(recv_timeout_s):
    """MiniMQTT wants the first to be the longer one; 10 and 1 are its own."""
    return {"recv_timeout": recv_timeout_s, "socket_timeout": min(1, recv_timeout_s / 2)}


# --- notice ---


def notice(runs=20, silences=3, keep_alive=4, patience_s=12, peers=_NOTICING):
    """How soon is a connection that is gone noticed?"""
    rows = []
    for name, rst in (("FIN", False), ("RST", True)):
        took_ms = [_notice_close_ms(rst) for _ in range(runs)]
        budget, beside = at_most(_NOTICE_MS), {"median": rig.median(took_ms)}
        rows.append(Row(name + ", longest", max(took_ms), "ms", budget, beside=beside))
    for name, quality_of_service in (("idle", None), ("while sending QoS 0", 0)):
        took_ms = [_notice_silence_ms(keep_alive, quality_of_service) for _ in range(silences)]
        budget, beside = at_most(keep_alive * 1000), {"median": rig.median(took_ms)}
        rows.append(Row("silence, %s, longest" % name, max(took_ms), "ms", budget, beside=beside))
    answers, left_out = _notice_all(keep_alive, patience_s, peers)
    return Comparison(
        "notice",
        "Until a lost connection is noticed",
        LESS,
        [Column(name, "ms") for name in _LOSSES],
        answers,
        "Above, once each: polls with a pause of 1 ms, keep-alive %d s where it can be set, until "
        "the client says that it is not connected, or raises; all at the same time. umqtt leaves "
        "pings to the program, which sends them. Below: %d closed connections each, %d silences "
        "each, until `connected` is False." % (keep_alive, runs, silences),
        left_out=left_out,
        rows=rows,
    )


_LOSSES = ("FIN", "RST", "silence")


def _notice_all(keep_alive, patience_s, peers):
    """Each loss of each client, one loss at a time."""
    answers = {peer.name: {} for peer in peers}
    for loss in _LOSSES:

        def question(driver, loss=loss):
            return {loss: _lose(driver, loss, keep_alive, patience_s)}

        seen, left_out = drivers.ask(peers, question, together=True)
        for name, answer in seen.items():
            answers[name][loss] = answer.get(loss, answer.get(None))
    return {name: answer for name, answer in answers.items() if answer}, left_out


def _lose(driver, loss, keep_alive, patience_s):
    """Milliseconds, or words."""
    with rig.stand_in() as (server, device):
        driver.open(server.port, keep_alive=keep_alive)
        driver.start("notice", seconds=patience_s)
        time.sleep(_INTO_THE_POLL_S)
        watch = rig.Stopwatch()
        if loss == "silence":
            server.faults.silent = True
        else:
            device.disconnect(rst=loss == "RST")
        # A call that blocks may end long after the time is over.
        if driver.answer(patience_s + 12)["noticed"]:
            return watch.ms
        return "not within %g s" % patience_s


def _notice_close_ms(rst):
    with rig.stand_in() as (server, device), rig.online(server.port) as client:
        watch = rig.Stopwatch()
        device.disconnect(rst)
        run_until(client, lambda: not client.connected)
        return watch.ms


def _notice_silence_ms(keep_alive, quality_of_service):
    options = {"keep_alive": keep_alive}
    with rig.stand_in() as (server, _device), rig.online(server.port, **options) as client:

        def is_noticed():
            if quality_of_service is not None and client.connected:
                client.send_telemetry(rig.reading(0), quality_of_service)
            return not client.connected

        client.send_telemetry(rig.reading(0))  # silence is noticed last behind an answer
        run_until(client, lambda: not client.pending_messages_count)
        server.faults.silent = True
        watch = rig.Stopwatch()
        run_until(client, is_noticed, timeout=keep_alive * 10)
        return watch.ms
