# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What ThingsBoard makes of the payloads that a device publishes: pure functions, no I/O.

The rules are those of ThingsBoard 4.x: `JsonConverter`, `JsonMqttAdaptor`, with
``JSON_TYPE_CAST_ENABLED=true``, which is the default. A value is stored as bool, int (LONG),
float (DOUBLE), str (STRING), or, for JSON, as the dict or list that it is.
"""

import re
from decimal import Decimal, InvalidOperation
from json import dumps

from . import gson

_INT64 = range(-(2**63), 2**63)
_INT32 = range(-(2**31), 2**31)
_MAX_DECIMALS = 16  # of a DOUBLE; more become a STRING
_MAX_PLAIN_DIGITS = 1000  # 1E999999999 would fill the memory when it is written out
_MAX_KEY_LENGTH = 255

# What commons-lang3's NumberUtils.isParsable accepts: "007", ".5" and "1.10", not "5." or "1e5".
_PARSABLE = re.compile(r"-?[0-9]*\.?[0-9]+")
_JAVA_INTEGER = re.compile(r"[+-]?[0-9]+")
# NoXssValidator: a key must hold neither markup nor a template. A "<" begins markup where an HTML
# parser takes it for a tag: before a letter, so that "a<b" is lost and "PM<2.5" is stored. A
# template is "{{" with "}}" somewhere behind it. Both seen on a running server; "</" and "<!" are
# taken for markup without having been tried there.
_LOOKS_LIKE_MARKUP = re.compile(r"<[a-zA-Z/!]|\{\{.*\}\}", re.DOTALL)

DEFAULT_CLAIM_DURATION_MS = 86400000


class InvalidPayload(ValueError):
    """ThingsBoard answers a payload like this by closing the connection, without PUBACK."""


class Uncaught(Exception):
    """The server code throws something that it does not catch; this closes the connection too."""


def parse(payload):
    """Parse as ThingsBoard does, with lenient Gson; an empty payload is None.

    :raises InvalidPayload: not even lenient JSON
    """
    try:
        return gson.parse(payload)
    except ValueError as error:
        raise InvalidPayload(str(error)) from error


def parse_object(payload):
    """Parse a payload that has to be a JSON object."""
    value = parse(payload)
    if not isinstance(value, dict):
        raise InvalidPayload("not a JSON object")
    return value


# --- telemetry and attributes ---


def telemetry_rows(payload, now_ms):
    """Take telemetry apart into ``[(ts_ms, {key: value}), ...]``.

    An object without anything to store gives a row with an empty dict, ``[]`` gives no row.

    :raises InvalidPayload: neither an object nor a list of objects
    :raises Uncaught: a ``ts`` that is no number
    """
    value = parse(payload)
    entries = value if isinstance(value, list) else [value]
    return [_telemetry_row(entry, now_ms) for entry in entries]


def _telemetry_row(entry, now_ms):
    if not isinstance(entry, dict):
        raise InvalidPayload("telemetry is a JSON object or a list of them")
    # One of the two alone is a key like any other.
    if "ts" in entry and "values" in entry:
        if not isinstance(entry["values"], dict):
            raise InvalidPayload("values is not an object")
        return _as_long(entry["ts"]), stored_values(entry["values"])
    return now_ms, stored_values(entry)


def stored_values(values):
    """Convert all values of a dict to what ThingsBoard stores; nulls are left out."""
    return {key: stored_value(value) for key, value in values.items() if value is not None}


def stored_value(value):
    """Convert one parsed JSON value, which is not None, to what ThingsBoard stores."""
    kind = type(value)
    if kind is str and _PARSABLE.fullmatch(value):
        value = _number_or_text(value)
    elif kind is gson.NumberLiteral:
        value = _number_or_text(value.text)
    elif kind is int and value not in _INT64:
        value = str(value)
    # The default rule chain writes the message out and parses it again, so that 12345678.0
    # becomes 1.2345678E7 and then, having an exponent, a LONG.
    if type(value) is float and not _is_plain_in_java(value):
        value = _number_or_text(java_double(value))
    return value


def database_values(values):
    """Convert a dict of stored values to what the database has of it, seen on a running server.

    PostgreSQL takes no U+0000 in a text, so ThingsBoard takes it out before. In JSON the null
    members of objects are left out, as Gson writes them; null in a list stays.
    """
    return {key: _database_value(value) for key, value in values.items()}


def _database_value(value):
    return value.replace("\0", "") if isinstance(value, str) else _without_nulls(value)


def _without_nulls(value):
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _number_or_text(text):
    """Choose LONG, DOUBLE or STRING (JsonConverter.buildNumericKeyValueProto)."""
    number = _exact_number(text)
    has_point_only = "." in text and "e" not in text and "E" not in text
    if number == number.to_integral_value() and not has_point_only:
        return int(number) if int(number) in _INT64 else format(number, "f")
    if -number.as_tuple().exponent > _MAX_DECIMALS:
        return format(number, "f")
    return float(text)


def _exact_number(text):
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise InvalidPayload("the number %.40s" % text) from error
    if abs(number.adjusted()) + len(number.as_tuple().digits) > _MAX_PLAIN_DIGITS:
        raise InvalidPayload("the number %.40s" % text)
    return number


def has_valid_keys(values):
    """Whether the rule engine, which looks after the PUBACK, would store these keys.

    One bad key loses all of them (KvUtils).
    """
    return all(
        key.strip() and len(key) <= _MAX_KEY_LENGTH and not _LOOKS_LIKE_MARKUP.search(key)
        for key in values
    )


# --- requests ---


def request_id(text):
    """Read the id at the end of a topic, as Java's `Integer.parseInt` does.

    :raises InvalidPayload: no signed 32-bit integer
    """
    if not _JAVA_INTEGER.fullmatch(text) or len(text) > 40 or int(text) not in _INT32:
        raise InvalidPayload("the request id %.40s" % text)
    return int(text)


def attribute_request_keys(payload):
    """Read an attribute request: ``(client_keys, shared_keys)``, two lists of names.

    Two empty lists ask for everything. An empty name among them breaks the request inside the
    server: it is acknowledged and never answered.
    """
    request = parse_object(payload)
    return _keys(request, "clientKeys"), _keys(request, "sharedKeys")


def _keys(request, member):
    if member not in request:
        return []
    text = _as_string(request[member])
    if "," not in text:
        return [text]
    keys = text.split(",")
    while keys and not keys[-1]:  # String.split of Java drops empty strings at the end
        keys.pop()
    return keys


def client_rpc(payload):
    """Read a client-side RPC: ``(method, params)``.

    :raises InvalidPayload: no object
    :raises Uncaught: the method is missing, null or an object
    """
    request = parse_object(payload)
    try:
        return _as_string(request["method"]), request.get("params")
    except (KeyError, InvalidPayload) as error:
        raise Uncaught("client RPC without a method") from error


def claim(payload):
    """Read a claim: ``{"secretKey": str, "durationMs": int}``, defaults filled in."""
    request = parse_object(payload) if payload else {}
    try:
        secret_key = _as_string(request.get("secretKey", ""))
    except InvalidPayload as error:
        raise Uncaught("secretKey") from error
    duration_ms = _as_long(request.get("durationMs", 0))
    if duration_ms <= 0:
        duration_ms = DEFAULT_CLAIM_DURATION_MS
    return {"secretKey": secret_key, "durationMs": duration_ms}


def _as_string(value):
    """Gson's `getAsString`: a list of one element counts as that element."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1:
        return _as_string(value[0])
    if isinstance(value, (bool, int, float)):
        return gson.text_of(value)
    raise InvalidPayload("a text was expected")


