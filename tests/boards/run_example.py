# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Run one example as if it were code.py on a board: `run_example.py EXAMPLE`.

The modules beside this file stand for those of a board. Time runs faster, as BOARD_SPEED says, so
that a reading every ten seconds is no test of patience; the clock is not set, as after power-on.
"""

import builtins
import gc
import os
import runpy
import sys
import time

import board_clock

real_open = builtins.open


def open_on_board(path, *arguments, **options):
    """The root of a board's drive is a folder here."""
    if isinstance(path, str) and path.startswith("/") and path.endswith(".pem"):
        path = os.environ["BOARD_DRIVE"] + path
    return real_open(path, *arguments, **options)


builtins.open = open_on_board
gc.mem_free = lambda: 123456
time.monotonic_ns = board_clock.monotonic_ns
if os.environ.get("BOARD_CLOCK") == "unset":
    time.time = board_clock.time
runpy.run_path(sys.argv[1], run_name="__main__")
