"""Frontiers of a comparison, from the replies that runs recorded along training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alignzoo.compare.frontier_runs import frontier_table
from alignzoo.compare.grid import ComparedRow, Point
from alignzoo.compare.results import RunRecord

ABOUT = {"frontier": {"reward": "truth", "kl": [1.0, 2.0, 9.0]}, "baseline": "ppo"}
N = 30


def record(folder, label, point, seed, slope, steps=(0, 10, 20), ids=None, judge="truth", rise=0.0):
    """A finished run whose KL is 1 at step 10 and 2 at step 20, with a reward of slope * KL and noise of each prompt."""
    path = folder / f"{label}-{point}-{seed}"
    path.mkdir()
    random = np.random.default_rng(seed)
    noise = random.normal(0, 0.05, N)
    lines = []
    for step in steps:
        kl = step / 10
        for n, id in enumerate(ids or [f"row {n}" for n in range(N)]):
            reward = slope * min(kl, 1) + noise[n] + rise * (step == steps[-1])
            lines.append(
                {"step": step, "id": id, "reply": "a", "length": 3, "finished": True, "kl": kl, "judges": {
                    judge: {"reward": float(reward)}}}
            )  # fmt: skip
    (path / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return RunRecord(label, label, point, seed, "f", str(path), "d", "s", state="done")


def row(folder, label, slopes, seeds=(0, 1), **more):
    points = tuple(
        Point({"beta": slope}, tuple(record(folder, label, {"beta": slope}, seed, slope, **more) for seed in seeds))
        for slope in slopes
    )
    return ComparedRow(label, points, start=False)


def test_the_frontier_is_of_all_settings_and_is_compared_with_the_baseline(tmp_path):
    rows = [row(tmp_path, "dpo", [0.8, 0.5]), row(tmp_path, "ppo", [0.3, 0.4])]
    found = frontier_table(ABOUT, rows, draws=50)
    by = {one.label: one for one in found.rows}
    assert [reading.value for reading in by["dpo"].readings] == pytest.approx([0.8, 0.8, None], abs=0.05)
    assert [one.value for one in by["dpo"].differences[:2]] == pytest.approx([0.4, 0.4])  # prompts' noise cancels
    assert (by["dpo"].settings, by["dpo"].checkpoints, by["dpo"].dominance) == (2, 2, True)
    assert by["ppo"].differences == []
    assert by["ppo"].dominance is None
    assert (found.seeds, found.prompts, found.equal_budgets, found.left_out) == ([0, 1], N, True, {})
    assert len(found.curves) == 8
    worse = frontier_table(ABOUT | {"baseline": "dpo"}, rows, draws=50)
    assert {one.label: one.dominance for one in worse.rows} == {"dpo": None, "ppo": False}


def test_a_setting_that_still_rises_claims_no_dominance(tmp_path):
    rows = [row(tmp_path, "dpo", [0.8], rise=0.1), row(tmp_path, "ppo", [0.3])]
    dpo = next(one for one in frontier_table(ABOUT, rows, draws=50).rows if one.label == "dpo")
    assert dpo.rising == ["beta=0.8"]
    assert dpo.dominance is None


def test_rows_without_a_frontier_say_why(tmp_path):
    failed = ComparedRow(
        "ipo", (Point({}, (RunRecord("ipo", "ipo", {}, 0, "f", "x", "d", "s", "failed", "oops"),)),), False
    )
    bare = RunRecord("sft", "sft", {}, 0, "f", str(tmp_path), "d", "s", state="done")
    rows = [
        row(tmp_path, "dpo", [0.8]), row(tmp_path, "ppo", [0.3]), failed,
        row(tmp_path, "other", [0.1], ids=[f"test {n}" for n in range(N)]), row(tmp_path, "length", [0.1], judge="long"),
        ComparedRow("plain", (Point({}, (bare,)),), start=False), ComparedRow("start", (Point({}, (bare,)),), start=True),
    ]  # fmt: skip
    found = frontier_table(ABOUT, rows, draws=10)
    assert [one.label for one in found.rows] == ["ppo", "dpo"]
    assert found.left_out == {
        "ipo": "no run is done",
        "other": "its runs answered other prompts",
        "length": "a reply has no score of truth",
        "plain": "its runs recorded no replies along training: set eval.replies.every",
    }


def test_only_seeds_that_every_row_has_count(tmp_path):
    rows = [row(tmp_path, "dpo", [0.8], seeds=(0, 1, 2)), row(tmp_path, "ppo", [0.3], seeds=(1, 2, 3))]
    assert frontier_table(ABOUT, rows, draws=10).seeds == [1, 2]
    rows[1] = row(tmp_path, "grpo", [0.3], seeds=(5,))
    assert frontier_table(ABOUT, rows, draws=10) is None


def test_a_comparison_without_the_key_has_none(tmp_path):
    assert frontier_table({"baseline": "ppo"}, [row(tmp_path, "dpo", [0.8])]) is None
