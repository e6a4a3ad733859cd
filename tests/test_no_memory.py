# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Memory runs out inside a poll, at each of its calls in turn: nothing leaves it, nothing is lost.

A board may have none left at any call; what fails here is each call that the module makes.
"""

import sys
from itertools import count
from types import SimpleNamespace

import pytest

import tb_device_mqtt
from clients import values
from fakes import Clock, MemoryServer
from world import World

TAKES_NONE = ("len", "isinstance", "hasattr", "callable", "clear", "get_ident")
BUILDERS = vars(tb_device_mqtt)  # its functions that are no methods, they make plain values
POLLS = 8  # after which each of these lives is quiet
READINGS = 40  # more than may be in flight
LAST = -1
PATIENCE_S = 60  # longer than any pause before an attempt


class Life(World):
    """A client with its server, its network and its time."""

    def __init__(self, clock):
        self.server = MemoryServer(clock)
        super().__init__(clock, self.server)
        self.device = self.server.add_device("Device A", "TOKEN")
        self.calls = []  # of the handlers
        self.numbers = set()  # of the readings that were sent
        self.client.rpc("add")(lambda params: self.calls.append("rpc") or params + 1)
        self.client.subscribe_to_all_attributes(lambda result, *_: self.calls.append(result))

    def deliver(self, ms=10):
        """What either side has sent arrives at the other, and time passes for that."""
        self.pool.deliver()
        self.clock.advance(ms)
        super().deliver()

    def poll(self, ms=0):
        super().poll(ms)

    def go_online(self):
        self.client.connect(0)
        self.run_until_state("online")

    def is_settled(self):
        client = self.client
        return client.connected and not client.pending_messages_count and not client._requests

    def send_readings(self):
        self.numbers = set(range(READINGS))
        for number in self.numbers:
            self.client.send_telemetry({"n": number})

    def send_last(self):
        self.client.send_telemetry({"n": LAST})
        self.run_until(lambda: LAST in self.received(), PATIENCE_S, ms=0)

    def received(self):
        """The readings that the server has."""
        return {row["n"] for row in values(self.device) if "n" in row}


def connecting(life):
    life.client.connect(0)


def late_readings(life):
    life.send_readings()
    life.clock.advance(3000)
    life.client.connect(0)


def acknowledgements(life):
    life.go_online()
    life.send_readings()


def lost_connection(life):
    acknowledgements(life)
    life.pool.socket_now.end()


def request(life):
    life.go_online()
    life.client.request_attributes(callback=lambda *_: life.calls.append("answer"))


def remote_call(life):
    life.go_online()
    life.device.call_rpc("add", 1)


def large_push(life):
    life.go_online()
    life.device.push_attributes({"text": "x" * 3000})


def silence(life):
    life.go_online()
    life.clock.advance(31000)  # a ping is due


LIVES = (
    connecting,
    late_readings,
    acknowledgements,
    lost_connection,
    request,
    remote_call,
    large_push,
    silence,
)


class NoMemoryAt:
    """While it is entered, the call that the module makes after *place* others fails."""

    def __init__(self, place):
        self._left = place
        self.has_failed = False

    def __enter__(self):
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)

    def _note(self, frame, event, argument):
        if frame.f_code.co_filename != tb_device_mqtt.__file__:
            return
        if event == "c_call":
            takes_memory = argument.__name__ not in TAKES_NONE
        else:
            takes_memory = event == "call" and frame.f_code.co_name in BUILDERS
        if not takes_memory:
            return
        self._left -= 1
        if self._left < 0:
            self.has_failed = True
            raise MemoryError("none left")


def lives_with_a_failure(begin, polls):
    """One life for each call of a poll, which fails there; *polls* go before. Settled again."""
    for place in count():
        with Clock() as clock:
            life = Life(clock)
            begin(life)
            for _ in range(polls):
                life.poll()
            life.deliver()
            with NoMemoryAt(place) as memory:
                life.client.check_for_msg()
            if not memory.has_failed:
                return
            life.run_until(life.is_settled, PATIENCE_S, ms=0)
            yield life


@pytest.mark.parametrize("begin", LIVES)
def test_memory_that_runs_out_at_any_call_of_a_poll_costs_no_data(begin):
    failures = 0
    for polls in range(POLLS):
        for life in lives_with_a_failure(begin, polls):
            life.send_last()
            assert life.received() == life.numbers | {LAST}, (polls, failures)
            failures += 1
    assert failures > 1


def unanswered(life):
    request(life)
    life.clock.advance(11000)  # later than request_timeout


def test_memory_that_runs_out_while_a_request_ends_leaves_it_its_callback():
    failures = 0
    for life in lives_with_a_failure(unanswered, 0):
        life.poll()
        assert life.calls == ["answer"], failures
        failures += 1
    assert failures > 1


def test_a_remote_call_that_there_was_no_memory_to_read_is_executed_when_it_comes_again(
    monkeypatch,
):
    with Clock() as clock:
        life = Life(clock)
        remote_call(life)
        with monkeypatch.context() as patched:
            patched.setattr(tb_device_mqtt, "loads", fail)
            life.poll()
        assert life.calls == []
        life.pool.socket_now.end()
        life.run_until(lambda: life.calls, PATIENCE_S, ms=0)
        life.run_until(life.is_settled, PATIENCE_S, ms=0)
        assert life.calls == ["rpc"]


def fail(*_):
    raise MemoryError("none left")


def test_a_message_that_there_is_never_memory_for_does_not_keep_back_the_others(monkeypatch):
    pack = tb_device_mqtt._packet

    def fragmented(head, *parts):
        if sum(map(len, parts)) > 4000:
            raise MemoryError("none in one piece")
        return pack(head, *parts)

    monkeypatch.setattr(tb_device_mqtt, "_packet", fragmented)
    with Clock() as clock:
        life = Life(clock)
        dropped = []
        life.client.on_drop = lambda *arguments: dropped.append(arguments[-1])
        life.go_online()
        life.client.send_attributes({"text": "x" * 5000})
        life.client.send_telemetry({"n": LAST})
        life.run_until(lambda: LAST in life.received(), 5 * PATIENCE_S, ms=0)
        life.run_until(life.is_settled, PATIENCE_S, ms=0)
        assert dropped == ["lost connection 8 times"]


# --- room for an attempt ---


@pytest.fixture
def board(monkeypatch):
    """The library believes that it runs on a board whose largest free piece has *free* bytes."""

    class Board:
        free = 100000

    def allocate(size):
        if isinstance(size, int) and size > Board.free:
            raise MemoryError("memory allocation failed, allocating %d bytes" % size)
        return bytearray(size)

    sys_of_board = SimpleNamespace(implementation=SimpleNamespace(name="micropython"))
    monkeypatch.setattr(tb_device_mqtt, "sys", sys_of_board)
    monkeypatch.setattr(tb_device_mqtt, "bytearray", allocate, raising=False)
    return Board


@pytest.mark.parametrize(
    "free, left", ((4000, 19), (5000, 40)), ids=("too little", "enough without TLS")
)
def test_readings_give_way_to_an_attempt_that_has_no_memory(board, free, left):
    with Clock() as clock:
        life = Life(clock)
        client = life.client
        client.on_drop = lambda *arguments: life.calls.append(arguments[-1])
        life.send_readings()
        board.free = free
        client.connect(0)
        client.check_for_msg()
        assert client.state == "connecting"
        assert client.pending_messages_count == left
        assert set(life.calls) <= {"too little memory left to connect"}
        assert len(life.calls) == READINGS - left


def test_what_is_no_telemetry_stays_although_there_is_no_memory(board):
    with Clock() as clock:
        life = Life(clock)
        life.client.send_attributes({"a": 1})
        board.free = 0
        life.client.connect(0)
        life.client.check_for_msg()
        assert life.client.pending_messages_count == 1
