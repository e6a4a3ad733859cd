# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenario: nothing happens."""

import gc
import sys


def _used():
    """What is in use of the heap: bytes, on CPython blocks."""
    return gc.mem_alloc() if hasattr(gc, "mem_alloc") else sys.getallocatedblocks()


def polls(board):
    """Heap that a poll takes, garbage included: nothing is collected meanwhile."""
    client = board.online_client()
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
