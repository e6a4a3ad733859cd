# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenarios: bytes in pieces, and messages that no server should send."""


def chatter(board):
    """Everything at once: to be sent, asked for, answered."""
    client = board.releasable(board.client())
    answers = []
    client.rpc("length")(len)
    client.connect()
    client.send_telemetry({"text": "x" * 500})
    client.request_attributes(callback=lambda result, _: answers.append(result))
    board.run_until(client, lambda: answers)
    board.run_until_released(client)
    return board.finish(client, answers)


def until_released(board):
    """Listen to everything; what came of it."""
    client = board.client()
    client.max_message_bytes = 2000
    board.releasable(client)
    changes, reasons = [], []
    # Each connection is good for something: no reason to wait longer before the next.
    client.on_connect = lambda *_: client.send_telemetry({"online": True})

    def note(_client, _data, _state, reason):
        if reason is not None:
            reasons.append([type(reason).__name__, str(reason)])

    client.on_state = note
    client.subscribe_to_all_attributes(lambda result, _: changes.append(result))
    client.connect()
    board.tell("online")
    board.run_until_released(client)
    return board.finish(client, {"changes": changes, "reasons": reasons, "stats": client.stats})
