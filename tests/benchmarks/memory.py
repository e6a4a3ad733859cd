# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Memory on a 32-bit board: of the import, of a client, and of what it has to do."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import leaving_out
from .interpreters import (
    LIBRARY,
    MODULES,
    NAME,
    SOCKET,
    STACK_BYTES,
    Board,
    Unix,
    file_of,
    make_library,
    smallest_heap,
    source,
)
from .tables import LeftOut, Row, Table, at_most, below, exactly

_IMPORT_BYTES = 32 * 1024  # what it is to take
_IMPORT_SO_FAR_BYTES = 49 * 1024  # it may shrink, it must not grow
_CLIENT_BYTES = 8 * 1024
_HEAP_BYTES = 94 * 1024  # so far; a board is to do with 80 KB
_HEAP_64_BYTES = 126 * 1024  # objects are twice the size there, code is not
_LEFT_BYTES = (
    256  # at the end of one run of messages a little more may be under way than at another
)
_POLLS = 1000
_EACH = 20
_WINDOW = 8  # messages that go out without an acknowledgement of the first
_ROUND = 100  # messages between two looks at the heap

_FIRMWARE = "import binascii, errno, json, random, struct, time"  # there without the library
_IMPORTS = [_FIRMWARE] + ["import " + module for module in MODULES]
_LOOPBACK = "import gc, sys, loopback\nsys.modules['select'] = loopback\npool = loopback.Pool()"
_CLIENT = """options = {"socket_pool": pool, "logger": False}
client = tb_device_mqtt.TBDeviceMqttClient("board", 1883, "TOKEN", **options)
assert client.connect(3)
client.send_telemetry({"temperature": 21.5})
assert client.flush(3)"""
_SCENES = "from scenes import *"
_START = "start()"
_IDLE = """def idle():
    client.check_for_msg()
    before = gc.mem_alloc()
    for _ in range(%d):
        client.check_for_msg()
    return gc.mem_alloc() - before
gc.disable()
result = idle()
gc.enable()"""
_PEER = """from adafruit_minimqtt.adafruit_minimqtt import MQTT
client = MQTT(broker="board", port=1883, username="TOKEN", password="", socket_pool=pool)
client.connect()
client.publish("v1/devices/me/telemetry", '{"temperature":21.5}', False, 1)"""

_KEPT = (  # what there is to keep, the scene that makes it, how many at once
    ("an attribute subscription", "watch_attributes(KEYS[{}:{}])", _EACH),
    ("a plain subscription", "subscribe(TOPICS[{}:{}])", _EACH),
    ("an RPC method", "register(KEYS[{}:{}])", _EACH),
    ("a known shared attribute", "share(KEYS[{}:{}])", _EACH),
    ("a pending attribute request", "request_attributes(KEYS[{}:{}])", _EACH),
    ("a pending client-side RPC", "call(KEYS[{}:{}])", _EACH),
    ("a queued reading, offline", "queue_offline(KEYS[{}:{}])", _EACH),
    ("a reading in flight, QoS 1", "send_unacknowledged(KEYS[{}:{}])", _WINDOW),
)
_PASSING = (  # what happens, and the scene
    ("one telemetry round trip", "send_telemetry"),
    ("one RPC answered", "answer_rpc"),
)


def memory(sections=None, messages=10000, heaps=(".mpy", ".py"), may_install=True):
    """How much memory do the module and a client take on a 32-bit board?"""
    return on_a_board(_measure, may_install, (sections, messages, heaps))


def memory_by_function(limit=None, may_install=True):
    """How much smaller would the import be without a function?"""
    return on_a_board(_measure_functions, may_install, limit)


def on_a_board(measure, may_install, size=None):
    """What *measure* makes of a workbench, and of *size*."""
    board = Board.find(may_install)
    if board is None:
        return LeftOut(Board.what_is_missing())
    with tempfile.TemporaryDirectory() as folder:
        return measure(_Bench(board, Path(folder)), size)


def _measure(bench, size):
    sections, messages, heaps = size
    library = bench.library(".mpy")
    rows = [
        *_import_rows(bench, library),
        *client_rows(bench, library),
        *_scene_rows(bench, library),
        *endurance_rows(bench, library, messages),
        *_heap_rows(bench, heaps),
        *_section_rows(bench, sections),
    ]
    return Table(rows, *_NOTES)


def _measure_functions(bench, limit):
    cuts = list(leaving_out.each_function(source(LIBRARY)))[:limit]
    whole = bench.import_bytes()
    rows = sorted(_saved_rows(bench, whole, cuts), key=lambda row: -row.ours)
    return Table(
        [Row("import %s, all of it" % LIBRARY, whole, "B"), *rows],
        "What the import of the .mpy takes less when that function alone is left out, its name "
        "not; names and texts that others use as well are in none of these. %s." % NAME,
    )


_NOTES = (
    "Heap after gc.collect(), %s, from .mpy unless it says .py. Modules in this order, each beside "
    "those before it; while importing: without a collection." % NAME,
    "A client: connected, one message acknowledged, its 1 KB buffer included, TLS apart. Of what "
    "there may be many of: each further one, names and callbacks apart. While it happens: all "
    "that is allocated, without a collection; what stays is what a collection leaves.",
    "A heap that suffices: the modules are imported, the client connects and a message is "
    "acknowledged, with a collection after each import. This interpreter has none inside of one; "
    "that of 64-bit words collects when its heap is full, and only then.",
    "Of the import: what is left without any function, and what leaving out those of one section "
    "saves; what several share is in neither.",
)


