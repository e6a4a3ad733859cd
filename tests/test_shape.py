# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What `python3 run.py shape` counts, and that it fails above each limit."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import shape
from tools.shape import Shape

ROOT = Path(__file__).resolve().parent.parent

SAMPLE = '''\
"""A module
with two lines of docstring."""

NUMBERS = (
    1,  # a comment
    2,
)


class Box:
    """One line."""

    def put(self, thing):
        """Two
        lines.
        """
        if thing:
            # a comment between two statements counts as a line of the function
            self.things.append(thing)

    def nothing(self):
        """No code."""


def outer(values):
    def inner(value):
        return value + 1

    return [inner(value) for value in values if value]
'''

BRANCHES = {
    "pass": 1,
    "if a: pass": 2,
    "if a: pass\n    else: pass": 2,
    "if a: pass\n    elif b: pass": 3,
    "for a in b: pass": 2,
    "while a: pass": 2,
    "try: pass\n    except OSError: pass\n    except ValueError: pass": 3,
    "return a and b and c": 2,
    "return a and b or c": 3,
    "return a if b else c": 2,
    "return [a for a in b for c in a]": 3,
    "return {a: b for a in c}": 2,
    "with a: pass": 1,
}

NESTING = {
    "pass": 0,
    "if a: pass\n    elif b: pass\n    elif c: pass": 1,
    "if a: pass\n    else:\n        if b: pass\n        c()": 2,
    "for a in b:\n        while c:\n            with d: pass": 3,
    "try: pass\n    except OSError:\n        if a: pass": 2,
}


def one_function(body, name="f"):
    return "def %s(a):\n    %s\n" % (name, body)


def function_of(source, name="f"):
    (found,) = (each for each in Shape("sample", source).functions if each.name == name)
    return found


def many_lines(count):
    return "\n    ".join(["a = 1"] * count)


def many_branches(count):
    """The body of a function with *count* branches, in three lines."""
    return "b = [%s]\n    a = 2\n    return b" % ", ".join(["a if a else 1"] * (count - 1))


def class_of(lines=1, methods=0):
    """A class of so many lines, the methods among them."""
    body = ["    def m%d(self): pass" % number for number in range(methods)]
    body += ["    a = 1"] * (lines - 1 - methods)
    return "class C:\n%s\n" % "\n".join(body)


# --- counting ------------------------------------------------------------------------------------


def test_code_lines_are_those_without_blanks_comments_and_docstrings():
    assert Shape("sample", SAMPLE).code_lines == 13


def test_a_function_is_as_long_as_its_body_without_docstring():
    assert function_of(SAMPLE, "put").lines == 3
    assert function_of(SAMPLE, "nothing").lines == 0


def test_a_function_inside_another_counts_on_its_own():
    assert function_of(SAMPLE, "inner").lines == 1
    assert function_of(SAMPLE, "outer").lines == 2
    source = "def outer(a):\n    def inner():\n        if a: pass\n    return inner\n"
    assert function_of(source, "inner").branches == 2
    assert function_of(source, "outer").branches == 1
    assert function_of(source, "outer").nesting == 0


@pytest.mark.parametrize("body", BRANCHES)
def test_branches(body):
    assert function_of(one_function(body)).branches == BRANCHES[body]


@pytest.mark.parametrize("body", NESTING)
def test_nesting(body):
    assert function_of(one_function(body)).nesting == NESTING[body]


def test_calls_in_calls_are_counted_at_the_deepest_place():
    assert function_of(one_function("a(b(c()), d())")).nested_calls == 3
    assert function_of(one_function("a().b().c")).nested_calls == 2
    assert function_of(one_function("a(); b()")).nested_calls == 1


def test_a_class_is_as_long_as_all_of_it_without_docstrings():
    (box,) = Shape("sample", SAMPLE).classes
    assert (box.lines, box.methods) == (8, 2)


def test_median_p90_and_mean():
    functions = [one_function(many_lines(lines), "f%d" % lines) for lines in range(1, 11)]
    sample = Shape("sample", "".join(functions))
    assert sample.median_lines() == 5.5
    assert sample.p90_lines() == 9
    assert sample.mean("branches") == 1


def test_a_file_without_functions_has_figures_too():
    assert Shape("sample", "A = 1\n").complaints() == []
    assert "code lines" in shape.table([Shape("sample", "A = 1\n")])


# --- limits --------------------------------------------------------------------------------------

SHORT = "".join(one_function("pass", "short%d" % number) for number in range(9))


@pytest.mark.parametrize(
    ("largest", "larger", "sentence"),
    [
        (
            SHORT + one_function(many_lines(40), "long"),
            SHORT + one_function(many_lines(41), "long"),
            "sample: long() has 41 lines, the limit is 40",
        ),
        (
            SHORT + one_function(many_branches(10), "fork"),
            SHORT + one_function(many_branches(11), "fork"),
            "sample: fork() has 11 branches, the limit is 10",
        ),
        (
            one_function(many_lines(8)),
            one_function(many_lines(9)),
            "sample: the median function has 9 lines, the limit is 8",
        ),
        (
            one_function(many_branches(3)),
            one_function(many_branches(4)),
            "sample: its functions have 4.00 branches on average, the limit is 3.3",
        ),
        (
            class_of(lines=600),
            class_of(lines=601),
            "sample: class C has 601 lines, the limit is 600",
        ),
        (
            class_of(lines=60, methods=45),
            class_of(lines=60, methods=46),
            "sample: class C has 46 methods, the limit is 45",
        ),
    ],
    ids=("lines", "branches", "median", "mean", "class_lines", "methods"),
)
def test_each_limit_is_kept_and_its_excess_told(largest, larger, sentence):
    assert Shape("sample", largest).complaints() == []
    assert Shape("sample", larger).complaints() == [sentence]


def test_init_may_have_any_number_of_branches():
    assert Shape("sample", SHORT + one_function(many_branches(20), "__init__")).complaints() == []


# --- the command ---------------------------------------------------------------------------------


def run_shape(*arguments):
    command = [sys.executable, str(ROOT / "run.py"), "shape", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_a_table_and_what_is_wrong(tmp_path):
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(SAMPLE, encoding="utf-8")
    bad.write_text(SHORT + one_function(many_lines(41), "long"), encoding="utf-8")
    assert run_shape(good).returncode == 0
    result = run_shape(good, bad)
    assert result.returncode == 1
    assert result.stderr == "bad: long() has 41 lines, the limit is 40\n"
    heading, *rows = [line.split() for line in result.stdout.splitlines()]
    assert heading == ["good", "bad", "limit"]
    assert ["longest", "3", "put", "41", "long", "40"] in rows


def test_without_names_it_takes_the_module_and_its_companions():
    heading = run_shape().stdout.splitlines()[0].split()
    assert heading == [*sorted(path.stem for path in ROOT.glob("tb_device_*.py")), "limit"]
    assert "tb_device_mqtt" in heading


def test_help_says_that_docstrings_are_free():
    assert "docstrings. Those are free" in run_shape("--help").stdout
