# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""ThingsBoard device client for CircuitPython: telemetry, attributes, RPC and claiming over MQTT.

The main loop is yours; the client works inside `check_for_msg`, which does what is due and
returns at once. Only an attempt to connect blocks. Every message is either delivered or reported
as dropped::

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

The rooms of this file, top to bottom. Each calls only those above it. The link and the outbox also
report upward, to their owner, the client:

* words: topics, packet types, limits, states and errors
* pure functions of plain values: packets, checking, splitting
* networks: socket pool, TLS context, joining the network again
* `_StandIn`, `_Pool`: what MiniMQTT gets as its socket pool and its socket
* `_Link`: bytes, packets and timers of one MQTT connection; knows nothing of ThingsBoard
* `_Message`, `_Outbox`: the bounded queue, what is in flight, batches, times of capture
* `_Request`, `_Reply`, `SharedAttributes`: open requests, answered RPCs, last known attributes
* `_MqttClient`: connecting, polling, events, plain MQTT; knows nothing of sockets
* `TBDeviceMqttClient`: what ThingsBoard adds, its topics and JSON

MiniMQTT keeps keep_alive, the client id, the credentials and the will, opens the socket and builds
CONNECT. Its loop is never called: it waits a second even when there is nothing to read.
"""

__version__ = "0.1.0"
__repo__ = "https://github.com/thingsboard/CircuitPython_thingsboard-client-sdk.git"

__all__ = ("TBDeviceMqttClient", "TBError", "TBRefusedError", "TBTimeoutError")

import errno
import gc
import os
import sys
import time
from binascii import crc32
from json import dumps, loads
from random import random

from adafruit_connection_manager import get_connection_manager
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
        """Milliseconds since some moment in the past; unlike `ticks_ms` it never wraps."""
        return time.monotonic_ns() // 1000000


try:
    from _thread import get_ident as _thread_id
except ImportError:  # boards have one thread

    def _thread_id() -> int:
        return 0


gc.collect()  # a board's memory never moves: what the imports left would lie between what stays

# --- words: topics ----------------------------------------------------------------------------
# ThingsBoard's device topics, MQTT Device API reference; server: MqttTopics.java.

_TELEMETRY = const(0)  # places in both lists of topics below
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
# One text, split by a client with compact=True: six strings would take memory of every board.
_COMPACT_TOPICS = const("v2/t v2/a v2/a/req/ v2/a/res/ v2/r/req/ v2/r/res/")
_CLAIM = const("v1/devices/me/claim")

# What ThingsBoard may send: the place of its topic, the method that takes it. Attribute responses
# come first, because their topic begins with the topic of attributes.
_INBOUND = (
    (_ATTRIBUTES_RESPONSE, "_on_answer"),
    (_ATTRIBUTES, "_on_attributes"),
    (_RPC_REQUEST, "_on_rpc_request"),
    (_RPC_RESPONSE, "_on_answer"),
)

# --- words: MQTT control packets ---------------------------------------------------------------
# First byte of the packet, MQTT 3.1.1 section 2.2.1.

_CONNECT = const(0x10)
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
_APART_MS = const(2)  # readings sent closer together may get the same time on the server
_TRIP_MS = const(100)  # after so long the server has given a reading on its way its time
_FAST_MS = const(20)  # after a PUBACK within this time the next reading waits _APART_MS
_BURST_MS = const(1000)  # after a reading sent with its time, so long all have theirs
_WINDOW = const(32)  # QoS 1 packets in flight: over a round trip of 80 ms 400 a second
_MAX_FAILURES = const(8)  # lost connections until a message is dropped: about two minutes
_MAX_REQUESTS = const(64)  # that wait for their answers
_MAX_SHARED = const(256)  # shared attributes that are kept
_MAX_MESSAGES = const(16)  # that wait for their handlers; then nothing more is read
_MAX_EVENTS = const(64)  # calls of handlers that wait, beside one for each queued message
_MAX_UNSENT = const(4)  # packets that wait for the socket
_WORK_PER_POLL = const(8)  # packets or reads
_MAX_ID = const(0x3FFFFFFF)  # ThingsBoard takes 31 bits; a multiple of 0x7FFF packet ids
_SUBSCRIBE_IDS = const(0x8000)  # packet ids: of messages below, of SUBSCRIBE from here on
_MAX_NAME_CHARS = const(255)  # of keys: KvUtils.java; of host names: DNS; enough for topics
_MAX_DEPTH = const(6)  # nesting of a value; each level takes from a board's small pystack
_SHARED_TIMEOUT_S = const(300)  # sooner, answers above max_message_bytes would cost air time
_RPC_MEMORY = const(4)  # answered RPCs that are remembered, to answer them again
_RPC_MEMORY_MS = const(300000)
_EVENTS_MS = const(100)  # a poll calls no further handler after so long
_UNATTENDED_MS = const(2000)  # after so long without a poll, sending connects, too
_MOVE_MS = const(5)  # between two looks at the link by calls that send
_STALL_MS = const(2000)  # sending to a full queue gives up after so long without a PUBACK
_ATTEMPT_BYTES = const(4096)  # free memory for an attempt without TLS
_TLS_BYTES = const(17408)  # with TLS, in one piece: a record of 16 KB and its frame
_FAREWELL_MS = const(500)  # for the server to close after DISCONNECT

_TIMER_MS = const(100)
_CONNACK_TIMEOUT_MS = const(10000)
_ACK_TIMEOUT_MS = const(20000)
_PING_TIMEOUT_MS = const(10000)
_BACKOFF_MAX_MS = const(60000)
_BACKOFF_LAST = const(10)  # attempts after which the pause is the longest in any case
_SETTLED_MS = const(10000)  # online for so long: the next pause is short again
_RADIO_MS = const(500)
_REJOIN_MS = const(5000)  # the radio is down for so long: join again
_DEEP_CHECK_MS = const(1000)  # Pico W never reports a reset connection as readable
_SPI_GAP_MS = const(60)  # a look at AirLift or WIZnet costs milliseconds of SPI
_SPI_SLICE_BYTES = const(256)
_CLOCK_SET_S = const(1700000000)  # below, the clock still counts from the board's start
_CLOCK_STEP_MS = const(2000)  # beyond, the clock was set; below, time.time() has whole seconds

# --- words: states and errors ------------------------------------------------------------------

_STOPPED = const("stopped")  # connect() was not called yet, or disconnect() was
_WAITING = const("waiting")  # for the next attempt
_CONNECTING = const("connecting")  # the attempt is due, or made and not yet accepted
_ONLINE = const("online")

# CONNACK return codes, MQTT 3.1.1 section 3.2.2.3, as ThingsBoard uses them; a line each from 0 on.
# One text: a tuple of six takes 150 bytes more of a board.
_REFUSALS = const("""unknown return code
it does not support MQTT 3.1.1
no access token was given
not available, or above a rate limit
user name or password is wrong
no device has it""")


class TBError(Exception):
    """A failure of the server or the connection; the base class of the other two."""


class TBTimeoutError(TBError):
    """An answer did not come in time."""


class TBRefusedError(TBError):
    """The server refused the connection; *code* is the CONNACK return code."""

    def __init__(self, code: int, credential: str) -> None:
        reasons = _REFUSALS.split("\n")
        reason = reasons[code if code < len(reasons) else 0]
        what = credential if code in (4, 5) else "connection"
        super().__init__("the server refused the %s: %s (CONNACK %d)" % (what, reason, code))
        self.code: int = code


# --- pure: packets -----------------------------------------------------------------------------


def _text(text):
    """A UTF-8 encoded string with its length, MQTT 3.1.1 section 1.5.3."""
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _packet(head, *parts):
    """A control packet: first byte, remaining length (section 2.2.3), *parts*."""
    size = 0
    for part in parts:
        size += len(part)
    header = bytes((head,))
    while size > 127:
        header += bytes((size & 127 | 128,))
        size >>= 7
    return b"".join((header, bytes((size,))) + parts)


def _find_body(data, size):
    """Where the body of the packet at the start of *data* starts and ends, section 2.2.3.

    Its end is 0 as long as its length is not among the *size* bytes that are there.
    """
    start, length, byte = 1, 0, 128
    while byte > 127:
        if start > 4:
            raise ValueError
        if start >= size:
            return start, 0
        byte = data[start]
        length |= (byte & 127) << 7 * (start - 1)
        start += 1
    return start, start + length


# --- pure: checking what is to be sent ---------------------------------------------------------
# ThingsBoard closes the connection on a payload that it dislikes and stores some others as text.
# Such a payload is never sent: an error names the key. The function *left_out* gets that error. It
# raises it, or returns, and then that key alone is left out.


_SENDABLE = const("a finite 64 bit number, string, list or dict")


def _json(value):
    return dumps(value, separators=(",", ":")).encode()


def _shown(value):
    """*value* as an error shows it, cut to 32 characters."""
    try:
        if isinstance(value, type):  # in place of a value that may be a secret
            return value.__name__
        if isinstance(value, str):
            return repr(value[:32])  # of all of a long one would take memory
        return repr(value)[:32]
    except Exception:  # of a class of the program's own; an int of 5,000 digits
        return type(value).__name__


def _must_be(name, text, value):
    return "%s must be %s, not %s" % (name, text, _shown(value))


def _check_name(kind, name):
    """A key, a topic, a host...: a string of some characters."""
    if not isinstance(name, str):
        raise TypeError(_must_be(kind, "a string", name))
    if not name.strip() or len(name) > _MAX_NAME_CHARS:
        raise ValueError(_must_be(kind, "1 to 255 characters", name))


def _key(key, values, depth):
    """*key* as JSON has it, for the dict *values*. Boards' `dumps` leaves 4, True, None as is."""
    if key is None or isinstance(key, (bool, int, float)):  # on boards True is no int
        _check_value("key", key, 1)
        key = dumps(key)
    _check_name("key", key)
    if not depth and _is_markup(key):
        raise ValueError(_must_be("key", "without markup", key))
    if key in values:  # 4 and "4"
        raise ValueError(_must_be("key", "unique", key))
    return key


def _is_markup(key):
    """Whether ThingsBoard acknowledges a message with this key and stores nothing of it.

    Markup is what an HTML parser takes for a tag: "<" before a letter, "/" or "!". A template is
    "{{" with "}}" behind it. Source: KvUtils.java, NoXssValidator.java.
    """
    if "{{" in key and "}}" in key[key.find("{{") :]:
        return True
    for part in key.split("<")[1:]:
        if part and ("a" <= part[0].lower() <= "z" or part[0] in "/!"):
            return True
    return False


def _check_value(key, value, depth):
    """*value* as it may be sent; None only inside another value (*depth* > 0)."""
    if isinstance(value, (bool, str)) or (value is None and depth):
        return value
    if isinstance(value, (int, float)):
        return _fit(key, value, depth)
    if depth > _MAX_DEPTH:
        raise ValueError("%s: nested more than %d deep" % (_shown(key), _MAX_DEPTH))
    if isinstance(value, dict):
        checked: Any = {}
        for item in value:
            checked[_key(item, checked, 1)] = _check_value(
                "%s.%s" % (key, item), value[item], depth + 1
            )
    elif isinstance(value, (list, tuple)):
        checked = []
        for item in value:
            checked.append(_check_value(key, item, depth + 1))
    else:
        raise TypeError(_must_be(_shown(key), _SENDABLE, type(value)))
    return checked


def _fit(key, number, depth):
    """*number* so that the server stores it as a number; inside a value any finite one.

    Beyond 64 bits or with more than 16 decimals it would store a text, see JsonConverter.java.
    """
    is_int = isinstance(number, int)
    if is_int and not depth:
        is_fit = -1 <= number >> 63 <= 0
    else:  # neither infinity nor NaN
        is_fit = number - number == 0 and (depth or abs(number) < 9223372036854775808.0)
    if not is_fit:
        raise ValueError(_must_be(_shown(key), _SENDABLE, number))
    return number if is_int or abs(number) >= 1 else float("%.16f" % number)


def _objects(name, values, limit, left_out):
    """Encode what may be sent of the dict *values* as JSON objects of at most *limit* bytes."""
    if not isinstance(values, dict):
        raise TypeError(_must_be(name, "a filled dict", values))
    if not values:
        raise ValueError(_must_be(name, "a filled dict", values))
    checked: Any = {}
    for key in values:
        try:
            checked[_key(key, checked, 0)] = _check_value(key, values[key], 0)
        except (TypeError, ValueError) as error:
            left_out(error)
    whole = _json(checked)
    if checked and len(whole) <= limit:
        return [whole]
    return _split(checked, limit)


def _split(values, limit):
    """The same dict as several objects, filled one after the other; none if it is empty."""
    objects = []
    for key in values:
        member = _json({key: values[key]})
        _check_size(key, len(member), limit)
        if objects and len(objects[-1]) + len(member) <= limit + 1:
            objects[-1] = objects[-1][:-1] + b"," + member[1:]
        else:
            objects.append(member)
    return objects


def _split_reading(reading):
    """The time, or None, and the values of ``{"ts": ms, "values": {...}}`` or ``{key: value}``."""
    if not isinstance(reading, dict):
        raise TypeError(_must_be("data", "a dict or a list of dicts", reading))
    ts = reading.get("ts")
    is_int = type(ts) is int
    is_ms = is_int and 100000 <= ts // 1000000 < 100000000  # of the years 1973 to 5138
    is_timed = "ts" in reading and "values" in reading  # else both are keys like any other
    if is_timed and not is_ms:
        text = _must_be("ts", "milliseconds since 1970, an int", ts)
        raise ValueError(text + " (seconds?)") if is_int else TypeError(text)
    if is_ms and not (is_timed and len(reading) == 2):
        raise ValueError(_must_be("data", '{"ts": ms, "values": {...}}', list(reading)))
    return (ts, reading["values"]) if is_timed else (None, reading)


def _stamped(ts, text):
    """A reading with its time, milliseconds since 1970."""
    return b'{"ts":%d,"values":%s}' % (ts, text)


def _check_size(name, size, limit):
    if size > limit:
        raise ValueError("%s: %d bytes, the limit is %d" % (_shown(name), size, limit))


def _check_callback(callback, name="callback"):
    """A callable, or as in the reference SDK a tuple of it and a further argument."""
    if not callable(callback[0] if callback and isinstance(callback, tuple) else callback):
        raise TypeError(_must_be(name, "a function", callback))


