# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What boards have and the Unix port has not: `time.monotonic_ns`, which begins at 0, and sockets.

A built-in module takes no new names, so another takes its place, before anybody imports it.
"""

import sys
import time

_started_ns = time.time_ns()


class _Time:
    @staticmethod
    def monotonic_ns():
        return time.time_ns() - _started_ns


def install():
    for name in dir(time):
        setattr(_Time, name, getattr(time, name))
    sys.modules["time"] = _Time
    try:
        import socket  # noqa: F401
    except ImportError:
        import ffi_socket

        sys.modules["socket"] = ffi_socket
