# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Native sockets as on Espressif, see faults/sockets.py for the source."""

from faults.sockets import EspressifPool


class SocketPool(EspressifPool):
    def __init__(self, _radio):
        super().__init__()
