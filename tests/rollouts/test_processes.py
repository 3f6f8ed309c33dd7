"""Online runs on several processes: the same draws and rewards, and the same update up to rounding."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from jobs import FSDP2, SMALLEST, ZERO, run_folder, start, unfinish
from safetensors.numpy import load, load_file

SMALL = [
    "train.batch_size=4", "train.max_steps=1", "eval.replies.num_prompts=1", "rollout.completions=4",
    "rollout.max_new_tokens=8", "rollout.rewards=[vowels]", "rollout.held_out_prompts=4", "rollout.kl_rows=4",
]  # fmt: skip
PLAIN_STEP = [
    "train.optimizer={name: sgd, learning_rate: 1.0}",
    "train.schedule={name: constant}",
    "train.max_grad_norm=null",
]


@pytest.fixture
def online_on(trained, plugins, tmp_path):
    """`online_on(2, "grpo")` runs an objective on draws by two processes, and returns the run's folder."""

    def run(ranks: int, objective: str, *overrides: str, home: str = "", code: int = 0, **environment: str) -> Path:
        folder = tmp_path / (home or f"{objective}-{ranks}")
        if not folder.exists():
            shutil.copytree(trained, folder)
        words = ["run", "recipes/online/dpo_hh.yaml", *SMALLEST, *SMALL, f"plugins={json.dumps(plugins)}"]
        job = start(folder, [*words, f"objective={objective}", *overrides], ranks, [environment])
        assert set(job.wait()) == {code}, job.said()
        return run_folder(folder) if code == 0 else folder

    return run


def phases(run: Path, rollout: int = 0) -> dict[str, np.ndarray]:
    """Return every array of a rollout."""
    files = (run / "rollouts" / f"{rollout:06d}").glob("*/*.safetensors")
    return {name: array for file in files for name, array in load_file(file).items()}


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "counts"), [("grpo", (2, 4)), ("dpo", (4,))])
def test_processes_draw_the_same_and_take_the_same_step(online_on, trained, objective, counts):
    """Pairs of few prompts leave a process without rows. Relative to the largest element of each update."""
    before = load_file(next((trained / "runs").glob("sft_hh-*")) / "policy" / "model.safetensors")
    one = online_on(1, objective, *PLAIN_STEP)
    want, start_of = phases(one), load_file(one / "policy" / "model.safetensors")
    updates = {name: value - before[name] for name, value in start_of.items()}
    assert max(float(np.abs(update).max()) for update in updates.values()) > 1e-3
    for count in counts:
        other = online_on(count, objective, *PLAIN_STEP)
        found = phases(other)
        assert found.keys() == want.keys()
        for name in ("tokens", "cuts", "finished", "raw"):
            assert np.array_equal(found[name], want[name]), name
        for name in found:
            assert np.allclose(found[name], want[name], rtol=1e-5, atol=1e-5), name
        for name, value in load_file(other / "policy" / "model.safetensors").items():
            limit = 5e-6 * max(float(np.abs(updates[name]).max()), 1e-2)
            assert np.abs(value - before[name] - updates[name]).max() <= limit, name
        assert [p.name for p in sorted((other / "rollouts").rglob("*.*"))] == [
            p.name for p in sorted((one / "rollouts").rglob("*.*"))
        ]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(online_on):
    """Within a rollout of two updates, from a checkpoint after the first: nothing is drawn again."""
    steps = ["rollout.prompts=8", "train.max_steps=2", "train.checkpoint_every=1"]
    run = online_on(1, "grpo", *steps, home="run")
    want = phases(run), (run / "policy" / "model.safetensors").read_bytes()
    unfinish(run, step=1)
    assert online_on(2, "grpo", *steps, home="run") == run
    assert all(np.array_equal(array, want[0][name]) for name, array in phases(run).items())
    ours = load_file(run / "policy" / "model.safetensors")
    for name, value in load(want[1]).items():
        assert np.allclose(ours[name], value, rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(FSDP2, id="FSDP2"),
        pytest.param(ZERO, id="ZeRO", marks=pytest.mark.skipif(not find_spec("deepspeed"), reason="no DeepSpeed")),
    ],
)
def test_shards_are_refused_with_a_sentence(online_on, environment):
    folder = online_on(2, "grpo", code=2, **environment)
    said = (folder / "rank-0.txt").read_text()
    assert "rollout: completions are drawn by processes that each hold the whole model" in said
