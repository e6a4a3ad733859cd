# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Pixels that count how often they were filled, and say so now and then."""


class NeoPixel:
    def __init__(self, pin, n, brightness=1.0):
        self._fills = 0

    def fill(self, color):
        self._fills += 1
        if self._fills in (1000, 10000):
            print("filled %d times" % self._fills, flush=True)
