"""The launchers themselves, as a user starts them: each has imports of its own to wait for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from jobs import PATIENCE, ROOT, SMALLEST, bound_port, run_folder

SFT = ["run", "recipes/sft_hh.yaml", *SMALLEST]


def command(*before: str, more: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-m", *before, "alignzoo", *SFT, *more]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        ("accelerate.commands.launch", "--config_file", "recipes/accelerate/ddp.yaml"),
        ("accelerate.commands.launch", "--config_file", "recipes/accelerate/fsdp2.yaml"),
        pytest.param(
            ("accelerate.commands.launch", "--config_file", "recipes/accelerate/zero.yaml"),
            marks=pytest.mark.skipif(
                not find_spec("deepspeed"), reason="DeepSpeed is not installed: alignzoo[deepspeed]"
            ),
        ),
    ],
    ids=["torchrun", "ddp.yaml", "fsdp2.yaml", "zero.yaml"],
)
def test_a_launcher_runs_a_recipe(tmp_path, launcher):
    for _ in range(5):  # accelerate takes a number, and binds it later: another program may have been faster
        with bound_port()[0] as held:
            port = str(held.getsockname()[1])
        own = ("--main_process_port", port) if launcher[0].startswith("accelerate") else ()
        words = command(*launcher, *own, "-m", more=("train.max_steps=2",))
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode == 0 or not re.search("EADDRINUSE|address already in use|already in use", done.stderr):
            break
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    assert (run_folder(tmp_path, "sft_hh") / "policy" / "model.safetensors").exists()


def children(pid: int) -> dict[str, int]:
    """Rank -> process, of those that a process has started."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        variables = dict(one.partition("=")[::2] for one in Path(f"/proc/{child}/environ").read_text().split("\0"))
        found[variables.get("RANK", "")] = int(child)
    return found


def started(tmp_path: Path) -> subprocess.Popen:
    """`alignzoo run --processes 2`, in the middle of its training, with the checkpoint of step 4."""
    for before in (tmp_path / "runs").glob("*/metrics.jsonl"):
        before.unlink()
    process = subprocess.Popen(
        command(more=("--processes", "2", "train.max_steps=2000", "train.epochs=1000")), cwd=ROOT,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not any(
        int(step) > 4
        for path in (tmp_path / "runs").glob("*/metrics.jsonl")
        for step in re.findall(r'"step": (\d+)', path.read_text())
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_processes_end_together_whoever_is_killed(tmp_path):
    process = started(tmp_path)
    os.kill(children(process.pid)["1"], signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert lines == [
        "error: process 1 of 2 was ended by SIGKILL; the system does this when memory runs out; "
        "the same command continues from the last checkpoint"
    ]
    process = started(tmp_path)  # goes on
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    said = " ".join(errors.split())  # a line may be broken anywhere
    assert "resuming after step" in said
    assert "the same command continues from there" in said, errors
    process = started(tmp_path)
    ranks = children(process.pid)
    process.kill()  # the parent, which can't pass that on
    process.communicate()
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in ranks.values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
