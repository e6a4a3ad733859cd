# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenarios: connections, and that they end."""

from tb_device_mqtt import TBError


def session(board):
    client = board.client()
    states, calls = [], []
    client.user_data = "mine"
    client.on_state = lambda _client, _data, state, reason: states.append([state, reason])
    client.on_connect = lambda _client, data, flags, rc: calls.append([data, flags, rc])
    client.on_disconnect = lambda _client, data, rc: calls.append([data, rc])
    is_online = [client.connected, client.connect(), client.connected]
    client.disconnect()
    client.disconnect()
    is_online.append(client.is_connected())
    return {"states": states, "calls": calls, "is_online": is_online}


def block(board):
    with board.client() as client:
        client.send_telemetry({"inside": 1})
    return client.state


def refusal(board):
    client = board.client(**board.options.get("settings", {}))
    raised = None
    try:
        client.connect()
    except TBError as error:
        raised = [type(error).__name__, getattr(error, "code", None), str(error)]
    except OSError as error:
        raised = ["OSError", error.errno, str(error)]
    state = client.state
    client.disconnect()
    return raised + [state, client.state]


def silence(board):
    client = board.client()
    raised = board.error_of(client.connect, 0.2)
    client.disconnect()
    return raised


def on_short_topics(board):
    client = board.releasable(board.client(compact=True))
    answers, changes = [], []
    client.rpc("echo")(lambda params: params)
    client.subscribe_to_attribute("interval", lambda result, _: changes.append(result))
    client.connect()
    client.send_telemetry({"temperature": 21.5})
    client.send_attributes({"version": "x"})
    client.request_attributes("version", callback=lambda result, _: answers.append(result))
    client.send_rpc_call("getTime", None, lambda _, result, _error: answers.append(result))
    board.run_until(client, lambda: len(answers) == 2)
    board.run_until_released(client)
    return board.finish(client, [answers, changes])
