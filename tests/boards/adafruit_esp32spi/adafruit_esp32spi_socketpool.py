# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Sockets behind SPI, see faults/sockets.py for the source."""

from faults.sockets import AirLiftPool


class SocketPool(AirLiftPool):
    def __init__(self, iface):
        super().__init__()
        self._interface = iface