def _as_long(value):
    """Gson's `getAsLong`: digits may be a string, 1.5e12 may not."""
    if isinstance(value, list) and len(value) == 1:
        return _as_long(value[0])
    if isinstance(value, str):
        return _parse_long(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = int(_exact_number(gson.text_of(value)))
        return (number + 2**63) % 2**64 - 2**63  # Java keeps the lower 64 bits
    raise Uncaught("a number was expected")


def _parse_long(text):
    if not _JAVA_INTEGER.fullmatch(text) or len(text) > 40 or int(text) not in _INT64:
        raise Uncaught("the number %.40s" % text)
    return int(text)


# --- writing ---


def rest_body(values):
    """Write a dict as somebody may send it to the REST API: NaN and infinity included."""
    return dumps(values).encode()


def to_json(value):
    """Write compact JSON as bytes, doubles as Java writes them.

    :raises ValueError: NaN or infinite
    :raises TypeError: not JSON
    """
    # Half of a surrogate pair can come in as an escape; Java writes a question mark.
    return _json_text(value).encode("utf-8", "replace")


def _json_text(value):
    if isinstance(value, dict):
        return "{%s}" % ",".join(
            "%s:%s" % (dumps(str(key), ensure_ascii=False), _json_text(item))
            for key, item in value.items()
        )
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join(map(_json_text, value))
    if isinstance(value, gson.NumberLiteral):  # inside of a JSON value numbers keep their text
        return value.text
    if isinstance(value, float):
        return java_double(value)
    return dumps(value, ensure_ascii=False)


def java_double(value):
    """Write a float as Java's `Double.toString`: 42.0, 1.0E10, 1.23456789E8, 1.0E-7.

    :raises ValueError: NaN or infinite
    """
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("%r has no place in JSON" % value)
    if _is_plain_in_java(value):
        return float.__repr__(value)
    sign, digits, exponent = Decimal(float.__repr__(value)).as_tuple()
    exponent += len(digits) - 1
    decimals = "".join(map(str, digits[1:])).rstrip("0") or "0"
    return "%s%d.%sE%d" % ("-" * sign, digits[0], decimals, exponent)


def _is_plain_in_java(value):
    """Java's `Double.toString` uses an exponent outside of these."""
    return 1e-3 <= abs(value) < 1e7 or value == 0
