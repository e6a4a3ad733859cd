# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""ThingsBoard device client for CircuitPython: telemetry, attributes, RPC and claiming over MQTT.

The main loop is yours; the client gets a slice of it at every `check_for_msg` and gives it back
within microseconds. What was handed over to be sent arrives, or is reported::

    from tb_device_mqtt import TBDeviceMqttClient

    client = TBDeviceMqttClient("thingsboard.example", access_token="TOKEN")

    @client.rpc("setLamp")
    def set_lamp(on):
        lamp.value = on
        return {"lamp": on}

    client.connect()
    client.send_telemetry({"temperature": 21.5})
    while True:
        client.check_for_msg()

Map of this file, each layer knows only the ones above it:

* words and limits: topics, packet types, defaults, states, errors
* pure functions of plain values: packets, checking
* `_StandIn`: what MiniMQTT is given as its pool, its TLS context and its socket
* `_Link`: bytes, packets and timers of one MQTT connection; it has never heard of ThingsBoard
* `TBDeviceMqttClient`: topics and JSON, the outbox, requests, RPC; it has never heard of a socket

MiniMQTT keeps the settings, the credentials, the will, TLS and the way to a socket, and builds
CONNECT. Its loop is never called: that one waits a second even when there is nothing to read.
"""

__version__ = "0.1.0"
__repo__ = "https://github.com/thingsboard/CircuitPython_thingsboard-client-sdk.git"

import errno
import gc
import sys
import time
from binascii import crc32
from json import dumps, loads
from random import random

from adafruit_minimqtt.adafruit_minimqtt import MQTT, MMQTTException
from adafruit_minimqtt.matcher import MQTTMatcher
from adafruit_ticks import ticks_add, ticks_diff, ticks_ms

from micropython import const

try:
    from typing import Any, Callable, Optional, Union
except ImportError:
    pass  # boards have no typing and never look at annotations

try:
    from time import ticks_ms as _now_ms  # type: ignore[attr-defined]
except ImportError:  # MicroPython alone has that, and has no nanoseconds

    def _now_ms():
        return time.monotonic_ns() // 1000000


gc.collect()  # a board's memory never moves: what the imports left would lie between what stays

# --- words: topics ----------------------------------------------------------------------------
# ThingsBoard's device topics, MQTT Device API reference; server: MqttTopics.java.

_TELEMETRY = const(0)  # place in the two rows below
_ATTRIBUTES = const(1)
_ATTRIBUTES_REQUEST = const(2)
_ATTRIBUTES_RESPONSE = const(3)
_RPC_REQUEST = const(4)
_RPC_RESPONSE = const(5)

_TOPICS = const(
    (
        "v1/devices/me/telemetry",
        "v1/devices/me/attributes",
        "v1/devices/me/attributes/request/",
        "v1/devices/me/attributes/response/",
        "v1/devices/me/rpc/request/",
        "v1/devices/me/rpc/response/",
    )
)
# One text as long as nobody wants them.
_COMPACT_TOPICS = const("v2/t v2/a v2/a/req/ v2/a/res/ v2/r/req/ v2/r/res/")
_CLAIM = const("v1/devices/me/claim")
_EVERYTHING = const(b"{}")  # payload of a request without keys

# --- words: MQTT control packets ---------------------------------------------------------------
# First byte of the packet, MQTT 3.1.1 section 2.2.1.

_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_SUBSCRIBE = const(0x82)
_SUBACK = const(0x90)
_UNSUBSCRIBE = const(0xA2)
_UNSUBACK = const(0xB0)
_PINGREQ = const(0xC0)
_PINGRESP = const(0xD0)
_DISCONNECT = const(0xE0)
_DUP = const(8)  # flags of a PUBLISH
_QOS_1 = const(2)
_RETAIN = const(1)

# --- words: limits -----------------------------------------------------------------------------

_MAX_PACKET_BYTES = const(64512)  # ThingsBoard: NETTY_MAX_PAYLOAD_SIZE, less the longest topic
_OVERHEAD_BYTES = const(64)  # what a queued message takes beside its payload
_STAMP_BYTES = const(40)  # what its time adds to a reading, at most
_BUFFER_BYTES = const(1024)  # receive buffer; a longer message gets a buffer of its own
_BATCH_BYTES = const(1024)  # late readings that travel as one message
_LATE_MS = const(100)  # readings that waited so long tell their own time
_WINDOW = const(32)  # QoS 1 packets in flight: over 80 ms 400 a second
_MAX_FAILURES = const(8)  # as the pauses grow, two minutes of a server that hangs up
_MAX_REQUESTS = const(64)  # that wait for their answers
_MAX_MESSAGES = const(16)  # that wait for their handlers; then nothing more is read
_MAX_EVENTS = const(64)  # calls of handlers that wait, beside one for each queued message
_MAX_UNSENT = const(4)  # packets that wait for the socket
_WORK_PER_POLL = const(8)  # packets or reads
_MAX_ID = const(0x3FFFFFFF)  # ThingsBoard takes 31 bits; a multiple of 0x7FFF packet ids
_SUBSCRIBE_IDS = const(0x8000)  # packet ids: of messages below, of SUBSCRIBE from here on
_MAX_NAME_CHARS = const(255)  # of keys: KvUtils.java; of host names: DNS; enough for topics
_MAX_DEPTH = const(6)  # nesting of a value; each level takes from a board's small pystack
_SHARED_TIMEOUT_S = const(300)  # sooner, answers above max_message_bytes would cost air time
_RPC_MEMORY = const(4)  # answered requests remembered, to answer them again
_RPC_MEMORY_MS = const(300000)

_TIMER_MS = const(100)
_CONNACK_TIMEOUT_MS = const(10000)
_ACK_TIMEOUT_MS = const(20000)
_PING_TIMEOUT_MS = const(10000)
_BACKOFF_MAX_MS = const(60000)
_BACKOFF_LAST = const(10)  # attempts after which the pause is the longest in any case
_SETTLED_MS = const(10000)  # online for so long: the attempts before count no more
_RADIO_MS = const(500)
_DEEP_CHECK_MS = const(1000)  # Pico W never reports a reset connection as readable
_SPI_GAP_MS = const(60)  # a look at AirLift or WIZnet costs milliseconds of SPI
_SPI_SLICE_BYTES = const(256)
_CLOCK_SET_S = const(1700000000)  # below, the clock still counts from the board's start
_CLOCK_STEP_MS = const(2000)  # more than that is a set clock, not time.time()'s whole seconds

# --- words: states and errors ------------------------------------------------------------------

# stopped -> waiting -> connecting -> online; the last two fall back to waiting, all to stopped.

_STOPPED = const("stopped")  # connect() was not called yet, or disconnect() was
_WAITING = const("waiting")  # for the next attempt
_CONNECTING = const("connecting")  # the attempt is due, or made and not yet accepted
_ONLINE = const("online")

# CONNACK return codes, MQTT 3.1.1 section 3.2.2.3, as ThingsBoard uses them; a line each from 0 on.
# One text: a tuple of six takes 150 bytes more of a board.
_REFUSALS = const("""unknown return code
it does not speak this version of MQTT
it wants an access token
not available, or above a rate limit
user name or password is wrong
it does not know this device""")


class TBError(Exception):
    """What the server or the connection did to us; the parent of the other two."""


class TBTimeoutError(TBError):
    """An answer did not come in time."""


class TBRefusedError(TBError):
    """The server refused the connection; *code* is the CONNACK return code."""

    def __init__(self, code: int, credential: str) -> None:
        reasons = _REFUSALS.split("\n")
        reason = reasons[code if code < len(reasons) else 0]
        super().__init__("refused: %s (CONNACK %d, with %s)" % (reason, code, credential))
        self.code: int = code


# --- pure: packets -----------------------------------------------------------------------------


def _text(topic):
    """A UTF-8 encoded string, MQTT 3.1.1 section 1.5.3."""
    encoded = topic.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _packet(head, *parts):
    size = sum(map(len, parts))
    header = bytes((head,))
    while size > 127:
        header += bytes((size & 127 | 128,))
        size >>= 7
    return b"".join((header + bytes((size,)),) + parts)


# --- pure: checking what is to be sent ---------------------------------------------------------
# ThingsBoard closes the connection on a payload that it dislikes and stores some others as text.
# Such a payload never leaves: the caller is told the key. *left_out*, a function, gets the error of
# one key and raises it, or that key alone is left out.


def _json(value):
    return dumps(value, separators=(",", ":")).encode()


def _check_name(kind, name, without=""):
    """A key, a topic, a host...: some text, in which none of the characters of *without* stands."""
    if not isinstance(name, str):
        raise TypeError("%s %r is no string" % (kind, name))
    if not name.strip() or len(name) > _MAX_NAME_CHARS:
        raise ValueError("%s %r: 1 to %d characters" % (kind, name[:32], _MAX_NAME_CHARS))
    for character in without:
        if character in name:
            raise ValueError("%s %r: no %r" % (kind, name, character))


def _check_value(key, value, depth):
    """*value* as it may be sent, None only at a *depth*; an error names *key*."""
    if isinstance(value, (bool, int, str)) or (value is None and depth):
        return value
    if isinstance(value, float):
        if value - value != 0:  # infinity and NaN alone
            raise ValueError("%r: %s can't be sent" % (key, value))
        # With more than 16 decimals the server stores text (JsonConverter.java).
        return float("%.16f" % value) if abs(value) < 1 else value
    if depth > _MAX_DEPTH:
        raise ValueError("%r: nested more than %d deep" % (key, _MAX_DEPTH))
    if isinstance(value, dict):
        checked: Any = {}
        for item in value:
            _check_name("key", item)
            checked[item] = _check_value(key, value[item], depth + 1)
    elif isinstance(value, (list, tuple)):
        checked = []
        for item in value:
            checked.append(_check_value(key, item, depth + 1))
    else:
        raise TypeError("%r: %s can't be sent" % (key, type(value).__name__))
    return checked


def _objects(values, limit, left_out):
    """JSON objects, as bytes, no longer than *limit*, of what may be sent of the dict *values*."""
    if not isinstance(values, dict):
        raise TypeError("%r is no dict" % (values,))
    if not values:
        raise ValueError("%r is empty" % (values,))
    checked: Any = {}
    for key in values:
        try:
            _check_name("key", key)
            checked[key] = _check_value(key, values[key], 0)
        except (TypeError, ValueError) as error:
            left_out(error)
    whole = _json(checked)
    if checked and len(whole) <= limit:
        return [whole]
    texts = []
    for key in checked:
        text = _json({key: checked[key]})
        _check_size(key, text, limit)
        if texts and len(texts[-1]) + len(text) <= limit + 1:
            texts[-1] = texts[-1][:-1] + b"," + text[1:]
        else:
            texts.append(text)
    return texts


def _telemetry(data, limit, left_out):
    """Payloads of what `send_telemetry` takes: a reading, or a list with one reading a line."""
    if not isinstance(data, (list, tuple)):
        data = (data,)
    if not data:
        raise ValueError("%r is empty" % (data,))  # and the server never acknowledges it
    payloads, room = [], 0
    for values in data:
        ts = None
        if isinstance(values, dict) and "ts" in values and "values" in values:
            ts = values["ts"]
            if type(ts) is not int:
                raise TypeError("'ts' %r: ms since 1970" % (ts,))
            if len(values) > 2:
                raise ValueError("%r: 'ts' and 'values' only" % (list(values),))
            values = values["values"]
        for text in _objects(values, limit - _STAMP_BYTES, left_out):
            size = _STAMP_BYTES + len(text)
            room -= size
            if ts is not None:
                text = b'{"ts":%d,"values":%s}' % (ts, text)
            if room > 0:
                payloads[-1] = b"[%s,\n%s]" % (payloads[-1].strip(b"[]"), text)
            else:
                payloads.append(text)
                room = limit - size
    return payloads


def _check_size(name, data, limit):
    if len(data) > limit:
        raise ValueError("%r: %d bytes, the limit is %d" % (name, len(data), limit))


def _check_callback(callback):
    """A callable, or as in the reference SDK a tuple of it and a further argument."""
    if not callable(callback[0] if isinstance(callback, tuple) else callback):
        raise TypeError("callback %r can't be called" % (callback,))


def _check_text(name, value):
    """What may be left out, and is a string if it is given."""
    if value is not None and not isinstance(value, str):
        raise TypeError("%s is no string" % name)  # not the value: it may be a secret


def _check_number(name, value, lowest, limit, kind=(int, float)):
    if isinstance(value, bool) or not isinstance(value, kind) or not lowest <= value <= limit:
        raise ValueError("%s %r: %d to %d" % (name, value, lowest, limit))
    return value


def _check_payload(payload):
    """What `publish` takes, as bytes."""
    if payload is None:
        return b""
    if isinstance(payload, (str, int, float)):
        return str(payload).encode()
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    raise TypeError("%r: %s can't be sent" % ("payload", type(payload).__name__))


# --- what MiniMQTT is given --------------------------------------------------------------------
# MiniMQTT takes its socket from the pool in its constructor's arguments. Ours hands out a stand-in:
# the real socket inside is connected (and wrapped in TLS) as MiniMQTT and ConnectionManager wish,
# but CONNECT is only collected and a CONNACK handed back at once, so that `MQTT.connect` returns
# without waiting. From then on the real socket is the link's. No private member is touched.


# What the networks of boards raise while they connect, and MQTT classes while they send.
_ATTEMPT_ERRORS = (OSError, RuntimeError, MemoryError, ValueError, MMQTTException)


class _StandIn:
    """Pool, TLS context and socket in one: a link has no more than one of each."""

    def __init__(self, pool, context):
        self.pool = pool
        self.context = context
        self.SOCK_STREAM = pool.SOCK_STREAM
        self.connect_timeout = None  # seconds, for TCP and TLS
        self.real = self.error = None

    def _call(self, method, args, **options):
        """Call *method*, and keep what it raises: MiniMQTT hides that behind its own error."""
        try:
            return method(*args, **options)
        except _ATTEMPT_ERRORS as error:
            self.error = error
            raise

    def getaddrinfo(self, *args):
        found = self._call(self.pool.getaddrinfo, args)
        # ConnectionManager tries the first address only: on a computer, "localhost" may be ::1.
        for info in found:
            if info[0] == self.pool.AF_INET:
                return [info]
        return found

    def socket(self, *args):
        self.close()  # what there was no memory to close
        self.error = None
        self.real = self._call(self.pool.socket, args)
        self.sent = bytearray()
        self._answer = _packet(_CONNACK, bytes(2))
        return self

    def wrap_socket(self, socket, server_hostname=None):
        wrap = self.context.wrap_socket
        self.real = self._call(wrap, (self.real,), server_hostname=server_hostname)
        return self

    def connect(self, address):
        self.real.settimeout(self.connect_timeout)
        self._call(self.real.connect, (address,))

    def settimeout(self, timeout):
        """MiniMQTT's timeouts are for its own waiting, which never happens."""

    def send(self, data):
        self.sent.extend(data)
        return len(data)

    def recv_into(self, buffer, size=0):
        size = min(size or len(buffer), len(self._answer))
        buffer[:size] = self._answer[:size]
        self._answer = self._answer[size:]
        return size

    def close(self):
        try:
            self.real.close()
        except (AttributeError, OSError, RuntimeError):
            pass  # there is none, or it was closed already
        self.real = None


