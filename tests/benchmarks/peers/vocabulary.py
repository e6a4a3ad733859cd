# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What every client is asked to do, in the same words: a loop over lines of JSON.

Each file beside this one is a program, run in a process of its own, on CPython or MicroPython. It
says how its client does the few things in `Client`, the way the client's own README does.
"""

import json
import sys
import time

from clock import now_s, now_us
from habits import Habits

TOKEN = "TOKEN_A"
CLIENT_ID = "benchmark"
TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
RPC_REQUESTS = "v1/devices/me/rpc/request/+"
IN_HAND = 32  # messages under way, for clients that do not wait for each
PAUSE_MS = 20  # between attempts to connect, where it can be set: its length is not the question
_SETTLE_S = 0.3
_POLL_PAUSE_S = 0.001
_BETWEEN_S = 0.004
_PIXELS = 30


def reading(number):
    return {"n": number, "temperature": 21.5}


def payload(number):
    """The same, for a client that knows no telemetry."""
    return '{"n":%d,"temperature":21.5}' % number


class Client:
    """What a program says of its client."""

    can_poll = True  # False: a thread does it
    errors = (OSError,)  # what its methods raise when the connection is gone
    answered = 0  # RPCs
    is_tuned = True  # False: all pauses and limits as the client has them by itself
    quality_of_service = 1  # of `telemetry`

    def __init__(self):
        self.told = set()  # numbers of readings that a callback said are lost

    def open(self, port, keep_alive, ca, serves, variant):
        """Make the client, connect it; *serves*: subscribe to RPCs, answer each with its params.

        *ca*: path of the certificate authority, or None for no TLS; *variant*: a setting that is
        compared with what the client does without, or None.
        """

    def poll(self):
        """What the main loop is to call again and again."""

    def idle_poll(self):
        """The function whose calls are timed, or None: there is none, a thread does it."""
        return self.poll if self.can_poll else None

    def send(self, number, quality_of_service):
        """Telemetry; return when the client would take more."""

    def telemetry(self, data):
        """Hand over a reading, or a list of those, in one call; raise if that says it is lost."""

    def listen(self):
        """Subscribe to shared attributes."""

    def finish(self):
        """Return when all that was sent is acknowledged; at QoS 0, when it has left."""

    def is_lost(self):
        """Whether the client has noticed that the connection is gone; or a method raises."""
        return False

    def repair(self):
        """Connect again, if the client leaves that to the program."""

    def close(self):
        """Disconnect."""


# --- what the benchmarks ask ---


class _Program(Habits):
    def name(self):
        return {"python": "%s %s" % (sys.implementation.name, sys.version.split()[0])}

    def open(self, port, keep_alive=60, ca=None, serves=False, variant=None):
        self._client.open(port, keep_alive, ca, serves, variant)
        return {}

    def settle(self):
        """What follows the connection, such as SUBACK, is not part of a measurement."""
        self._loop(_SETTLE_S)
        return {}

    def idle(self, calls, seconds):
        """Times of calls, in microseconds; of so many, or for so long."""
        poll = self._client.idle_poll()
        if poll is None:
            return {"text": "no call, a thread"}
        times = []
        end = now_s() + seconds
        while len(times) < calls and now_s() < end:
            started = now_us()
            poll()
            times.append(now_us() - started)
        times.sort()
        return {"median": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}

    def animate(self, seconds):
        """Passes of a main loop a second, and the longest pause between two."""
        client = self._client
        pixels = bytearray(_PIXELS)
        count, longest_us = 0, 0
        last = started = now_us()
        end = started + seconds * 1000000
        while last < end:
            for place in range(_PIXELS):
                pixels[place] = (count * 3 + place * 7) & 255
            if client.can_poll:
                client.poll()
            count += 1
            now = now_us()
            longest_us = max(longest_us, now - last)
            last = now
        return {"rate": count * 1000000 / (last - started), "longest": longest_us / 1000}

    def serve(self, seconds):
        end = now_s() + seconds
        while now_s() < end:
            if self._client.can_poll:
                self._client.poll()
            else:
                time.sleep(_POLL_PAUSE_S)
        return {"answered": self._client.answered}

    def send(self, seconds, qos):
        """Telemetry for so long, and until all is acknowledged."""
        end = now_s() + seconds
        sent = 0
        while now_s() < end:
            self._client.send(sent, qos)
            sent += 1
        self._client.finish()
        return {"sent": sent}

    def send_one(self, qos):
        """Telemetry, until it is acknowledged."""
        self._client.send(0, qos)
        self._client.finish()
        return {}

    def first(self, port, ca=None, variant=None):
        """Milliseconds from nothing to the first telemetry that is acknowledged."""
        started = now_us()
        self._client.open(port, 60, ca, False, variant)
        if variant != "queued":  # or else it has been sent already
            self._client.send(0, 1)
        self._client.finish()
        return {"took": (now_us() - started) / 1000}

    def notice(self, seconds):
        """Poll until the connection is known to be gone."""
        end = now_s() + seconds
        while now_s() < end:
            try:
                if self._client.is_lost():
                    return {"noticed": True}
                self._client.poll()
            except self._client.errors:
                return {"noticed": True}
            time.sleep(_POLL_PAUSE_S)
        return {"noticed": False}

    def deliver(self, messages):
        """Send all, one every few ms; what a call refuses by raising is sent again."""
        for number in range(messages):
            self._insist(self._client.send, number, 1)
            time.sleep(_BETWEEN_S)
        self._insist(self._client.finish)
        return {}

    def close(self):
        self._client.close()
        return {}

    def _insist(self, method, *arguments):
        while True:
            try:
                return method(*arguments)
            except self._client.errors:
                self._repair()

    def _repair(self):
        while True:
            try:
                return self._client.repair()
            except self._client.errors:
                time.sleep(PAUSE_MS / 1000)

    def _loop(self, seconds):
        end = now_s() + seconds
        while now_s() < end:
            self._client.poll()
            time.sleep(_POLL_PAUSE_S)


def run(client):
    """Do what each line of the input asks; answers begin with "={", clients may print the rest."""
    program = _Program(client)
    while True:
        line = sys.stdin.readline()
        if not line:
            return
        arguments = json.loads(line)
        try:
            answer = getattr(program, arguments.pop("do"))(**arguments)
        except Exception as error:  # the bench shows it
            answer = {"error": "%s: %s" % (type(error).__name__, error)}
        # No comma inside of one print: its parts could be torn apart by what a thread prints.
        print("\n=" + json.dumps(answer))
        if hasattr(sys.stdout, "flush"):
            sys.stdout.flush()
