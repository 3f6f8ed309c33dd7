"""Collect the tests in a process of its own, under another hash seed and another clock.

Workers of a parallel run collect for themselves: an id that depends on the order of a set, on the time, on a temporary
folder or on an object's address makes them disagree, and no test runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from checkout import ROOT

CODE = """
import sys, time
now, days = time.time, int(sys.argv[1])
time.time = lambda: now() + 86400 * days
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[2:]]))
"""


def collect(paths: Sequence[str] = ("tests",), seed: int = 0, folder: Path | None = None) -> list[str]:
    """Return the ids under `paths`, in order, as a process with hash seed `seed` collects them `seed` days from now.

    Raises:
        RuntimeError: If the collection fails; the message is pytest's own output.
    """
    environment = os.environ | {"PYTHONHASHSEED": str(seed)} | ({"TMPDIR": str(folder)} if folder else {})
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-c", CODE, str(seed), *paths]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if "::" in line]
