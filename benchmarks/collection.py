"""Collect the tests under twenty hash seeds and on twenty days, and say where two collections differ.

python benchmarks/collection.py [SEEDS]
"""

from __future__ import annotations

import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from collected import collect


def main(seeds: int = 20) -> int:
    first: list[str] | None = None
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            found = collect(seed=seed, folder=Path(folder))
        first = first or found
        if found != first:
            pair = next(pair for pair in zip_longest(first, found) if pair[0] != pair[1])
            print(f"seed {seed}: {pair[0]!r} with seed 1 is {pair[1]!r}")
            return 1
        print(f"seed {seed}: {len(found)} tests, as before", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
