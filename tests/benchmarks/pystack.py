# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The stack that a board has for calls of Python functions, and what our chains take of it.

CircuitPython gives every call of a Python function a part of a fixed piece of memory, its pystack,
and raises "pystack exhausted" when that is used up. MicroPython for WebAssembly has the same one,
of 32-bit words too, and can say how much of it is in use.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from . import memory
from .tables import Row, Table, at_most, below, figure

_BOARD = Path(__file__).resolve().parent / "board"
SMALLEST_BYTES = 1536  # CircuitPython 9; from 10 on it is 2048, CIRCUITPY_PYSTACK_SIZE sets it
_PROGRAM_BYTES = 200  # for code.py, and the function in which it calls us
_LARGE_BYTES = 8192  # where nothing is exhausted
_MAX_CALLS = 8
_IN_HANDLER = "wait_for_msg -> rpc -> "
_SO_FAR = {  # what is too deep for the smallest: it may shrink, it must not grow
    _IN_HANDLER + "send_telemetry with ts": 1376,
    _IN_HANDLER + "send_telemetry, lists in each other": 1936,
    _IN_HANDLER + "disconnect": 1344,
    _IN_HANDLER + "request_attributes": 1344,
    _IN_HANDLER + "disconnect, connect": 1792,
}

BYTES = (
    """import json, stack
result = json.dumps([stack.names(), stack.to_handlers(), stack.at_most(%d)])"""
    % _LARGE_BYTES
)
CALLS = "import json, stack; print(json.dumps([stack.to_handlers(), stack.at_most()]))"


def pystack(may_install=True):
    """How deep do calls go, from a line of a program to its handlers and on from there?"""
    return memory.on_a_board(measure, may_install)


def measure(bench, _):
    names, *in_bytes = json.loads(bench.results([BYTES])[0])
    handlers, others = (list(zip(*columns)) for columns in zip(names, in_bytes, _calls()))
    rows = [_row(*each) for each in handlers + others]
    polled = [calls for name, _, calls in handlers if name.startswith("check_for_msg")]
    rows.append(Row("calls from check_for_msg to a handler", max(polled), "", below(_MAX_CALLS)))
    return Table(
        rows,
        "In use when a handler is called; of the others the most that is in use at any time, their "
        "handlers included. The budget is what CircuitPython 9 has, %s bytes, without %d for the "
        "program itself; what has a larger one needs CircuitPython 10, which has 2,048. Calls: of "
        "functions of the library, MiniMQTT and ConnectionManager."
        % (figure(SMALLEST_BYTES), _PROGRAM_BYTES),
    )


def _row(name, in_bytes, in_calls):
    budget = below(SMALLEST_BYTES - _PROGRAM_BYTES)
    if name in _SO_FAR:
        budget = at_most(_SO_FAR[name])
    return Row(name, in_bytes, "B", budget, beside={"calls": str(in_calls)})


def _calls():
    """The same chains in calls, as CPython counts them, in an interpreter of its own."""
    paths = os.pathsep.join([str(_BOARD), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CALLS],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
