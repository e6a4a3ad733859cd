# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenario: nothing happens."""

import gc
import sys


def _used():
    """What is in use of the heap: bytes, on CPython blocks."""
    return gc.mem_alloc() if hasattr(gc, "mem_alloc") else sys.getallocatedblocks()


class _Companion:
    """One with every method, which does nothing."""

    def poll(self):
        """Nothing is due."""

    def may_send(self, topic, data_points):
        return True

    def sent(self, topic, data_points):
        """It does not count."""

    def keep(self, message_id, topic, payload, quality_of_service):
        """It keeps nothing."""

    def forget(self, message_id):
        """Nothing."""

    def kept(self):
        return ()


def polls(board):
    """Heap that a poll takes, garbage included: nothing is collected meanwhile."""
    client = board.online_client()
    for _ in range(board.options["companions"]):
        client.attach(_Companion())
    client.subscribe_to_all_attributes(print)
    client.send_telemetry({"a": 1})
    client.flush(5)
    for _ in range(100):
        client.check_for_msg()
    gc.collect()
    gc.disable()
    before = _used()
    for _ in range(1000):
        client.check_for_msg()
    used = _used() - before
    gc.enable()
    return board.finish(client, used)
