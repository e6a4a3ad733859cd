# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""JSON as lenient Gson reads it, which is how ThingsBoard parses every payload.

Plain JSON goes through the standard library. Whatever that refuses is read again by
`_LenientReader`.
"""

import json
import re

_MAX_NESTING = 255
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


class NumberLiteral(float):
    """A number whose text matters: with an exponent, or with many digits."""

    __slots__ = ("text",)

    def __new__(cls, text):
        """Keep *text* beside the value."""
        literal = super().__new__(cls, text)
        literal.text = text
        return literal


def _parse_float(text):
    # Up to 17 characters, one of them the point, there are no more than 16 decimals.
    if len(text) <= 17 and "e" not in text and "E" not in text:
        return float(text)
    return NumberLiteral(text)


# NaN, Infinity and -Infinity are text to Gson. It takes line breaks in strings, too.
_decode = json.JSONDecoder(strict=False, parse_float=_parse_float, parse_constant=str).decode


def parse(payload):
    """Parse bytes; empty bytes are None, invalid UTF-8 is replaced.

    :raises ValueError: Gson would refuse this too
    """
    text = payload.decode("utf-8", "replace")
    if not text.strip():
        return None
    _check_nesting(text)
    return _decode(text)


def _check_nesting(text):
    if text.count("{") + text.count("[") <= _MAX_NESTING:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_NESTING:
            raise ValueError("nested too deeply")


def text_of(scalar):
    """Write a bool or number as Gson's `getAsString` does."""
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    return getattr(scalar, "text", None) or repr(scalar)
