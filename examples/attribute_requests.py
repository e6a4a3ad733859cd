# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
#
# Copy this to the board as code.py, and write what is yours into settings.toml (a template is
# beside this file): a board with Wi-Fi then joins the network by itself. Its lib folder needs
# tb_device_mqtt, adafruit_minimqtt, adafruit_connection_manager and adafruit_ticks.
"""Ask for attributes: the server as a memory that outlives a reset, here of the starts."""

from tb_device_mqtt import TBDeviceMqttClient


def count_start(result, exception):
    """Called from check_for_msg(), with one of the two; the other is None."""
    if exception is not None:
        print("no answer:", exception)
        return
    starts = result.get("client", {}).get("starts", 0) + 1
    print("start number", starts, "place:", result.get("shared", {}).get("place", "unknown"))
    client.send_attributes({"starts": starts})


client = TBDeviceMqttClient.from_settings()
client.connect()
client.request_attributes(client_keys=["starts"], shared_keys=["place"], callback=count_start)

while True:
    client.check_for_msg()
