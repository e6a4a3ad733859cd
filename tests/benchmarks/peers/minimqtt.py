# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""MiniMQTT alone, as in its examples; loop() with its default timeouts."""

import contextlib
import json
import socket
import ssl

import adafruit_minimqtt.adafruit_minimqtt as minimqtt
from vocabulary import ATTRIBUTES, CLIENT_ID, RPC_REQUESTS, TELEMETRY, TOKEN, Client, payload, run


class NoDelaySocket(socket.socket):
    """What MiniMQTT could have for the asking, and does not ask for."""

    def connect(self, address):
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connect(address)


class NoDelayPool:
    AF_INET, SOCK_STREAM, timeout = socket.AF_INET, socket.SOCK_STREAM, socket.timeout
    getaddrinfo = staticmethod(socket.getaddrinfo)
    socket = NoDelaySocket  # the last: it hides the module


class MiniMqtt(Client):
    # ValueError and the others: what its parser makes of a packet that was cut off.
    errors = (minimqtt.MMQTTException, OSError, ValueError, IndexError, AttributeError, TypeError)

    def open(self, port, keep_alive, ca, serves, variant):
        self._mqtt = mqtt = minimqtt.MQTT(
            broker="localhost" if ca else "127.0.0.1",
            port=port,
            client_id=CLIENT_ID,
            username=TOKEN,
            password="",
            keep_alive=keep_alive,
            socket_pool=NoDelayPool() if variant == "no delay" else socket,
            is_ssl=bool(ca),
            ssl_context=ssl.create_default_context(cafile=ca) if ca else None,
        )
        mqtt.on_message = self._on_message
        mqtt.connect()
        if serves:
            mqtt.subscribe(RPC_REQUESTS, 1)
        self.poll = mqtt.loop

    def _on_message(self, mqtt, topic, message):
        answer = json.dumps(json.loads(message)["params"])
        mqtt.publish(topic.replace("request", "response"), answer, False, 1)
        self.answered += 1

    def send(self, number, quality_of_service):
        self._mqtt.publish(TELEMETRY, payload(number), False, quality_of_service)

    def telemetry(self, data):
        self._mqtt.publish(TELEMETRY, json.dumps(data), False, self.quality_of_service)

    def listen(self):
        self._mqtt.on_message = lambda *_: None
        self._mqtt.subscribe(ATTRIBUTES, 1)

    def repair(self):
        # reconnect() of its examples says DISCONNECT first, which fails on what is gone.
        with contextlib.suppress(*self.errors):
            self._mqtt.disconnect()
        self._mqtt.connect()

    def close(self):
        self._mqtt.disconnect()


run(MiniMqtt())
