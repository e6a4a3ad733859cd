# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""ThingsBoard's own CircuitPython SDK. It sends telemetry with QoS 0, and has no TLS."""

import socket

from adafruit_minimqtt.adafruit_minimqtt import MMQTTException
from vocabulary import CLIENT_ID, TOKEN, Client, reading, run

from tb_device_mqtt import TBDeviceMqttClient


class Network:
    """Its own adapter for CPython always brings a TLS context, which it then does not use."""

    def get_socket_pool(self):
        return socket

    def get_ssl_context(self):
        return None


class CircuitPythonSdk(Client):
    errors = (MMQTTException, OSError, ValueError, IndexError, AttributeError, TypeError)

    def open(self, port, keep_alive, ca, serves, variant):
        if ca:
            raise NotImplementedError("no TLS")
        self._client = client = TBDeviceMqttClient(
            "127.0.0.1", port, TOKEN, client_id=CLIENT_ID, network_adapter=Network()
        )
        client.set_server_side_rpc_request_handler(self._on_rpc)
        self.repair()
        self.poll = client.check_for_msg

    def _on_rpc(self, request_id, request):
        self._client.send_rpc_reply(request_id, request["params"])
        self.answered += 1

    def send(self, number, quality_of_service):
        self._client.send_telemetry(reading(number))

    def telemetry(self, data):
        self._client.send_telemetry(data)

    def listen(self):
        self._client.subscribe_to_all_attributes(lambda *_: None)

    def is_lost(self):
        return not self._client.connected

    def repair(self):
        self._client.connect()  # prints what goes wrong, and raises nothing
        if not self._client.connected:
            raise OSError("not connected")

    def close(self):
        self._client.disconnect()


run(CircuitPythonSdk())
