# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
# Stands before the one of circuitpython-stubs, which is written in the syntax of Python 3.12.
from typing import TypeVar

_Value = TypeVar("_Value")

def const(expr: _Value) -> _Value: ...
