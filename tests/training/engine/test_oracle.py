"""Steps against the same steps written out: one plain forward a sequence, one graph through the whole batch, autograd.

Nothing of the engine, the forest or the scorer is used on this side. Both are in float64, but transformers' RMSNorm
computes in float32 whatever the model's type, and the reference cache is in float32.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from alignzoo_zoo.batch import AOT, AOTUnpaired, BetaDPO, DrDPO
from alignzoo_zoo.length import LDDPO
from alignzoo_zoo.ranked import PlackettLuceDPO
from alignzoo_zoo.reward_model import BradleyTerry
from alignzoo_zoo.tokenwise import TDPO1, TDPO2, TRDPO
from alignzoo_zoo.unpaired import BCO, KTO
from alignzoo_zoo.weighting import WPO
from steps import BATCH, difference, take, tiny_llama
from torch.nn.functional import logsigmoid

from alignzoo.objectives.builtin.cdpo import CDPO
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.ipo import IPO
from alignzoo.objectives.builtin.sft import SFT
from alignzoo.objectives.composition import Modified, Sum
from alignzoo.objectives.modifiers.length_normalization import LengthNormalization
from alignzoo.training.schedule import rows_of_step

CACHED, LIVE = 3e-6, 5e-7
"""How close: by the rounding of a cached reference, and where there is none."""


@dataclass
class Plain:
    """One completion, scored: tensors over its tokens."""

    own: torch.Tensor
    """(n,) log-probs, and (n, vocabulary) of the whole distribution."""
    own_all: torch.Tensor
    ref: torch.Tensor
    ref_all: torch.Tensor
    desirable: bool

    @property
    def ratio(self) -> torch.Tensor:
        return self.own.sum() - self.ref.sum()

    @property
    def kl(self) -> torch.Tensor:
        return (self.ref_all.exp() * (self.ref_all - self.own_all)).sum()


def plain(model, tree, branch) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()[None]
    first = len(tree.prompt) + branch.context
    log_probs = model(ids, use_cache=False).logits[0].log_softmax(-1)[first - 1 : -1]
    return log_probs.gather(1, ids[0, first:, None])[:, 0], log_probs


def scored(engine, model, reference, step) -> list[list[Plain]]:
    """The rows of a step, every branch."""
    trees, result = engine.builder.trees, []
    for row in rows_of_step(step, len(trees), engine.config, 0).tolist():
        result.append([])
        for b, branch in enumerate(trees[row].branches):
            with torch.no_grad():
                ref = plain(reference, trees[row], branch)
            label = trees.columns["desirable"][trees.first[row] + b]
            result[-1].append(Plain(*plain(model, trees[row], branch), *ref, desirable=bool(label > 0.5)))
    return result


def written_out(engine, loss, steps=1, follow=0.0, every=1) -> list[dict[str, torch.Tensor]]:
    """The gradients of plain gradient descent on `loss(rows, state) -> (loss, state)`, and what it does with them.

    After every so many steps the reference follows the policy by its share.
    """
    model, reference = copy.deepcopy(engine.scorer.model), tiny_llama(seed=1).double()
    state, gradients = {}, []
    for step in range(steps):
        value, state = loss(scored(engine, model, reference, step), state)
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients.append(dict(zip(names, torch.autograd.grad(value, parameters), strict=True)))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter -= engine.config.optimizer.learning_rate * gradients[-1][name]
            for ours, theirs in zip(reference.parameters(), parameters, strict=True):
                if (step + 1) % every == 0:
                    ours.copy_((1 - follow) * ours + follow * theirs)
    return gradients


def of_each(loss):
    """A loss of one row at a time."""
    return lambda rows, state: (torch.stack([loss(*row) for row in rows]).mean(), state)


def kto(rows, state):
    """Rows of one or two completions, each followed by as many of another row (equation 8)."""
    halves = [(row[: len(row) // 2], row[len(row) // 2 :]) for row in rows]
    reference_point = (
        torch.stack([other.ratio for _, others in halves for other in others]).mean().clamp(min=0).detach()
    )
    assert reference_point > 0
    values = [
        torch.sigmoid(0.1 * (one.ratio - reference_point) * (1 if one.desirable else -1))
        for own, _ in halves
        for one in own
    ]
    return (1 - torch.stack(values)).mean(), state


def bco(rows, state, ratio=lambda one: one.ratio):
    """Delta is halfway between running means of both kinds' rewards, this batch included (equation 8)."""
    rewards = {
        kind: torch.stack([0.1 * ratio(one) for row in rows for one in row if one.desirable == kind])
        for kind in (True, False)
    }
    means = {kind: 0.9 * state.get(kind, 0.0) + 0.1 * mine.mean().item() for kind, mine in rewards.items()}
    delta = (means[True] + means[False]) / 2
    losses = torch.cat([-logsigmoid(rewards[True] - delta), -logsigmoid(delta - rewards[False])])
    return losses.mean(), means


