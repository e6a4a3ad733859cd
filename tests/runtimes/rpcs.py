# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenarios: remote procedure calls, both ways."""


def by_name(board):
    client = board.releasable(board.client())

    @client.rpc("add")
    def add(numbers):
        return sum(numbers)

    @client.rpc("echo")
    def echo(params):
        return params

    @client.rpc("fail")
    def fail(_params):
        raise RuntimeError("on purpose")

    @client.rpc("unsendable")
    def unsendable(_params):
        return {"bytes": b"x"}

    client.connect()
    board.run_until_released(client)
    return board.finish(client, client.stats["handler_errors"])


def by_one_handler(board):
    client = board.releasable(board.client())
    calls, later = [], []

    def handle(request_id, body, *more):
        calls.append([body["method"], body.get("params")] + list(more))
        if body["method"] == "later":
            later.append(request_id)
            return None
        if body["method"] == "fail":
            raise ValueError("on purpose")
        return {"method": body["method"]}

    client.set_server_side_rpc_request_handler((handle, "context"))
    client.connect()
    board.run_until(client, lambda: later)
    client.send_rpc_reply(later.pop(), {"now": True})
    board.run_until_released(client)
    return board.finish(client, calls)


def of_ours(board):
    client = board.releasable(board.client())
    answers = []

    def note(request_id, result, error):
        answers.append([request_id, result, error and type(error).__name__])

    client.connect()
    first = client.send_rpc_call("getTime", {"zone": "UTC"}, note)
    board.run_until(client, lambda: answers)
    board.tell("answered")
    board.run_until_released(client)
    client.send_rpc_call("getNothing", None, note, timeout=0.2)
    board.run_until(client, lambda: len(answers) == 2)
    return board.finish(client, [first, answers])
