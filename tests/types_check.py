# SPDX-FileCopyrightText: 2026 tb_device_mqtt contributors
# SPDX-License-Identifier: MIT
"""What `mypy --strict` says of a user's program."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("types_program.py")


def wrongly_judged(folder, *options, **variables):
    """Lines of the program that are refused and should not be, or should be and are not.

    :param folder: an empty one, far from the checkout and its configuration
    """
    program = shutil.copy(PROGRAM, folder)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *options]
    done = subprocess.run(
        [*map(str, command), "--cache-dir", os.devnull, program],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = re.findall(r"^types_program\.py:(\d+): error: (.+)$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    refused = {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}
    missed = refused - {int(number) for number, _ in found}
    wrong = ["%s: %s" % entry for entry in found if int(entry[0]) not in refused]
    return wrong + ["%d: taken: %s" % (number, lines[number - 1]) for number in sorted(missed)]
