#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""How large and how branched the library's functions and classes are; fails above the limits.

    python3 run.py shape [file ...]     default: tb_device_*.py beside run.py

Read from the syntax tree, nothing is imported:

* code lines: lines with code, without blank lines, comments and docstrings
* lines of a function: from its first to its last statement, without its docstring; a function
  inside another counts on its own, the outer one without it
* branches of a function: 1, and 1 more for each if, elif, for, while, except, each chain of `and`
  or of `or`, each conditional expression, each `for` of a comprehension
* nesting of a function: how many if, for, while, try, with are inside each other at the deepest
  place; an elif is no deeper than its if
* calls in calls: how many calls stand inside each other's arguments or objects at the deepest place
* lines of a class: all of it without the docstrings. Those are free on a board (a .mpy has none),
  so nothing here is a reason to shorten them

p90: nine of ten functions are no larger.
"""

import argparse
import ast
import io
import math
import statistics
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The limits; exceeding one is a failure.
MOST_CLASS_LINES = 600
MOST_METHODS = 45
MOST_FUNCTION_LINES = 40
MOST_MEDIAN_LINES = 8
MOST_BRANCHES = 10
MOST_MEAN_BRANCHES = 3.3
FREE_OF_BRANCHES = ("__init__",)  # it checks its many arguments, one after the other
# What is above the limits so far: it may shrink, it must not grow.
SO_FAR_MEAN_BRANCHES = {"tb_device_mqtt": 4.0}
SO_FAR_BRANCHES = {
    "_check_value": 18,
    "_lose": 14,
    "_send_next": 13,
    "_set_server": 13,
    "_take_packet": 13,
    "_key": 12,
    "_flush": 11,
    "_split_reading": 11,
}

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.BoolOp,
    ast.IfExp,
    ast.comprehension,
)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith)
_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)

# --- the syntax tree -----------------------------------------------------------------------------


def has_docstring(node):
    return ast.get_docstring(node, clean=False) is not None


def docstring_lines(node):
    """How many lines the docstrings of *node* and of all that is inside it take."""
    documented = (ast.Module, ast.ClassDef, *_FUNCTIONS)
    inside = [each for each in ast.walk(node) if isinstance(each, documented)]
    return sum(lines_of(each.body[0]) for each in inside if has_docstring(each))


def lines_of(first, last=None):
    return (last or first).end_lineno - first.lineno + 1


def own_nodes(function):
    """The nodes inside *function*, without those of the functions inside it."""
    waiting = [function]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if not isinstance(child, _FUNCTIONS):
                yield child
                waiting.append(child)


def inner_functions(function):
    """The outermost functions inside *function*."""
    for node in (function, *own_nodes(function)):
        yield from (each for each in ast.iter_child_nodes(node) if isinstance(each, _FUNCTIONS))


def body_lines(function):
    body = function.body[has_docstring(function) :]
    if not body:
        return 0
    return lines_of(body[0], body[-1]) - sum(map(lines_of, inner_functions(function)))


def nesting(node):
    """How many blocks are inside each other at the deepest place below *node*."""
    deepest = 0
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        is_elif = isinstance(node, ast.If) and name == "orelse" and len(children) == 1
        for child in children:
            if isinstance(child, ast.AST) and not isinstance(child, _FUNCTIONS):
                own = isinstance(child, _BLOCKS) and not (is_elif and isinstance(child, ast.If))
                deepest = max(deepest, own + nesting(child))
    return deepest


def nested_calls(node):
    """How many calls are inside each other at the deepest place of *node*."""
    deepest = max(map(nested_calls, ast.iter_child_nodes(node)), default=0)
    return deepest + isinstance(node, ast.Call)


def count_code_lines(source):
    """Lines that have something else than blanks and comments; docstrings count."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


# --- figures -------------------------------------------------------------------------------------


class Function:
    def __init__(self, node):
        self.name = node.name
        self.lines = body_lines(node)
        self.branches = 1 + sum(isinstance(each, _BRANCHES) for each in own_nodes(node))
        self.nesting = nesting(node)
        self.nested_calls = nested_calls(node)


class Class:
    def __init__(self, node):
        self.name = node.name
        self.lines = lines_of(node) - docstring_lines(node)
        self.methods = sum(isinstance(each, _FUNCTIONS) for each in node.body)


