# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""One connection to the stand-in, from CONNECT to the end: ThingsBoard's `MqttTransportHandler`.

The rules are those of ThingsBoard 4.x with a default installation and the default device profile;
where they look odd, so does the server. Names in brackets are its Java classes.

Left out: provisioning, firmware and gateways; protobuf (``/p`` topics are granted, but nothing is
pushed to them, and what is published there counts as an invalid payload).
"""

import asyncio
import functools
from collections import deque

from . import mqtt311, payloads
from .faults import Pubacks, Wire

# --- words and limits ---

# (topic of attribute pushes, whether it is JSON), then the same for RPC (MqttTopics)
_ATTRIBUTE_PUSHES = {
    "v1/devices/me/attributes": True,
    "v2/a": True,
    "v2/a/j": True,
    "v2/a/p": False,
}
_RPC_PUSHES = {
    "v1/devices/me/rpc/request/+": True,
    "v2/r/req/+": True,
    "v2/r/req/j/+": True,
    "v2/r/req/p/+": False,
}
# SUBSCRIBE accepts exactly these strings (MqttTransportHandler.processSubscribe).
_SUBSCRIBABLE = {
    *_ATTRIBUTE_PUSHES,
    *_RPC_PUSHES,
    "v1/devices/me/rpc/response/+",
    "v2/r/res/+",
    "v2/r/res/j/+",
    "v2/r/res/p/+",
    "v1/devices/me/attributes/response/+",
    "v2/a/res/+",
    "v2/a/res/j/+",
    "v2/a/res/p/+",
    "v2/fw/response/+/chunk/+",
    "v2/fw/error",
    "v2/sw/response/+/chunk/+",
    "v2/sw/error",
    "v1/gateway/attributes",
    "v1/gateway/rpc",
    "v1/gateway/attributes/response",
}
_GATEWAY = "v1/gateway/"
_CLIENT_RPC_V1 = "v1/devices/me/rpc/request/"

_MAX_QUEUED_PACKETS = 100  # MQTT_MSG_QUEUE_SIZE_PER_DEVICE_LIMIT
_MAX_GRANTED_QOS = 1
_UNSUBSCRIBED_QOS = 1  # of a publish that no subscription of the session matches

_ACCEPTED, _IDENTIFIER_REJECTED, _SERVER_UNAVAILABLE, _NOT_AUTHORIZED = 0, 2, 3, 5

_SESSION_LIMITS = (  # of a default installation, since ThingsBoard 3.8
    b'{"maxPayloadSize":65536,"maxInflightMessages":100,"rateLimits":'
    b'{"messages":null,"telemetryMessages":null,"telemetryDataPoints":null}}'
)

# Session.state
WAITING, CONNECTED, CLOSED = "waiting", "connected", "closed"


class RateLimited(Exception):
    """The rate limit of the device is exceeded; this closes the connection."""


class Session(asyncio.Protocol):
    """One connection: waiting (for CONNECT), connected, closed."""

    def __init__(self, board):
        self.state = WAITING
        self.device = None
        self.subscriptions = {}  # topic filter: granted QoS
        self.active_at = 0
        self._board = board
        self._reader = mqtt311.Reader()
        self._queue = deque()  # packets that came before the CONNACK
        self._packet_id = 0
        self._rpc_packet_ids = set()  # pushed RPCs that have not been acknowledged
        self._attribute_pushes = None  # the topic filter subscribed last, for each of the two
        self._rpc_pushes = None
        self._attribute_responses = None  # likewise for the flavour of the last request
        self._rpc_responses = None
        self._client_rpc_timers = {}  # request id: the timer of {"error":"timeout"}

    # --- the connection ---

    def connection_made(self, transport):
        """Start to count as a connection (asyncio calls this)."""
        board = self._board
        self._wire = Wire(board.loop, transport, board.faults)
        self._pubacks = Pubacks(board.call_later, board.faults, self.send)
        with board.changes:
            board.accepted += 1
            board.sessions.add(self)
            if not board.is_listening:  # it was accepted just before the server went down
                self.abort()

    def connection_lost(self, _error):
        """Clean up (asyncio calls this)."""
        with self._board.changes:
            self._leave()
            self._board.sessions.discard(self)

    def data_received(self, data):
        """Handle whatever packets are complete (asyncio calls this)."""
        with self._board.changes:
            self._reader.feed(data)
            try:
                for packet in self._reader.packets():
                    self._receive(packet)
                    if self.state is CLOSED:
                        return
            except mqtt311.ProtocolError:
                self.close()

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
        self.state = CLOSED
        self._queue.clear()
        for timer in self._client_rpc_timers.values():
            timer.cancel()
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

    @property
    def _name(self):
        return self.device.name if self.device is not None else None

    # --- from bytes to handlers ---

    def _receive(self, packet):
        board, faults = self._board, self._board.faults
        board.packets.append((self._name, "in", packet.name))
        if faults.silent:
            return
        if faults.drop_on == packet.name:
            faults.drop_on = None
            self.abort()
        elif packet.type == mqtt311.CONNECT:
            self._on_connect(packet)
        elif self.state is CONNECTED and not self._queue:
            self._handle_or_close(packet)
        else:
            self._enqueue(packet)

    def _enqueue(self, packet):
        """Keep what comes before the CONNACK (MqttTransportHandler.enqueueRegularSessionMsg)."""
        if self.state is WAITING and self._board.faults.ignore_before_connack:
            return
        self._queue.append(packet)
        if len(self._queue) > _MAX_QUEUED_PACKETS:
            self.close()
        elif self.state is CONNECTED:
            self._drain()

    def _drain(self):
        # What the server does not catch only ends this run: the rest waits for the next packet.
        try:
            while self._queue and self.state is CONNECTED:
                self._handle(self._queue.popleft())
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
        if faults.connack == "close":
            self.close()
        elif faults.connack_delay:
            self._board.call_later(faults.connack_delay, self._answer_connect, packet)
        else:
            self._answer_connect(packet)

    def _answer_connect(self, packet):
        if self.state is CLOSED:
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
            return _SERVER_UNAVAILABLE if device.rate_limited else _ACCEPTED
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
        if packet.packet_id in self._rpc_packet_ids:
            self._rpc_packet_ids.discard(packet.packet_id)
            self._note_activity()

    def _on_subscribe(self, packet):
        self._note_activity()
        push_first = self._board.faults.push_before_suback
        codes = [self._grant(topic_filter, qos) for topic_filter, qos in packet.topic_filters]
        if not push_first:
            self.send(mqtt311.suback(packet.packet_id, codes))
        self._activate([topic_filter for topic_filter, _ in packet.topic_filters])
        if push_first:
            self.send(mqtt311.suback(packet.packet_id, codes))

    def _grant(self, topic_filter, qos):
        if topic_filter not in _SUBSCRIBABLE:
            return mqtt311.SUBACK_FAILURE
        self.subscriptions[topic_filter] = min(qos, _MAX_GRANTED_QOS)
        return self.subscriptions[topic_filter]

    def _activate(self, topic_filters):
        # A rate limit swallows the subscription behind a SUBACK that grants it.
        if self.device.rate_limited:
            return
        for topic_filter in topic_filters:
            if topic_filter in _ATTRIBUTE_PUSHES:
                self._attribute_pushes = topic_filter
            elif topic_filter in _RPC_PUSHES:
                self._rpc_pushes = topic_filter
                self._push_pending_rpcs()

    def _push_pending_rpcs(self):
        # Strategy BURST: all that are unanswered, on each subscribe, also when delivered before.
        for rpc in list(self.device.pending_rpcs.values()):
            self.push_rpc(rpc)

    def _on_unsubscribe(self, packet):
        self._note_activity()
        for topic_filter, _ in packet.topic_filters:
            self.subscriptions.pop(topic_filter, None)
            # Unsubscribing any flavour stops the pushes for all of them.
            if topic_filter in _ATTRIBUTE_PUSHES:
                self._attribute_pushes = None
            elif topic_filter in _RPC_PUSHES:
                self._rpc_pushes = None
        self.send(mqtt311.unsuback(packet.packet_id))

    def _note_activity(self):
        self.active_at = self._board.loop.time()

    # --- PUBLISH from the device ---

    def _on_publish(self, packet):
        self._note_activity()
        self.device.messages.append((packet.topic, packet.payload, packet.qos, packet.dup))
        poison = self._board.faults.close_on
        if poison and poison in packet.payload:
            self.close()
            return
        try:
            self._route(packet)
        except (payloads.InvalidPayload, RateLimited):
            self.close()

    def _route(self, packet):
        topic = packet.topic
        handler = _TOPIC_HANDLERS.get(topic)
        if handler is not None:
            handler(self, packet)
            return
        for prefix, handle_request, response_filter in _REQUEST_HANDLERS:
            if topic.startswith(prefix):
                handle_request(self, packet, topic[len(prefix) :], response_filter)
                return
        # The gateway API, asked by a device that is no gateway: only logged.
        if not topic.startswith(_GATEWAY):
            self._acknowledge(packet)

    def _charge(self):
        if self.device.rate_limited:
            raise RateLimited

    def _acknowledge(self, packet):
        if packet.qos:
            self._pubacks.acknowledge(packet.packet_id)

    def _on_telemetry(self, packet):
        rows = payloads.telemetry_rows(packet.payload, self._board.now_ms())
        self._charge()
        if not rows:  # [] makes no message in the server, so that nothing ever acknowledges it
            return
        self.device.store_telemetry(rows)
        self._acknowledge(packet)

    def _on_attributes(self, packet):
        values = payloads.stored_values(payloads.parse_object(packet.payload))
        self._charge()
        self.device.store_client_attributes(values)
        self._acknowledge(packet)

    def _on_claim(self, packet):
        claim = payloads.claim(packet.payload)
        self._charge()
        if self.device.claim is None:  # the first one stays, the PUBACK says nothing about it
            self.device.claim = claim
        self._acknowledge(packet)

    def _on_protobuf(self, packet, *_rest):
        raise payloads.InvalidPayload("no protobuf here: %s" % packet.topic)

    def _on_rpc_response(self, packet, id_text, _response_filter):
        request_id = payloads.request_id(id_text)
        self._charge()
        self.device.resolve_rpc(request_id, packet.payload)
        self._acknowledge(packet)

    def _on_attribute_request(self, packet, id_text, response_filter):
        request_id = payloads.request_id(id_text)
        client_keys, shared_keys = payloads.attribute_request_keys(packet.payload)
        self._attribute_responses = response_filter
        self._charge()
        if request_id < 0 or "" in client_keys + shared_keys:  # breaks inside of the server
            self._acknowledge(packet)
            return
        found = self.device.find_attributes(client_keys, shared_keys)
        self._respond(packet, self._publish_attributes, request_id, payloads.to_json(found))

    # --- client-side RPC ---

    def _on_client_rpc(self, packet, id_text, response_filter):
        method, params = payloads.client_rpc(packet.payload)
        try:
            request_id = payloads.request_id(id_text)
        except payloads.InvalidPayload as error:
            raise payloads.Uncaught(str(error)) from error
        self._rpc_responses = response_filter
        if method == "getSessionLimits" and packet.topic.startswith(_CLIENT_RPC_V1):
            self._respond(packet, self._publish_client_rpc, request_id, _SESSION_LIMITS)
            return
        self._charge()
        self._start_client_rpc_timer(request_id)
        handler = self.device.on_client_rpc
        if handler is None:  # the default rule chain only logs the call
            self._acknowledge(packet)
        else:
            # Not from here, because the user's function must not run under the lock.
            call = functools.partial(handler, method, params)
            self._board.loop.call_soon(self._answer_client_rpc, call, packet, request_id)

    def _start_client_rpc_timer(self, request_id):
        self._cancel_client_rpc_timer(request_id)
        self._client_rpc_timers[request_id] = self._board.call_later(
            self._board.client_rpc_timeout_s, self._expire_client_rpc, request_id
        )

    def _cancel_client_rpc_timer(self, request_id):
        timer = self._client_rpc_timers.pop(request_id, None)
        if timer is not None:
            timer.cancel()

    def _expire_client_rpc(self, request_id):
        del self._client_rpc_timers[request_id]
        self._publish_client_rpc(request_id, b'{"error":"timeout"}')

    def _answer_client_rpc(self, call, packet, request_id):
        try:
            reply = payloads.to_json(call())
        except Exception:
            with self._board.changes:
                self._acknowledge(packet)
            raise  # asyncio logs it, and the timeout answers
        with self._board.changes:
            self._cancel_client_rpc_timer(request_id)
            self._respond(packet, self._publish_client_rpc, request_id, reply)

    # --- PUBLISH to the device ---

    def _publish_attributes(self, request_id, payload):
        self._publish(self._attribute_responses, request_id, payload)

    def _publish_client_rpc(self, request_id, payload):
        self._publish(self._rpc_responses, request_id, payload)

    def _respond(self, packet, publish, *response):
        """Acknowledge a request and answer it. ThingsBoard promises no order of the two."""
        faults = self._board.faults
        if faults.response_before_puback:
            self._send_response(publish, response, lambda: self._acknowledge(packet))
        else:
            self._acknowledge(packet)
            self._send_response(publish, response, lambda: None)

    def _send_response(self, publish, response, then):
        faults = self._board.faults

        def send():
            for _ in range(2 if faults.response_twice else 1):
                publish(*response)
            then()

        if faults.response_delay:
            self._board.call_later(faults.response_delay, send)
        else:
            send()

    def push_attributes(self, value):
        """Push a change of shared attributes; whether the session listens to it."""
        topic = self._attribute_pushes
        if topic is None or not _ATTRIBUTE_PUSHES[topic]:
            return False
        self._publish(topic, None, payloads.to_json(value))
        return True

    def push_rpc(self, rpc):
        """Push a `PendingRpc` if the session listens; a one-way RPC is done then."""
        if self.publish_rpc(rpc.request_id, rpc.payload) and rpc.is_one_way:
            rpc.timer.cancel()
            del self.device.pending_rpcs[rpc.request_id]

    def publish_rpc(self, request_id, payload):
        """Push an RPC; whether the session listens to them."""
        topic_filter = self._rpc_pushes
        if topic_filter is None or not _RPC_PUSHES[topic_filter]:
            return False
        self._rpc_packet_ids.add(self._publish(topic_filter, request_id, payload))
        return True

    def _publish(self, topic_filter, request_id, payload):
        # Counts at QoS 0 too, never resets, and is cut to 16 bits: the 65536th has packet id 0.
        self._packet_id = (self._packet_id + 1) & 0xFFFF
        topic = topic_filter.replace("+", str(request_id))
        # Filters are exact strings, so that only this one can match the topic.
        qos = self.subscriptions.get(topic_filter, _UNSUBSCRIBED_QOS)
        self.send(mqtt311.publish(topic, payload, qos, self._packet_id))
        return self._packet_id


_PACKET_HANDLERS = {  # everything else from a client is ignored
    mqtt311.PUBLISH: Session._on_publish,
    mqtt311.PUBACK: Session._on_puback,
    mqtt311.SUBSCRIBE: Session._on_subscribe,
    mqtt311.UNSUBSCRIBE: Session._on_unsubscribe,
    mqtt311.PINGREQ: Session._on_pingreq,
    mqtt311.DISCONNECT: Session._on_disconnect,
}

_TOPIC_HANDLERS = {
    "v1/devices/me/telemetry": Session._on_telemetry,
    "v2/t": Session._on_telemetry,
    "v2/t/j": Session._on_telemetry,
    "v2/t/p": Session._on_protobuf,
    "v1/devices/me/attributes": Session._on_attributes,
    "v2/a": Session._on_attributes,
    "v2/a/j": Session._on_attributes,
    "v2/a/p": Session._on_protobuf,
    "v1/devices/me/claim": Session._on_claim,
}

_REQUEST_HANDLERS = (  # topic prefix, handler, topic filter of the response
    (
        "v1/devices/me/attributes/request/",
        Session._on_attribute_request,
        "v1/devices/me/attributes/response/+",
    ),
    ("v1/devices/me/rpc/response/", Session._on_rpc_response, None),
    (_CLIENT_RPC_V1, Session._on_client_rpc, "v1/devices/me/rpc/response/+"),
    ("v2/r/res/j/", Session._on_rpc_response, None),
    ("v2/r/res/p/", Session._on_protobuf, None),
    ("v2/r/res/", Session._on_rpc_response, None),
    ("v2/r/req/j/", Session._on_client_rpc, "v2/r/res/j/+"),
    ("v2/r/req/p/", Session._on_protobuf, None),
    ("v2/r/req/", Session._on_client_rpc, "v2/r/res/+"),
    ("v2/a/req/j/", Session._on_attribute_request, "v2/a/res/j/+"),
    ("v2/a/req/p/", Session._on_protobuf, None),
    ("v2/a/req/", Session._on_attribute_request, "v2/a/res/+"),
)
