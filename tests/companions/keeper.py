# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A companion that brings what was queued over a reboot."""

import json
import os
from binascii import hexlify, unhexlify


class Keeper:
    """Keeps the queue in the file at *path*, which is written anew at each change."""

    def __init__(self, path):
        self._path = path
        self._entries = {}  # message id -> entry, in the order of the queue
        self._old = []  # entries of the run before that are not in the queue yet

    def kept(self):
        """What the run before left. It stays in the file until it is in the queue."""
        try:
            with open(self._path) as file:
                self._old = json.load(file)
        except OSError:
            pass  # the first run
        return [(topic, unhexlify(text), qos) for topic, text, qos in self._old]

    def keep(self, message_id, topic, payload, quality_of_service):
        """A message entered the queue."""
        entry = [topic, hexlify(payload).decode(), quality_of_service]
        if entry in self._old:
            self._old.remove(entry)
        self._entries[message_id] = entry
        self._write()

    def forget(self, message_id):
        """It was delivered or dropped."""
        if self._entries.pop(message_id, None):
            self._write()

    def _write(self):
        """A new file takes the place of the old one: without power in between, one is whole."""
        with open(self._path + ".new", "w") as file:
            json.dump([self._entries[number] for number in sorted(self._entries)] + self._old, file)
        os.rename(self._path + ".new", self._path)
