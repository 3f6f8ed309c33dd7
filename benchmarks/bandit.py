"""Expected gradients of every online objective, beside what they should be.

Run as: python benchmarks/bandit.py [--write]

Completions of two tokens over two symbols have four values, so that all tuples of draws are enumerated, in float64
(tests/enumeration.py). `--write` writes benchmarks/results/bandit.md. Exits with 1 if a gradient is not the expected one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from enumeration import Case, cases, fixed_points  # noqa: E402

LIMIT = 1e-10


def rows(found: Sequence[Case]) -> list[tuple[Case, float, float]]:
    """Each case with the largest element of what is expected, and the largest difference from it."""
    both = [(case, case.want(), case.found()) for case in found]
    return [(case, float(np.abs(want).max()), float(np.abs(got - want).max())) for case, want, got in both]


def table(gradients: Sequence[tuple[Case, float, float]], points: Sequence[tuple[Case, float, float]]) -> str:
    """bandit.md."""
    lines = [
        "# Expected gradients by enumeration", "",
        f"Command: `python benchmarks/bandit.py --write` (torch {version('torch')}, float64).", "",
        "Completions of two tokens over two symbols; the policy has three logits. The expected gradient of an objective is the",
        "sum over all tuples of draws of their probability times the gradient that the objective gives them. What it should be",
        "is differentiated by hand, in `tests/enumeration.py`. s(y) is the gradient of log pi(y). Sizes are those of the largest",
        "element.", "",
        "| objective | draws of a prompt | the expected gradient | its size | difference |", "|---|---|---|---:|---:|",
    ]  # fmt: skip
    lines += [
        f"| {one.objective} | {one.draws} | {one.claim} | {size:.4f} | {apart:.0e} |" for one, size, apart in gradients
    ]
    lines += [
        "", "Where the expected gradient vanishes, and what is left of it there:", "",
        "| objective | draws of a prompt | at | should be left | difference |", "|---|---|---|---:|---:|",
    ]  # fmt: skip
    lines += [
        f"| {one.objective} | {one.draws} | {one.claim} | {size:.4f} | {apart:.0e} |" for one, size, apart in points
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    gradients, points = rows(cases()), rows(fixed_points())
    text = table(gradients, points)
    print(text)
    if asked.write:
        (ROOT / "benchmarks" / "results" / "bandit.md").write_text(text)
    sys.exit(any(not apart < LIMIT for _, _, apart in (*gradients, *points)))


if __name__ == "__main__":
    main()
