# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""A rainbow at full speed while connected: the poll takes microseconds. lib needs neopixel too.

On a Pico W: the pin of your pixels, such as board.GP0, instead of board.NEOPIXEL.
"""

from time import monotonic_ns

import board
from neopixel import NeoPixel
from rainbowio import colorwheel

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds

pixels = NeoPixel(board.NEOPIXEL, 1, brightness=0.1)
client = TBDeviceMqttClient.from_settings()
client.connect(timeout=0)

frames, since = 0, monotonic_ns()
while True:
    client.check_for_msg()
    pixels.fill(colorwheel(frames & 255))
    frames += 1
    now = monotonic_ns()
    if now - since >= 10 * SECOND:
        client.send_telemetry({"frames_per_second": frames * SECOND // (now - since)})
        frames, since = 0, now
