# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Pictures of what was measured: an SVG file that is the same for the same figures.

.. code-block:: python

    bars("idle.svg", "Idle poll", [Bar("ours", 1.2, is_ours=True), Bar("other", 1e6)], "us")
    lines("fleet.svg", "Load", [Line("ours", [(1, 0.5), (10, 4)], True)], "devices", "ms", LESS)

matplotlib draws them in a process of its own, installed as the peers are, so no caller needs it;
`Missing` of `environment` says why there is no picture.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from benchmarks.tables import LESS
from benchmarks.tables import figure as number

_DECADES = 30  # from this ratio of the largest to the smallest on a linear scale shows nothing
_COLOURS = {True: "#1b7f4b", False: "#9aa5b1"}  # ours, others
_OTHER_LINES = ("#5b6b7b", "#9467bd", "#c7762e", "#4477aa", "#a05050", "#8a8a3a")
_WIDTH_IN = 8.0
_PANEL_IN, _BAR_IN, _HEAD_IN = 0.45, 0.27, 0.75
_CELL_IN, _LABELS_IN = 0.4, 1.4
_NONE_LOST, _NO_NUMBER = "#cfe8da", "#eeeeee"
_DRAW_S = 60
_TESTS = Path(__file__).resolve().parent.parent
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tb_device_mqtt",  # or else each drawing has other ids
    "font.family": ["DejaVu Sans", "sans-serif"],  # the first comes with matplotlib
    "font.sans-serif": ["Verdana", "sans-serif"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
}


class Bar(NamedTuple):
    """A bar; *value* None or a text: there is nothing to draw, and why. *panel*: its heading.

    *unit*: if it is not that of the whole picture.
    """

    name: str
    value: Union[float, str, None]
    is_ours: bool = False
    panel: str = ""
    unit: str = ""


class Cell(NamedTuple):
    """A cell of a grid; 0 is what all should have; a text says why there is no number."""

    row: str
    column: str
    value: Union[float, str, None]
    is_ours: bool = False


class Line(NamedTuple):
    """A line through *points*, ``[(x, y), ...]``; a y of None is a gap."""

    name: str
    points: list[tuple[float, Optional[float]]]
    is_ours: bool = False


def bars(path, title, rows, unit="", better=LESS):
    """Draw *rows*, each a `Bar`, from top to bottom; each panel has a scale of its own."""
    panels: dict[str, list[Bar]] = {}
    for row in rows:
        panels.setdefault(row.panel, []).append(row)
    _draw("bars", path, title=title, panels=list(panels.items()), unit=unit, better=better)


def cells(path, title, grid, better=LESS):
    """Draw *grid*, each a `Cell`; the darker, the larger a number is within its row."""
    _draw("cells", path, title=title, grid=grid, better=better)


def lines(path, title, series, x_label, y_label, better=LESS):
    """Draw *series*, each a `Line`."""
    plan = {"series": series, "x_label": x_label, "y_label": y_label}
    _draw("lines", path, title=title, better=better, **plan)


