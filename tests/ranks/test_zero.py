"""DeepSpeed's ZeRO shares out the optimizer, and what a run gives stays the same; skipped where it is not installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from jobs import DPO, PATIENCE, ZERO, goes_wrong, run_folder, start
from safetensors.torch import load_file

from alignzoo.training import checkpoint
from alignzoo.training.records import read_lines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed: alignzoo[deepspeed]"),
]
ONE = ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}
STAGES = pytest.mark.parametrize("zero", [ONE, ZERO], ids=["stage 1", "stage 2"])
SMALL = ("train.micro_batch_tokens=200",)
"""Several micro-batches a step, not the same many in all processes."""
WAYS = {
    "sgd": ("train.optimizer={name: sgd, learning_rate: 0.05, momentum: 0.9}", "train.max_grad_norm=0.05"),
    "rmsprop": ("train.optimizer={name: rmsprop, learning_rate: 1.0e-4}", "train.max_grad_norm=0.05"),
    "adamw, never clipped": ("train.max_grad_norm=null", "train.optimizer.weight_decay=0.1"),
    "recomputed": ("train.gradient_checkpointing=true",),
}


def same(got: Path, want: Path, name: str = "dpo_hh", apart: float = 2e-5) -> None:
    """Weights, optimizer state and metrics of two runs are the same within float rounding."""
    for file in ("policy/model.safetensors", "checkpoints/step-000004/optimizer.safetensors"):
        ours, theirs = (load_file(run_folder(folder, name) / file) for folder in (got, want))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert ours[key].dtype == value.dtype
            assert (ours[key] - value).abs().max() <= apart * value.abs().max()
    lines, wanted = (read_lines(run_folder(folder, name) / "metrics.jsonl") for folder in (got, want))
    for line, other in zip(lines, wanted, strict=True):
        assert line.keys() == other.keys()
        assert {k: v for k, v in line.items() if k != "kind"} == pytest.approx(
            {k: v for k, v in other.items() if k != "kind"}, rel=1e-3, abs=1e-5
        )


@STAGES
def test_a_run_on_zero_is_the_run_on_one_process(done, zero):
    same(done(2, *SMALL, **zero), done(1))
    same(done(2, *SMALL, **zero), done(1), "sft_hh")


@pytest.mark.parametrize("way", WAYS)
def test_whatever_the_optimizer(done, way):
    """The norm of the gradients in these runs is above 0.05: it is clipped, or it is not."""
    same(done(3, *SMALL, *WAYS[way], **ZERO), done(1, *WAYS[way]))


def test_in_bfloat16_it_is_the_run_on_as_many_processes(done):
    """To one process the micro-batches' sums differ, and bfloat16 rounds by 0.4 %."""
    arguments = (*SMALL, "train.precision=bfloat16")
    same(done(2, *arguments, **ZERO), done(2, *arguments), apart=2e-3)


@STAGES
def test_zero_can_be_left_and_taken_up_again(done, copy, zero):
    folder = copy(done(2, **zero))
    for ranks, environment in ((1, {}), (2, zero), (3, zero)):
        (run_folder(folder) / "summary.json").unlink()
        job = start(folder, DPO, ranks, [environment])
        assert job.wait() == [0] * ranks, job.said()
        assert "resuming after step 4" in job.said()[0]
        same(folder, done(1))


def test_the_same_again_gives_the_same_bytes_and_nobody_else_talks(done, copy):
    folder = copy(done(2, **ZERO))
    names = ("policy/model.safetensors", "metrics.jsonl", "checkpoints/step-000004/optimizer.safetensors")
    want = [(run_folder(folder) / name).read_bytes() for name in names]
    job = start(folder, [*DPO, "--fresh"], 2, [ZERO])
    assert job.wait() == [0, 0], job.said()
    assert [(run_folder(folder) / name).read_bytes() for name in names] == want
    assert job.said()[1] == ""
    said = job.said()[0].replace("on 2 processes, by DeepSpeed's ZeRO, stage 2", "")
    assert len(said) < len(job.said()[0])
    assert "eepspeed" not in said.lower()
    assert "warning" not in said.lower()
    files = {path.name for path in (run_folder(folder) / "checkpoints" / "step-000004").iterdir()}
    alone = {path.name for path in (run_folder(done(1)) / "checkpoints" / "step-000004").iterdir()}
    assert files == alone


