"""What is measured on held-out rows is what a step over the same rows would report, whatever the budget."""

from __future__ import annotations

import math
from statistics import stdev

import numpy as np
import pytest
import torch
from steps import UNLIMITED, build, every, take

from alignzoo import Objective
from alignzoo.compare.statistics import interval
from alignzoo.core.console import Screen
from alignzoo.core.errors import RunFailed
from alignzoo.evaluation.aggregate import standard_error
from alignzoo.evaluation.evaluate import evaluate, score_all
from alignzoo.evaluation.row_metrics import row_metrics

SAME = {"accuracy": "preference_accuracy"}
"""A step's name for a figure -> the evaluation's."""
NAMES = [
    "dpo", "sft", "kto", "bco", "aot", "dr_dpo", "beta_dpo", "alpha_dpo", "apo_zero_unpaired", "pl_dpo", "infonca",
    "sampo", "tdpo2", "tr_dpo", "bradley_terry", "dpo + sft", "bco + beta_dpo", "apo_zero_unpaired + sft",
    "dpo with label_smoothing",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_the_held_out_figures_are_those_of_one_batch(tmp_path, name):
    """A batch objective sees all held-out rows as one batch, with the state that training left."""
    stand_still = {"name": "sgd", "learning_rate": 1e-30}
    engine = build(every()[name], tmp_path, batch_size=40, shuffle=False, optimizer=stand_still)
    step = take(engine).metrics[0]
    small, large = (
        evaluate(engine.scorer, engine.builder, budget, Screen(quiet=True), engine.states)
        for budget in (200, UNLIMITED)
    )
    assert small == pytest.approx(large, rel=1e-5, abs=1e-6)
    figures = {SAME.get(key, key): value for key, value in step.items()}
    shared = figures.keys() & large.keys()
    assert {"loss", "chosen_log_prob" if name != "bradley_terry" else "margin"} <= shared
    for key in shared:
        assert large[key] == pytest.approx(figures[key], rel=1e-4, abs=1e-5), key


def test_each_row_has_its_own_scores_whatever_the_budget(tmp_path):
    """Micro-batches hold rows of like lengths; the scores come back in the order of the rows."""
    engine = build(every()["dpo"], tmp_path, batch_size=40, shuffle=False)
    quiet = Screen(quiet=True)
    parts, one = (score_all(engine.scorer, engine.builder, budget, quiet, "rows") for budget in (200, UNLIMITED))
    lengths = [tree.branches[0].scored for tree in engine.builder.trees]
    assert sorted(lengths) != lengths
    for scores in (parts, one):
        assert scores.lengths.tolist() == [branch.scored for tree in engine.builder.trees for branch in tree.branches]
    assert parts.values["log_prob"].tolist() == pytest.approx(one.values["log_prob"].tolist(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["tdpo1", "tr_dpo"])
def test_a_policy_that_is_its_live_reference_ties_to_the_bit(tmp_path, name):
    engine = build(every()[name], tmp_path)
    engine.builder.live.load_state_dict(engine.scorer.state_dict())
    start = evaluate(engine.scorer, engine.builder, 500, Screen(quiet=True), engine.states, at_start=True)
    assert start["margin"] == 0
    assert start["preference_accuracy"] == 0.5
    assert start["loss"] == pytest.approx(0.6931472, abs=1e-7)


class Wrong(Objective):
    """One value is what `how` makes of it."""

    name = "wrong"
    reference = "none"
    how: str = "nan"

    def loss(self, pair):
        margin = pair.chosen.log_prob - pair.rejected.log_prob
        return margin[:, None] if self.how == "column" else torch.full_like(margin, float(self.how))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", r"held-out rows: the loss of wrong is not finite for rows row 0, row 1, "),
        ("inf", r"held-out rows: the loss of wrong is not finite for rows row 0, row 1, "),
        ("column", r"the loss of wrong has shape \(\d+, 1\); expected one loss an example, "),
    ],
)
def test_a_wrong_loss_on_held_out_rows_is_reported_as_in_a_step(tmp_path, how, words):
    """The first evaluation comes before the first step."""
    engine = build(Wrong(how=how), tmp_path)
    with pytest.raises(RunFailed, match=words):
        evaluate(engine.scorer, engine.builder, UNLIMITED, Screen(quiet=True), engine.states)


class Infinite(Objective):
    """The implicit reward of one row's chosen completion is `value`."""

    name = "infinite"
    reference = "none"
    value: str = "inf"

    def loss(self, pair):
        return pair.rejected.log_prob - pair.chosen.log_prob

    def implicit_reward(self, scored):
        reward = scored.log_prob.clone()
        reward[0] = float(self.value)
        return reward


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_reward_that_is_not_finite_costs_its_own_row_and_is_said(tmp_path, capsys, monkeypatch, value):
    from alignzoo.core import console

    monkeypatch.setattr(console, "_warned", set())
    engine = build(Infinite(value=value), tmp_path, batch_size=40, shuffle=False)
    batch, _ = engine.builder.score(engine.scorer, list(range(len(engine.builder.trees))), everything=True)
    found = row_metrics(engine.builder, batch, ("preference_accuracy",))
    for name in ("chosen_reward", "margin", "preference_accuracy"):
        assert found[name].isnan().tolist() == [True] + [False] * (len(found[name]) - 1), name
    assert not found["rejected_reward"].isnan().any()
    words = "the implicit reward of infinite is not finite for 1 of"
    assert words in " ".join(capsys.readouterr().err.split())
    metrics = take(engine).metrics[0]
    assert all(math.isfinite(metric) for metric in metrics.values())


def test_a_standard_error_is_the_deviation_over_the_root_of_n():
    values = np.array([0.0, 1.0, 1.0, math.nan, 3.0])
    assert standard_error(values, np.arange(5)) == pytest.approx(stdev([0, 1, 1, 3]) / 2)


def test_rows_with_one_prompt_count_once_in_the_standard_error_of_accuracy(tmp_path):
    """Copies of every row tell nothing new: the standard error is that of the prompts."""
    engine = build(every()["dpo"], tmp_path)
    builder, n = engine.builder, len(engine.builder.trees)
    builder.prompts = np.arange(n) // 2
    found = evaluate(engine.scorer, builder, UNLIMITED, Screen(quiet=True), engine.states)
    batch = score_all(engine.scorer, builder, UNLIMITED, Screen(quiet=True), "rows")
    accuracy = row_metrics(builder, batch, ("preference_accuracy",))["preference_accuracy"].double().numpy()
    expected = interval(accuracy[None], groups=builder.prompts).se
    assert found["preference_accuracy_se"] == pytest.approx(expected)
    assert expected != pytest.approx(interval(accuracy[None]).se)
