# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""`LocalServer`: ThingsBoard's MQTT device API in a thread, for tests and for the demo."""

import asyncio
import os
import socket
import threading
from concurrent.futures import Future

from . import page
from .device import Device
from .thingsboard import Credentials, ThingsBoard

_BACKLOG = 4096  # devices that connect at the same moment
_INACTIVITY_CHECK_S = 0.2
_CLOSE_S = 0.5  # for connections to end by themselves


def _setting(name):
    """A property that reads and writes an attribute of the `ThingsBoard`."""

    def read(server):
        return getattr(server.board, name)

    def write(server, value):
        setattr(server.board, name, value)

    return property(read, write)


class LocalServer:
    """A ThingsBoard stand-in with its own thread and event loop; every call may block shortly.

    Use it in a ``with`` statement, or call `start` and `close`. Every attribute and method may be
    used from any thread.

    :param int port: TCP port for MQTT; 0 is a free one
    :param ssl.SSLContext ssl_context: makes it a TLS port; default: plain
    :param int page_port: TCP port of the page; 0 is a free one; default: no page
    :param str host: address to listen on
    """

    #: how many telemetry rows, messages and RPC replies each device added from now on keeps
    keep = _setting("keep")
    #: ``f()``: the time of the server, in milliseconds since 1970; default: that of the computer
    clock_ms = _setting("now_ms")
    #: ``f()``: the time that rate limits go by, in seconds; default: that of the event loop
    monotonic_s = _setting("monotonic_s")
    #: seconds without activity after which a session is closed; the keep-alive is ignored
    inactivity_s = _setting("inactivity_s")
    #: seconds until a client-side RPC that nobody answers gets ``{"error":"timeout"}``
    client_rpc_timeout_s = _setting("client_rpc_timeout_s")
    # Three that ThingsBoard does not have: they protect the stand-in beyond loopback.
    #: how many connections may be open; one more is closed at once
    max_connections = _setting("max_connections")
    #: seconds until a connection without a CONNECT is closed; None: never, as by ThingsBoard
    connect_timeout_s = _setting("connect_timeout_s")
    #: bytes that are held for one connection: of what its peer does not read, after which it is
    #: reset, and of what comes before the CONNACK, after which it is closed
    max_held_bytes = _setting("max_held_bytes")

    def __init__(self, port=0, ssl_context=None, page_port=None, host="127.0.0.1"):
        self.port = port
        self.url = None
        self._host = host
        self._page_port = page_port
        self._ssl_context = ssl_context
        self._loop = asyncio.new_event_loop()
        self._thread = None
        self._listener = None  # the asyncio server, while it listens
        self._reserved = None  # a bound socket that keeps the port, while it does not
        self._page = None
        self._go_on = threading.Event()
        self.board = ThingsBoard(self._loop)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exception):
        self.close()

    # --- life ---

    def start(self):
        """Listen; return when devices can connect.

        :raises OSError: the port is taken
        """
        self._thread = threading.Thread(target=self._run, name="local_server", daemon=True)
        self._thread.start()
        try:
            self._await(self._open())
        except BaseException:
            self.close()
            raise

    def close(self):
        """Close every connection and end the thread; what devices stored stays readable."""
        if self._thread is None:
            return
        self.go_on()
        self._await(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = None
        self._loop.close()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _open(self):
        await self._listen()
        if self._page_port is not None:
            self._page, self.url = await page.serve(self.board, self._host, self._page_port)
        self._check_inactivity()

    async def _end(self):
        with self.board.changes:
            self.board.give_up_rpcs("the server was closed")
        await self._stop_listening(rst=False)
        if self._reserved is not None:
            self._reserved.close()
        if self._page is not None:
            self._page.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # browsers that are answered
            task.cancel()
        await asyncio.sleep(0)

    def _check_inactivity(self):
        with self.board.changes:
            self.board.close_inactive_sessions()
        self._loop.call_later(_INACTIVITY_CHECK_S, self._check_inactivity)

    # --- listening ---

    def stop_listening(self, rst=False):
        """The server goes down: close every connection, with FIN or RST, and refuse new ones."""
        self._await(self._stop_listening(rst))

    def listen_again(self):
        """The server comes back: same port, same devices and data."""
        self._await(self._listen())

    async def _listen(self):
        if self._listener is not None:
            return
        listening = self._reserved or _bind(self._host, self.port)
        self._reserved = None
        self.port = listening.getsockname()[1]
        self.board.is_listening = True
        self._listener = await self._loop.create_server(
            self.board.new_session,
            sock=listening,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._ssl_context and self.connect_timeout_s,
            backlog=_BACKLOG,
        )

    async def _stop_listening(self, rst):
        self.board.is_listening = False
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            # Bound but not listening, a socket refuses connections, and nobody takes the port.
            self._reserved = _bind(self._host, self.port)
        with self.board.changes:
            self.board.close_sessions(rst)
        await self._wait_for_closed_sessions()

    async def _wait_for_closed_sessions(self):
        deadline = self._loop.time() + _CLOSE_S
        while self.board.sessions and self._loop.time() < deadline:
            await asyncio.sleep(0.001)
        with self.board.changes:
            for session in list(self.board.sessions):
                session.abort()
        await asyncio.sleep(0)  # lets the aborted ones report their end

    # --- a server that hangs ---

    def hang(self, seconds=None):
        """Do nothing at all for a while: neither read, write nor notice the time.

        Then it goes on with whatever waited, and stores it with the time at which it goes on.
        Calls that need the server's thread, such as `Device.push_attributes`, wait as well.

        :param float seconds: how long; default: until `go_on`
        """
        self.refuse_own_thread()
        self._go_on.clear()
        hung = threading.Event()
        self._loop.call_soon_threadsafe(self._hang, hung, seconds)
        hung.wait()

    def _hang(self, hung, seconds):
        hung.set()
        self._go_on.wait(seconds)

    def go_on(self):
        """End a `hang`."""
        self._go_on.set()

    # --- calls from other threads ---

    @property
    def changes(self):
        """`Changes` of the protocol half, for whoever waits."""
        return self.board.changes

    @property
    def lock(self):
        """Held while what is stored changes."""
        return self.board.changes.lock

    def call(self, function, *arguments):
        """Call *function* on the server's thread and return what it returns."""
        if self._thread is None or self._is_own_thread():
            with self.board.changes:
                return function(*arguments)
        result = Future()
        self._loop.call_soon_threadsafe(self._call, result, function, arguments)
        return result.result()

    def _call(self, result, function, arguments):
        try:
            with self.board.changes:
                value = function(*arguments)
        except Exception as error:  # whatever it is, it belongs to the calling thread
            result.set_exception(error)
        else:
            result.set_result(value)

    def _await(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _is_own_thread(self):
        return threading.current_thread() is self._thread

    def refuse_own_thread(self):
        """Refuse a call that would wait for the very thread that it blocks.

        :raises RuntimeError: called from `Device.on_client_rpc`, for example
        """
        if self._is_own_thread():
            raise RuntimeError("this blocks, so it can't be called on the server's thread")

    # --- devices ---

    def add_device(self, name, token=None, *, client_id=None, username=None, password=None):
        """Register a device and return its `Device`.

        :param str token: its ACCESS_TOKEN; or else the parts of MQTT_BASIC:
        :param str client_id: checked if given; likewise *username* and *password*
        :raises ValueError: the credentials are incomplete, mixed or in use
        """
        credentials = Credentials(token, client_id, username, password)
        return Device(self, self.board.add_device(name, credentials))

    def restart_actors(self):
        """Forget pending RPCs and count their ids from 0 again, as after a server restart."""
        self.call(self.board.restart_actors)

    @property
    def tenant_limits(self):
        """The `RateLimits` that all devices share; each has `Device.limits` of its own too."""
        return self.board.tenant_limits

    # --- what goes on ---

    @property
    def faults(self):
        """The `Faults`, all switchable while it runs."""
        return self.board.faults

    @property
    def connections(self):
        """How many TCP connections are open."""
        return len(self.board.sessions)

    @property
    def accepted(self):
        """How many TCP connections there have been."""
        return self.board.accepted

    @property
    def packets(self):
        """``[(device name or None, "in" or "out", type name), ...]``, the last 10000."""
        with self.lock:
            return list(self.board.packets)

    def inject(self, data):
        """Send raw bytes to every open connection now."""
        self.call(self.board.inject, data)


def _bind(host, port):
    # With the protocol left to default, asyncio would not set TCP_NODELAY on what is accepted.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
