"""Weighted sums of objectives: the sum of what each does alone, and each part is given what it declares."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import make, modified

from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.declared import NotDeclared
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.compatibility import incompatibility
from alignzoo.objectives.composition import Sum
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.testing.synthetic_batch import batch_for

sys.path.insert(0, str(Path(__file__).parent.parent / "training" / "engine"))

from steps import BATCH, VOCABULARY, build, random_rows, take

LABEL_SMOOTHED = modified(make("ipo", beta=0.5), "length_desensitization", "label_smoothing")
SUMS = [
    ("pair", [make("dpo"), make("sft")], [1.0, 0.2]),
    ("pair", [make("sft"), make("sft", reduction="sequence"), make("dpo", beta=0.5)], [0.3, 2.0, 1.0]),
    ("pair", [LABEL_SMOOTHED, make("ld_dpo"), make("simpo")], [1.0, 0.5, 2.5]),
    ("pair", [make("aot"), make("dpo"), make("sft")], [0.7, 1.0, 0.1]),
    ("pair", [make("beta_dpo", keep=0.5), make("wpo")], [1.0, 3.0]),
    ("pair", [make("tdpo1"), make("dpo"), make("orpo")], [1.0, 0.5, 0.25]),
    ("pair", [make("apo_zero_unpaired"), make("dpo")], [1.0, 1.0]),
    ("pair", [make("dpo"), make("pl_dpo", beta=0.7)], [1.0, 1.0]),
    ("unpaired", [make("bco"), make("apo_zero_unpaired", beta=0.8)], [1.0, 0.5]),
    ("ranked", [make("pl_dpo"), make("infonca"), make("sft")], [1.0, 0.3, 0.1]),
    ("pair", [make("bradley_terry"), make("bradley_terry_margin")], [1.0, 0.5]),
]


def a_sum(parts, weights=None) -> Sum:
    return Sum(parts=tuple(parts), weights=tuple(weights or [1.0] * len(parts)))


def name_of(value) -> str | None:
    return (
        "+".join(part.name for part in value) if isinstance(value, list) and isinstance(value[0], Objective) else None
    )


@pytest.mark.parametrize(("data", "parts", "weights"), SUMS, ids=name_of)
def test_a_sums_step_is_the_weighted_sum_of_its_parts_steps(tmp_path, data, parts, weights):
    """Of the loss and of every gradient, each part normalized by its own weights, whatever the others need."""
    trees = random_rows(data)
    whole = take(build(a_sum(parts, weights), tmp_path, trees=trees))
    alone = [take(build(part, tmp_path, trees=trees)) for part in parts]
    losses = [one.metrics[0]["loss"] for one in alone]
    wanted = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    assert whole.metrics[0]["loss"] == pytest.approx(wanted, rel=1e-5)
    assert len(set(losses)) == len(losses)
    for name, got in whole.gradients[0].items():
        each = [weight * one.gradients[0].get(name, 0) for weight, one in zip(weights, alone, strict=True)]
        assert torch.allclose(got, sum(each), rtol=1e-4, atol=1e-4 * float(got.abs().max())), name


def test_dpo_plus_sft_is_rpo_where_all_chosen_completions_are_as_long(tmp_path):
    """RPO divides each pair's likelihood by its own length and SFT the batch's by all lengths: up to that they agree."""
    dice = np.random.default_rng(0)

    def some(count: int) -> np.ndarray:
        return dice.integers(1, VOCABULARY, count).astype(np.int32)

    for lengths, alike in (([7], True), ([3, 12], False)):
        items = [
            Tree(f"row {i}", some(5), (Branch(some(lengths[i % len(lengths)])), Branch(some(4 + i % 5))))
            for i in range(BATCH)
        ]
        trees = Trees.build(items)
        ours, rpo = (
            take(build(one, tmp_path, trees=trees)).metrics[0]["loss"]
            for one in (a_sum([make("dpo"), make("sft")], [1.0, 0.2]), make("rpo", alpha=0.2))
        )
        assert (ours == pytest.approx(rpo, rel=1e-6)) is alike


def test_a_sum_needs_what_its_parts_need():
    whole = a_sum(
        [make("sft"), make("odpo"), modified("dpo", "length_desensitization", "wpo_weighting"), make("beta_dpo")]
    )
    assert (whole.reference, whole.scope, whole.head) == ("token", "batch", "language_model")
    assert (whole.tokens, whole.needs_uniform, whole.mismatched) == (True, True, False)
    assert (whole.statistics, whole.columns) == (("log_collision_prob",), ("score",))
    assert whole.name == "sft+odpo+dpo+beta_dpo"
    assert [piece.name for piece in whole.components] == [
        "sft",
        "odpo",
        "dpo",
        "length_desensitization",
        "wpo_weighting",
        "beta_dpo",
    ]


@pytest.mark.parametrize(
    ("names", "reference"),
    [
        (["simpo", "sft"], "none"),
        (["sft", "dpo"], "sequence"),
        (["ld_dpo", "dpo"], "token"),
        (["dpo", "tdpo1"], "live"),
        (["tdpo1", "ld_dpo"], "live"),
        (["sft", "tr_dpo"], "moving"),
    ],
)
def test_the_reference_of_a_sum_is_the_one_that_serves_all(names, reference):
    assert a_sum([make(name) for name in names]).reference == reference


def test_a_sum_moves_the_reference_as_the_part_that_has_it_says():
    whole = a_sum([make("sft"), make("tr_dpo", alpha=0.4, every=3)])
    assert [whole.reference_update(step) for step in range(1, 7)] == [0, 0, 0.4, 0, 0, 0.4]


def test_each_part_sees_what_it_declares_and_not_what_another_does():
    """An objective that forgot a declaration fails in a sum as it does alone."""
    parts = [make("odpo"), modified("dpo", "length_downsampling", "wpo_weighting"), make("sft")]
    batch = batch_for(a_sum(parts))
    builder = BatchBuilder(a_sum(parts), batch.trees)
    odpo, dpo, sft = (next(builder.examples(batch.scored_batch(), part)).example for part in parts)
    assert odpo.chosen.column("score").shape == (6,)
    assert (
        dpo.chosen.tokens.uniform.shape
        == dpo.chosen.tokens.log_collision_prob.shape
        == dpo.chosen.tokens.ref_log_prob.shape
    )
    for read in (
        lambda: odpo.chosen.tokens, lambda: odpo.uniform, lambda: dpo.chosen.column("score"),
        lambda: dpo.chosen.tokens.entropy, lambda: sft.ref_log_prob, lambda: sft.log_ratio, lambda: sft.tokens,
        lambda: sft.column("score"),
    ):  # fmt: skip
        with pytest.raises(NotDeclared):
            read()


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([make("bradley_terry"), make("sft")], "one term trains a reward model and another a language model"),
        ([make("tr_dpo"), make("dpo")], "one term has a moving reference and another a frozen one"),
        ([make("tr_dpo"), make("tdpo1")], "one term has a moving reference and another a frozen one"),
        ([make("tr_dpo"), make("tr_dpo", every=7)], "two terms move the reference"),
        ([make("dpo"), make("sft"), make("dpo")], "dpo(beta=0.1) is listed twice"),
        ([modified("dpo", "margin"), modified("dpo", "margin")], "dpo(beta=0.1) with margin is listed twice"),
        ([make("sft"), modified(make("aot", beta=0.1), "length_normalization")], "length_normalization changes the log-ratio, which aot(beta=0.1) does not read"),
    ],
)  # fmt: skip
def test_a_sum_without_meaning_is_reported(parts, why):
    assert why in incompatibility(a_sum(parts))


@pytest.mark.parametrize(
    "parts",
    [
        [make("dpo"), make("dpo", beta=0.5)],
        [make("dpo"), modified("dpo", "length_normalization")],
        [modified("dpo", "margin"), modified("dpo", "label_smoothing")],
        [make("tdpo1"), make("dpo"), make("ld_dpo")],
        [make("kto"), make("dpo"), make("pl_dpo"), make("sft")],
        [make("tr_dpo"), make("simpo"), make("sft")],
        [make("bco"), make("beta_dpo")],
    ],
    ids=name_of,
)
def test_a_sum_with_a_meaning_is_let_through(parts):
    assert incompatibility(a_sum(parts)) == ""


def test_a_sum_of_one_objective_on_groups_has_its_advantage_and_state(monkeypatch):
    """And not the defaults: the bare reward, and a state that never moves."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "plugins" / "alignzoo-online"))
    from alignzoo_online.ppo import PPO
    from alignzoo_online.reinforce import ReMax

    ppo = PPO(target_kl=1.0)
    one = Sum(parts=(ppo,), weights=(1.0,))
    assert one.advantage_reads_log_probs
    assert Sum(parts=(ReMax(),), weights=(1.0,)).greedy_baseline
    group = batch_for(ppo).group()
    assert torch.equal(one.advantage(group), ppo.advantage(group))
    assert torch.equal(one.returns(group), ppo.returns(group))
    assert one.next_state(group) == ppo.next_state(group) != ppo.initial_state()
