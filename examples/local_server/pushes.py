# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the server publishes to one session: subscriptions, their flavours, packet ids."""

from . import mqtt311, payloads

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

_MAX_GRANTED_QOS = 1
_UNSUBSCRIBED_QOS = 1  # of a publish that no subscription of the session matches


class Pushes:
    """The subscriptions of one session, and what is published to it.

    :param send: called with the bytes of each PUBLISH
    """

    def __init__(self, send):
        self.subscriptions = {}  # topic filter: granted QoS
        self._send = send
        self._packet_id = 0
        self._rpc_packet_ids = set()  # pushed RPCs that have not been acknowledged
        self._attribute_filter = None  # the topic filter subscribed last, for each of the two
        self._rpc_filter = None

    # --- subscriptions ---

    def grant(self, topic_filter, qos):
        """Remember a subscription; return its code for SUBACK."""
        if topic_filter not in _SUBSCRIBABLE:
            return mqtt311.SUBACK_FAILURE
        self.subscriptions[topic_filter] = min(qos, _MAX_GRANTED_QOS)
        return self.subscriptions[topic_filter]

    def forget(self, topic_filter):
        """Forget a subscription, which does not end the pushes yet (`stop`)."""
        self.subscriptions.pop(topic_filter, None)

    @staticmethod
    def has_pushes(topic_filter):
        """Whether something is pushed to this subscription, for which the core is asked."""
        return topic_filter in _ATTRIBUTE_PUSHES or topic_filter in _RPC_PUSHES

    @staticmethod
    def has_rpcs(topic_filter):
        """Whether RPCs are pushed to this subscription."""
        return topic_filter in _RPC_PUSHES

    def start(self, topic_filter):
        """Push to this topic from now on."""
        if topic_filter in _ATTRIBUTE_PUSHES:
            self._attribute_filter = topic_filter
        elif topic_filter in _RPC_PUSHES:
            self._rpc_filter = topic_filter

    def stop(self, topic_filter):
        """Push no more; unsubscribing any flavour stops the pushes for all of them."""
        if topic_filter in _ATTRIBUTE_PUSHES:
            self._attribute_filter = None
        elif topic_filter in _RPC_PUSHES:
            self._rpc_filter = None

    # --- PUBLISH to the device ---

    def push_attributes(self, value):
        """Push a change of shared attributes; whether the session listens to it."""
        topic = self._attribute_filter
        if topic is None or not _ATTRIBUTE_PUSHES[topic]:
            return False
        self.publish(topic, None, payloads.to_json(value))
        return True

    def push_rpc(self, request_id, payload):
        """Push an RPC; whether the session listens to them."""
        topic_filter = self._rpc_filter
        if topic_filter is None or not _RPC_PUSHES[topic_filter]:
            return False
        self._rpc_packet_ids.add(self.publish(topic_filter, request_id, payload))
        return True

    def take_rpc_puback(self, packet_id):
        """Whether a PUBACK is that of an RPC; the next one of the same number is not."""
        if packet_id not in self._rpc_packet_ids:
            return False
        self._rpc_packet_ids.discard(packet_id)
        return True

    def publish(self, topic_filter, request_id, payload):
        """Publish to the topic that *request_id* makes of the filter; return the packet id."""
        # Counts at QoS 0 too, never resets, and is cut to 16 bits: the 65536th has packet id 0.
        self._packet_id = (self._packet_id + 1) & 0xFFFF
        topic = topic_filter.replace("+", str(request_id))
        # Filters are exact strings, so that only this one can match the topic.
        qos = self.subscriptions.get(topic_filter, _UNSUBSCRIBED_QOS)
        self._send(mqtt311.publish(topic, payload, qos, self._packet_id))
        return self._packet_id