# --- _Link: open and close ---------------------------------------------------------------------
# One MQTT 3.1.1 connection that never waits. Its owner calls `poll` and is called back for a
# message, an acknowledgement, a change of state, an error; there it only notes what came. The one
# step that blocks is an attempt to connect: DNS, TCP and TLS, which CircuitPython's sockets can't
# do otherwise; it is announced by the state "connecting" and bounded as far as the sockets keep to
# `connect_timeout`.


_EPIPE = const(32)  # numbers that errno lacks on boards
_ENOBUFS = const(105)
_WSAEWOULDBLOCK = const(10035)  # EAGAIN of Windows
_IPPROTO_TCP = const(6)  # the same everywhere; not every pool has the names
_TCP_NODELAY = const(1)

# Parts of an error's class or text, in lower case, and what they mean; the first line that fits.
# One text: nested tuples take 700 bytes more of a board.
_CAUSES = const("""memory|nomem|alloc|too little memory left
gaierror|unicodeerror|resolve|request host|host not known
refused|nobody listens there
timed|inprogress|no answer
expired|yet valid|certificate expired or not yet valid: is the clock set?
mismatch|not match|certificate of another host
verif|signed|certificate not trusted: tls= takes the path of its CA file
host|unreach|no connection
alert|our TLS refused: is a client certificate wanted?
ssl|TLS failed: does this port speak it?
|no connection""")