def aot(rows, state):
    """Sorted against sorted (algorithm 1)."""
    own = torch.stack([c.own.sum() - r.own.sum() for c, r in rows]).sort().values
    ref = torch.stack([c.ref.sum() - r.ref.sum() for c, r in rows]).sort().values
    return -logsigmoid(0.1 * (own - ref)).mean(), state


def aot_unpaired(rows, state):
    chosen, rejected = (torch.stack([row[i].ratio for row in rows]).sort().values for i in (0, 1))
    return -logsigmoid(0.1 * (chosen - rejected)).mean(), state


def dr_dpo(rows, state):
    return -torch.stack([torch.sigmoid(0.1 * (c.ratio - r.ratio)) for c, r in rows]).mean().log(), state


def beta_dpo(rows, state):
    """All pairs are kept; beta follows the mean gap of the batch (equations 6 and 8)."""
    margins = torch.stack([c.ratio - r.ratio for c, r in rows])
    mean = (0.1 * margins).mean().item()
    running = 0.9 * state.get("mean", 0.0) + 0.1 * mean
    beta = max(0.1 * (1 + 0.6 * (mean - running)), 1e-3)
    return -logsigmoid(beta * margins).mean(), {"mean": running}


def dpo(chosen, rejected):
    return -logsigmoid(0.1 * (chosen.ratio - rejected.ratio))


def ld_dpo(chosen, rejected):
    """Tokens beyond the shorter length count one half (equation 11)."""
    shorter = min(len(chosen.own), len(rejected.own))

    def ratio(one):
        each = one.own - one.ref
        return each[:shorter].sum() + 0.5 * each[shorter:].sum()

    return -logsigmoid(0.1 * (ratio(chosen) - ratio(rejected)))


def wpo(chosen, rejected):
    """Each completion's likelihood, normalized by the policy's own collision probability, at most 1 together."""
    weight = 1.0
    for one in (chosen, rejected):
        weight = weight * (one.own - one.own_all.exp().square().sum(1).log()).mean().exp()
    return -weight.clamp(max=1).detach() * logsigmoid(0.01 * (chosen.ratio - rejected.ratio))


def tdpo1(chosen, rejected):
    return -logsigmoid(0.1 * (chosen.ratio - rejected.ratio - (rejected.kl - chosen.kl)))


def tdpo2(chosen, rejected):
    return -logsigmoid(0.1 * (chosen.ratio - rejected.ratio - 0.5 * (rejected.kl - chosen.kl.detach())))


def plackett_luce(*row):
    """The best of what is left, again and again (equation 20)."""
    rewards = torch.stack([0.1 * one.ratio for one in row])
    return -sum(rewards[k:].log_softmax(0)[0] for k in range(len(row)))


def by_length(one):
    return one.ratio / len(one.own)


def sft(rows):
    return -sum(row[0].own.sum() for row in rows) / sum(len(row[0].own) for row in rows)


