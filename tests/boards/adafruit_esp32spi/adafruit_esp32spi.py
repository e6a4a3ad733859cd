# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Not connected until connect_AP() was called; mirrors adafruit_esp32spi 11."""


class ESP_SPIcontrol:
    TLS_MODE = 2

    def __init__(self, spi, cs, ready, reset):
        self.is_connected = False

    @property
    def connected(self):
        return self.is_connected

    def connect_AP(self, ssid, password):
        print("joins", ssid, flush=True)
        self.is_connected = True
