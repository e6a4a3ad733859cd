# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What CPython takes and CircuitPython 9 and 10 do not, found in the syntax tree of a source.

Each rule is a generator of ``(node, complaint)`` pairs; `violations` runs them all. Every entry was
tried on CircuitPython 10. What needs types to be found (a slice of a str, say) is found only
where the source shows the type. What MicroPython's compiler refuses by itself is not here.
"""

import ast
import builtins
import re


def _words(text):
    return text.split()


# What boards have of the modules that they share with computers. time.monotonic() is a short float.
_HAVE = {
    "binascii": _words("a2b_base64 b2a_base64 crc32 hexlify unhexlify"),
    "collections": _words("OrderedDict deque namedtuple"),
    "errno": _words(
        """EAGAIN EALREADY EBADF ECONNREFUSED ECONNRESET EEXIST EHOSTUNREACH EINPROGRESS ENOENT
        ENOMEM ENOSPC ENOTCONN EROFS ETIMEDOUT errorcode"""
    ),
    "gc": _words("collect disable enable isenabled mem_alloc mem_free"),
    "hashlib": _words("new"),
    "io": _words("BytesIO StringIO open"),
    "json": _words("dump dumps load loads"),
    "micropython": _words("const"),
    "os": _words(
        """chdir getcwd getenv listdir mkdir remove rename rmdir sep stat statvfs sync uname unlink
        urandom utime"""
    ),
    "random": _words("choice getrandbits randint random randrange seed uniform"),
    "select": _words("POLLERR POLLHUP POLLIN POLLOUT poll select"),
    "ssl": _words("SSLContext SSLSocket create_default_context"),
    "struct": _words("calcsize pack pack_into unpack unpack_from"),
    "sys": _words(
        """argv byteorder executable exit implementation maxsize modules path platform stderr
        stdin stdout version version_info"""
    ),
    "time": _words("localtime mktime monotonic_ns sleep struct_time time"),
    "zlib": _words("decompress"),
}
_BOARDS_ONLY = _words("adafruit_* microcontroller rtc socketpool storage supervisor wifi")
_NOT_EVERYWHERE = _words("hashlib rtc select socket socketpool ssl wifi zlib")
_TYPING = _words("typing circuitpython_typing")

_BUILTINS = _words(
    """ArithmeticError AssertionError AttributeError BaseException BrokenPipeError ConnectionError
    EOFError Ellipsis Exception FutureWarning GeneratorExit ImportError IndentationError IndexError
    KeyError KeyboardInterrupt LookupError MemoryError NameError NotImplemented NotImplementedError
    OSError OverflowError RuntimeError StopAsyncIteration StopIteration SyntaxError SystemExit
    TimeoutError TypeError UnicodeError ValueError Warning ZeroDivisionError __import__ __name__ abs
    all any bin bool bytearray bytes callable chr classmethod compile complex delattr dict dir
    divmod enumerate eval exec filter float frozenset getattr globals hasattr hash hex id int
    isinstance issubclass iter len list locals map max memoryview min next object oct open ord pow
    print property range repr reversed round set setattr slice sorted staticmethod str sum super
    tuple type zip"""
)  # and input and help, which no library has a use for
_NEVER_RAISED = _words("TimeoutError ConnectionError BrokenPipeError")  # by a socket
_MISSING_METHODS = _words(
    """zfill ljust rjust title removeprefix removesuffix casefold hexdigest tobytes expandtabs
    isidentifier isprintable translate maketrans fromhex with_traceback add_note _replace"""
) + _words("recv fileno makefile shutdown getpeername sendall")  # some sockets have these
_MISSING_ATTRIBUTES = _words(
    "__annotations__ __cause__ __context__ __dict__ __doc__ __traceback__ nbytes readonly"
)
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


def _number(node):
    value = getattr(node, "value", None)
    return value if isinstance(value, (int, float)) else 0


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
            if _may_be_absent(node):
                continue
            if top in _TYPING:
                yield node, "import %s outside of try" % name
            elif top not in _HAVE and top != "socket" and not _is_of_boards(top):
                yield node, "import " + name
            elif top in _NOT_EVERYWHERE and not _is_in_function(node):
                yield node, "import %s outside of a function: not every machine has it" % name


def _is_of_boards(module):
    return any(
        module == name or (name[-1] == "*" and module.startswith(name[:-1]))
        for name in _BOARDS_ONLY
    )


def _is_in_function(node):
    return any(isinstance(above, ast.FunctionDef) for above in _ancestors(node))


def _may_be_absent(node):
    """Whether it stands in a try that bears an ImportError, or where that one leads."""
    while hasattr(node, "parent"):
        above = node.parent
        if isinstance(node, ast.ExceptHandler) and _catches_import_error(node):
            return True
        handlers = above.handlers if isinstance(above, ast.Try) and node in above.body else ()
        if any(map(_catches_import_error, handlers)):
            return True
        node = above
    return False


def _catches_import_error(handler):
    return any(_is_name(node, "ImportError") for node in ast.walk(handler.type or handler))


def _names_of_modules(tree):
    modules = {alias.name for node in _nodes(tree, ast.Import) for alias in node.names}
    found = [
        (node, node.module, alias.name)
        for node in _nodes(tree, ast.ImportFrom)
        for alias in node.names
    ]
    found += [
        (node, node.value.id, node.attr)
        for node in _nodes(tree, ast.Attribute)
        if _is_name(node.value, *modules)
    ]
    for node, module, name in found:
        if module in _HAVE and name not in _HAVE[module] and not _may_be_absent(node):
            yield node, "%s.%s" % (module, name)


def _annotations(tree):
    """They are looked at on CPython alone, and there as Python 3.9 understands them."""
    found = [node.annotation for node in _nodes(tree, ast.arg, ast.AnnAssign) if node.annotation]
    found += [node.returns for node in _nodes(tree, ast.FunctionDef) if node.returns]
    inside = [node for annotation in found for node in ast.walk(annotation)]
    for node in inside:
        if isinstance(node, ast.BinOp):
            yield node, "X | Y in an annotation"
    types = {
        alias.name
        for node in _nodes(tree, ast.ImportFrom)
        if node.module in _TYPING
        for alias in node.names
    }
    for node in _nodes(tree, ast.Name):
        if node.id in types and node not in inside:
            yield node, node.id + " outside of an annotation"


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
        if len(class_.bases) > 1:
            yield class_, "two bases: the order of their methods differs"
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
        if _is_name(call.func, "str") and len(call.args) > 1:
            if len(call.args) > 2:
                yield call, "str() with an error handler, which is ignored"
            elif not _is_utf_8(call.args[1]):
                yield call, "str() is of UTF-8 always"
        if _is_name(call.func, "zip") and call.keywords:
            yield call, "zip() with keywords"
        if _is_name(call.func, "deque") and (call.keywords or len(call.args) < 2):
            yield call, "deque() takes an iterable and a length"
        if _is_name(call.func, "isinstance") and isinstance(call.args[1], ast.BinOp):
            yield call, "isinstance() of X | Y"
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        if name == "getrandbits" and _number(call.args[0]) > 32:
            yield call, "getrandbits() of more than 32"
        if isinstance(call.func, ast.Attribute):
            yield from _method_call(call, call.func.attr)


def _method_call(call, name):
    if name in _MISSING_METHODS:
        yield call, ".%s()" % name
    if name in _NO_KEYWORDS and call.keywords:
        yield call, ".%s() with keywords" % name
    if name in ("encode", "decode") and len(call.args) > 1:
        yield call, ".%s() with an error handler, which is ignored" % name
    elif name in ("encode", "decode") and call.args and not _is_utf_8(call.args[0]):
        yield call, ".%s() is of UTF-8 always" % name
    if name in ("dump", "dumps") and any(each.arg != "separators" for each in call.keywords):
        yield call, "json.%s() with keywords" % name
    if name in ("from_bytes", "to_bytes") and any(each.arg == "signed" for each in call.keywords):
        yield call, ".%s() with signed" % name
    if name == "settimeout" and 0 < _number(call.args[0]) < 0.001:
        yield call, "settimeout() of less than a millisecond is 0"


def _is_utf_8(node):
    return getattr(node, "value", None) in ("utf-8", "utf8")


def _builtins(tree):
    own = {node.name for node in _nodes(tree, ast.FunctionDef, ast.ClassDef)}
    own |= {node.id for node in _nodes(tree, ast.Name) if isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in _nodes(tree, ast.arg)}
    own |= {
        alias.asname or alias.name
        for node in _nodes(tree, ast.Import, ast.ImportFrom)
        for alias in node.names
    }
    for node in _nodes(tree, ast.Name):
        if hasattr(builtins, node.id) and node.id not in _BUILTINS and node.id not in own:
            yield node, node.id


def _attributes(tree):
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    asked_for = {
        getattr(call.args[1], "value", None)
        for call in _nodes(tree, ast.Call)
        if _is_name(call.func, "getattr", "hasattr")
    }
    for node in _nodes(tree, ast.Attribute):
        if node.attr in _MISSING_ATTRIBUTES and node.attr not in asked_for:
            yield node, "." + node.attr
        if isinstance(node.ctx, ast.Store) and _is_name(node.value, *functions):
            yield node, "attribute of a function"


def _exceptions(tree):
    for node in _nodes(tree, ast.Raise):
        if node.cause is not None and getattr(node.cause, "value", node) is not None:
            yield node, "raise from: not every board keeps the cause"
    handlers = [node for node in _nodes(tree, ast.ExceptHandler) if node.type is not None]
    for node in [each for handler in handlers for each in ast.walk(handler.type)]:
        if _is_name(node, *_NEVER_RAISED):
            yield node, "except %s: boards raise OSError" % node.id
    catchers = [
        handler
        for handler in _nodes(tree, ast.ExceptHandler)
        if handler.type is None or _is_name(handler.type, "Exception", "BaseException")
    ]
    for handler in catchers[4:]:
        yield (
            handler,
            "except Exception a fifth time: a value, a handler, a server, a network",
        )


def _order_of_dicts(tree):
    """Dicts keep none: where a dict's first or last is taken, any may come."""
    for call in _nodes(tree, ast.Call):
        if getattr(call.func, "attr", "") == "popitem":
            yield call, ".popitem() takes any"
        is_first = _is_name(call.func, "next") and isinstance(call.args[0], ast.Call)
        if is_first and _is_name(call.args[0].func, "iter"):
            yield call, "next(iter()) takes any of a dict"
    for node in _nodes(tree, ast.Subscript):
        if isinstance(node.value, ast.Call) and _is_name(node.value.func, "list"):
            yield node, "list()[...] takes any of a dict"
    for node in _nodes(tree, ast.BinOp):
        for side in (node.left, node.right):
            name = getattr(getattr(side, "func", None), "attr", "")
            if name in ("keys", "items") and isinstance(node.op, (ast.BitAnd, ast.BitOr, ast.Sub)):
                yield node, ".%s() is no set" % name


