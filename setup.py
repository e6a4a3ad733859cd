# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What pyproject.toml has no word for: types.

Of an installed package a type checker believes the annotations where a file py.typed says so, but a
single module has no place for that file (PEP 561). A stub package beside it is believed as well. It
is made of the module itself at each build, so that they can't differ: what is public, without code.
"""

import ast
import os
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODULE = "tb_device_mqtt"


def stub(source):
    """The public part of *source*, as a stub file."""
    body = []
    nodes = ast.parse(source).body
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    for node in nodes:
        if isinstance(node, ast.Try):
            body += [each for each in node.body if getattr(each, "module", "") == "typing"]
        elif isinstance(node, ast.ClassDef) and _is_public_name(node.name):
            _take_over_private_bases(node, classes)
            node.body = list(_members(node)) or [_dots()]
            body.append(node)
        elif _is_text(node) or _is_public_assignment(node):
            body.append(node)
    return ast.unparse(ast.Module(body, [])) + "\n"


def _take_over_private_bases(class_, classes):
    """A reader of the stub sees one class: what it inherits from private ones is its own."""
    private = [base.id for base in class_.bases if not _is_public_name(base.id)]
    class_.bases = [base for base in class_.bases if base.id not in private]
    own = {getattr(member, "name", None) for member in class_.body}
    for name in private:
        text = classes[name].body[:1] if _is_text(classes[name].body[0]) else []
        inherited = classes[name].body[len(text) :]
        class_.body += [each for each in inherited if getattr(each, "name", "") not in own]


def _members(class_):
    """Of what is assigned in ``__init__`` only that whose type is told there."""
    is_kept = True
    for node in class_.body:
        is_kept = is_kept if _is_text(node) else _is_public(node)  # text is about what is before it
        if not is_kept:
            continue
        if isinstance(node, ast.FunctionDef):
            yield from _attributes(node) if node.name == "__init__" else ()
            node.body = [each for each in node.body[:1] if _is_text(each)] + [_dots()]
        elif isinstance(node, ast.AnnAssign):
            node.value = None
        yield node


def _attributes(function):
    for node in ast.walk(function):
        name = getattr(getattr(node, "target", None), "attr", "_")
        if isinstance(node, ast.AnnAssign) and _is_public_name(name):
            yield ast.AnnAssign(ast.Name(name), node.annotation, None, 1)


def _is_public(node):
    if isinstance(node, ast.FunctionDef):
        return not node.name.startswith("_") or node.name.endswith("__")
    return _is_public_assignment(node)


def _is_public_assignment(node):
    if isinstance(node, ast.AnnAssign):
        return _is_public_name(node.target.id)
    return isinstance(node, ast.Assign) and _is_public_name(node.targets[0].id)


def _is_public_name(name):
    return not name.startswith("_") or name.endswith("__")


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _dots():
    return ast.Expr(ast.Constant(...))


class BuildWithTypes(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            self.mkpath(os.path.dirname(self._stub))
            source = Path(MODULE + ".py").read_text(encoding="utf-8")
            Path(self._stub).write_text(stub(source), encoding="utf-8")

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), self._stub]

    @property
    def _stub(self):
        return os.path.join(self.build_lib, MODULE + "-stubs", "__init__.pyi")


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithTypes})