class _Link:
    backoff_ms = 1000  # the longest first pause; the next are twice as long each
    credential = "access_token"  # what the server refuses, should it refuse

    def __init__(self, owner, settings, pool, context, radio):
        """*settings*: the arguments of `MQTT` that say where to and who."""
        self._owner = owner
        self.radio = radio
        self.is_ssl = context is not None
        self._where = "%s port %d" % (settings["broker"], settings["port"])
        self._standin = _StandIn(pool, context)
        self.mqtt = MQTT(
            socket_pool=self._standin,
            ssl_context=self._standin,
            is_ssl=self.is_ssl,
            use_binary_mode=True,
            connect_retries=1,
            **settings,
        )
        self.state = _STOPPED
        self.error = None  # why there is no connection
        self.waiting = 0  # messages that the owner has not taken yet
        self._attempts = 0  # since a connection lasted
        self._early = True  # send behind CONNECT, before its CONNACK
        self._topics = {}
        # ESP32SPI and WIZnet are Python code behind SPI: no select, and a look takes milliseconds.
        self._is_airlift = hasattr(pool, "NO_SOCKET_AVAIL")
        self._is_wiznet = hasattr(pool, "_interface") and not self._is_airlift
        self._own_buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._reset()

    def _reset(self):
        """Forget the connection, keep the topics."""
        self._socket = None
        self._ready = None
        self.unsent = []  # packets, as views
        self._gone = 0  # bytes of the first that were sent
        self._buffer = self._own_buffer
        self._filled = self._skip = 0  # bytes in the buffer; of them, or beyond, to be forgotten
        self._early_id = 0  # of the first packet that went out before CONNACK, if it is awaited
        self._more = False
        self._fault = None
        self._awaited = {}  # packet id -> topics of a SUBSCRIBE
        self._is_open = self._is_pinged = self._is_used = False

    def start(self):
        """Connect, and stay connected until `stop`."""
        self.error = None
        if self.state == _STOPPED:
            self._attempts = 0
            self._move(_WAITING)
        self._due = ticks_ms()  # the attempt, if one is waited for

    def stop(self):
        """Say DISCONNECT if that can be done at once, and close."""
        if self.state == _STOPPED:
            return
        if self._socket is not None:
            self._write(_packet(_DISCONNECT))
        self._close(_STOPPED)

    def _open(self):
        """The attempt: DNS, TCP, TLS. What MiniMQTT wanted to send goes out without waiting."""
        self._owner.stats["connects"] += 1
        self._standin.connect_timeout = self._owner.connect_timeout
        try:
            self.mqtt.connect(clean_session=self._owner.clean_session)
            if self._standin.real is not None:
                self._adopt()
            else:  # online without a socket: see `_poll_mqtt`
                self.mqtt.on_message = self._owner._link_message
                self._on_connack(0)
        except _ATTEMPT_ERRORS as error:
            self._lose(self._connect_error(error))
            if "pystack" in str(error):
                raise  # exhausted: the program's own nesting is too deep

    def _connect_error(self, error):
        """The reason why an attempt failed, as an `OSError` in our words and the system's."""
        error = self._standin.error or error
        said = "%s %s %s" % (type(error).__name__, error, "ssl" if self.is_ssl else "")
        number = getattr(error, "errno", None)
        number = number if isinstance(number, int) else errno.ENOTCONN
        for line in _CAUSES.split("\n"):
            *parts, cause = line.split("|")
            for part in parts:
                if part in said.lower():
                    return OSError(number, "%s: %s (%s)" % (self._where, cause, error))

    def _adopt(self):
        """Take the real socket over. Never again is it given time to wait."""
        socket = self._standin.real
        socket.settimeout(0)
        self._due = self._look_at = self._since = self._received_at = self._pinged_at = ticks_ms()
        self._socket = socket
        try:  # each packet a segment; otherwise the second waits for the peer's ACK
            socket.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
        except (AttributeError, OSError):
            pass  # not every socket can
        try:  # the system, not the socket, is asked whether there is something to read
            import select

            poller = select.poll()
            poller.register(socket, select.POLLIN)
            ready = getattr(poller, "ipoll", None) or poller.poll
            for _ in ready(0):  # some sockets register and fail only here
                break
            self._ready = ready
        except (ImportError, AttributeError, OSError, TypeError, ValueError):
            pass  # not every system can
        self._write(bytes(self._standin.sent))
        if self._early:
            self._begin()

    def _begin(self):
        """From now on packets may leave."""
        self._is_open = True
        # ThingsBoard says "session present" of sessions that it has forgotten: always subscribe.
        if self._topics:
            self._request(_SUBSCRIBE, list(self._topics))

    def _close(self, state, reason=None):
        self._is_open = False  # a logger may send when it is told the reason
        self._ready = None  # the poller: Espressif's select can't bear a closed socket
        try:
            self.mqtt.disconnect()
        except _ATTEMPT_ERRORS:
            pass  # it was not connected
        self._standin.close()
        self._move(state, reason)
        self._reset()

    def _lose(self, reason):
        """The connection, or the attempt, is over; plan the next one."""
        if self._early_id:
            self._early = False  # ThingsBoard before 3.3 forgets what came before its CONNACK
        self.error = reason
        if self._is_used and self._awaited:
            self._attempts = 0  # cut in the middle of messages that pass
        # Otherwise it did not last: two clients on one token throw each other out, which must not
        # become a race.
        pause_ms = min(_BACKOFF_MAX_MS, self.backoff_ms << self._attempts)
        self._attempts = min(self._attempts + 1, _BACKOFF_LAST)
        self._due = ticks_add(ticks_ms(), int(pause_ms * (0.5 + random() / 2)))
        self._close(_WAITING, reason)

    # --- _Link: state --------------------------------------------------------------------------

    def _move(self, state, reason=None):
        """The one place that changes the state; see where the states are named."""
        self.state = state
        self._owner._link_moved(state, reason)

    def poll(self):
        """Move on by as much as can be done without waiting. Raises no network error."""
        try:
            if self._socket is None:
                self._poll_without_socket()
            else:
                if self.unsent:
                    self._flush()
                now = ticks_ms()
                if self._more or self._fault or self._is_readable(now):
                    self._read()
                if self._socket is not None and ticks_diff(now, self._due) >= 0:
                    self._run_timers(now)
            if self._fault is not None:
                raise self._fault
        except (OSError, TBError) as reason:
            self._lose(reason)

    def _poll_without_socket(self):
        """Announce the attempt when it is due and there is a network, make it one poll later."""
        if self.state == _CONNECTING:
            self._open()  # announced at the poll before
            return
        if self.state == _ONLINE:
            self._poll_mqtt()
        if self.state != _WAITING or ticks_diff(ticks_ms(), self._due) < 0:
            return
        self._due = ticks_add(ticks_ms(), _RADIO_MS)
        for name in ("connected", "is_connected", "link_status"):  # each kind of radio has one
            if not getattr(self.radio, name, True):
                if self.error is None:
                    self.error = OSError(errno.EHOSTUNREACH, "the radio is not connected")
                    self._owner._link_error(self.error)
                return
        self._move(_CONNECTING)

    def _poll_mqtt(self):
        """Where an MQTT class keeps its socket to itself, such as a test double: have it work.

        It blocks as long as it likes; its calls return when the server has acknowledged.
        """
        for packet_id in self._awaited:
            self._owner._link_acknowledged(packet_id)
        self._awaited = {}
        if self._fault is None and self._try(self.mqtt.loop) != -1:
            self._attempts = 0

    def _run_timers(self, now):
        self._due = ticks_add(now, _TIMER_MS)
        ping_ms = self.mqtt.keep_alive * 500  # half the interval
        limit_ms = min(_PING_TIMEOUT_MS, ping_ms * 3 // 4 or _PING_TIMEOUT_MS)
        if self.unsent:  # TCP's acknowledgements: without them there is no room for more
            self._expect("acknowledgement", self._sent_at, limit_ms)
            self._acked_at = now  # the server can't acknowledge yet what has not left
        if self.state == _CONNECTING:
            self._expect("CONNACK", self._since, _CONNACK_TIMEOUT_MS)
            return
        if ticks_diff(now, self._since) >= _SETTLED_MS:
            self._attempts = 0
        if not self._more:  # else what we wait for may be there, unread
            if self._awaited:
                self._expect("acknowledgement", self._acked_at, _ACK_TIMEOUT_MS)
            if self._is_pinged:
                self._expect("PINGRESP", self._pinged_at, limit_ms)
        # Half the interval without a byte from one side: ask, and show that we are there.
        silent_ms = ticks_diff(now, self._sent_at)
        if not self._is_pinged:
            silent_ms = max(silent_ms, ticks_diff(now, self._received_at))
        if silent_ms >= ping_ms > 0 and not self.unsent:
            self._pinged_at = now
            self._is_pinged = True
            self._write(_packet(_PINGREQ))

    def _expect(self, name, since, limit):
        if ticks_diff(ticks_ms(), since) > limit:
            raise TBTimeoutError("no %s in %g s" % (name, limit / 1000))

    def _line_error(self, error):
        """What a socket raised, or None if it was closed, as a reason for the user."""
        words = "closed by the server"
        if self.state == _CONNECTING:
            words += " before CONNACK: is TLS or a client certificate wanted?"
            if error:
                words += " (%s)" % error
        elif error is not None and error.errno not in (errno.ENOTCONN, errno.ECONNRESET, _EPIPE):
            return error
        elif self._attempts > 2:
            words += " again and again: credentials used twice?"
        return OSError(errno.ENOTCONN, words)

    # --- _Link: sending ------------------------------------------------------------------------
    # One packet is one send(). A packet is kept until all of it has gone; a TLS layer that took
    # a part of it must be offered the very same bytes again.

    def can_send(self):
        """Whether `publish` would send now, or as soon as the socket takes more."""
        return self._is_open and self._fault is None and len(self.unsent) < _MAX_UNSENT

    def publish(self, topic, payload, flags, packet_id):
        """Send what `can_send`; *flags* as in the packet. The owner is told the PUBACK."""
        identifier = b""
        if flags & _QOS_1:
            identifier = packet_id.to_bytes(2, "big")
            self._await(packet_id)
        if self._socket is None:
            retain, quality_of_service = bool(flags & _RETAIN), flags >> 1 & 1
            if self._try(self.mqtt.publish, topic, payload, retain, quality_of_service) == -1:
                self._awaited.pop(packet_id, None)  # else `_poll_mqtt` takes it for acknowledged
            return
        self._write(_packet(_PUBLISH | flags, _text(topic), identifier, payload))

    def subscribe(self, topic, quality_of_service=1):
        """Subscribe now and after each connect; with None no more."""
        if self._topics.get(topic) == quality_of_service:
            return
        head = _SUBSCRIBE
        self._topics[topic] = quality_of_service
        if quality_of_service is None:
            head = _UNSUBSCRIBE
            del self._topics[topic]
        if self._is_open:
            self._request(head, (topic,))

    def _request(self, head, topics):
        """Send SUBSCRIBE or UNSUBSCRIBE, under a number that no message has."""
        packet_id = _SUBSCRIBE_IDS + 1
        while packet_id in self._awaited:
            packet_id += 1
        self._await(packet_id, topics)
        parts = [packet_id.to_bytes(2, "big")]
        for topic in topics:
            parts.append(_text(topic))
            if head == _SUBSCRIBE:
                parts.append(bytes((self._topics[topic],)))
        if self._socket is not None:
            self._write(_packet(head, *parts))
            return
        for topic in topics:
            if head == _SUBSCRIBE:
                self._try(self.mqtt.subscribe, topic, self._topics[topic])
            else:
                self._try(self.mqtt.unsubscribe, topic)

    def _await(self, packet_id, topics=()):
        """Expect an acknowledgement."""
        if not self._awaited:
            self._acked_at = ticks_ms()
        self._awaited[packet_id] = topics
        if self.state == _CONNECTING and not self._early_id:
            self._early_id = packet_id

    def _write(self, packet):
        if not self.unsent:
            self._sent_at = ticks_ms()
        self.unsent.append(memoryview(packet))
        self._flush()

    def _flush(self):
        """Send until the socket has no room."""
        while self.unsent and self._fault is None:
            data = self.unsent[0][self._gone :]
            if self._is_airlift:
                data = data[:_SPI_SLICE_BYTES]
            if self._is_wiznet:
                self._socket.settimeout(2)  # 0 would mean: wait for ever
            sent = self._try(self._socket.send, data)
            if self._is_wiznet:
                self._socket.settimeout(0)
            if sent is None:
                sent = len(data)
            if sent <= 0:
                return
            self._sent_at = ticks_ms()
            self._gone += sent  # which takes no memory: what has gone never goes again
            if self._gone >= len(self.unsent[0]):
                self._gone = 0
                self.unsent.pop(0)
            if self._is_airlift:
                return  # one slice a poll: each takes milliseconds

    def _try(self, method, *args):
        """What *method* of the socket, or of MQTT, returns; -1 if it would have to wait.

        If it fails, too: nothing is raised here, the poll then ends the connection.
        """
        try:
            return method(*args)
        except OSError as error:
            # lwIP without a free buffer has taken nothing, as if it were full. CPython's TLS has
            # exceptions of its own.
            is_busy = error.errno in (errno.EAGAIN, _WSAEWOULDBLOCK, errno.ENOMEM, _ENOBUFS)
            is_busy = is_busy or "SSLWant" in type(error).__name__
            if not is_busy or self._socket is None:
                self._fault = self._line_error(error)
        except _ATTEMPT_ERRORS as error:
            self._fault = OSError(errno.ENOTCONN, str(error))
        return -1

    # --- _Link: receiving ----------------------------------------------------------------------
    # Bytes land in one fixed buffer, whose first `_filled` were not taken apart yet. A message that
    # does not fit gets a buffer of its own for as long as it takes. Of one above max_message_bytes
    # the beginning is dealt with as if it were whole, up to its acknowledgement, so that the server
    # does not send it for ever; the rest goes by unread.

    def _is_readable(self, now):
        gap_ms = _SPI_GAP_MS if self._is_airlift or self._is_wiznet else 0
        if self._ready is not None:
            for _ in self._ready(0):
                return True
            gap_ms = _DEEP_CHECK_MS
        if ticks_diff(now, self._look_at) < 0:
            return False
        self._look_at = ticks_add(now, gap_ms)
        return True

    def _read(self):
        """Take some packets. `_more`: a read did not end in would-block yet."""
        self._more = True
        for _ in range(_WORK_PER_POLL):
            if self._socket is None:
                return  # a logger has called disconnect()
            is_stuck = len(self.unsent) > 2 * _MAX_UNSENT
            if (self.waiting >= _MAX_MESSAGES or is_stuck) and self.state == _ONLINE:
                return  # what comes has nowhere to go: TCP holds the server back meanwhile
            if self._take_packet():
                continue
            size = self._try(self._socket.recv_into, self._buffer[self._filled :])
            if size == 0:  # it has ended; an AirLift has to be asked
                socket = getattr(self._socket, "_socket", self._socket)  # inside its TLS
                if not (self._is_airlift and self._try(socket._connected)):
                    raise self._line_error(None)
            if size <= 0:
                self._more = False
                return
            self._filled += size
            self._received_at = self._pinged_at = ticks_ms()  # the answer may be behind that

    def _take_packet(self):
        """Deal with one packet; False if more of it has to come first."""
        if self._skip:  # what was dealt with, or goes by unread
            gone = min(self._skip, self._filled)
            left = self._filled - gone
            self._buffer[:left] = self._buffer[gone : self._filled]
            self._filled = left
            self._skip -= gone
            if not left:
                self._buffer = self._own_buffer
        head, start, size, byte = self._buffer[0], 1, 0, 128
        try:
            while byte > 127:
                if start >= self._filled:
                    return False
                if start > 4:
                    raise ValueError
                byte = self._buffer[start]
                size |= (byte & 127) << 7 * (start - 1)
                start += 1
            end = start + size
            is_full = self._filled == len(self._buffer)
            if end > self._filled and (not is_full or self._grow(head, start, end)):
                return False
            self._skip = end  # never twice, even if there is no memory for the rest
            self._handle(head, self._buffer[start:end])
        except MemoryError:
            self._owner.stats["oversize"] += 1
            self._owner._link_error(TBError("no room for a message: %d bytes" % self._skip))
        except (IndexError, ValueError):
            words = "is TLS wanted?" if head == 0x15 else "unexpected"
            raise TBError("protocol: packet 0x%02x: %s" % (head, words)) from None
        return True

    def _grow(self, head, start, end):
        """Get a buffer for a message that doesn't fit, unless it is too long."""
        if head & 0xF0 != _PUBLISH:
            raise ValueError
        topic_end = start + 2 + (self._buffer[start] << 8 | self._buffer[start + 1])
        payload = topic_end + (2 if head & _QOS_1 else 0)
        if end - payload > self._owner.max_message_bytes:
            return False
        try:
            buffer = memoryview(bytearray(end))
            buffer[: self._filled] = self._buffer
        except MemoryError:
            return False
        self._buffer = buffer
        return True

    def _handle(self, head, body):
        kind = head & 0xF0
        if (kind == _CONNACK) != (self.state == _CONNECTING):
            raise ValueError
        if kind == _CONNACK:
            self._on_connack(body[1])
        elif kind == _PUBLISH:
            self._on_publish(head >> 1 & 3, body)
        elif kind in (_PUBACK, _SUBACK, _UNSUBACK):
            self._on_acknowledgement(body)
        elif kind == _PINGRESP:
            self._is_pinged = False
        else:
            raise ValueError

    def _on_connack(self, code):
        if code:
            if code != 3:  # "not available" may pass, the others stay: no fast retry
                self._attempts = _BACKOFF_LAST
            raise TBRefusedError(code, self.credential)
        self._acked_at = self._since = ticks_ms()
        self.error = None
        if not self._is_open:
            self._begin()
        self._move(_ONLINE)

    def _on_publish(self, quality_of_service, body):
        end = 2 + (body[0] << 8 | body[1])
        start = end + 2 * quality_of_service
        if quality_of_service > 1 or start > len(body):
            raise ValueError
        topic = str(body[2:end], "utf-8")
        if quality_of_service:
            self._write(_packet(_PUBACK, bytes(body[end:start])))
        if self._skip > self._filled:
            raise MemoryError  # the rest goes by unread
        self._owner._link_message(None, topic, body[start:])

    def _on_acknowledgement(self, body):
        packet_id = body[0] << 8 | body[1]
        topics = self._awaited.get(packet_id)
        if topics is None:
            return
        if packet_id == self._early_id:
            self._early_id = 0
        if not self._early_id:  # else it may be forgotten, whatever came later
            self._acked_at = ticks_ms()
        if not topics:  # of a message
            self._is_used = True
            self._owner._link_acknowledged(packet_id)
        for topic, code in zip(topics, body[2:]):
            if code > 2:
                self._owner.stats["refused_subscriptions"] += 1
                self._owner._link_error(TBError("subscription refused: " + topic))
        self._awaited.pop(packet_id, None)  # only now: if memory ran out, it is missed


# --- client: what it is made of ----------------------------------------------------------------


class _Message:
    """An entry of the outbox: kept until it is acknowledged."""

    id: int  # given with a place in the queue

    def __init__(self, topic, payload, flags=_QOS_1, captured_ms=0):
        self.topic = topic
        self.payload = payload
        self.flags = flags
        self.captured_ms = captured_ms  # of telemetry alone: when it was handed over
        self.packet_id = 0  # in flight: its neighbours may have the same


def _epoch_ms(before_ms):
    """What makes a monotonic time a ThingsBoard ``ts``; 0 while the clock was never set.

    It stays what it was *before_ms* unless the clock was set: boards have whole seconds only, and
    readings must not move against each other.
    """
    now_s = time.time()
    if now_s >= _CLOCK_SET_S:
        epoch_ms = int(now_s * 1000) - _now_ms()
        if abs(epoch_ms - before_ms) > _CLOCK_STEP_MS:
            return epoch_ms
    return before_ms


def _network(network_adapter, radio):
    """``(socket pool, TLS context or None, radio)`` of what the user gave, or of what is there."""
    if network_adapter is not None:
        return network_adapter.get_socket_pool(), network_adapter.get_ssl_context(), None
    if radio is None and sys.implementation.name == "circuitpython":
        from wifi import radio
    if radio is None:
        import socket

        return socket, None, None
    from adafruit_connection_manager import get_radio_socketpool, get_radio_ssl_context

    return get_radio_socketpool(radio), get_radio_ssl_context(radio), radio


def _tls_context(tls, context):
    """What *tls* asks for: nothing, True, the path of a CA file, or a context. *context*: ours."""
    if not tls or hasattr(tls, "wrap_socket"):
        return tls or None
    if tls is True and context is not None:
        return context
    import ssl

    if tls is True:
        return ssl.create_default_context()
    _check_text("tls", tls)
    with open(tls) as file:
        authorities = file.read()
    if sys.implementation.name == "cpython":
        return ssl.create_default_context(cadata=authorities)  # these alone, not the system's too
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authorities)
    return context


