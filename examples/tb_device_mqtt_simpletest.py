# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""The least that works: an attribute, a reading, and an ear for the server."""

from gc import mem_free

from tb_device_mqtt import TBDeviceMqttClient

client = TBDeviceMqttClient.from_settings()
client.connect()  # if that fails, the error says what to change
print("connected")

client.send_attributes({"program": "simpletest"})
client.send_telemetry({"memory": mem_free()})
if client.flush(timeout=10):
    print("the server has both")

while True:
    client.check_for_msg()