def test_adapters_are_trained_too(done):
    pytest.importorskip("peft")
    runs = [done(2, "model.lora={r: 2}", **ZERO), done(1, "model.lora={r: 2}")]
    ours, theirs = (load_file(run_folder(one) / "policy" / "adapter_model.safetensors") for one in runs)
    for key, value in theirs.items():
        assert (ours[key] - value).abs().max() <= 1e-4 * value.abs().max()


@STAGES
@pytest.mark.parametrize(
    ("what", "codes", "words"),
    [
        ("losses = losses * float('nan')", [1, 1], "the loss of wrong is not finite for rows"),
        ("raise ValueError('no idea')", [1, 1], "the loss of wrong raised ValueError: no idea"),
        ("losses = losses * 1e38 * 1e38", [1, 1], "not finite"),
        ("os.kill(os.getpid(), signal.SIGKILL)", [1, -9], "another process of this job has ended"),
    ],
    ids=["nan", "raises", "overflow", "killed"],
)
def test_what_goes_wrong_in_one_process_ends_all_with_one_message(done, copy, zero, what, codes, words):
    folder = copy(done(1))
    job = goes_wrong(folder, what, zero, *SMALL, when="calls > 8")
    assert job.wait() == codes, job.said()
    (line,) = job.errors()
    assert words in line
    good, damaged = checkpoint.latest(run_folder(folder, "wrong") / "checkpoints")
    assert good is not None
    assert not damaged


def test_in_stage_1_a_process_whose_memory_runs_out_goes_on_with_less(done, copy):
    policies = []
    for what in ("raise MemoryError('out of memory')", "pass"):
        folder = copy(done(1))
        job = goes_wrong(folder, what, ONE, *SMALL, rank=0, when="calls == 9")
        assert job.wait() == [0, 0], job.said()
        assert ("memory ran out in step" in job.said()[0]) == ("raise" in what)
        policies.append(load_file(run_folder(folder, "wrong") / "policy" / "model.safetensors"))
        shutil.rmtree(folder)
    for key, value in policies[1].items():
        assert (policies[0][key] - value).abs().max() <= 2e-5 * value.abs().max()


@STAGES
def test_a_signal_to_one_process_stops_all_after_the_same_step(done, copy, zero):
    long = ("train.max_steps=100", "train.epochs=100", "eval.every=50")
    folder = copy(done(1))
    shutil.rmtree(run_folder(folder))
    job = start(folder, [*DPO, *long], 2, [zero])
    deadline = time.monotonic() + PATIENCE
    while not any('"step": 2' in path.read_text() for path in folder.glob("runs/dpo_hh-*/metrics.jsonl")):
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.005)
    os.kill(job.processes[1].pid, signal.SIGTERM)
    assert job.wait() == [143, 143], job.said()
    assert "the same command continues from there" in job.said()[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.dtype=bfloat16"], "ZeRO trains other weights than float32 by a copy in float32"),
        (
            ["model.config.model_type=mixtral", "model.config.num_key_value_heads=4"],
            "not every process may use every expert; expected 1, or",
        ),
    ],
)
def test_what_it_would_train_otherwise_is_refused(tmp_path, arguments, words):
    job = start(tmp_path, ["run", "recipes/sft_hh.yaml", *DPO[2:], *arguments], 2, [ZERO])
    assert job.wait() == [2, 2], job.said()
    (line,) = job.errors()
    assert words in line


def test_nobody_else_imports_it():
    words = "import sys, alignzoo.training.run, alignzoo.cli.run; print([name for name in sys.modules if 'deepspeed' in name])"
    said = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout
    assert "'deepspeed'" not in said


def test_parts_are_put_together_as_they_were(done):
    """Each of two processes has half of 20 arrays that are cut anywhere: nothing is a zero that was none."""
    state = load_file(run_folder(done(2, **ZERO)) / "checkpoints" / "step-000004" / "optimizer.safetensors")
    assert all(torch.equal(value, torch.tensor(4.0)) for key, value in state.items() if key.endswith("::step"))
    assert all(bool((value != 0).any()) for value in state.values())
