"""Whatever happens to one process of a job, all of them end soon, and one message is printed."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest
from jobs import DPO, FSDP2, PATIENCE, ZERO, goes_wrong, run_folder, start

from alignzoo.training import checkpoint

WAYS = {
    "raises": ("raise ValueError('no idea')", [1, 1], "the loss of wrong raised ValueError: no idea"),
    "nan": ("losses = losses * float('nan')", [1, 1], "the loss of wrong is not finite for rows"),
    "no memory": ("raise MemoryError", [1, 1], "memory ran out for row"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", [1, -9], "another process of this job has ended"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["raises", "nan", "no memory", "killed"])
def test_what_goes_wrong_in_one_process_ends_all_with_one_message(done, copy, way):
    what, codes, words = WAYS[way]
    folder = copy(done(1))
    job = goes_wrong(folder, what, {})
    assert job.wait() == codes, job.said()
    (line,) = job.errors()
    assert words in line
    assert "the steps up to" in line
    good, damaged = checkpoint.latest(run_folder(folder, "wrong") / "checkpoints")
    assert good is not None
    assert not damaged


@pytest.mark.slow
@pytest.mark.parametrize("way", ["nan", "killed"])
def test_so_it_does_with_shards(done, copy, way):
    what, codes, words = WAYS[way]
    folder = copy(done(1))
    job = goes_wrong(folder, what, FSDP2)
    assert job.wait() == codes, job.said()
    (line,) = job.errors()
    assert words in line


LONG = ("train.max_steps=100", "train.epochs=100", "eval.every=50")
"""Not over before a signal comes, however busy the machine is."""


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(done, copy):
    """As a preempted node has it; the run then goes on to the bytes of one that was not stopped."""
    folder = copy(done(2, *LONG))
    want = [(run_folder(folder) / name).read_bytes() for name in ("policy/model.safetensors", "metrics.jsonl")]
    records = run_folder(folder) / "metrics.jsonl"
    shutil.rmtree(records.parent)
    job = start(folder, [*DPO, *LONG], 2)
    deadline = time.monotonic() + PATIENCE
    while not (records.exists() and '"kind": "train", "step": 2' in records.read_text()):
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.005)
    os.kill(job.processes[1].pid, signal.SIGTERM)
    codes = job.wait()
    assert codes == [143, 143], job.said()
    assert "the same command continues from there" in job.said()[0]
    good, _ = checkpoint.latest(run_folder(folder) / "checkpoints")
    assert good is not None
    job = start(folder, [*DPO, *LONG], 2)
    assert job.wait() == [0, 0], job.said()
    assert f"resuming after step {good.step}" in job.said()[0]
    assert [(run_folder(folder) / name).read_bytes() for name in ("policy/model.safetensors", "metrics.jsonl")] == want


def test_a_mistake_is_reported_once(tmp_path):
    job = start(tmp_path, ["run", "recipes/dpo_hh.yaml", "objective.bta=1"], 2)
    assert job.wait() == [2, 2]
    (line,) = job.errors()
    assert "objective.bta: no such field; did you mean 'beta'?" in line


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            "ZeRO stage 3 is not supported; expected 1, 2, or FSDP version",
        ),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP version 1 is not supported; expected 2"),
    ],
)
def test_a_launch_that_can_not_work_is_rejected(tmp_path, environment, words):
    job = start(tmp_path, DPO, 2, [environment])
    assert job.wait() == [2, 2]
    (line,) = job.errors()
    assert words in line


@pytest.mark.parametrize(
    ("launcher", "lines"), [({}, 2), ({"TORCHELASTIC_RUN_ID": "1"}, 1)], ids=["by hand", "torchrun"]
)
def test_other_commands_take_one_process(tmp_path, launcher, lines):
    """Each host prints it where processes were started by hand; else the main process does."""
    job = start(tmp_path, ["compare", "recipes/dpo_hh.yaml"], 2, [launcher])
    assert job.wait() == [2, 2]
    assert len(job.errors()) == lines
    for line in job.errors():
        assert "alignzoo compare is a command for one process, and this is one of 2" in line
