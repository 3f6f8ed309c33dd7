"""A step is defined on the global batch: nothing about its execution may show in its result."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from steps import APOZeroUnpaired, difference, random_rows, rows_for, take

from alignzoo.core.distributed.process_group import share_rows
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.ipo import IPO
from alignzoo.objectives.builtin.sft import SFT
from alignzoo.objectives.composition import Sum
from alignzoo.recipe.optimizers import AdamW, RMSprop
from alignzoo.recipe.schema import Schedule, TrainConfig
from alignzoo.training.optimizers import make_optimizer
from alignzoo.training.schedule import _order, rate_factor, rows_of_step, total_steps


class Summing(Objective):
    """Each loss depends on the batch's mean and on all batches before."""

    name = "summing"
    scope = "batch"

    def initial_state(self):
        return {"total": 0.0}

    def next_state(self, pair):
        return {"total": pair.state["total"] + pair.margin.sum()}

    def loss(self, pair):
        return (pair.margin - pair.margin.mean() - 0.01 * pair.state["total"]) ** 2


@pytest.mark.parametrize("share", [1.5, 4])
def test_clipping_bounds_the_step(make_engine, share):
    """A norm that is little above the bound is clipped as one far above it."""
    sgd = {"name": "sgd", "learning_rate": 1.0}
    norm = take(make_engine(IPO(), max_grad_norm=None, optimizer=sgd)).metrics[0]["grad_norm"]
    steps = take(make_engine(IPO(), max_grad_norm=norm / share, optimizer=sgd))
    assert steps.metrics[0]["grad_norm"] == pytest.approx(norm)
    clipped = math.sqrt(sum(float(one.square().sum()) for one in steps.gradients[0].values()))
    assert clipped == pytest.approx(norm / share, rel=1e-3)


def small_memory(engine, monkeypatch, slots):
    """Forwards of more slots fail as torch fails; returns the sizes that were tried."""
    forward, tried = engine.scorer.forward, []

    def limited(forest, *more):
        tried.append(forest.slots)
        if forest.slots > slots:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return forward(forest, *more)

    monkeypatch.setattr(engine.scorer, "forward", limited)
    return tried


@pytest.mark.parametrize("objective", [DPO(), Summing()], ids=["example", "batch"])
def test_out_of_memory_halves_the_budget_and_repeats_the_step(make_engine, monkeypatch, objective):
    want = take(make_engine(objective), 2)
    engine = make_engine(objective, micro_batch_tokens=1600)
    tried = small_memory(engine, monkeypatch, 500)
    got = take(engine, 2)
    assert max(tried) > 500
    assert engine.passes.budget == 400
    for one, other in zip(got.gradients, want.gradients, strict=True):
        assert difference(one, other) <= 1e-5
    assert got.states == [pytest.approx(state, rel=1e-4) for state in want.states]  # the state saw each batch once


def test_memory_that_runs_out_in_the_backward_leaves_no_gradient_behind(make_engine, monkeypatch):
    """Of a batch objective: the scores are taken, some of the replay is done, and one micro-batch does not fit."""
    want = take(make_engine(Summing()))
    engine = make_engine(Summing(), micro_batch_tokens=1000)
    backward, calls = torch.Tensor.backward, []

    def limited(self, *more, **options):
        calls.append(self)
        if len(calls) == 3:  # the loss of the whole batch, the first micro-batch, the second
            raise torch.OutOfMemoryError("CUDA out of memory")
        return backward(self, *more, **options)

    monkeypatch.setattr(torch.Tensor, "backward", limited)
    got = take(engine)
    assert engine.passes.budget == 500
    assert difference(got.gradients[0], want.gradients[0]) <= 1e-5
    assert got.states == [pytest.approx(state, rel=1e-4) for state in want.states]


