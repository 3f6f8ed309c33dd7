"""Comparisons on several workers: the table of one, whatever is killed or stopped in the middle."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from jobs import PATIENCE, ROOT, command, untimed

PLUGIN = '''
import os, signal
from torch.nn.functional import logsigmoid
from alignzoo import Field, Objective, hookimpl

class Killed(Objective):
    """DPO's loss, in a process that is killed in its fifth step, once for all processes."""

    name = "killed"
    beta: float = Field(0.1, gt=0, description="as of DPO")
    _steps = []

    def loss(self, pair):
        losses = -logsigmoid(self.beta * pair.margin)
        if losses.requires_grad:
            self._steps.append(None)
            with open(os.environ["TEST_STEPS"], "a") as file:
                file.write(f"{os.getpid()} {self.beta}\\n")
            marker = os.environ["TEST_MARKER"]
            if len(self._steps) == 6 and not os.path.exists(marker):
                try:
                    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return losses
                os.kill(os.getpid(), signal.SIGKILL)
        return losses

@hookimpl
def register_objectives():
    return [Killed]
'''
WORDS = ["--with", "tests/smallest.yaml", "--seeds", "1", "--grid", "objective.beta=0.1,0.5", "--judge", "toy",
         "--samples", "4", "--sample-tokens", "8"]  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """A recipe whose start is no row of its own, so that it is worked on first."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "killed.py").write_text(PLUGIN)
    (folder / "killed.yaml").write_text(
        f"extends: {ROOT}/recipes/dpo_hh.yaml\nplugins: [killed.py]\nobjective: killed\n"
    )
    return folder / "killed.yaml"


def compare(recipe: Path, root: Path, jobs: int, kills: bool = False):
    """Start the comparison in its own folders; `kills`: one process is killed in its fifth step."""
    marker = root / "marker"
    if not kills:
        marker.touch()
    return command(
        "compare", recipe, *WORDS, "--jobs", jobs, ALIGNZOO_RUNS=str(root / "runs"), ALIGNZOO_CACHE=str(root / "cache"),
        TEST_MARKER=str(marker), TEST_STEPS=str(root / "steps"),
    )  # fmt: skip


def results(root: Path) -> list[list[str]]:
    """table.csv without what a clock or another process's memory decides."""
    (folder,) = (root / "runs").glob("compare-*")
    return untimed(folder)


def figures(root: Path) -> dict[str, bytes]:
    """The bytes of what was trained and measured, by name of its file."""
    names = (
        "policy/model.safetensors",
        "metrics.jsonl",
        "evaluations/*/examples.safetensors",
        "evaluations/*/samples.jsonl",
    )
    return {
        str(path.relative_to(root)): path.read_bytes()
        for name in names for path in (root / "runs").glob(f"*_hh-*/{name}")
    } | {
        str(path.relative_to(root)): path.read_bytes()
        for name in names for path in (root / "runs").glob(f"killed-*/{name}")
    }  # fmt: skip


def processes(root: Path) -> list[str]:
    """The processes that have this root in their environment, without zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = str(root).encode() in (folder / "environ").read_bytes()
            if mine and "\nState:\tZ" not in (folder / "status").read_text():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # of another user, or gone
            continue
    return found


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory) -> Path:
    """The same comparison in one process."""
    root = tmp_path_factory.mktemp("alone")
    done = compare(recipe, root, jobs=1).wait()
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.slow
def test_two_jobs_of_which_one_is_killed_make_the_table_of_one(recipe, alone, tmp_path):
    done = compare(recipe, tmp_path, jobs=2, kills=True).wait()
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == results(alone)
    assert figures(tmp_path) == figures(alone)
    said = " ".join(done.stderr.split())
    assert "its worker was ended by SIGKILL; the system does this when memory runs out; it is taken up again" in said
    lines = [line for line in done.stderr.splitlines() if "evaluation after step 8" in line]
    assert sum("killed beta=" in line for line in lines) == 2  # each line after the name of its run
    steps = [line.split() for line in (tmp_path / "steps").read_text().splitlines()]
    by_run = {beta: [pid for pid, own in steps if own == beta] for _, beta in steps}
    counts = sorted([own.count(pid) for pid in dict.fromkeys(own)] for own in by_run.values())
    assert counts == [[6, 5], [10]]  # the second process goes on from the checkpoint after step 4
    assert processes(tmp_path) == []


@pytest.mark.slow
def test_nothing_stays_behind_a_comparison_that_is_killed_or_stopped_and_it_goes_on(recipe, alone, tmp_path):
    steps = tmp_path / "steps"
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        before = size(steps)
        started = compare(recipe, tmp_path, jobs=2)
        wait_until(
            lambda before=before, started=started: size(steps) > before or started.poll() is not None,
            "no run has begun",
        )
        assert started.poll() is None
        assert len(processes(tmp_path)) == 2  # the command itself is a fork, whose environment the kernel does not know
        os.kill(started.process.pid, number)
        done = started.wait()
        assert done.returncode == code
        wait_until(lambda: processes(tmp_path) == [], "a worker is still there")
    assert "stopped; the same command continues, each run from its last checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    done = compare(recipe, tmp_path, jobs=2).wait()
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == results(alone)
    assert figures(tmp_path) == figures(alone)
