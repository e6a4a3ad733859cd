# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""chumicro-mqtt in a tick loop, as in its README; it dials and heals by itself."""

import json
import ssl

import chumicro_mqtt.client as chumicro
from chumicro_mqtt import MQTTClient, ProtocolState
from chumicro_timing import ticks_ms
from vocabulary import (
    ATTRIBUTES,
    CLIENT_ID,
    IN_HAND,
    PAUSE_MS,
    RPC_REQUESTS,
    TELEMETRY,
    TOKEN,
    Client,
    payload,
    run,
)

_RESEND_S = 1  # it sends again after that time, not when it is connected again


class ChuMicro(Client):
    def open(self, port, keep_alive, ca, serves, variant):
        if self.is_tuned:
            chumicro._SELF_HEAL_BACKOFF_BASE_MS = chumicro._SELF_HEAL_BACKOFF_CAP_MS = PAUSE_MS
        self._sent = self._acknowledged = 0
        config = {
            "mqtt.broker.host": "localhost" if ca else "127.0.0.1",
            "mqtt.broker.port": port,
            "mqtt.client_id": CLIENT_ID,
            "mqtt.username": TOKEN,
            "mqtt.keep_alive_seconds": keep_alive,
        }
        context = ssl.create_default_context(cafile=ca) if ca else None
        self._client = client = MQTTClient.from_config(
            config,
            ssl_context=context,
            # With True it forgets what is not acknowledged when it connects again. With False it
            # takes the server's word that there is a session, and does not subscribe.
            clean_session=serves or not self.is_tuned,
            **({"ack_timeout_seconds": _RESEND_S} if self.is_tuned else {}),
        )
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        if serves:
            client.subscribe(RPC_REQUESTS, 1)
        client.connect()
        while client.state != ProtocolState.CONNECTED:
            self.poll()

    def poll(self):
        now = ticks_ms()
        if self._client.check(now):
            self._client.handle(now)

    def _on_message(self, topic, message):
        answer = json.dumps(json.loads(bytes(message))["params"])
        self._sent += 1
        self._client.publish(topic.replace("request", "response"), answer, qos=1)
        self.answered += 1

    def _on_publish(self, *_):
        self._acknowledged += 1

    def send(self, number, quality_of_service):
        while self._sent - self._acknowledged >= IN_HAND:
            self.poll()
        while True:
            try:
                self._client.publish(TELEMETRY, payload(number), qos=quality_of_service)
                break
            except chumicro.MQTTBackpressureError:  # "drain via handle() and retry"
                self.poll()
        self._sent += 1

    def telemetry(self, data):
        self._client.publish(TELEMETRY, json.dumps(data), qos=self.quality_of_service)

    def listen(self):
        self._client.on_message = lambda *_: None
        self._client.subscribe(ATTRIBUTES, 1)

    def finish(self):
        while self._sent > self._acknowledged:
            self.poll()

    def is_lost(self):
        return self._client.state != ProtocolState.CONNECTED

    def close(self):
        self._client.disconnect()


run(ChuMicro())
