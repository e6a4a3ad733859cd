# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The real circup installs the library: from the files of a release, onto a drive and over Wi-Fi.

The files are those that ``python3 run.py bundle`` makes. A board with CircuitPython 10 gets the
.mpy files, one with 9 the .py files, because no compiler for 9 was given.
"""

import json
import re
import shutil
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from circup import compiler
from circup.github import GitHub
from circup.seed import (
    ADAFRUIT,
    BUILT_IN,
    COMMUNITY_EXAMPLE,
    COMMUNITY_VERSION,
    LIBRARY,
    PLATFORM,
    Computer,
    Drive,
    Releases,
    add_adafruit_bundle,
    add_community_bundle,
    add_library,
    copy_checkout,
    release_name,
)
from circup.webworkflow import WebWorkflow
from helpers import do_without, free_port

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (ROOT / "tb_device_mqtt.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE).group(1)
PYPI_NAME = "thingsboard-circuitpython-client-sdk"
ALIAS = "thingsboard_client_sdk"
NEEDED = ["adafruit_connection_manager", "adafruit_minimqtt", "adafruit_ticks"]
PASSWORD = "passw0rd"
MPY, PY = "10.0.3", "9.2.9"  # versions of CircuitPython

ON_EACH_BOARD = pytest.mark.parametrize(
    ("way", "layout"), [("drive", MPY), ("drive", PY), ("web", MPY), ("web", PY)]
)
BY_EACH_WAY = pytest.mark.parametrize("way", ["drive", "web"])

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="circup 3 needs Python 3.10 or newer"
)


def files(layout, *modules):
    """Names in lib; MiniMQTT is a package."""
    suffix = ".mpy" if layout == MPY else ".py"
    return sorted(name if name == "adafruit_minimqtt" else name + suffix for name in modules)


# --- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def program():
    found = shutil.which("circup", path=str(Path(sys.executable).parent))
    return found or do_without("circup is missing: pip install -r requirements-test.txt")


@pytest.fixture(scope="session")
def mpy_cross(tmp_path_factory):
    return compiler.install(tmp_path_factory.mktemp("compiler"))


@pytest.fixture(scope="session")
def releases(mpy_cross, tmp_path_factory):
    """Of the two bundles that circup knows by itself, and ours as run.py makes it."""
    made = Releases(tmp_path_factory.mktemp("releases"))
    add_library(made, ROOT, VERSION, mpy_cross)
    add_adafruit_bundle(made, mpy_cross, tmp_path_factory.mktemp("compiling"))
    add_community_bundle(made)
    return made


def make_computer(home, program, releases, *added):
    """One that has everything in store, and on which the bundles *added* were added."""
    computer = Computer(home, program)
    computer.unpack(releases, *added, *BUILT_IN)
    if added:
        computer.know(*added)
    return computer


@pytest.fixture(scope="session")
def plain_computer(program, releases, tmp_path_factory):
    """circup as it comes."""
    return make_computer(tmp_path_factory.mktemp("plain"), program, releases)


@pytest.fixture(scope="session")
def computer(program, releases, tmp_path_factory):
    """circup after ``circup bundle-add`` of our repository."""
    return make_computer(tmp_path_factory.mktemp("added"), program, releases, LIBRARY)


class Board:
    """A board, and circup on *computer* to work on it."""

    def __init__(self, computer, drive, web=None, password=PASSWORD):
        self.computer, self.drive, self.web = computer, drive, web
        self.address = ["--path", str(drive.folder)]
        if web is not None:
            self.address = ["--host", "127.0.0.1", "--port", str(web.port)]
            self.address += ["--password", password] if password else []

    def try_circup(self, *arguments, **options):
        """``(exit status, words)``"""
        return self.computer.circup("--offline", *self.address, *arguments, **options)

    def circup(self, *arguments, **options):
        """The words; it went well, and circup says when it did not only in words."""
        status, words = self.try_circup(*arguments, **options)
        assert status == 0, words
        for complaint in ("WARNING", "Aborted", "Unknown module", "not found", "went wrong"):
            assert complaint not in words
        return words


@pytest.fixture
def make_board(tmp_path, computer):
    with ExitStack() as stack:

        def make(
            way="drive",
            layout=MPY,
            owner=computer,
            password=PASSWORD,
            web_password=PASSWORD,
            writable=True,
        ):
            drive = Drive(tmp_path / ("CIRCUITPY on " + way), layout)
            web = None
            if way == "web":
                web = WebWorkflow(drive.folder, layout, web_password, writable)
                stack.enter_context(web)
            return Board(owner, drive, web, password)

        yield make


def release(releases, repo, layout):
    """Path of the zip with the modules for a board of that *layout*."""
    tag = releases.latest_tag(repo)
    platform = PLATFORM if layout == MPY else "py"
    return releases.folder / repo / tag / (release_name(repo, platform, tag) + ".zip")


@pytest.fixture
def make_full_board(make_board, releases):
    """A board on which everything is installed already."""

    def make(way, layout):
        board = make_board(way, layout)
        for repo in (LIBRARY, ADAFRUIT):
            board.drive.copy(release(releases, repo, layout))
        return board

    return make


# --- installing ----------------------------------------------------------------------------------


@ON_EACH_BOARD
def test_the_name_on_pypi_installs_everything(make_board, way, layout):
    board = make_board(way, layout)
    board.circup("install", PYPI_NAME)
    assert board.drive.modules() == files(layout, "tb_device_mqtt", ALIAS, *NEEDED)


@BY_EACH_WAY
def test_the_name_to_import_installs_everything_but_the_other_name(make_board, way):
    board = make_board(way)
    board.circup("install", "tb_device_mqtt")
    assert board.drive.modules() == files(MPY, "tb_device_mqtt", *NEEDED)


def test_a_requirements_file_may_say_the_name_on_pypi(make_board, tmp_path):
    (tmp_path / "requirements.txt").write_text(PYPI_NAME + ">=%s\n" % VERSION)
    board = make_board()
    board.circup("install", "-r", str(tmp_path / "requirements.txt"))
    assert board.drive.modules() == files(MPY, "tb_device_mqtt", ALIAS, *NEEDED)


@BY_EACH_WAY
@pytest.mark.parametrize("module", ["tb_device_mqtt", ALIAS])
def test_auto_installs_what_the_program_imports(make_board, way, module):
    board = make_board(way)
    program = "import time\nfrom %s import TBDeviceMqttClient\n" % module
    (board.drive.folder / "code.py").write_text(program)
    board.circup("install", "--auto")
    assert board.drive.modules() == files(MPY, *{"tb_device_mqtt", module, *NEEDED})


@BY_EACH_WAY
def test_the_file_of_a_checkout_is_installed_from_inside_it(make_board, way):
    board = make_board(way)
    needed = ("adafruit_minimqtt", "adafruit_ticks")  # they bring adafruit_connection_manager
    board.circup("install", "./tb_device_mqtt.py", *needed, folder=ROOT)
    assert board.drive.modules() == sorted(["tb_device_mqtt.py", *files(MPY, *NEEDED)])
    assert (board.drive.lib / "tb_device_mqtt.py").read_text(encoding="utf-8") == SOURCE


def test_the_source_is_installed_on_request(make_board):
    board = make_board()
    board.circup("install", "--py", PYPI_NAME)
    assert board.drive.modules() == files(PY, "tb_device_mqtt", ALIAS, *NEEDED)
    assert (board.drive.lib / "tb_device_mqtt.py").read_text(encoding="utf-8") == SOURCE


def test_the_password_may_come_from_the_environment(make_board):
    board = make_board("web", password=None)
    board.circup("install", PYPI_NAME, CIRCUP_WEBWORKFLOW_PASSWORD=PASSWORD)
    assert "tb_device_mqtt.mpy" in board.drive.modules()


@BY_EACH_WAY
def test_every_example_of_the_bundle_gets_onto_the_board(make_board, releases, way):
    board = make_board(way)
    with zipfile.ZipFile(release(releases, LIBRARY, PY)) as archive:
        paths = [name for name in archive.namelist() if "/examples/tb_device_mqtt/" in name]
    names = {path.split("/")[-1] for path in paths}
    assert "tb_device_mqtt_simpletest.py" in names
    board.circup("example", *["tb_device_mqtt/" + name.replace(".py", "") for name in names])
    assert names <= {path.name for path in board.drive.folder.iterdir()}


# --- what is installed ---------------------------------------------------------------------------


@ON_EACH_BOARD
def test_circup_finds_the_version_and_nothing_to_update(make_full_board, way, layout):
    board = make_full_board(way, layout)
    frozen = board.circup("freeze").splitlines()
    assert "tb_device_mqtt==" + VERSION in frozen
    assert "%s==%s" % (ALIAS, VERSION) in frozen
    assert "are up to date" in board.circup("list")


@ON_EACH_BOARD
def test_an_update_replaces_an_older_version_and_brings_what_is_missing(
    make_full_board, releases, way, layout
):
    board = make_full_board(way, layout)
    (name,) = files(layout, "tb_device_mqtt")
    new = (board.drive.lib / name).read_bytes()
    board.drive.change(name, VERSION.encode(), b"0.0.0")
    (needed,) = files(layout, "adafruit_ticks")
    (board.drive.lib / needed).unlink()
    listed = board.circup("list")
    assert re.search(r"tb_device_mqtt +0\.0\.0 +%s" % re.escape(VERSION), listed)
    board.circup("update", "--all")
    assert (board.drive.lib / name).read_bytes() == new
    assert needed in board.drive.modules()


@BY_EACH_WAY
def test_a_newer_file_of_a_checkout_outlives_an_update(make_full_board, way):
    board = make_full_board(way, PY)
    board.drive.change("tb_device_mqtt.py", VERSION.encode(), b"99.0.0")
    assert "need an update" in board.circup("update", "--all")
    assert b'"99.0.0"' in (board.drive.lib / "tb_device_mqtt.py").read_bytes()


@BY_EACH_WAY
def test_uninstall_takes_away_what_is_named(make_full_board, way):
    board = make_full_board(way, MPY)
    board.circup("uninstall", "tb_device_mqtt", ALIAS, "adafruit_minimqtt")
    left = {"adafruit_connection_manager", "adafruit_ticks"}
    assert board.drive.modules() == files(MPY, *left)
    assert "tb_device_mqtt" not in board.circup("freeze")


# --- bundle-add ----------------------------------------------------------------------------------


def test_bundle_add_makes_the_name_on_pypi_known(program, releases, computer, tmp_path):
    fresh = Computer(tmp_path / "home", program)
    board = Board(fresh, Drive(tmp_path / "CIRCUITPY", MPY))
    with GitHub(releases, tmp_path) as github:
        status, words = fresh.circup("bundle-add", LIBRARY, **github.variables)
        assert status == 0, words
        assert "Added " + LIBRARY in words
        command = ("install", PYPI_NAME)
        status, words = fresh.circup(*board.address, *command, **github.variables)
        assert status == 0, words
        assert "WARNING" not in words
    assert board.drive.modules() == files(MPY, "tb_device_mqtt", ALIAS, *NEEDED)
    assert kept(fresh.data) == kept(computer.data)  # which the other tests take for granted


def kept(data):
    """What circup has in its folder *data*, but for its copies of what was downloaded."""
    paths = [path for path in data.rglob("*") if path.is_file() and path.suffix != ".zip"]
    content = {str(path.relative_to(data)): path.read_bytes() for path in paths}
    listed = {name: json.loads(content[name]) for name in content if name.endswith(".json")}
    return {
        name: listed.get(name, found)
        for name, found in content.items()
        if not name.endswith("bundle_examples.json")  # made when it is first asked for
    }


def test_update_brings_the_next_release_and_a_pin_an_older_one(
    releases, mpy_cross, make_full_board, program, tmp_path
):
    board = make_full_board("drive", MPY)
    board.computer = make_computer(tmp_path / "home", program, releases, LIBRARY)
    published = Releases(shutil.copytree(releases.folder, tmp_path / "releases"))
    line = '__version__ = "%s"\n'
    checkout = copy_checkout(ROOT, tmp_path / "checkout", line % VERSION, line % "99.0.0")
    add_library(published, checkout, "99.0.0", mpy_cross)
    with GitHub(published, tmp_path) as github:
        command = (*board.address, "update", "--all")
        status, words = board.computer.circup(*command, **github.variables)
    assert status == 0, words
    assert "tb_device_mqtt==99.0.0" in board.circup("freeze")
    older = ("--bundle-version", LIBRARY + "=" + VERSION)
    board.circup(*older, "install", "--upgrade", "tb_device_mqtt")
    assert "tb_device_mqtt==" + VERSION in board.circup("freeze")


def test_without_a_release_bundle_add_says_so_only_in_words(program, tmp_path):
    fresh = Computer(tmp_path / "home", program)
    with GitHub(Releases(tmp_path / "none"), tmp_path) as github:
        status, words = fresh.circup("bundle-add", LIBRARY, **github.variables)
    assert "Bundle invalid" in words
    assert status == 0


# --- what circup gets wrong, or only tells in words ----------------------------------------------
# docs/installing.md says what to do instead. When one of these fails, circup and that page can be
# brought together again.

UNKNOWN = {  # what is typed: what circup looks for
    "CircuitPython_thingsboard-client-sdk": "circuitpython_thingsboard_client_sdk",
    "tb-device-mqtt": "tb-device-mqtt",
    "tb_device_mqtt==" + VERSION: "tb_device_mqtt==" + VERSION,
    "tb_device": "tb_device",
}


def test_circup_exits_with_0_for_names_that_it_does_not_know(make_board):
    board = make_board()
    status, words = board.try_circup("install", *UNKNOWN, "adafruit_ticks")
    for name in UNKNOWN.values():
        assert "%s is not a known CircuitPython library" % name in words
    assert board.drive.modules() == files(MPY, "adafruit_ticks")  # it goes on with the others
    assert status == 0


def test_circup_does_not_know_the_name_on_pypi_without_bundle_add(make_board, plain_computer):
    board = make_board(owner=plain_computer)
    status, words = board.try_circup("install", PYPI_NAME)
    assert "thingsboard_client_sdk is not a known CircuitPython library" in words
    assert board.drive.modules() == []
    assert status == 0


def test_circup_installs_the_module_of_the_community_bundle_without_bundle_add(
    make_board, plain_computer
):
    board = make_board(owner=plain_computer)
    board.circup("install", "tb_device_mqtt")
    assert "tb_device_mqtt==" + COMMUNITY_VERSION in board.circup("freeze")


def test_circup_installs_nothing_that_a_local_file_needs(make_board):
    board = make_board()
    board.circup("install", "./tb_device_mqtt.py", folder=ROOT)
    assert board.drive.modules() == ["tb_device_mqtt.py"]


def test_circup_keeps_an_installed_module_unless_told_to_upgrade(make_full_board):
    board = make_full_board("drive", PY)
    board.drive.change("tb_device_mqtt.py", VERSION.encode(), b"0.0.0")
    words = board.circup("install", "./tb_device_mqtt.py", folder=ROOT)
    assert "'tb_device_mqtt' is already installed" in words
    assert b'"0.0.0"' in (board.drive.lib / "tb_device_mqtt.py").read_bytes()
    board.circup("install", "--upgrade", "./tb_device_mqtt.py", folder=ROOT)
    assert (board.drive.lib / "tb_device_mqtt.py").read_text(encoding="utf-8") == SOURCE


@pytest.mark.parametrize("name", ["my-circuitpython-sdk", "Capital"])
def test_circup_changes_the_path_of_a_local_file(make_board, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(ROOT / "tb_device_mqtt.py", folder)
    board = make_board()
    _, words = board.try_circup("install", str(folder / "tb_device_mqtt.py"))
    assert "is not a known CircuitPython library" in words
    board.circup("install", "./tb_device_mqtt.py", folder=folder)  # from inside
    assert board.drive.modules() == ["tb_device_mqtt.py"]


def test_circup_can_not_read_a_web_workflow_drive_without_lib(make_board):
    board = make_board("web")
    board.drive.lib.rmdir()
    status, words = board.try_circup("install", PYPI_NAME)
    assert status == 1
    assert "Traceback" in words
    assert "404" in words
    board.computer.wwshell(*board.address, "mkdir", "lib/")
    board.circup("install", PYPI_NAME)
    assert "tb_device_mqtt.mpy" in board.drive.modules()


def test_wwshell_makes_a_file_of_a_folder_without_a_slash(make_board):
    board = make_board("web")
    board.drive.lib.rmdir()
    board.computer.wwshell(*board.address, "mkdir", "lib")
    assert board.drive.lib.is_file()


def test_circup_measures_the_source_even_if_it_copies_the_mpy(make_full_board, tmp_path):
    board = make_full_board("web", MPY)
    compiled = board.drive.lib / "tb_device_mqtt.mpy"
    copy = compiled.replace(tmp_path / compiled.name)
    board.web.leave_room(copy.stat().st_size * 2)
    status, words = board.try_circup("install", "tb_device_mqtt")
    needed = len(SOURCE.encode())
    assert "Aborted installing module tb_device_mqtt - it needs %d bytes" % needed in words
    assert not compiled.exists()
    assert status == 0
    board.circup("install", "./" + copy.name, folder=tmp_path)  # a local file is measured itself
    assert compiled.read_bytes() == copy.read_bytes()


def test_circup_renames_an_example_on_a_drive_but_not_over_web_workflow(make_board):
    for way, name in (("drive", "code.py"), ("web", "send_telemetry.py")):
        board = make_board(way)
        words = board.circup("example", "--rename", COMMUNITY_EXAMPLE)
        assert "Copying: code.py" in words
        (path,) = board.drive.folder.glob("*.py")
        assert path.name == name
        path.unlink()


def test_wwshell_renames_an_example(make_board):
    board = make_board("web")
    board.circup("example", COMMUNITY_EXAMPLE)
    board.computer.wwshell(*board.address, "mv", "send_telemetry.py", "code.py")
    assert [path.name for path in board.drive.folder.glob("*.py")] == ["code.py"]


def test_circup_ends_in_a_traceback_when_the_password_is_wrong(make_board):
    status, words = make_board("web", password="wrong").try_circup("install", PYPI_NAME)
    assert status == 1
    assert "Traceback" in words
    assert "401" in words


def test_circup_ends_in_a_traceback_when_the_board_has_no_password(make_board):
    board = make_board("web", web_password=None)
    status, words = board.try_circup("install", PYPI_NAME)
    assert status == 1
    assert "Traceback" in words
    assert "403" in words


@pytest.mark.parametrize("password", ["pass/word", "pass#word"])
def test_circup_ends_in_a_traceback_when_the_password_is_no_part_of_a_url(make_board, password):
    board = make_board("web", password=password, web_password=password)
    status, words = board.try_circup("install", PYPI_NAME)
    assert status == 1
    assert "Traceback" in words


def test_circup_shows_the_password(make_board):
    words = make_board("web").circup("freeze")
    assert "http://:%s@" % PASSWORD in words


# --- what it says well ---------------------------------------------------------------------------


def test_a_drive_that_a_computer_holds_is_said_to_be_not_writable(make_board):
    board = make_board("web", writable=False)
    status, words = board.try_circup("install", PYPI_NAME)
    assert "Device not writable" in words
    assert board.drive.modules() == []
    assert status == 1


def test_a_missing_password_is_asked_for(make_board):
    status, words = make_board("web", password=None).try_circup("install", PYPI_NAME)
    assert "Must pass --password" in words
    assert status == 1


def test_a_board_that_does_not_answer_is_said_to_be_not_there(computer):
    address = ("--host", "127.0.0.1", "--port", str(free_port()), "--password", PASSWORD)
    status, words = computer.circup("--offline", *address, "install", PYPI_NAME)
    assert "Could not find a connected CircuitPython device" in words
    assert status == 1


def test_stubs_are_looked_for_under_a_name_that_is_adafruits(releases, computer, tmp_path):
    board = Board(computer, Drive(tmp_path / "CIRCUITPY", MPY))
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text('#!/bin/sh\necho "pip $*"\ntest "$2" = %s\n' % PYPI_NAME)
    pip.chmod(0o755)
    with GitHub(releases, tmp_path) as github:
        variables = {**github.variables, "VIRTUAL_ENV": str(tmp_path)}
        variables["PATH"] = "%s:%s" % (pip.parent, computer.variables["PATH"])
        command = (*board.address, "install", "--stubs", "tb_device_mqtt")
        status, words = computer.circup(*command, **variables)
    assert "Could not install stubs module adafruit-circuitpython-tb_device_mqtt" in words
    assert status == 0
    assert board.drive.modules() == files(MPY, "tb_device_mqtt", *NEEDED)
