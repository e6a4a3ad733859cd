# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""TLS of a board: an SSLContext that wraps a socket which is not connected yet.

Mirrors shared-module/ssl of CircuitPython 10: load_verify_locations() takes PEM text and replaces
the authorities that the board brings; an SSLSocket says EAGAIN when there is nothing to read.
"""

import errno
import ssl


class SSLContext:
    def __init__(self):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def load_verify_locations(self, *, cadata):
        if not isinstance(cadata, str):
            raise TypeError("cadata: PEM text")
        self._context.load_verify_locations(cadata=cadata)

    def wrap_socket(self, sock, server_side=False, server_hostname=None):
        return SSLSocket(sock, self._context, server_hostname)


class SSLSocket:
    def __init__(self, sock, context, host):
        self._socket, self._context, self._host = sock, context, host
        self._timeout_s = None

    def settimeout(self, seconds):
        self._timeout_s = seconds
        self._socket.settimeout(seconds)

    def connect(self, address):
        self._socket.connect(address)
        real = self._socket._real
        real.settimeout(self._timeout_s)
        self._socket._real = self._context.wrap_socket(real, server_hostname=self._host)
        self._socket._real.setblocking(False)

    def fileno(self):
        return self._socket._real.fileno()

    def recv_into(self, buffer, size=0):
        return self._would_block(self._socket._real.recv_into, buffer, size or len(buffer))

    def send(self, data):
        return self._would_block(self._socket._real.send, data)

    def _would_block(self, call, *arguments):
        try:
            return call(*arguments)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise OSError(errno.EAGAIN, "EAGAIN") from None

    def close(self):
        self._socket.close()
