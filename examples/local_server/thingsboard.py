# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What ThingsBoard knows: the devices, their credentials and data, and the RPCs under way.

A `ThingsBoard` holds the devices; each connection is a `Session`. Everything runs on the thread
of one asyncio event loop. Other threads may read under `ThingsBoard.changes`, and come in through
`LocalServer`. Names in brackets are Java classes of ThingsBoard 4.x.
"""

import json
import threading
import time
from collections import deque

from . import payloads
from .claiming import Claiming
from .faults import Faults, reorder
from .limits import RateLimits
from .session import CONNECTED, Session
from .timeseries import TimeSeries

_LOGGED_PACKETS = 10000


def now_ms():
    """The time of this computer, milliseconds since 1970."""
    return int(time.time() * 1000)


class Changes:
    """Held while the loop's thread changes anything; whoever waits is told on leaving."""

    def __init__(self):
        self.lock = threading.Condition()
        self.count = 0

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *_exception):
        self.count += 1
        self.lock.notify_all()
        self.lock.release()

    def wait_beyond(self, count, timeout):
        """Wait until `count` differs from *count*, at most *timeout* seconds."""
        with self.lock:
            if self.count == count:
                self.lock.wait(timeout)


# --- what is stored ---


class Credentials:
    """ACCESS_TOKEN or MQTT_BASIC credentials; a part that is empty is not checked.

    :raises ValueError: a combination that ThingsBoard does not save
    """

    def __init__(self, token=None, client_id=None, username=None, password=None):
        if token and (client_id or username or password):
            raise ValueError("a token, or the parts of MQTT_BASIC, not both")
        if not (token or client_id or username):
            raise ValueError("a token, a client_id or a username is needed")
        if client_id and password and not username:
            raise ValueError("client_id and password need a username")
        self._client_id = client_id
        self._password = password
        self.lookup_key = _lookup_key(client_id, token or username)

    def accept(self, packet):
        """Whether the parts that are stored equal those of a CONNECT found by `lookup_key`."""
        if self._client_id and self._client_id != packet.client_id:
            return False
        password = (packet.password or b"").decode("utf-8", "replace")
        return not self._password or self._password == password


def _lookup_key(client_id, username):
    # DeviceCredentialsServiceImpl: hash of the client id, of "client id|user name", or the name
    return (client_id or None, username or None)


class PendingRpc:
    """A server-side RPC that has not been answered."""

    def __init__(self, request_id, payload, future):
        self.request_id = request_id
        self.payload = payload
        self.future = future  # None: one-way
        self.timer = None

    @property
    def is_one_way(self):
        """Nobody waits for a reply."""
        return self.future is None


