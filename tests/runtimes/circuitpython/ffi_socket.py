# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Sockets of the C library for CircuitPython's Unix port, which has none but may have `ffi`.

As far as the shim `socketpool` uses them: IPv4, numeric addresses, Linux.
"""

import errno
import io
import os
import struct

import ffi

AF_INET = 2
SOCK_STREAM = 1

_FILENO = 10  # requests of select.poll() to a stream, py/stream.h
_DONTWAIT = 0x40
_NOSIGNAL = 0x4000
_SOL_SOCKET, _RCVTIMEO, _SNDTIMEO = 1, 20, 21

_c = ffi.open(None)
_socket = _c.func("i", "socket", "iii")
_connect = _c.func("i", "connect", "ipi")
_setsockopt = _c.func("i", "setsockopt", "iiipi")
_send = _c.func("i", "send", "ipii")
_recv = _c.func("i", "recv", "ipii")
_close = _c.func("i", "close", "i")


def _checked(result):
    if result < 0:
        raise OSError(os.errno())
    return result


def getaddrinfo(host, port, _family=0, kind=0, _protocol=0, _flags=0):
    if host == "localhost":
        host = "127.0.0.1"
    address = bytes([int(part) for part in host.split(".")])
    packed = struct.pack("<H", AF_INET) + struct.pack(">H", int(port)) + address + bytes(8)
    return [(AF_INET, kind, 0, "", packed)]


class socket(io.IOBase):
    def __init__(self, family, kind):
        self._number = _checked(_socket(family, kind, 0))
        self._flags = 0

    def fileno(self):
        return self._number

    def ioctl(self, request, _argument):
        return self._number if request == _FILENO else -errno.EINVAL

    def settimeout(self, seconds):
        """Until the connection is there a timeout bounds it, afterwards only 0 is used."""
        self._flags = _DONTWAIT if seconds == 0 else 0
        milliseconds = int((seconds or 0) * 1000)
        pause = struct.pack("ll", milliseconds // 1000, milliseconds % 1000 * 1000)
        for option in (_RCVTIMEO, _SNDTIMEO):
            _checked(_setsockopt(self._number, _SOL_SOCKET, option, pause, len(pause)))

    def setsockopt(self, level, option, value):
        packed = struct.pack("i", value)
        _checked(_setsockopt(self._number, level, option, packed, len(packed)))

    def connect(self, address):
        _checked(_connect(self._number, address, len(address)))

    def write(self, data):
        return self._moved(_send(self._number, data, len(data), self._flags | _NOSIGNAL))

    def readinto(self, buffer):
        return self._moved(_recv(self._number, buffer, len(buffer), self._flags))

    def _moved(self, size):
        """Bytes, None if it would block."""
        if size < 0 and os.errno() == errno.EAGAIN:
            return None
        return _checked(size)

    def close(self):
        if self._number >= 0:
            _close(self._number)
            self._number = -1
