# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Everything public has a type, and programs are checked against it. Installed: test_package.py."""

import ast
import os
from pathlib import Path

import pytest

from types_check import wrongly_judged

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (ROOT / "tb_device_mqtt.py").read_text(encoding="utf-8")


def without_type(source):
    """Public names whose type the source leaves open."""
    found = []
    for node in ast.parse(source).body:
        if is_public(node) and isinstance(node, ast.FunctionDef):
            found += of_function(node, node.name)
        elif is_public(node) and isinstance(node, ast.ClassDef):
            for member in filter(is_public, node.body):
                name = "%s.%s" % (node.name, getattr(member, "name", ""))
                if isinstance(member, ast.FunctionDef):
                    found += of_function(member, name)
                    found += of_attributes(member, node.name, annotated(node))
                elif isinstance(member, ast.Assign) and not isinstance(member.value, ast.Name):
                    found += [name + target.id for target in member.targets]
    return found


def is_public(node):
    if isinstance(node, ast.Assign):
        return not node.targets[0].id.startswith("_")
    name = getattr(node, "name", "_")
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def of_function(node, name):
    arguments = node.args
    named = arguments.args + arguments.kwonlyargs + [arguments.vararg, arguments.kwarg]
    given = [each for each in named if each is not None and each.arg not in ("self", "cls")]
    found = ["%s(%s)" % (name, each.arg) for each in given if is_open(each.annotation)]
    return found + [name + "() ->"] * is_open(node.returns)


def annotated(class_):
    """The attributes that the body of a class says the type of."""
    return [each.target.id for each in class_.body if isinstance(each, ast.AnnAssign)]


def of_attributes(function, name, known):
    """What ``__init__`` gives to ``self`` and nobody says what it is."""
    targets = [
        target
        for node in ast.walk(function)
        if function.name == "__init__" and isinstance(node, ast.Assign)
        for target in node.targets
    ]
    names = [target.attr for target in targets if is_of_self(target)]
    return [
        "%s.%s" % (name, each) for each in names if not each.startswith("_") and each not in known
    ]


def is_of_self(target):
    return isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)


def is_open(annotation):
    """A list, a dict and a callable are to say of what."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    return annotation is None or getattr(annotation, "id", "") in ("dict", "list", "Callable")


def test_everything_public_has_a_type():
    assert without_type(SOURCE) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(a, b: int) -> int: pass", ["f(a)"]),
        ("def f(a: int): pass", ["f() ->"]),
        ("def f(*a, b, **c) -> None: pass", ["f(b)", "f(a)", "f(c)"]),
        ("def f(a: dict, b: 'list') -> Callable: pass", ["f(a)", "f(b)", "f() ->"]),
        ("class A:\n def f(self): pass", ["A.f() ->"]),
        ("class A:\n def __exit__(self, *a: Any): pass", ["A.__exit__() ->"]),
        ("class A:\n a = None\n b: int = 5", ["A.a"]),
        ("class A:\n def __init__(self) -> None:\n  self.a = self._b = 5", ["A.a"]),
        ("class A:\n def __init__(self) -> None:\n  self.a: int = 5", []),
        ("def _f(a): pass\nclass _A:\n a = 5\nclass A:\n _a = 5\n def _f(self): pass", []),
        ("class A:\n def f(self, a: 'dict[str, int]') -> int: pass\n g = f", []),
    ],
)
def test_what_has_no_type_is_found(source, found):
    assert without_type(source) == found


def test_a_program_beside_the_module_is_checked(tmp_path):
    paths = (ROOT, ROOT / "tests" / "typings")
    assert wrongly_judged(tmp_path, MYPYPATH=os.pathsep.join(map(str, paths))) == []


def test_a_program_that_finds_no_types_is_judged_wrongly(tmp_path):
    (tmp_path / "tb_device_mqtt.py").write_text("from typing import Any\nTBError: Any = 0\n")
    assert any("TBDeviceMqttClient" in line for line in wrongly_judged(tmp_path))
