# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The pins of BOARD, and no others, as circuitpython-stubs list them."""

import importlib.util
import os
import re
from pathlib import Path

_FOLDER = next(iter(importlib.util.find_spec("board_definitions").submodule_search_locations))
_STUB = Path(_FOLDER, os.environ["BOARD"], "__init__.pyi").read_text(encoding="utf-8")
_PINS = re.findall(r"^(\w+): microcontroller\.Pin", _STUB, re.MULTILINE)
_BUSES = re.findall(r"^def (\w+)\(\)", _STUB, re.MULTILINE)


def __getattr__(name):
    if name in _PINS:
        return name
    if name in _BUSES:
        return lambda: name
    raise AttributeError("module 'board' has no attribute '%s'" % name)
