# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Scenarios: client and shared attributes."""

from tb_device_mqtt import TBError


def asked_for(board):
    answers = []

    def note(result, error, *more):
        answers.append([result, error] + list(more))

    client = board.online_client()
    client.send_attributes({"version": "x", "uptime": 5})
    client.request_attributes(("version", "missing"), "interval", note)
    client.request_attributes(callback=(note, "context"))
    board.run_until(client, lambda: len(answers) == 2)
    return board.finish(client, answers)


def unanswered(board):
    errors = []

    def note(result, error):
        errors.append([result, type(error).__name__, isinstance(error, TBError)])

    client = board.online_client()
    client.request_attributes("a", callback=note, timeout=0.1)
    board.run_until(client, lambda: errors)
    client.request_attributes("a", callback=note)
    client.disconnect()
    return errors


def pushed(board):
    client = board.releasable(board.client())
    calls = []
    client.subscribe_to_attribute("interval", lambda result, _: calls.append(["one", result]))
    client.subscribe_to_all_attributes(
        (lambda *given: calls.append(["all"] + list(given)), "context")
    )
    gone = client.subscribe_to_attribute("interval", lambda *_: calls.append(["gone"]))
    client.unsubscribe_from_attribute(gone)
    client.connect()
    board.run_until_released(client)
    return board.finish(client, calls)


def shared(board):
    client = board.releasable(board.client())
    known = client.shared
    known.setdefault("interval", 10)
    seen = []

    def look(*_):
        seen.append([known.get("unit"), known["interval"]])

    look()
    client.subscribe_to_all_attributes(look)
    client.connect()
    board.run_until(client, lambda: "unit" in known)
    board.tell("known")
    board.run_until_released(client)
    return board.finish(client, seen)
