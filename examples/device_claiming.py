# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""Let a customer claim this device: for ten minutes, with the key that settings.toml has.

The server must allow it: see "Claiming devices" in ThingsBoard's documentation.
"""

from os import getenv

from tb_device_mqtt import TBDeviceMqttClient

MINUTE_MS = 60 * 1000

client = TBDeviceMqttClient.from_settings()
client.connect()
client.claim_device(getenv("THINGSBOARD_CLAIM_KEY"), duration_ms=10 * MINUTE_MS)
if client.flush(timeout=10):
    print("ten minutes to claim this device by its name and the key")

while True:
    client.check_for_msg()
