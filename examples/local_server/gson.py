# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""JSON as lenient Gson reads it, which is how ThingsBoard parses every payload.

Plain JSON goes through the standard library. Whatever that refuses is read again by
`LenientReader`, which knows the dialect that Gson accepts: ``{temperature = 21; 'ok': TRUE}``.
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
    _check_nesting(text)
    try:
        return _decode(text)
    except ValueError:
        return LenientReader(text).read_document()


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


# --- the dialect ---

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_LITERAL = re.compile(r"[^/\\;#=\{\}\[\]:, \t\f\r\n\"'][^/\\;#=\{\}\[\]:, \t\f\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_QUOTED = {
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL),
    "'": re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL),
}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {
    **{mark: mark for mark in "\"'\\/\n"},
    **{"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"},
}
_KEYWORDS = {"true": True, "false": False, "null": None}


class LenientReader:
    """Read one text that is not plain JSON.

    Beyond JSON, Gson takes comments, single quotes, names and strings without quotes, ``=`` and
    ``=>`` for ``:``, ``;`` for ``,``, keywords in capitals, and missing elements of a list as
    null.
    """

    def __init__(self, text):
        self._text = text
        self._position = 0
        self._depth = 0

    def read_document(self):
        """Read the whole text; None if there is nothing in it.

        :raises ValueError: not even Gson would read this
        """
        if not self._peek():
            return None
        value = self._read_value()
        if self._peek():
            raise self._error("text behind the value")
        return value

    def _read_value(self):
        mark = self._peek()
        if mark == "{":
            return self._read_nested(self._read_members)
        if mark == "[":
            return self._read_nested(self._read_elements)
        if mark in _QUOTED:
            return self._read_quoted(mark)
        return _scalar(self._read_literal())

    def _read_nested(self, read):
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise self._error("nested too deeply")
        self._position += 1
        value = read()
        self._depth -= 1
        return value

    def _read_members(self):
        members = {}
        if self._skip("}"):
            return members
        while True:
            name = self._read_name()
            if not self._skip("=>", "=", ":"):
                raise self._error("no colon")
            members[name] = self._read_value()
            if self._skip("}"):
                return members
            if not self._skip(",", ";"):
                raise self._error("no comma")

    def _read_name(self):
        mark = self._peek()
        return self._read_quoted(mark) if mark in _QUOTED else self._read_literal()

    def _read_elements(self):
        elements = []
        if self._skip("]"):
            return elements
        while True:
            elements.append(None if self._peek() in (",", ";", "]") else self._read_value())
            if self._skip("]"):
                return elements
            if not self._skip(",", ";"):
                raise self._error("no comma")

    def _read_quoted(self, mark):
        found = _QUOTED[mark].match(self._text, self._position)
        if not found:
            raise self._error("a string without an end")
        self._position = found.end()
        return _join_surrogates(_ESCAPE.sub(_unescape, found.group(1)))

    def _read_literal(self):
        found = _LITERAL.match(self._text, self._position)
        if not found:
            raise self._error("no value")
        self._position = found.end()
        return found.group()

    def _peek(self):
        self._position = _SPACE.match(self._text, self._position).end()
        return self._text[self._position : self._position + 1]

    def _skip(self, *marks):
        self._peek()
        for mark in marks:
            if self._text.startswith(mark, self._position):
                self._position += len(mark)
                return True
        return False

    def _error(self, what):
        return ValueError("%s at character %d" % (what, self._position))


def _scalar(literal):
    number = _NUMBER.fullmatch(literal)
    if number:
        return int(literal) if number.groups() == (None, None) else _parse_float(literal)
    keyword = literal.lower()
    return _KEYWORDS[keyword] if keyword in _KEYWORDS else literal


def _unescape(found):
    code = found.group(1)
    if len(code) == 5:
        return chr(int(code[1:], 16))
    if code not in _ESCAPED:
        raise ValueError("the escape sequence \\%s" % code)
    return _ESCAPED[code]


def _join_surrogates(text):
    """Two escapes such as \\ud83d\\ude00 are one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
