# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Sockets on the chip, see faults/sockets.py for the source."""

from faults.sockets import WiznetPool


class SocketPool(WiznetPool):
    def __init__(self, radio):
        super().__init__()
        self._interface = radio
