"""Online runs on several processes: the same draws and rewards, and the same update up to rounding."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from jobs import FSDP2, ZERO, unfinish
from rollout_runs import PLAIN_STEP, phases
from safetensors.numpy import load, load_file


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
