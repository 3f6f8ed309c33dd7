"""Sampled replies along training: figures of the draws themselves, and nothing of the training changed by them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from jobs import bytes_of
from rollout_runs import killed
from tiny_runs import tiny, tiny_recipe

from alignzoo.evaluation.judges.length import Length
from alignzoo.report import curves
from alignzoo.report.run_page import write_report
from alignzoo.report.svg import new_figure
from alignzoo.training import checkpoint, reply_evaluations
from alignzoo.training.records import read_lines

ALONG = (
    "eval.replies={every: 2, num_prompts: 5, max_new_tokens: 6}",
    "eval.judges=[{name: length, unit: characters}]",
)
WITHOUT = ("eval.replies={num_prompts: 5, max_new_tokens: 6}", ALONG[1])


def of_kind(folder, kind):
    return [line for line in read_lines(folder / "metrics.jsonl") if line["kind"] == kind]


@pytest.fixture
def without(tmp_path, monkeypatch):
    """The folder of a run that draws no replies along its way."""
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "other runs"))
    folder = tiny(tmp_path, *WITHOUT).folder
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "runs"))
    return folder


@pytest.mark.usefixtures("no_fork")
def test_a_run_with_replies_has_the_same_weights_and_the_same_fingerprint(tmp_path, without):
    folder = tiny(tmp_path, *ALONG).folder
    assert folder.name == without.name
    assert folder != without
    for name in ("policy/model.safetensors", "samples.jsonl"):
        assert (folder / name).read_bytes() == (without / name).read_bytes(), name
    for kind in ("train", "eval", "exactness"):
        assert of_kind(folder, kind) == of_kind(without, kind)
    assert [line["step"] for line in of_kind(folder, "replies")] == [0, 2, 4, 6]
    assert not of_kind(without, "replies")
    assert not (without / "replies.jsonl").exists()


@pytest.mark.usefixtures("no_fork")
def test_the_figures_are_means_of_the_draws(tmp_path):
    result = tiny(tmp_path, *ALONG, "train.checkpoint_every=6")
    drawn = read_lines(result.folder / "replies.jsonl")
    assert [(line["step"]) for line in drawn] == [step for step in (0, 2, 4, 6) for _ in range(5)]
    for line in of_kind(result.folder, "replies"):
        own = [one for one in drawn if one["step"] == line["step"]]
        assert line["drawn"] == 5
        rewards = [one["judges"]["length"]["reward"] for one in own]
        assert rewards == [len(one["reply"]) for one in own]
        assert line["reward"] == line["reward_length"] == pytest.approx(np.mean(rewards))
        assert line["win_rate_over_chosen_length"] == np.mean([one["judges"]["length"]["over_chosen"] for one in own])
        assert line["finished"] == np.mean([one["finished"] for one in own])
        assert line["length"] == np.mean([one["length"] for one in own])
        for name, figure in (("kl", "kl"), ("log_ratio", "kl_sampled")):
            values = np.array([one[name] for one in own])
            assert line[figure] == pytest.approx(values.mean(), abs=1e-6)
    start = of_kind(result.folder, "replies")[0]
    assert start["kl"] == pytest.approx(0, abs=1e-6)
    assert start["kl_sampled"] == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("no_fork")
def test_both_estimates_of_the_kl_agree_within_their_error(tmp_path):
    """Each token's log-ratio has its KL for a mean, given what came before: the differences add up to nothing."""
    recipe = tiny_recipe(tmp_path, rows=800, prompts=800)
    result = tiny(tmp_path, *ALONG, "eval.replies.num_prompts=300", "eval.replies.every=6")
    assert recipe.exists()
    line, drawn = of_kind(result.folder, "replies")[-1], read_lines(result.folder / "replies.jsonl")
    own = [one for one in drawn if one["step"] == 6]
    apart = np.array([one["log_ratio"] - one["kl"] for one in own])
    assert line["drawn"] == 300
    assert line["kl"] > 5 * line["kl_se"] > 0
    assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(len(apart))
    assert abs(line["kl"] - line["kl_sampled"]) < 4 * line["kl_sampled_se"]
    assert line["kl_se"] < line["kl_sampled_se"], "the exact KL of each token is the better estimate of the two"


def test_a_killed_run_ends_with_the_same_bytes(tmp_path):
    folder = tiny(tmp_path, *ALONG).folder
    names = ("metrics.jsonl", "replies.jsonl", "samples.jsonl")
    want = [bytes_of(folder), *((folder / name).read_bytes() for name in names)]
    for module, name, at in ((reply_evaluations, "_records", 3), (checkpoint, "write_manifest", 2)):
        shutil.rmtree(folder)
        assert killed(module, name, at, lambda: tiny(tmp_path, *ALONG)), name
        assert not (folder / "summary.json").exists()
        again = tiny(tmp_path, *ALONG).folder
        assert [bytes_of(again), *((again / name).read_bytes() for name in names)] == want, name


@pytest.mark.usefixtures("no_fork")
def test_a_longer_run_leaves_out_replies_that_were_due_at_the_end_alone(tmp_path, monkeypatch):
    more = ("eval.replies.every=4", "train.keep_optimizer=true")
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "other runs"))
    straight = tiny(tmp_path, *ALONG, *more, "train.max_steps=8").folder
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "runs"))
    short = tiny(tmp_path, *ALONG, *more, "train.max_steps=6").folder
    assert [line["step"] for line in of_kind(short, "replies")] == [0, 4, 6]
    longer = tiny(tmp_path, *ALONG, *more, "train.max_steps=8").folder
    for name in ("metrics.jsonl", "replies.jsonl"):
        assert (longer / name).read_bytes() == (straight / name).read_bytes(), name


@pytest.mark.usefixtures("no_fork")
def test_a_judge_that_fails_costs_its_own_figures_alone(tmp_path, monkeypatch):
    def scores(self, prompts, replies, tokens=()):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(Length, "scores", scores)
    line = of_kind(tiny(tmp_path, *ALONG).folder, "replies")[-1]
    assert "reward" not in line
    assert line["kl"] > 0


@pytest.mark.usefixtures("no_fork")
def test_the_reference_of_replies_is_the_start_where_the_objective_has_none(tmp_path):
    drawn = of_kind(tiny(tmp_path, *ALONG, "objective=sft").folder, "replies")
    assert drawn[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert drawn[-1]["kl"] > 1e-4


@pytest.mark.usefixtures("no_fork")
def test_the_report_draws_reward_against_kl_along_the_run(tmp_path):
    folder = tiny(tmp_path, *ALONG).folder
    page = write_report(folder).read_text()
    for words in ("reward against KL, from light to dark over the run", "held-out replies, sampled",
                  "win rate of held-out replies over the chosen completion", "Replies along the run",
                  "95% intervals over prompts"):  # fmt: skip
        assert words in page, words
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in read_lines(folder / "metrics.jsonl") if line["kind"] != "replies")
    )
    assert "held-out replies" not in write_report(folder).read_text()


def test_the_band_of_a_curve_is_the_95_percent_interval():
    axes = new_figure(3, 2).add_subplot()
    curves._curve(axes, [(0, 1.0, 0.1), (100, 2.0, 0.2)], "replies", "", "#000000")
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(1 - 1.959964 * 0.1), pytest.approx(2 + 1.959964 * 0.2))
