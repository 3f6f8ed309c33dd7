"""A step is defined on the global batch: nothing about its execution may show in its result."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alignzoo.engine import make_optimizer, rate_factor, rows_of_step, share, total_steps
from alignzoo.errors import RunFailed
from alignzoo.objective import Objective
from alignzoo.objectives import CDPO, DPO, IPO, SFT
from alignzoo.recipe.schema import AdamW, RMSprop, Schedule, TrainConfig

ALL = [SFT(), SFT(reduction="sequence"), DPO(), IPO(), IPO(log_ratio="mean"), CDPO()]


def gradient_after_one_step(engine) -> tuple[torch.Tensor, dict[str, float]]:
    """SGD with rate 1: the step is the gradient."""
    before = torch.cat([p.detach().flatten().clone() for p in engine.bare.parameters()])
    metrics, _ = engine.step(0)
    after = torch.cat([p.detach().flatten() for p in engine.bare.parameters()])
    return (before - after).double(), metrics


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_the_token_budget_and_the_layout_do_not_change_the_step(make_engine, objective):
    sgd = {"name": "sgd", "learning_rate": 1.0}
    whole, metrics = gradient_after_one_step(make_engine(objective, tokens_per_batch=10**6, optimizer=sgd))
    assert whole.norm() > 0
    for budget, layout in ((1, "forest"), (100, "forest"), (10**6, "plain"), (150, "plain")):
        part, same = gradient_after_one_step(
            make_engine(objective, tokens_per_batch=budget, layout=layout, optimizer=sgd)
        )
        assert (part - whole).norm() <= 1e-5 * whole.norm()
        for name, value in metrics.items():
            assert same[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_sft_is_the_mean_over_the_tokens_of_the_global_batch(make_engine):
    """The oracle is one cross-entropy over all chosen tokens, as the plain forward gives it."""
    engine = make_engine(SFT(), tokens_per_batch=64)
    model = engine.bare.model
    total, count = 0.0, 0
    for row in rows_of_step(0, len(engine.supply.trees), engine.config, 0):
        tree = engine.supply.trees[int(row)]
        branch = tree.branches[0]
        ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()[None]
        first = len(tree.prompt) + branch.scored_from
        with torch.no_grad():
            log_probs = model(ids).logits[0].log_softmax(-1)[first - 1 : -1]
        total -= log_probs.gather(1, ids[0, first:, None]).sum().item()
        count += branch.scored
    metrics, _ = engine.step(0)
    assert metrics["loss"] == pytest.approx(total / count, rel=1e-5)


def test_dpo_step_equals_a_step_written_out_by_hand(make_engine):
    engine = make_engine(DPO(beta=0.2), optimizer={"name": "sgd", "learning_rate": 1.0})
    model, losses = engine.bare.model, []
    for row in rows_of_step(0, len(engine.supply.trees), engine.config, 0):
        tree, ref = engine.supply.trees[int(row)], engine.supply.reference.of(int(row), 2)
        ratios = []
        for b, branch in enumerate(tree.branches):
            ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()[None]
            first = len(tree.prompt) + branch.scored_from
            log_probs = model(ids).logits[0].log_softmax(-1)[first - 1 : -1]
            ratios.append(log_probs.gather(1, ids[0, first:, None]).sum() - float(ref[b]))
        losses.append(-torch.nn.functional.logsigmoid(0.2 * (ratios[0] - ratios[1])))
    loss = torch.stack(losses).mean()
    expected = torch.autograd.grad(loss, list(model.parameters()))
    got, metrics = gradient_after_one_step(engine)
    want = torch.cat([g.flatten() for g in expected]).double()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(want.norm().item(), rel=1e-4)
    assert (got - want).norm() <= 2e-5 * want.norm()


def test_clipping_bounds_the_step(make_engine):
    step, metrics = gradient_after_one_step(
        make_engine(IPO(), max_grad_norm=0.5, optimizer={"name": "sgd", "learning_rate": 1.0})
    )
    assert metrics["grad_norm"] > 0.5
    assert step.norm().item() == pytest.approx(0.5, rel=1e-3)


def test_out_of_memory_halves_the_budget_and_repeats_the_step(make_engine, monkeypatch):
    want, _ = gradient_after_one_step(make_engine(DPO()))
    engine = make_engine(DPO(), tokens_per_batch=400)
    forward = engine.bare.forward

    def small_memory(forest, *more):
        if forest.slots > 200:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return forward(forest, *more)

    monkeypatch.setattr(engine.bare, "forward", small_memory)
    got, _ = gradient_after_one_step(engine)
    assert engine.budget == 200
    assert (got - want).norm() <= 1e-5 * want.norm()


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_engine, monkeypatch):
    engine = make_engine(DPO())
    monkeypatch.setattr(engine.bare, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        engine.step(0)


class Poisoned(Objective):
    """Not finite for one length of completion."""

    name = "poisoned"
    reference = "none"

    def loss(self, pair):
        return (pair.chosen.log_prob - pair.rejected.log_prob) / (pair.chosen.length != 5)


def test_a_loss_that_is_not_finite_names_the_step_and_the_rows_and_changes_nothing(make_engine):
    engine = make_engine(Poisoned())
    before = [p.detach().clone() for p in engine.bare.parameters()]
    bad = [engine.supply.trees.ids[i] for i in range(len(engine.supply.trees)) if engine.supply.trees[i].branches[0].scored == 5]
    rows = {step: [engine.supply.trees.ids[i] for i in rows_of_step(step, 32, engine.config, 0)] for step in range(4)}
    step = next(step for step in rows if set(rows[step]) & set(bad))
    with pytest.raises(RunFailed, match=rf"step {step + 1}: the loss of poisoned is not finite for rows row \d+") as error:
        engine.step(step)
    assert any(name in str(error.value) for name in bad)
    assert all(torch.equal(old, new) for old, new in zip(before, engine.bare.parameters(), strict=True))


class WrongShape(Objective):
    """Returns a mean."""

    name = "wrong"

    def loss(self, pair):
        return pair.margin.mean()


def test_a_loss_of_the_wrong_shape_is_refused(make_engine):
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
        parts = [share(rows, sizes, rank, ranks) for rank in range(ranks)]
        assert sorted(row for part in parts for row in part) == rows
        loads = [sum(sizes[i] for i in part) for part in parts]
        assert max(loads) - min(loads) <= max(sizes)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"name": "adamw", "learning_rate": 1e-3, "betas": (0.8, 0.99), "weight_decay": 0.1}, torch.optim.AdamW),
        ({"name": "rmsprop", "learning_rate": 1e-3}, torch.optim.RMSprop),
        ({"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9}, torch.optim.SGD),
    ],
)
def test_optimisers_get_the_recipes_numbers(make_engine, fields, kind):
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


def test_the_papers_optimiser_has_torchs_defaults():
    assert RMSprop(learning_rate=1e-6).alpha == 0.99
    assert AdamW(learning_rate=1e-6).weight_decay == 0
    assert make_optimizer(RMSprop(learning_rate=1e-6), torch.nn.Linear(1, 1)).defaults["eps"] == 1e-8