def test_a_row_that_does_not_fit_alone_is_an_error(make_engine, monkeypatch):
    engine = make_engine(DPO())
    small_memory(engine, monkeypatch, 10)
    with pytest.raises(RunFailed, match=r"memory ran out for row row \d+ alone, of \d+ token slots; .* needs less"):
        engine.step(0)


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_engine, monkeypatch):
    engine = make_engine(DPO())
    monkeypatch.setattr(engine.scorer, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        engine.step(0)


class Poisoned(Objective):
    """Not finite for one length of completion."""

    name = "poisoned"
    reference = "none"

    def loss(self, pair):
        return (pair.chosen.log_prob - pair.rejected.log_prob) / (pair.chosen.length != 5)


class PoisonedBatch(Poisoned):
    """The same, of the whole batch, with a state."""

    scope = "batch"

    def initial_state(self):
        return {"batches": 0}

    def next_state(self, pair):
        return {"batches": pair.state["batches"] + 1}


@pytest.mark.parametrize("objective", [Poisoned(), PoisonedBatch()], ids=["example", "batch"])
def test_a_loss_that_is_not_finite_names_the_step_and_the_rows_and_changes_nothing(make_engine, objective):
    engine = make_engine(objective, batch_size=8, micro_batch_tokens=128)
    trees = engine.builder.trees
    bad = [tree.id for tree in trees if tree.branches[0].scored == 5]
    rows = {step: {trees.ids[i] for i in rows_of_step(step, len(trees), engine.config, 0)} for step in range(5)}
    step = next(step for step in rows if rows[step] & set(bad))
    before, states = [p.detach().clone() for p in engine.scorer.parameters()], list(engine.states)
    with pytest.raises(
        RunFailed, match=rf"step {step + 1}: the loss of poisoned is not finite for rows row \d+"
    ) as error:
        engine.step(step)
    assert all(name in str(error.value) for name in rows[step] & set(bad))
    assert all(torch.equal(old, new) for old, new in zip(before, engine.scorer.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in engine.scorer.parameters())
    assert engine.states == states


class Raises(Poisoned):
    """Fails as plugins fail."""

    name = "raises"

    def loss(self, pair):
        return {}[pair.chosen.log_prob.shape]


class RaisesInItsState(PoisonedBatch):
    name = "raises"

    def next_state(self, pair):
        raise ValueError("no\nstate")


@pytest.mark.parametrize(
    ("objective", "words"), [(Raises(), r"loss of raises raised KeyError: "), (RaisesInItsState(), "next_state of raises raised ValueError: no")]
)  # fmt: skip
def test_code_that_raises_is_named_with_its_line_and_rows_and_changes_nothing(make_engine, objective, words):
    engine = make_engine(objective, batch_size=8, micro_batch_tokens=128)
    before = [p.detach().clone() for p in engine.scorer.parameters()]
    with pytest.raises(RunFailed, match=rf"^step 1: the {words}.* \(.*test_engine\.py:\d+\), for rows row \d+"):
        engine.step(0)
    assert all(torch.equal(old, new) for old, new in zip(before, engine.scorer.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in engine.scorer.parameters())


class WrongShape(Objective):
    """Returns a mean."""

    name = "wrong"

    def loss(self, pair):
        return pair.margin.mean()


def test_a_loss_of_the_wrong_shape_is_rejected(make_engine):
    with pytest.raises(RunFailed, match=r"the loss of wrong has shape \(\); expected one loss an example"):
        make_engine(WrongShape()).step(0)


def config(**fields) -> TrainConfig:
    return TrainConfig.model_validate({"optimizer": {"name": "sgd", "learning_rate": 1.0}} | fields)


def test_every_epoch_holds_every_row_once_in_another_order():
    train = config(batch_size=5)
    epochs = [np.concatenate([rows_of_step(4 * e + s, 20, train, 7) for s in range(4)]) for e in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(20))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0][:5], rows_of_step(0, 20, train, 8))
    assert rows_of_step(5, 20, config(batch_size=5, shuffle=False), 7).tolist() == [5, 6, 7, 8, 9]


def test_steps_are_counted_in_whole_batches():
    assert total_steps(config(batch_size=8), 20) == 2
    assert total_steps(config(batch_size=8, epochs=2.5), 20) == 5
    assert total_steps(config(batch_size=8, max_steps=1), 20) == 1
    assert total_steps(config(batch_size=8, epochs=0.1), 20) == 1


def test_epochs_count_as_the_decimal_that_was_written():
    """All 1,196 combinations of 0.01 to 2.99 epochs and 4 numbers of batches, by integer arithmetic."""
    for hundredths in range(1, 300):
        for batches in (50, 100, 150, 700):
            want = max(1, hundredths * batches // 100)
            assert total_steps(config(batch_size=2, epochs=float(f"{hundredths / 100:.2f}")), 2 * batches) == want


def test_warm_up_is_the_dpo_authors_and_decay_ends_at_zero():
    warm = Schedule(name="constant", warmup_steps=150)
    assert [rate_factor(warm, s, 1000) for s in (0, 149, 150, 999)] == [1 / 151, 150 / 151, 1, 1]
    for name in ("linear", "cosine"):
        schedule = Schedule(name=name, warmup_steps=10)
        factors = [rate_factor(schedule, s, 100) for s in range(101)]
        assert factors[10] == 1
        assert factors[55] == pytest.approx(0.5)
        assert factors[100] == pytest.approx(0, abs=1e-12)
        assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))


def test_ranks_share_the_tokens_evenly_and_lose_no_row():
    rng = np.random.default_rng(0)
    rows, sizes = list(range(64)), rng.integers(10, 500, 64).tolist()
    for ranks in (1, 2, 4):
        parts = [share_rows(rows, sizes, rank, ranks) for rank in range(ranks)]
        assert sorted(row for part in parts for row in part) == rows
        loads = [sum(sizes[i] for i in part) for part in parts]
        assert max(loads) - min(loads) <= max(sizes)


