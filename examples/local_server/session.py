# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""One connection to the stand-in, from CONNECT to the end: ThingsBoard's `MqttTransportHandler`.

The rules are those of ThingsBoard 4.x with a default installation and the default device profile;
where they look odd, so does the server. Names in brackets are its Java classes.

Left out: provisioning, firmware and gateways; protobuf (``/p`` topics are granted, but nothing is
pushed to them, and what is published there counts as an invalid payload).
"""

import asyncio
from collections import deque

from . import mqtt311, payloads
from .faults import Wire
from .publishes import MAX_QUEUED_PACKETS, Publishes, RateLimited
from .pushes import Pushes

# --- words and limits ---

_ACCEPTED, _IDENTIFIER_REJECTED, _SERVER_UNAVAILABLE, _NOT_AUTHORIZED = 0, 2, 3, 5

# A strict server has to wait a moment with its CONNACK to see what comes too early.
_STRICT_CONNACK_S = 0.02

# Session.state
WAITING, CONNECTED, CLOSED = "waiting", "connected", "closed"


class Session(asyncio.Protocol):
    """One connection: waiting (for CONNECT), connected, closed."""

    def __init__(self, board):
        self.state = WAITING
        self.device = None
        self.active_at = 0
        self._board = board
        self._reader = mqtt311.Reader()
        self._is_deaf = False  # for the rest of its life (faults.strict_before_connack)
        self._is_busy = False  # with a message (faults.message_time)
        self._connect_timer = None  # until CONNECT comes
        self._queue = deque()  # packets that came before the CONNACK
        self._queued_bytes = 0
        self.pushes = Pushes(self.send)
        self._publishes = Publishes(board, self, self.pushes)

    # --- the connection ---

    def connection_made(self, transport):
        """Start to count as a connection (asyncio calls this)."""
        board = self._board
        self._wire = Wire(board.loop, transport, board.faults)
        transport.set_write_buffer_limits(high=board.max_held_bytes)
        with board.changes:
            board.accepted += 1
            if len(board.sessions) >= board.max_connections:
                self.close()
                return
            board.sessions.add(self)
            if not board.is_listening:  # it was accepted just before the server went down
                self.abort()
            elif board.connect_timeout_s is not None:
                self._connect_timer = board.call_later(board.connect_timeout_s, self.close)

    def connection_lost(self, _error):
        """Clean up (asyncio calls this)."""
        with self._board.changes:
            self._leave()
            self._board.sessions.discard(self)

    def pause_writing(self):
        """Give up on a peer that does not read (asyncio calls this while it writes)."""
        self._board.call_later(0, self.abort)

    def data_received(self, data):
        """Handle whatever packets are complete (asyncio calls this)."""
        with self._board.changes:
            self._reader.feed(data)
            if not self._is_busy:
                self._read_packets()

    def close(self):
        """Close with FIN, as ThingsBoard ends every MQTT 3.1.1 session."""
        if self.state is not CLOSED:
            self._leave()
            self._wire.close()

    def abort(self):
        """Close with RST."""
        self._leave()
        self._wire.abort()

    def _leave(self):
        if self.state is CONNECTED:  # the core is told, which is a message like any other
            self._board.allows(self.device)
        self.state = CLOSED
        self._stop_connect_timer()
        self._queue.clear()
        self._publishes.end()
        if self.device is not None and self.device.session is self:
            self.device.session = None

    def send(self, packet):
        """Send one packet, as bytes, unless the session is closed."""
        board = self._board
        if self.state is CLOSED or board.faults.silent:
            return
        board.packets.append((self._name, "out", mqtt311.PACKET_NAMES[packet[0] >> 4]))
        self._wire.write(packet)

    def send_raw(self, data):
        """Send bytes that may be anything."""
        if self.state is not CLOSED:
            self._wire.write(data)

    def _stop_connect_timer(self):
        if self._connect_timer is not None:
            self._connect_timer.cancel()
            self._connect_timer = None

    @property
    def _name(self):
        return self.device.name if self.device is not None else None

    # --- from bytes to handlers ---

    def _read_packets(self):
        try:
            for packet in self._reader.packets():
                if packet.type == mqtt311.PUBLISH and self._board.faults.message_time:
                    self._be_busy_with(packet)
                else:
                    self._receive(packet)
                if self._is_busy or self.state is CLOSED:
                    return
        except mqtt311.ProtocolError:
            self.close()

    def _be_busy_with(self, packet):
        """Take time for a message. Whatever comes meanwhile waits its turn, most of it unread.

        So it is lost when the peer resets the connection, as it does when it closes it with
        acknowledgements unread: the next write fails, which ends the session.
        """
        self._is_busy = True
        self._wire.pause_reading()
        self._board.call_later(self._board.faults.message_time, self._finish, packet)

    def _finish(self, packet):
        self._is_busy = False
        if self.state is CLOSED:
            return
        self._receive(packet)
        self._read_packets()
        if not self._is_busy:
            self._wire.resume_reading()

    def _receive(self, packet):
        board, faults = self._board, self._board.faults
        board.packets.append((self._name, "in", packet.name))
        if packet.type == mqtt311.CONNECT:
            self._stop_connect_timer()
        if faults.silent or self._is_deaf:
            return
        if faults.drop_on == packet.name:
            faults.drop_on = None
            self.abort()
        elif packet.type == mqtt311.CONNECT:
            self._on_connect(packet)
        elif self.state is CONNECTED and not self._queue:
            self._handle_or_close(packet)
        elif self.state is WAITING and faults.strict_before_connack:
            self._refuse_early_packet()
        else:
            self._enqueue(packet)

    def _refuse_early_packet(self):
        if self._board.faults.strict_before_connack == "close":
            self.close()
        else:
            self._is_deaf = True

    def _enqueue(self, packet):
        """Keep what comes before the CONNACK (MqttTransportHandler.enqueueRegularSessionMsg)."""
        board = self._board
        if self.state is WAITING and board.faults.ignore_before_connack:
            return
        self._queue.append(packet)
        self._queued_bytes += packet.size
        if len(self._queue) > MAX_QUEUED_PACKETS or self._queued_bytes > board.max_held_bytes:
            self.close()
        elif self.state is CONNECTED:
            self._drain()

    def _drain(self):
        # What the server does not catch only ends this run: the rest waits for the next packet.
        try:
            while self._queue and self.state is CONNECTED:
                packet = self._queue.popleft()
                self._queued_bytes -= packet.size
                self._handle(packet)
        except payloads.Uncaught:
            pass

    def _handle_or_close(self, packet):
        try:
            self._handle(packet)
        except payloads.Uncaught:
            self.close()

    def _handle(self, packet):
        handler = _PACKET_HANDLERS.get(packet.type)
        if handler is not None:
            handler(self, packet)

    # --- CONNECT ---

    def _on_connect(self, packet):
        faults = self._board.faults
        if faults.connack == "silence":
            return
        delay_s = faults.connack_delay or (faults.strict_before_connack and _STRICT_CONNACK_S)
        if faults.connack == "close":
            self.close()
        elif delay_s:
            self._board.call_later(delay_s, self._answer_connect, packet)
        else:
            self._answer_connect(packet)

    def _answer_connect(self, packet):
        if self.state is CLOSED or self._is_deaf:
            return
        device = self._board.find_device(packet)
        code = self._return_code(packet, device)
        if code == _ACCEPTED:
            self._become_session_of(device)
        # Not what MQTT 3.1.1 means: nothing is stored (MqttTransportHandler).
        self.send(mqtt311.connack(code, session_present=not packet.clean_session))
        if code == _ACCEPTED:
            self._drain()
        else:
            self.close()

    def _return_code(self, packet, device):
        if self._board.faults.connack:
            return self._board.faults.connack
        if device is not None:
            return _ACCEPTED if self._board.allows(device) else _SERVER_UNAVAILABLE
        anonymous = not packet.username and not packet.password
        return _IDENTIFIER_REJECTED if anonymous and packet.client_id.strip() else _NOT_AUTHORIZED

    def _become_session_of(self, device):
        """Take over: a device has one session, whatever its client ids (actors.session)."""
        self.active_at = self._board.loop.time()
        self.state = CONNECTED
        if device.session is self:
            return
        if device.session is not None:
            device.session.close()
        if self.device is not None:
            self.device.session = None
        self.device = device
        device.session = self
        device.connects += 1

    # --- the other packets ---

    def _on_pingreq(self, _packet):
        self._note_activity()
        self.send(mqtt311.pingresp())

    def _on_disconnect(self, _packet):
        self.close()

    def _on_puback(self, packet):
        if self.pushes.take_rpc_puback(packet.packet_id):
            self._note_activity()

    def _on_subscribe(self, packet):
        self._note_activity()
        push_first = self._board.faults.push_before_suback
        grant = self.pushes.grant
        codes = [grant(topic_filter, qos) for topic_filter, qos in packet.topic_filters]
        if not push_first:
            self.send(mqtt311.suback(packet.packet_id, codes))
        for topic_filter, _ in packet.topic_filters:
            self._start_pushes(topic_filter)
        if push_first:
            self.send(mqtt311.suback(packet.packet_id, codes))

    def _start_pushes(self, topic_filter):
        # A rate limit swallows the subscription behind a SUBACK that grants it.
        if not self._may_tell_core(topic_filter):
            return
        self.pushes.start(topic_filter)
        if self.pushes.has_rpcs(topic_filter):
            self.device.push_pending_rpcs(self._board.faults.pending_rpc_order)

    def _may_tell_core(self, topic_filter):
        """Whether a subscription that the core has to know is within the rate limit."""
        return self.pushes.has_pushes(topic_filter) and self._board.allows(self.device)

    def _on_unsubscribe(self, packet):
        self._note_activity()
        for topic_filter, _ in packet.topic_filters:
            self.pushes.forget(topic_filter)
            if self._may_tell_core(topic_filter):
                self.pushes.stop(topic_filter)
        self.send(mqtt311.unsuback(packet.packet_id))

    def _note_activity(self):
        self.active_at = self._board.loop.time()

    def _on_publish(self, packet):
        self._note_activity()
        self.device.messages.append((packet.topic, packet.payload, packet.qos, packet.dup))
        poison = self._board.faults.close_on
        if poison and poison in packet.payload:
            self.close()
            return
        try:
            self._publishes.receive(packet)
        except (payloads.InvalidPayload, RateLimited):
            self.close()


_PACKET_HANDLERS = {  # everything else from a client is ignored
    mqtt311.PUBLISH: Session._on_publish,
    mqtt311.PUBACK: Session._on_puback,
    mqtt311.SUBSCRIBE: Session._on_subscribe,
    mqtt311.UNSUBSCRIBE: Session._on_unsubscribe,
    mqtt311.PINGREQ: Session._on_pingreq,
    mqtt311.DISCONNECT: Session._on_disconnect,
}
