"""Records of held-out rows: their means are the evaluation's figures, and their weights the loss's own gradient."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from steps import UNLIMITED, build, every, take

from alignzoo import Objective
from alignzoo.core.console import Screen
from alignzoo.evaluation.evaluate import evaluate, score_all
from alignzoo.evaluation.row_records import gradient_weights


def records_of(engine):
    found: list = []
    figures = evaluate(engine.scorer, engine.builder, UNLIMITED, Screen(quiet=True), engine.states, records=found)
    return figures, found


@pytest.mark.parametrize("name", ["dpo", "kto", "beta_dpo", "pl_dpo", "bradley_terry", "dpo + sft"])
def test_means_of_records_are_the_evaluations_figures(tmp_path, name):
    engine = build(every()[name], tmp_path, batch_size=40)
    take(engine)
    figures, records = records_of(engine)
    assert [record["id"] for record in records] == list(engine.builder.trees.ids)
    json.dumps(records, allow_nan=False)
    for key in ("margin", "chosen_log_prob", "rejected_reward"):
        own = [record[key] for record in records if key in record]
        assert (len(own) > 0) == (key in figures), key
        assert not own or np.mean(own) == pytest.approx(figures[key], rel=1e-5)
    weights = [record["gradient_weight"] for record in records]
    assert all(weight >= 0 for weight in weights)
    assert sum(weights) > 0
    lengths = [[branch.scored for branch in tree.branches] for tree in engine.builder.trees]
    if name == "dpo":
        assert [record["chosen_length"] for record in records] == [own[0] for own in lengths]
        assert [record["rejected_length"] for record in records] == [own[-1] for own in lengths]
    elif name == "kto":
        assert not any("chosen_length" in record for record in records)  # single completions are not compared


def test_the_weight_of_a_pair_under_dpo_is_twice_beta_sigmoid_of_minus_the_margin(tmp_path):
    """Rafailov et al. 2023, section 4: the gradient's weight of a pair, for both of its completions, over N rows."""
    engine = build(every()["dpo"], tmp_path, batch_size=40)
    take(engine)
    _, records = records_of(engine)
    beta = engine.builder.objective.beta
    for record in records:
        want = 2 * beta / (1 + math.exp(record["margin"])) / len(records)
        assert record["gradient_weight"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("what", ["detached", "raises"])
def test_a_loss_without_a_gradient_has_no_weights(tmp_path, what):
    class Odd(Objective):
        """A loss that can't be differentiated."""

        name, reference = "odd", "none"

        def loss(self, pair):
            if what == "raises" and pair.chosen.log_prob.requires_grad:
                raise ValueError("no")
            return pair.chosen.log_prob.detach() * 0.0

    engine = build(Odd(), tmp_path, batch_size=40)
    batch = score_all(engine.scorer, engine.builder, UNLIMITED, Screen(quiet=True), "rows")
    assert gradient_weights(engine.builder, batch) is None
    _, records = records_of(engine)
    assert not any("gradient_weight" in record for record in records)
