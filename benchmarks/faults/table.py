"""Inject every fault into a real run, and tabulate what the user sees and what survives.

Run as: python benchmarks/faults/table.py [--write] [WORDS]

With WORDS, only the faults whose name contains them. `--write` writes benchmarks/results/faults.md. Exits with 1 when a
check fails. The tests of tests/faults use the same functions.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import of_end
import of_machine
import of_terminal
import of_work
from bench import FAULTS, Bench, Impossible, Outcome
from stage import ROOT, SETTINGS

OUT_OF_SCOPE = """
The tests are `tests/faults/test_faults.py::test_the_run_survives`, one a row. Too little memory, a loss that is not a number
and the clock are made by patched functions, and so are the moments at which things happen. Full and read-only disks are
mounts, signals are signals, and files are damaged on the disk.

Not in the table: a file of the cache that is damaged while a run has it open (files are checked when they are opened, and
mapped after that), and a disk that says that it has synced and has not.
"""


def row(name: str, outcome: Outcome, root: Path) -> str:
    told = re.sub(r"place \d+", "…", outcome.told.replace(str(root), "")).removeprefix("error: ")
    told = told.replace("/…/", "…/").replace("|", "\\|")
    checks = "; ".join(words if true else f"**NOT: {words}**" for words, true in outcome.checks.items())
    return f"| {name} | {told} | {checks} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="?", default="")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    os.environ |= SETTINGS
    os.chdir(ROOT)
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    lines = [
        "# Faults", "", f"Command: `python benchmarks/faults/table.py --write` ({packages}; CPU).", "",
        "| fault | what the user sees | what survived |", "|---|---|---|",
    ]  # fmt: skip
    failed = 0
    try:
        bench = Bench.make(root)
        for name, function in FAULTS.items():
            if asked.words in name:
                try:
                    outcome = function(bench)
                except Impossible as error:
                    outcome = Outcome(f"not made here: {error}")
                failed += not all(outcome.checks.values())
                lines.append(row(name, outcome, root))
                print(lines[-1], flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    done = len(lines) - 6
    lines += ["", f"{done} faults, {failed} with a check that fails.", OUT_OF_SCOPE]
    if asked.write:
        (ROOT / "benchmarks" / "results" / "faults.md").write_text("\n".join(lines))
    print(f"{done} faults, {failed} with a check that fails")
    sys.exit(failed > 0)


if __name__ == "__main__":
    assert all((of_machine, of_work, of_terminal, of_end))
    main()
