# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A TCP proxy that a test tells what to do to the bytes, while a client runs.

.. code-block:: python

    with FaultProxy(server.port) as proxy:
        client = TBDeviceMqttClient("127.0.0.1", proxy.port, ...)
        proxy.round_trip(0.08)                  # a slow link: order kept, packets pipelined
        proxy.to_client.chunk = 1               # each byte on its own
        proxy.to_server.cut(after=17)           # a reset behind the 17th byte from now
        proxy.cut_now("fin")
"""

import asyncio
import socket
import struct
import threading
import time
from collections import deque, namedtuple

FIN = "fin"
RST = "rst"

# *way*: "to_server" or "to_client"; *at*: time.monotonic() of its arrival at the proxy.
Segment = namedtuple("Segment", "way at data")

_READ_BYTES = 65536
_HELD_POLL_S = 0.001
_LINGER_S = 2  # how long a closed connection still swallows what comes, see _Pair.end
_COMMAND_TIMEOUT_S = 5


class Direction:
    """What happens to the bytes of one direction, of all connections. Set it at any time.

    *chunk*: bytes that are forwarded at once, 0: as they came; *gap*: seconds between chunks
    *delay*: seconds on the way; order is kept, and what follows does not wait for what is before
    *hole*: swallow everything, the end of the stream too, while both sides stay connected
    *held*: forward nothing and stop reading, so that the sender's buffers fill
    *passed*: bytes forwarded so far
    """

    def __init__(self, name):
        self.name = name
        self.chunk = 0
        self.gap = 0.0
        self.delay = 0.0
        self.hole = False
        self.held = False
        self.passed = 0
        self._cuts = deque()
        self._every_cut = None
        self._pauses = deque()

    def cut(self, after=0, how=RST, every=False):
        """Cut the connection when *after* more bytes have passed, with "fin" or "rst".

        It happens once, and several may be laid out: each counts from now, over all connections.
        *every*: each connection from now on is cut behind its own first *after* bytes.
        """
        if every:
            self._every_cut = (after, how)
        else:
            self._cuts = deque(sorted([*self._cuts, (self.passed + after, how)]))

    def pause(self, after, seconds):
        """Once, when *after* more bytes have passed, let the rest wait for *seconds*."""
        self._pauses = deque(sorted([*self._pauses, (self.passed + after, seconds)]))

    def heal(self):
        """Back to a plain wire; what is on its way still arrives."""
        self.chunk, self.gap, self.delay = 0, 0.0, 0.0
        self.hole = self.held = False
        self._cuts, self._every_cut, self._pauses = deque(), None, deque()

    def room(self, passed_here):
        """Bytes that may pass before something is due, None: any number."""
        marks = [mark for mark, _ in (*list(self._cuts)[:1], *list(self._pauses)[:1])]
        rooms = [mark - self.passed for mark in marks]
        if self._every_cut:
            rooms.append(self._every_cut[0] - passed_here)
        if self.chunk:
            rooms.append(self.chunk)
        return max(0, min(rooms)) if rooms else None

    def take_cut(self, passed_here):
        """The cut that is due now, or None."""
        if self._cuts and self.passed >= self._cuts[0][0]:
            return self._cuts.popleft()[1]
        if self._every_cut and passed_here >= self._every_cut[0]:
            return self._every_cut[1]
        return None

    def take_pause(self):
        """Seconds of the pause that is due now, or 0."""
        if self._pauses and self.passed >= self._pauses[0][0]:
            return self._pauses.popleft()[1]
        return 0


class FaultProxy:
    """Listens on *port* of 127.0.0.1 and forwards to *target_port*, in a thread of its own.

    *to_server*, *to_client*: the two `Direction`. *refuse*: accept, then reset at once.
    *accepted*: connections so far; *transcript*: every `Segment` in order of arrival.
    """

    def __init__(self, target_port, target_host="127.0.0.1"):
        self.port = 0
        self.refuse = False
        self.accepted = 0
        self.transcript = []
        self.to_server = Direction("to_server")
        self.to_client = Direction("to_client")
        self._target = (target_host, target_port)
        self._pairs = []
        self._tasks = set()
        self._connecting = 0
        self._listener = None
        self._accepting = None

    # --- life

    def __enter__(self):
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *exception):
        self.stop_listening()
        self._call(self._end_pairs(RST))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_COMMAND_TIMEOUT_S)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(_cancel_the_rest())
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_COMMAND_TIMEOUT_S)

    # --- what a test says

    def round_trip(self, seconds):
        """A link that takes *seconds* there and back."""
        self.to_server.delay = self.to_client.delay = seconds / 2

    def black_hole(self, swallow=True):
        """Half-open: nothing arrives on either side, and nobody is told."""
        self.to_server.hole = self.to_client.hole = swallow

    def heal(self):
        self.refuse = False
        self.to_server.heal()
        self.to_client.heal()

    def cut_now(self, how=RST):
        """End every connection, towards both sides; the proxy goes on listening."""
        self._call(self._end_pairs(how))

    def stop_listening(self):
        """From now on connections are refused; those that are there stay."""
        self._call(self._stop_listening())

    def listen(self):
        """Listen, again on the same port."""
        self._call(self._listen())

    def inject(self, data, way="to_client"):
        """Bytes that the other side never sent, behind those that are on their way."""
        self._call(self._inject(data, way))

    @property
    def connections(self):
        """How many are there now."""
        return len(self._pairs)

    @property
    def client_sockets(self):
        """Of the connections that are there now, the sockets towards the clients."""
        return [pair.client_socket for pair in list(self._pairs)]

    def segments(self, way="to_server"):
        """What arrived in one direction, read by read: with a little time between, send by send."""
        return [segment for segment in list(self.transcript) if segment.way == way]

    def received(self, way="to_server"):
        return b"".join(segment.data for segment in self.segments(way))

    # --- inside the thread

    async def _listen(self):
        if self._listener is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = self._loop.create_task(self._accept(listener))

    async def _stop_listening(self):
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        await _cancel(self._accepting)
        listener.close()

    async def _accept(self, listener):
        while True:
            client, _ = await self._loop.sock_accept(listener)
            self.accepted += 1
            if self.refuse:
                _reset(client)
            else:
                self._connecting += 1
                self.run_aside(self._connect(client))

    async def _connect(self, client):
        server = socket.socket()
        server.setblocking(False)
        try:
            await self._loop.sock_connect(server, self._target)
        except OSError:
            server.close()
            _reset(client)
            return
        finally:
            self._connecting -= 1
        pair = _Pair(self, client, server)
        self._pairs.append(pair)
        pair.start()

    async def _settle(self):
        """Both ends may have seen their connection before the pair of it is made here."""
        while self._connecting:
            await asyncio.sleep(0)

    async def _end_pairs(self, how):
        await self._settle()
        for pair in list(self._pairs):
            await pair.end(how)

    async def _inject(self, data, way):
        await self._settle()
        for pair in self._pairs:
            pair.inject(data, way)

    def run_aside(self, coroutine):
        """A task that nobody waits for; without a reference it could be collected while it runs."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, pair):
        if pair in self._pairs:
            self._pairs.remove(pair)


