# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""For MicroPython without a network: a socket pool whose only socket answers as a server would.

Put into sys.modules as `select` too: its poll() allocates nothing, like that of a board.
"""

import errno

AF_INET = 2
SOCK_STREAM = 1
IPPROTO_TCP = 6
TCP_NODELAY = 1
POLLIN = 1

_CONNECT = 0x10
_PUBLISH = 0x30
_SUBSCRIBE = 0x80


class Socket:
    def __init__(self):
        self.sent = self.answers = b""

    def settimeout(self, timeout):
        pass

    def setsockopt(self, level, option, value):
        pass

    def connect(self, address):
        pass

    def close(self):
        self.sent = self.answers = b""

    def send(self, data):
        """MiniMQTT sends a packet in pieces; those of up to 127 bytes have one byte of length."""
        self.sent += bytes(data)
        while len(self.sent) > 1 and len(self.sent) >= 2 + self.sent[1]:
            end = 2 + self.sent[1]
            self.answer(self.sent[0], self.sent[2:end])
            self.sent = self.sent[end:]
        return len(data)

    def answer(self, head, body):
        kind = head & 0xF0
        if kind == _CONNECT:
            self.answers += b"\x20\x02\x00\x00"
        elif kind == _SUBSCRIBE:
            self.answers += b"\x90\x03" + body[:2] + b"\x01"
        elif kind == _PUBLISH and head & 2:
            at = 2 + (body[0] << 8 | body[1])
            self.answers += b"\x40\x02" + body[at : at + 2]

    def recv_into(self, buffer, size=0):
        size = min(size or len(buffer), len(self.answers))
        if not size:
            raise OSError(errno.EAGAIN, "nothing to read")
        buffer[:size] = self.answers[:size]
        self.answers = self.answers[size:]
        return size


class Pool:
    AF_INET = AF_INET
    SOCK_STREAM = SOCK_STREAM
    IPPROTO_TCP = IPPROTO_TCP
    TCP_NODELAY = TCP_NODELAY

    def __init__(self, only=None):
        self.only = only or Socket()  # made here, so that it is no part of a client's heap

    def getaddrinfo(self, host, port, family=0, kind=0):
        return [(AF_INET, SOCK_STREAM, 0, "", (host, port))]

    def socket(self, family=0, kind=0):
        return self.only


class poll:
    def __init__(self):
        self._ready = [None]

    def register(self, watched, events):
        self._watched = watched

    def unregister(self, watched):
        pass

    def ipoll(self, timeout=-1):
        return self._ready if self._watched.answers else ()
