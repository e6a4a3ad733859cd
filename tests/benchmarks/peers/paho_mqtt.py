# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""paho-mqtt with its thread, as its README advises; an idle call is that of loop() without it."""

import json
import threading

import paho.mqtt.client as paho
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


class Paho(Client):
    can_poll = False

    def open(self, port, keep_alive, ca, serves, variant):
        self._room = threading.Semaphore(IN_HAND)
        self._serves = serves
        self._ready = threading.Event()
        self._client = client = paho.Client(paho.CallbackAPIVersion.VERSION2, CLIENT_ID)
        client.username_pw_set(TOKEN)
        if self.is_tuned:
            client.reconnect_delay_set(PAUSE_MS / 1000, 1)
            client.max_inflight_messages_set(IN_HAND)
        if ca:
            client.tls_set(ca)
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = self._on_message
        client.on_publish = lambda *_: self._room.release()
        client.connect("localhost" if ca else "127.0.0.1", port, keep_alive)
        client.loop_start()
        self._ready.wait()

    def _on_connect(self, client, *_):
        if self._serves:
            client.subscribe(RPC_REQUESTS, 1)
        else:
            self._ready.set()

    def _on_message(self, client, _user_data, message):
        answer = json.dumps(json.loads(message.payload)["params"])
        client.publish(message.topic.replace("request", "response"), answer, 1)
        self._room.acquire(blocking=False)
        self.answered += 1

    def idle_poll(self):
        self._client.loop_stop()
        return lambda: self._client.loop(0)

    def send(self, number, quality_of_service):
        self._room.acquire()
        self._client.publish(TELEMETRY, payload(number), quality_of_service)

    def telemetry(self, data):
        info = self._client.publish(TELEMETRY, json.dumps(data), self.quality_of_service)
        if info.rc and (info.rc == paho.MQTT_ERR_QUEUE_SIZE or not self.quality_of_service):
            raise OSError(paho.error_string(info.rc))  # else it is kept

    def listen(self):
        self._client.on_message = None
        self._client.subscribe(ATTRIBUTES, 1)

    def finish(self):
        for _ in range(IN_HAND):
            self._room.acquire()
        self._room.release(IN_HAND)

    def is_lost(self):
        return not self._client.is_connected()

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


run(Paho())
