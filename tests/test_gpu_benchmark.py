"""The benchmark for a GPU runs end to end with tiny shapes on a CPU, and measures nothing without a GPU."""

from __future__ import annotations

import shutil

import pytest
import torch
from checkout import ROOT
from jobs import python

SCRIPT = ROOT / "benchmarks" / "gpu.py"


def ran(*arguments):
    return python(SCRIPT, *arguments, PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES="").wait(3600)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_says_so():
    done = ran()
    assert done.returncode == 2
    assert done.stderr.startswith("no GPU is there: nothing is measured")


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")
def test_it_runs_end_to_end_with_tiny_shapes():
    done = ran("--dry", "--only", "Pythia-2.8B, HH")
    assert done.returncode == 0, done.stdout + done.stderr
    sides = ("packed", "packed, compiled", "packed, checkpoints")
    assert done.stdout.splitlines() == [f"Pythia-2.8B, HH, {side}: ran" for side in sides]
