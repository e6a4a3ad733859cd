# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What time it is, the same on CPython and MicroPython."""

import time

if hasattr(time, "ticks_us"):  # MicroPython

    def now_us():
        return time.ticks_us()

else:

    def now_us():
        return time.perf_counter_ns() / 1000


def now_s():
    return now_us() / 1000000


def now_ms():
    """Since 1970."""
    return time.time_ns() // 1000000
