# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""A lamp that the server switches: what a function returns is the reply.

On a dashboard, a switch that calls "setLamp" with true or false, and asks with "getLamp".
"""

import board
from digitalio import DigitalInOut

from tb_device_mqtt import TBDeviceMqttClient

lamp = DigitalInOut(board.LED)
lamp.switch_to_output(value=False)

client = TBDeviceMqttClient.from_settings()


@client.rpc("setLamp")
def set_lamp(params):
    if params not in (True, False):
        raise ValueError("true or false, not %r" % (params,))  # the reply: {"error": ...}
    lamp.value = params
    client.send_attributes({"lamp": lamp.value})
    return lamp.value


@client.rpc("getLamp")
def get_lamp(_params):
    return lamp.value


client.connect()
while True:
    client.check_for_msg()
