# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What pip gets: built, and installed into an environment with nothing else, without a network."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import toml
from packaging.requirements import Requirement
from trove_classifiers import classifiers as known_classifiers

from helpers import do_without, find_tool
from tb_device_mqtt import TBDeviceMqttClient as CLIENT
from types_check import wrongly_judged

ROOT = Path(__file__).resolve().parent.parent
PROJECT = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = (ROOT / "tb_device_mqtt.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE).group(1)
REPO = re.search(r'^__repo__ = "(.+)\.git"$', SOURCE, re.MULTILINE).group(1)
NAME = "thingsboard_circuitpython_client_sdk-" + VERSION
STUB = "tb_device_mqtt-stubs/__init__.pyi"
MADE_BY_SETUPTOOLS = re.compile(r"PKG-INFO|setup\.cfg|[^/]+\.egg-info/.+")
OF_THE_SDIST = re.compile(
    r"""(\.github|LICENSES|\.ci|docs|examples|tests|tools)/.+ | [^/]+\.(md|py|toml|txt)
    | LICENSE | MANIFEST\.in | \.gitignore | \.pre-commit-config\.yaml""",
    re.VERBOSE,
)
IS_TEXT = re.compile(r".+\.(in|md|mjs|py|pyi|toml|txt|ya?ml)|\.ci/run|\.gitignore|LICENSE")
PICTURE = re.compile(r"docs/benchmarks/\w+\.svg")
LIKE_A_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s|\bgh[opsu]_\w{30}|\bpypi-\w{30}"
    r"|^(?:CIRCUITPY|THINGSBOARD)_\w*(?:PASSWORD|TOKEN|KEY) = \"(?!\"|\.\.\.\")",
    re.MULTILINE,
)
COMMIT_TIME = "1700000000"  # any; a release has that of its commit

pytestmark = pytest.mark.timeout(180)


def run(*command, **options):
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def project_files():
    """Paths of all that is tracked, or would be by the next commit."""
    if not find_tool("git") or not (ROOT / ".git").exists():
        do_without("this is no git checkout")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return sorted(name for name in set(listed.splitlines()) if (ROOT / name).is_file())


@pytest.fixture(scope="module")
def dist(project_files, tmp_path_factory):
    """A folder with the sdist, and the wheel that was built from it."""
    checkout, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    build(project_files, checkout, out)
    return out


def build(files, checkout, out, written=1.1e9):
    """As a release is built, from a copy: a build leaves files in its folder."""
    for name in files:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
        os.utime(checkout / name, (written, written))
    # Without isolation nothing is downloaded: setuptools is that of requirements-test.txt.
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout)
    run(*command, cwd=out, env={**os.environ, "SOURCE_DATE_EPOCH": COMMIT_TIME})


@pytest.fixture(scope="module")
def wheel(dist):
    return dist / (NAME + "-py3-none-any.whl")


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(NAME + ".dist-info/METADATA"))


# --- what is in it -------------------------------------------------------------------------------


def test_the_wheel_is_the_module_its_types_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        about = {
            NAME + ".dist-info/" + name
            for name in ("licenses/LICENSE", "METADATA", "RECORD", "WHEEL", "top_level.txt")
        }
        assert sorted(archive.namelist()) == sorted({"tb_device_mqtt.py", STUB} | about)
        assert archive.read("tb_device_mqtt.py").decode() == SOURCE


def test_the_wheel_has_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(NAME + ".dist-info/licenses/LICENSE")
    assert text == (ROOT / "LICENSE").read_bytes()


@pytest.fixture(scope="module")
def sdist(dist):
    """``{name: bytes}`` of our files in the sdist, without the folder around all."""
    found = {}
    with tarfile.open(dist / (NAME + ".tar.gz")) as archive:
        for member in archive.getmembers():
            assert member.isfile() or member.isdir(), member.name
            name = member.name[len(NAME) + 1 :]
            if member.isfile() and not MADE_BY_SETUPTOOLS.fullmatch(name):
                found[name] = archive.extractfile(member).read()
    return found


def test_the_sdist_is_the_whole_project(sdist, project_files):
    assert sorted(sdist) == project_files


def test_the_sdist_has_nothing_in_unexpected_places(sdist):
    """An environment, a cache or a download that somebody added to git by mistake."""
    assert [name for name in sdist if not OF_THE_SDIST.fullmatch(name)] == []
    hidden = {part for name in sdist for part in name.split("/") if part[0] == "."}
    assert hidden == {".ci", ".github", ".gitignore", ".pre-commit-config.yaml"}


def test_all_in_the_sdist_is_text_but_the_pictures_of_the_benchmarks(sdist):
    others = [name for name in sdist if not IS_TEXT.fullmatch(name)]
    assert others
    assert [name for name in others if not PICTURE.fullmatch(name)] == []


def test_nothing_in_the_sdist_looks_like_a_secret(sdist):
    """Keys and tokens of services, and a settings.toml that somebody filled in."""
    texts = {name: text.decode() for name, text in sdist.items()}
    assert [name for name, text in texts.items() if LIKE_A_SECRET.search(text)] == []