def spans_decades(values):
    """Whether a logarithmic scale is the honest one: only it shows them all."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) / min(positive) >= _DECADES


def _draw(kind, path, **plan):
    from benchmarks import environment

    plan = {"kind": kind, "path": str(Path(path).resolve()), **plan}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        env=environment.variables(environment.folder("matplotlib"), _TESTS),
        input=json.dumps(plan),
        text=True,
        capture_output=True,
        timeout=_DRAW_S,
        check=False,
    )
    if done.returncode:
        raise environment.Missing("no picture: " + done.stderr.strip().rpartition("\n")[2])


# --- in the process that has matplotlib ---


def _figure(height):
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained", facecolor="white")
    FigureCanvasSVG(figure)
    return figure


def _save(figure, path):
    figure.savefig(path, format="svg", metadata={"Date": None})
    # matplotlib ends some lines with a space.
    text = Path(path).read_text(encoding="utf-8")
    Path(path).write_text(
        "\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8"
    )


def _title(figure, title, better):
    figure.suptitle("%s: %s" % (title, better), x=0.01, ha="left", fontsize=11, weight="bold")


def _draw_bars(path, title, panels, unit, better):
    heights = [len(rows) * _BAR_IN + _PANEL_IN for _, rows in panels]
    figure = _figure(sum(heights) + _HEAD_IN)
    _title(figure, title, better)
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for (axes,), (heading, rows) in zip(grid, panels):
        _draw_panel(axes, heading, [Bar(*row) for row in rows], unit)
    _save(figure, path)


def _draw_panel(axes, heading, rows, unit):
    drawn = [row.value for row in rows if _is_number(row.value)]
    is_log = spans_decades(drawn)
    if is_log:
        axes.set_xscale("log")
        axes.set_xlim(min(value for value in drawn if value > 0) / 2, max(drawn) * 8)
    else:
        axes.set_xlim(0, max(drawn, default=1) * 1.18 or 1)
    unit = rows[0].unit or unit
    start = axes.get_xlim()[0]
    for place, row in enumerate(rows):
        length = row.value if _is_number(row.value) else 0
        if length > start:
            axes.barh(place, length, color=_COLOURS[row.is_ours], height=0.7)
        text = "not measured" if row.value is None else number(row.value, unit)
        weight = "bold" if row.is_ours else "normal"
        at = (max(length, start), place)
        axes.annotate(text, at, (4, 0), textcoords="offset points", va="center", weight=weight)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7, colors="#666666")
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:,.10g}")
    axes.minorticks_off()
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(heading)
    axes.set_xlabel(unit + (" (log scale)" if is_log else ""), fontsize=7, color="#666666")


def _is_number(value):
    return value is not None and not isinstance(value, str)


def _draw_cells(path, title, grid, better):
    shown = [Cell(*each) for each in grid]
    rows = list(dict.fromkeys(cell.row for cell in shown))
    columns = list(dict.fromkeys(cell.column for cell in shown))
    figure = _figure(len(rows) * _CELL_IN + _LABELS_IN + _HEAD_IN)
    _title(figure, title, better)
    axes = figure.subplots()
    for cell in shown:
        beside = [each.value for each in shown if each.row == cell.row and _is_number(each.value)]
        place = columns.index(cell.column), rows.index(cell.row)
        _draw_cell(axes, place, cell, max(beside, default=0))
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _save(figure, path)


def _draw_cell(axes, place, cell, largest):
    from matplotlib.patches import Rectangle

    colour, text = _NO_NUMBER, "-"
    if _is_number(cell.value):
        share = cell.value / largest if largest else 0
        colour = (1, 0.9 - 0.45 * share, 0.85 - 0.5 * share) if cell.value else _NONE_LOST
        text = number(cell.value)
    x, y = place
    axes.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, facecolor=colour))
    weight = "bold" if cell.is_ours else "normal"
    axes.text(x, y, text, ha="center", va="center", weight=weight)


def _draw_lines(path, title, series, x_label, y_label, better):
    figure = _figure(4.5)
    _title(figure, title, better)
    axes = figure.subplots()
    drawn = [Line(*line) for line in series]
    others = iter(_OTHER_LINES * len(drawn))
    for line in drawn:
        axes.plot(
            [x for x, _ in line.points],
            [float("nan") if y is None else y for _, y in line.points],
            label=line.name,
            marker="o",
            markersize=4,
            color=_COLOURS[True] if line.is_ours else next(others),
            linewidth=2.5 if line.is_ours else 1.5,
        )
    points = [point for line in drawn for point in line.points]
    if spans_decades([x for x, _ in points]):
        axes.set_xscale("log")
    if spans_decades([y for _, y in points if y is not None]):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.legend(frameon=False)
    _save(figure, path)


def _main():
    import matplotlib

    plan: dict[str, Any] = json.load(sys.stdin)
    draw = {"bars": _draw_bars, "cells": _draw_cells, "lines": _draw_lines}[plan.pop("kind")]
    with matplotlib.rc_context(_STYLE):
        draw(**plan)


if __name__ == "__main__":
    _main()
