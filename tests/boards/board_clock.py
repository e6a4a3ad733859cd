# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The clocks of a board: time() counts from 2000-01-01 until the RTC is set.

Both run as many times faster as BOARD_SPEED says.
Mirrors CircuitPython: shared-bindings/time, shared-bindings/rtc.
"""

import os
import time as real

_SPEED = int(os.environ.get("BOARD_SPEED", "1"))
_real_ns, _real_time = real.monotonic_ns, real.time
_started_ns = _real_ns()
_set_to = 946684800
_set_at_ns = _started_ns


def monotonic_ns():
    return _started_ns + (_real_ns() - _started_ns) * _SPEED


def time():
    return _set_to + (monotonic_ns() - _set_at_ns) // 1000000000


def set_to_now():
    global _set_to, _set_at_ns
    _set_to, _set_at_ns = int(_real_time()), monotonic_ns()