@pytest.mark.parametrize(
    "line",
    [
        "-----BEGIN EC " + "PRIVATE KEY-----\nMHc",
        'THINGSBOARD_TOKEN = "' + 'A1_TEST_TOKEN"',
        "password: pypi-" + 30 * "A",
    ],
)
def test_a_secret_would_be_found(line):
    assert LIKE_A_SECRET.search("one\n" + line)


def test_the_same_sources_make_the_same_wheel(wheel, project_files, tmp_path):
    """So that everybody can build what was released and compare."""
    for folder in ("checkout", "again"):
        (tmp_path / folder).mkdir()
    build(project_files, tmp_path / "checkout", tmp_path / "again", written=1.2e9)
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


# --- what it says --------------------------------------------------------------------------------


def test_the_metadata_is_that_of_the_project(metadata):
    assert metadata["Name"] == PROJECT["name"] == "thingsboard-circuitpython-client-sdk"
    assert metadata["Version"] == VERSION
    assert metadata["Summary"] == PROJECT["description"]
    assert metadata["License-Expression"] == PROJECT["license"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]


def test_the_page_on_pypi_is_the_readme(metadata):
    readme = (ROOT / PROJECT["readme"]).read_bytes()
    assert metadata.get_payload(decode=True).strip() == readme.strip()


def test_the_repository_is_the_one_of_the_module(metadata):
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL"))
    assert urls["Repository"] == REPO
    assert all(url.startswith(REPO) for url in urls.values())


def test_pypi_knows_the_classifiers():
    assert set(PROJECT["classifiers"]) <= known_classifiers


def test_pip_installs_what_circup_does(metadata):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert metadata.get_all("Requires-Dist") == [line for line in lines if line[:1] != "#"]


# --- installed -----------------------------------------------------------------------------------


def needed(requirements):
    """The installed distributions that *requirements* lead to."""
    found, waiting = {}, [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        distribution = importlib.metadata.distribution(requirement.name)
        assert requirement.specifier.contains(distribution.version, prereleases=True), requirement
        if distribution.metadata["Name"] not in found:
            found[distribution.metadata["Name"]] = distribution
            waiting += [Requirement(text) for text in distribution.requires or ()]
    return found.values()


@pytest.fixture(scope="module")
def environment(wheel, metadata, tmp_path_factory):
    """Python of an environment with the wheel, what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    (python,) = (*folder.glob("bin/python"), *folder.glob("Scripts/python.exe"))
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    command = ("pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps")
    run(sys.executable, "-m", *command, "--target", packages, wheel)
    for distribution in needed(metadata.get_all("Requires-Dist")):
        for file in distribution.files:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = Path(packages, file)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)
    return python


PROGRAM = """
import importlib.metadata, importlib.util, sys
import tb_device_mqtt

with tb_device_mqtt.TBDeviceMqttClient("127.0.0.1", sys.argv[1], "TOKEN_A") as client:
    client.send_telemetry({"temperature": 21.5})
    assert client.flush(10)
print(tb_device_mqtt.__file__)
print(importlib.metadata.version("thingsboard-circuitpython-client-sdk"))
print(importlib.util.find_spec("pytest"))
"""


def test_the_installed_module_sends_telemetry(environment, server, device, tmp_path):
    # -I: neither this checkout nor anything that the variables of the tests name
    words = run(environment, "-I", "-c", PROGRAM, server.port, cwd=tmp_path)
    path, version, pytest_found = words.splitlines()
    folder = environment.parent.parent.resolve()
    assert folder in Path(path).resolve().parents
    assert version == VERSION
    assert pytest_found == "None"
    assert device.wait(lambda d: [row for _, row in d.telemetry] == [{"temperature": 21.5}])


# --- types ---------------------------------------------------------------------------------------


def test_type_checkers_know_the_installed_module(environment, tmp_path):
    assert wrongly_judged(tmp_path, "--python-executable", environment, MYPYPATH="") == []


def differences(folder, stub):
    """What mypy finds to differ between the module, imported, and *stub*, its types."""
    (folder / STUB).parent.mkdir()
    (folder / STUB).write_text(stub, encoding="utf-8")
    shutil.copy(ROOT / "tb_device_mqtt.py", folder)
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "tb_device_mqtt", "--concise"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(folder), "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.stdout.splitlines() if done.returncode else []


@pytest.fixture(scope="module")
def stub(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(STUB).decode()


def test_the_types_are_those_of_the_module(stub, tmp_path):
    assert differences(tmp_path, stub) == []


def test_types_that_differ_are_found(stub, tmp_path):
    lines = differences(tmp_path, stub.replace("def flush(self, timeout", "def flush(self, limit"))
    assert any("TBDeviceMqttClient.flush" in line for line in lines)


def test_an_editor_completes_what_is_public_and_shows_its_text(stub):
    (made,) = [n for n in ast.parse(stub).body if getattr(n, "name", "") == CLIENT.__name__]
    methods = [node for node in made.body if isinstance(node, ast.FunctionDef)]
    shown = {node.name for node in methods}
    for node in made.body:
        shown |= {target.id for target in getattr(node, "targets", ())}
        shown |= {node.target.id} if isinstance(node, ast.AnnAssign) else set()
    assert {name for name in dir(CLIENT) if name[0] != "_"} <= shown
    assert [n.name for n in methods if n.name[0] != "_" and not ast.get_docstring(n)] == []
