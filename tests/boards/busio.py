# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A bus that nothing listens to."""


class SPI:
    def __init__(self, clock, MOSI=None, MISO=None):
        self.pins = (clock, MOSI, MISO)
