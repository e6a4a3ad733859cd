# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The clock of the client's own timeouts, for which a local server needs no patience.

BOARD_TICKS_SPEED makes it run faster where a test waits for one of them. Mirrors
shared-bindings/supervisor.
"""

import os
from time import monotonic_ns

_SPEED = int(os.environ.get("BOARD_TICKS_SPEED", "1"))
_PERIOD = 1 << 29
_BEFORE_OVERFLOW = _PERIOD - 65536  # as a board starts: the first overflow is soon
_started_ns = monotonic_ns()


def ticks_ms():
    passed_ms = (monotonic_ns() - _started_ns) * _SPEED // 1000000
    return (_BEFORE_OVERFLOW + passed_ms) % _PERIOD
