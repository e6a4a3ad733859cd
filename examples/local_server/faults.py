# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What can go wrong on purpose, and the two places where it does: outgoing bytes and PUBACKs."""

import os
import random
import socket
import struct
from collections import deque

from . import mqtt311

_PARTIAL_BATCH_S = 0.05
# A TLS peer may never answer the close_notify; ThingsBoard's own time limit is of this kind.
_TLS_CLOSE_S = 0.2


class Faults:
    """Switches, all of them off at first. Each may be changed at any time, from any thread."""

    #: CONNACK: a return code to refuse with, ``"silence"`` (no answer) or ``"close"`` (FIN)
    connack = None
    #: seconds from CONNECT to CONNACK
    connack_delay = 0
    #: everything before the CONNACK is thrown away, as by ThingsBoard before 3.3
    ignore_before_connack = False
    #: what follows if anything but CONNECT comes before the CONNACK was sent: ``"close"``
    #: (FIN, as moquette does) or ``"silence"`` (no answer any more). ThingsBoard allows it
    strict_before_connack = None
    #: read everything, handle and answer nothing
    silent = False
    #: seconds by which every outgoing byte is late; the order stays
    delay = 0
    #: bytes of one outgoing segment; 0 is no limit
    chunk = 0
    #: the next packet of this type, such as ``"PUBLISH"``, meets a RST; then it is None again
    drop_on = None
    #: every PUBLISH whose payload contains these bytes meets a FIN
    close_on = None
    #: PUBLISH is handled but never acknowledged
    mute_puback = False
    #: seconds that each PUBLISH takes, one after the other on each connection
    message_time = 0
    #: seconds from PUBLISH to PUBACK
    puback_delay = 0
    #: ``"reverse"`` or ``"shuffle"``: hold PUBACKs and release them in this order
    puback_order = None
    #: how many PUBACKs are held; fewer are released after 50 ms
    puback_batch = 4
    #: every PUBACK comes twice
    puback_twice = False
    #: RPCs that waited for the subscription are pushed before its SUBACK
    push_before_suback = False
    #: ``"reverse"`` or ``"shuffle"``: RPCs that waited for the subscription come in this order
    pending_rpc_order = None
    #: seconds from a request (attributes, client-side RPC) to its response
    response_delay = 0
    #: every response comes twice
    response_twice = False
    #: the response comes before the PUBACK of its request
    response_before_puback = False


def reorder(items, order):
    """Return a list in the *order* ``"reverse"`` or ``"shuffle"``; None leaves it as it is."""
    if order == "reverse":
        return items[::-1]
    return random.sample(items, len(items)) if order == "shuffle" else items


class Wire:
    """The transport of one connection, with faults in what goes out.

    :param transport: an `asyncio.Transport`
    :param Faults faults: `Faults.delay` and `Faults.chunk` are obeyed
    """

    def __init__(self, loop, transport, faults):
        self._loop = loop
        self._transport = transport
        self._faults = faults
        self._waiting = deque()  # (loop time, bytes or None for the end), while a fault slows us

    def write(self, data):
        """Send bytes, now or as late as the faults say."""
        if self._waiting or self._faults.delay or self._faults.chunk:
            self._write_slowly(data)
        else:
            self._write_now(data)

    def close(self):
        """Send FIN behind what was written."""
        if self._waiting:
            self._wait_in_line(None)
        else:
            self._close_now()

    def pause_reading(self):
        """Leave what comes in the socket, where it slows the peer down."""
        self._transport.pause_reading()

    def resume_reading(self):
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self):
        """Send RST, drop what was written."""
        self._waiting.clear()
        connection = self._transport.get_extra_info("socket")
        if connection is not None and connection.fileno() >= 0:
            no_linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self._transport.abort()

    def _write_slowly(self, data):
        size = self._faults.chunk or len(data)
        for start in range(0, len(data), size):
            self._wait_in_line(data[start : start + size])

    def _wait_in_line(self, data):
        due = self._loop.time() + self._faults.delay
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        else:
            self._loop.call_at(due, self._release)
        self._waiting.append((due, data))

    def _release(self):
        """Send one piece, then let the loop turn: the pieces leave as segments of their own."""
        if not self._waiting:
            return
        _, data = self._waiting.popleft()
        if data is None:
            self._close_now()
        else:
            self._write_now(data)
        if self._waiting:
            self._loop.call_at(self._waiting[0][0], self._release)

    def _write_now(self, data):
        if not self._transport.is_closing():  # the peer is gone: asyncio would warn of each write
            self._transport.write(data)

    def _close_now(self):
        # Asked first: closed for the second time, asyncio's TLS transport can't say it any more.
        is_tls = self._transport.get_extra_info("ssl_object") is not None
        self._transport.close()
        if is_tls:
            self._loop.call_later(_TLS_CLOSE_S, self._transport.abort)


class Pubacks:
    """The PUBACKs of one connection.

    :param call_later: ``call_later(seconds, function, *arguments)``
    :param send: called with the bytes of each PUBACK
    """

    def __init__(self, call_later, faults, send):
        self._call_later = call_later
        self._faults = faults
        self._send_bytes = send
        self._held = []

    def acknowledge(self, packet_id):
        """Send the PUBACK of *packet_id*, now or as the faults say."""
        faults = self._faults
        if faults.mute_puback:
            return
        if faults.puback_order:
            self._hold(packet_id)
        elif faults.puback_delay:
            self._call_later(faults.puback_delay, self._send, packet_id)
        else:
            self._send(packet_id)

    def _hold(self, packet_id):
        self._held.append(packet_id)
        if len(self._held) >= self._faults.puback_batch:
            self._release()
        elif len(self._held) == 1:
            self._call_later(_PARTIAL_BATCH_S, self._release)

    def _release(self):
        held, self._held = self._held, []
        held = reorder(held, self._faults.puback_order)
        if self._faults.puback_delay:
            self._call_later(self._faults.puback_delay, self._send_all, held)
        else:
            self._send_all(held)

    def _send_all(self, packet_ids):
        for packet_id in packet_ids:
            self._send(packet_id)

    def _send(self, packet_id):
        self._send_bytes(mqtt311.puback(packet_id))
        if self._faults.puback_twice:
            self._send_bytes(mqtt311.puback(packet_id))
