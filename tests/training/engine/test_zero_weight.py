"""A step whose weights are all 0 moves nothing, and is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from steps import KTO, SFT, build, difference, random_rows, take

from alignzoo import Objective
from alignzoo.core.console import Screen
from alignzoo.evaluation.evaluate import evaluate


class Weighted(Objective):
    """DPO without a reference, weighted by a column."""

    name = "weighted"
    reference = "none"
    columns = ("margin",)

    def weight(self, pair):
        return pair.chosen.column("margin")

    def loss(self, pair):
        return -self.weight(pair) * torch.nn.functional.logsigmoid(pair.chosen.log_prob - pair.rejected.log_prob)


class WholeBatch(Weighted):
    """The same, by the path for losses that see the whole batch."""

    name = "whole_batch"
    scope = "batch"


def half_weightless():
    trees = random_rows("pair", rows=40)
    trees.columns["margin"] = np.repeat(np.float32([0, 1]), trees.branches(20)[0])
    return trees


@pytest.mark.parametrize("objective", [Weighted(), WholeBatch()], ids=lambda one: one.name)
def test_a_step_without_weight_moves_nothing_and_is_counted(tmp_path, objective):
    """AdamW with weight decay would move weights at a gradient of 0; its step count would grow."""
    adam = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}
    engine = build(objective, tmp_path, half_weightless(), batch_size=20, shuffle=False, optimizer=adam)
    before = {name: one.detach().clone() for name, one in engine.scorer.model.named_parameters()}
    first, _ = engine.step(0)
    assert (first["zero_weight"], first["loss"], first["grad_norm"]) == (1, 0, 0)
    assert "margin" not in first or np.isfinite(first["margin"])
    assert all(torch.equal(one, before[name]) for name, one in engine.scorer.model.named_parameters())
    assert not engine.optimizer.state
    second, _ = engine.step(1)
    assert "zero_weight" not in second
    assert second["grad_norm"] > 0


def test_a_step_without_rows_keeps_the_state_of_its_rollout(tmp_path):
    """The first minibatch of a rollout may be empty where draws have no spread, and the steps after it read its state."""
    engine = build(SFT(), tmp_path, random_rows("pair", rows=40), batch_size=20)

    class NoRows:
        def begin(self, step, states):
            return [], [{"mean": 0.25}]

    engine.batches = NoRows()
    assert engine.step(0)[0]["zero_weight"] == 1
    assert engine.states == [{"mean": 0.25}]


def test_a_micro_batch_without_an_example_adds_nothing(tmp_path):
    """SFT on labeled rows of which a micro-batch holds undesirable ones alone."""
    trees = random_rows("unpaired", rows=40)
    first = np.array([trees.branches(row)[0] for row in range(40)])
    trees.columns["desirable"] = np.zeros_like(trees.columns["desirable"])
    trees.columns["desirable"][first[:3]] = 1
    small, whole = (
        take(build(SFT(), tmp_path, trees, batch_size=40, shuffle=False, micro_batch_tokens=budget))
        for budget in (64, 10**6)
    )
    assert difference(small.gradients[0], whole.gradients[0]) < 1e-5


def test_no_example_at_all_is_such_a_step(tmp_path):
    """SFT on completions that are all undesirable has nothing to learn from."""
    trees = random_rows("unpaired", rows=40)
    trees.columns["desirable"] = np.zeros_like(trees.columns["desirable"])
    engine = build(SFT(), tmp_path, trees)
    assert take(engine).metrics[0]["zero_weight"] == 1


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_held_out_labels_of_one_kind_give_no_margin(tmp_path, capsys, label):
    engine = build(KTO(), tmp_path)
    labels = engine.builder.trees.columns
    labels["desirable"] = np.full_like(labels["desirable"], label)
    figures = evaluate(engine.scorer, engine.builder, 500, Screen(quiet=True), engine.states)
    kind, other = ("chosen", "rejected") if label else ("rejected", "chosen")
    assert f"{kind}_reward" in figures
    assert np.isfinite(figures["loss"])
    assert not {"margin", "preference_accuracy", "likelihood_accuracy", f"{other}_reward"} & figures.keys()
    assert "no margin and no accuracy" in capsys.readouterr().err
