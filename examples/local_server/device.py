# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A device as a test or a demo sees it: what the server knows, and what a user can do."""

import time
from concurrent.futures import Future

# `Device.wait` looks again this often although nothing happened in the server, because the
# condition may depend on something else, such as a client that is polled inside of it.
_LOOK_AGAIN_S = 0.02


class Device:
    """One device of a `LocalServer`; `LocalServer.add_device` makes it.

    Every attribute and method may be used from any thread. What is returned is a copy; only the
    dicts inside of `telemetry` are shared, so leave them as they are.
    """

    def __init__(self, server, record):
        self._server = server
        self._record = record

    def __repr__(self):
        return "<Device %s, %s>" % (self.name, "online" if self.online else "offline")

    # --- what the server knows ---

    @property
    def name(self):
        """The name given to `LocalServer.add_device`."""
        return self._record.name

    @property
    def online(self):
        """Whether it has a session."""
        return self._record.session is not None

    @property
    def connects(self):
        """How many sessions it has had."""
        return self._record.connects

    @property
    def telemetry(self):
        """``[(ts_ms, {key: value}), ...]``: every row that reached the rule engine, in this order.

        What is left of them in the database, where a row may replace another one, is `timeseries`.
        ``0.30000000000000004`` and everything else with more than 16 decimals is a str, ``"007"``
        is 7, JSON is a dict or list. Bounded to the last `LocalServer.keep` rows.
        """
        return self._copy(list, self._record.telemetry)

    @property
    def timeseries(self):
        """``{key: [(ts_ms, value), ...]}`` of the database, the earliest time first.

        One value per key and millisecond: the later one wins. Bounded to the last
        `LocalServer.keep` values of all keys together.
        """
        with self._server.lock:
            return self._record.timeseries.all()

    def stored(self, key):
        """``[(ts_ms, value), ...]`` of one key in the database, the earliest time first."""
        with self._server.lock:
            return self._record.timeseries.stored(key)

    def latest(self, key):
        """The stored value of one key that has the latest time, or None."""
        with self._server.lock:
            return self._record.timeseries.latest(key)

    @property
    def messages(self):
        """``[(topic, payload bytes, qos, dup), ...]``: every PUBLISH, refused ones included."""
        return self._copy(list, self._record.messages)

    @property
    def client_attributes(self):
        """``{key: value}`` as the device published them."""
        return self._copy(dict, self._record.client_attributes)

    @property
    def shared_attributes(self):
        """``{key: value}`` as `push_attributes` saved them."""
        return self._copy(dict, self._record.shared_attributes)

    @property
    def claim(self):
        """``{"secretKey": str, "durationMs": int}`` of the claim that stands, or None."""
        with self._server.lock:
            claim = self._record.claiming.claim(self._server.board.now_ms())
            return dict(claim) if claim is not None else None

    @property
    def subscriptions(self):
        """``{topic filter: granted QoS}`` of the live session; empty when offline."""
        with self._server.lock:
            session = self._record.session
            return dict(session.pushes.subscriptions) if session is not None else {}

    @property
    def rpc_replies(self):
        """``[(request id, payload bytes), ...]``: every RPC reply, unasked ones included."""
        return self._copy(list, self._record.rpc_replies)

    def _copy(self, kind, stored):
        with self._server.lock:
            return kind(stored)

    def wait(self, condition, timeout=5):
        """Wait until ``condition(device)`` is true; whether it is.

        The condition runs in the calling thread without any lock, after every event of the
        server, and every 20 ms.

        :param float timeout: seconds
        """
        deadline = time.monotonic() + timeout
        changes = self._server.changes
        while True:
            count = changes.count
            if condition(self):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            changes.wait_beyond(count, min(left, _LOOK_AGAIN_S))

    # --- switches ---

    @property
    def rate_limited(self):
        """Set it to True, and the device exceeds its rate limits, whatever `limits` says.

        A publish closes the connection without PUBACK, CONNECT is refused with code 3, and
        SUBSCRIBE is granted without effect.
        """
        return self._record.rate_limited

    @rate_limited.setter
    def rate_limited(self, limited):
        self._record.rate_limited = limited

    @property
    def limits(self):
        """Its `RateLimits`, each settable at any time: ``device.limits.messages = "10:1,300:60"``.

        They are what ``getSessionLimits`` is answered with; those of the tenant count as well.
        """
        return self._record.limits

    @property
    def on_client_rpc(self):
        """``f(method, params)``, whose value answers a client-side RPC; it must not block.

        None, the default, is like the default rule chain: ``{"error":"timeout"}`` after
        `LocalServer.client_rpc_timeout_s`. ``getSessionLimits`` is answered by the server itself.
        It runs on the server's thread: what it raises is logged, and the timeout answers. None
        as its value is the answer ``null``.
        """
        return self._record.on_client_rpc

    @on_client_rpc.setter
    def on_client_rpc(self, function):
        self._record.on_client_rpc = function

    # --- what a user of ThingsBoard does ---

    def push_attributes(self, attributes):
        """Save shared attributes and push them; whether a session got them.

        Values are converted as telemetry is: ``"1.10"`` is saved and pushed as 1.1.

        :param dict attributes: ``{key: value}``
        """
        board = self._server.board
        return self._server.call(board.save_shared_attributes, self._record, attributes)

    def delete_attributes(self, keys):
        """Delete shared attributes and push ``{"deleted": keys}``; whether a session got it."""
        board = self._server.board
        return self._server.call(board.delete_shared_attributes, self._record, keys)

    def rpc(self, method, params=None, timeout=10):
        """Call a method of the device and wait for its decoded reply; an empty one is None.

        :param float timeout: seconds, those that the RPC waits for a subscription included
        :raises TimeoutError: no reply
        :raises ValueError: the reply is not JSON
        """
        self._server.refuse_own_thread()
        return self.call_rpc(method, params, timeout).result()

    def call_rpc(self, method, params=None, timeout=10):
        """Like `rpc` without waiting: a `concurrent.futures.Future`, whose ``rpc_id`` is the id."""
        future = Future()
        future.set_running_or_notify_cancel()  # from now on nobody can cancel it
        board = self._server.board
        future.rpc_id = self._server.call(
            board.start_rpc, self._record, method, params, timeout, future
        )
        return future

    def push_rpc(self, method, params=None, request_id=None, timeout=10):
        """Push a one-way RPC and return its id; nobody waits for a reply.

        :param int request_id: an id that may have been used before; default: the next one. With
            it the RPC is pushed now or lost, without it it waits for the subscription
        :param float timeout: seconds that it waits for the subscription
        """
        board, record = self._server.board, self._record
        if request_id is not None:
            return self._server.call(board.push_duplicate_rpc, record, request_id, method, params)
        return self._server.call(board.start_rpc, record, method, params, timeout)

    def customer_claims(self, secret_key=""):
        """Let a customer try to claim the device: ``"SUCCESS"``, ``"FAILURE"`` or ``"CLAIMED"``.

        An attempt ends the claim of the device, one with a wrong key too: the device has to
        publish it again. ``"CLAIMED"``: it belongs to a customer already.
        """
        board = self._server.board
        return self._server.call(board.claim_for_customer, self._record, secret_key)

    def disconnect(self, rst=False):
        """Close its session with FIN, or with RST; whether there was one."""
        return self._server.call(self._close_session, rst)

    def _close_session(self, rst):
        session = self._record.session
        if session is None:
            return False
        if rst:
            session.abort()
        else:
            session.close()
        return True
