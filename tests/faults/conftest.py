"""The harness of benchmarks/faults, and runs to do things to. The tests fork: one import of torch serves them all."""

from __future__ import annotations

import sys

import pytest
from checkout import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "faults"))


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """Runs that nothing happens to, for comparison, and workplaces to make faults in."""
    from bench import Bench

    return Bench.make(tmp_path_factory.mktemp("faults"))