class Shape:
    """The figures of one source file."""

    def __init__(self, name, source):
        tree = ast.parse(source)
        nodes = list(ast.walk(tree))
        self.name = name
        self.code_lines = count_code_lines(source) - docstring_lines(tree)
        self.functions = [Function(node) for node in nodes if isinstance(node, _FUNCTIONS)]
        self.classes = [Class(node) for node in nodes if isinstance(node, ast.ClassDef)]

    def figures(self, attribute):
        """That of each function, in ascending order; never empty."""
        return sorted(getattr(function, attribute) for function in self.functions) or [0]

    def largest(self, attribute):
        return max(self.functions, key=lambda function: getattr(function, attribute), default=None)

    def largest_class(self):
        return max(self.classes, key=lambda each: each.lines, default=None)

    def median_lines(self):
        return statistics.median(self.figures("lines"))

    def p90_lines(self):
        figures = self.figures("lines")
        return figures[math.ceil(0.9 * len(figures)) - 1]

    def mean(self, attribute):
        return statistics.mean(self.figures(attribute))

    def complaints(self):
        """A sentence for each limit that is exceeded."""
        found = [*self._of_all(), *self._of_functions(), *self._of_classes()]
        return [
            "%s: %s, the limit is %s" % (self.name, said, limit)
            for said, figure, limit in found
            if figure > limit
        ]

    def _of_all(self):
        median, mean = self.median_lines(), self.mean("branches")
        yield "the median function has %g lines" % median, median, MOST_MEDIAN_LINES
        said = "its functions have %.2f branches on average" % mean
        yield said, mean, SO_FAR_MEAN_BRANCHES.get(self.name, MOST_MEAN_BRANCHES)

    def _of_functions(self):
        for each in self.functions:
            yield "%s() has %d lines" % (each.name, each.lines), each.lines, MOST_FUNCTION_LINES
            if each.name not in FREE_OF_BRANCHES:
                said = "%s() has %d branches" % (each.name, each.branches)
                yield said, each.branches, self._most_branches(each)

    def _most_branches(self, function):
        is_core = self.name in SO_FAR_MEAN_BRANCHES
        return SO_FAR_BRANCHES.get(function.name, MOST_BRANCHES) if is_core else MOST_BRANCHES

    def _of_classes(self):
        for each in self.classes:
            said = "class %s has %d lines" % (each.name, each.lines)
            yield said, each.lines, MOST_CLASS_LINES
            said = "class %s has %d methods" % (each.name, each.methods)
            yield said, each.methods, MOST_METHODS


# --- table ---------------------------------------------------------------------------------------


def named(item, *attributes):
    """ "57 _objects": the figures and the name of a function or class."""
    if item is None:
        return "-"
    return "%s %s" % (", ".join(str(getattr(item, each)) for each in attributes), item.name)


def column(shape):
    """``{row: text}`` of the table."""
    return {
        "code lines": str(shape.code_lines),
        "functions": str(len(shape.functions)),
        "lines of a function, median": "%g" % shape.median_lines(),
        "    p90": str(shape.p90_lines()),
        "    longest": named(shape.largest("lines"), "lines"),
        "branches of a function, mean": "%.2f" % shape.mean("branches"),
        "    most": named(shape.largest("branches"), "branches"),
        "nesting of a function, mean": "%.2f" % shape.mean("nesting"),
        "    deepest": named(shape.largest("nesting"), "nesting"),
        "calls in calls, deepest": named(shape.largest("nested_calls"), "nested_calls"),
        "largest class: lines, methods": named(shape.largest_class(), "lines", "methods"),
    }


LIMITS = {
    "lines of a function, median": str(MOST_MEDIAN_LINES),
    "    longest": str(MOST_FUNCTION_LINES),
    "branches of a function, mean": str(MOST_MEAN_BRANCHES),
    "    most": "%d but %s" % (MOST_BRANCHES, ", ".join(FREE_OF_BRANCHES)),
    "largest class: lines, methods": "%d, %d" % (MOST_CLASS_LINES, MOST_METHODS),
}


def table(shapes):
    columns = [(shape.name, column(shape)) for shape in shapes] + [("limit", LIMITS)]
    rows = [["", *(name for name, _ in columns)]]
    for row in columns[0][1]:
        rows.append([row, *(texts.get(row, "") for _, texts in columns)])
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def main(arguments=None):
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="run.py shape",
        description=summary,
        epilog=rest.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="file", type=Path, nargs="*")
    files = parser.parse_args(arguments).files or sorted(ROOT.glob("tb_device_*.py"))
    shapes = [Shape(path.stem, path.read_text(encoding="utf-8")) for path in files]
    print(table(shapes), flush=True)
    complaints = [each for shape in shapes for each in shape.complaints()]
    print("".join(each + "\n" for each in complaints), end="", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
