# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""umqtt.simple on MicroPython, with check_msg() in the main loop. Pings are left to the program."""

import json
import ssl
import time

from umqtt.simple import MQTTClient, MQTTException
from vocabulary import ATTRIBUTES, CLIENT_ID, RPC_REQUESTS, TELEMETRY, TOKEN, Client, payload, run


def tls_context(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with open(ca, "rb") as file:
        context.load_verify_locations(cadata=file.read())
    return context


class Umqtt(Client):
    # The others: what it makes of a read that ends early.
    errors = (OSError, MQTTException, IndexError, AssertionError, TypeError)
    kind = MQTTClient

    def open(self, port, keep_alive, ca, serves, variant):
        self._client = client = self.kind(
            CLIENT_ID,
            "localhost" if ca else "127.0.0.1",
            port,
            user=TOKEN,
            password="",
            keepalive=keep_alive,
            ssl=tls_context(ca) if ca else None,
        )
        client.set_callback(self._on_message)
        client.connect()
        if serves:
            client.subscribe(RPC_REQUESTS.encode(), 1)
        self._ping_ms = keep_alive * 500
        self._pinged = time.ticks_ms()

    def poll(self):
        self._client.check_msg()
        now = time.ticks_ms()
        if time.ticks_diff(now, self._pinged) > self._ping_ms:
            self._pinged = now
            self._client.ping()

    def _on_message(self, topic, message):
        answer = json.dumps(json.loads(message)["params"])
        self._client.publish(topic.replace(b"request", b"response"), answer, qos=1)
        self.answered += 1

    def send(self, number, quality_of_service):
        self._client.publish(TELEMETRY, payload(number), qos=quality_of_service)

    def telemetry(self, data):
        self._client.publish(TELEMETRY, json.dumps(data), qos=self.quality_of_service)

    def listen(self):
        self._client.set_callback(lambda *_: None)
        self._client.subscribe(ATTRIBUTES.encode(), 1)

    def repair(self):
        self._client.connect()

    def close(self):
        self._client.disconnect()


if __name__ == "__main__":
    run(Umqtt())