def _changes_while_iterated(tree):
    """Of a dict it raises nothing on boards, and what comes next is anything."""
    for loop in _nodes(tree, ast.For):
        walked = loop.iter
        if isinstance(walked, ast.Call) and isinstance(walked.func, ast.Attribute):
            walked = walked.func.value
        if isinstance(walked, (ast.Name, ast.Attribute)):
            same = ast.dump(walked)
            for node in [inner for step in loop.body for inner in ast.walk(step)]:
                changed = _what_changes(node)
                if changed is not None and ast.dump(changed) == same:
                    yield node, "changed while it is iterated"


def _what_changes(node):
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Del):
        return node.value
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("pop", "clear", "update"):
        return node.func.value
    return None


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


def _constants(tree):
    """Folded are private names of a module, by a plain assignment: all else costs memory."""
    for call in _nodes(tree, ast.Call):
        if _is_name(call.func, "const"):
            owner = call.parent
            target = getattr(owner, "targets", [None])[0]
            if isinstance(owner, ast.AnnAssign):
                yield call, "annotated const()"
            elif owner not in tree.body or not _is_private_name(target):
                yield call, "const() of no private name of the module"
    for node in tree.body:
        value = getattr(node, "value", None)
        is_number = isinstance(value, ast.Constant) and type(value.value) is int
        if is_number and isinstance(node, ast.Assign) and _is_private_name(node.targets[0]):
            yield node, "number without const()"


def _is_private_name(node):
    return isinstance(node, ast.Name) and node.id[0] == "_" and node.id[1:2] != "_"


_RULES = (
    _imports,
    _names_of_modules,
    _annotations,
    _unpacking,
    _decorators,
    _private_names,
    _classes,
    _step_slices,
    _calls,
    _builtins,
    _attributes,
    _exceptions,
    _order_of_dicts,
    _changes_while_iterated,
    _format_strings,
    _bytearrays,
    _asynchronous,
    _constants,
)
