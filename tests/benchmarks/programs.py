# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What becomes of the readings of programs as people write them, which do not all poll and wait."""

import functools
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

from . import drivers, pictures, rig
from .tables import LESS, Column, Comparison, Group, Row, exactly

_PEERS = (
    drivers.OURS,
    drivers.MINIMQTT,
    drivers.MINIMQTT_QOS_0,
    drivers.CIRCUITPYTHON_SDK,
    drivers.PYTHON_SDK,
    drivers.PAHO,
    drivers.PAHO_QOS_0,
    drivers.CHUMICRO,
    drivers.OURS_ON_MICROPYTHON,
    drivers.UMQTT_SIMPLE,
    drivers.UMQTT_ROBUST,
)
_SILENT = "lost in silence"
_VISIT = 4  # readings of a program that leaves at once
_MESSAGE_S = 0.002  # that the server takes for each of those
_BEFORE, _AFTER = 0.4, 0.6  # an outage, in times of its own length
_EVERY_S = 0.1  # between readings around it
_CALLS_S = 20  # what all calls of a program may take
_LATE_S = 8  # what the last poll around an outage may take
_POLLS_S = 0.3
_EXIT_S = 3
_GONE_S = 1  # for the server to notice that a program is gone


class Sizes(NamedTuple):
    """*rest_s*: between the last call of a program and its end; *settle_s*: of polls, at most."""

    readings: int
    pause_s: float
    rest_s: float
    burst: int
    listed: int
    outage_s: float
    settle_s: float


class _Program(NamedTuple):
    """*live*: called with a `_Stage` and `Sizes`; *columns*: beside those of all programs."""

    name: str
    what: str
    live: Callable[..., Any]
    is_tls: bool = False
    columns: tuple = ()


class _Stage:
    """The process of a program, its server, and what was seen of both."""

    def __init__(self, driver, server, device, ca):
        self.driver = driver
        self.server = server
        self.device = device
        self.ca = ca
        self._account = {"taken": [], "told": [], "longest": None}
        self._has_ended = False

    def do(self, step, **arguments):
        self.driver.do(step, timeout=_CALLS_S, **arguments)

    def begin(self, step="begin", **arguments):
        variant = self.driver.peer.variant
        self.do(step, port=self.server.port, ca=self.ca, variant=variant, **arguments)

    def poll_until_settled(self, seconds):
        """Until all is stored or told, but no longer than so."""
        watch = rig.Stopwatch()
        self._look()
        while self.answer()[_SILENT] and watch.s < seconds:
            self.do("poll_for", seconds=_POLLS_S)
            self._look()

    def leave(self, rest_s=0.0):
        """Let the program end as a script does, behind its last line."""
        self._look()
        time.sleep(rest_s)
        self._has_ended = self.driver.end(_EXIT_S)
        self.device.wait(lambda device: not device.online, _GONE_S)

    def _look(self):
        self._account = self.driver.do("account", timeout=_CALLS_S)

    def answer(self):
        """``{heading: value}``, of all columns that there are."""
        rows = self.device.stored("n")
        return {**balance(self._account, rows), "ends by itself": self._has_ended}


def balance(account, rows):
    """What became of the readings of an `account`; *rows*: ``[(ts, number)]``, what is stored."""
    taken = dict(account["taken"])
    stored = {number for _, number in rows} & set(taken)
    told = set(account["told"]) - stored
    late_ms = [abs(ts - taken[number]) for ts, number in rows if number in taken]
    return {
        "handed over": len(taken),
        "stored": len(stored),
        "told as lost": len(told),
        _SILENT: len(set(taken) - stored - told),
        "longest call": account["longest"],
        "worst time": max(late_ms, default=None),
    }


# --- programs ---


def _never_polls(stage, sizes):
    stage.begin()
    stage.do("send_singly", first=0, count=sizes.readings, pause_s=sizes.pause_s)
    stage.leave(sizes.rest_s)


def _is_cut(stage, sizes):
    half = sizes.readings // 2
    stage.begin()
    stage.do("send_singly", first=0, count=half, pause_s=sizes.pause_s)
    stage.device.disconnect(rst=True)
    stage.do("send_singly", first=half, count=half, pause_s=sizes.pause_s)
    stage.leave(sizes.rest_s)


def _leaves_messages(stage, sizes):
    """Nobody takes what the subscription brings, one message for each reading."""
    stage.begin(listens=True)
    stage.driver.start("send_singly", first=0, count=sizes.readings, pause_s=sizes.pause_s)
    for number in range(sizes.readings):
        stage.device.push_attributes({"k": number})
        time.sleep(sizes.pause_s)
    stage.driver.answer(_CALLS_S)
    stage.leave(sizes.rest_s)


def _leaves_at_once(stage, _sizes):
    stage.server.faults.message_time = _MESSAGE_S
    stage.begin("visit", count=_VISIT)
    stage.leave()


def _bursts(stage, sizes):
    stage.begin()
    stage.do("send_singly", first=0, count=sizes.burst)
    stage.poll_until_settled(sizes.settle_s / 2)
    stage.leave()


def _sends_a_list(stage, sizes):
    stage.begin()
    stage.do("send_list", count=sizes.listed)
    stage.poll_until_settled(sizes.settle_s / 2)
    stage.leave()


