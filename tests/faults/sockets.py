# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The socket families of CircuitPython, emulated over real sockets: what they return and raise.

Each pool can be handed over as ``socket_pool``. None has a ``timeout`` attribute, by which MiniMQTT
tells CPython's socket module from a board's pool.

=============  =========  ==========  =========  =========  ==========================
recv_into      Espressif  Pico W      AirLift    WIZnet5k   CPython
=============  =========  ==========  =========  =========  ==========================
nothing, t=0   EAGAIN     EAGAIN      0          EAGAIN     EAGAIN
nothing, t>0   ETIMEDOUT  ETIMEDOUT   ETIMEDOUT  ETIMEDOUT  TimeoutError
FIN, t=0       ENOTCONN   0           0          0          0
FIN, t>0       0          0           ETIMEDOUT  0          0
RST, t=0       EAGAIN x2, ECONNRESET  0          0          ECONNRESET
               ENOTCONN
closed by us   EBADF      EBADF       0          Runtime-   EBADF
                                                 Error
=============  =========  ==========  =========  =========  ==========================
"""

import errno
import select
import socket
import time

_TICK_S = 0.0005


def _os_error(number):
    """As a board raises it: CPython sets errno only when there are two arguments.

    A board never turns it into a subclass either; CPython does, so go by errno, not by class.
    """
    return OSError(number, errno.errorcode.get(number, "?"))


class _Timeout:
    """Whether the time of a call is up; None never, 0 at once."""

    def __init__(self, seconds):
        self._seconds = seconds
        self.restart()

    def restart(self):
        self._started = time.monotonic()

    @property
    def is_over(self):
        return self._seconds is not None and time.monotonic() - self._started > self._seconds


class _Pool:
    """What the four pools share. *sockets* holds every socket that was made."""

    AF_INET = 2
    SOCK_STREAM = 1
    SOCK_DGRAM = 2
    IPPROTO_TCP = socket.IPPROTO_TCP
    TCP_NODELAY = socket.TCP_NODELAY

    socket_class: type

    def __init__(self, send_buffer_bytes=None):
        self.send_buffer_bytes = send_buffer_bytes
        self.sockets = []

    def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        if not isinstance(port, int):
            raise ValueError("Port must be an integer")
        try:
            address = socket.gethostbyname(host)
        except OSError:
            raise self._name_error() from None
        return [(self.AF_INET, type or self.SOCK_STREAM, proto, "", (address, port))]

    def _name_error(self):
        return OSError(-2, "Name or service not known")

    def socket(self, family=None, type=1, proto=0):
        if family not in (None, self.AF_INET):
            raise NotImplementedError("Only IPv4 sockets supported")
        made = self.socket_class(self)
        self.sockets.append(made)
        return made

    @property
    def open_sockets(self):
        return [made for made in self.sockets if not made.is_closed]


class _Socket:
    """A real socket that never blocks, and what was counted: *receives* and *sends* are calls."""

    type = 1

    def __init__(self, pool):
        self._real = socket.socket()
        if pool.send_buffer_bytes:
            self._real.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, pool.send_buffer_bytes)
        self._real.setblocking(False)
        self._timeout = None
        self.receives = self.sends = 0

    @property
    def is_closed(self):
        return self._real.fileno() < 0

    def settimeout(self, seconds):
        # Boards keep whole milliseconds: half a millisecond is "do not block".
        self._timeout = None if seconds is None else int(seconds * 1000) / 1000

    def setblocking(self, flag):
        self.settimeout(None if flag else 0)

    def setsockopt(self, level, option, value):
        self._real.setsockopt(level, option, value)

    def close(self):
        self._real.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _read(self, view):
        """Bytes read, 0 after a FIN, None when there is nothing; a reset raises OSError."""
        try:
            return self._real.recv_into(view)
        except BlockingIOError:
            return None

    def _start_to_connect(self, address):
        try:
            self._real.connect(address)
        except BlockingIOError:
            pass

    def _connect_result(self, seconds):
        """None: not yet; 0: connected; else the errno."""
        if not select.select([], [self._real], [], seconds)[1]:
            return None
        return self._real.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _connect_blocking(self, address, seconds):
        """For chips that connect by themselves; raises OSError."""
        self._real.settimeout(seconds)
        try:
            self._real.connect(address)
        finally:
            self._real.setblocking(False)


def _view(buffer, size):
    view = memoryview(buffer)
    if size > len(view):
        raise ValueError("buffer too small for requested bytes")
    return view[:size] if size > 0 else view


class EspressifSocket(_Socket):
    """ports/espressif/common-hal/socketpool/Socket.c of CircuitPython 10.

    lwIP's own sockets, always non-blocking inside; a timeout is a loop around them.
    """

    _resets_told = 0
    is_connected = False

    def fileno(self):
        return self._real.fileno()

    def connect(self, address):
        self._start_to_connect(address)
        left = float("inf") if self._timeout is None else self._timeout
        while left > 0:  # so a timeout of 0 never even looks
            result = self._connect_result(0.1)
            if result:
                raise _os_error(result)
            if result == 0:
                self.is_connected = True
                return
            left -= 0.1
        raise _os_error(errno.ETIMEDOUT)

    def _receive(self, view):
        """(-1 or what recv gives, errno)."""
        if self._resets_told:
            return self._after_reset()
        try:
            got = self._read(view)
        except OSError:
            return self._after_reset()
        return (-1, errno.EAGAIN) if got is None else (got, 0)

    def _after_reset(self):
        # lwIP tells a reset twice, from then on the socket is not connected.
        self._resets_told += 1
        return -1, errno.ECONNRESET if self._resets_told < 3 else errno.ENOTCONN

    def recv_into(self, buffer, size=0):
        self.receives += 1
        if self.is_closed:
            raise _os_error(errno.EBADF)
        view = _view(buffer, size)
        if self._timeout == 0:
            return self._recv_at_once(view)
        started = time.monotonic()
        while True:
            # Looks at the clock before it reads: bytes that come in the last round are read and
            # lost. The reason never to read with a timeout.
            timed_out = self._timeout and time.monotonic() - started >= self._timeout
            got, _ = self._receive(view)
            if timed_out:
                raise _os_error(errno.ETIMEDOUT)
            if got >= 0:
                return got
            time.sleep(_TICK_S)

    def _recv_at_once(self, view):
        got, error = self._receive(view)
        if got > 0:
            return got
        if got == 0 or error == errno.ENOTCONN:
            self.is_connected = False
            raise _os_error(errno.ENOTCONN)
        raise _os_error(errno.EAGAIN)  # also for a reset that is told the first time

    def send(self, data):
        self.sends += 1
        if self.is_closed:
            raise _os_error(errno.EBADF)
        if not self.is_connected:
            raise BrokenPipeError(errno.EPIPE, "EPIPE")
        try:
            return self._real.send(data)  # EAGAIN whatever the timeout
        except OSError as error:
            if error.errno in (errno.ECONNRESET, errno.ENOTCONN):
                self.is_connected = False
            raise


class EspressifPool(_Pool):
    """ESP32-S2, -S3, -C3, -C6: ``socketpool.SocketPool(wifi.radio)``."""

    socket_class = EspressifSocket


class PicoSocket(_Socket):
    """ports/raspberrypi/common-hal/socketpool/Socket.c of CircuitPython 10: lwIP's raw API.

    Its poll never shows a reset; that half of it is `BlindPoll`.
    """

    _CONNECTING = 0
    _CONNECTED = 1

    def __init__(self, pool):
        super().__init__(pool)
        self._state = None
        self._error = 0

    def fileno(self):
        return self._real.fileno()

    def connect(self, address):
        self._start_to_connect(address)
        self._state = self._CONNECTING
        left = None if self._timeout is None else int(self._timeout * 10)
        while left is None or left > 0:
            time.sleep(0.1)  # fixed steps: no connection in less than that
            self._look()
            if self._error:
                raise _os_error(self._error)
            if self._state == self._CONNECTED:
                return
            left = None if left is None else left - 1
        raise _os_error(errno.EINPROGRESS)

    def _look(self):
        """A connection that was still being made when connect() gave up may be there now."""
        if self._state == self._CONNECTING:
            result = self._connect_result(0)
            if result == 0:
                self._state = self._CONNECTED
            elif result:
                self._error = result

    def _check(self):
        if self.is_closed:
            raise _os_error(errno.EBADF)
        self._look()
        if self._error:
            raise _os_error(self._error)

    def _read_or_fail(self, view):
        try:
            return self._read(view) if self._state == self._CONNECTED else None
        except OSError as error:
            self._error = error.errno or errno.ECONNRESET
            raise _os_error(self._error) from None

    def recv_into(self, buffer, size=0):
        self.receives += 1
        view = _view(buffer, size)
        timeout = _Timeout(self._timeout)
        while True:
            self._check()
            got = self._read_or_fail(view)
            if got is not None:
                return got
            if self._timeout == 0:
                raise _os_error(errno.EAGAIN)
            if timeout.is_over:
                raise _os_error(errno.ETIMEDOUT)
            time.sleep(0.001)

    def send(self, data):
        self.sends += 1
        timeout = _Timeout(self._timeout)
        while True:
            self._check_connected()
            try:
                return self._real.send(data)
            except BlockingIOError:
                self._wait_to_send(timeout)
            except OSError as error:
                self._error = error.errno or errno.ECONNRESET
                raise BrokenPipeError(errno.EPIPE, "EPIPE") from None

    def _check_connected(self):
        if self.is_closed:
            raise _os_error(errno.EBADF)
        self._look()
        if self._state != self._CONNECTED or self._error:
            raise BrokenPipeError(errno.EPIPE, "EPIPE")

    def _wait_to_send(self, timeout):
        if self._timeout == 0:
            raise _os_error(errno.EAGAIN)
        if timeout.is_over:
            raise _os_error(errno.ETIMEDOUT)
        time.sleep(0.001)


class PicoPool(_Pool):
    """Pico W and Pico 2 W: ``socketpool.SocketPool(wifi.radio)``."""

    socket_class = PicoSocket


class AirLiftSocket(_Socket):
    """adafruit_esp32spi_socketpool.py of ESP32SPI 11: a co-processor that is asked over SPI.

    It can't be polled. Neither FIN nor RST shows in recv_into: 0 means "nothing yet".
    """

    COMMAND_S = 0.0015  # one SPI command and its answer
    _PACKET_BYTES = 64
    _MAX_READ_BYTES = 4000

    def __init__(self, pool):
        super().__init__(pool)
        self._timeout = 0
        self._arrived = b""
        self._ended = False

    def settimeout(self, seconds):
        if seconds is not None and seconds < 0:
            raise ValueError("Timeout cannot be a negative number")
        super().settimeout(seconds)

    def setsockopt(self, *options, **more):
        """There for compatibility, as in the original."""

    def connect(self, address, conntype=None):
        try:
            self._connect_blocking(address, 3)
        except OSError:
            raise ConnectionError("Failed to connect to host", address[0]) from None

    def _collect(self):
        """What the co-processor does by itself."""
        while not self._ended:
            try:
                data = self._real.recv(self._MAX_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._ended = not data
            self._arrived += data

    def _available(self):
        time.sleep(self.COMMAND_S)
        self._collect()
        return min(len(self._arrived), self._MAX_READ_BYTES)

    def _connected(self):
        if self._available():
            return True
        time.sleep(self.COMMAND_S)
        if self._ended:
            self.close()
        return not self._ended

    def recv_into(self, buffer, size=0):
        self.receives += 1
        if not 0 <= size <= len(buffer):
            raise ValueError("nbytes must be 0 to len(buffer)")
        wanted, got = size or len(buffer), 0
        timeout = _Timeout(self._timeout)
        while got < wanted:
            count = min(self._available(), wanted - got)
            if count:
                timeout.restart()
                time.sleep(self.COMMAND_S)
                buffer[got : got + count] = self._arrived[:count]
                self._arrived = self._arrived[count:]
                got += count
            elif got:
                break
            if self._timeout == 0:
                break
            if timeout.is_over:
                raise _os_error(errno.ETIMEDOUT)
        return got

    def send(self, data):
        self.sends += 1
        data = bytes(data)
        time.sleep(self.COMMAND_S * (len(data) // self._PACKET_BYTES + 2))
        sent = self._send_some(data)
        if sent != len(data):
            self.close()
            raise ConnectionError("Failed to send %d bytes (sent %d)" % (len(data), sent))
        return sent

    def _send_some(self, data):
        try:
            return self._real.send(data)
        except OSError:
            return 0


class AirLiftPool(_Pool):
    """``adafruit_connection_manager.get_radio_socketpool(ESP_SPIcontrol(...))``."""

    NO_SOCKET_AVAIL = 255
    MAX_PACKET = 4000
    socket_class = AirLiftSocket

    def __init__(self, send_buffer_bytes=None):
        super().__init__(send_buffer_bytes)
        self._interface = object()

    def _name_error(self):
        return ConnectionError("Failed to request hostname")


class WiznetSocket(_Socket):
    """adafruit_wiznet5k_socketpool.py of WIZnet5k 7: RuntimeError where others say OSError.

    It can't be polled. send() waits for the peer's acknowledgement, with a timeout of 0 for as long
    as the chip tries; set *peer_acknowledges* to False to see that.
    """

    REGISTER_S = 0.0002  # one register read over SPI
    GIVES_UP_S = 30  # the chip, on a peer that acknowledges nothing
    CHIP_BUFFER_BYTES = 2048

    def __init__(self, pool):
        super().__init__(pool)
        self._timeout = pool.getdefaulttimeout()
        self.peer_acknowledges = True

    def _check(self):
        if self.is_closed:
            raise RuntimeError("The socket has been closed.")

    def settimeout(self, seconds):
        self._check()
        if seconds is not None and seconds < 0:
            raise ValueError("Timeout must be None, 0.0 or a positive numeric value.")
        self._timeout = seconds

    def setblocking(self, flag):
        if flag not in (True, False):
            raise TypeError("Flag must be a boolean.")
        self.settimeout(None if flag else 0.0)

    def setsockopt(self, level, option, value):
        self._check()
        raise OSError

    def close(self):
        self._check()
        super().close()

    def __exit__(self, *exception):
        super().close()

    @property
    def _connected(self):
        """As in the original it closes the socket: nobody but the driver should touch it."""
        if self.is_closed:
            return False
        if self._peer_is_gone():
            super().close()
            return False
        return True

    def _peer_is_gone(self):
        try:
            return self._real.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def connect(self, address):
        self._check()
        try:
            self._connect_blocking(address, self.GIVES_UP_S)
        except OSError:
            raise ConnectionError("Failed to establish connection.") from None

    def recv_into(self, buffer, size=0, flags=0):
        self._check()
        self.receives += 1
        if not 0 <= size <= len(buffer):
            raise ValueError("nbytes must be 0 to len(buffer)")
        view = _view(buffer, size)
        timeout = _Timeout(self._timeout)
        while True:
            time.sleep(self.REGISTER_S * 5)
            try:
                got = self._read(view)
            except OSError:
                return 0
            if got is not None:
                return got
            if self._timeout == 0:
                raise _os_error(errno.EAGAIN)
            if timeout.is_over:
                raise _os_error(errno.ETIMEDOUT)

    def send(self, data):
        self._check()
        self.sends += 1
        timeout = _Timeout(self._timeout or self.GIVES_UP_S)
        time.sleep(self.REGISTER_S * 20)
        while True:
            sent = self._send_some(data)
            if sent and self.peer_acknowledges:
                return sent
            if timeout.is_over:
                raise RuntimeError("Operation timed out. No data sent.")
            time.sleep(_TICK_S)

    def _send_some(self, data):
        if not self.peer_acknowledges:
            return 0
        try:
            return self._real.send(bytes(data[: self.CHIP_BUFFER_BYTES]))
        except BlockingIOError:
            return 0
        except OSError:
            raise RuntimeError("No data was sent, socket was closed.") from None


class WiznetPool(_Pool):
    """``adafruit_connection_manager.get_radio_socketpool(WIZNET5K(...))``."""

    AF_INET = 3
    socket_class = WiznetSocket

    def __init__(self, send_buffer_bytes=None):
        super().__init__(send_buffer_bytes)
        self._interface = object()
        self._default_timeout = None

    def _name_error(self):
        return RuntimeError("Failed to resolve hostname!")

    def getdefaulttimeout(self):
        return self._default_timeout

    def setdefaulttimeout(self, seconds):
        self._default_timeout = seconds


BOARD_POOLS = (EspressifPool, PicoPool, AirLiftPool, WiznetPool)


class BlindPoll:
    """``select.poll`` of a Pico W, which never shows a reset: put it in with monkeypatch.

    ports/raspberrypi: socketpool_socket_poll looks for arrived data and a closed peer only.
    """

    def __init__(self):
        self._poll = _real_poll()
        self.register, self.unregister = self._poll.register, self._poll.unregister
        self.modify = self._poll.modify

    def poll(self, timeout=None):
        blind = select.POLLERR
        return [(fd, event) for fd, event in self._poll.poll(timeout) if not event & blind]


_real_poll = getattr(select, "poll", None)  # there is none on Windows


class _CountedSocket(socket.socket):
    """A socket of this computer that tells its `CountingPool` what is done with it."""

    def __init__(self, counter, *arguments):
        super().__init__(*arguments)
        self._counter = counter
        self._is_counted = True

    def send(self, data, *flags):
        sent = super().send(data, *flags)
        self._counter.sends.append(bytes(data[:sent]))
        return sent

    def sendall(self, data, *flags):
        super().sendall(data, *flags)
        self._counter.sends.append(bytes(data))

    def close(self):
        self._end()
        super().close()

    def detach(self):
        self._end()  # TLS takes the file descriptor and closes it: not ours to count any more
        return super().detach()

    def _end(self):
        if self._is_counted:
            self._is_counted = False
            self._counter.closed += 1


class CountingPool:
    """CPython's socket module, with counters.

    *opened* and *closed*: sockets, where one that is handed over to TLS counts as closed.
    *sends*: what each send() took, in order, of all sockets; not inside TLS.

    Each object is a pool of its own for ConnectionManager, which wants but one socket for a host
    and port in a pool: two clients to one server take two of them.
    """

    def __init__(self, send_buffer_bytes=None):
        self._send_buffer_bytes = send_buffer_bytes
        self.opened = self.closed = 0
        self.sends = []

    def __getattr__(self, name):
        return getattr(socket, name)

    def socket(self, *arguments):
        made = _CountedSocket(self, *arguments)
        if self._send_buffer_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
        self.opened += 1
        return made
