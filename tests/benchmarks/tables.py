# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Rows with budgets, and their print as an aligned Markdown table."""

import operator

_OF_TIME = ("us", "ms", "s", "/s")


class Budget:
    """What a figure may be; one that is not *enforced* is only shown."""

    def __init__(self, sign, is_met, limit, enforced=True):
        self.limit = limit
        self.is_enforced = enforced
        self._sign = sign
        self._is_met = is_met

    def is_met(self, value):
        return self._is_met(value, self.limit)

    def text(self, unit):
        return (self._sign + " " + figure(self.limit, unit)).strip()


def below(limit, enforced=True):
    return Budget("<", operator.lt, limit, enforced)


def at_most(limit):
    return Budget("<=", operator.le, limit)


def above(limit):
    return Budget(">", operator.gt, limit)


def exactly(value):
    return Budget("", operator.eq, value)


class Row:
    """One figure: of *ours*, of the *peer* in the same run, and the budget of ours.

    *beside*: ``{heading: value}``, what else there is to say in the same unit.
    """

    def __init__(self, what, ours, unit="", budget=None, peer=None, beside=None):
        self.what = what
        self.ours = ours
        self.unit = unit
        self.budget = budget
        self.peer = peer
        self.beside = beside or {}

    @property
    def is_broken(self):
        return self.budget is not None and not self.budget.is_met(self.ours)

    @property
    def is_of_time(self):
        """Whether a busy machine makes it worse."""
        return self.unit in _OF_TIME

    @property
    def verdict(self):
        if self.budget is None:
            return ""
        if not self.is_broken:
            return "yes"
        return "NO" if self.budget.is_enforced else "no (not enforced)"

    def cells(self, headings):
        """*headings*: those of *beside*."""
        budget = self.budget.text(self.unit) if self.budget is not None else ""
        values = [self.ours, self.peer, *map(self.beside.get, headings)]
        ours, peer, *beside = (figure(value, self.unit) for value in values)
        return [self.what, ours, budget, self.verdict, peer, *beside]


class Table:
    """The answer to a question: rows, and *notes* on how they were measured."""

    def __init__(self, rows, *notes):
        self.rows = rows
        self.notes = notes

    @property
    def broken(self):
        return [row for row in self.rows if row.is_broken]

    def text(self):
        headings = list(dict.fromkeys(name for row in self.rows for name in row.beside))
        lines = [["", "ours", "budget", "met", "MiniMQTT", *headings]]
        lines += [row.cells(headings) for row in self.rows]
        columns = [column for column in zip(*lines) if any(column[1:])]
        return "\n".join([*_aligned(columns), *("\n" + note for note in self.notes)])


class LeftOut(Table):
    """Nothing was measured, because of *reason*."""

    def __init__(self, reason):
        super().__init__([], "Left out: %s." % reason)
        self.reason = reason

    def text(self):
        return self.notes[0]


def figure(value, unit=""):
    """A number as people read it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (_number(value) + (unit if unit == "/s" else " " + unit)).strip()


def _number(value):
    size = abs(value)
    if value == int(value) or size >= 100:
        return f"{value:,.0f}"
    if size >= 1:
        return "%.1f" % value if size >= 10 else "%.2f" % value
    return "%.2g" % value


def _aligned(columns):
    """Lines of a Markdown table: text to the left, figures to the right."""
    padded = []
    for count, column in enumerate(columns):
        width = max(map(len, column))
        rule = "-" * (width + 2) if not count else "-" * (width + 1) + ":"
        cells = [
            " %s " % (cell.ljust(width) if not count else cell.rjust(width)) for cell in column
        ]
        padded.append([cells[0], rule, *cells[1:]])
    return ["|%s|" % "|".join(line) for line in zip(*padded)]
