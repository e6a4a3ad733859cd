# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A time server that answers at once."""

import time


class NTP:
    def __init__(self, socketpool, **_options):
        self._pool = socketpool

    @property
    def datetime(self):
        return time.gmtime()
