"""Frontiers of a comparison, from the replies that runs recorded along training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from measured import Runs, about

from alignzoo.compare.checks import check_frontier
from alignzoo.compare.frontier_runs import frontier_table
from alignzoo.compare.grid import ComparedRow, Point
from alignzoo.compare.plan import make_plan
from alignzoo.compare.results import RunRecord
from alignzoo.compare.spec import Comparison, read_comparison
from alignzoo.compare.table import build
from alignzoo.core.errors import UserError
from alignzoo.report.comparison.markdown import markdown
from alignzoo.report.comparison.page import page
from alignzoo.report.comparison.plots import plots
from alignzoo.report.comparison.write import as_json

ABOUT = {"frontier": {"reward": "truth", "kl": [1.0, 2.0, 9.0]}, "baseline": "ppo"}
N = 30


def write_replies(path, seed, slope, steps=(0, 10, 20), ids=None, judge="truth", rise=0.0):
    """Replies of a run whose KL is 1 at step 10 and 2 at step 20, with a reward of slope * KL and noise of each prompt."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 0.05, N)
    lines = []
    for step in steps:
        kl = step / 10
        for n, id in enumerate(ids or [f"row {n}" for n in range(N)]):
            reward = slope * min(kl, 1) + noise[n] + rise * (step == steps[-1])
            lines.append(
                {"step": step, "id": id, "prompt": id, "reply": "a", "length": 3, "finished": True, "kl": kl, "judges": {
                    judge: {"reward": float(reward)}}}
            )  # fmt: skip
    (path / "replies.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def record(folder, label, point, seed, slope, **more):
    """A finished run."""
    path = folder / f"{label}-{point}-{seed}"
    path.mkdir()
    write_replies(path, seed, slope, **more)
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


def test_only_prompts_that_every_row_answered_count(tmp_path):
    """The prompts of a row lack three, and another row lacks one more."""
    ids = [f"row {n}" for n in range(N)]
    rows = [
        row(tmp_path, "dpo", [0.8], ids=ids[3:]),
        row(tmp_path, "ppo", [0.3]),
        row(tmp_path, "ipo", [0.3], ids=ids[:-1]),
    ]
    found = frontier_table(ABOUT, rows, draws=10)
    assert found.prompts == N - 4
    assert {curve.reward.shape for curve in found.curves} == {(3, N - 4)}
    assert found.left_out == {}


def test_only_seeds_that_every_row_has_count(tmp_path):
    rows = [row(tmp_path, "dpo", [0.8], seeds=(0, 1, 2)), row(tmp_path, "ppo", [0.3], seeds=(1, 2, 3))]
    assert frontier_table(ABOUT, rows, draws=10).seeds == [1, 2]
    rows[1] = row(tmp_path, "grpo", [0.3], seeds=(5,))
    assert frontier_table(ABOUT, rows, draws=10) is None


def test_a_comparison_without_the_key_has_none(tmp_path):
    assert frontier_table({"baseline": "ppo"}, [row(tmp_path, "dpo", [0.8])]) is None


# --- in a comparison's report


@pytest.fixture
def compared(tmp_path):
    """A comparison of DPO at two betas, of PPO, and of a row without replies along training, over two seeds."""
    runs = Runs(tmp_path)
    for label, slope in (("dpo_hh", 0.8), ("ppo_hh", 0.3)):
        for seed in range(2):
            runs.add(label, seed, {"objective.beta": slope})
            write_replies(tmp_path / f"run-{len(runs.entries) - 1}", seed, slope)
    runs.add("ipo_hh", 0).add("ipo_hh", 1)
    return build(about(frontier={"reward": "truth", "kl": [1.0, 9.0]}, baseline="ppo_hh"), runs.entries)


def test_the_report_has_the_frontier_in_words_and_numbers(compared):
    text = markdown(compared)
    assert "## Reward against KL along training" in text
    assert "| recipe | KL 1" in text
    assert "not reached" in text
    assert "dpo_hh is above ppo_hh at every KL that both reach (1), with 95% confidence." in text
    assert "Every row has the same budget: 1 settings with 2 checkpoints each." in text
    assert "ipo_hh has no frontier: its runs recorded no replies along training: set eval.replies.every." in text
    plain = as_json(compared)["frontier"]
    assert [row["label"] for row in plain["rows"]] == ["ppo_hh", "dpo_hh"]
    assert plain["rows"][1]["above_baseline"] is True
    assert plain["runs"][0]["kl"] == pytest.approx([0, 1, 2])


@pytest.mark.slow
def test_the_page_draws_the_frontier_first(compared):
    drawn = plots(compared)
    assert drawn[0].name == "frontier_along_training"
    assert "dpo_hh, beta=0.8, seed 0, step 10: KL 1, reward" in drawn[0].svg
    html = page(compared, drawn)
    assert "Reward against KL along training" in html
    assert "not reached" in html


# --- in a comparison's file


def written(tmp_path, text):
    path = tmp_path / "paper.yaml"
    path.write_text(text)
    return read_comparison(path)[1]


REPLIES = "set: {eval.replies.every: 5, eval.judges: [toy]}\n"


def test_a_row_has_a_grid_of_its_own(tmp_path):
    found = written(
        tmp_path,
        "recipes: [dpo_hh, ipo_hh]\nseeds: 1\ngrids: {ipo_hh: {objective.beta: [0.2, 0.3]}, dpo_hh: {objective.beta: 0.7}}\n",
    )
    jobs = make_plan(found).jobs
    assert [(job.label, job.point) for job in jobs] == [
        ("dpo_hh", {"objective.beta": 0.7}), ("ipo_hh", {"objective.beta": 0.2}), ("ipo_hh", {"objective.beta": 0.3}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        ({"ipo_h": {"objective.beta": (1,)}}, "grids: no row is called 'ipo_h'; did you mean 'ipo_hh'"),
        ({"ipo_hh": {"objective.bta": (1,)}}, "grids, ipo_hh: the recipe has no key 'objective.bta'; did you mean"),
    ],
)
def test_a_wrong_grid_of_a_row_is_refused(grids, said):
    with pytest.raises(UserError) as refused:
        make_plan(Comparison(recipes=("dpo_hh", "ipo_hh"), grids=grids))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "dpo_hh records no replies along training"),
        ("set: {eval.replies.every: 5}\n", "dpo_hh has no judge 'toys' in eval.judges"),
        (REPLIES, "did you mean 'toy'?"),
        (REPLIES.replace("toy", "length"), "expected one of length"),
    ],
)
def test_a_frontier_that_no_run_would_record_is_refused_before_the_first(tmp_path, more, said):
    found = written(tmp_path, f"recipes: [sft_hh, dpo_hh]\nfrontier: {{reward: toys}}\n{more}")
    with pytest.raises(UserError) as refused:
        check_frontier(make_plan(found))
    assert said in str(refused.value)


def test_a_frontier_that_every_run_records_is_planned(tmp_path):
    found = written(tmp_path, f"recipes: [sft_hh, dpo_hh]\nfrontier: {{reward: toy, kl: [1, 2.5]}}\n{REPLIES}")
    check_frontier(make_plan(found))
    assert found.frontier.kl == (1.0, 2.5)
