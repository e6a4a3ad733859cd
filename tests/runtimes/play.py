# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Plays scenarios on the board, one after the other, as the host asks for them.

The host writes a line ``["module.scenario", {option: value}]`` of JSON to stdin. What the board
has to tell goes to stdout, a line ``[fact, value]`` each, the last one of a scenario is its result.
An error ends the interpreter; its traceback is what the host shows.

The scenarios are plain Python that every interpreter understands.
"""

import json
import sys

if sys.implementation.name == "circuitpython":
    import firmware

    firmware.install()

import time

from adafruit_ticks import ticks_diff, ticks_ms

import tb_device_mqtt
from tb_device_mqtt import TBDeviceMqttClient

TIMEOUT_S = 5
BACKOFF_MS = 20


def has_tls():
    try:
        import ssl

        return bool(ssl)
    except ImportError:
        return False


class Board:
    """What a scenario is given: *port* of the server, and the other *options* of the host."""

    def __init__(self, options):
        self.port = options.pop("port")
        self.options = options
        self._is_released = False

    def client(self, **settings):
        """A client of Device A that is back soon after each loss."""
        settings.setdefault("port", self.port)
        if "username" not in settings:
            settings.setdefault("access_token", "TOKEN_A")
        settings.setdefault("socket_pool", self.pool())
        client = TBDeviceMqttClient(settings.pop("host", "127.0.0.1"), **settings)
        client._link.backoff_ms = BACKOFF_MS
        return client

    def pool(self):
        if sys.implementation.name == "cpython":
            import socket

            return socket
        from socketpool import SocketPool

        return SocketPool()

    def online_client(self, **settings):
        client = self.client(**settings)
        client.connect()
        return client

    def tls(self):
        """What the files of the options ask for: an authority, perhaps a client certificate."""
        authority, certificate, key = self.options["tls"]
        if sys.implementation.name != "cpython":
            from socketpool import TLSContext

            return TLSContext(authority, certificate, key)
        if certificate is None:
            return authority
        import ssl

        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
        return context

    def tell(self, fact, value=None):
        print(json.dumps([fact, value]))

    def run_until(self, client, condition):
        started = ticks_ms()
        while not condition():
            if ticks_diff(ticks_ms(), started) > TIMEOUT_S * 1000:
                raise AssertionError(
                    "not within %d s; state %s, last error %r, stats %r"
                    % (TIMEOUT_S, client.state, client.last_error, client.stats)
                )
            client.check_for_msg()
            time.sleep(0.0005)

    def releasable(self, client):
        """From now on the host can end `run_until_released`, with the RPC "release"."""
        self._is_released = False

        @client.rpc("release")
        def release(_params):
            self._is_released = True

        return client

    def run_until_released(self, client):
        self.run_until(client, lambda: self._is_released)

    def finish(self, client, facts=None):
        """Everything has arrived, the session is over. The result of a scenario: *facts*."""
        if not client.flush(TIMEOUT_S):
            raise AssertionError("still queued: %d" % client.pending_messages_count)
        client.disconnect()
        return facts

    def error_of(self, function, *arguments):
        """``[class, words]`` of what the call raises."""
        try:
            function(*arguments)
        except Exception as error:
            return [type(error).__name__, str(error)]
        raise AssertionError("%r raised nothing" % (arguments,))


def main():
    board = Board({"port": 0})
    about = [sys.implementation.name, list(sys.implementation.version[:2])]
    board.tell("ready", about + [tb_device_mqtt.__file__, has_tls()])
    while True:
        line = sys.stdin.readline()
        if not line:
            return
        scenario, options = json.loads(line)
        module, name = scenario.split(".")
        board.tell("result", getattr(__import__(module), name)(Board(options)))


if __name__ == "__main__":
    main()