class _Bench:
    """A workbench: the *board*, and *folder* for what it is to run."""

    def __init__(self, board, folder):
        self.board = board
        self._folder = folder
        self._sources = {module: source(module) for module in MODULES}

    def library(self, suffix, *others):
        """A library with the file of each of *others* beside what is measured."""
        beside = {path.stem: path.read_text(encoding="utf-8") for path in others}
        return make_library(self._folder, suffix, {**self._sources, **beside})

    def results(self, steps, stack_bytes=STACK_BYTES):
        """What each of *steps* leaves in `result`, with a stack for calls of that size."""
        figures = self.board.run(self.library(".mpy"), steps, stack_bytes=stack_bytes)
        return [figure.result for figure in figures[1:]]

    def import_bytes(self, text=None):
        """What the import of our module takes, or of *text* in its place."""
        sources = self._sources if text is None else {**self._sources, LIBRARY: text}
        figures = self.board.run(make_library(self._folder, ".mpy", sources), _IMPORTS)
        return figures[-1].used - figures[-2].used


# --- rows: what stays ---


def _import_rows(bench, library):
    mpy = bench.board.run(library, _IMPORTS)[1:]
    py = bench.board.run(bench.library(".py"), _IMPORTS)[1:]
    for count, module in enumerate(MODULES):
        takes = mpy[count + 1].used - mpy[count].used
        beside = {
            "from .py": py[count + 1].used - py[count].used,
            "while importing": mpy[count + 1].high - mpy[count].used,
            ".mpy file": file_of(library, module, ".mpy").stat().st_size,
        }
        if module == LIBRARY:
            so_far = at_most(_IMPORT_SO_FAR_BYTES)
            yield Row("import " + module, takes, "B", so_far, None, beside)
            yield Row("- goal", takes, "B", below(_IMPORT_BYTES, enforced=False))
        else:
            yield Row("import " + module, None, "B", None, takes, beside)


def client_rows(bench, library):
    *_, before, client, idle = bench.board.run(
        library, [*_IMPORTS, _LOOPBACK, _CLIENT, _IDLE % _POLLS]
    )
    *_, peer_before, peer = bench.board.run(library, [*_IMPORTS, _LOOPBACK, _PEER])
    takes, peer_takes = client.used - before.used, peer.used - peer_before.used
    return [
        Row("connected client", takes, "B", below(_CLIENT_BYTES), peer_takes),
        Row("allocated by %d idle polls" % _POLLS, idle.result, "B", exactly(0)),
    ]


def _scene_rows(bench, library):
    steps = [*_IMPORTS, _SCENES, _START]
    for _, scene in _PASSING:
        steps += ["result = allocated(%s)" % scene]
    for _, scene, many in _KEPT:
        steps += [scene.format(0, 1), scene.format(1, many)]
    start, *figures = bench.board.run(library, steps)[len(_IMPORTS) + 2 :]
    for name, _ in _PASSING:
        passing, *figures = figures
        yield Row(name, passing.result, "B")
        yield Row("- of which stays", passing.used - start.used, "B")
        start = passing
    for name, _, many in _KEPT:
        first, last, *figures = figures
        yield Row(name, (last.used - first.used) / (many - 1), "B")


def endurance_rows(bench, library, messages):
    rounds = ["exchange(%d)" % _ROUND] * (messages // _ROUND)
    counts = ["result = missing()", "result = client.stats['connects'] - 1"]
    steps = [*_IMPORTS, _SCENES, _START, *rounds, *counts]
    *exchanged, missing, reconnects = bench.board.run(library, steps)[len(_IMPORTS) + 3 :]
    name = f"left by {messages:,} readings and RPCs, {reconnects.result} cuts"
    left = exchanged[-1].used - exchanged[0].used
    yield Row(name, left, "B", at_most(_LEFT_BYTES))
    yield Row("- of which not acknowledged or answered", missing.result, "", exactly(0))


# --- rows: a heap that suffices ---


def _heap_rows(bench, suffixes):
    steps = [*_IMPORTS, _LOOPBACK, *_CLIENT.split("\n")]
    libraries = {suffix: bench.library(suffix, SOCKET) for suffix in suffixes}
    ours, beside = _smallest(bench.board, libraries, steps)
    yield Row("a heap that suffices", ours, "B", at_most(_HEAP_BYTES), None, beside)
    unix = Unix.find()
    if unix is not None:
        ours, beside = _smallest(unix, libraries, steps)
        yield Row("- of 64-bit words", ours, "B", at_most(_HEAP_64_BYTES), None, beside)


def _smallest(machine, libraries, steps):
    """Of the .mpy files, and beside it of others."""
    found = {
        suffix: 1024 * smallest_heap(lambda size: machine.fits(library, steps, size))  # noqa: B023
        for suffix, library in libraries.items()
    }
    ours = found.pop(".mpy")
    return ours, {"from " + suffix: size for suffix, size in found.items()}


# --- rows: what is left without ---


def _section_rows(bench, limit):
    text = source(LIBRARY)
    whole, names = bench.import_bytes(), bench.import_bytes(leaving_out.all_functions(text))
    yield Row("- names, classes, constants", names, "B")
    cuts = list(leaving_out.each_section(text))[:limit]
    yield from _saved_rows(bench, whole, [("- functions of " + name, rest) for name, rest in cuts])


def _saved_rows(bench, whole, cuts):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        left = list(pool.map(bench.import_bytes, [rest for _, rest in cuts]))
    return [Row(name, whole - rest, "B") for (name, _), rest in zip(cuts, left)]
