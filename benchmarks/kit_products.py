"""Run the conformance kit on every modifier around every objective that it may be put around.

    python benchmarks/kit_products.py

tests/testing/test_catalogue.py has a quarter of it. Exits with 1 when one is accused.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / folder) for folder in (".", "testing")]

from test_catalogue import accused  # noqa: E402
from zoo import MODIFIERS, OBJECTIVES  # noqa: E402


def main() -> int:
    wrong = 0
    for around in MODIFIERS:
        found = {name: checks for name in OBJECTIVES if (checks := accused(name, around))}
        wrong += len(found)
        print(f"{around}: {found or 'no objective is accused'}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
