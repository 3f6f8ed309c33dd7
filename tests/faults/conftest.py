"""The harness of benchmarks/faults, and runs to do things to. The tests fork: one import of torch serves them all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks" / "faults"))


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """Runs that nothing happens to, for comparison, and workplaces to make faults in."""
    from bench import Bench

    return Bench.make(tmp_path_factory.mktemp("faults"))
