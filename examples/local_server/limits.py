# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The rate limits of a tenant profile: token buckets (DefaultTransportRateLimitService).

A limit is text, ``"10:1,300:60"``: 10 within 1 second and 300 within 60. Each of these windows is
a bucket that is full at first and fills up smoothly; what is let through takes from all of them,
what a single one refuses takes from none. The tenant and each device have three limits:

* `RateLimits.telemetry_messages`: a publish of telemetry or attributes takes 1, and
* `RateLimits.telemetry_data_points`: the number of its keys, over all rows
* `RateLimits.messages`: anything else that reaches the core takes 1, such as a session that opens
  or closes, a request, an RPC reply, a subscription to pushes, telemetry without any key

The default installation has no limits.
"""

import re

_WINDOWS = re.compile(r"[1-9][0-9]*:[1-9][0-9]*(,[1-9][0-9]*:[1-9][0-9]*)*")
_NS_PER_S = 1000000000


class _Window:
    """At most *capacity* tokens within *seconds*; all in integers, so that nothing is rounded."""

    def __init__(self, capacity, seconds, now_ns):
        self._capacity = capacity
        self._token = seconds * _NS_PER_S  # one token; each nanosecond brings *capacity*
        self._full = capacity * self._token
        self._level = self._full
        self._filled_ns = now_ns

    def has(self, count, now_ns):
        """Fill up; whether *count* tokens are there."""
        passed_ns = max(0, now_ns - self._filled_ns)
        self._filled_ns = now_ns
        self._level = min(self._full, self._level + passed_ns * self._capacity)
        return self._level >= count * self._token

    def take(self, count):
        """Take tokens that are there."""
        self._level -= count * self._token


class _Limit:
    """One limit with all its windows; *text* None or "" is no limit."""

    def __init__(self, text, now_ns):
        if text and not _WINDOWS.fullmatch(text):
            raise ValueError('a rate limit is text such as "10:1,300:60", not %r' % (text,))
        pairs = [pair.split(":") for pair in text.split(",")] if text else []
        self.text = text or None
        self._windows = [_Window(int(count), int(seconds), now_ns) for count, seconds in pairs]

    def take(self, count, now_ns):
        """Take *count* tokens if every window has them; whether they had."""
        enough = [window.has(count, now_ns) for window in self._windows]
        if not all(enough):
            return False
        for window in self._windows:
            window.take(count)
        return True


def _limit(name):
    """A property: the text of one limit. A new text makes new buckets, which are full."""

    def read(limits):
        return limits.named[name].text

    def write(limits, text):
        if (text or None) != read(limits):
            limits.named[name] = _Limit(text, limits.now_ns())

    return property(read, write)


class RateLimits:
    """The three limits of a tenant or of a device; each is text or None, settable at any time.

    :param monotonic_s: called for the time in seconds
    :raises ValueError: a text that is no limit is set
    """

    messages = _limit("messages")
    telemetry_messages = _limit("telemetryMessages")
    telemetry_data_points = _limit("telemetryDataPoints")

    def __init__(self, monotonic_s):
        self._monotonic_s = monotonic_s
        names = ("messages", "telemetryMessages", "telemetryDataPoints")
        self.named = {name: _Limit(None, 0) for name in names}

    def now_ns(self):
        """The time as the buckets count it."""
        return round(self._monotonic_s() * _NS_PER_S)

    def allow(self, data_points):
        """Charge a message; whether it is within the limits."""
        now_ns, named = self.now_ns(), self.named
        if not data_points:
            return named["messages"].take(1, now_ns)
        # A message of too many data points has been charged as a message all the same.
        return named["telemetryMessages"].take(1, now_ns) and named["telemetryDataPoints"].take(
            data_points, now_ns
        )

    def as_dict(self):
        """The texts, as ``getSessionLimits`` names them."""
        return {name: limit.text for name, limit in self.named.items()}
