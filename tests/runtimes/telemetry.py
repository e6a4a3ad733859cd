# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenarios: what the device sends on its own."""


def every_shape(board):
    client = board.online_client()
    client.send_telemetry({"int": 7, "bool": True, "text": "x", "json": {"a": [1, {"b": None}]}})
    client.send_telemetry([{"a": 1}, {"b": 2}])
    client.send_telemetry({"ts": 1700000000000, "values": {"c": 3}})
    client.send_telemetry(
        [{"ts": 1700000000001, "values": {"d": 4}}, {"ts": 1700000000002, "values": {"e": 5}}]
    )
    client.send_telemetry([{"f": 6}, {"ts": 1700000000003, "values": {"g": 7}}])
    client.send_telemetry({"unacknowledged": 8}, 0)
    return board.finish(client, client.stats["left_out"])


def floats(board):
    values = [0.1 + 0.2, 21.5, -1 / 3, 123456.789, 1.5e-7, 100.0, 1.234567e-11, 0.014807176, 1e15]
    client = board.online_client()
    for value in values:
        client.send_telemetry({"value": value})
    return board.finish(client)


def any_language(board):
    client = board.online_client()
    client.send_telemetry({"größe": "½ л 水", "emoji": "🌡", "escaped": 'a"b\\c\nd\u0001'})
    return board.finish(client)


def what_the_server_would_dislike(board):
    nan, infinity = float("nan"), float("inf")
    client = board.client()
    return [
        board.error_of(client.send_telemetry, data)
        for data in (
            {"good": 1, "bad": None},
            {"good": 1, "bad": nan},
            {"good": 1, "bad": {"deep": [infinity]}},
            {"good": 1, "bad": b"bytes"},
            {"good": 1, b"5": "bad"},
            {"ts": "bad", "values": {"good": 1}},
            {},
            [],
            "bad",
        )
    ] + [client.pending_messages_count]


def leaving_out(board):
    client = board.online_client(strict=False)
    client.send_telemetry({"good": 1, "nan": float("nan"), "none": None, "bytes": b"x", b"5": 5})
    nothing = client.send_telemetry({"none": None})
    client.send_attributes({"good": 2, "none": None})
    return board.finish(client, [nothing, client.stats["left_out"]])


def oversize(board):
    client = board.client()
    client.max_message_bytes = 1024
    client.connect()
    client.send_telemetry({"key%d" % count: "x" * 20 for count in range(100)})
    client.send_attributes({"key%d" % count: "x" * 20 for count in range(100)})
    refused = [
        board.error_of(client.send_telemetry, {"small": 1, "large": "x" * 2000}),
        board.error_of(client.send_attributes, {"small": 1, "large": "x" * 2000}),
    ]
    return board.finish(client, refused)


def claim(board):
    client = board.online_client()
    client.claim_device("secret", 60000)
    return board.finish(client, board.error_of(client.claim_device, 5))