def _check_text(name, value):
    """None, or a string of MQTT 3.1.1 section 1.5.3. It may be a secret: no error shows it."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(_must_be(name, "a string", type(value)))
    for character in value:
        code = ord(character)
        if not code or 0xD800 <= code < 0xE000:
            raise ValueError("%s must have no NUL, surrogates" % name)
    _check_size(name, len(value.encode()), 65535)


def _check_topic(topic, is_filter=False):
    """A topic to publish to, or a filter to subscribe to; MQTT 3.1.1 section 4.7."""
    _check_name("topic", topic)
    _check_text("topic", topic)
    is_wrong = "#" in topic[:-1]
    for level in topic.split("/"):
        if "+" in level or "#" in level:
            is_wrong = is_wrong or len(level) > 1 or not is_filter
    if is_wrong:
        wanted = "without + and #; in a filter each alone in its level, # last"
        raise ValueError(_must_be("topic", wanted, topic))


def _as_int(value):
    """The int that a string stands for, as it may in settings.toml; all else as it is."""
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _check_number(name, value, lowest, limit, kind=(int, float)):
    """A number. Anything else is not shown: it may be a secret, given in the wrong place."""
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if is_number and lowest <= value <= limit:
        return value
    wanted = "a number from %d to %d" % (lowest, limit)
    text = _must_be(name, wanted, value if is_number else type(value))
    raise ValueError(text if is_number or name != "port" else text + " (is this the access_token?)")


def _check_payload(payload):
    """What `publish` takes, as bytes."""
    if payload is None:
        return b""
    if isinstance(payload, (str, bool, int, float)):
        return str(payload).encode()
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    raise TypeError(_must_be("payload", "a string", type(payload)))


# --- networks: where sockets come from ---------------------------------------------------------


def _network(network_adapter, radio):
    """``(socket pool, TLS context or None, radio)`` of the arguments, or of the board's own."""
    if network_adapter is not None:
        return network_adapter.get_socket_pool(), network_adapter.get_ssl_context(), None
    if radio is None and sys.implementation.name == "circuitpython":
        from wifi import radio
    if radio is None:
        import socket

        return socket, None, None
    from adafruit_connection_manager import get_radio_socketpool, get_radio_ssl_context

    return get_radio_socketpool(radio), get_radio_ssl_context(radio), radio


def _way_to_rejoin(rejoin, radio):
    """The function that brings the network back, with its arguments; or None.

    CircuitPython joins the Wi-Fi of settings.toml when the board starts. Later it does not try
    again: on the Pico W never, on Espressif not after a router that was away for a while
    (ports/espressif/common-hal/wifi/__init__.c, STA_DISCONNECTED).
    """
    if rejoin:
        if not callable(rejoin):
            raise TypeError("rejoin must be a function")
        return (rejoin,)
    if rejoin is not None or type(radio).__name__ != "Radio":
        return None
    ssid = os.getenv("CIRCUITPY_WIFI_SSID")
    if not ssid:
        return None
    return radio.connect, str(ssid), str(os.getenv("CIRCUITPY_WIFI_PASSWORD") or "")


def _tls_context(tls, context):
    """The TLS context for *tls*, or None. *context* is the network's own, used if *tls* is True.

    Only None and False mean no TLS; anything else that can't be used is an error.
    """
    if tls is None or tls is False or hasattr(tls, "wrap_socket"):
        return tls or None
    if tls is True and context is not None:
        return context
    import ssl

    if tls is True:
        return ssl.create_default_context()
    try:
        return _ca_context(ssl, tls)
    except (OSError, TypeError, ValueError) as error:
        # Neither the value, which may be a secret in the wrong place, nor the file's content.
        words = "tls (THINGSBOARD_TLS) must be True or a CA file in PEM format: "
        raise ValueError(words + repr(error)[:64]) from None


_X509_STRICT = const(32)  # ssl.VERIFY_X509_STRICT


def _ca_context(ssl, path):
    """A context that trusts the certificates in this file, and no others.

    Only they are taken, not what stands around them. There has to be one: with an empty text a
    computer would trust the authorities of the system, and a board anybody.
    """
    authorities = b""
    with open(path + "", "rb") as file:  # a TypeError if it is no string
        parts = file.read().split(b"-----")
    for place in range(len(parts) - 2):
        if parts[place] == b"BEGIN CERTIFICATE":  # its body and its end follow
            authorities += b"-----".join([b""] + parts[place : place + 3] + [b"\n"])
    if not authorities:
        raise ValueError("no certificate")
    if sys.implementation.name == "cpython":
        context = ssl.create_default_context(cadata=authorities.decode())
        # From Python 3.13 on it is stricter with home-made authorities than boards are.
        context.verify_flags &= ~_X509_STRICT
        return context
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authorities.decode())
    return context


# --- _StandIn ----------------------------------------------------------------------------------
# MiniMQTT takes its socket from the pool that its constructor is given. Ours hands out itself, and
# passes on what opens the real connection. `MQTT.connect` then makes these five calls, in this
# order, and returns without waiting for the server:
#
#     getaddrinfo(host, port)  -> the real pool: DNS
#     socket(family, type)     -> the real pool
#     connect(address)         -> the real socket: TCP; with TLS the context, which wraps it first
#     send(CONNECT)            -> kept here, in `sent`
#     recv_into(buffer)        <- a CONNACK made up here
#
# From then on the real socket is the link's, which sends what was kept and reads the true CONNACK.
# `MQTT.disconnect` is called at once, while the stand-in has no real socket to close: so
# ConnectionManager's table lets go of the stand-in, and a client that is dropped is collected.
# No private member of MiniMQTT or ConnectionManager is touched.


class _StandIn:
    """Pool and socket in one: a link has no more than one of each."""

    def __init__(self, pool):
        self.pool = pool
        self.context = None  # of TLS
        self.SOCK_STREAM = pool.SOCK_STREAM
        self.connect_timeout = None  # seconds, for TCP and TLS
        self.turn = 0  # which of the addresses of the host is tried next
        self.has_more = False  # whether another address is to be tried in this round
        self.error = None  # what the pool or socket raised, see `_call`
        self.sockets = []  # the open one; with TLS behind it what TLS made of it

    def _call(self, method, args, **options):
        """Call *method*, and keep what it raises: MiniMQTT replaces it by an error of its own."""
        try:
            return method(*args, **options)
        except (OSError, RuntimeError, MemoryError) as error:
            self.error = error
            raise

    def getaddrinfo(self, *args):
        self.host = args[0]
        # ConnectionManager tries the first address only, which may be the one that is dead. On a
        # computer "localhost" may be ::1 first, where nobody listens.
        found = list(self._call(self.pool.getaddrinfo, args))
        found.sort(key=lambda info: info[0] != self.pool.AF_INET)
        place = self.turn % len(found)
        self.has_more = place + 1 < len(found)
        return [found[place]]

    def socket(self, *args):
        self.close()  # a socket left open when memory ran out
        self.sockets.append(self._call(self.pool.socket, args))
        self.sent = bytearray()
        self._answer = _packet(_CONNACK, bytes(2))
        return self

    def connect(self, address):
        if self.context is not None:
            wrap, plain = self.context.wrap_socket, self.sockets[-1]
            self.sockets.append(self._call(wrap, (plain,), server_hostname=self.host))
            if hasattr(self.pool, "NO_SOCKET_AVAIL"):  # AirLift's co-processor checks the name
                address = (self.host, address[1])
        real = self.sockets[-1]
        real.settimeout(self.connect_timeout)
        self._call(real.connect, (address,))

    def settimeout(self, timeout):
        """MiniMQTT's timeouts are for its own waiting, which never happens."""

    def send(self, data):
        if self.sockets:  # else it is MiniMQTT's DISCONNECT, which must not go out
            self.sent.extend(data)
        return len(data)

    def recv_into(self, buffer, size=0):
        size = min(size or len(buffer), len(self._answer))
        buffer[:size] = self._answer[:size]
        self._answer = self._answer[size:]
        return size

    def connect_packet(self, has_password):
        """CONNECT as MiniMQTT built it; without a password that it can't leave out.

        It writes an empty one behind any user name. Without it the password flag (bit 6) is 0, MQTT
        3.1.1 section 3.1.2.9; some brokers refuse an empty password.
        """
        start = 2
        while self.sent[start - 1] & 128:  # of the remaining length
            start += 1
        body = self.sent[start:]
        if not has_password and body[7] & 0x40:
            body[7] ^= 0x40
            body = body[:-2]
        return _packet(_CONNECT, bytes(body))

    def close(self):
        """Close all `sockets`: after a failed handshake a board leaves the one below TLS open."""
        while self.sockets:
            try:
                self.sockets[-1].close()
            except (OSError, RuntimeError):
                pass  # it was closed already
            self.sockets.pop()


class _Pool:
    """The socket pool for MiniMQTT. One for all clients: ConnectionManager keeps every pool.

    It passes calls on to the stand-in of the current attempt, of which each thread may have one.
    """

    standins: Any = {}  # by thread

    def __getattr__(self, name):
        return getattr(self.standins[_thread_id()], name)


_pool = _Pool()


# --- _Link: theory -----------------------------------------------------------------------------
# One MQTT 3.1.1 connection that never waits. Its owner, the client, calls `poll` often. The link
# reports by five methods of the owner: `_link_moved` (the state changed), `_link_message`,
# `_link_acknowledged`, `_link_subscribed`, `_link_error`. In these the owner calls no handler; it
# only queues the call. Two more are questions: `_link_has_room` and `_link_is_held`. The owner's
# public settings (`connect_timeout`, `max_message_bytes`, ...) and `stats` are used as they are.
# Only `poll` receives (and `stop`, to throw away). All other methods append to what is to be sent
# and try once to send it. A fault found there is kept, and the next poll ends the connection.
# The one step that blocks is an attempt to connect: DNS, TCP and TLS, which CircuitPython's sockets
# can't do otherwise. It is announced by the state "connecting", one poll before.
# A lost connection always ends the same way, in `_close`: close the socket, forget the connection,
# move to the next state, report it. What has to outlive the connection (topics, messages) is
# subscribed and published again after the next one.

_MOVES = {  # state: those that may follow
    _STOPPED: (_WAITING,),
    _WAITING: (_CONNECTING, _WAITING, _STOPPED),  # waiting again: an AirLift did not answer
    _CONNECTING: (_ONLINE, _WAITING, _STOPPED),
    _ONLINE: (_WAITING, _STOPPED),
}

_EPIPE = const(32)  # numbers that errno lacks on boards
_ENOBUFS = const(105)
_WSAEWOULDBLOCK = const(10035)  # EAGAIN of Windows
_IPPROTO_TCP = const(6)  # the same everywhere; not every pool has the names
_TCP_NODELAY = const(1)

# Parts of an error's class or text, in lower case, and what they mean; the first line that fits.
# {0}: where to, {1}: the system's words. Samples of what the lines are for: "MemoryError", "Out of
# sockets", "[Errno -2] Name or service not known", "ConnectionRefusedError", "[Errno 116]
# ETIMEDOUT", "certificate has expired", "Hostname mismatch", "self-signed certificate", "tlsv13
# alert certificate required", EPIPE of a board for the same, "[SSL: WRONG_VERSION_NUMBER]". One
# text: nested tuples take 700 bytes more of a board.
_CAUSES = const("""memory|nomem|alloc|too little memory left ({1})
sockets|open files|no socket is left ({1})
gaierror|unicodeerror|resolve|request host|host not known: {0}
refused|connection refused: no server is listening on {0}
timed|inprogress|no answer from {0}
expired|yet valid|certificate expired or not yet valid: is the clock set? ({1})
mismatch|not match|certificate of another host ({1})
verif|signed|certificate not trusted: tls= needs the CA file that signed it ({1})
alert|pipe|the server rejected our TLS handshake; does it require a client certificate? ({1})
ssl|reset|eof|notconn|TLS failed: does this port speak it? ({1})
|no connection to {0} ({1})""")
_TLS_HEAP_BYTES = const(40000)  # with less, mbedTLS takes good certificates for bad ones


def _connect_error(error, where):
    """The reason why an attempt failed, as an `OSError` in our words and the system's."""
    number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
    if not isinstance(number, int):
        number, reason = errno.ENOTCONN, None
    reason = reason or str(error) or type(error).__name__
    kind = "ssl" if number < -99 else "pipe" if number == _EPIPE else ""  # boards have no words
    said = "%s %s %s" % (type(error).__name__, error, kind)
    is_board = sys.implementation.name != "cpython"
    if is_board and gc.mem_free() < _TLS_HEAP_BYTES:  # type: ignore[attr-defined]
        said = said.replace("VERIF", "memory")
    for line in _CAUSES.split("\n"):
        *parts, cause = line.split("|")
        for part in parts:
            if part in said.lower():
                return OSError(number, cause.format(where, reason))


def _is_free(size):
    """Whether there are *size* bytes of memory in one piece."""
    try:
        bytearray(size)
        return True
    except MemoryError:
        return False


def _unexpected(data, state):
    """The error text for *data* that is not an MQTT packet, or not one that may come now."""
    head = data[0]
    is_first = head == 0x48 and state == _CONNECTING
    if is_first or bytes(data[:4]) == b"HTTP":  # /1.1 400 Bad Request
        return "The reply was not MQTT. Is this the web (HTTP) port?"
    return "protocol: packet 0x%02x: %s" % (
        head,
        "is TLS wanted?" if head == 0x15 else "unexpected",
    )