class _Pair:
    """The two sockets of one connection, and a `_Pump` for each direction."""

    def __init__(self, proxy, client, server):
        self._proxy = proxy
        self._sockets = (client, server)
        for each in self._sockets:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pumps = {
            "to_server": _Pump(self, proxy.to_server, client, server, proxy.transcript),
            "to_client": _Pump(self, proxy.to_client, server, client, proxy.transcript),
        }
        self._is_ended = False

    def start(self):
        for pump in self._pumps.values():
            pump.start()

    @property
    def client_socket(self):
        return self._sockets[0]

    def inject(self, data, way):
        self._pumps[way].put(data, 0)

    def end_soon(self, how):
        """`end` from inside a pump, which is itself ended by it."""
        self._proxy.run_aside(self.end(how))

    def end_when_both_ended(self):
        if all(pump.is_ended for pump in self._pumps.values()):
            self.end_soon(FIN)

    async def end(self, how):
        if self._is_ended:
            return
        self._is_ended = True
        self._proxy.forget(self)
        for pump in self._pumps.values():
            await pump.stop()
        for each in self._sockets:
            if how == RST:
                _reset(each)
            else:
                self._proxy.run_aside(_finish(each))


class _Pump:
    """One direction of one connection: a reader that stamps, a writer that waits until it is due.

    Two tasks and a queue between them are what keeps a delay from slowing the rate.
    """

    def __init__(self, pair, rules, source, sink, transcript):
        self._pair = pair
        self._rules = rules
        self._source = source
        self._sink = sink
        self._transcript = transcript
        self._queue = asyncio.Queue()
        self._passed = 0
        self._tasks = []
        self.is_ended = False

    def start(self):
        self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]

    async def stop(self):
        for task in self._tasks:
            await _cancel(task)

    def put(self, data, delay):
        self._queue.put_nowait((time.monotonic() + delay, data))

    async def _read(self):
        loop = asyncio.get_event_loop()
        data = b"?"
        while data:
            await self._wait_while_held()
            try:
                data = await loop.sock_recv(self._source, _READ_BYTES)
            except OSError:
                data = None
            if data:
                self._transcript.append(Segment(self._rules.name, time.monotonic(), data))
            if not self._rules.hole:
                self.put(data, self._rules.delay)

    async def _write(self):
        while True:
            due, data = await self._queue.get()
            await asyncio.sleep(max(0, due - time.monotonic()))
            await self._wait_while_held()
            try:
                if not data:
                    return self._end(data)
                if not await self._forward(data):
                    return None
            except OSError:
                return self._pair.end_soon(RST)

    def _end(self, data):
        """The stream ended, with a reset (None) or without (empty)."""
        if data is None:
            self._pair.end_soon(RST)
            return
        self.is_ended = True
        self._sink.shutdown(socket.SHUT_WR)
        self._pair.end_when_both_ended()

    async def _forward(self, data):
        """Whether the connection is still there afterwards."""
        loop = asyncio.get_event_loop()
        rest = memoryview(data)
        while True:
            how = self._rules.take_cut(self._passed)
            if how:
                self._pair.end_soon(how)
                return False
            if not rest:
                return True
            await asyncio.sleep(self._rules.take_pause())
            await self._wait_while_held()
            if self._rules.hole:
                return True
            part = rest[: self._rules.room(self._passed)]
            # Counted first: who has seen a byte arrive and then says "from now" means behind it.
            self._rules.passed += len(part)
            self._passed += len(part)
            await loop.sock_sendall(self._sink, part)
            rest = rest[len(part) :]
            if rest and self._rules.gap:
                await asyncio.sleep(self._rules.gap)

    async def _wait_while_held(self):
        while self._rules.held:
            await asyncio.sleep(_HELD_POLL_S)


def _reset(sock):
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


async def _finish(sock):
    """FIN, and nothing but a FIN.

    close() with unread bytes, or bytes that come after it, makes a reset. A test that says "fin"
    wants to see how a FIN alone is found, so swallow for a while before closing.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(_swallow(sock), _LINGER_S)
    except (OSError, asyncio.TimeoutError):
        pass
    finally:
        sock.close()


async def _swallow(sock):
    loop = asyncio.get_event_loop()
    while await loop.sock_recv(sock, _READ_BYTES):
        pass


async def _cancel(task):
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


async def _cancel_the_rest():
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            await _cancel(task)