CASES = {
    "dpo": (DPO(), of_each(dpo), 1, CACHED),
    "ipo": (IPO(), of_each(lambda c, r: (c.ratio - r.ratio - 5) ** 2), 1, CACHED),
    "cdpo": (
        CDPO(), of_each(lambda c, r: 0.9 * dpo(c, r) + 0.1 * dpo(r, c)), 1, CACHED,
    ),
    "sft": (SFT(), lambda rows, state: (sft(rows), state), 1, LIVE),
    "kto": (KTO(beta=0.1), kto, 1, CACHED),
    "bco": (BCO(beta=0.1, momentum=0.9), bco, 2, CACHED),
    "bco by length": (
        Modified(inner=BCO(beta=0.1, momentum=0.9), modifiers=(LengthNormalization(),)),
        lambda rows, state: bco(rows, state, by_length), 2, CACHED,
    ),
    "aot": (AOT(beta=0.1), aot, 1, CACHED),
    "aot unpaired": (AOTUnpaired(beta=0.1), aot_unpaired, 1, CACHED),
    "dr_dpo": (DrDPO(beta=0.1, beta_prime=1.0), dr_dpo, 1, CACHED),
    "beta_dpo": (BetaDPO(beta=0.1, alpha=0.6, keep=1.0, momentum=0.9), beta_dpo, 2, CACHED),
    "ld_dpo": (LDDPO(beta=0.1, alpha=0.5), of_each(ld_dpo), 1, CACHED),
    "wpo": (WPO(beta=0.01), of_each(wpo), 1, CACHED),
    "tdpo1": (TDPO1(beta=0.1), of_each(tdpo1), 1, LIVE),
    "tdpo2": (TDPO2(beta=0.1, alpha=0.5), of_each(tdpo2), 1, LIVE),
    "tr_dpo": (TRDPO(beta=0.1, alpha=0.6, every=1), of_each(dpo), 3, LIVE),
    "tr_dpo, every second step": (TRDPO(beta=0.1, alpha=0.6, every=2), of_each(dpo), 4, LIVE),
    "pl_dpo": (PlackettLuceDPO(beta=0.1), of_each(plackett_luce), 1, CACHED),
    "aot + sft": (
        Sum(parts=(AOT(beta=0.1), SFT()), weights=(1.0, 0.3)),
        lambda rows, state: (aot(rows, state)[0] + 0.3 * sft(rows), state), 1, CACHED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_a_step_is_the_one_that_the_paper_writes(make_engine, name):
    objective, loss, steps, tolerance = CASES[name]
    engine = make_engine(
        objective, dtype=torch.float64, micro_batch_tokens=256, optimizer={"name": "sgd", "learning_rate": 0.3}
    )
    moving = {"follow": objective.alpha, "every": objective.every} if isinstance(objective, TRDPO) else {}
    want = written_out(engine, loss, steps, **moving)
    got = take(engine, steps)
    for step in range(steps):
        assert difference(got.gradients[step], want[step]) <= tolerance


def test_a_reward_model_is_read_where_transformers_reads_it(make_engine):
    """The oracle is the model's own forward, one sequence at a time."""
    engine = make_engine(BradleyTerry(centering=0.01), dtype=torch.float64, micro_batch_tokens=256)
    model, losses = copy.deepcopy(engine.scorer.model), []
    model.config.pad_token_id = None
    for row in rows_of_step(0, len(engine.builder.trees), engine.config, 0).tolist():
        tree = engine.builder.trees[row]
        chosen, rejected = (
            model(torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()[None]).logits[0, 0]
            for branch in tree.branches
        )
        losses.append(-logsigmoid(chosen - rejected) + 0.01 * (chosen + rejected) ** 2)
    assert len(losses) == BATCH
    names, parameters = zip(*model.named_parameters(), strict=True)
    want = dict(zip(names, torch.autograd.grad(torch.stack(losses).mean(), parameters), strict=True))
    assert difference(take(engine).gradients[0], want) <= LIVE