class DeviceRecord:
    """All that the server knows of one device.

    :param int keep: how many telemetry rows, messages and RPC replies are kept
    :param RateLimits limits: its own, beside those of the tenant
    """

    def __init__(self, name, credentials, keep, limits):
        self.name = name
        self.credentials = credentials
        self.session = None
        self.connects = 0
        self.limits = limits
        self.rate_limited = False  # all limits are exceeded, whatever they are
        self.telemetry = deque(maxlen=keep)  # (ts in ms, {key: value}), as the rule engine gets it
        self.timeseries = TimeSeries(keep)  # what the database makes of it
        self.messages = deque(maxlen=keep)  # (topic, payload, QoS, DUP)
        self.client_attributes = {}
        self.shared_attributes = {}
        self.claiming = Claiming()
        self.rpc_replies = deque(maxlen=keep)  # (request id, payload)
        self.pending_rpcs = {}  # request id: PendingRpc, oldest first
        self.next_rpc_id = 0
        self.on_client_rpc = None

    def store_telemetry(self, rows):
        """Keep the rows that the rule engine would store."""
        for row in rows:
            if row[1] and payloads.has_valid_keys(row[1]):
                self.telemetry.append(row)
                self.timeseries.store(row[0], payloads.database_values(row[1]))

    def store_client_attributes(self, values):
        """Save client attributes, unless the rule engine would refuse a key."""
        if payloads.has_valid_keys(values):
            self.client_attributes.update(payloads.database_values(values))

    def find_attributes(self, client_keys, shared_keys):
        """Build an attribute response; a scope with nothing found is absent."""
        everything = not client_keys and not shared_keys
        found = {}
        for scope, stored, keys in (
            ("client", self.client_attributes, client_keys),
            ("shared", self.shared_attributes, shared_keys),
        ):
            values = {key: stored[key] for key in (stored if everything else keys) if key in stored}
            if values:
                found[scope] = values
        return found

    def take_rpc_id(self):
        """Count RPCs from 0."""
        self.next_rpc_id += 1
        return self.next_rpc_id - 1

    def push_rpc(self, rpc):
        """Push a `PendingRpc` if a session listens; a one-way RPC is done then."""
        session = self.session
        if session is None or not session.pushes.push_rpc(rpc.request_id, rpc.payload):
            return
        if rpc.is_one_way:
            rpc.timer.cancel()
            del self.pending_rpcs[rpc.request_id]

    def push_pending_rpcs(self, order=None):
        """Push all that are unanswered, also those that were delivered before (BURST)."""
        for rpc in reorder(list(self.pending_rpcs.values()), order):
            self.push_rpc(rpc)

    def resolve_rpc(self, request_id, payload):
        """Give a reply to whoever waits for it; a late or unknown one is only kept."""
        self.rpc_replies.append((request_id, payload))
        rpc = self.pending_rpcs.pop(request_id, None)
        if rpc is None:
            return
        rpc.timer.cancel()
        if not rpc.is_one_way:
            _set_reply(rpc.future, payload)

    def expire_rpc(self, rpc, reason):
        """Give up on an RPC."""
        if self.pending_rpcs.get(rpc.request_id) is rpc:
            del self.pending_rpcs[rpc.request_id]
        if not rpc.is_one_way and not rpc.future.done():
            rpc.future.set_exception(TimeoutError(reason))


def _set_reply(future, payload):
    try:
        future.set_result(json.loads(payload) if payload else None)
    except ValueError:  # the REST API answers 406
        future.set_exception(ValueError("the RPC reply is not JSON: %r" % payload))


# --- the server ---


