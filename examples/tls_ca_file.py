# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""Encrypted, to a server whose certificate was signed by your own authority and nobody else.

Copy the authority's certificate to the board as ca.pem. THINGSBOARD_TLS = "/ca.pem" in
settings.toml does the same without a change of the program; THINGSBOARD_TLS = 1 trusts the
public authorities that the board knows. Without THINGSBOARD_PORT it is port 8883.
"""

from gc import mem_free

from tb_device_mqtt import TBDeviceMqttClient

client = TBDeviceMqttClient.from_settings(tls="/ca.pem")
client.connect()  # a wrong authority and a wrong host name are told apart
print("connected")
client.send_telemetry({"memory": mem_free()})

while True:
    client.check_for_msg()
