# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The repository fits together, and fits circup."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import toml
import yaml

import run
from helpers import do_without, find_tool
from tb_device_mqtt import TBDeviceMqttClient

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = (ROOT / "tb_device_mqtt.py").read_text(encoding="utf-8")
PROJECT = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))  # as circup reads it

# As circup 3 finds metadata in a .py, and a version in a .mpy: there the first x.y.z is taken.
METADATA = re.compile(r"""(__\w+__)(?:\s*:\s*\w+)?\s*=\s*(?:['"]|\(\s)(.+)['"]""")
LIKE_A_VERSION = re.compile(r"""['"]\d+\.\d+\.\d+""")


def version():
    (found,) = re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', LIBRARY, re.MULTILINE)
    return found


def test_the_version_is_one_plain_line():
    assert version()


def test_circup_reads_the_same_version_from_the_source():
    found = dict(METADATA.findall(LIBRARY))
    assert found["__version__"] == version()
    assert found["__repo__"].startswith("https://")
    assert found["__repo__"].endswith(".git")


def test_nothing_that_looks_like_a_version_comes_before_it():
    first = LIKE_A_VERSION.search(LIBRARY)
    line_start = LIBRARY.rindex("\n", 0, first.start()) + 1
    assert LIBRARY[line_start:].startswith("__version__ = ")


