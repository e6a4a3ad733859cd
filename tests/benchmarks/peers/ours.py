# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""This library, on CPython and on MicroPython."""

import json
import sys

from habits import numbers
from vocabulary import CLIENT_ID, IN_HAND, PAUSE_MS, TOKEN, Client, reading, run

from tb_device_mqtt import TBDeviceMqttClient


class Ours(Client):
    def open(self, port, keep_alive, ca, serves, variant):
        host = "localhost" if ca else "127.0.0.1"
        options = {"client_id": CLIENT_ID, "keep_alive": keep_alive, "tls": ca}
        if sys.implementation.name == "micropython":
            import socketpool

            options["socket_pool"] = socketpool.SocketPool()
            options["tls"] = socketpool.TLSContext(ca) if ca else None
        options["compact"] = variant == "compact"
        self._client = client = TBDeviceMqttClient(host, port, TOKEN, **options)
        if self.is_tuned:
            client._link.backoff_ms = PAUSE_MS
        client.on_drop = self._on_drop
        if serves:
            client.rpc("echo")(self._echo)
        if variant == "queued":
            client.send_telemetry(reading(0))
        client.connect()
        self.poll = client.check_for_msg

    def _echo(self, params):
        self.answered += 1
        return params

    def send(self, number, quality_of_service):
        while self._client.pending_messages_count >= IN_HAND:
            self._client.check_for_msg()
        self._client.send_telemetry(reading(number), quality_of_service)

    def telemetry(self, data):
        self._client.send_telemetry(data)

    def listen(self):
        self._client.subscribe_to_all_attributes(lambda *_: None)

    def _on_drop(self, _client, _user_data, _topic, _message_id, payload, _reason):
        self.told.update(numbers(json.loads(payload)))

    def finish(self):
        while self._client.pending_messages_count:
            self._client.check_for_msg()

    def is_lost(self):
        return not self._client.connected

    def close(self):
        self._client.disconnect()


run(Ours())
