# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Run one example as if it were code.py on a board: `run_example.py EXAMPLE`.

The modules beside this file stand for those of a board, BOARD (of circuitpython-stubs; "computer":
of none). Time runs faster, as BOARD_SPEED says, so that a reading every ten seconds is no test of
patience; the clock is not set with BOARD_CLOCK=unset, as after power-on.
"""

import builtins
import gc
import os
import runpy
import select
import ssl
import sys
import time

# Before this becomes a board: here its annotations are evaluated, and need typing for it.
import adafruit_minimqtt.adafruit_minimqtt  # noqa: F401
import board_clock
import board_ssl

from faults.sockets import BlindPoll

BOARD = os.environ.get("BOARD", "computer")
real_open = builtins.open


def open_on_board(path, *arguments, **options):
    """The root of a board's drive is a folder here."""
    if isinstance(path, str) and path.startswith("/") and path.endswith(".pem"):
        path = os.environ["BOARD_DRIVE"] + path
    return real_open(path, *arguments, **options)


def become_a_board():
    sys.implementation.name = "circuitpython"
    sys.implementation.version = (10, 0, 0)
    ssl.create_default_context = board_ssl.SSLContext
    builtins.open = open_on_board
    gc.mem_free = lambda: 123456
    if BOARD.endswith("_pico_w"):
        select.poll = BlindPoll


if BOARD != "computer":
    become_a_board()
time.monotonic_ns = board_clock.monotonic_ns
if os.environ.get("BOARD_CLOCK") == "unset":
    time.time = board_clock.time
runpy.run_path(sys.argv[1], run_name="__main__")
