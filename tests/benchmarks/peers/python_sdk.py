# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""ThingsBoard's Python SDK, for computers. A thread of paho does the work."""

import time
from collections import deque

from paho.mqtt.client import MQTTv311
from vocabulary import CLIENT_ID, IN_HAND, PAUSE_MS, TOKEN, Client, reading, run

from tb_device_mqtt import TBDeviceMqttClient, TBPublishInfo

_LOOK_S = 0.0005


class PythonSdk(Client):
    can_poll = False

    def open(self, port, keep_alive, ca, serves, variant):
        self._in_hand = deque()
        client = TBDeviceMqttClient(
            "localhost" if ca else "127.0.0.1", port, TOKEN, client_id=CLIENT_ID
        )
        # It asks for MQTT 5, which ThingsBoard speaks and the stand-in does not.
        client._client._protocol, client._client._clean_session = MQTTv311, True
        client.set_server_side_rpc_request_handler(self._on_rpc)
        self._client = client
        options = {"keepalive": keep_alive}
        if self.is_tuned:
            options.update(min_reconnect_delay=PAUSE_MS / 1000, timeout=1)
        client.connect(tls=bool(ca), ca_certs=ca, **options)  # a callback would wait for 200 ms
        while not client.is_connected():
            time.sleep(_LOOK_S)

    def _on_rpc(self, request_id, request):
        self._client.send_rpc_reply(request_id, request["params"])
        self.answered += 1

    def send(self, number, quality_of_service):
        if len(self._in_hand) >= IN_HAND:
            self._await_one()
        self._publish(number, quality_of_service)

    def _publish(self, number, quality_of_service):
        info = self._client.send_telemetry(reading(number), quality_of_service)
        self._in_hand.append((info, number, quality_of_service))

    def _await_one(self):
        info, *message = self._in_hand.popleft()
        if info.get() != TBPublishInfo.TB_ERR_SUCCESS:
            self._publish(*message)

    def finish(self):
        while self._in_hand:
            self._await_one()

    def telemetry(self, data):
        # "No connection" is none: of QoS 1 paho keeps it.
        info = self._client.send_telemetry(data, self.quality_of_service)
        if info.rc() == TBPublishInfo.TB_ERR_QUEUE_SIZE:
            raise OSError("queue full")

    def listen(self):
        self._client.subscribe_to_all_attributes(lambda *_: None)

    def is_lost(self):
        return not self._client.is_connected()

    def close(self):
        self._client.disconnect()


run(PythonSdk())
