# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What the workflows on GitHub may do, and that all they take from others is pinned."""

import importlib.metadata
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BY_NAME = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS}
BUILD, RELEASE = BY_NAME["build"]["jobs"], BY_NAME["release"]["jobs"]
JOBS = [
    pytest.param(job, id="%s-%s" % (name, title))
    for name, workflow in BY_NAME.items()
    for title, job in workflow["jobs"].items()
]
EACH_JOB = pytest.mark.parametrize("job", JOBS)

PINNED = re.compile(r" *- uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
PIP_WITH_HASHES = "python3 -m pip install --require-hashes --no-deps --only-binary :all: -r "


def actions(job):
    """The names of the actions that *job* uses, in order."""
    return [step["uses"].split("@")[0] for step in job["steps"] if "uses" in step]


def scripts(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def step_named(job, name):
    (step,) = [step for step in job["steps"] if step.get("name") == name]
    return step


def needs(job):
    """Titles of the jobs of the release that *job* waits for, however far back."""
    wanted = job.get("needs", [])
    found = {wanted} if isinstance(wanted, str) else set(wanted)
    return found.union(*(needs(RELEASE[title]) for title in found))


# --- actions of others ---------------------------------------------------------------------------


def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it():
    """A tag can be moved to other code, a commit can't."""
    lines = [line for path in WORKFLOWS for line in path.read_text("utf-8").splitlines()]
    uses = [line for line in lines if re.search(r"\buses\b", line)]
    assert uses
    assert [line for line in uses if not PINNED.fullmatch(line)] == []


def test_an_action_has_the_same_commit_wherever_it_is_used():
    lines = {line for path in WORKFLOWS for line in path.read_text("utf-8").splitlines()}
    pins = {line.split("- uses: ")[1] for line in lines if PINNED.fullmatch(line)}
    names = [pin.split("@")[0] for pin in pins]
    assert sorted(names) == sorted(set(names))


def test_the_hooks_before_a_commit_are_pinned_by_their_commit_too():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    revisions = re.findall(r"^ +rev: (.+)", text, re.MULTILINE)
    assert revisions
    assert all(re.fullmatch(r"[0-9a-f]{40} # frozen: v[\d.]+", each) for each in revisions)


def test_dependabot_looks_after_actions_and_requirements():
    text = (ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8")
    found = {each["package-ecosystem"]: each for each in yaml.safe_load(text)["updates"]}
    assert set(found) == {"github-actions", "pip"}
    assert {each["directory"] for each in found.values()} == {"/"}
    assert all(each["cooldown"]["default-days"] >= 7 for each in found.values())


# --- what a job may --------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_a_workflow_gives_nothing_to_jobs_that_do_not_ask(name):
    assert BY_NAME[name]["permissions"] == {}


@EACH_JOB
def test_a_job_that_runs_code_of_a_checkout_may_only_read(job):
    if "actions/checkout" in actions(job):
        assert job["permissions"] == {"contents": "read"}
        assert "environment" not in job


@EACH_JOB
def test_a_checkout_leaves_no_token_behind(job):
    for step in job["steps"]:
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@EACH_JOB
def test_a_job_that_may_write_only_hands_on_what_was_built(job):
    if "write" in job["permissions"].values():
        assert actions(job)[0] == "actions/download-artifact"
        assert "actions/checkout" not in actions(job)
        assert all(re.fullmatch(r"gh release create .+", script) for script in scripts(job))


@EACH_JOB
def test_a_job_may_write_where_it_has_to(job):
    written = {name for name, access in job["permissions"].items() if access == "write"}
    wanted = set()
    if "actions/attest-build-provenance" in actions(job):
        wanted |= {"id-token", "attestations"}
    if "pypa/gh-action-pypi-publish" in actions(job):
        wanted |= {"id-token"}
    if any("gh release create" in script for script in scripts(job)):
        wanted |= {"contents"}
    assert written == wanted


@EACH_JOB
def test_a_script_takes_values_from_its_environment_alone(job):
    """What stands between ${{ and }} becomes part of the script before the shell reads it."""
    assert [script for script in scripts(job) if "${{" in script] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_workflow_knows_a_secret(path):
    assert not re.search(r"\bsecrets\b|password:", path.read_text(encoding="utf-8"))


# --- from the tag to the release -------------------------------------------------------------


def test_what_is_released_is_built_where_no_test_runs():
    for title in ("dist", "bundle"):
        text = "\n".join(scripts(RELEASE[title]))
        assert not re.search(r"\.ci/run|run\.py (test|lint|bench)|pytest|requirements-test", text)
        assert needs(RELEASE[title]) == set()


@EACH_JOB
def test_pip_installs_nothing_without_a_hash(job):
    for line in "\n".join(scripts(job)).splitlines():
        if re.search(r"\bpip\b", line):
            assert line.startswith(PIP_WITH_HASHES)


def test_wheel_and_sdist_are_built_by_what_is_pinned_alone():
    pip, build = step_named(RELEASE["dist"], "Wheel and sdist")["run"].splitlines()
    assert pip == PIP_WITH_HASHES + "requirements-build.txt"
    assert "python3 -m build --no-isolation " in build  # else pip fetches a setuptools of its own


def test_each_change_is_built_as_a_release_is():
    assert step_named(BUILD["package"], "Wheel and sdist") == step_named(
        RELEASE["dist"], "Wheel and sdist"
    )


def test_nothing_is_published_before_all_tests_have_passed():
    for title in ("attest", "pypi", "github"):
        assert {"test", "dist", "bundle"} <= needs(RELEASE[title])
    assert scripts(RELEASE["test"]) == ["bash .ci/run"]


def test_what_pypi_refuses_is_not_released_on_github():
    assert "pypi" in needs(RELEASE["github"])


def test_all_that_is_published_is_attested_before():
    attest = RELEASE["attest"]["steps"][-1]
    assert attest["with"]["subject-path"].split() == ["dist/pypi/*", "dist/circup/*"]
    assert "attest" in needs(RELEASE["pypi"])
    release = scripts(RELEASE["github"])[0].split()
    assert release[-2:] == ["dist/pypi/*", "dist/circup/*"]


# --- requirements with hashes ----------------------------------------------------------------


def hashed(name):
    """``{distribution: version}`` of a requirements file; each line has to have a hash."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pattern = r"([\w.-]+)==([\w.]+)(?: +--hash=sha256:[0-9a-f]{64})+"
    matches = [re.fullmatch(pattern, line) for line in lines]
    assert [line for line, match in zip(lines, matches) if not match] == []
    return {canonicalize_name(match.group(1)): match.group(2) for match in matches}


@pytest.mark.parametrize("name", ["requirements-build.txt", "requirements-bundle.txt"])
def test_every_requirement_of_a_release_has_a_hash(name):
    assert hashed(name)


def test_the_tests_build_with_what_builds_a_release():
    """What is installed here is what requirements-test.txt names."""
    for name in ("build", "setuptools"):
        assert hashed("requirements-build.txt")[name] == importlib.metadata.version(name)


def python_of(job):
    (version,) = {
        step["with"]["python-version"]
        for step in job["steps"]
        if "actions/setup-python@" in step.get("uses", "")
    }
    return version


def test_whoever_installs_without_dependencies_names_them_all():
    """``--no-deps`` leaves out what is not in the file; the build would fail at the release."""
    pins = hashed("requirements-build.txt")
    version = python_of(RELEASE["dist"])
    system = {"python_version": version, "python_full_version": version + ".0", "os_name": "posix"}
    for name in pins:
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if not requirement.marker or requirement.marker.evaluate({"extra": "", **system}):
                assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_the_setuptools_of_a_release_is_new_enough_for_the_project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (wanted,) = re.findall(r'^requires = \["(setuptools.+)"\]$', text, re.MULTILINE)
    assert Requirement(wanted).specifier.contains(hashed("requirements-build.txt")["setuptools"])
