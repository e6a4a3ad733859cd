# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenarios: any broker, any topic."""


def settings_of(board):
    settings = dict(board.options.get("settings", {}))
    if "tls" in board.options:
        settings["tls"] = board.tls()
        settings["host"] = "localhost"
    return settings


def echo(board):
    client = board.online_client(**settings_of(board))
    messages = []

    def note(topic, payload):
        messages.append([topic, payload.decode()])

    client.subscribe("room/+/temperature", note)
    client.subscribe("all/#", note, 0)
    client.publish("room/1/temperature", 21)
    client.publish("room/1/humidity", "nobody listens")
    client.publish("all/of/this", "größer".encode(), 0)
    client.publish("all", None)
    board.run_until(client, lambda: len(messages) == 3)
    client.unsubscribe("all/#")
    client.publish("all/of/that", "nobody listens")
    client.publish("room/2/temperature", "x" * 5000)
    board.run_until(client, lambda: len(messages) == 4)
    return board.finish(client, messages)


def refusal(board):
    client = board.client(**settings_of(board))
    error = board.error_of(client.connect)
    client.disconnect()
    return error


def will(board):
    """Gone without a word: the broker publishes the will to who watches."""
    watcher = board.online_client(port=board.options["direct_port"], client_id="watcher")
    messages = []
    watcher.subscribe("last/will", lambda topic, payload: messages.append(payload.decode()))
    client = board.client(client_id="mortal")
    client.will_set("last/will", "gone")
    client.connect()
    board.tell("online")
    board.run_until(watcher, lambda: messages)
    client.disconnect()
    return board.finish(watcher, messages)
