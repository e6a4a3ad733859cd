# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Chains of calls from a line of a program to a handler, and on from there: how deep are they?

On MicroPython, whose stack for calls is CircuitPython's, in bytes; on CPython in calls. The
socket is a flat one, as those of boards are.
"""

import json
import sys

import loopback

import micropython
import tb_device_mqtt

sys.modules["select"] = loopback

_READING = {"temperature": 21.5}
_READINGS = [{"ts": 1700000000000, "values": {"place": {"at": [51.5, 7.4]}}}]
_PUSH = ("attributes", {"interval": 5})
_ANSWER = ("attributes/response/1", {"shared": {"interval": 5}})
_SHARED = ("attributes/response/2", {"shared": {"interval": 5}})
_RPC = ("rpc/request/7", {"method": "setLamp", "params": True})
_RPC_ANSWER = ("rpc/response/1", {})


class _Wire(loopback.Socket):
    """Accepts each CONNECT and swallows the rest; what else is received was put there by hand."""

    behind = b""  # what comes right behind CONNACK

    def connect(self, address):
        self.answers = b"\x20\x02\x00\x00" + self.behind

    def send(self, data):
        return len(data)

    def recv_into(self, buffer, size=0):
        return 0 if self.answers is True else super().recv_into(buffer, size)


def _packet(topic, value):
    topic = b"v1/devices/me/" + topic.encode()
    body = bytes((0, len(topic))) + topic + json.dumps(value).encode()
    return bytes((0x30, len(body))) + body


# --- lines of a program ---


def _check_for_msg(client):
    client.check_for_msg()


def _wait_for_msg(client):
    client.wait_for_msg(0)


def _flush(client):
    client.send_telemetry(_READING)
    client.flush(0)


def _connect(client):
    client.connect()


def _disconnect(client):
    client.disconnect()


# --- how a handler is made known; what these return is done when the client is online ---


def _rpc(client, handler):
    client.rpc("setLamp")(handler)


def _rpc_handler(client, handler):
    client.set_server_side_rpc_request_handler(handler)


def _watch(client, handler):
    client.subscribe_to_attribute("interval", handler)


def _watch_shared(client, handler):
    client.shared.setdefault("interval", 10)
    client.subscribe_to_attribute("interval", handler)


def _request(client, handler):
    client.request_attributes(callback=handler)


def _call(client, handler):
    client.send_rpc_call("getTime", None, handler)


def _subscribe(client, handler):
    client.subscribe("v1/devices/me/+", handler)


def _on_publish(client, handler):
    client.on_publish = handler
    return lambda: client.send_telemetry(_READING, 0)


def _on_drop(client, handler):
    client.on_drop = handler
    return lambda: [client.send_telemetry(_READING) for _ in range(65)]


def _late(client, handler):
    """The next poll tells what this one has found."""

    def ask():
        client.request_attributes(callback=handler, timeout=0)
        client.check_for_msg()

    return ask


def _on_connect(client, handler):
    client.on_connect = handler


def _on_state(client, handler):
    client.on_state = handler


def _on_disconnect(client, handler):
    client.on_disconnect = handler


def _idle(client, handler):
    client.idle = handler


HANDLERS = (  # of what, line, how it is made known, what is received
    ("rpc", _check_for_msg, _rpc, _RPC),
    ("set_server_side_rpc_request_handler", _check_for_msg, _rpc_handler, _RPC),
    ("subscribe_to_attribute", _check_for_msg, _watch, _PUSH),
    ("subscribe_to_attribute with shared", _check_for_msg, _watch_shared, _SHARED),
    ("request_attributes", _check_for_msg, _request, _ANSWER),
    ("request_attributes, no answer", _check_for_msg, _late, None),
    ("send_rpc_call", _check_for_msg, _call, _RPC_ANSWER),
    ("subscribe", _check_for_msg, _subscribe, _PUSH),
    ("on_publish", _check_for_msg, _on_publish, None),
    ("on_drop", _check_for_msg, _on_drop, None),
    ("rpc", _wait_for_msg, _rpc, _RPC),
    ("idle", _wait_for_msg, _idle, None),
    ("rpc", _flush, _rpc, _RPC),
    ("rpc", _connect, _rpc, _RPC),
    ("on_connect", _connect, _on_connect, None),
    ("on_state", _connect, _on_state, None),
    ("on_disconnect", _disconnect, _on_disconnect, None),
)


# --- what gets deep without a handler ---


def _close(client, _handler):
    client.request_attributes(callback=print)
    client.shared.setdefault("interval", 10)
    return lambda: setattr(client.user_data, "answers", True)


def _due(client, _handler):
    """The next poll makes an attempt."""

    def lose():
        client.disconnect()
        client.connect(timeout=0)
        client.check_for_msg()

    return lose


def _due_shared(client, _handler):
    lose = _due(client, None)
    return lambda: (lose(), client.shared)


def _check_twice(client):
    client.check_for_msg()
    client.check_for_msg()


def _send_nested(client):
    """Lists in each other, as many as it takes."""
    value = []
    try:
        while True:
            client.send_telemetry({"a": value})
            value = [value]
    except ValueError:
        pass


LINES = (
    ("connect", _connect),
    ("connect with shared", _connect, _watch_shared),
    ("check_for_msg: an attempt", _check_for_msg, _due),
    ("check_for_msg: an attempt, CONNACK with shared", _check_twice, _due_shared),
    ("check_for_msg: a message", _check_for_msg, _watch, _PUSH),
    ("check_for_msg: closed by the server", _check_for_msg, _close),
    ("disconnect", _disconnect),
    ("send_telemetry, lists in each other", _send_nested),
)


# --- what a handler does ---


def _reconnect(client):
    client.disconnect()
    client.connect()


ACTIONS = (
    ("send_telemetry", lambda client: client.send_telemetry(_READING)),
    ("send_telemetry with ts", lambda client: client.send_telemetry(_READINGS)),
    ("send_telemetry, lists in each other", _send_nested),
    ("send_attributes", lambda client: client.send_attributes(_READING)),
    ("request_attributes", lambda client: client.request_attributes(["a"], ["b"], print)),
    ("send_rpc_reply", lambda client: client.send_rpc_reply(7, _READING)),
    ("send_rpc_call", lambda client: client.send_rpc_call("getTime", _READING, print)),
    ("subscribe_to_attribute", lambda client: client.subscribe_to_attribute("a", print)),
    ("unsubscribe_from_attribute", lambda client: client.unsubscribe_from_attribute("*")),
    ("shared", lambda client: client.shared.get("interval")),
    ("claim_device", lambda client: client.claim_device("secret", 60000)),
    ("publish", lambda client: client.publish("a/b", "c")),
    ("subscribe", lambda client: client.subscribe("a/+", print)),
    ("unsubscribe", lambda client: client.unsubscribe("v1/devices/me/rpc/request/+")),
    ("check_for_msg", _check_for_msg),
    ("wait_for_msg", _wait_for_msg),
    ("flush", _flush),
    ("disconnect", _disconnect),
    ("disconnect, connect", _reconnect),
)


# --- looking at it ---


class _Program:
    """A program that has come as far as to its *line*."""

    def __init__(self, line, make_known=None, message=None, in_handler=None):
        pool = loopback.Pool()
        wire = pool.only = _Wire()
        self._line = line
        self._in_handler = in_handler
        self.at_line = self.at_handler = None
        self.client = tb_device_mqtt.TBDeviceMqttClient(
            "board", 1883, "TOKEN", socket_pool=pool, logger=False
        )
        self.client.user_data = wire
        then = make_known and make_known(self.client, self.handler)
        received = _packet(*message) if message else b""
        if line is _connect:
            wire.behind = received
        else:
            self.client.connect()
            if then:
                then()
            if received:
                wire.answers = received

    def run(self):
        self.at_line = depth()
        self._line(self.client)

    def handler(self, *_):
        if self.at_handler is None:
            self.at_handler = depth()
            if self._in_handler:
                self._in_handler(self.client)

    def check(self):
        stats, error = self.client.stats, str(self.client.last_error)
        if stats["handler_errors"] or stats["unexpected"] or "pystack" in error:
            raise RuntimeError(error)


# --- how deep it is: bytes on MicroPython, calls on CPython ---


def _frames():
    """Of others than this file and its socket."""
    frame, own = sys._getframe(1), (__file__, loopback.__file__)
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename not in own
        frame = frame.f_back
    return count


depth = getattr(micropython, "pystack_use", _frames)


def _held(function, *_filler):
    return function()


def _needed_bytes(all_bytes, program):
    """The stack that the line of *program* needs: with less it fails."""
    enough, too_few, needed = 0, all_bytes // 4, None
    while too_few - enough > 2:  # it is given out in pairs of words
        words = (enough + too_few) // 2
        running = _Program(*program)
        try:
            _held(running.run, *((None,) * words))
            running.check()
            enough, needed = words, all_bytes - running.at_line
        except RuntimeError:
            too_few = words
    return needed


def _most_calls(program):
    running, most = _Program(*program), 0

    def look(_frame, event, _argument):
        nonlocal most
        if event == "call":
            most = max(most, _frames())

    sys.setprofile(look)
    try:
        running.run()
    finally:
        sys.setprofile(None)
    running.check()
    return most - running.at_line


def to_handlers():
    """How deep each of HANDLERS is called."""
    depths = []
    for program in HANDLERS:
        running = _Program(*program[1:])
        running.run()
        running.check()
        depths.append(running.at_handler - running.at_line)
    return depths


def at_most(all_bytes=None):
    """How deep each of LINES and ACTIONS gets; on MicroPython of a stack of *all_bytes*."""
    lines = [program[1:] for program in LINES]
    lines += [(_wait_for_msg, _rpc, _RPC, action) for _, action in ACTIONS]
    if all_bytes is None:
        return [_most_calls(program) for program in lines]
    return [_needed_bytes(all_bytes, program) for program in lines]


def names():
    """Of all that is looked at: ``[[of HANDLERS], [of LINES and ACTIONS]]``"""
    handlers = ["%s -> %s" % (program[1].__name__[1:], program[0]) for program in HANDLERS]
    lines = [program[0] for program in LINES]
    return [handlers, lines + ["wait_for_msg -> rpc -> " + action[0] for action in ACTIONS]]
