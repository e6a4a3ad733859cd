# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Rows with budgets, and their print as an aligned Markdown table."""

import operator
from pathlib import Path
from typing import Callable, Optional

LESS = "less is better"
MORE = "more is better"
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
        if self.budget is None:
            return False
        return isinstance(self.ours, str) or not self.budget.is_met(self.ours)

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
    """The answer to a question: rows, and *notes* on how they were measured.

    *left_out*: ``{client: why it is not there}``, which belongs into the heading
    """

    draw: Optional[Callable[[Path], None]] = None
    """Draws a picture of it into a folder, if there is one."""

    def __init__(self, rows, *notes, left_out=None):
        self.left_out = left_out or {}
        self.rows = rows
        self.notes = [*notes, *map("%s is left out: %s.".__mod__, self.left_out.items())]

    def heading(self, question):
        """*question*, and who could not be asked."""
        missing = ", ".join(self.left_out)
        return "%s (without %s)" % (question, missing) if missing else question

    @property
    def broken(self):
        return [row for row in self.rows if row.is_broken]

    def text(self):
        return "\n\n".join([self._text_of_rows(), *self.notes])

    def _text_of_rows(self):
        headings = list(dict.fromkeys(name for row in self.rows for name in row.beside))
        lines = [["", "ours", "budget", "met", "MiniMQTT", *headings]]
        lines += [row.cells(headings) for row in self.rows]
        return "\n".join(_aligned([column for column in zip(*lines) if any(column[1:])]))


class Column:
    """A figure that clients are compared by; *budget*: of ours; *is_pictured*: also as bars."""

    def __init__(self, heading, unit="", budget=None, is_pictured=True):
        self.heading = heading
        self.unit = unit
        self.budget = budget
        self.is_pictured = is_pictured


class Comparison(Table):
    """The answers of several clients, a line each, behind *rows* on ours alone.

    *answers*: ``{client: {heading: value, or in words why there is none}}``, ours first; None as
    a heading is for all columns. *name*, *title*, *better*: of the picture.
    """

    def __init__(self, name, title, better, columns, answers, *notes, rows=(), left_out=None):
        super().__init__(list(rows), *notes, left_out=left_out)
        self.name = name
        self.title = title
        self.better = better
        self.columns = columns
        self.answers = answers
        self.draw = self._draw

    def value(self, client, column):
        answers = self.answers[client]
        return answers.get(column.heading, answers.get(None))

    @property
    def broken(self):
        return [row for row in [*self.rows, *self._own_rows()] if row.is_broken]

    def _own_rows(self):
        name = next(iter(self.answers))
        for column in self.columns:
            if column.budget is not None:
                value = self.value(name, column)
                yield Row(column.heading, value, column.unit, column.budget)

    def text(self):
        lines = [["", *(column.heading for column in self.columns)]]
        lines += [[name, *self._cells(name)] for name in self.answers]
        if any(column.budget is not None for column in self.columns):
            budgets = {row.what: row for row in self._own_rows()}
            lines.append(["budget of ours", *(self._budget(budgets, c) for c in self.columns)])
        blocks = ["\n".join(_aligned(list(zip(*lines))))]
        if self.rows:
            blocks.append(self._text_of_rows())
        return "\n\n".join([*blocks, *self.notes])

    def _cells(self, client):
        if list(self.answers[client]) == [None]:  # said once
            return [self.answers[client][None], *[""] * (len(self.columns) - 1)]
        return [figure(self.value(client, column), column.unit) for column in self.columns]

    def _draw(self, folder):
        from . import pictures

        shown = [column for column in self.columns if column.is_pictured]
        bars = [
            pictures.Bar(
                name, self.value(name, column), name.startswith("ours"), column.heading, column.unit
            )
            for column in shown
            for name in self.answers
        ]
        pictures.bars(Path(folder, self.name + ".svg"), self.title, bars, better=self.better)

    @staticmethod
    def _budget(budgets, column):
        row = budgets.get(column.heading)
        return "" if row is None else "%s: %s" % (row.budget.text(row.unit), row.verdict)


class Group(Table):
    """Several comparisons under one question, each under its name and title; *rows* on ours."""

    def __init__(self, parts, *notes, rows=(), left_out=None):
        super().__init__(list(rows), *notes, left_out=left_out)
        self.parts = parts

    @property
    def broken(self):
        rows = super().broken
        for part in self.parts:
            for row in part.broken:
                row.what = "%s: %s" % (part.name, row.what)
                rows.append(row)
        return rows

    def text(self):
        blocks = ["### %s: %s\n\n%s" % (part.name, part.title, part.text()) for part in self.parts]
        return "\n\n".join([*blocks, super().text()])


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
