# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""A companion is handed a client and uses its public names only, which its syntax tree shows.

Companions are the `tb_device_*.py` beside the core, and those of tests/companions.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = "tb_device_mqtt"
OWN = ("self", "cls")
BY_NAME = ("getattr", "setattr", "hasattr", "delattr")
AROUND = ("vars", "eval", "exec")  # functions that reach anything
AROUND_ATTRIBUTES = ("__dict__", "__getattribute__")


def companions():
    beside = [path for path in ROOT.glob("tb_device_*.py") if path.stem != CORE]
    return sorted([*beside, *(ROOT / "tests" / "companions").glob("*.py")])


def trespasses(source):
    """``["line 3: client._link", ...]``: where *source* reaches for what is not public."""
    visitor = _Visitor()
    visitor.visit(ast.parse(source))
    return visitor.found


def is_private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


class _Visitor(ast.NodeVisitor):
    def __init__(self):
        self.found = []
        self._is_class_body = False
        self._is_own = False  # whether self and cls are those of the companion's own class here

    def _tell(self, node):
        said = ast.unparse(node).splitlines()[0]
        self.found.append("line %d: %s" % (node.lineno, said))

    def _belongs_to_companion(self, node):
        return self._is_own and isinstance(node, ast.Name) and node.id in OWN

    # --- self and cls are the companion's own only in a method of a class of its own ---

    def visit_ClassDef(self, node):
        names = {getattr(base, "attr", getattr(base, "id", None)) for base in node.bases}
        if "TBDeviceMqttClient" in names:  # then self has all that is private in the core
            self._tell(node)
        self._visit_inside(node, is_own=True)

    def visit_FunctionDef(self, node):
        takes_own = any(argument.arg in OWN for argument in node.args.args)
        is_method = self._is_own and self._is_class_body
        self._visit_inside(node, is_own=is_method if takes_own else self._is_own)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node):
        takes_own = any(argument.arg in OWN for argument in node.args.args)
        self._visit_inside(node, is_own=self._is_own and not takes_own)

    def _visit_inside(self, node, is_own):
        before = self._is_own, self._is_class_body
        self._is_own, self._is_class_body = is_own, isinstance(node, ast.ClassDef)
        self.generic_visit(node)
        self._is_own, self._is_class_body = before

    # --- what reaches ---

    def visit_Attribute(self, node):
        reaches = is_private(node.attr) and not self._belongs_to_companion(node.value)
        if reaches or node.attr in AROUND_ATTRIBUTES:
            self._tell(node)
        self.generic_visit(node)

    def visit_ImportFrom(self, node):
        if node.module == CORE and any(is_private(alias.name) for alias in node.names):
            self._tell(node)

    def visit_Name(self, node):
        is_self_replaced = node.id in OWN and isinstance(node.ctx, ast.Store)
        if node.id in AROUND or is_self_replaced:
            self._tell(node)

    def visit_Call(self, node):
        is_by_name = isinstance(node.func, ast.Name) and node.func.id in BY_NAME
        if is_by_name and not self._belongs_to_companion(node.args[0]):
            name = getattr(node.args[1], "value", None)
            if not isinstance(name, str) or is_private(name):  # a name made up can be any
                self._tell(node)
        self.generic_visit(node)


def test_companions_use_public_names_only():
    found = {path.name: trespasses(path.read_text(encoding="utf-8")) for path in companions()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_core_is_no_companion_and_every_other_module_beside_it_is():
    names = [path.name for path in companions()]
    assert CORE + ".py" not in names
    modules = {path.name for path in ROOT.glob("tb_device_*.py")}
    assert modules - {CORE + ".py"} <= set(names)


# --- the check itself ----------------------------------------------------------------------------

PUBLIC = '''\
from tb_device_mqtt import TBDeviceMqttClient, TBError, __version__


class WrongPin(TBError):
    """An error of the core may be the base of another."""


class Companion:
    _count = 0

    def __init__(self, client):
        self.client = client
        self._timer = None
        self._table = {"a": "_on_a"}
        client.on_poll(lambda: self._on_poll())
        print(client.__class__.__name__, __version__)

    def _on_poll(self):
        def later():
            return self._timer

        getattr(self, self._table["a"])(getattr(self.client, "state", None))
        return later

    @classmethod
    def _more(cls):
        cls._count += 1


def _helper(client: TBDeviceMqttClient):
    return Companion(client)
'''

REACHING = (
    "client._link",
    "client._link = None",
    "del client._link",
    "client._link.state",
    "client.stats._private",
    "client.__private",
    "tb_device_mqtt._Link",
    "make()._private",
    "from tb_device_mqtt import _Link",
    "from tb_device_mqtt import TBError, _Link as Link",
    'getattr(client, "_link")',
    'getattr(client, "_link", None)',
    'setattr(client, "_link", None)',
    'hasattr(client, "_link")',
    "getattr(client, name)",
    'getattr(client, "_" + "link")',
    "vars(client)",
    "client.__dict__",
    'client.__getattribute__("x")',
    'eval("client" + "._link")',
    "def method(self): return self._link",
    "lambda self: self._link",
    "self._link",
    "class A:\n    def f(self, client):\n        self.client._link",
    "class A:\n    def f(self, client):\n        self = client",
    "class A:\n    def f(self):\n        def g(self): return self._link\n        return g",
    "class A:\n    def f(self):\n        vars(self)",
    "class A:\n    def f(self):\n        return lambda self: self._link",
    "class A(TBDeviceMqttClient): pass",
    "class A(tb_device_mqtt.TBDeviceMqttClient): pass",
)


def test_what_is_public_or_of_the_companion_itself_may_be_used():
    assert trespasses(PUBLIC) == []


@pytest.mark.parametrize("source", REACHING)
def test_each_way_to_what_is_private_is_found(source):
    assert len(trespasses(source)) == 1


def test_each_place_is_told_with_its_line():
    source = "client._a\nclient.b\nclient._c.d\n"
    assert trespasses(source) == ["line 1: client._a", "line 3: client._c"]