def _suffers_an_outage(stage, sizes):
    before_s = sizes.outage_s * _BEFORE
    seconds = before_s + sizes.outage_s * (1 + _AFTER)
    stage.begin()
    stage.driver.start("sample", seconds=seconds, every_s=_EVERY_S)
    time.sleep(before_s)
    stage.server.stop_listening(rst=True)
    time.sleep(sizes.outage_s)
    stage.server.listen_again()
    stage.driver.answer(seconds + _LATE_S)
    stage.poll_until_settled(sizes.settle_s)
    stage.leave()


def _programs(sizes):
    calls = "connect(), %d calls of send_telemetry() " % sizes.readings
    slowly = calls + "%g ms apart" % (sizes.pause_s * 1000)
    visit = "connect(), %d calls of send_telemetry(), disconnect()" % _VISIT
    return (
        _Program("never polls", slowly, _never_polls),
        _Program("never polls, cut", slowly + "; the server resets the connection", _is_cut),
        _Program(
            "never polls, subscribed",
            slowly + "; as many changes of shared attributes come",
            _leaves_messages,
            columns=(Column("ends by itself", budget=exactly(True)),),
        ),
        _Program("leaves at once", visit, _leaves_at_once),
        _Program("leaves at once, TLS", visit, _leaves_at_once, is_tls=True),
        _Program("bursts", "%d calls of send_telemetry(), then polls" % sizes.burst, _bursts),
        _Program(
            "sends a list",
            "one call of send_telemetry() with %d readings and their times, then polls"
            % sizes.listed,
            _sends_a_list,
        ),
        _Program(
            "an outage",
            "a reading every %g s, and polls; the server is down for %g s"
            % (_EVERY_S, sizes.outage_s),
            _suffers_an_outage,
            columns=(Column("worst time", "ms"),),
        ),
    )


# --- the table ---


def programs(
    readings=100,
    pause_s=0.01,
    rest_s=1.0,
    burst=250,
    listed=150,
    outage_s=5,
    settle_s=8,
    peers=_PEERS,
):
    """What becomes of the readings of programs that do not poll, that leave at once, that burst?"""
    sizes = Sizes(readings, pause_s, rest_s, burst, listed, outage_s, settle_s)
    question = functools.partial(_live_all, sizes=sizes)
    answers, left_out = drivers.ask(peers, question, apart=True)
    parts = [_comparison(each, answers) for each in _programs(sizes)]
    return _Programs(
        parts,
        "Each program in a process of its own, each server too; all clients at the same time, with "
        "their own settings, at QoS 1 unless it says 0 (the CircuitPython SDK sends QoS 0). "
        "Stored: the server has it by key and millisecond, as its database does. Told as lost: the "
        "call raised, or a callback said so before the end; what a client would say if it was "
        "asked is not told. The longest call is one of sending, polling, connecting again or "
        "disconnecting.",
        "Who never polls ends %g s after its last call. Where a program leaves at once, the server "
        "takes %g ms a message. Polls go on until all is there or told, behind a burst for %g s at "
        "most, behind an outage for %g s. Worst time: between what the server has and the moment "
        "when the reading was taken; who waits in its polls took fewer readings."
        % (rest_s, _MESSAGE_S * 1000, settle_s / 2, settle_s),
        rows=[_of_all(parts, peer.name) for peer in peers if peer.is_ours],
        left_out=left_out,
    )


def _comparison(program, answers):
    columns = [
        Column("handed over"),
        Column("stored"),
        Column("told as lost"),
        Column(_SILENT, budget=exactly(0)),
        Column("longest call", "ms"),
        *program.columns,
    ]
    seen = {client: answer.get(program.name, answer) for client, answer in answers.items()}
    return Comparison(program.name, program.what, LESS, columns, seen)


def _of_all(parts, client):
    """Its losses in all programs together; or the words of one that failed."""
    lost = [part.value(client, Column(_SILENT)) for part in parts if client in part.answers]
    words = [value for value in lost if isinstance(value, str)]
    what = "%s: %s, all programs together" % (client, _SILENT)
    return Row(what, words[0] if words else sum(lost), "", exactly(0))


def _live_all(driver, sizes):
    """The answers to all programs."""
    with tempfile.TemporaryDirectory() as folder:
        authority = rig.Authority(Path(folder))
        return {each.name: _live(driver, each, sizes, authority) for each in _programs(sizes)}


def _live(driver, program, sizes, authority):
    tls = {"ssl_context": authority.context} if program.is_tls else {}
    ca = authority.path(driver.peer) if program.is_tls else None
    driver.restart()
    with rig.stand_in(**tls) as (server, device):
        stage = _Stage(driver, server, device, ca)
        try:
            program.live(stage, sizes)
        except drivers.Failed as failed:
            return {None: str(failed)}
        return stage.answer()


class _Programs(Group):
    """Drawn as one picture: readings lost in silence, by program and client."""

    def __init__(self, parts, *notes, **options):
        super().__init__(parts, *notes, **options)
        self.draw = self._draw

    def _draw(self, folder):
        silent = Column(_SILENT)
        grid = [
            pictures.Cell(part.name, client, part.value(client, silent), client.startswith("ours"))
            for part in self.parts
            for client in part.answers
        ]
        pictures.cells(Path(folder, "programs.svg"), "Readings lost in silence", grid, LESS)
