# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Native sockets of BOARD: a Pico W's or Espressif's, see faults/sockets.py for the source."""

import os

import wifi

from faults.sockets import EspressifPool, PicoPool

_Pool = PicoPool if os.environ["BOARD"].endswith("_pico_w") else EspressifPool


class SocketPool(_Pool):
    def __init__(self, radio):
        if radio is not wifi.radio:
            raise TypeError("SocketPool can only be used with wifi.radio")
        super().__init__()
