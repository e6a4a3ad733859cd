# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A module without some of its functions, to see what these cost."""

import ast
import re


def each_function(source):
    """For each function (its name, the source without it)."""
    lines = source.splitlines()
    for function, owner in _functions(ast.parse(source)):
        yield owner + function.name, _without(lines, [function])


def each_section(source):
    """For each section that has functions (its name, the source without these)."""
    lines = source.splitlines()
    heads = [
        (number, found.group(1))
        for number, line in enumerate(lines, 1)
        for found in [re.match(r"\s*# --- (.+?) -+$", line)]
        if found
    ]
    functions = [function for function, _ in _functions(ast.parse(source))]
    ends = [number for number, _ in heads[1:]] + [len(lines) + 1]
    for (start, name), end in zip(heads, ends):
        inside = [function for function in functions if start < function.lineno < end]
        if inside:
            yield name, _without(lines, inside)


def all_functions(source):
    """The source without any."""
    functions = [function for function, _ in _functions(ast.parse(source))]
    return _without(source.splitlines(), functions)


def _functions(node, owner=""):
    """Functions and methods, each with its class and a point; none that are inside of another."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child, owner
        elif not isinstance(child, ast.expr):
            inside = owner + child.name + "." if isinstance(child, ast.ClassDef) else owner
            yield from _functions(child, inside)


def _without(lines, functions):
    """*lines* with ``name = None`` for each function, whose name something may need."""
    kept = list(lines)
    for function in functions:
        start = min([function.lineno, *(each.lineno for each in function.decorator_list)])
        for number in range(start, function.end_lineno + 1):
            kept[number - 1] = ""
        kept[start - 1] = " " * function.col_offset + function.name + " = None"
    return "\n".join(kept)
