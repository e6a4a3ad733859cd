# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What CPython takes and CircuitPython 9 and 10 do not, found in the syntax tree of a source.

Each rule is a generator of ``(node, complaint)`` pairs; `violations` runs them all. Every entry was
tried on CircuitPython 10. What needs types to be found (a slice of a str, say) is found only
where the source shows the type. What MicroPython's compiler refuses by itself is not here.
"""

import ast
import re

IMPORTS = [
    "json",
    "time",
    "sys",
    "os",
    "gc",
    "errno",
    "random",
    "struct",
    "binascii",
    "select",
    "ssl",
    "socket",
    "micropython",
    "collections",
    "io",
    "hashlib",
    "zlib",
    "adafruit_*",
    "wifi",
    "socketpool",
    "microcontroller",
    "supervisor",
    "rtc",
    "storage",
]
TYPING = ("typing", "circuitpython_typing")  # annotations are never evaluated: only under try

_MISSING_METHODS = [
    "zfill",
    "ljust",
    "rjust",
    "title",
    "removeprefix",
    "removesuffix",
    "casefold",
    "hexdigest",
    "tobytes",
    "expandtabs",
    "isidentifier",
    "isprintable",
    "translate",
    "maketrans",
    "fromhex",
    "with_traceback",
    "add_note",
]
_MISSING_BUILTINS = ["print", "vars", "ascii", "format", "breakpoint", "input", "help"]
_MISSING_EXCEPTIONS = [
    "ConnectionResetError",
    "ConnectionRefusedError",
    "ConnectionAbortedError",
    "BlockingIOError",
    "FileNotFoundError",
    "PermissionError",
    "RecursionError",
    "UnicodeDecodeError",
    "UnicodeEncodeError",
    "ModuleNotFoundError",
    "InterruptedError",
    "ExceptionGroup",
]
_NO_KEYWORDS = ("encode", "decode", "split", "rsplit", "splitlines", "join", "replace")
_NO_SPECIAL_METHODS = ["__setattr__", "__delattr__", "__init_subclass__", "__del__", "__slots__"]


def violations(source):
    """``["line: complaint", ...]`` in order of lines."""
    tree = ast.parse(source)
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            child.parent = parent  # type: ignore[attr-defined]
    found = {(node.lineno, complaint) for rule in _RULES for node, complaint in rule(tree)}
    return ["%d: %s" % entry for entry in sorted(found)]


def _nodes(tree, *types):
    return [node for node in ast.walk(tree) if isinstance(node, types)]


def _is_name(node, *names):
    return isinstance(node, ast.Name) and node.id in names


def _ancestors(node):
    while hasattr(node, "parent"):
        node = node.parent
        yield node


# --- rules -------------------------------------------------------------------------------------


def _imports(tree):
    for node in _nodes(tree, ast.Import, ast.ImportFrom):
        is_plain = isinstance(node, ast.Import)
        for name in [a.name for a in node.names] if is_plain else [node.module or "."]:
            top = name.split(".")[0]
            if top in TYPING:
                if not any(isinstance(above, ast.Try) for above in _ancestors(node)):
                    yield node, "import %s outside of try" % name
            elif not _is_allowed(top):
                yield node, "import %s" % name


def _is_allowed(module):
    return any(
        module == allowed or (allowed.endswith("*") and module.startswith(allowed[:-1]))
        for allowed in IMPORTS
    )


def _unpacking(tree):
    for node in _nodes(tree, ast.Dict):
        if None in node.keys:
            yield node, "{**d}"
    for node in _nodes(tree, ast.List, ast.Tuple, ast.Set):
        is_target = isinstance(getattr(node, "ctx", None), ast.Store)
        if not is_target and any(isinstance(item, ast.Starred) for item in node.elts):
            yield node, "[*a]"


def _decorators(tree):
    for node in _nodes(tree, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef):
        for decorator in node.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            while isinstance(target, ast.Attribute):
                target = target.value
            if not isinstance(target, ast.Name):
                yield decorator, "decorator that is no name"


def _private_names(tree):
    """`self.__x` is mangled on CPython and not on boards: the two would differ in subclasses."""
    pattern = re.compile(r"__\w*[^_]_?$")
    for node in _nodes(tree, ast.Attribute):
        if pattern.match(node.attr):
            yield node, "private name " + node.attr
    for class_ in _nodes(tree, ast.ClassDef):
        for node in class_.body:
            name = getattr(node, "name", "")
            if pattern.match(name):
                yield node, "private name " + name


def _classes(tree):
    for class_ in _nodes(tree, ast.ClassDef):
        if class_.keywords:
            yield class_, "metaclass"
        for node in class_.body:
            names = [getattr(node, "name", "")]
            names += [getattr(target, "id", "") for target in getattr(node, "targets", ())]
            for name in names:
                if name in _NO_SPECIAL_METHODS:
                    yield node, "%s has no effect" % name


def _step_slices(tree):
    """Lists take a step, strings and bytes do not; the source rarely shows which it is."""
    for node in _nodes(tree, ast.Slice):
        if node.step is not None:
            yield node.parent, "slice with a step"


def _calls(tree):
    for call in _nodes(tree, ast.Call):
        if _is_name(call.func, "next", "iter") and len(call.args) > 1:
            yield call, "%s() with two arguments" % call.func.id
        if _is_name(call.func, *_MISSING_BUILTINS):
            yield call, "%s()" % call.func.id
        if _is_name(call.func, "zip") and call.keywords:
            yield call, "zip() with keywords"
        if isinstance(call.func, ast.Attribute):
            yield from _method_call(call, call.func.attr)


def _method_call(call, name):
    if name in _MISSING_METHODS:
        yield call, ".%s()" % name
    if name in _NO_KEYWORDS and call.keywords:
        yield call, ".%s() with keywords" % name
    if (name == "encode" and len(call.args) > 1) or (name == "decode" and len(call.args) > 1):
        yield call, ".%s() with an error handler, which is ignored" % name
    if name == "dumps" and any(keyword.arg != "separators" for keyword in call.keywords):
        yield call, "json.dumps() with keywords"


def _exceptions(tree):
    for node in _nodes(tree, ast.Name):
        if node.id in _MISSING_EXCEPTIONS:
            yield node, node.id
    catchers = [
        handler
        for handler in _nodes(tree, ast.ExceptHandler)
        if handler.type is None or _is_name(handler.type, "Exception", "BaseException")
    ]
    for handler in catchers[1:]:
        yield handler, "except Exception a second time: one place knows the strangers"


def _format_strings(tree):
    for node in _nodes(tree, ast.JoinedStr):
        # A format spec is a JoinedStr as well; inside, only a nested f-string has one more around.
        values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        if any(_nodes(value, ast.JoinedStr) for value in values):
            yield node, "f-string inside an f-string"
        for part in node.values:
            if isinstance(part, ast.Constant) and re.search(r"[{}]", part.value):
                # "{{" in an f-string is right; next to one, a plain literal's brace is formatted
                # too. The tree shows both alike, so neither.
                yield node, "brace in the text of an f-string"


def _bytearrays(tree):
    """Of names that are bound to a bytearray in this file."""
    made = {
        _target_name(target)
        for node in _nodes(tree, ast.Assign)
        if isinstance(node.value, ast.Call) and _is_name(node.value.func, "bytearray")
        for target in node.targets
    }
    for call in _nodes(tree, ast.Call):
        method = getattr(call.func, "attr", None)
        if method in ("pop", "clear", "insert") and _target_name(call.func.value) in made:
            yield call, "bytearray.%s()" % method
    deleted = [target for node in _nodes(tree, ast.Delete) for target in node.targets]
    for target in deleted:
        is_slice = isinstance(getattr(target, "slice", None), ast.Slice)
        if is_slice and _target_name(target.value) in made:
            yield target, "del of a bytearray's slice"


def _target_name(node):
    if isinstance(node, ast.Attribute):
        return "." + node.attr
    return getattr(node, "id", "?")


def _asynchronous(tree):
    for function in _nodes(tree, ast.AsyncFunctionDef):
        own = [node for node in ast.walk(function) if isinstance(node, (ast.Yield, ast.YieldFrom))]
        if own:
            yield function, "async generator"
    for node in _nodes(tree, ast.comprehension):
        if node.is_async:
            yield node.parent, "async comprehension"


def _annotated_constants(tree):
    """`_X: int = const(1)` is not folded: it costs what const() was to save."""
    for node in _nodes(tree, ast.AnnAssign):
        if isinstance(node.value, ast.Call) and _is_name(node.value.func, "const"):
            yield node, "annotated const()"


_RULES = (
    _imports,
    _unpacking,
    _decorators,
    _private_names,
    _classes,
    _step_slices,
    _calls,
    _exceptions,
    _format_strings,
    _bytearrays,
    _asynchronous,
    _annotated_constants,
)