class TBDeviceMqttClient:
    """A device of a ThingsBoard server.

    :param str host: name or address of the server
    :param port: int, or a string of digits. Defaults to 1883, with *tls* to 8883
    :param str access_token: the device's access token
    :param int quality_of_service: of what is sent, 0 or 1. Defaults to 1: kept until the server
        has acknowledged it
    :param str client_id: MQTT client identifier. Defaults to one that is unique to the board
    :param network_adapter: an adapter of the reference SDK (``get_socket_pool()``,
        ``get_ssl_context()``), instead of *radio*
    :param str username: with *password* instead of an access token (MQTT Basic credentials)
    :param tls: True (the system's authorities), the path of a CA file in PEM format, or an
        ``ssl.SSLContext`` of your own, for example one with a client certificate
    :param radio: ``wifi.radio``, an ``ESP_SPIcontrol`` or a ``WIZNET5K``. Defaults to the board's
        own Wi-Fi; on a computer to its network
    :param socket_pool: instead of *radio*
    :param int keep_alive: seconds; a dead connection is noticed within that time. 0: never
    :param int queue_size: messages that are kept while they can't be sent. When full, the oldest
        telemetry goes, and `on_drop` is told
    :param int queue_bytes: the same in bytes
    :param bool strict: what to do with a value that ThingsBoard would dislike (None, NaN, ...).
        True: raise an error that names the key, nothing is sent. False: leave out the key alone
        and count it in ``stats["left_out"]``
    :param bool compact: ThingsBoard's short topics, which save 19 bytes of each telemetry message
    :param logger: an object with a method ``warning``. Defaults to none; the library prints nothing
    :raises ValueError, TypeError, AttributeError: an argument that can't be right; the text names
        it
    """

    connect_timeout: float = 5
    """Seconds that TCP, and each step of TLS, may block at most in one attempt.

    DNS has limits of its own; so have an AirLift (about 10 s) and a WIZnet (about 30 s).
    """
    request_timeout: float = 10
    """Seconds after which a request without an answer fails with `TBTimeoutError`."""
    max_message_bytes: int = 16384
    """The longest payload that is accepted or sent; a longer one is thrown away or refused."""
    clean_session: bool = True
    """As in CONNECT. ThingsBoard keeps no session either way."""
    user_data: Any
    """Handed to the five callbacks below as their second argument."""
    idle: Optional[Callable[[], Any]]
    """Called while `connect`, `wait_for_msg` and `flush` wait, for example to feed a watchdog."""
    on_connect: Optional[Callable[..., Any]] = None
    """``on_connect(client, user_data, flags, rc)``, shaped as in MiniMQTT; both are 0."""
    on_disconnect: Optional[Callable[..., Any]] = None
    """``on_disconnect(client, user_data, rc)``: 0 after `disconnect`, 1 if it was lost."""
    on_state: Optional[Callable[..., Any]] = None
    """``on_state(client, user_data, state, reason)``: each change of `state`, and why."""
    on_publish: Optional[Callable[..., Any]] = None
    """``on_publish(client, user_data, topic, message_id)``: acknowledged; of QoS 0: it has left."""
    on_drop: Optional[Callable[..., Any]] = None
    """``on_drop(client, user_data, topic, message_id, payload, reason)``: it won't be sent.

    Of those without a poll between them the first 64, and as many as fit into the queue, are told;
    ``stats["dropped"]`` counts all.
    """
    state: str
    """``"stopped"``, ``"waiting"`` (for the next attempt), ``"connecting"``, ``"online"``."""
    connected: bool
    """True between the server's CONNACK and the moment the connection is known to be gone."""
    last_error: Optional[Exception]
    """The last exception of the connection, the server or a handler."""
    stats: "dict[str, int]"
    """Counters since the start; the names say what."""

    def __init__(
        self,
        host: str,
        port: Union[int, str, None] = None,
        access_token: Optional[str] = None,
        quality_of_service: Optional[int] = 1,
        client_id: Optional[str] = None,
        network_adapter: Any = None,
        *,
        username: Optional[str] = None,
        password: Optional[str] = None,
        tls: Any = None,
        radio: Any = None,
        socket_pool: Any = None,
        keep_alive: int = 60,
        queue_size: int = 64,
        queue_bytes: int = 8192,
        strict: bool = True,
        compact: bool = False,
        logger: Any = None,
    ) -> None:
        if sys.implementation.name != "cpython":
            gc.collect()  # as after the imports
        self._reset()
        self._quality_of_service = 1  # what None stands for
        self._quality_of_service = self._given(quality_of_service)
        self._strict = strict
        self._topics = _COMPACT_TOPICS.split() if compact else _TOPICS
        self._logger = logger and logger.warning
        self._outbox_max_size = _check_number("queue_size", queue_size, 1, _SUBSCRIBE_IDS >> 1)
        self._outbox_max_bytes = _check_number("queue_bytes", queue_bytes, 1, 1 << 29)

        port = (8883 if tls else 1883) if port is None else port
        port = int(port) if str(port).isdigit() else port
        _check_text("access_token", access_token)
        _check_text("username", username)
        _check_text("password", password)
        _check_text("client_id", client_id)
        _check_name("host", host, "/")
        if (username and access_token) or (password and not username):
            raise ValueError("either access_token or username")
        if not client_id and sys.implementation.name == "circuitpython":
            from microcontroller import cpu

            # Elsewhere MiniMQTT has a good one.
            client_id = "tb-%x" % int.from_bytes(cpu.uid, "big")
        settings = {
            "broker": host,
            "port": _check_number("port", port, 1, 65535, int),
            "client_id": client_id,
            "keep_alive": int(_check_number("keep_alive", keep_alive, 0, 65534)),
            "username": access_token or username,
            "password": password or "",  # MiniMQTT can't do without
        }
        context = None
        if socket_pool is None:
            socket_pool, context, radio = _network(network_adapter, radio)
        self._link: Any = _Link(self, settings, socket_pool, _tls_context(tls, context), radio)
        if not access_token:
            self._link.credential = "username" if username else "tls" if tls else "client_id"

    def _reset(self):
        """Nothing to send, nothing asked for, nobody listens."""
        self.state = _STOPPED
        self.connected = self._is_delivering = False
        self.user_data = self.idle = None
        self.stats = {
            "connects": 0,  # attempts
            "sent": 0,  # packets; several readings may travel in one
            "resent": 0,
            "acknowledged": 0,  # messages
            "dropped": 0,
            "left_out": 0,  # keys, with strict=False
            "received": 0,
            "unexpected": 0,  # received, and nobody could use it
            "oversize": 0,  # thrown away: longer than max_message_bytes, or no memory for it
            "handler_errors": 0,
            "rpc_repeated": 0,  # the same request again, answered from memory
            "refused_subscriptions": 0,
        }

        self.last_error = None  # has its place before there is no memory for one
        self._events = []  # (handler, arguments) in the order they came; None: a message
        self._plain: Any = None  # MQTTMatcher: topic filter -> callback of subscribe()

        self._outbox = []
        self._outbox_sent = 0  # entries at the front that are in flight
        self._outbox_failures = 0  # of what is at the front
        self._outbox_bytes = 0
        self._outbox_stamp_ms = 0
        self._outbox_epoch_ms = 0

        self._requests = {}  # topic of the answer -> see _ask
        self._last_id = 0  # of messages, requests and attribute subscriptions

        self._attributes_watches: Any = []  # (id, key or None for all, callback)
        self._attributes_shared: Any = None
        self._attributes_defaults: Any = {}  # of what the server knows; None: there is none

        self._rpc_methods = {}  # name -> function; None -> the handler of all others
        self._rpc_memory = []  # [request id, checksum of the request, reply or None, time]

    @classmethod
    def from_settings(cls, **options: Any) -> "TBDeviceMqttClient":
        """A client of what settings.toml says (on a computer: the environment).

        THINGSBOARD_HOST, THINGSBOARD_PORT, THINGSBOARD_TOKEN and THINGSBOARD_TLS (1, or the path
        of a CA file). *options*: further arguments of the constructor, which win.

        :raises ValueError: there is no THINGSBOARD_HOST
        """
        from os import getenv

        for name in ("port", "access_token", "tls", "host"):
            setting = "THINGSBOARD_" + name.split("_")[-1].upper()
            value = getenv(setting)
            if value is not None:  # without quotes in settings.toml it is a number
                options.setdefault(name, str(value))
        if name not in options:  # the host: it alone has no default
            raise ValueError("no " + setting)
        if options.get("tls") in ("0", "1", "true"):
            options["tls"] = options["tls"] > "0"  # "true" is, too
        return cls(**options)

    # --- client: link --------------------------------------------------------------------------
    # connect() starts the link; it stays in charge until disconnect(). What it brings is noted as
    # events; check_for_msg() delivers them, one handler at a time, as the last thing it does.

    def is_connected(self) -> bool:
        """The same as `connected`."""
        return self.connected

    def connect(self, timeout: float = 10) -> bool:
        """Connect, and from then on stay connected: `check_for_msg` reconnects by itself.

        :param timeout: seconds. 0: start and go on, never raises; see `state` and `on_connect`
        :return: True when online; with ``timeout=0`` whether it is already
        :raises TBRefusedError: the server refused; the text says which credential and why
        :raises TBTimeoutError: no answer to CONNECT in time
        :raises OSError: no connection; the text says what to change

        After an error the client goes on trying, with pauses that grow to a minute; `disconnect`
        ends that.
        """
        if timeout is not None:
            _check_number("timeout", timeout, 0, 86400)
        link = self._link
        link.start()
        if timeout == 0:
            return self.connected
        for _ in self._polls(timeout):
            if link.error:
                raise link.error
            if self.connected or link.state == _STOPPED:
                return self.connected
        raise TBTimeoutError("no %s in %g s" % ("CONNACK", timeout or self.request_timeout))

    def disconnect(self) -> None:
        """Say DISCONNECT and close. What is queued stays queued; requests fail. Twice: no harm."""
        self._link.stop()
        self._deliver()

    def __enter__(self) -> "TBDeviceMqttClient":
        self.connect()
        return self

    def __exit__(self, *args: Any) -> None:
        if args[0] is None and self.connected:
            self.flush(self.request_timeout)
        self.disconnect()

    def check_for_msg(self) -> int:
        """Send, receive, reconnect, call handlers: what is due, without waiting for anything.

        Call it often, at least several times a second. Only an attempt to connect takes longer
        than some milliseconds, see `connect_timeout`.

        :return: how many messages were handled
        :raises: nothing; see `last_error`, `stats` and the callbacks. A message is acknowledged
            before its handler runs
        """
        handled = 0
        try:
            self._link.poll()
            if self._events:
                handled = self._deliver()
            # Behind the answers: after a long pause, or a long handler, they have come in time.
            if self._requests and not self._link.waiting:
                self._requests_expire()
        except MemoryError as error:  # the next poll goes on where this one stopped
            self.last_error = error
        if self._outbox_sent < len(self._outbox):
            self._outbox_pump()
        return handled

    def wait_for_msg(self, timeout: Optional[float] = None) -> int:
        """Poll until a message was handled.

        :param timeout: seconds. Defaults to None: without end; from inside a handler, which keeps
            other messages waiting, `request_timeout`
        :return: how many messages were handled, 0 after *timeout*
        """
        for handled in self._polls(timeout):
            if handled:
                return handled
        return 0

    def flush(self, timeout: Optional[float] = None) -> bool:
        """Poll until the server has acknowledged all that was sent.

        :param timeout: seconds. Defaults as in `wait_for_msg`
        :return: True if nothing is queued any more. False after *timeout*, or if stopped
        """
        for _ in self._polls(timeout):
            is_done = not (self._outbox or self._link.unsent)
            if is_done or self.state == _STOPPED:
                return is_done
        return False

    def _polls(self, timeout):
        """Poll again and again until *timeout*; yields how many messages were handled."""
        if timeout is None and self._is_delivering:
            timeout = self.request_timeout
        if timeout is not None:
            _check_number("timeout", timeout, 0, 86400)
        started = ticks_ms()
        while True:
            yield self.check_for_msg()
            if timeout is not None and ticks_diff(ticks_ms(), started) >= timeout * 1000:
                return
            if self.idle is not None:
                self.idle()
            time.sleep(0.001)

    def _link_moved(self, state, reason):
        was_connected, self.connected = self.connected, state == _ONLINE
        self.state = state
        if reason:
            self._link_error(reason)
        if self.connected:
            if not self._link.waiting:  # else what waits may be a request that came again
                self._rpc_forget(0)
            self._tell(self._attributes_read)
            self._tell(self.on_connect, 0, 0)
        elif state != _CONNECTING:
            self._outbox_rewind(was_connected and reason)
            while self._requests_expire(state):
                pass
            if was_connected:
                self._rpc_forget(_RPC_MEMORY)  # what is old now does not come again
                self._tell(self.on_disconnect, 1 if reason else 0)
        self._tell(self.on_state, state, reason)

    def _link_message(self, _, topic, payload):
        self.stats["received"] += 1
        self._events.append((None, (topic, _check_payload(payload))))
        self._link.waiting += 1

    def _link_error(self, error):
        self.last_error = error
        self._log("%s", error)

    # --- client: events ------------------------------------------------------------------------

    def _tell(self, callback, *args):
        """Have `_deliver` call what takes the arguments of the five callbacks, if it is set."""
        if callback is not None:
            self._events.append((callback, (self, self.user_data) + args))

    def _deliver(self):
        """Call the handlers. From inside one: none, its own call is still under way."""
        if self._is_delivering:
            return 0
        self._is_delivering = True
        handled = 0
        try:
            for _ in range(len(self._events)):  # not those that come meanwhile
                handler, arguments = self._events.pop(0)
                if handler is None:
                    self._link.waiting -= 1
                    self._dispatch(*arguments)
                    handled += 1
                else:
                    self._call(handler, arguments)
        finally:
            self._is_delivering = False
        return handled

    def _call(self, handler, args):
        """Call a handler; what it raises is counted, and returned instead of its result."""
        if isinstance(handler, tuple):  # (callback, context), as in the reference SDK
            args += handler[1:]
            handler = handler[0]
        try:
            return handler(*args)
        except Exception as error:  # whatever a handler does, the poll goes on
            self.stats["handler_errors"] += 1
            self._link_error(error)
            return error

    def _dispatch(self, topic, payload):
        callbacks = list(self._plain.iter_match(topic)) if self._plain else []
        for callback in callbacks:
            self._call(callback, (topic, payload))
        try:
            if topic in self._requests:
                self._on_answer(topic, loads(payload))
            elif topic == self._topics[_ATTRIBUTES]:
                self._on_attributes(loads(payload))
            elif topic.startswith(self._topics[_RPC_REQUEST]) and (
                self._rpc_methods or not callbacks  # who takes them by himself answers by himself
            ):
                self._on_rpc_request(int(topic[len(self._topics[_RPC_REQUEST]) :]), payload)
            elif not callbacks:
                raise ValueError("unexpected")
        except Exception as error:  # no handler's: whatever a server sends, the poll goes on
            self.stats["unexpected"] += 1
            self._log("message on %s ignored: %s", topic, error)

    def _log(self, *message):
        logger, self._logger = self._logger, None  # it is not told what it raises itself
        if logger:
            try:
                self._call(logger, message)
            finally:
                self._logger = logger

    # --- client: requests ----------------------------------------------------------------------
    # A question goes out through the outbox; its answer comes to a topic that has its number. The
    # answer, the deadline or the loss of the connection ends it, whichever comes first. An answer
    # that comes later finds no request.

    def _ask(self, name, body, callback, timeout):
        """Queue a question to the topic of that *name*; its request id."""
        if callback is not None:
            _check_callback(callback)
        if len(self._requests) >= _MAX_REQUESTS:
            raise TBError("%d requests wait already" % _MAX_REQUESTS)
        if timeout is None:
            timeout = self.request_timeout
        _check_number("timeout", timeout, 0, 86400)
        self._listen(name + 1)  # where its answers come
        number = str(self._last_id + 1)
        request = _Message(self._topics[name] + number, _json(body))
        self._send(request)
        first = (request.id,) if name == _RPC_REQUEST else ()  # what the callback gets before all
        answer = self._topics[name + 1] + number
        self._requests[answer] = (request, callback, first, ticks_ms(), timeout)
        return request.id

    def _on_answer(self, topic, result):
        request, callback, first, *_ = self._requests[topic]
        values = {} if first else result.get("shared", {})
        shared = self._attributes_shared
        changed, deleted = {}, []
        if shared is not None:  # what differs is told as a push would have told it
            for key, value in values.items():
                if shared.get(key) != value:
                    changed[key] = value
            if request.payload == _EVERYTHING:
                for key in self._attributes_defaults:
                    if key not in values:
                        deleted.append(key)
        del self._requests[topic]
        self._attributes_change(changed, deleted)
        if callback is not None:
            self._call(callback, first + (result, None))

    def _requests_expire(self, state=None):
        """End one that gets no answer, and say whether there was one.

        *state*: what the link has just fallen back to. None: it has not, and the deadlines count.
        """
        # A copy only where a logger may ask, too: what is dropped for the request is told to it.
        for topic in list(self._requests) if state else self._requests:
            request, callback, first, since, timeout = self._requests[topic]
            if state is None:
                if ticks_diff(ticks_ms(), since) >= timeout * 1000:
                    error: TBError = TBTimeoutError("no %s in %g s" % (topic, timeout))
                    break
            elif state == _STOPPED or (
                # A call that left, and whose answer isn't among what has come: may have been made.
                first and not (request in self._outbox or self._link.waiting)
            ):
                error = TBError("disconnected before the answer")
                break
            elif not first and request not in self._outbox:
                self._outbox_put(request)  # asking for attributes again does no harm
        else:
            return False
        if request.payload == _EVERYTHING and callback is None:
            callback = self._attributes_read
        if callback:
            self._events.append((callback, first + (None, error)))
        del self._requests[topic]
        if request in self._outbox[self._outbox_sent :]:
            self._outbox_end(request, None)  # nobody wants to know any more
        return True

    # --- client: outbox ------------------------------------------------------------------------
    # Whatever is to be sent enters at the end of one bounded list. Its front is in flight: sent
    # and not yet acknowledged. PUBACK ends an entry of QoS 1, leaving ends one of QoS 0. When the
    # connection is lost all begin again from the front, one at a time until the first PUBACK, so
    # that a message after which the server hangs up is found and dropped.

    @property
    def pending_messages_count(self) -> int:
        """Messages that the server has not acknowledged yet."""
        return len(self._outbox)

    def _send(self, message):
        """Queue it and send what can be sent. Its number, which `on_publish` tells.

        From inside a handler `check_for_msg` sends it a moment later: a board's pystack is too
        small for all these calls on top of those that led there.
        """
        self._outbox_put(message)
        if not self._is_delivering:
            self._outbox_pump()
        return message.id

    def _message_limit(self):
        return min(
            self.max_message_bytes,
            self._outbox_max_bytes - _OVERHEAD_BYTES,
            _MAX_PACKET_BYTES - 2 * _OVERHEAD_BYTES,
        )

    def _outbox_put(self, message):
        _check_size(message.topic, message.payload, self._message_limit())
        message.id = self._last_id = self._last_id % _MAX_ID + 1
        message.flags &= ~_DUP  # a request or a reply may have been here before
        self._outbox.append(message)
        self._outbox_bytes += len(message.payload) + _OVERHEAD_BYTES
        while (
            len(self._outbox) > self._outbox_max_size or self._outbox_bytes > self._outbox_max_bytes
        ):
            sent = self._outbox_sent
            for old in self._outbox[sent:] + self._outbox[:sent]:
                if old.captured_ms:
                    break  # the oldest telemetry; if need be of what is in flight
            else:
                old = self._outbox[sent]
            self._outbox_sent -= old in self._outbox[:sent]  # by 1, or 0
            self._outbox_drop(old, "queue full")

    def _outbox_end(self, message, callback, *args):
        """Take *message* out, and have the callback of its end called."""
        if message is self._outbox[0]:
            self._outbox_failures = 0
        self._outbox.remove(message)
        self._outbox_bytes -= len(message.payload) + _OVERHEAD_BYTES
        if len(self._events) < _MAX_EVENTS + self._outbox_max_size:  # or nobody polls
            self._tell(callback, message.topic, message.id, *args)

    def _outbox_drop(self, message, reason):
        self.stats["dropped"] += 1
        message.packet_id = 0  # as if it had never left
        self._outbox_end(message, self.on_drop, message.payload, reason)
        # Last: a logger may send.
        self._log("message to %s dropped: %s", message.topic, reason)

    def _outbox_pump(self):
        """Send as much as the window, the socket and the memory allow."""
        window = 1 if self._outbox_failures else _WINDOW
        try:
            while self._outbox_sent < min(window, len(self._outbox)) and self._link.can_send():
                self._outbox_send()
        except MemoryError as error:  # a later poll tries the front alone, which takes least
            self._outbox_failures = self._outbox_failures or 1
            self.last_error = error

    def _outbox_send(self):
        """Send the next message, or as many late readings as fit into one packet."""
        first = self._outbox[self._outbox_sent]
        flags = first.flags
        batch, stamped, room = [], [], min(_BATCH_BYTES, self._message_limit())
        for message in self._outbox[self._outbox_sent :]:
            readings = self._outbox_stamped(message)
            room -= len(message.payload) + len(readings) * _STAMP_BYTES
            if batch and (not readings or room <= 0 or message.flags != flags):
                break
            batch.append(message)
            stamped += readings
            if not readings or self._outbox_failures:
                break
        packet_id = first.id % (_SUBSCRIBE_IDS - 1) + 1
        payload = b"[%s]" % b",".join(stamped) if stamped else first.payload
        if first.captured_ms:
            payload = payload.replace(b",\n", b",")  # the newlines are for us
        self._link.publish(first.topic, payload, flags, packet_id)  # if there is memory for it
        self.stats["resent" if flags & _DUP else "sent"] += 1
        for message in batch:
            message.packet_id = packet_id
            if flags & _QOS_1:
                self._outbox_sent += 1
            else:
                self._outbox_end(message, self.on_publish)

    def _outbox_stamped(self, message):
        """Its readings, each with its time, if they are late and the clock was ever set."""
        stamped = []
        ts = message.captured_ms
        if not ts or _now_ms() - ts < _LATE_MS:
            return stamped
        epoch_ms = self._outbox_epoch_ms = _epoch_ms(self._outbox_epoch_ms)
        if epoch_ms:
            for reading in message.payload.strip(b"[]").split(b",\n"):
                is_timed = reading.startswith(b'{"ts":') and b',"values":{' in reading
                if not is_timed:  # "ts" alone is a key like any other
                    reading = b'{"ts":%d,"values":%s}' % (epoch_ms + ts, reading)
                stamped.append(reading)
                ts += 1  # of two values of a key at one time the server keeps the last
        return stamped

    def _link_acknowledged(self, packet_id):
        for message in self._outbox[: self._outbox_sent]:
            if message.packet_id == packet_id:
                self._outbox_sent -= 1
                self.stats["acknowledged"] += 1
                self._outbox_end(message, self.on_publish)

    def _outbox_rewind(self, reason):
        """Nothing is in flight any more: all that was begins again. *reason*: of a loss.

        The first loss makes the message at the front travel alone. Each further one is a mark
        against it, if all of it went out and it was the server that went away, or if there was no
        memory to send it.
        """
        for message in self._outbox[: self._outbox_sent]:
            message.flags |= _DUP
        is_marked = self._outbox_sent
        if self._outbox_failures:
            # What there was no memory to send is waited for as well, until that is a timeout.
            is_tried = self._outbox_sent or isinstance(reason, TBTimeoutError)
            is_marked = is_tried and reason and not self._link.unsent
        if is_marked:
            self._outbox_failures += 1
        self._outbox_sent = 0
        if self._outbox_failures >= _MAX_FAILURES:
            words = "lost connection %d times" % self._outbox_failures
            self._outbox_drop(self._outbox[0], words)

    # --- client: telemetry ---------------------------------------------------------------------

    def send_telemetry(self, data: Any, quality_of_service: Optional[int] = None) -> Optional[int]:
        """Send readings.

        :param data: ``{key: value}``; a list of those; ``{"ts": ms, "values": {key: value}}``
            with the time in milliseconds since 1970; a list of those. A reading without time
            gets the server's, or if it waited for 0.1 s its own time of capture. Of two values of
            one key at one time the server keeps the last: give such readings their ``ts``
        :param int quality_of_service: 0 or 1. Defaults to the client's
        :return: message id, the last one if it took several; None if nothing was left to send
        :raises TypeError: a key or a value of a type that can't be sent
        :raises ValueError: NaN, infinity, an empty dict or list, a value above the size limit

        A numeric string such as "007" or "1.10" becomes a number on the server. Source: MQTT
        Device API, "Telemetry upload API"; server: JsonConverter.java.
        """
        flags = self._given(quality_of_service) << 1
        message_id = None
        for payload in _telemetry(data, self._message_limit(), self._leave_out):
            captured_ms = max(_now_ms(), self._outbox_stamp_ms + 1)
            self._outbox_stamp_ms = captured_ms + payload.count(b"\n")
            message = _Message(self._topics[_TELEMETRY], payload, flags, captured_ms)
            message_id = self._send(message)
        return message_id

    def _given(self, quality_of_service):
        if quality_of_service is None:
            return self._quality_of_service
        return _check_number("quality_of_service", quality_of_service, 0, 1, int)

    def _leave_out(self, error):
        if self._strict:
            raise error
        self.stats["left_out"] += 1
        self._log("left out: %s", error)

    # --- client: attributes --------------------------------------------------------------------
    # Client attributes are ours and go to the server; shared attributes are the server's and come
    # to us: asked for by request_attributes(), or pushed to those who subscribed.

    def send_attributes(
        self, data: "dict[str, Any]", quality_of_service: Optional[int] = None
    ) -> Optional[int]:
        """Send client attributes, ``{key: value}``.

        Arguments, result and errors as of `send_telemetry`.
        """
        flags = self._given(quality_of_service) << 1
        message_id = None
        for text in _objects(data, self._message_limit(), self._leave_out):
            message_id = self._send(_Message(self._topics[_ATTRIBUTES], text, flags))
        return message_id

    def request_attributes(
        self,
        client_keys: Any = None,
        shared_keys: Any = None,
        callback: Any = None,
        timeout: Optional[float] = None,
    ) -> int:
        """Ask for current attribute values; the answer comes to *callback* from a later poll.

        :param client_keys: names such as ``("uptime",)``, or one name; likewise *shared_keys*. No
            keys at all: all client and all shared attributes
        :param callback: ``callback(result, exception)``; *result* is
            ``{"client": {...}, "shared": {...}}``, without what was not found, or None with
            *exception* a `TBTimeoutError`, or a `TBError` after `disconnect`
        :param timeout: seconds. Defaults to `request_timeout`
        :return: request id
        :raises ValueError: a key is empty or contains a comma, which separates keys

        If the connection is lost meanwhile it is asked again. Source: MQTT Device API, "Request
        attribute values from the server"; server: JsonMqttAdaptor.java.
        """
        body = {}
        for name, keys in (("clientKeys", client_keys), ("sharedKeys", shared_keys)):
            keys = (keys,) if keys and isinstance(keys, str) else tuple(keys or ())
            for key in keys:
                _check_name("key", key, ",")  # which separates them
            if keys:
                body[name] = ",".join(keys)
        return self._ask(_ATTRIBUTES_REQUEST, body, callback, timeout)

    def subscribe_to_attribute(self, key: Optional[str], callback: Any) -> int:
        """Have *callback* called when the shared attribute *key* changes or is deleted.

        :param callback: ``callback(result, *args)``; *result* is what the server pushed: all keys
            that changed together, or ``{"deleted": [key, ...]}``
        :return: id for `unsubscribe_from_attribute`

        Changes made while offline are not pushed later; who uses `shared` is told all the same.
        """
        if key is not None:
            _check_name("key", key)
        _check_callback(callback)
        self._last_id += 1
        self._attributes_watches.append((self._last_id, key, callback))
        self._listen(_ATTRIBUTES)
        return self._last_id

    def subscribe_to_all_attributes(self, callback: Any) -> int:
        """The same for every shared attribute."""
        return self.subscribe_to_attribute(None, callback)

    def unsubscribe_from_attribute(self, subscription_id: Any) -> None:
        """Call that callback no more; ``"*"``: none of them. An unknown id is no error."""
        for watch in list(self._attributes_watches):
            if subscription_id in ("*", watch[0]):
                self._attributes_watches.remove(watch)
        self._unlisten(self._topics[_ATTRIBUTES])

    def clean_device_sub_dict(self) -> None:
        """Forget all attribute subscriptions."""
        self.unsubscribe_from_attribute("*")

    def _on_attributes(self, data):
        deleted = data.get("deleted")
        if isinstance(deleted, list) and len(data) == 1:
            for key in deleted:
                _check_name("key", key)
            self._attributes_change({}, deleted)
        else:  # it may be an attribute of that name
            self._attributes_change(data, ())

    def _attributes_change(self, changed, deleted):
        """Keep it in `shared`, if that is used, and tell the subscriptions."""
        shared, defaults = self._attributes_shared, self._attributes_defaults
        if shared is not None:
            for key in changed:  # what stands there before the server's first value is the default
                defaults.setdefault(key, shared.get(key))
                shared[key] = changed[key]
            for key in deleted:
                if key in defaults:
                    shared[key] = defaults.pop(key)
                    if shared[key] is None:
                        del shared[key]
        for keys, data in ((changed, changed), (deleted, {"deleted": deleted})):
            told = []  # each callback once
            for watch in list(self._attributes_watches):
                _, key, callback = watch
                is_meant = keys and (key is None or key in keys)
                # A callback may unsubscribe another.
                if is_meant and callback not in told and watch in self._attributes_watches:
                    told.append(callback)
                    self._call(callback, (data, None))

    @property
    def shared(self) -> "dict[str, Any]":
        """The last known shared attributes: ``client.shared["interval"]``.

        From its first use on it is read again after each connect, and what differs reaches the
        attribute subscriptions as if it had been pushed. A default, for as long as the server
        knows no value: ``client.shared.setdefault("interval", 10)``, before its first value came.
        """
        if self._attributes_shared is None:
            self._attributes_shared = {}
            self._listen(_ATTRIBUTES)
            self._listen(_ATTRIBUTES_RESPONSE)
            self._tell(self._attributes_read)
        return self._attributes_shared

    def _attributes_read(self, *_):
        """Ask for all attributes, for those who use `shared`."""
        if self._attributes_shared is None or not self.connected:
            return
        try:
            for request, callback, *_ in self._requests.values():
                if callback is None and request.payload == _EVERYTHING:
                    return  # asked already, and asked again until the answer comes
            self.request_attributes(timeout=_SHARED_TIMEOUT_S)
        except (MemoryError, TBError):  # too many requests wait
            self._tell(self._attributes_read)

    # --- client: rpc ---------------------------------------------------------------------------
    # Server-side RPC: the server calls, we reply under the same number. The server pushes what is
    # unanswered again at each subscribe, so the last requests are remembered with their replies.
    # Client-side RPC: we call, the server's rule chain replies.

    def set_server_side_rpc_request_handler(self, handler: Any) -> None:
        """Have *handler* called for each RPC that no `rpc` method takes.

        :param handler: ``handler(request_id, request_body)`` with an int and
            ``{"method": ..., "params": ...}``. What it returns is the reply; if it returns None,
            it has sent one with `send_rpc_reply`, or will. None: no handler
        """
        if handler is None:
            self._rpc_methods.pop(None, None)
            self._unlisten(self._topics[_RPC_REQUEST] + "+")
        else:
            _check_callback(handler)
            self._rpc_methods[None] = handler
            self._listen(_RPC_REQUEST)

    def rpc(self, method: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: the function answers RPCs of that name.

        It gets *params*; what it returns is the reply. If it raises, or if nobody answers to a
        method, the reply is ``{"error": "..."}``.
        """
        _check_name("method", method)
        self._listen(_RPC_REQUEST)

        def register(function):
            self._rpc_methods[method] = function
            return function

        return register

    def _on_rpc_request(self, request_id, payload):
        methods = self._rpc_methods
        request = loads(payload)  # first: without memory for it, it has to come again
        method = request.get("method")
        _check_name("method", method)
        if self._rpc_is_repeated(request_id, payload):
            return
        if method in methods:
            result = self._call(methods[method], (request.get("params"),))
        elif None in methods:
            result = self._call(methods[None], (request_id, request))
            if result is None:
                return  # it sends its own reply
        else:
            result = LookupError("unknown method: %s" % method)
        if not isinstance(result, Exception):
            result = self._call(self.send_rpc_reply, (request_id, result))
        if isinstance(result, Exception):  # of the handler, or what it returned can't be sent
            self.send_rpc_reply(
                request_id, {"error": str(result)[:_BUFFER_BYTES] or type(result).__name__}
            )

    def send_rpc_reply(self, request_id: Union[int, str], response: Any) -> int:
        """Answer a server-side RPC.

        :param request_id: as the handler got it
        :param response: anything that JSON can say
        :return: message id
        """
        request_id = int(request_id)
        payload = _json(_check_value("response", response, 1))
        reply = _Message(self._topics[_RPC_RESPONSE] + str(request_id), payload)
        for remembered in self._rpc_memory:
            if remembered[0] == request_id:
                remembered[2] = reply
        return self._send(reply)

    def _rpc_is_repeated(self, request_id, payload):
        """Whether this very request was executed before; its reply, if known, is sent again."""
        checksum = crc32(payload)
        self._rpc_forget(_MAX_MESSAGES)  # what is too old; of the others this may be one
        for known_id, known_checksum, reply, _ in self._rpc_memory:
            if known_id == request_id and known_checksum == checksum:
                self.stats["rpc_repeated"] += 1
                if reply and reply not in self._outbox:
                    self._outbox_put(reply)
                return True
        self._rpc_forget(_RPC_MEMORY)
        self._rpc_memory.append([request_id, checksum, None, _now_ms()])
        # So many stay, and as many more as replies may wait in the outbox.
        del self._rpc_memory[: -_MAX_MESSAGES - len(self._outbox)]
        return False

    def _rpc_forget(self, count):
        """Forget what came long ago, or was answered, as long as more than *count* are remembered.

        The server knows of an answer that it has acknowledged: no such request comes again after
        a reconnect (*count* 0), and numbers begin again at 0 when the server restarts. Any other
        may come again after an outage of any length: its time counts from then.
        """
        now_ms = _now_ms()
        for remembered in list(self._rpc_memory):
            _, _, reply, since_ms = remembered
            is_told = reply and reply.packet_id
            if reply in self._outbox or not (is_told or count):
                remembered[3] = now_ms
            elif now_ms - since_ms >= _RPC_MEMORY_MS or (is_told and len(self._rpc_memory) > count):
                self._rpc_memory.remove(remembered)

    def send_rpc_call(
        self,
        method: str,
        params: Any = None,
        callback: Any = None,
        timeout: Optional[float] = None,
    ) -> int:
        """Call *method* of the server's rule chain.

        :param callback: ``callback(request_id, result, exception)``; *exception* is a
            `TBTimeoutError`, or a `TBError` if the connection was lost before the answer came
        :param timeout: seconds. Defaults to `request_timeout`
        :return: request id

        The server's default rule chain does not answer. Source: MQTT Device API, "Client-side
        RPC".
        """
        _check_name("method", method)
        body = {"method": method, "params": _check_value("params", params, 1)}
        return self._ask(_RPC_REQUEST, body, callback, timeout)

    # --- client: claim -------------------------------------------------------------------------

    def claim_device(
        self, secret_key: Optional[str] = None, duration_ms: Optional[int] = None
    ) -> int:
        """Let a customer claim this device.

        :param str secret_key: what the customer has to enter. Defaults to none
        :param int duration_ms: milliseconds for which it can be claimed. Defaults to the
            server's, 24 hours
        :return: message id

        The server acknowledges in any case; the first claim stays until it is used or over.
        Source: "Claiming devices"; server: ClaimDevicesServiceImpl.java.
        """
        body: dict = {}
        if secret_key is not None:
            _check_text("secret_key", secret_key)
            body["secretKey"] = secret_key
        if duration_ms is not None:
            body["durationMs"] = int(_check_number("duration_ms", duration_ms, 1, 1e12))
        return self._send(_Message(_CLAIM, _json(body)))

    claim = claim_device

    # --- client: plain MQTT --------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        payload: Any,
        quality_of_service: Optional[int] = None,
        retain: bool = False,
    ) -> int:
        """Publish any message to any topic, through the same queue.

        :param payload: str, bytes, int or float; None is an empty message
        :param bool retain: ThingsBoard ignores it
        :return: message id

        ThingsBoard acknowledges and drops what is sent to a topic that it does not know.
        """
        flags = self._given(quality_of_service) << 1 | (_RETAIN if retain else 0)
        _check_name("topic", topic, "+#")
        _text(topic)  # half of a surrogate pair: an error now, not in a poll
        return self._send(_Message(topic, _check_payload(payload), flags))

    def subscribe(
        self, topic: str, callback: Any, quality_of_service: Optional[int] = None
    ) -> None:
        """Subscribe to any topic filter, now and after each connect.

        :param topic: with ``+`` and ``#`` if you like. ThingsBoard refuses all but its own
        :param callback: ``callback(topic, payload)``; *payload* is bytes
        """
        _check_name("topic", topic)
        _text(topic)
        _check_callback(callback)
        self._link.subscribe(topic, self._given(quality_of_service))
        if self._plain is None:
            self._plain = MQTTMatcher()
        self._plain[topic] = callback

    def unsubscribe(self, topic: str) -> None:
        """Undo `subscribe`. An unknown topic is no error."""
        try:
            del self._plain[topic]
        except (KeyError, TypeError):
            return
        self._unlisten(topic)

    def _listen(self, name):
        """Subscribe to a topic of ours."""
        topic = self._topics[name]
        self._link.subscribe(topic + "+" if topic[-1] == "/" else topic)

    def _unlisten(self, topic):
        """Unsubscribe, if nobody listens any more."""
        is_shared = self._attributes_shared is not None
        if topic == self._topics[_ATTRIBUTES] and (self._attributes_watches or is_shared):
            return
        if topic == self._topics[_RPC_REQUEST] + "+" and self._rpc_methods:
            return
        try:
            self._plain[topic]
        except (KeyError, TypeError):
            self._link.subscribe(topic, None)

    def will_set(
        self, topic: str, payload: Any, quality_of_service: int = 0, retain: bool = False
    ) -> None:
        """The last will, to be set before `connect`. ThingsBoard ignores it.

        :raises MMQTTException: there is a connection, which has told its last will
        """
        _check_name("topic", topic, "+#")
        payload = str(_check_payload(payload), "utf-8")  # MiniMQTT before 7.10.7 takes no bytes
        self._link.mqtt.will_set(topic, payload, qos=self._given(quality_of_service), retain=retain)


gc.collect()  # what this import left
