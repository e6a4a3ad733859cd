# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A network in memory, for tests that need thousands of connections and hours of time.

`FakePool` hands out `FakeSocket`; what a client sends waits there until `FakePool.deliver`. The
other end is the test itself, which calls `FakeSocket.feed`, or a `MemoryServer`: the stand-in's
protocol half without a network. `Clock` stands for every clock of the library.
"""

import errno
import heapq
from unittest import mock

import tb_device_mqtt
from local_server import Device
from local_server.thingsboard import Credentials, ThingsBoard

_TICKS_PERIOD = 1 << 29  # adafruit_ticks counts up to that
_MAX_READS = 64  # of one poll; the client takes a few packets at a time


class Clock:
    """The time of a test; `with clock:` the library lives in it.

    It begins ten seconds before `ticks_ms` starts again from 0.

    :param float epoch_s: what `time.time()` says at the beginning
    """

    def __init__(self, epoch_s=1800000000):
        self.now_ms = 0
        self._epoch_s = epoch_s
        self._timers = []
        self._timer_count = 0
        self._patches = [
            mock.patch.object(tb_device_mqtt, "ticks_ms", self.ticks_ms),
            mock.patch.object(tb_device_mqtt, "time", self),
            mock.patch.object(tb_device_mqtt, "random", lambda: 0.5),
        ]

    def __enter__(self):
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_exception):
        for patch in self._patches:
            patch.stop()

    # --- what the library asks ---

    def ticks_ms(self):
        return (self.now_ms + _TICKS_PERIOD - 10000) % _TICKS_PERIOD

    def monotonic_ns(self):
        return (self.now_ms + 5000) * 1000000

    def time(self):
        return self._epoch_s + self.now_ms / 1000

    def sleep(self, seconds):
        self.advance(max(1, int(seconds * 1000)))

    # --- what a test and the stand-in do ---

    def advance(self, ms):
        """Let time pass, and what is due happen."""
        self.now_ms += ms
        while self._timers and self._timers[0].due_ms <= self.now_ms:
            heapq.heappop(self._timers).run()

    def start_timer(self, due_ms, function, arguments):
        self._timer_count += 1
        timer = _Timer(due_ms, self._timer_count, function, arguments)
        heapq.heappush(self._timers, timer)
        return timer


class _Timer:
    """What `call_later` of an asyncio loop returns."""

    def __init__(self, due_ms, number, function, arguments):
        self.due_ms = due_ms
        self._number = number
        self._function = function
        self._arguments = arguments

    def __lt__(self, other):
        return (self.due_ms, self._number) < (other.due_ms, other._number)

    def run(self):
        if self._function is not None:
            self._function(*self._arguments)

    def cancel(self):
        self._function = None


class _Loop:
    """As much of an asyncio loop as the stand-in uses, driven by a `Clock`."""

    def __init__(self, clock):
        self._clock = clock

    def time(self):
        return self._clock.now_ms / 1000

    def call_later(self, delay_s, function, *arguments):
        return self.call_at(self.time() + delay_s, function, *arguments)

    def call_at(self, when_s, function, *arguments):
        return self._clock.start_timer(when_s * 1000, function, arguments)

    def call_soon(self, function, *arguments):
        return self.call_at(self.time(), function, *arguments)


class FakePool:
    """A socket pool without a network.

    :param accept: called with each new `FakeSocket` when it connects; returns the other end, an
        object with ``receive(data)`` and ``lost()``. Default: the test is the other end
    """

    AF_INET = 2
    SOCK_STREAM = 1
    IPPROTO_TCP = 6
    TCP_NODELAY = 1

    def __init__(self, accept=None):
        self.accept = accept
        #: True: nobody listens
        self.refuse = False
        #: every `FakeSocket` that was connected
        self.sockets = []

    @property
    def socket_now(self):
        """The open socket, or None."""
        return self.sockets[-1] if self.sockets and self.sockets[-1].is_open else None

    def getaddrinfo(self, host, port, _family=0, _kind=0):
        return [(self.AF_INET, self.SOCK_STREAM, 0, "", (host, port))]

    def socket(self, _family=0, _kind=0):
        return FakeSocket(self)

    def deliver(self):
        """Let what the client has sent arrive."""
        if self.socket_now is not None:
            self.socket_now.deliver()


class FakeSocket:
    """Both ends of a connection. The methods above the line are the client's, below the test's."""

    def __init__(self, pool):
        self._pool = pool
        self._peer = None
        self._pieces = []  # each is what one read returns at most
        self._delivered = 0
        self._reads = 0
        self._end = None  # 0: a FIN came; another errno: that error; None: open
        self.is_open = False
        #: everything that the client has sent
        self.sent = bytearray()
        #: how many bytes `send` takes before it would block; None: all
        self.room = None
        #: how many bytes one read brings at most; None: a piece as it was fed
        self.read_bytes = None

    def settimeout(self, _timeout):
        """It never waits."""

    def setsockopt(self, *_option):
        """There is nothing to set."""

    def connect(self, _address):
        if self._pool.refuse:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        self.is_open = True
        self._pool.sockets.append(self)
        if self._pool.accept is not None:
            self._peer = self._pool.accept(self)

    def send(self, data):
        self._check()
        if self._end is not None:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        size = len(data) if self.room is None else min(self.room, len(data))
        if not size:
            raise BlockingIOError(errno.EAGAIN, "no room")
        if self.room is not None:
            self.room -= size
        self.sent += data[:size]
        return size

    def recv_into(self, buffer, size=0):
        self._check()
        self._reads += 1
        if self._reads > _MAX_READS:
            raise AssertionError("the client reads and reads without going on")
        if not self._pieces:
            if self._end is None:
                raise BlockingIOError(errno.EAGAIN, "nothing to read")
            if self._end:
                raise ConnectionResetError(self._end, "reset")
            return 0
        piece = self._pieces.pop(0)
        size = min(size or len(buffer), len(piece), self.read_bytes or len(piece))
        buffer[:size] = piece[:size]
        if piece[size:]:
            self._pieces.insert(0, piece[size:])
        return size

    def close(self):
        if self.is_open:
            self.is_open = False
            if self._end is None:
                self.deliver()  # a close behind the last byte: that one arrives
                self._lose_peer()

    def _check(self):
        if not self.is_open:
            raise OSError(errno.EBADF, "used after it was closed")

    # ---

    def begin_poll(self):
        """From here on reads are counted anew."""
        self._reads = 0

    def feed(self, data):
        """Let *data* arrive at the client, in one piece."""
        if self._end is None and data:
            self._pieces.append(bytes(data))

    def end(self, reset=False):
        """Let the connection end: FIN behind what was fed, or a RST that overtakes it.

        What the client has sent and nobody has delivered is lost.
        """
        if self._end is not None:
            return
        self._end = errno.ECONNRESET if reset else 0
        if reset:
            self._pieces.clear()
        self._lose_peer()

    def deliver(self):
        """Let what the client has sent arrive at the other end."""
        data = bytes(self.sent[self._delivered :])
        self._delivered = len(self.sent)
        if data and self._peer is not None:
            self._peer.receive(data)

    def _lose_peer(self):
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.lost()


class _Transport:
    """What a session of the stand-in writes to; the other end of a `FakeSocket`."""

    def __init__(self, session, socket, loop):
        self._session = session
        self._socket = socket
        self._loop = loop
        session.connection_made(self)

    def receive(self, data):
        self._session.data_received(data)

    def lost(self):
        self._session.connection_lost(None)

    def write(self, data):
        self._socket.feed(data)

    def is_closing(self):
        return False

    def set_write_buffer_limits(self, high):
        """The other end takes everything at once."""

    def pause_reading(self):
        """What comes nevertheless waits in the session."""

    resume_reading = pause_reading

    def close(self):
        self._loop.call_soon(self._socket.end)

    def abort(self):
        self._loop.call_soon(self._socket.end, True)

    def get_extra_info(self, _name):
        """No socket, no TLS."""


class MemoryServer:
    """The stand-in without thread and network, in the time of a `Clock`.

    :param Clock clock: its `Clock.advance` lets happen what the server does later
    """

    def __init__(self, clock):
        self._loop = _Loop(clock)
        self.board = ThingsBoard(self._loop)
        self.board.now_ms = lambda: int(clock.time() * 1000)
        self.changes = self.board.changes
        self.lock = self.changes.lock
        self.faults = self.board.faults
        self.pool = FakePool(self._accept)

    def _accept(self, socket):
        return _Transport(self.board.new_session(), socket, self._loop)

    def add_device(self, name, token):
        """Register a device and return its `Device`."""
        credentials = Credentials(token, None, None, None)
        return Device(self, self.board.add_device(name, credentials))

    def call(self, function, *arguments):
        """There is one thread only."""
        with self.changes:
            return function(*arguments)

    def refuse_own_thread(self):
        """`Device.rpc` waits for its reply, which here would never come; use `call_rpc`."""
        raise RuntimeError("call_rpc, not rpc")
