# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""A board whose Wi-Fi is an AirLift (ESP32SPI): lib needs adafruit_esp32spi too.

The pins are those of a PyPortal, a Metro M4 AirLift or a Matrix Portal M4.
"""

from gc import mem_free
from os import getenv
from time import monotonic_ns

import board
from adafruit_esp32spi.adafruit_esp32spi import ESP_SPIcontrol
from digitalio import DigitalInOut

from tb_device_mqtt import TBDeviceMqttClient

SECOND = 1_000_000_000  # nanoseconds

pins = [DigitalInOut(pin) for pin in (board.ESP_CS, board.ESP_BUSY, board.ESP_RESET)]
radio = ESP_SPIcontrol(board.SPI(), *pins)
client = TBDeviceMqttClient.from_settings(radio=radio)
client.connect(timeout=0)  # it waits for the network

due = monotonic_ns()
while True:
    if monotonic_ns() >= due:
        due = monotonic_ns() + 10 * SECOND
        if not radio.is_connected:  # an AirLift joins only when it is told to
            try:
                radio.connect_AP(getenv("CIRCUITPY_WIFI_SSID"), getenv("CIRCUITPY_WIFI_PASSWORD"))
            except OSError as error:
                print("no Wi-Fi:", error)
        client.send_telemetry({"memory": mem_free()})
    client.check_for_msg()
