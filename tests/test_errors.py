# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""docs/errors.md has a row for every error that the library raises or tells, and no other rows."""

import ast
import re
from pathlib import Path

import pytest

import tb_device_mqtt

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SEEN = [row.split(" | ")[0] for row in PAGE.splitlines() if row.startswith("| `")]
LIBRARY = ast.parse((ROOT / "tb_device_mqtt.py").read_text(encoding="utf-8"))
ERRORS = ("TypeError", "ValueError", "LookupError", "OSError", "RuntimeError", "TBError")
# Methods that put words into an error: which argument.
TOLD = {"_expect": 0, "_drop": 1, "_complain": 0}
CAUSES = tb_device_mqtt._CAUSES.split("\n")
REFUSALS = tb_device_mqtt._REFUSALS.split("\n")
WORDS = tuple(cause.split("|")[-1] for cause in CAUSES) + tuple(REFUSALS)
# Between the words that are there whatever the values are; "..." stands for those on the page.
SPLIT = re.compile(r"(?:0x)?%(?:\.\d+)?(?:02)?[a-z]|\.\.\.|: |\(|\{\d\}")


def texts_of(node):
    return [
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def told():
    """Each text that an error is made with."""
    for node in ast.walk(LIBRARY):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            if name in (*ERRORS, "TBTimeoutError"):
                yield from texts_of(node)
            elif name in TOLD and len(node.args) > TOLD[name]:
                yield from texts_of(node.args[TOLD[name]])


def assigned():
    """The same of what is put together in a variable `words` first."""
    for node in ast.walk(LIBRARY):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "words" for target in targets):
                yield from texts_of(node.value)


def distinctive(text):
    """The longest part of it that is there whatever the values are."""
    return max(SPLIT.split(text), key=len).strip(" ,:()")


def all_texts():
    return sorted({*told(), *assigned(), *WORDS})


def test_there_are_errors_to_look_for():
    assert len(set(told())) > 25
    assert len(set(assigned())) > 2
    assert len(SEEN) > 40


@pytest.mark.parametrize("text", all_texts())
def test_every_error_has_a_row(text):
    assert [row for row in SEEN if distinctive(text) in row], text


def test_every_row_is_made_of_words_of_the_library():
    """So a row whose error is gone is noticed."""
    source = " ".join(texts_of(LIBRARY))
    seen = [text for row in SEEN for text in re.findall(r"`(.+?)`", row)]
    assert [
        text for text in seen if not set(re.findall("[a-zA-Z]{4,}", text)) <= known(source)
    ] == []


def known(source):
    return {*re.findall("[a-zA-Z]{4,}", source), "None"}
