"""Files that nobody means, through the real commands: a seeded slice of what benchmarks/fuzz does at length."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from random import Random

import pytest
from checkout import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "fuzz"))

SECONDS = 8
"""Processor time of the slice beside that of making the files. It decides how many inputs are run, and not which."""
KINDS = ("model", "tokenizer", "data", "recipe", "override", "comparison", "plugin", "rows")
"""All but those that need finished runs, which take longer to make."""


@pytest.fixture
def forked():
    import forked

    return forked


@pytest.mark.slow
def test_a_slice_of_the_fuzz_has_no_fault(tmp_path):
    command = [
        sys.executable,
        ROOT / "benchmarks" / "fuzz" / "fuzz.py",
        "--for",
        SECONDS,
        "--keep",
        tmp_path,
        "--kind",
        *KINDS,
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise KeyError('nobody thought of this')", "traceback: KeyError"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
        ("while True: pass", "time"),
        ("while time.process_time() < began + 0.5: pass\nsys.exit(2)", "time"),  # a slow refusal
        ("while time.process_time() < began + 0.5: pass", ""),  # slow work
        ("x = b'x' * 3 * 10**8; time.sleep(0)", "memory"),
        ("open(os.environ['OUTSIDE'], 'w')", "writes outside"),
        ("subprocess.run(['true'])", "runs code"),
        ("sys.exit(3)", "exit code 3"),
        ("open('inside', 'w').write('fine')", ""),
    ],
)
def test_each_kind_of_fault_is_noticed(forked, tmp_path, monkeypatch, body, fault):
    from alignzoo.cli import app

    def main():
        names = {"os": os, "sys": sys, "subprocess": subprocess, "time": time, "signal": signal}
        exec(body, names | {"began": time.process_time()})

    monkeypatch.setattr(app, "main", main)
    monkeypatch.setattr(forked, "SECONDS", 0.3)
    monkeypatch.setattr(forked, "WORK_SECONDS", 2)
    monkeypatch.setattr(forked, "MEGABYTES", 100)
    monkeypatch.setenv("OUTSIDE", str(tmp_path / "outside"))
    (tmp_path / "work").mkdir()
    end = forked.run(["x"], tmp_path / "work")
    assert end.fault[: len(fault) or None] == fault, end


def test_a_seed_gives_the_same_inputs_each_near_to_the_good_ones():
    import cases

    import recipes

    def drawn(kind):
        return [cases.KINDS[kind][2](Random(f"{kind} {n}"), ROOT) for n in range(40)]

    assert drawn("recipe") == drawn("recipe")
    texts = {case.edits[0].content for case in drawn("recipe")}
    assert len(texts) > 30
    assert not texts & set(recipes.TEXTS.values())
