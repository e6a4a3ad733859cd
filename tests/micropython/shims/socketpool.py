# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""CircuitPython's socketpool over MicroPython's socket, as far as ConnectionManager and we use it.

Mirrors the native sockets of boards: `recv_into` and `send` raise EAGAIN when they would block,
a closed peer reads as 0, and select.poll() takes them without allocating (an ioctl on IOBase).
TLS wraps a socket before it is connected, as on boards.
"""

import errno
import io
import select
import socket

_MP_STREAM_POLL = 3
_MP_STREAM_GET_FILENO = 10


class Socket(io.IOBase):
    def __init__(self, family, kind):
        self._raw = socket.socket(family, kind)
        self._stream = self._raw
        self._tls = None

    def ioctl(self, request, flags):
        if request == _MP_STREAM_GET_FILENO and self._tls is None:
            return self._raw.fileno()
        if request != _MP_STREAM_POLL:
            return -errno.EINVAL  # TLS may hold what the system does not see any more
        for _, ready in self._poller.ipoll(0):
            return ready & flags
        return 0

    def settimeout(self, timeout):
        self._raw.settimeout(timeout)

    def setsockopt(self, level, option, value):
        self._raw.setsockopt(level, option, value)

    def connect(self, address):
        found = socket.getaddrinfo(address[0], address[1], socket.AF_INET, socket.SOCK_STREAM)
        self._raw.connect(found[0][-1])
        if self._tls is not None:
            context, name = self._tls
            self._raw.setblocking(True)
            self._stream = context.wrap_socket(self._raw, server_hostname=name)
        self._poller = select.poll()
        self._poller.register(self._stream, select.POLLIN)

    def send(self, data):
        sent = self._stream.write(data)
        if sent is None:
            raise OSError(errno.EAGAIN)
        return sent

    def recv_into(self, buffer, size=0):
        if size and size < len(buffer):
            buffer = memoryview(buffer)[:size]
        received = self._stream.readinto(buffer)
        if received is None:
            raise OSError(errno.EAGAIN)
        return received

    def wrap(self, context, host):
        self._tls = (context, host)

    def close(self):
        self._stream.close()


class SocketPool:
    AF_INET = socket.AF_INET
    SOCK_STREAM = socket.SOCK_STREAM
    IPPROTO_TCP = 6
    TCP_NODELAY = 1

    def getaddrinfo(self, host, port, family=0, kind=0):
        socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        return [(self.AF_INET, self.SOCK_STREAM, 0, "", (host, port))]

    def socket(self, family=AF_INET, kind=SOCK_STREAM):
        return Socket(family, kind)


class TLSContext:
    """Trusts *authority*, shows *certificate*: paths of files, which mbedTLS takes as DER."""

    def __init__(self, authority, certificate=None, key=None):
        import ssl

        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(cadata=_content(authority))
        if certificate is not None:
            self._context.load_cert_chain(_content(certificate), _content(key))

    def wrap_socket(self, sock, server_hostname=None):
        sock.wrap(self._context, server_hostname)
        return sock


def _content(path):
    with open(path, "rb") as file:
        return file.read()
