# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The firmware's clock of milliseconds: it begins again at 0, here a second after the start."""

import time

_PERIOD = 1 << 29
_started = time.ticks_ms()


def ticks_ms():
    return (time.ticks_diff(time.ticks_ms(), _started) - 1000) % _PERIOD
