#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""Make the files of a release that let circup install this library by its name on PyPI.

    python3 run.py bundle [--mpy-cross PATH]... [--tag X.Y.Z] [--out FOLDER]

--mpy-cross  a compiler of CircuitPython (MicroPython's won't do); adds the .mpy files for its
             major version, and can be given once for each
--tag        the tag that the release will have; refused unless it is `__version__`
--out        where the files go. Defaults to dist

circup takes the latest release of a repository for a bundle when its files are named after the
repository (`circup bundle-add OWNER/REPOSITORY`). It looks for a module when it is asked to
install something, and makes `thingsboard_client_sdk` of our name on PyPI: so the bundle also has
a module of that name, which needs this one. circuitpython-build-tools makes the same layout, but
takes one module only. The same sources give the same bytes.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE = "tb_device_mqtt"
ALIAS = "thingsboard_client_sdk"
ALIAS_SOURCE = '''\
# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""The module {module} under the name that circup makes of its name on PyPI."""

__version__ = "{version}"

from {module} import {names}  # noqa: F401
'''
FOR_COMPUTERS = ("demo.py", "on_a_computer.py")  # among the examples; folders are too
MPY_OF_CIRCUITPYTHON = b"C\x06"  # since CircuitPython 9
OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # of a zip


# --- what the sources say ------------------------------------------------------------------------


def find(pattern, text):
    """The one match of *pattern*, which stands at the start of a line."""
    (found,) = re.findall("^" + pattern, text, re.MULTILINE)
    return found


class Library:
    """The sources, and what they say of themselves."""

    def __init__(self):
        source = (ROOT / (MODULE + ".py")).read_text(encoding="utf-8")
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        self.version = find(r'__version__ = "(\d+\.\d+\.\d+)"$', source)
        self.repo = find(r'__repo__ = "(https://.+)"$', source)
        self.pypi_name = find('name = "(.+)"$', project)
        self.description = find('description = "(.+)"$', project)
        self.prefix = Path(self.repo).stem.lower().replace("_", "-")  # circup's rule
        public = re.findall(r"^class ([A-Z]\w*)", source, re.MULTILINE)
        alias = ALIAS_SOURCE.format(
            module=MODULE, version=self.version, names=", ".join(sorted(public))
        )
        self.modules = {MODULE: source.encode(), ALIAS: alias.encode()}

    def other_files(self):
        """``{path: bytes}``: what each module needs, and the examples for boards."""
        files = {"requirements/%s/requirements.txt" % ALIAS: (MODULE + "\n").encode()}
        for name in ("requirements.txt", "pyproject.toml"):
            files["requirements/%s/%s" % (MODULE, name)] = (ROOT / name).read_bytes()
        # `circup example` raises if any bundle has no such folder, so it is there even when empty.
        files["examples/"] = b""
        for path in (ROOT / "examples").iterdir():
            is_example = path.suffix == ".py" and path.name not in FOR_COMPUTERS
            if is_example or path.name == "settings.toml":
                files["examples/%s/%s" % (MODULE, path.name)] = path.read_bytes()
        return files

    def catalogue(self):
        """What circuitpython-build-tools writes as JSON."""
        common = {
            "package": False,
            "pypi_name": self.pypi_name,
            "version": self.version,
            "repo": self.repo[: -len(".git")].lower(),
            "pypi_description": self.description,
        }
        lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").lower()
        needed = re.findall(r"^[\w.-]+", lines, re.MULTILINE)
        external = sorted(set(needed) - {"adafruit-blinka"})  # on boards that is built in
        needs = {MODULE: ([], external), ALIAS: ([MODULE], [])}
        return {
            name: dict(
                common, path="lib/" + name, dependencies=inside, external_dependencies=outside
            )
            for name, (inside, outside) in needs.items()
        }


# --- compiling -----------------------------------------------------------------------------------


def run(*command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit("%s: %s" % (command[0], result.stderr.strip()))
    return result.stdout


def platform_of(mpy_cross):
    """ "10.x-mpy" for the compiler of any CircuitPython 10."""
    said = run(mpy_cross, "--version").strip()
    match = re.match(r"CircuitPython (\d+)\.", said)
    if not match:
        sys.exit("%s is no compiler of CircuitPython: %s" % (mpy_cross, said))
    return match.group(1) + ".x-mpy"


def compile_module(mpy_cross, name, source):
    with tempfile.TemporaryDirectory() as folder:
        py, mpy = Path(folder, name + ".py"), Path(folder, name + ".mpy")
        py.write_bytes(source)
        # Without line numbers: they take 1.5 KB of a board's memory. Who wants them copies the .py.
        run(mpy_cross, "-O3", "-o", mpy, "-s", py.name, py)
        return mpy.read_bytes()


def check_compiled(name, code, version):
    """circup takes the first x.y.z of a .mpy for its version; a wrong one ends all updates."""
    if code[:2] != MPY_OF_CIRCUITPYTHON:
        sys.exit(
            "%s.mpy begins with %r, CircuitPython 9 and newer don't read that" % (name, code[:2])
        )
    match = re.search(rb"(\d+\.\d+\.\d+)\0", code)
    found = match.group(1).decode() if match else None
    if found != version:
        sys.exit("%s.mpy: circup would read %s for its version" % (name, found))


# --- writing -------------------------------------------------------------------------------------


def write_zip(path, files):
    """*files*: ``{name: bytes}``, all below one folder with the name of the zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(path.stem + "/" + name, OLDEST_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = 0o100644 << 16 if not name.endswith("/") else 0o40755 << 16
            archive.writestr(entry, files[name])


def make_bundle(library, out, compilers):
    """The paths of the files that it wrote. *compilers*: ``{"10.x-mpy": path of mpy-cross}``."""
    out.mkdir(parents=True, exist_ok=True)
    others = library.other_files()
    layouts = {"py": {"lib/%s.py" % name: code for name, code in library.modules.items()}}
    for platform, mpy_cross in compilers.items():
        layouts[platform] = {}
        for name, source in library.modules.items():
            code = compile_module(mpy_cross, name, source)
            check_compiled(name, code, library.version)
            layouts[platform]["lib/%s.mpy" % name] = code
    written = []
    for platform, modules in layouts.items():
        path = out / ("%s-%s-%s.zip" % (library.prefix, platform, library.version))
        write_zip(path, dict(others, **modules))
        written.append(path)
    path = out / ("%s-%s.json" % (library.prefix, library.version))
    path.write_bytes(json.dumps(library.catalogue(), sort_keys=True).encode())
    return [*written, path]


def main(arguments=None):
    first_line = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="run.py bundle", description=first_line)
    parser.add_argument("--mpy-cross", metavar="PATH", action="append", default=[])
    parser.add_argument("--tag", metavar="X.Y.Z")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=ROOT / "dist")
    options = parser.parse_args(arguments)
    library = Library()
    if options.tag not in (None, library.version):
        sys.exit("the tag is %s, __version__ is %s" % (options.tag, library.version))
    compilers = {platform_of(path): path for path in options.mpy_cross}
    for path in make_bundle(library, options.out, compilers):
        print("%7d %s" % (path.stat().st_size, path))


if __name__ == "__main__":
    main()