class ThingsBoard:
    """Devices and sessions, and what a user of ThingsBoard does to them.

    Everything but adding devices has to run on the thread of *loop*.

    :param loop: the `asyncio` event loop
    """

    def __init__(self, loop):
        self.loop = loop
        self.now_ms = now_ms  # the time that telemetry without a time of its own gets
        self.monotonic_s = loop.time  # the time of the rate limits
        self.tenant_limits = RateLimits(self._limits_s)
        self.changes = Changes()
        self.faults = Faults()
        self.keep = 100000
        self.inactivity_s = 600
        self.client_rpc_timeout_s = 60
        # The stand-in's own protection, where it listens to more than its own computer.
        self.max_connections = 10000
        self.connect_timeout_s = 10
        self.max_held_bytes = 1 << 20
        self.devices = {}  # Credentials.lookup_key: DeviceRecord
        self.is_listening = True
        self.sessions = set()
        self.accepted = 0
        self.packets = deque(maxlen=_LOGGED_PACKETS)

    def call_later(self, delay, function, *arguments):
        """Call a function after *delay* seconds, holding `changes`; return the timer."""
        return self.loop.call_later(delay, self._call, function, arguments)

    def _call(self, function, arguments):
        with self.changes:
            function(*arguments)

    def _limits_s(self):
        return self.monotonic_s()

    def allows(self, device, data_points=0):
        """Charge a message of *device*; whether it is within its rate limits.

        The tenant is charged first, and for what its device then may not send, too.
        """
        if device.rate_limited:
            return False
        return self.tenant_limits.allow(data_points) and device.limits.allow(data_points)

    def new_session(self):
        """Make the protocol of a new connection (the factory that asyncio asks for)."""
        return Session(self)

    def add_device(self, name, credentials):
        """Register a device.

        :raises ValueError: the credentials are in use
        """
        with self.changes:
            if credentials.lookup_key in self.devices:
                raise ValueError("these credentials belong to another device")
            record = DeviceRecord(name, credentials, self.keep, RateLimits(self._limits_s))
            self.devices[credentials.lookup_key] = record
        return record

    def find_device(self, packet):
        """Look up whose credentials a CONNECT brings; None if they are wrong.

        Client id and user name together come first, and then a wrong password is final
        (DefaultTransportApiService.validateCredentials).
        """
        if not packet.username:
            record = self.devices.get(_lookup_key(packet.client_id, None))
        else:
            record = self.devices.get(_lookup_key(packet.client_id, packet.username))
            if record is None:
                record = self.devices.get(_lookup_key(None, packet.username))
        if record is not None and record.credentials.accept(packet):
            return record
        return None

    def save_shared_attributes(self, device, attributes):
        """Save and push; whether a session got them."""
        values = payloads.stored_values(payloads.parse_object(payloads.rest_body(attributes)))
        device.shared_attributes.update(payloads.database_values(values))
        return self._push_attributes(device, values)

    def delete_shared_attributes(self, device, keys):
        """Delete and push, also what did not exist; whether a session got it."""
        for key in keys:
            device.shared_attributes.pop(key, None)
        return self._push_attributes(device, {"deleted": list(keys)})

    @staticmethod
    def _push_attributes(device, value):
        return device.session is not None and device.session.pushes.push_attributes(value)

    def start_rpc(self, device, method, params, timeout, future=None):
        """Push an RPC, or hold it until the device subscribes; return its id.

        :param timeout: seconds after which *future* gets a `TimeoutError`
        :param future: gets the decoded reply; None is a one-way RPC, done when it is pushed
        """
        rpc = PendingRpc(device.take_rpc_id(), _rpc_payload(method, params), future)
        reason = "no reply to RPC %d" % rpc.request_id
        rpc.timer = self.call_later(timeout, device.expire_rpc, rpc, reason)
        device.pending_rpcs[rpc.request_id] = rpc
        device.push_rpc(rpc)
        return rpc.request_id

    def push_duplicate_rpc(self, device, request_id, method, params):
        """Push an RPC with an id that may have been used; it is lost if nobody listens."""
        if device.session is not None:
            device.session.pushes.push_rpc(request_id, _rpc_payload(method, params))
        return request_id

    def claim_for_customer(self, device, secret_key):
        """Let a customer try to claim a device: SUCCESS, FAILURE or CLAIMED."""
        return device.claiming.attempt(secret_key, self.now_ms())

    def restart_actors(self):
        """Forget what the server keeps in memory alone: pending RPCs, and the next RPC ids."""
        self.give_up_rpcs("the server was restarted")
        for device in self.devices.values():
            device.next_rpc_id = 0

    def give_up_rpcs(self, reason):
        """Fail every pending RPC now."""
        for device in self.devices.values():
            for rpc in list(device.pending_rpcs.values()):
                rpc.timer.cancel()
                device.expire_rpc(rpc, reason)

    def close_inactive_sessions(self):
        """Close what has been idle for longer than `inactivity_s`; keep-alive is ignored."""
        oldest = self.loop.time() - self.inactivity_s
        for session in list(self.sessions):
            # A connection without CONNECT is never timed out.
            if session.state == CONNECTED and session.active_at < oldest:
                session.close()

    def close_sessions(self, rst):
        """Close every connection."""
        for session in list(self.sessions):
            if rst:
                session.abort()
            else:
                session.close()

    def inject(self, data):
        """Send raw bytes to every open connection."""
        for session in self.sessions:
            session.send_raw(data)


def _rpc_payload(method, params):
    return payloads.to_json({"method": method, "params": params})
