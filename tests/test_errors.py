# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""docs/errors.md has a row for every error that the library raises or tells."""

import ast
import re
from pathlib import Path

import tb_device_mqtt

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
LIBRARY = ast.parse((ROOT / "tb_device_mqtt.py").read_text(encoding="utf-8"))
ERRORS = ("TypeError", "ValueError", "LookupError", "OSError", "RuntimeError", "TBError")
INTERNAL = ("nothing to read",)  # what a stand-in tells MiniMQTT, and nobody else
WORDS = tuple(words for _, words in tb_device_mqtt._TLS_WORDS) + tb_device_mqtt._REFUSALS
SPLIT = re.compile(r"(?:0x)?%(?:\.\d+)?(?:02)?[a-z]")


def texts_of(node):
    return [
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def raised():
    """The longest literal piece of each text that an error is made with."""
    for node in ast.walk(LIBRARY):
        is_error = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if is_error and node.func.id in (*ERRORS, "TBTimeoutError"):
            for text in texts_of(node):
                yield max(SPLIT.split(text), key=len).strip(" :()[]{}.")


def assigned():
    """The same of what is put together in a variable `words` first."""
    for node in ast.walk(LIBRARY):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "words" for target in targets):
                for text in texts_of(node.value):
                    yield max(SPLIT.split(text), key=len).strip(" :()[]{}.")


def test_there_are_errors_to_look_for():
    assert len(list(raised())) > 40
    assert len(list(assigned())) > 8


def test_every_error_has_a_row():
    texts = {*raised(), *assigned(), *WORDS} - {*INTERNAL, ""}
    assert sorted(text for text in texts if text not in PAGE) == []