def test_a_batch_smaller_than_the_number_of_processes_is_rejected(make_engine):
    ranks = SimpleNamespace(count=3, index=0)
    with pytest.raises(UserError, match=r"train\.batch_size: a batch of 2 can't be shared by 3 processes") as error:
        make_engine(DPO(), batch_size=2, ranks=ranks)
    assert "at least 3" in str(error.value)


def test_terms_of_one_name_have_losses_of_their_own(make_engine):
    metrics = take(
        make_engine(Sum(parts=(DPO(), DPO(beta=1.0), SFT(), DPO(beta=9.0)), weights=(1.0, 0.5, 2.0, 0.1)))
    ).metrics[0]
    losses = [metrics[f"loss_{label}"] for label in ("dpo", "dpo_2", "sft", "dpo_3")]
    assert len(set(losses)) == 4
    assert metrics["loss"] == pytest.approx(losses[0] + 0.5 * losses[1] + 2.0 * losses[2] + 0.1 * losses[3])


def test_an_undesirable_completion_is_nobodys_chosen_one(make_engine):
    """SFT beside an unpaired objective learns from pairs and from desirable completions alone."""
    objective = Sum(parts=(APOZeroUnpaired(), SFT()), weights=(1.0, 1.0))
    trees = rows_for(objective)
    steps = [take(make_engine(objective, trees=trees, micro_batch_tokens=budget)) for budget in (1, 10**6)]
    rows = rows_of_step(0, len(trees), make_engine(objective).config, 0)
    wanted = [row for row in rows if trees.columns["desirable"][trees.first[row]] > 0.5]
    assert 0 < len(wanted) < len(rows)
    flat, _ = make_engine(objective, trees=trees).builder.score(make_engine(objective).scorer, wanted)
    first = flat.first[:-1]
    want = -flat.sum("log_prob")[first].sum().item() / flat.lengths[first].sum()
    for step in steps:
        assert step.metrics[0]["loss_sft"] == pytest.approx(want, rel=1e-5)


def test_a_term_without_any_example_in_a_batch_adds_nothing(make_engine):
    trees = random_rows("unpaired", 8)
    trees.columns["desirable"][:] = 0.0
    alone, both = APOZeroUnpaired(), Sum(parts=(APOZeroUnpaired(), SFT()), weights=(1.0, 1.0))
    steps = [take(make_engine(one, trees=trees, batch_size=8, micro_batch_tokens=64)) for one in (alone, both)]
    assert steps[1].metrics[0]["loss_sft"] == 0
    assert difference(steps[1].gradients[0], steps[0].gradients[0]) == 0


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"name": "adamw", "learning_rate": 1e-3, "betas": (0.8, 0.99), "weight_decay": 0.1}, torch.optim.AdamW),
        ({"name": "rmsprop", "learning_rate": 1e-3}, torch.optim.RMSprop),
        ({"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9}, torch.optim.SGD),
    ],
)
def test_optimizers_get_the_recipes_numbers(make_engine, fields, kind):
    engine = make_engine(DPO(), optimizer=fields)
    assert type(engine.optimizer) is kind
    group = engine.optimizer.param_groups[0]
    assert group["lr"] == 1e-3
    assert all(group[name] == value for name, value in fields.items() if name not in ("name", "learning_rate"))
    first = engine.step(0)[0]["loss"]
    for step in range(1, 8):
        metrics, _ = engine.step(step)
    assert math.isfinite(metrics["loss"])
    assert metrics["loss"] != first


def test_the_papers_optimizer_has_torchs_defaults():
    assert RMSprop(learning_rate=1e-6).alpha == 0.99
    assert AdamW(learning_rate=1e-6).weight_decay == 0
    assert make_optimizer(RMSprop(learning_rate=1e-6), torch.nn.Linear(1, 1)).defaults["eps"] == 1e-8


def test_an_epochs_order_is_drawn_once_and_is_the_generators():
    """A million rows are not permuted again for every step, and a step's rows do not depend on the steps before it."""
    train = config(batch_size=4)
    orders = [np.random.default_rng([9, epoch]).permutation(13) for epoch in range(2)]
    for step in (4, 0, 2, 5, 1):
        epoch, place = divmod(step, 3)
        assert rows_of_step(step, 13, train, 9).tolist() == orders[epoch][4 * place : 4 * place + 4].tolist()
    drawn = _order.cache_info().misses
    rows_of_step(1, 13, train, 9), rows_of_step(2, 13, train, 9)
    assert _order.cache_info().misses == drawn
