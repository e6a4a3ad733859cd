# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""A board with WIZnet Ethernet: lib needs adafruit_wiznet5k too.

The pins are those of a W5500-EVB-Pico.
"""

from gc import mem_free
from time import monotonic_ns

import board
from adafruit_wiznet5k.adafruit_wiznet5k import WIZNET5K
from busio import SPI
from digitalio import DigitalInOut
from microcontroller import cpu

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds

# The driver's default is the same on every board: no two of them could share a network.
mac = ":".join(["02"] + ["%02x" % byte for byte in cpu.uid[-5:]])
ethernet = WIZNET5K(SPI(board.GP18, board.GP19, board.GP16), DigitalInOut(board.GP17), mac=mac)
client = TBDeviceMqttClient.from_settings(radio=ethernet)
client.connect()

due = monotonic_ns()
while True:
    client.check_for_msg()
    if monotonic_ns() >= due:
        due = monotonic_ns() + 10 * SECOND
        ethernet.maintain_dhcp_lease()  # or the address is lost after some hours
        client.send_telemetry({"memory": mem_free()})