def test_the_package_is_the_single_module():
    setuptools = PROJECT["tool"]["setuptools"]
    assert setuptools["py-modules"] == ["tb_device_mqtt"]
    assert "packages" not in setuptools
    assert setuptools["dynamic"]["version"] == {"attr": "tb_device_mqtt.__version__"}
    assert setuptools["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert set(PROJECT["project"]["dynamic"]) == {"version", "dependencies"}


ON_BOARDS = {  # name on PyPI: name of the module in the bundle
    "Adafruit-Blinka": None,  # the board's own modules, for computers
    "adafruit-circuitpython-minimqtt": "adafruit_minimqtt",
    "adafruit-circuitpython-connectionmanager": "adafruit_connection_manager",
    "adafruit-circuitpython-ticks": "adafruit_ticks",
}


def test_circup_finds_the_same_requirements_in_both_files():
    needed = [ON_BOARDS[name] for name, _ in requirements("requirements.txt")]
    assert "adafruit_minimqtt" in needed
    assert [n for n in needed if n] == PROJECT["circup"]["circup_dependencies"]


def test_test_requirements_are_pinned():
    pins = requirements("requirements-test.txt")
    assert pins
    assert [name for name, rest in pins if not re.match(r"==\d", rest)] == []


def requirements(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    matches = [re.match(r"([\w.-]+)(.*)", line) for line in lines]
    return [match.groups() for match in matches if match]


def test_the_changelog_names_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## %s\b" % re.escape(version()), text, re.MULTILINE)


def test_the_files_that_the_project_names_exist():
    for name in (PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]):
        assert (ROOT / name).is_file(), name


# --- the map of the tests ------------------------------------------------------------------------

TESTS = ROOT / "tests"
MAP = (TESTS / "README.md").read_text(encoding="utf-8")
TEST_FILES = {path.stem for path in TESTS.glob("test_*.py")}


def test_the_map_of_the_tests_names_every_file_and_folder():
    helpers = {path.name for path in TESTS.glob("*.py") if path.stem not in TEST_FILES}
    folders = {path.name + "/" for path in TESTS.iterdir() if any(path.glob("**/*.py*"))}
    folders.discard("__pycache__/")
    assert "helpers.py" in helpers and "faults/" in folders
    # A name is whole: test_link is not named where test_link_sockets is.
    named = set(re.findall(r"[\w./]+", MAP))
    assert sorted((TEST_FILES | helpers | folders) - named) == []


def test_the_map_of_the_tests_names_nothing_else():
    assert sorted(set(re.findall(r"\btest_\w+", MAP)) - TEST_FILES) == []
    helpers = MAP[MAP.index("| helper |") :]
    columns = re.findall(r"^\| (.+?) \|", helpers, re.MULTILINE)
    places = [place for column in columns[2:] for place in column.split(", ")]
    assert "faults/" in places and "helpers.py" in places
    assert [place for place in places if not (TESTS / place).exists()] == []


def test_the_map_of_the_tests_marks_the_slow_files_that_quick_leaves_out():
    marked = set(re.findall(r"(test_\w+) \*", MAP))
    assert {name + ".py" for name in marked} == set(run.SLOW_TESTS)
    assert marked <= TEST_FILES


# --- tracked files -------------------------------------------------------------------------------

MACHINE_PATH = re.compile(
    r"(?<![\w.:-])/(?:%s)\b(?!-)" % "|".join(("work", "root", "home", "Users"))
)


@pytest.fixture(scope="module")
def tracked():
    """``{path: text}`` of all text files that are tracked."""
    if not find_tool("git") or not (ROOT / ".git").exists():
        do_without("this is no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    texts = {}
    for name in filter(None, listed.stdout.decode().split("\0")):
        try:
            texts[name] = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
    return texts


def test_no_file_names_a_path_of_one_machine(tracked):
    assert [
        "%s: %s" % (name, line.strip())
        for name, text in tracked.items()
        for line in text.splitlines()
        if MACHINE_PATH.search(line)
    ] == []


def test_every_source_says_its_licence(tracked):
    sources = [name for name in tracked if name.endswith((".py", ".pyi", ".yml", ".toml"))]
    assert sources
    assert [n for n in sources if "SPDX-License-Identifier: MIT" not in tracked[n][:400]] == []


def test_every_file_ends_with_one_newline(tracked):
    texts = {n: text for n, text in tracked.items() if text and not n.endswith((".svg", ".min.js"))}
    assert [
        n for n, text in texts.items() if not text.endswith("\n") or text.endswith("\n\n")
    ] == []


def test_every_file_has_a_licence_that_a_machine_can_read():
    """``reuse lint`` leaves out what git ignores, so it needs a checkout, but no history."""
    if not find_tool("git") or not (ROOT / ".git").exists():
        do_without("this is no git checkout")
    command = [sys.executable, "-m", "reuse", "lint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_copies_of_the_licence_are_the_same():
    """GitHub and pip look for LICENSE, REUSE for LICENSES/MIT.txt."""
    assert (ROOT / "LICENSES" / "MIT.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()


# --- pages for people ----------------------------------------------------------------------------


def test_every_link_of_a_page_leads_to_a_file(tracked):
    pages = {name: text for name, text in tracked.items() if name.endswith(".md")}
    assert {"CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "docs/releasing.md"} <= set(
        pages
    )
    links = [
        (name, link)
        for name, text in pages.items()
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text)
    ]
    assert links
    assert [(n, link) for n, link in links if not (ROOT / n).parent.joinpath(link).exists()] == []


def test_the_commands_and_names_of_contributing_exist(tracked):
    text = tracked["CONTRIBUTING.md"]
    commands = set(re.findall(r"python3 run\.py (\w+)", text))
    assert {"demo", "test", "lint"} <= commands
    assert [name for name in commands if "python3 run.py %s" % name not in tracked["run.py"]] == []
    for path in re.findall(r"tests/test_\w+\.py", text):
        assert path in tracked
    for name in re.findall(r"`(_[a-zA-Z]\w+)`", text):
        if name not in ("_ms", "_s", "_bytes"):
            assert re.search(r"\bdef %s\(|^%s = " % (name, name), LIBRARY, re.MULTILINE), name


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_github_shows_the_form_for_an_issue(name):
    """GitHub leaves out, without a word, a form that lacks one of these."""
    path = ROOT / ".github" / "ISSUE_TEMPLATE" / (name + ".yml")
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    asked = [each for each in form["body"] if each["type"] != "markdown"]
    assert all(each["attributes"]["label"] for each in asked)
    names = [each["id"] for each in asked]
    assert len(set(names)) == len(names)


def test_a_bug_is_reported_with_what_is_needed_and_without_a_token():
    path = ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml"
    form = yaml.safe_load(path.read_text(encoding="utf-8"))["body"]
    required = {each["id"] for each in form if each.get("validations", {}).get("required")}
    assert {"board", "firmware", "console", "program"} <= required
    assert "Never paste an access token" in form[0]["attributes"]["value"]


def test_the_logger_of_the_form_is_one():
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    names = {}
    exec(textwrap.dedent(code), names)
    said = []
    names["print"] = said.append
    logger = names["Console"]
    client = TBDeviceMqttClient("127.0.0.1", access_token="A", strict=False, logger=logger)
    client.send_telemetry({"good": 1, "bad": float("nan")})
    client.check_for_msg()
    assert len(said) == 1
    assert "bad" in said[0]