class _Link:
    """One MQTT connection, and the next after it is lost; see above."""

    backoff_ms = 1000  # the longest first pause; the next are twice as long each

    def __init__(self, owner, settings, pool, radio, rejoin):
        """*settings*: the arguments of `MQTT` that never change."""
        self._owner = owner
        self._radio = radio
        self._rejoin = rejoin  # a function and its arguments, or None
        self._is_down = False  # there is no network: the next attempt begins with `rejoin`
        self._standin = _StandIn(pool)
        self.mqtt = MQTT(
            socket_pool=_pool,
            broker="",  # see `set_connection`
            is_ssl=False,  # the stand-in adds TLS
            use_binary_mode=True,
            connect_retries=1,
            **settings,
        )
        self.state = _STOPPED
        self.error = None  # why there is no connection
        self._is_told = True  # `state` was reported to the owner
        self._attempts = 0  # since a connection lasted
        self._sends_early = True  # packets leave behind CONNECT, before its CONNACK
        self._topics = {}  # filter -> QoS
        self._last_topic = self._last_topic_text = None  # of a PUBLISH; as text and encoded
        # ESP32SPI and WIZnet are Python code behind SPI: no select, and a look takes milliseconds.
        self._is_airlift = hasattr(pool, "NO_SOCKET_AVAIL")
        self._is_wiznet = hasattr(pool, "_interface") and not self._is_airlift
        self._awaited = {}  # packet id -> topics of a SUBSCRIBE; of a message none
        self._unsent = []  # packets, as views; the first may have gone in part
        self._own_buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._forget()

    def _forget(self):
        """No connection (any more). Takes no memory: it has to succeed. The topics stay."""
        self._socket = None
        self._ready = None  # asks the system whether there is something to read
        self._fault = None  # an error for which the next poll ends the connection
        self._awaited.clear()
        self._next_id = _SUBSCRIBE_IDS + 1  # of a SUBSCRIBE or UNSUBSCRIBE
        self._early_id = 0  # packet id of the first message before CONNACK, until acknowledged
        self._is_used = False  # a message was acknowledged
        self.topic = None  # of the last message, until it is acknowledged
        self._is_unconfirmed = False  # QoS 0 left behind the last acknowledgement
        self._unsent.clear()
        self._first_sent = 0  # bytes of the first packet that have gone
        self._buffer = self._own_buffer
        self._filled = 0  # bytes in the buffer
        self._done = 0  # bytes, from its start and maybe beyond, that nobody needs any more
        self._unread = 0  # of a message with a too long topic: bytes from its packet id on
        self._last_number = b""  # the packet id of the last message that has one
        self._may_hold_more = False  # the last read may have left something
        self._is_pinged = False  # PINGRESP is expected

    # --- _Link: state --------------------------------------------------------------------------

    def _move(self, state, reason=None, was_cut=False):
        """The one place that changes the state."""
        if state not in _MOVES[self.state]:
            raise RuntimeError("link: %s -> %s" % (self.state, state))
        self.state = state
        self._is_told = False
        self._owner._link_moved(state, reason, was_cut)
        self._is_told = True  # not reached if memory ran out: the next poll reports it

    def set_connection(self, host, port, username, password, context, credential):
        """Where the next attempt leads, and who we are. *credential*: what may be refused."""
        self.mqtt.broker = host
        self.mqtt.port = port
        self.username = username
        self.password = password or ""  # MiniMQTT can't do without
        self._standin.context = context
        self.credential = credential

    def start(self):
        """Connect, and stay connected until `stop`."""
        self.error = None
        self._due = ticks_ms()
        if self.state == _STOPPED:
            self._attempts = 0
            self._move(_WAITING)

    def stop(self, farewell_ms=0):
        """Send DISCONNECT if that can be done at once, and close.

        A socket that is closed while something is there to be read resets the connection, and what
        the server has not read yet is lost. So as long as it has not confirmed all that was sent it
        is given *farewell_ms* to close first.
        """
        if self.state == _STOPPED:
            return
        if self._socket is not None:
            self._write(_packet(_DISCONNECT))
            if self._awaited or self._is_unconfirmed:
                self._read_to_end(farewell_ms)
        self._close(_STOPPED)

    def _read_to_end(self, limit_ms):
        """Throw away what comes until the server closes."""
        since = ticks_ms()
        while self._fault is None and ticks_diff(ticks_ms(), since) < limit_ms:
            if self._call_socket(self._socket.recv_into, self._buffer) == 0:
                return
            time.sleep(0.02)

    def poll(self, may_connect=True):
        """Move on by as much as can be done without waiting. Raises no network error."""
        try:
            if not self._is_told:
                self._owner._link_moved(self.state, self.error, False)
                self._is_told = True
            if self._socket is not None:
                self._poll_socket()
            elif not may_connect or self.state == _STOPPED or ticks_diff(ticks_ms(), self._due) < 0:
                return
            elif self.state == _CONNECTING:
                self._open()  # announced at the poll before
            else:
                self._announce_attempt()
            if self._fault is not None:
                raise self._fault
        except (OSError, TBError) as reason:
            self._lose(reason)

    def _poll_socket(self):
        if self._unsent:
            self._flush()
        now = ticks_ms()
        if self._may_hold_more or self._fault or self._is_readable(now):
            self._read()
        if ticks_diff(now, self._due) >= 0:
            self._due = ticks_add(now, _TIMER_MS)
            ping_ms = self.mqtt.keep_alive * 500  # half the interval
            # A missing PINGRESP is noticed before keep_alive is over, and after 10 s at most.
            limit_ms = min(_PING_TIMEOUT_MS, ping_ms * 3 // 4 or _PING_TIMEOUT_MS)
            self._check_deadlines(now, limit_ms)
            if self.state == _ONLINE and ping_ms and not self._unsent:
                self._ping_if_silent(now, ping_ms)

    def _close(self, state, reason=None):
        """Close, forget the connection, and tell what was lost."""
        self._ready = None  # the poller: Espressif's select can't bear a closed socket
        try:
            get_connection_manager(_pool).close_socket(self._standin)
        except (OSError, RuntimeError, MemoryError, MMQTTException):
            pass  # it has forgotten it already
        self._standin.close()
        was_cut = len(self._unsent) > 0
        self._forget()
        self._move(state, reason, was_cut)

    def _lose(self, reason):
        """The connection, or the attempt, is over; plan the next one.

        If there is another way to try, at once, and `connect` goes on waiting. Otherwise after a
        pause: two clients with one token disconnect each other, which must not become a race.
        """
        another = self._has_another_way(reason)
        self.error = None if another else reason
        if self._is_used and self._awaited:
            self._attempts = 0  # cut in the middle of messages that pass
        self._due = now = ticks_ms()
        if not another:
            pause_ms = min(_BACKOFF_MAX_MS, self.backoff_ms << self._attempts)
            self._rejoin_due = ticks_add(now, int(pause_ms * (0.5 + random() / 2)))
            self._attempts = min(self._attempts + 1, _BACKOFF_LAST)
            if not (self._is_down and self._radio):  # else it may come back by itself
                self._due = self._rejoin_due
        if self._radio is None and self._socket is None:
            self._is_down = self._rejoin is not None  # no radio can say
        self._close(_WAITING, reason)

    def _has_another_way(self, reason):
        """Whether the next attempt will differ from this one:

        * ThingsBoard before 3.3 may close on, or forget, packets sent before its CONNACK: from now
          on none is
        * the host has another address
        """
        is_early = self._early_id and self._sends_early
        is_early_fault = is_early and isinstance(reason, (OSError, TBTimeoutError))
        if is_early_fault:
            self._sends_early = False
        if self.state != _CONNECTING:
            return is_early_fault
        self._standin.turn += 1  # the next address
        return is_early_fault or (self._socket is None and self._standin.has_more)

    # --- _Link: an attempt ---------------------------------------------------------------------

    def _announce_attempt(self):
        """Move to "connecting", which blocks one poll later, if there is a network.

        If the radio has none: after some seconds, in which it may come back by itself, joining
        again is the first step of an attempt, with the pauses of attempts.
        """
        now = ticks_ms()
        self._due = ticks_add(now, _RADIO_MS)
        error = self._radio_error()
        if error and not self._is_down:
            self._is_down = True
            self._rejoin_due = ticks_add(now, _REJOIN_MS)
            self._owner._link_error(error)
            self.error = None
        if self._radio and not error:
            self._is_down = False
        if self._is_down and not self._rejoin:
            self.error = error
        elif not self._is_down or ticks_diff(now, self._rejoin_due) >= 0:
            self._move(_CONNECTING)
            self._due = now

    def _radio_error(self):
        """Why the radio has no network. None: it has one, or there is no radio to ask."""
        for name in ("connected", "is_connected", "link_status"):  # each kind has one
            if not getattr(self._radio, name, True):
                return OSError(errno.EHOSTUNREACH, "the radio is not connected")

    def _open(self):
        """Join the network if it is gone; DNS, TCP, TLS.

        CONNECT, as MiniMQTT built it, is then sent without waiting.
        """
        # The least pause, if there is no memory left to plan one.
        self._due = ticks_add(ticks_ms(), self.backoff_ms)
        self._standin.has_more = False
        try:
            _pool.standins[_thread_id()] = self._standin
            if self._is_down:
                function, *arguments = self._rejoin
                function(*arguments)
                error = self._radio_error()
                if error:
                    raise error
                self._is_down = False
            self._owner.stats["connects"] += 1
            self._standin.connect_timeout = self._owner.connect_timeout
            self._standin.error = None
            self.mqtt.username_pw_set(self.username, self.password)
            self.mqtt.connect(clean_session=self._owner.clean_session)
            self._adopt()
        except Exception as error:  # of MiniMQTT, of networks of boards, of `rejoin`
            if not self._is_down:  # else joining raised it
                error = self._standin.error or getattr(error, "__cause__", None) or error
                where = "%s port %d" % (self.mqtt.broker, self.mqtt.port)
                error = _connect_error(error, where)
            self._lose(error)
            if "pystack" in str(error):
                raise  # exhausted: the program's own nesting is too deep
        finally:
            _pool.standins.pop(_thread_id(), None)

    def _adopt(self):
        """Take over the real socket. From now on it is non-blocking."""
        standin = self._standin
        sockets, standin.sockets = standin.sockets, []
        try:  # closes nothing, and ConnectionManager lets go of the stand-in
            self.mqtt.disconnect()
        finally:
            standin.sockets = sockets
        socket = sockets[-1]
        socket.settimeout(0)
        now = ticks_ms()
        self._due = self._look_at = self._moved_at = self._heard_at = self._pinged_at = now
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
        self._write(self._standin.connect_packet(self.password))
        if self._sends_early:
            self._request(_SUBSCRIBE, self._topics)

    # --- _Link: timers -------------------------------------------------------------------------

    def _check_deadlines(self, now, limit_ms):
        """Each wait has an end:

        * bytes that can't leave: since the last ones left. As long as some wait, the server can't
          acknowledge what has not reached it: the wait for acknowledgements begins anew
        * CONNACK: since CONNECT
        * acknowledgements: since the last one came
        * PINGRESP: since PINGREQ, or since the last bytes came, behind which it may be

        As long as something may be unread, no acknowledgement or PINGRESP is taken for missing.
        """
        if self._unsent:
            self._expect("acknowledgement", self._sent_at, limit_ms)  # TCP's
            self._acked_at = now
        if self.state == _CONNECTING:
            # Half of it if packets went out early: then `connect` has time for a second attempt.
            limit_ms = _CONNACK_TIMEOUT_MS >> (1 if self._early_id else 0)
            self._expect("CONNACK", self._moved_at, limit_ms)
            return
        if ticks_diff(now, self._moved_at) >= _SETTLED_MS:
            self._attempts = 0
        if self._may_hold_more:
            return
        if self._awaited:
            self._expect("acknowledgement", self._acked_at, _ACK_TIMEOUT_MS)
        if self._is_pinged:
            self._expect("PINGRESP", self._pinged_at, limit_ms)

    def _expect(self, name, since, limit):
        if ticks_diff(ticks_ms(), since) > limit:
            raise TBTimeoutError("no %s in %g s" % (name, limit / 1000))

    def _ping_if_silent(self, now, ping_ms):
        """Send PINGREQ if one side has been silent for *ping_ms*."""
        silent_ms = ticks_diff(now, self._sent_at)
        if not self._is_pinged:
            silent_ms = max(silent_ms, ticks_diff(now, self._heard_at))
        if silent_ms >= ping_ms:
            self._pinged_at = now
            self._is_pinged = True
            self._write(_packet(_PINGREQ))

    # --- _Link: sending ------------------------------------------------------------------------
    # One packet is one send(). A packet is kept until all of it has gone; a TLS layer that took
    # a part of it must be offered the very same bytes again.

    def can_send(self):
        """Whether `publish` would send now, or as soon as the socket takes more."""
        return self._is_open() and self._fault is None and len(self._unsent) < _MAX_UNSENT

    def _is_open(self):
        """Whether packets may leave: from CONNACK on, or already behind CONNECT."""
        return self.state == _ONLINE or (self._sends_early and self._socket is not None)

    def is_sending(self):
        """Whether a packet waits for the socket."""
        return len(self._unsent) > 0

    def is_online(self):
        return self.state == _ONLINE

    def lacks_memory(self):
        """Whether the last attempt failed for it, or the next would: there is no piece as large."""
        needed = _ATTEMPT_BYTES if self._standin.context is None else _TLS_BYTES
        return "too little memory" in str(self.error) or not _is_free(needed)

    def publish(self, topic, payload, flags, packet_id):
        """Send a message, if `can_send`; *flags* as in the packet. `_link_acknowledged` follows."""
        self.topic = topic
        identifier = b""
        if flags & _QOS_1:
            identifier = packet_id.to_bytes(2, "big")
            self._await(packet_id)
        else:
            self._is_unconfirmed = True
        if topic is not self._last_topic:  # it rarely changes; encoding it takes memory
            self._last_topic_text = _text(topic)
            self._last_topic = topic
        self._write(_packet(_PUBLISH | flags, self._last_topic_text, identifier, payload))

    def subscribe(self, topics):
        """Subscribe now and after each connect to *topics*, filter -> QoS; the packet id."""
        new = []
        for topic in topics:
            if self._topics.get(topic) != topics[topic]:
                self._topics[topic] = topics[topic]
                new.append(topic)
        return self._request(_SUBSCRIBE, new if self._is_open() else ())

    def unsubscribe(self, topics):
        """Unsubscribe now, and subscribe no more after a connect; the packet id."""
        known = []
        for topic in topics:
            if self._topics.pop(topic, None) is not None:
                known.append(topic)
        return self._request(_UNSUBSCRIBE, known if self._is_open() else ())

    def _request(self, head, topics):
        """Send SUBSCRIBE or UNSUBSCRIBE, under a packet id that no message has, which is returned.

        ThingsBoard says "session present" of sessions that it has forgotten: after each connect it
        has to hear of all topics.
        """
        packet_id = self._next_id
        if not topics:
            return packet_id  # while offline that of the SUBSCRIBE to come
        # After 0xFFFF they begin again.
        self._next_id = packet_id % 0xFFFF + 1 | _SUBSCRIBE_IDS
        self._await(packet_id, list(topics) if head == _SUBSCRIBE else ())
        parts = [packet_id.to_bytes(2, "big")]
        for topic in topics:
            parts.append(_text(topic))
            if head == _SUBSCRIBE:
                parts.append(bytes((self._topics[topic],)))
        self._write(_packet(head, *parts))
        return packet_id

    def _await(self, packet_id, topics=()):
        """Expect an acknowledgement."""
        if not self._awaited:
            self._acked_at = ticks_ms()
        self._awaited[packet_id] = topics
        if self.state == _CONNECTING and self._sends_early and not self._early_id:
            self._early_id = packet_id

    def _write(self, packet):
        if not self._unsent:
            self._sent_at = ticks_ms()
        self._unsent.append(memoryview(packet))
        self._flush()

    def _flush(self):
        """Send until the socket has no room."""
        while self._unsent and self._fault is None:
            data = self._unsent[0]
            if self._first_sent:
                data = data[self._first_sent :]
            if self._is_airlift:
                data = data[:_SPI_SLICE_BYTES]
            sent = self._send_some(data)
            if sent <= 0:
                return
            self._sent_at = ticks_ms()
            self._first_sent += sent  # takes no memory: what has gone never goes again
            if self._first_sent >= len(self._unsent[0]):
                self._first_sent = 0
                self._unsent.pop(0)
            if self._is_airlift:
                return  # one slice a poll: each takes milliseconds

    def _send_some(self, data):
        """How many bytes the socket took; 0 or less: none."""
        if self._is_wiznet:
            self._socket.settimeout(2)  # 0 would mean: wait for ever
        sent = self._call_socket(self._socket.send, data)
        if self._is_wiznet:
            self._socket.settimeout(0)
        return len(data) if sent is None else sent

    def _call_socket(self, method, *data):
        """What *method* returns; -1 if it would have to wait, and if it fails.

        A failure is kept, and the poll ends the connection because of it.
        """
        try:
            return method(*data)
        except OSError as error:
            # lwIP without a free buffer has taken nothing, as if it were full. CPython's TLS has
            # exceptions of its own.
            is_busy = error.errno in (errno.EAGAIN, _WSAEWOULDBLOCK, errno.ENOMEM, _ENOBUFS)
            if not (is_busy or "SSLWant" in type(error).__name__):
                self._fault = self._line_error(error)
        except (RuntimeError, MemoryError, ValueError) as error:  # of networks in Python
            self._fault = OSError(errno.ENOTCONN, repr(error))
        return -1

    def _line_error(self, error):
        """What a socket raised, or None if it was closed, as a reason for the user."""
        words = "closed by the server"
        if self.state == _CONNECTING:
            words += " before CONNACK: does it require TLS or a client certificate?"
            if error:
                words += " (%s)" % error
        elif error is not None and error.errno not in (errno.ENOTCONN, errno.ECONNRESET, _EPIPE):
            return error
        elif self.topic:
            words += " after a message to " + self.topic
        elif self._attempts > 2:
            words += " again and again: credentials used twice?"
        return OSError(errno.ENOTCONN, words)

    # --- _Link: receiving ----------------------------------------------------------------------
    # Bytes land in one fixed buffer, whose first `_filled` were not taken apart yet. A message that
    # does not fit gets a buffer of its own for as long as it takes. Of one above max_message_bytes
    # the beginning is dealt with as if it were whole, up to its acknowledgement, so that the server
    # does not send it for ever; the rest goes by unread. A topic that does not fit into the fixed
    # buffer goes by as well; of such a message the packet id behind it is read alone.
    # What MQTT 3.1.1 forbids ends the connection, as soon as it can be seen: what a broken header
    # promises may never come.

    def _is_readable(self, now):
        """Whether a read is worth its time.

        The system is asked where it can be. Where it can't (or doesn't notice a reset, Pico W), a
        read is tried from time to time.
        """
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
        """Take some packets, and read where the buffer has no whole one."""
        self._may_hold_more = True
        for _ in range(_WORK_PER_POLL):
            is_stuck = len(self._unsent) > 2 * _MAX_UNSENT or self._owner._link_is_held()
            if is_stuck and self.state == _ONLINE:
                return  # what comes has nowhere to go: TCP holds the server back meanwhile
            if self._take_packet():
                continue
            size = self._call_socket(self._socket.recv_into, self._buffer[self._filled :])
            if size == 0:  # closed by the server; on an AirLift perhaps just nothing to read
                socket = getattr(self._socket, "_socket", self._socket)  # inside its TLS socket
                if not (self._is_airlift and self._call_socket(socket._connected)):
                    raise self._line_error(None)
            if size <= 0:
                self._may_hold_more = False
                return
            self._filled += size
            self._heard_at = self._pinged_at = ticks_ms()

    def _take_packet(self):
        """Deal with one packet; False if more of it has to come first."""
        if self._done:
            self._discard()
        if self._unread:
            return self._acknowledge_unread()
        head = self._buffer[0]
        try:
            # CONNACK has to be the first packet. Checked now: other data may never be complete.
            if self._filled and (head == _CONNACK) != (self.state == _CONNECTING):
                raise ValueError
            start, end = _find_body(self._buffer, self._filled)
            if not end:
                return False
            self._check_header(head, end - start)
            if end > self._filled and not self._is_cut_short(head, start, end):
                return False
            self._done = end  # never twice, even if there is no memory for the rest
            self._handle(head, self._buffer[start:end])
        except MemoryError:
            self._owner.stats["oversize"] += 1
            self._owner._link_error(TBError("no room for a message: %d bytes" % self._done))
        except (IndexError, ValueError):
            raise TBError(_unexpected(self._buffer, self.state)) from None
        return True

    def _acknowledge_unread(self):
        """PUBACK for a message whose topic went by, and whose packet id comes now."""
        if self._filled < 2:
            return False
        self._write(_packet(_PUBACK, bytes(self._buffer[:2])))
        self._done = self._unread
        self._unread = 0
        return True

    def _discard(self):
        """Move what follows the bytes that nobody needs to the start of the buffer."""
        gone = min(self._done, self._filled)
        left = self._filled - gone
        if left:
            self._buffer[:left] = self._buffer[gone : self._filled]
        self._filled = left
        self._done -= gone
        if not left:
            self._buffer = self._own_buffer

    def _is_cut_short(self, head, start, end):
        """Whether a message that fills the buffer has to be dealt with as far as it came.

        If not, more of it has to come: into this buffer, or into one of its own.
        """
        if self._filled < len(self._buffer):
            return False
        if head & 0xF0 != _PUBLISH:
            raise ValueError
        topic_end = start + 2 + (self._buffer[start] << 8 | self._buffer[start + 1])
        payload = topic_end + (head & _QOS_1)
        if payload > end:
            raise ValueError
        if payload > self._filled:
            self._unread = end - topic_end if head & _QOS_1 else 0
            self._done = end - self._unread
            raise MemoryError
        if end - payload > self._owner.max_message_bytes:
            return True
        try:
            buffer = memoryview(bytearray(end))
            buffer[: self._filled] = self._buffer
        except MemoryError:
            return True
        self._buffer = buffer
        return False

    def _check_header(self, head, size):
        """What a packet may begin with: sections 2.2.2, 3.3.1 and the fixed headers of chapter 3.

        CONNACK is the first, and only the first. We subscribe to QoS 0 and 1 alone.
        """
        if head & 0xF0 == _PUBLISH:  # QoS 0 comes without DUP
            is_right = head & 14 in (0, _QOS_1, _DUP | _QOS_1)
        elif head == _SUBACK:
            is_right = size > 2
        else:
            is_right = size == (0 if head == _PINGRESP else 2)
            is_right = is_right and head in (_CONNACK, _PUBACK, _UNSUBACK, _PINGRESP)
        if not is_right or (head == _CONNACK) != (self.state == _CONNECTING):
            raise ValueError

    def _handle(self, head, body):
        if head == _CONNACK:
            self._on_connack(body[0], body[1])
        elif head == _PINGRESP:
            self._is_pinged = False
        elif head & 0xF0 == _PUBLISH:
            self._on_publish(head & 15, body)
        else:
            self._on_acknowledgement(head, body)

    def _on_connack(self, flags, code):
        if flags > 1:  # section 3.2.2.1
            raise ValueError
        if code:
            if code != 3:  # "not available" may pass, the others stay: no fast retry
                self._attempts = _BACKOFF_LAST
            raise TBRefusedError(code, self.credential)
        self._acked_at = self._moved_at = ticks_ms()
        self.error = None
        if not self._sends_early:
            self._request(_SUBSCRIBE, self._topics)
        self._move(_ONLINE)

    def _on_publish(self, flags, body):
        end = 2 + (body[0] << 8 | body[1])
        start = end + (flags & _QOS_1)  # 2 bytes of packet id, or at QoS 0 none
        if start > len(body):
            raise ValueError
        topic = str(body[2:end], "utf-8")
        if not topic or "+" in topic or "#" in topic or "\0" in topic:  # sections 3.3.2.1, 1.5.3
            raise ValueError
        # 0 is no packet id (section 2.3.1), but ThingsBoard counts on to it from 65535. It counts
        # its messages of QoS 0, too, which show no id: so any from 32768 on may be the last seen.
        number = bytes(body[end:start])
        if number == b"\0\0" and self._last_number < b"\x80":
            raise ValueError
        self._last_number = number or self._last_number
        if not self._owner._link_has_room():
            self._owner.stats["unheard"] += 1
            return  # without PUBACK
        if number:
            self._write(_packet(_PUBACK, number))
        if self._done > self._filled:
            raise MemoryError  # the rest goes by unread
        self._owner._link_message(topic, bytes(body[start:]), flags)

    def _on_acknowledgement(self, kind, body):
        self._is_unconfirmed = False
        packet_id = body[0] << 8 | body[1]
        topics = self._awaited.get(packet_id)
        if topics is None:
            if packet_id:
                return  # nobody waits for it any more
            raise ValueError
        # Each kind has its ids. SUBACK has a code for each topic, section 3.9.3.
        if (packet_id < _SUBSCRIBE_IDS) != (kind == _PUBACK) or len(body) != 2 + len(topics):
            raise ValueError
        if self._early_id in (0, packet_id):  # else the first early packet is still awaited
            self._early_id = 0
            self._acked_at = ticks_ms()
        if kind == _PUBACK:
            self._is_used = True
            self._owner._link_acknowledged(packet_id)
        for topic, code in zip(topics, body[2:]):
            if code not in (0, 1, 2, 0x80):
                raise ValueError
            self._owner._link_subscribed(topic, code)
        self._awaited.pop(packet_id, None)  # last: if memory runs out before, a timeout follows
        if not self._awaited:
            self.topic = None


# --- _Outbox: theory ---------------------------------------------------------------------------
# Whatever is to be sent enters at the end of one bounded list. The entries at its front are in
# flight: sent, and not yet acknowledged. An entry of QoS 1 ends with its PUBACK, one of QoS 0 when
# it is sent; the owner's `_message_ended` is called then, and when an entry is dropped. When the
# connection is lost, all are sent again from the front, and the front travels alone until it is
# acknowledged: so a message that makes the server close is found, and dropped after some losses,
# and the others go on.
# The server keeps one value of a key for each millisecond, the last. So only a reading that is sent
# alone and at once gets the server's time. Every other one (it waited, was sent again, or follows
# one that is not acknowledged) is sent with its time of capture, and those travel together. A
# server's time and a time of capture must not coincide: a reading that follows before the
# acknowledgement gets a time 100 ms later, and for a second after a reading with its time, all have
# theirs. While the board's clock is not set, readings are sent one by one, each after the
# acknowledgement of the one before: even 30 ms apart they may arrive together, after a pause of the
# network.
# Before a packet is sent, the gates of companions are asked; a closed one holds all that waits.


class _Message:
    """An entry of the outbox: kept until it is delivered or dropped."""

    id = 0  # a new one each time it is queued

    def __init__(self, topic, parts, flags=_QOS_1, is_telemetry=False, is_timed=False):
        self.topic = topic
        self.parts = parts  # list of bytes: of telemetry its readings, else the payload alone
        self.flags = flags
        self.is_telemetry = is_telemetry
        self.is_timed = is_timed  # its readings have a time of their own
        self.is_queued = False
        self.put_at = 0  # ticks
        self.captured_ms = 0  # of telemetry: when it was taken, as `_now_ms` counts
        self.packet_id = 0  # of the packet it was sent in; readings may share one

    def size(self):
        """Bytes of `payload`."""
        size = 0 if len(self.parts) == 1 else 2 * len(self.parts)  # its commas and brackets
        for part in self.parts:
            size += len(part)
        return size

    def stamped_size(self):
        """At most, with a time for each reading."""
        return self.size() + len(self.parts) * _STAMP_BYTES

    def payload(self):
        """The payload without times of capture added."""
        return self.parts[0] if len(self.parts) == 1 else _join(self.parts)

    def extend(self, ts, text, limit):
        """Add a reading of the same kind, if there is room; returns whether it was added."""
        room = limit - self.size() - _STAMP_BYTES * (1 if self.is_timed else len(self.parts) + 1)
        if (ts is not None) != self.is_timed or (self.parts and room <= len(text)):
            return False
        self.parts.append(_stamped(ts, text) if self.is_timed else text)
        return True


def _telemetry(data, topic, flags, limit, packs, left_out):
    """Messages of what `send_telemetry` takes, of at most *limit* bytes.

    Readings with and without a time travel apart; several without only if *packs*: without times
    the server would keep one value of each key.
    """
    if not isinstance(data, (list, tuple)):
        data = (data,)
    if not data:
        raise ValueError(_must_be("data", "a dict or a list of dicts", data))  # never acknowledged
    messages = []
    for reading in data:
        ts, values = _split_reading(reading)
        name = "data" if ts is None else "values"
        for text in _objects(name, values, limit - _STAMP_BYTES, left_out):
            may_join = messages and (packs or ts is not None)
            if not (may_join and messages[-1].extend(ts, text, limit)):
                messages.append(_Message(topic, [], flags, True, ts is not None))
                messages[-1].extend(ts, text, limit)
    return messages


def _data_points(messages):
    """What ThingsBoard's rate limits count as such: keys of all readings, or of attributes."""
    points = 0
    for message in messages:
        if message.topic.split("/")[-1] in ("telemetry", "attributes", "t", "a"):
            for part in message.parts:
                points += _count_keys(part)
    return points


def _count_keys(payload):
    try:
        readings = loads(payload)
        count = 0
        for reading in readings if isinstance(readings, list) else (readings,):
            count += len(_split_reading(reading)[1])
        return count
    except (TypeError, ValueError):
        return 0  # published by the program, and no reading


def _join(texts):
    """A JSON array of what are JSON texts already."""
    return b"[%s]" % b",".join(texts)


class _Outbox:
    """The bounded queue. Its owner gets `_message_ended` when an entry ends, see above."""

    def __init__(self, link, owner, max_size, max_bytes, stamp, gates):
        self._link = link
        self._owner = owner
        self._max_size = max_size
        self._max_bytes = max_bytes
        self._stamp_mode = stamp  # "late", "always" or "never", see `TBDeviceMqttClient`
        self._gates = gates  # see `TBDeviceMqttClient.attach`
        self._last_id = 0
        self._last_captured_ms = 0
        self._bare: Any = None  # the last reading that left without a time of its own
        self._alone_at = ticks_ms()  # from then on the next may do so, too
        self._progress_at = 0  # ticks: the last acknowledgement, or when the wait for one began
        self._epoch_ms = 0  # see `knows_time`
        self._is_gated = False  # a gate is closed for the next message
        self._entries = []
        self._in_flight = 0  # entries, at the front
        self._failures = 0  # of the message at the front; above 0 it travels alone
        self._bytes = 0

    def __len__(self):
        return len(self._entries)

    def new_id(self):
        """The next number of a message, a request or a subscription."""
        self._last_id = self._last_id % _MAX_ID + 1
        return self._last_id

    def limit(self):
        """Bytes that a payload may have."""
        return min(
            self._owner.max_message_bytes,
            self._max_bytes - _OVERHEAD_BYTES,
            _MAX_PACKET_BYTES - 2 * _OVERHEAD_BYTES,
        )

    # --- _Outbox: what enters and what gives way -----------------------------------------------

    def put(self, message, gives_way=False):
        """Add *message*, under a new number. If the queue is full others give way, or it itself."""
        _check_size(message.topic, message.size(), self.limit())
        message.id = self.new_id()
        message.flags &= ~_DUP  # a request or a reply may have been here before
        message.is_queued = True
        message.put_at = ticks_ms()
        if message.is_telemetry:  # a time that no other reading has
            earliest_ms = self._last_captured_ms + 1
            if self._is_bare_under_way():
                earliest_ms = max(earliest_ms, self._bare.captured_ms + _TRIP_MS)
            message.captured_ms = max(_now_ms(), earliest_ms)
            self._last_captured_ms = message.captured_ms + len(message.parts) - 1
        if not self._entries:
            self._progress_at = ticks_ms()
        self._entries.append(message)
        self._bytes += message.size() + _OVERHEAD_BYTES
        while len(self._entries) > self._max_size or self._bytes > self._max_bytes:
            self._drop(message if gives_way else self._choose_victim(), self._fullness())

    def has_room(self, count, size):
        """Whether *count* messages of *size* bytes together fit beside what is there."""
        return (
            len(self._entries) + count <= self._max_size
            and self._bytes + size + count * _OVERHEAD_BYTES <= self._max_bytes
        )

    def check_room(self, messages):
        """Refuse as a whole what would not even fit into an empty queue.

        :raises ValueError: the text names the limits
        """
        size = sum(map(_Message.size, messages)) + len(messages) * _OVERHEAD_BYTES
        if len(messages) > self._max_size or size > self._max_bytes:
            raise ValueError(
                "%d messages of %d bytes do not fit into the queue (queue_size=%d, queue_bytes=%d)"
                % (len(messages), size, self._max_size, self._max_bytes)
            )

    def _fullness(self):
        """Why a message is dropped; the limit is named."""
        if self._bytes > self._max_bytes:
            limit = "queue_bytes=%d" % self._max_bytes
        else:
            limit = "queue_size=%d" % self._max_size
        words = "queue full: %d messages, %s" % (len(self._entries) - 1, limit)
        return words + self._owner.why_offline()

    def _choose_victim(self):
        """The oldest telemetry that waits, else the oldest in flight, else the first that waits."""
        waiting = self._entries[self._in_flight :]
        for message in waiting + self._entries[: self._in_flight]:
            if message.is_telemetry:
                return message
        return waiting[0]

    def shrink(self):
        """Drop readings that wait, half of the queue: their memory is needed to connect."""
        for _ in range(len(self._entries) // 2 + 1):
            if self.is_waiting() and self._choose_victim().is_telemetry:
                self._drop(self._choose_victim(), "too little memory left to connect")

    def has_place(self):
        """Whether a reply would find a place: room, or telemetry that gives way."""
        if self.has_room(1, 0):
            return True
        for message in self._entries:
            if message.is_telemetry:
                return True
        return False

    def _drop(self, message, reason):
        self._owner.stats["dropped"] += 1
        message.packet_id = 0  # as if it had never left
        self.remove(message)
        self._owner._message_ended(message, reason)

    def remove(self, message):
        """Take *message* out, without a report to the owner."""
        place = self._entries.index(message)
        if place == 0:
            self._failures = 0
        if place < self._in_flight:
            self._in_flight -= 1
        self._entries.pop(place)
        message.is_queued = False
        self._bytes -= message.size() + _OVERHEAD_BYTES

    # --- _Outbox: what leaves ------------------------------------------------------------------

    def is_waiting(self, message=None):
        """Whether *message*, or without it any, has not left yet."""
        waiting = len(self._entries) - self._in_flight
        return waiting > 0 if message is None else message in self._entries[self._in_flight :]

    def flush(self):
        """Send as much as window, socket, clock, gates and memory allow."""
        window = 1 if self._failures else _WINDOW
        try:
            while self._in_flight < min(window, len(self._entries)) and self._link.can_send():
                if not self._send_next(self._entries[self._in_flight]):
                    break
        except MemoryError as error:  # a later poll tries the front alone, which takes least
            self._failures = self._failures or 1
            self._owner.last_error = error

    def is_moving(self):
        """Whether room is to be expected: acknowledgements came lately, and no gate is closed."""
        is_slow = ticks_diff(ticks_ms(), self._progress_at) >= _STALL_MS
        is_busy = len(self._entries) > 0 or self._link.is_sending()
        return is_busy and not (is_slow or self._is_gated)

    def _send_next(self, first):
        """Send *first*, or a packet of readings that tell their times; False if it has to wait."""
        packet_id = first.id % (_SUBSCRIBE_IDS - 1) + 1
        is_bare = first.is_telemetry and not self._has_time(first)
        if self._is_in_flight(packet_id) or (is_bare and self._is_too_close()):
            return False
        batch = self._next_batch(first)
        points = self._gates and _data_points(batch)
        if not self._may_send(first.topic, points):
            return False
        is_plain = len(batch) == 1 and not self._needs_time(first)
        payload = first.payload() if is_plain else self._stamp(batch)
        self._link.publish(first.topic, payload, first.flags, packet_id)
        if first.is_telemetry and not first.is_timed:
            self._note_time(first, is_bare)
        self._note_sent(batch, packet_id, points)
        return True

    def _note_time(self, reading, is_bare):
        """From when on the next may leave without its time, behind this one."""
        if is_bare:
            self._bare = reading
        self._alone_at = ticks_add(ticks_ms(), _APART_MS if is_bare else _BURST_MS)

    def _may_send(self, topic, points):
        """Ask the gates. If one raises, that is counted and means yes."""
        for gate in self._gates:
            if not self._owner._call(gate.may_send, (topic, points)):
                self._is_gated = True
                return False
        self._is_gated = False
        return True

    def _note_sent(self, batch, packet_id, points):
        if not self._in_flight:
            self._progress_at = ticks_ms()
        self._owner.stats["resent" if batch[0].flags & _DUP else "sent"] += 1
        for message in batch:
            message.packet_id = packet_id
            if message.flags & _QOS_1:
                self._in_flight += 1
            else:
                self.remove(message)
                self._owner._message_ended(message, None)
        for gate in self._gates:
            self._owner._call(gate.sent, (batch[0].topic, points))

    def _has_time(self, message):
        """Whether it is telemetry that tells its time: one of its own, or the one of capture."""
        return message.is_timed or self._needs_time(message)

    def _is_in_flight(self, packet_id):
        """Whether the id is still in use: since that packet left, ids have begun again."""
        for place in range(self._in_flight):  # a slice would take memory for each message
            if self._entries[place].packet_id == packet_id:
                return True
        return False

    def _needs_time(self, message):
        """Whether it is untimed telemetry that tells its time of capture."""
        if message.is_timed or not message.is_telemetry:
            return False
        is_alone = (
            self._stamp_mode != "always"
            and self._link.is_online()
            and not message.flags & _DUP
            and message.captured_ms == self._last_captured_ms  # no others were taken with it
            and ticks_diff(ticks_ms(), message.put_at) < _APART_MS
            and not self._is_too_close()
        )
        return not is_alone and self.knows_time()

    def _is_too_close(self):
        """Whether the server could give one time to the next reading and the one before it."""
        return self._is_bare_under_way() or ticks_diff(self._alone_at, ticks_ms()) > 0

    def _is_bare_under_way(self):
        return self._bare is not None and self._bare.is_queued

    def _next_batch(self, first):
        """The messages of the next packet: *first*, or if it tells its time more of that kind."""
        batch = [first]
        if self._failures or not self._has_time(first):
            return batch
        room = min(_BATCH_BYTES, self.limit()) - first.stamped_size()
        for message in self._entries[self._in_flight + 1 :]:
            room -= message.stamped_size()
            is_alike = message.is_telemetry and message.flags == first.flags
            if room <= 0 or not is_alike or not (message.is_timed or self.knows_time()):
                break
            batch.append(message)
        return batch

    def _stamp(self, batch):
        """The payload of readings that tell their times."""
        readings = []
        for message in batch:
            ts = self._epoch_ms + message.captured_ms
            for part in message.parts:
                readings.append(part if message.is_timed else _stamped(ts, part))
                ts += 1
        return _join(readings)

    def lasting_payload(self, message):
        """The payload for a companion to keep: with times of capture, if the clock is set."""
        if message.is_telemetry and not message.is_timed and self.knows_time():
            return self._stamp((message,))
        return message.payload()

    def knows_time(self):
        """Whether times of capture can be sent. Keeps what turns a monotonic time into a ``ts``.

        Three clocks: `_now_ms` counts milliseconds from some start and is never set; `time.time()`
        is set, at the start of the board or later, and has whole seconds only; the difference of
        both is kept. An example: at 500 ms a reading is taken, at 60,500 ms the clock is set to
        1,700,000,100 s. The difference is 1,700,000,039,500 ms, the reading's ts 1,700,000,040,000.
        The difference stays as it is unless the clock is set anew: it would change by up to a
        second each time, and readings must not move against each other.
        """
        now_s = time.time()
        if now_s >= _CLOCK_SET_S:
            epoch_ms = int(now_s * 1000) - _now_ms()
            if abs(epoch_ms - self._epoch_ms) > _CLOCK_STEP_MS:
                self._epoch_ms = epoch_ms
        return self._epoch_ms > 0 and self._stamp_mode != "never"

    # --- _Outbox: what the link reports --------------------------------------------------------

    def acknowledge(self, packet_id):
        """PUBACK: what left in that packet is delivered."""
        self._progress_at = ticks_ms()
        for message in self._entries[: self._in_flight]:
            if message.packet_id == packet_id:
                self._owner.stats["acknowledged"] += 1
                self.remove(message)
                if message is self._bare:  # the server may have given it its time just now
                    self._last_captured_ms = max(self._last_captured_ms, _now_ms() + 1)
                    now = ticks_ms()
                    is_fast = 0 <= ticks_diff(now, self._alone_at) < _FAST_MS
                    if is_fast or not self.knows_time():
                        self._alone_at = ticks_add(now, _APART_MS)
                self._owner._message_ended(message, None)

    def rewind(self, reason, was_cut):
        """The connection is lost: nothing is in flight any more, and all that was begins again.

        :param reason: why a connection was lost; None if there was none, or if it was closed
        :param was_cut: a packet had left only in part
        """
        for message in self._entries[: self._in_flight]:
            message.flags |= _DUP
        # The first loss with anything in flight is a mark against the front: it travels alone from
        # then on. A further one is a mark if the server closed after the front was sent in full, or
        # if there was no memory to send it until the connection timed out.
        is_marked = self._in_flight > 0
        if self._failures:
            is_tried = is_marked or isinstance(reason, TBTimeoutError)
            is_marked = is_tried and reason is not None and not was_cut
        if is_marked:
            self._failures += 1
        self._in_flight = 0
        self._bare = None
        if self._failures >= _MAX_FAILURES:
            self._drop(self._entries[0], "lost connection %d times" % self._failures)


# --- _Request: questions that wait -------------------------------------------------------------


class _Request:
    """A question that waits for its answer."""

    def __init__(self, message, callback, leading, is_call, is_for_all, timeout):
        self.message = message
        self.callback = callback  # or None
        self.leading = leading  # what the callback gets before result and exception
        self.is_call = is_call  # a client-side RPC: to do it twice may do harm
        self.is_for_all = is_for_all  # attributes
        self.timeout = timeout  # seconds
        self.since = ticks_ms()


# --- _Reply: RPCs that were answered -----------------------------------------------------------
# The server pushes RPCs that it takes for unanswered again at each subscribe. So the last ones are
# remembered with their replies: the same RPC is answered again, and not executed again. Its number
# alone says nothing: numbers begin again at 0 when the server restarts.


class _Reply:
    """An RPC that was executed, and its reply as soon as there is one."""

    def __init__(self, request_id, checksum):
        self.id = request_id
        self.checksum = checksum  # of the request
        self.message = None
        self.since = _now_ms()

    def is_delivered(self):
        """Whether the server has the reply: the same RPC does not come again."""
        message = self.message
        return message and message.packet_id and not message.is_queued


# --- SharedAttributes: the mirror --------------------------------------------------------------


def _json_size(values, key):
    return len(_json({key: values[key]}))


class SharedAttributes:
    """The last known shared attributes of the device, to be read like a dict.

    It keeps 256 keys at most, and as many bytes of JSON as `TBDeviceMqttClient.max_message_bytes`.
    What does not fit any more is counted in ``stats["not_kept"]`` and reported once; subscriptions
    still get it.
    """

    is_known: bool = False
    """True once the server has sent all shared attributes, after the first use of `shared`."""

    def __init__(self) -> None:
        self._values: Any = {}  # what the server said
        self._defaults: Any = {}  # for as long as it knows no value
        self._bytes = 0  # of the values with their keys, as JSON

    def __getitem__(self, key: str) -> Any:
        return self._values[key] if key in self._values else self._defaults[key]

    def __contains__(self, key: str) -> bool:
        return key in self._values or key in self._defaults

    def __iter__(self) -> Any:
        return iter(self._merged())

    def __len__(self) -> int:
        return len(self._merged())

    def get(self, key: str, default: Any = None) -> Any:
        """The value of *key*, or *default* as long as there is none."""
        return self[key] if key in self else default

    def setdefault(self, key: str, default: Any) -> Any:
        """Set the value of *key* for as long as the server has none; returns the current value."""
        self._defaults.setdefault(key, default)
        return self[key]

    def keys(self) -> Any:
        return self._merged().keys()

    def values(self) -> Any:
        return self._merged().values()

    def items(self) -> Any:
        return self._merged().items()

    def _merged(self):
        merged = dict(self._defaults)
        merged.update(self._values)
        return merged

    def _update(self, changed, deleted, limit):
        """Keep what the server sent, in *limit* bytes; returns how many keys did not fit."""
        lost = 0
        for key in list(changed) + deleted:
            if key in self._values:
                self._bytes -= _json_size(self._values, key)
                del self._values[key]
            if key not in changed:
                continue
            size = _json_size(changed, key)
            if len(self._values) < _MAX_SHARED and self._bytes + size <= limit:
                self._values[key] = changed[key]
                self._bytes += size
            else:
                lost += 1
        return lost

    def _compare(self, values):
        """Which of *values* differ from what is known, and which known keys are not among them."""
        changed: Any = {}
        for key in values:
            if self.get(key) != values[key]:
                changed[key] = values[key]
        return changed, [key for key in self._values if key not in values]


class _Watch:
    """A subscription to shared attributes."""

    def __init__(self, watch_id, key, callback):
        self.id = watch_id
        self.key = key  # None: all
        self.callback = callback


# --- _MqttClient: what any server needs --------------------------------------------------------
# An MQTT client. Messages are sent by way of the outbox, and handlers are called by way of the list
# of events. connect() starts the link, which keeps the connection up until disconnect().


def _print_error(error):
    """Show it as an uncaught exception is shown."""
    try:
        from traceback import print_exception
    except ImportError:  # MicroPython
        sys.print_exception(error)  # type: ignore[attr-defined]
        return
    try:
        print_exception(error)  # type: ignore[call-arg]
    except TypeError:  # CPython 3.9
        print_exception(type(error), error, getattr(error, "__traceback__", None))


class _MqttClient:
    """The part of `TBDeviceMqttClient` that knows nothing of ThingsBoard."""

    connect_timeout: float = 5
    """Seconds that TCP, and each step of TLS, may block at most in one attempt.

    DNS, AirLift (about 10 s) and WIZnet (about 30 s) have time limits of their own.
    """
    request_timeout: float = 10
    """Seconds after which a request without an answer fails with `TBTimeoutError`."""
    max_message_bytes: int = 16384
    """The longest payload; a longer one is thrown away when received, an error when sent.

    A received message whose topic is longer than about 1,000 bytes is thrown away, too. `shared`
    keeps as many bytes of JSON.
    """
    clean_session: bool = True
    """As in CONNECT. ThingsBoard keeps no session either way."""
    user_data: Any
    """Handed to the callbacks below as their second argument."""
    idle: Optional[Callable[[], Any]]
    """Called while `connect`, `wait_for_msg`, `flush`, `disconnect` and what sends to a full queue
    wait, for example to feed a watchdog."""
    on_connect: Optional[Callable[..., Any]] = None
    """``on_connect(client, user_data, flags, rc)``: CONNACK came, *rc* is its return code.

    0: online; else the server refused, see `last_error`, and the client tries again. *flags* is 0.
    """
    on_disconnect: Optional[Callable[..., Any]] = None
    """``on_disconnect(client, user_data, rc)``: 0 after `disconnect`, 1 if it was lost."""
    on_state: Optional[Callable[..., Any]] = None
    """``on_state(client, user_data, state, reason)``: each change of `state`, and why."""
    on_publish: Optional[Callable[..., Any]] = None
    """``on_publish(client, user_data, topic, message_id)``: acknowledged; of QoS 0: it has left."""
    on_drop: Optional[Callable[..., Any]] = None
    """``on_drop(client, user_data, topic, message_id, payload, reason)``: it won't be sent.

    If many are dropped between two polls, it is called for the first 64 + *queue_size* at most;
    ``stats["dropped"]`` counts all.
    """
    on_subscribe: Optional[Callable[..., Any]] = None
    """``on_subscribe(client, user_data, topic, granted_qos)``: for each filter of a SUBSCRIBE.

    After each connect again, and of attributes and RPC, too. 0x80: the server refused it.
    """
    message_flags: int
    """Inside a handler of `subscribe`: the flags of its message, MQTT 3.1.1 section 2.2.2.

    ``& 1``: retained; ``>> 1 & 3``: QoS; ``& 8``: sent again by the server (DUP).
    """
    state: str
    """``"stopped"``, ``"waiting"`` (for the next attempt), ``"connecting"``, ``"online"``."""
    connected: bool
    """True between the server's CONNACK and the moment the connection is known to be gone."""
    last_error: Optional[Exception]
    """The last exception of the connection, the server or a handler."""
    stats: "dict[str, int]"
    """Counters by name, such as ``"sent"`` and ``"dropped"``, since the client was made."""

    # What the subclass adds.
    _run_timers: Callable[..., Any]  # in each poll
    _session_began: Callable[..., Any]  # CONNACK came
    _session_ended: Callable[..., Any]  # the connection, or an attempt, is over
    _inbound_method: Callable[..., Any]  # the method for a message; LookupError: there is none
    _is_needed: Callable[..., Any]  # whether the subclass needs the subscription to a topic

    def __init__(
        self, settings, network, quality_of_service, queue_size, queue_bytes, stamp, logger
    ):
        if sys.implementation.name != "cpython":
            gc.collect()  # as after the imports
        self.state = _STOPPED
        self.connected = False
        self.message_flags = 0
        self.user_data = self.idle = self.last_error = None
        self.stats = {
            "connects": 0,  # attempts
            "sent": 0,  # packets; several readings may travel in one
            "resent": 0,
            "acknowledged": 0,  # messages
            "dropped": 0,
            "left_out": 0,  # keys, with strict=False
            "received": 0,
            "unheard": 0,  # thrown away, not acknowledged: too long without a poll
            "unexpected": 0,  # received, without a handler or malformed
            "oversize": 0,  # thrown away: longer than max_message_bytes, or no memory for it
            "not_kept": 0,  # shared attributes: more than `shared` holds
            "handler_errors": 0,
            "rpc_repeated": 0,  # the same RPC again, answered from memory
            "refused_subscriptions": 0,
        }
        self._events = []  # (handler, its arguments) in the order they came; None: a message
        self._max_events = _MAX_EVENTS + queue_size
        self._inbox_count = 0  # messages among the events
        self._is_delivering = False
        self._is_telling_drop = self._is_idling = False
        self._is_loss_told = False  # on the console, since the last connect
        self._thread = None  # the one that may use this client
        self._polled_at = self._moved_at = ticks_ms()  # the last poll; the last poll or `_move_on`
        self._logger = logger and logger.warning
        self._pollers = []  # of companions
        self._keepers = []  # companions with `keep`
        self._gates = []  # companions with `may_send`
        self._filters: Any = None  # MQTTMatcher: topic filter -> callback of subscribe()
        self._quality_of_service = quality_of_service
        self._link: Any = _Link(self, settings, *network)
        self._outbox = _Outbox(self._link, self, queue_size, queue_bytes, stamp, self._gates)

    # --- _MqttClient: connect and poll ---------------------------------------------------------

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
        self._check_thread()
        link = self._link
        link.start()
        if timeout == 0:
            return self.connected
        for _ in self._polls(timeout):
            if link.error:
                raise link.error
            if self.connected or self.state == _STOPPED:
                # These polls are not the program's own: it may be one that never polls.
                self._polled_at = ticks_add(ticks_ms(), -_UNATTENDED_MS)
                return self.connected
        raise TBTimeoutError("no %s in %g s" % ("CONNACK", timeout or self.request_timeout))

    def disconnect(self, timeout: float = 2) -> None:
        """Send the queued messages if there is time, then DISCONNECT, and close.

        :param timeout: seconds to wait for their acknowledgement, if online. 0: close at once

        Messages that are left stay queued; requests fail. A second call does no harm.
        """
        _check_number("timeout", timeout, 0, 86400)
        self._check_thread()
        if self.connected and timeout:
            self.flush(timeout)
        self._link.stop(_FAREWELL_MS if self.connected and timeout else 0)
        for _ in range(2):  # the handlers, then what these logged
            self._deliver(86400000)

    def __enter__(self) -> "TBDeviceMqttClient":
        self.connect()
        return self  # type: ignore[return-value]

    def __exit__(self, *args: Any) -> None:
        if args[0] is None and self.connected:
            self.flush(self.request_timeout)
        self.disconnect()

    def check_for_msg(self) -> int:
        """Do whatever is due (send, receive, reconnect, call handlers) and return at once.

        Call it often, at least several times a second. Only an attempt to connect takes longer
        than some milliseconds, see `connect_timeout`.

        :return: how many messages were handled
        :raises: nothing but the RuntimeError of a second thread; see `last_error`, `stats` and the
            callbacks. A message is acknowledged before its handler runs
        """
        self._check_thread()
        handled = 0
        self._polled_at = self._moved_at = ticks_ms()
        try:
            self._link.poll()
            if self._events or self._pollers:
                handled = self._deliver(_EVENTS_MS)
            self._run_timers()
        except MemoryError as error:  # the next poll goes on where this one stopped
            self.last_error = error
        if self._outbox.is_waiting():
            self._outbox.flush()
        return handled

    def _move_on(self):
        """Poll the link from a call that sends, since the program may never poll.

        It calls no handler, and connects only where the program has not polled for a while.
        """
        self._moved_at = ticks_ms()
        if self._inbox_count and self._is_unattended(2):
            self._complain("messages wait for their handlers: call check_for_msg() in your loop")
        try:
            self._link.poll(self._is_unattended())
        except MemoryError as error:
            self.last_error = error
        self._outbox.flush()

    def _check_thread(self):
        """Only one thread may use a client: there are no locks."""
        if self._thread != _thread_id():
            if self._thread is not None:
                raise RuntimeError(
                    "this client belongs to another thread: hand it data by a queue.Queue"
                )
            self._thread = _thread_id()

    def _is_unattended(self, times=1):
        return ticks_diff(ticks_ms(), self._polled_at) >= times * _UNATTENDED_MS

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
            is_done = not (self._outbox or self._link.is_sending())
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
            self._pause()

    def _pause(self):
        """Between two polls of a wait. What waits inside `idle` does without it."""
        if self.idle is not None and not self._is_idling:
            self._is_idling = True
            try:
                self.idle()
            finally:
                self._is_idling = False
        time.sleep(0.001)

    # --- _MqttClient: what the link reports ----------------------------------------------------

    def _link_moved(self, state, reason, was_cut):
        was_connected = self.connected
        self.connected = state == _ONLINE
        self.state = state
        if reason:
            self._link_error(reason)
        if self.connected:
            self._is_loss_told = False
            self._session_began()
            self._tell(self.on_connect, 0, 0)
        elif state == _CONNECTING:
            self._make_memory()
        else:
            if isinstance(reason, TBRefusedError):
                self._tell(self.on_connect, 0, reason.code)
            self._outbox.rewind(reason if was_connected else None, was_cut)
            self._session_ended(was_connected)
            if was_connected:
                self._tell(self.on_disconnect, 1 if reason else 0)
        self._tell(self.on_state, state, reason)

    def _make_memory(self):
        """Before an attempt: collect. As long as that is not enough, readings give way."""
        if sys.implementation.name == "cpython":
            return
        gc.collect()
        if self._link.lacks_memory():
            self._outbox.shrink()

    def _link_message(self, topic, payload, flags):
        self.stats["received"] += 1
        self._events.append((None, (topic, payload, flags)))
        self._inbox_count += 1

    def _link_has_room(self):
        return self._inbox_count < _MAX_MESSAGES

    def _link_is_held(self):
        """Whether nothing more is to be read: messages wait, and a poll will soon take them.

        Otherwise reading goes on, as acknowledgements may be behind the messages.
        """
        is_soon = not self._is_unattended() and self._outbox.has_room(1, 0)
        return is_soon and not self._link_has_room()

    def _link_acknowledged(self, packet_id):
        self._outbox.acknowledge(packet_id)

    def _link_subscribed(self, topic, code):
        self._tell(self.on_subscribe, topic, code)
        if code > 2:
            self.stats["refused_subscriptions"] += 1
            self._link_error(TBError("subscription refused: %s" % _shown(topic)))

    def _link_error(self, error):
        self.last_error = error
        self._log("%s", error)

    # --- _MqttClient: events -------------------------------------------------------------------
    # Handlers, the program's logger among them, run at the end of a poll, one at a time. There a
    # handler may call anything.

    def _tell(self, callback, *args):
        """Have `_deliver` call *callback*(client, user_data, *args*), if it is set."""
        if callback is not None:
            self._events.append((callback, (self, self.user_data) + args))

    def _complain(self, words):
        """Print a hint, once in each outage, and only if there is no logger."""
        if self._logger is None and not self._is_loss_told:
            self._is_loss_told = True
            print("tb_device_mqtt:", words)

    def _log(self, *message):
        """Have `_deliver` call the logger; without polls only for the first messages."""
        if self._logger and len(self._events) < self._max_events:
            self._events.append((self._logger, message))

    def _deliver(self, limit_ms):
        """Call the handlers, after *limit_ms* no further one, and the companions.

        From inside a handler it does nothing: the call of that one is still under way.
        """
        if self._is_delivering:
            return 0
        self._is_delivering = True
        handled = 0
        started = ticks_ms()
        try:
            for _ in range(len(self._events)):  # not those that come meanwhile
                if ticks_diff(ticks_ms(), started) >= limit_ms:
                    break
                handler, arguments = self._events[0]
                if handler is None and not self._outbox.has_place():
                    break  # it may be an RPC, whose reply needs a place
                self._events.pop(0)
                if handler is None:
                    self._inbox_count -= 1
                    self.message_flags = arguments[2]
                    self._dispatch(arguments[0], arguments[1])
                    handled += 1
                else:
                    self._call(handler, arguments)
            for poller in self._pollers:
                self._call(poller, ())
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
            self.last_error = error
            if self._logger is None:
                _print_error(error)
            elif handler is not self._logger:  # its own errors are not logged
                self._log("%s: %s", type(error).__name__, error)
            return error

    def _dispatch(self, topic, payload):
        """Hand a message to those who subscribed, and to whatever it is meant for."""
        callbacks = list(self._filters.iter_match(topic)) if self._filters else []
        for callback in callbacks:
            self._call(callback, (topic, payload))
        try:
            handle = self._inbound_method(topic, callbacks)
            if handle:
                handle(topic, payload)
        except Exception as error:  # no handler's: whatever a server sends, the poll goes on
            if not (callbacks and isinstance(error, LookupError)):
                self.stats["unexpected"] += 1
                # What a server says may be long, and may hold what a terminal takes for commands.
                self._log("message on %r ignored: %r", topic[:64], str(error)[:64])

    # --- _MqttClient: the queue ----------------------------------------------------------------

    @property
    def pending_messages_count(self) -> int:
        """Messages that the server has not acknowledged yet."""
        return len(self._outbox)

    def _qos(self, quality_of_service):
        """The QoS of a call, or the client's if it gives none."""
        if quality_of_service is None:
            return self._quality_of_service
        return _check_number("quality_of_service", quality_of_service, 0, 1, int)

    def _send(self, message):
        """Queue a message and send what can be sent; its id, which `on_publish` tells.

        A full queue is waited for as long as the server acknowledges. From inside a handler
        `check_for_msg` sends it a moment later: a board's pystack is too small for all these calls
        on top of those that led there.
        """
        self._check_thread()
        self._wait_for_room(message.size())
        self._outbox.put(message, self._is_telling_drop)
        for keeper in self._keepers:
            if message.is_queued:
                payload = self._outbox.lasting_payload(message)
                entry = (message.id, message.topic, payload, message.flags >> 1 & 1)
                self._call(keeper.keep, entry)
        if not self._is_delivering:
            if ticks_diff(ticks_ms(), self._moved_at) >= _MOVE_MS:
                self._move_on()
            self._outbox.flush()
        return message.id

    def _wait_for_room(self, size):
        """Wait for as long as the server acknowledges, if the queue is full."""
        if not self.connected and sys.implementation.name != "cpython":
            gc.collect()  # else the queued message stays in memory behind the garbage of its call
        while self.connected and not self._outbox.has_room(1, size):
            self._move_on()
            if not self._outbox.is_moving():
                return
            self._pause()

    def why_offline(self) -> str:
        """A hint to add to the reason of a drop, if the program has not called `connect`."""
        return ": connect() was not called" if self.state == _STOPPED else ""

    def _message_ended(self, message, reason):
        """What the outbox reports: delivered, or with a *reason* dropped."""
        self._forget(message)
        if len(self._events) >= self._max_events:
            return  # nobody polls
        if reason is None:
            self._tell(self.on_publish, message.topic, message.id)
        elif (self.on_drop or self._logger) and not self._is_telling_drop:
            self._events.append((self._tell_drop, (message.id, message, reason)))
        if reason is not None and self._logger is None:
            self._complain("message to %s dropped: %s" % (message.topic, reason))

    def _forget(self, message):
        """Tell the keepers that *message* has ended."""
        for keeper in self._keepers:
            self._call(keeper.forget, (message.id,))

    def _tell_drop(self, message_id, message, reason):
        """Call `on_drop` and the logger; a request may be in the queue again, under another id.

        If what they send finds no room, it is itself dropped, counted but not reported: otherwise
        each report could cause the next.
        """
        self._is_telling_drop = True
        try:
            if self.on_drop is not None:
                arguments = (message.topic, message_id, message.payload(), reason)
                self._call(self.on_drop, (self, self.user_data) + arguments)
            if self._logger:
                self._call(self._logger, ("message to %s dropped: %s", message.topic, reason))
        finally:
            self._is_telling_drop = False

    # --- _MqttClient: companions ---------------------------------------------------------------

    def attach(self, companion: Any) -> None:
        """Let *companion* take part. Each of these methods is called if it has it:

        * ``poll()``: in each `check_for_msg`, behind the handlers and like one of them: it may
          send, but not wait
        * ``may_send(topic, data_points)``: whether a message may leave now. As long as one
          companion returns False, this message and those behind it wait. *data_points* are the
          keys of telemetry and attributes, 0 of anything else
        * ``sent(topic, data_points)``: it has left, for the first time or again
        * ``keep(message_id, topic, payload, quality_of_service)``: a message entered the queue.
          In *payload* readings have their time of capture, if the board's clock is set
        * ``forget(message_id)``: it ended, delivered or dropped. The id may be unknown
        * ``kept()``: called now; returns ``[(topic, payload, quality_of_service), ...]``, what it
          kept before. They enter the queue, and `keep` is called for them

        ``may_send`` goes with ``sent``, and ``keep`` with ``forget`` and ``kept``. These five must
        not send. Messages queued before are not kept: attach first, then send.

        What a method raises is counted in ``stats["handler_errors"]``, and the message goes its
        way as if the companion were not there; but what ``kept`` raises is raised here, and
        nothing was attached. An entry of it that can't be sent is counted, and left out.
        """
        kept = companion.kept() if hasattr(companion, "keep") else None
        if hasattr(companion, "poll"):
            self._pollers.append(companion.poll)
        if hasattr(companion, "may_send"):
            self._gates.append(companion)
        if kept is not None:
            self._keepers.append(companion)
            for entry in kept:
                self._call(self.publish, tuple(entry))

    # --- _MqttClient: plain MQTT ---------------------------------------------------------------

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

        ThingsBoard acknowledges and drops messages to topics that it does not know.
        """
        flags = self._qos(quality_of_service) << 1 | (_RETAIN if retain else 0)
        _check_topic(topic)
        return self._send(_Message(topic, [_check_payload(payload)], flags))

    def subscribe(self, topic: Any, callback: Any, quality_of_service: Optional[int] = None) -> int:
        """Subscribe to any topic filter, now and after each connect.

        :param topic: with ``+`` and ``#`` if you like; or ``(topic, quality_of_service)``; or a
            list of those, for one SUBSCRIBE packet. ThingsBoard refuses all but its own
        :param callback: ``callback(topic, payload)``; *payload* is bytes. QoS, retain and DUP of
            the message: see `message_flags`
        :return: message id; `on_subscribe` tells what was granted
        """
        _check_callback(callback)
        topics: Any = {}
        for item in topic if topic and isinstance(topic, list) else (topic,):
            item = item if isinstance(item, tuple) else (item,)
            topic, qos = (item + (quality_of_service, None))[:2]
            _check_topic(topic, True)
            topics[topic] = self._qos(qos)
        if self._filters is None:
            self._filters = MQTTMatcher()
        for topic in topics:
            self._filters[topic] = callback
        return self._link.subscribe(topics)

    def unsubscribe(self, topic: Any) -> int:
        """Undo `subscribe`: a topic filter, or a list of them. An unknown one is no error.

        :return: message id
        """
        topics = topic if topic and isinstance(topic, list) else (topic,)
        for item in topics:
            _check_topic(item, True)
        known = []
        for item in topics:
            try:
                del self._filters[item]
                known.append(item)
            except (KeyError, TypeError):
                pass  # nobody has subscribed
        return self._unlisten(known)

    def _unlisten(self, topics):
        """Unsubscribe from the topics that have no callback and that the client does not need."""
        gone = []
        for topic in topics:
            try:
                self._filters[topic]
            except (KeyError, TypeError):
                if not self._is_needed(topic):
                    gone.append(topic)
        return self._link.unsubscribe(gone)

    def will_set(
        self, topic: str, payload: Any, quality_of_service: int = 0, retain: bool = False
    ) -> None:
        """The last will, to be set before `connect`. ThingsBoard ignores it.

        :raises MMQTTException: too late, the client connects or is online
        """
        _check_topic(topic)
        if self.state in (_CONNECTING, _ONLINE):
            raise MMQTTException("after connect()")
        try:  # MiniMQTT before 7.10.7 takes no bytes
            payload = str(_check_payload(payload), "utf-8")
        except UnicodeError:
            raise ValueError(_must_be("payload", "a string", type(payload))) from None
        _check_text("payload", payload)
        self._link.mqtt.will_set(topic, payload, qos=self._qos(quality_of_service), retain=retain)


# --- TBDeviceMqttClient: ThingsBoard's topics and JSON -----------------------------------------


def _check_host(host):
    if not host:
        raise ValueError("host is missing (%r): is THINGSBOARD_HOST set?" % (host,))
    _check_name("host", host)
    if "/" in host:
        raise ValueError(_must_be("host", "a name or address without mqtt:// or a path", host))


def _credential(access_token, username, password):
    """Which kind of credentials these are, or None; an error if they are of both, or empty."""
    _check_text("access_token", access_token)
    _check_text("username", username)
    _check_text("password", password)
    is_empty = "" in (access_token, username)
    if is_empty or (username and access_token) or (password and not username):
        raise ValueError("either access_token (THINGSBOARD_TOKEN) or username, not empty")
    return "access token" if access_token else username and "username"


class TBDeviceMqttClient(_MqttClient):
    """A device of a ThingsBoard server.

    Call `disconnect` before you drop a client. Otherwise its connection stays open, and the server
    shows the device online, until the garbage collector finds its socket. After ``os.fork()``
    parent and child would share one connection: make the client in the child.

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
    :param rejoin: what brings a lost network back. Defaults to None: a board's own Wi-Fi that has
        been down for 5 s joins CIRCUITPY_WIFI_SSID again, with CIRCUITPY_WIFI_PASSWORD. A function
        is called instead, also for AirLift, WIZnet or a modem; without a *radio*, after each
        attempt that did not reach the server. False: never rejoin. Joining blocks: `on_state`
        announces it. It is repeated with growing pauses; what it raises is in `last_error`
    :param int keep_alive: seconds; a dead connection is noticed within that time. 0: never
    :param int queue_size: messages that are kept while they can't be sent. When full, the oldest
        telemetry is dropped, see `on_drop`
    :param int queue_bytes: the same in bytes
    :param bool strict: what to do with a value that ThingsBoard does not take (None, NaN, ...).
        True: raise an error that names the key, nothing is sent. False: leave out the key alone
        and count it in ``stats["left_out"]``
    :param bool compact: ThingsBoard's short topics, which save 19 bytes of each telemetry message
    :param str stamp: which readings without ``ts`` tell their time of capture, if the board's clock
        is set. ``"late"``: all but those that leave alone and at once, which get the server's.
        ``"always"``: for a clock that can be trusted; a reading whose acknowledgement was lost is
        then stored once, not at two times. ``"never"``
    :param logger: an object with a method ``warning``. Defaults to none: errors of your handlers
        and the first loss of an outage are shown on the console. False: nothing is
    :raises ValueError, TypeError, AttributeError: an argument that can't be right; the text names
        it
    """

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
        rejoin: Any = None,
        keep_alive: int = 60,
        queue_size: int = 64,
        queue_bytes: int = 8192,
        strict: bool = True,
        compact: bool = False,
        stamp: str = "late",
        logger: Any = None,
    ) -> None:
        _check_text("client_id", client_id)
        if not client_id:  # of two with one id a broker throws out the older
            unique = os.urandom(8) if hasattr(os, "urandom") else str(random()).encode()
            if sys.implementation.name == "circuitpython":
                from microcontroller import cpu

                unique = cpu.uid
            client_id = "tb-%x" % int.from_bytes(unique, "big")
        _check_number("queue_size", queue_size, 1, _SUBSCRIBE_IDS >> 1)
        _check_number("queue_bytes", queue_bytes, 1, 1 << 29)
        if quality_of_service is None:
            quality_of_service = 1
        _check_number("quality_of_service", quality_of_service, 0, 1, int)
        if stamp not in ("late", "always", "never"):
            raise ValueError("stamp must be 'late', 'always' or 'never'")
        settings = {
            "client_id": client_id,
            "keep_alive": int(_check_number("keep_alive", keep_alive, 0, 65534)),
        }
        self._context = None
        if socket_pool is None:
            socket_pool, self._context, radio = _network(network_adapter, radio)
        network = (socket_pool, radio, _way_to_rejoin(rejoin, radio))
        super().__init__(
            settings, network, quality_of_service, queue_size, queue_bytes, stamp, logger
        )
        self._server: Any = {"host": host, "port": port, "tls": tls}
        self.set_connection(access_token=access_token, username=username, password=password)
        self._strict = strict
        self._topics = _COMPACT_TOPICS.split() if compact else _TOPICS
        self._requests = {}  # topic of the answer -> _Request
        self._watches: Any = []  # attribute subscriptions
        self._shared: Any = None  # SharedAttributes, from the first use of `shared` on
        self._rpc_methods = {}  # name -> function; None -> the handler of all others
        self._replies = []  # _Reply, oldest first
        self._may_repeat = False  # the server may send RPCs again that came before this connection

    @classmethod
    def from_settings(cls, **options: Any) -> "TBDeviceMqttClient":
        """A client with the settings of settings.toml (on a computer: the environment).

        THINGSBOARD_HOST, THINGSBOARD_PORT, THINGSBOARD_TOKEN and THINGSBOARD_TLS (1, or the path
        of a CA file). *options*: further arguments of the constructor, which win.

        :raises ValueError: there is no THINGSBOARD_HOST
        """
        for name, setting in (
            ("host", "THINGSBOARD_HOST"),
            ("port", "THINGSBOARD_PORT"),
            ("access_token", "THINGSBOARD_TOKEN"),
            ("tls", "THINGSBOARD_TLS"),
        ):
            value = os.getenv(setting)
            if value is not None:
                options.setdefault(name, str(value))  # in settings.toml it may be a number
        if "host" not in options:
            raise ValueError(
                "THINGSBOARD_HOST is not set in settings.toml (on a computer: in the environment)"
            )
        if options.get("tls") in ("0", "1", "true"):
            options["tls"] = options["tls"] != "0"
        return cls(**options)

    def set_connection(self, **changes: Any) -> None:
        """Another server or other credentials, from the next attempt to connect on.

        :param changes: *host*, *port*, *access_token*, *username*, *password*, *tls*: by name, as
            in the constructor. What is not given stays; a new *access_token* or *username* takes
            the place of all credentials
        :raises ValueError, TypeError: as the constructor; nothing is changed

        What is queued goes to the new server. To change over at once: `disconnect`, `connect`.
        """
        server = dict(self._server)
        if "access_token" in changes or "username" in changes:
            server.update(access_token=None, username=None, password=None)
        server.update(changes)
        self._set_server(**server)
        self._server = server

    def _set_server(self, host, port, access_token, username, password, tls):
        """Check where to connect and as whom, and have the link do so."""
        port = _as_int((8883 if tls else 1883) if port is None else port)
        _check_host(host)
        credential = _credential(access_token, username, password)
        if not credential:
            credential = "client certificate" if tls else "client_id"
        self._link.set_connection(
            host,
            _check_number("port", port, 1, 65535, int),
            access_token or username,
            password,
            _tls_context(tls, self._context),
            credential,
        )

    # --- client: what it adds to the poll ------------------------------------------------------

    def _run_timers(self):
        # After the answers: those that waited through a long pause or handler came in time.
        if self._requests and not self._inbox_count:
            self._expire_request()

    def _session_began(self):
        if not self._inbox_count:  # else what waits may be an RPC that came again
            self._renew_replies()
        self._may_repeat = self._inbox_count > 0 or len(self._replies) > 0
        self._tell(self._read_shared)

    def _session_ended(self, was_connected):
        if self.state == _STOPPED:
            for topic in list(self._requests):
                self._fail(topic, TBError("disconnected before the answer"))
        else:
            self._ask_again()
        if was_connected:
            self._forget_delivered_replies()

    def _inbound_method(self, topic, callbacks):
        """The method that takes messages of a topic.

        None if the program subscribed to RPC requests itself, and so answers itself.

        :raises LookupError: ThingsBoard has no such topic
        """
        for place, method in _INBOUND:
            if topic.startswith(self._topics[place]):
                if place == _RPC_REQUEST and callbacks and not self._rpc_methods:
                    return None
                return getattr(self, method)
        raise LookupError("unexpected")

    def _listen(self, place):
        """Subscribe to a topic of ThingsBoard's."""
        self._link.subscribe({self._filter(place): 1})

    def _filter(self, place):
        topic = self._topics[place]
        return topic + "+" if topic[-1] == "/" else topic

    def _is_needed(self, topic_filter):
        if topic_filter == self._filter(_ATTRIBUTES):
            return self._watches or self._shared is not None
        return topic_filter == self._filter(_RPC_REQUEST) and self._rpc_methods

    # --- client: requests ----------------------------------------------------------------------
    # A question goes out through the outbox; its answer comes to a topic with the same number. The
    # answer, the deadline or the loss of the connection ends it, whichever comes first. An answer
    # that comes later finds no request.

    def _ask(self, place, body, callback, timeout):
        """Queue a question to the topic at *place*; the answer comes to the one at *place* + 1."""
        if callback is not None:
            _check_callback(callback)
        if len(self._requests) >= _MAX_REQUESTS:
            raise TBError("%d requests wait already" % _MAX_REQUESTS)
        if timeout is None:
            timeout = self.request_timeout
        _check_number("timeout", timeout, 0, 86400)
        self._listen(place + 1)
        number = self._outbox.new_id()
        message = _Message(self._topics[place] + str(number), [_json(body)])
        is_call = place == _RPC_REQUEST
        leading = (number,) if is_call else ()
        self._send(message)
        self._requests[self._topics[place + 1] + str(number)] = _Request(
            message, callback, leading, is_call, not body, timeout
        )
        return number

    def _on_answer(self, topic, payload):
        request = self._requests[topic]  # a KeyError: nobody waits for it
        result = loads(payload)
        if self._shared is not None and not request.is_call:
            values = result.get("shared", {})
            changed, missing = self._shared._compare(values)
            if request.is_for_all:
                self._shared.is_known = True
            self._attributes_changed(values, changed, missing if request.is_for_all else [])
        self._requests.pop(topic, None)
        if request.callback is not None:
            self._call(request.callback, request.leading + (result, None))

    def _expire_request(self):
        """End one whose deadline is over."""
        for topic in self._requests:
            request = self._requests[topic]
            if ticks_diff(ticks_ms(), request.since) >= request.timeout * 1000:
                self._fail(topic, TBTimeoutError("no %s in %g s" % (topic, request.timeout)))
                return

    def _ask_again(self):
        """Deal with the requests that were sent before the connection was lost.

        Attributes are requested again, which does no harm. A call may have been executed, so it
        fails, unless its answer may be among the messages that wait for their handlers.
        """
        for topic in list(self._requests):
            request = self._requests[topic]
            if request.message.is_queued:
                continue  # it leaves again with all that is there
            if not request.is_call:
                self._outbox.put(request.message)
            elif not self._inbox_count:
                self._fail(topic, TBError("disconnected before the answer"))

    def _fail(self, topic, error):
        """End a request without an answer."""
        request = self._requests[topic]
        callback = request.callback
        if callback is None and request.is_for_all:
            callback = self._read_shared
        if callback:
            self._events.append((callback, request.leading + (None, error)))
        del self._requests[topic]
        if self._outbox.is_waiting(request.message):
            self._outbox.remove(request.message)  # nobody waits for the answer any more
            self._forget(request.message)

    # --- client: telemetry ---------------------------------------------------------------------

    def send_telemetry(self, data: Any, quality_of_service: Optional[int] = None) -> Optional[int]:
        """Send readings.

        :param data: ``{key: value}``; a list of those; ``{"ts": ms, "values": {key: value}}``
            with the time in milliseconds since 1970; a list of those. A reading without time that
            leaves alone and at once gets the server's, any other its own time of capture, see
            *stamp*. Of two values of one key at one time the server keeps the last
        :param int quality_of_service: 0 or 1. Defaults to the client's
        :return: message id, the last one if it took several; None if nothing was left to send
        :raises TypeError: a key or a value of a type that can't be sent
        :raises ValueError: NaN, infinity, a number beyond 64 bits, a key like markup, a ``ts`` that
            is not in milliseconds, an empty dict or list, a value above the size limit

        A numeric string such as "007" or "1.10" becomes a number on the server. Source: MQTT
        Device API, "Telemetry upload API"; server: JsonConverter.java.
        """
        flags = self._qos(quality_of_service) << 1
        outbox = self._outbox
        topic = self._topics[_TELEMETRY]
        packs = isinstance(data, (list, tuple)) and outbox.knows_time()
        messages = _telemetry(data, topic, flags, outbox.limit(), packs, self._leave_out)
        if not self.connected:
            self._outbox.check_room(messages)
        message_id = None
        for message in messages:
            message_id = self._send(message)
        return message_id

    def _leave_out(self, error):
        """A key can't be sent: raise the error, or with ``strict=False`` do without the key."""
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
        flags = self._qos(quality_of_service) << 1
        message_id = None
        for text in _objects("data", data, self._outbox.limit(), self._leave_out):
            message_id = self._send(_Message(self._topics[_ATTRIBUTES], [text], flags))
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
                _check_name("key", key)
                if "," in key:  # which separates them
                    raise ValueError(_must_be("key", "without a comma", key))
            if keys:
                body[name] = ",".join(keys)
        return self._ask(_ATTRIBUTES_REQUEST, body, callback, timeout)

    def subscribe_to_attribute(self, key: Optional[str], callback: Any) -> int:
        """Have *callback* called when the shared attribute *key* changes or is deleted.

        :param callback: ``callback(result, *args)``; *result* is what the server pushed: all keys
            that changed together, or ``{"deleted": [key, ...]}``
        :return: id for `unsubscribe_from_attribute`

        ThingsBoard does not push changes made while offline. With `shared` in use, *callback* gets
        them after the next connect.
        """
        if key is not None:
            _check_name("key", key)
        _check_callback(callback)
        watch = _Watch(self._outbox.new_id(), key, callback)
        self._watches.append(watch)
        self._listen(_ATTRIBUTES)
        return watch.id

    def subscribe_to_all_attributes(self, callback: Any) -> int:
        """The same for every shared attribute."""
        return self.subscribe_to_attribute(None, callback)

    def unsubscribe_from_attribute(self, subscription_id: Any) -> None:
        """End that subscription; ``"*"``: all of them. An unknown id is ignored."""
        for watch in list(self._watches):
            if subscription_id in ("*", watch.id):
                self._watches.remove(watch)
        self._unlisten((self._filter(_ATTRIBUTES),))

    def clean_device_sub_dict(self) -> None:
        """Forget all attribute subscriptions."""
        self.unsubscribe_from_attribute("*")

    @property
    def shared(self) -> SharedAttributes:
        """The last known shared attributes: ``client.shared["interval"]``.

        From its first use on it is read again after each connect, and what differs reaches the
        attribute subscriptions as if it had been pushed. A default, for as long as the server
        knows no value: ``client.shared.setdefault("interval", 10)``. It is empty until the first
        answer has come: use ``client.shared.get("interval")``, or `wait_for_shared`.
        """
        if self._shared is None:
            self._shared = SharedAttributes()
            self._listen(_ATTRIBUTES)
            self._listen(_ATTRIBUTES_RESPONSE)
            self._tell(self._read_shared)
        return self._shared

    def wait_for_shared(self, timeout: float = 10) -> bool:
        """Poll until the first values of `shared` have come; False after *timeout* seconds."""
        shared = self.shared
        for _ in self._polls(timeout):
            if shared.is_known:
                break
        return shared.is_known

    def _read_shared(self, *_):
        """Ask for all attributes, for those who use `shared`."""
        if self._shared is None or not self.connected:
            return
        try:
            for request in self._requests.values():
                if request.callback is None and request.is_for_all:
                    return  # asked already, and asked again until the answer comes
            self.request_attributes(timeout=_SHARED_TIMEOUT_S)
        except (MemoryError, TBError):  # too many requests wait
            self._tell(self._read_shared)

    def _on_attributes(self, topic, payload):
        if topic != self._topics[_ATTRIBUTES]:
            raise LookupError("unexpected")
        data = loads(payload)
        deleted = data.get("deleted")
        if isinstance(deleted, list) and len(data) == 1:
            # What is not a name is skipped, and reported at the end.
            names = []
            for key in deleted:
                if key and isinstance(key, str):
                    names.append(key)
            self._attributes_changed({}, {}, names)
            if len(names) < len(deleted):
                raise TypeError(_must_be("key", "a string", deleted))
        else:  # values; one of them may be named "deleted"
            self._attributes_changed(data, data, [])

    def _attributes_changed(self, values, changed, deleted):
        """Keep *values* in `shared`, if that is used, and tell the subscriptions what *changed*."""
        if self._shared is not None:
            lost = self._shared._update(values, deleted, self.max_message_bytes)
            if lost and not self.stats["not_kept"]:
                self._link_error(TBError("shared is full: %d attributes are not kept" % lost))
            self.stats["not_kept"] += lost
        if changed:
            self._tell_watches(changed, changed)
        if deleted:
            self._tell_watches(deleted, {"deleted": deleted})

    def _tell_watches(self, keys, data):
        called = []  # each callback once
        for watch in list(self._watches):
            # A callback may unsubscribe another.
            is_meant = (watch.key is None or watch.key in keys) and watch in self._watches
            if is_meant and watch.callback not in called:
                called.append(watch.callback)
                self._call(watch.callback, (data, None))

    # --- client: rpc ---------------------------------------------------------------------------
    # Server-side RPC: the server calls, we reply under the same number. Client-side RPC: we call,
    # the server's rule chain replies.

    def set_server_side_rpc_request_handler(self, handler: Any) -> None:
        """Have *handler* called for each RPC that no `rpc` method takes.

        :param handler: ``handler(request_id, request_body)`` with an int and
            ``{"method": ..., "params": ...}``. What it returns is the reply; if it returns None,
            it has sent one with `send_rpc_reply`, or will. None: no handler
        """
        if handler is None:
            self._rpc_methods.pop(None, None)
            self._unlisten((self._filter(_RPC_REQUEST),))
        else:
            _check_callback(handler, "handler")
            self._rpc_methods[None] = handler
            self._listen(_RPC_REQUEST)

    def rpc(self, method: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: the function answers RPCs of that name.

        It gets *params*; what it returns is the reply. If it raises, the reply is
        ``{"error": "KeyError: 'x'"}``; likewise for a method without a handler.
        """
        _check_name("method", method)
        self._listen(_RPC_REQUEST)

        def register(function):
            _check_callback(function, "function")
            self._rpc_methods[method] = function
            return function

        return register

    def _on_rpc_request(self, topic, payload):
        request_id = topic[len(self._topics[_RPC_REQUEST]) :]
        _check_size("request id", len(request_id), 10)  # of ThingsBoard's 31 bits
        if not request_id.encode().isdigit():  # of a str digits of other alphabets, too
            raise ValueError("request id")
        request_id = int(request_id)
        request = loads(payload)  # first: without memory for it, it has to come again
        method = request.get("method")  # "" is possible from REST
        if not isinstance(method, str):
            raise TypeError(_must_be("method", "a string", method))
        reply = self._remember_rpc(request_id, crc32(payload))
        if reply is None:
            return
        if method in self._rpc_methods:
            result = self._call(self._rpc_methods[method], (request.get("params"),))
        elif None in self._rpc_methods:
            result = self._call(self._rpc_methods[None], (request_id, request))
            if result is None:
                return  # it sends its own reply
        else:
            result = LookupError("unknown method: %s" % method)
        if reply.message:
            return  # the handler has replied already
        if not isinstance(result, Exception):
            result = self._call(self.send_rpc_reply, (request_id, result))
        if isinstance(result, Exception):  # of the handler, or what it returned can't be sent
            text = ("%s: %s" % (type(result).__name__, result)).rstrip(": ")
            # As JSON a character takes 12 bytes at most.
            self.send_rpc_reply(request_id, {"error": text[: self._outbox.limit() // 16]})

    def _remember_rpc(self, request_id, checksum):
        """The `_Reply` of a new RPC.

        None if this very RPC was executed before; its reply, if known, is sent again.
        """
        self._forget_old_replies()
        for reply in self._replies:
            if reply.id == request_id and reply.checksum == checksum:
                self.stats["rpc_repeated"] += 1
                if reply.message and not reply.message.is_queued:
                    self._outbox.put(reply.message)
                return None
        self._forget_delivered_replies()
        new = _Reply(request_id, checksum)
        self._replies.append(new)
        # So many stay in any case, and as many more as replies may wait in the outbox.
        del self._replies[: -2 * _MAX_MESSAGES - len(self._outbox)]
        return new

    def _forget_old_replies(self):
        """Forget what came long ago. While a reply waits to be sent, no time passes for it."""
        for reply in list(self._replies):
            if reply.message and reply.message.is_queued:
                reply.since = _now_ms()
            elif _now_ms() - reply.since >= _RPC_MEMORY_MS:
                self._replies.remove(reply)

    def _forget_delivered_replies(self):
        """Forget the oldest replies that the server has; some stay.

        All stay as long as the RPC may be on its way again: pushed after a reconnect, before the
        reply was there.
        """
        self._forget_old_replies()
        for reply in list(self._replies):
            if self._may_repeat or len(self._replies) <= _RPC_MEMORY:
                return
            if reply.is_delivered():
                self._replies.remove(reply)

    def _renew_replies(self):
        """A new connection: what was delivered does not come again, the rest may, however late."""
        for reply in list(self._replies):
            if reply.is_delivered():
                self._replies.remove(reply)
            else:
                reply.since = _now_ms()

    def send_rpc_reply(self, request_id: Union[int, str], response: Any) -> int:
        """Answer a server-side RPC.

        :param request_id: as the handler got it
        :param response: any value that JSON has
        :return: message id
        """
        request_id = _check_number("request_id", _as_int(request_id), 0, 1e12, int)
        payload = _json(_check_value("response", response, 1))
        _check_size("response", len(payload), self._outbox.limit())
        message = _Message(self._topics[_RPC_RESPONSE] + str(request_id), [payload])
        for reply in self._replies:
            if reply.id == request_id:
                reply.message = message
        return self._send(message)

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
        return self._send(_Message(_CLAIM, [_json(body)]))

    claim = claim_device


gc.collect()  # what this import left
