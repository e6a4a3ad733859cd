# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""With asyncio: one task polls, another blinks and reports. lib needs asyncio too."""

import asyncio

import board
from digitalio import DigitalInOut

from tb_device_mqtt import TBDeviceMqttClient

client = TBDeviceMqttClient.from_settings()
lamp = DigitalInOut(board.LED)
lamp.switch_to_output()


async def poll():
    while True:
        client.check_for_msg()  # never waits, so the others get their turn
        await asyncio.sleep(0)


async def blink():
    while True:
        lamp.value = not lamp.value
        client.send_telemetry({"lamp": lamp.value})
        await asyncio.sleep(1)


async def main():
    await asyncio.gather(poll(), blink())


client.connect(timeout=0)
asyncio.run(main())
