# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What a device publishes, topic by topic, and the responses to it."""

import functools

from . import mqtt311, payloads
from .faults import Pubacks

_GATEWAY = "v1/gateway/"
_CLIENT_RPC_V1 = "v1/devices/me/rpc/request/"


# MQTT_MSG_QUEUE_SIZE_PER_DEVICE_LIMIT: what may come before the CONNACK
MAX_QUEUED_PACKETS = 100


_MAX_CLIENT_RPCS = 1000  # unanswered ones of a session; the stand-in's own protection


class RateLimited(Exception):
    """The rate limit of the device is exceeded; this closes the connection."""


class Publishes:
    """Handle each PUBLISH of one session.

    :param Session session: whose device it is
    :param Pushes pushes: publishes the responses
    """

    def __init__(self, board, session, pushes):
        self._board = board
        self._session = session
        self._pushes = pushes
        self._pubacks = Pubacks(board.call_later, board.faults, session.send)
        self._attribute_responses = None  # the topic filter of the last request, for each
        self._rpc_responses = None
        self._client_rpc_timers = {}  # request id: the timer of {"error":"timeout"}

    @property
    def _device(self):
        return self._session.device

    def end(self):
        """Nobody is there any more who would hear an answer."""
        for timer in self._client_rpc_timers.values():
            timer.cancel()

    def receive(self, packet):
        """Handle a PUBLISH.

        :raises payloads.InvalidPayload: close the connection; likewise `RateLimited`
        :raises payloads.Uncaught: the server does not catch what it throws here
        """
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

    def _charge(self, data_points=0):
        if not self._board.allows(self._device, data_points):
            raise RateLimited

    def _acknowledge(self, packet):
        if packet.qos:
            self._pubacks.acknowledge(packet.packet_id)

    # --- one topic each ---

    def _on_telemetry(self, packet):
        rows = payloads.telemetry_rows(packet.payload, self._board.now_ms())
        self._charge(sum(len(values) for _, values in rows))
        if not rows:  # [] makes no message in the server, so that nothing ever acknowledges it
            return
        self._device.store_telemetry(rows)
        self._acknowledge(packet)

    def _on_attributes(self, packet):
        values = payloads.stored_values(payloads.parse_object(packet.payload))
        self._charge(len(values))
        self._device.store_client_attributes(values)
        self._acknowledge(packet)

    def _on_claim(self, packet):
        claim = payloads.claim(packet.payload)
        self._charge()
        # The PUBACK does not say whether the claim counts.
        self._device.claiming.remember(claim, self._board.now_ms())
        self._acknowledge(packet)

    def _on_protobuf(self, packet, *_rest):
        raise payloads.InvalidPayload("no protobuf here: %s" % packet.topic)

    def _on_rpc_response(self, packet, id_text, _response_filter):
        request_id = payloads.request_id(id_text)
        self._charge()
        self._device.resolve_rpc(request_id, packet.payload)
        self._acknowledge(packet)

    def _on_attribute_request(self, packet, id_text, response_filter):
        request_id = payloads.request_id(id_text)
        client_keys, shared_keys = payloads.attribute_request_keys(packet.payload)
        self._attribute_responses = response_filter
        self._charge()
        if request_id < 0 or "" in client_keys + shared_keys:  # breaks inside of the server
            self._acknowledge(packet)
            return
        found = self._device.find_attributes(client_keys, shared_keys)
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
            self._respond(packet, self._publish_client_rpc, request_id, self._session_limits())
            return
        self._charge()
        self._start_client_rpc_timer(request_id)
        handler = self._device.on_client_rpc
        if handler is None:  # the default rule chain only logs the call
            self._acknowledge(packet)
        else:
            # Not from here, because the user's function must not run under the lock.
            call = functools.partial(handler, method, params)
            self._board.loop.call_soon(self._answer_client_rpc, call, packet, request_id)

    def _session_limits(self):
        """The answer to getSessionLimits, which the transport itself gives (since 3.8)."""
        return payloads.to_json(
            {
                "maxPayloadSize": mqtt311.MAX_REMAINING_LENGTH,
                "maxInflightMessages": MAX_QUEUED_PACKETS,
                "rateLimits": self._device.limits.as_dict(),
            }
        )

    def _start_client_rpc_timer(self, request_id):
        self._cancel_client_rpc_timer(request_id)
        if len(self._client_rpc_timers) >= _MAX_CLIENT_RPCS:
            raise RateLimited
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

    # --- responses ---

    def _publish_attributes(self, request_id, payload):
        self._pushes.publish(self._attribute_responses, request_id, payload)

    def _publish_client_rpc(self, request_id, payload):
        self._pushes.publish(self._rpc_responses, request_id, payload)

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


_TOPIC_HANDLERS = {
    "v1/devices/me/telemetry": Publishes._on_telemetry,
    "v2/t": Publishes._on_telemetry,
    "v2/t/j": Publishes._on_telemetry,
    "v2/t/p": Publishes._on_protobuf,
    "v1/devices/me/attributes": Publishes._on_attributes,
    "v2/a": Publishes._on_attributes,
    "v2/a/j": Publishes._on_attributes,
    "v2/a/p": Publishes._on_protobuf,
    "v1/devices/me/claim": Publishes._on_claim,
}

_REQUEST_HANDLERS = (  # topic prefix, handler, topic filter of the response
    (
        "v1/devices/me/attributes/request/",
        Publishes._on_attribute_request,
        "v1/devices/me/attributes/response/+",
    ),
    ("v1/devices/me/rpc/response/", Publishes._on_rpc_response, None),
    (_CLIENT_RPC_V1, Publishes._on_client_rpc, "v1/devices/me/rpc/response/+"),
    ("v2/r/res/j/", Publishes._on_rpc_response, None),
    ("v2/r/res/p/", Publishes._on_protobuf, None),
    ("v2/r/res/", Publishes._on_rpc_response, None),
    ("v2/r/req/j/", Publishes._on_client_rpc, "v2/r/res/j/+"),
    ("v2/r/req/p/", Publishes._on_protobuf, None),
    ("v2/r/req/", Publishes._on_client_rpc, "v2/r/res/+"),
    ("v2/a/req/j/", Publishes._on_attribute_request, "v2/a/res/j/+"),
    ("v2/a/req/p/", Publishes._on_protobuf, None),
    ("v2/a/req/", Publishes._on_attribute_request, "v2/a/res/+"),
)
