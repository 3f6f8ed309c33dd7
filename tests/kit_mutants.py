"""One good objective of every kind, and mutants of them: each has one fault, and the check that must name it."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from alignzoo import policy_gradient
from alignzoo.interfaces.objective import Field, Objective
from alignzoo.testing import CHECKS


class Good(Objective):
    """DPO."""

    name = "base"
    source = "a test"
    equation = "-log sigmoid(beta h)"
    beta: float = Field(0.1, gt=0, description="strength")

    def loss(self, pair):
        return -logsigmoid(self.beta * pair.margin)


class OnOne(Good):
    """A loss on the chosen completions, with a reference."""

    data = "chosen"

    def loss(self, scored):
        return -self.beta * scored.log_ratio


class Alone(Good):
    """Without a reference, weighted by lengths."""

    reference = "none"

    def loss(self, pair):
        return -logsigmoid(self.beta * (pair.chosen.log_prob - pair.rejected.log_prob)) * pair.chosen.length

    def weight(self, pair):
        return pair.chosen.length


class InBatch(Good):
    """Unpaired, with mismatched completions, over the whole batch; some examples are left out."""

    data = "unpaired"
    mismatched = True
    scope = "batch"
    stop_gradient = "the reference point"

    def loss(self, batch):
        apart = batch.completion.log_ratio - batch.mismatched.log_ratio.mean().detach()
        return (-self.beta * (2.0 * batch.desirable - 1) * apart).sigmoid() * self.weight(batch)

    def weight(self, batch):
        return (batch.completion.log_prob > batch.completion.log_prob.mean()).double()


class Unpaired(Good):
    """Unpaired, each example by itself."""

    data = "unpaired"

    def loss(self, batch):
        return -logsigmoid(self.beta * (2.0 * batch.desirable - 1) * batch.completion.log_ratio)


class Ranked(Good):
    """A list against the data's scores."""

    data = "ranked"
    columns = ("score",)

    def loss(self, ranked):
        one = ranked.completions
        return -(one.column("score").softmax(1) * (self.beta * one.log_ratio).log_softmax(1)).sum(1)


class ByToken(Good):
    """A sum over tokens of policy and reference."""

    reference = "token"
    tokens = True

    def loss(self, pair):
        chosen, rejected = (one.tokens.sum(one.tokens.log_ratio.tanh()) for one in (pair.chosen, pair.rejected))
        return -logsigmoid(self.beta * (chosen - rejected))


class WithStatistics(Good):
    """The entropy and the collision probability of every token."""

    tokens = True
    statistics = ("entropy", "log_collision_prob")

    def loss(self, pair):
        extra = pair.chosen.tokens.mean(pair.chosen.tokens.log_collision_prob - pair.chosen.tokens.entropy)
        return super().loss(pair) + 0.1 * extra


class Live(Good):
    """The KL from a live reference."""

    reference = "live"
    tokens = True
    statistics = ("forward_kl",)

    def loss(self, pair):
        return super().loss(pair) + pair.chosen.tokens.sum(pair.chosen.tokens.forward_kl)


class Distilled(Good):
    """A statistic of its own: the reverse KL from a reference mixed with the policy."""

    reference = "live"
    tokens = True
    statistics = ("apart",)

    def apart(self, log_pi, log_ref):
        return (log_pi.exp() * (log_pi - log_pi.logaddexp(log_ref))).sum(1)

    def loss(self, pair):
        return super().loss(pair) + self.beta * pair.chosen.tokens.mean(pair.chosen.tokens.statistic("apart"))


class Moving(Good):
    """A reference that follows."""

    reference = "moving"

    def reference_update(self, step):
        return 0.1


class Kept(Good):
    """A running mean of the margin."""

    scope = "batch"

    def initial_state(self):
        return {"mean": 0.0}

    def next_state(self, pair):
        return {"mean": 0.9 * pair.state["mean"] + 0.1 * float(pair.margin.detach().mean())}

    def loss(self, pair):
        return -logsigmoid(self.beta * (pair.margin - pair.state["mean"]))


class Reward(Good):
    """A reward model with the data's margins."""

    head = "scalar"
    reference = "none"
    columns = ("margin",)

    def loss(self, pair):
        return -logsigmoid(self.beta * (pair.chosen.scalar - pair.rejected.scalar - pair.column("margin")))


class Drawn(Good):
    """Seeded random numbers, of rows and of tokens."""

    needs_uniform = True
    tokens = True

    def loss(self, pair):
        kept = pair.chosen.tokens.sum((pair.chosen.tokens.uniform < 0.5) * pair.chosen.tokens.log_prob)
        return super().loss(pair) * (0.5 + pair.uniform) - self.beta * kept


class Groups(Good):
    """Clipped ratios on groups of draws, with the KL divergence in the loss."""

    data = "group"
    tokens = True
    reference = "token"

    def advantage(self, group):
        return group.centered(group.reward)

    def loss(self, group):
        tokens = group.completions.tokens
        ratio = policy_gradient.exp(tokens.log_prob - tokens.old_log_prob)
        values = policy_gradient.clipped(ratio, group.token_advantage, 0.2, 0.2)
        return policy_gradient.reduce_tokens(
            group, values + self.beta * policy_gradient.k3(tokens.log_ratio), "completion"
        )


class Baseline(Good):
    """Plain gradients on groups of draws, with a running mean, and the KL divergence in the reward."""

    data = "group"
    advantage_reads_log_probs = True
    min_completions = 1

    def initial_state(self):
        return {"mean": 0.0}

    def next_state(self, group):
        return {"mean": 0.5 * group.state["mean"] + 0.5 * float(group.mean(group.reward).mean())}

    def advantage(self, group):
        return group.reward - group.state["mean"] - self.beta * group.completions.log_ratio

    def loss(self, group):
        return group.mean(-group.advantage * group.completions.log_prob)


class WithTies(Good):
    """Ties drive the margin to zero."""

    ties = True

    def loss(self, pair):
        margin = self.beta * pair.margin
        return (-logsigmoid(margin) - logsigmoid(-margin)).where(pair.tied, -logsigmoid(margin))


class Guided(Good):
    """Two further models weigh the tokens."""

    reference = "token"
    tokens = True
    references = ("guide", "other")

    def loss(self, pair):
        one = pair.chosen.tokens
        guided = one.sum((one.ref("guide") - one.ref_log_prob).exp() * one.log_ratio)
        other = pair.chosen.ref("other") - pair.rejected.ref("other")
        return -logsigmoid(self.beta * (guided - pair.rejected.log_ratio)) * (1 + other.sigmoid())


class Flagged(Good):
    """A flag and a probability, and a column whose name the recipe chooses."""

    flags = ("safe",)
    probabilities = ("win",)
    column_fields = ("score",)
    score: str = Field("helpfulness", description="column of the scores")

    def loss(self, pair):
        weight = pair.chosen.flag("safe") + pair.chosen.column("win") + pair.chosen.column(self.score)
        return super().loss(pair) * (0.1 + weight)


class Rated(Good):
    """A reward model with two outputs."""

    head = "scalar"
    reference = "none"
    outputs = ("kind", "short")

    def loss(self, pair):
        apart = [pair.chosen.output(name) - 2 * pair.rejected.output(name) for name in self.outputs]
        return -logsigmoid(self.beta * (apart[0] + 0.5 * apart[1]))


class WithStates(Good):
    """The distance of two sums of hidden states weighs a pair."""

    hidden_sum = True

    def loss(self, pair):
        apart = (pair.chosen.hidden_sum - pair.rejected.hidden_sum).square().sum(1)
        return super().loss(pair) * (1 + apart).log1p()


class BesideReference(Good):
    """A draw of the policy and one of the reference, which has a bonus."""

    drawn_by = ("policy", "reference")

    def loss(self, pair):
        sides = (pair.chosen, pair.rejected)
        return super().loss(pair) + 0.01 * sum(one.drawn_by("reference") * one.log_prob for one in sides)


GOOD = [
    BesideReference, Groups, Baseline, Good, OnOne, Alone, InBatch, Unpaired, Ranked, ByToken, WithStatistics, Live, Moving, Kept, Reward, Drawn,
    WithTies, Guided, Flagged, WithStates, Rated,
]  # fmt: skip

# The mutants: each is a good objective with one fault.


def broken(cls, **changes):
    return type("Mutant", (cls,), {"__doc__": "A mutant.", "__module__": __name__} | changes)


def loss(change):
    """A method that changes what the good loss returns: `change(example, its loss)`."""
    return lambda self, example: change(example, super(type(self), self).loss(example))


class Float32(Good):
    """Rounds on the way."""

    def loss(self, pair):
        return -logsigmoid(self.beta * pair.margin.float())


class Overflows(Good):
    """exp overflows for a large negative margin."""

    def loss(self, pair):
        return (1 + (-self.beta * pair.margin).exp()).log()


class OverflowsDownwards(Good):
    """exp overflows for a large positive margin alone."""

    def loss(self, pair):
        h = self.beta * pair.margin
        return (1 + h.exp()).log() - h


class OverflowsOnOne(OnOne):
    """exp of a log-ratio."""

    def loss(self, scored):
        return (-scored.log_ratio).exp()


class NoBfloat16(Good):
    """A matrix product with a constant of another dtype than the 16 bits."""

    def loss(self, pair):
        dtype = torch.float64 if pair.margin.dtype == torch.float64 else torch.float32
        return -logsigmoid(torch.eye(len(pair.margin), dtype=dtype) @ (self.beta * pair.margin))


class VanishesInBfloat16(Good):
    """1 + 0.002 is 1 in bfloat16."""

    def loss(self, pair):
        return super().loss(pair) / (torch.ones_like(pair.margin) + 0.002 - 1)


class WrongGradient(Good):
    """A factor without its gradient."""

    def loss(self, pair):
        h = self.beta * pair.margin
        return -logsigmoid(h) * h.detach().sigmoid()


class Coupled(Good):
    """A mean over whatever is there."""

    def loss(self, pair):
        return -logsigmoid(self.beta * (pair.margin - pair.margin.mean()))


class ByPlace(InBatch):
    """Later examples count more."""

    def loss(self, batch):
        return super().loss(batch) * torch.arange(1, len(batch.desirable) + 1)


class Climbs(Good):
    """The sign is wrong where the gradient is: it goes up its own loss."""

    stop_gradient = "a test"

    def loss(self, pair):
        good = super().loss(pair)
        return 2 * good.detach() - good


class Remembers(Good):
    """Gives something else the second time."""

    def loss(self, pair):
        return super().loss(pair) + len(_SEEN.append(None) or _SEEN)


_SEEN: list[None] = []


class Grows(Kept):
    """A key more after the first step."""

    def next_state(self, pair):
        return super().next_state(pair) | {"count": 1.0}


class KeepsATensor(Kept):
    """A tensor has no place in a checkpoint's JSON."""

    def next_state(self, pair):
        return {"mean": pair.margin.mean()}


class StateByChance(Kept):
    """Every rank would have its own."""

    def next_state(self, pair):
        return {"mean": float(torch.rand(()))}


class Infinite(Kept):
    """A count that overflows."""

    def initial_state(self):
        return {"mean": 0.0, "count": 1e300}

    def next_state(self, pair):
        return super().next_state(pair) | {"count": pair.state["count"] * 1e300}


class NeverCalled(Good):
    """Says what comes next, and not what comes first."""

    scope = "batch"

    def next_state(self, pair):
        return {"mean": 1.0}


class Unbounded(Good):
    """A number without a bound."""

    gamma: float | None = Field(1.0, description="a target")

    def loss(self, pair):
        return super().loss(pair) + self.gamma


class Undescribed(Good):
    """A field that nobody explains."""

    gamma: float = Field(1.0, ge=0)


class AddsTheRejected(Good):
    """The sign of one of two terms."""

    def loss(self, pair):
        return -logsigmoid(self.beta * (pair.chosen.log_ratio + pair.rejected.log_ratio))


class AllAreDesirable(Unpaired):
    """The label is not read."""

    def loss(self, batch):
        return -logsigmoid(self.beta * batch.completion.log_ratio)


class WorstFirst(Ranked):
    """The sign of the data's scores."""

    def loss(self, ranked):
        one = ranked.completions
        return -((-one.column("score")).softmax(1) * (self.beta * one.log_ratio).log_softmax(1)).sum(1)


def in_place(part):
    """A loss that changes a part of its input after reading it."""
    return loss(lambda example, value: (part(example), value)[1])


MUTANTS = [
    ("left_out_draws_count_in_nothing", broken(Groups, advantage=lambda self, group: group.reward - group.reward.mean(1, keepdim=True))),
    ("left_out_draws_count_in_nothing", broken(
        Baseline, loss=lambda self, group: -(group.advantage * group.completions.log_prob).mean(1)
    )),
    ("descent_raises_what_it_says", broken(Groups, advantage=lambda self, group: -group.centered(group.reward))),
    ("rows_are_independent", broken(Baseline, loss=loss(lambda group, value: value - 0.1 * value.mean()))),
    ("declared_needs_are_enough", broken(Baseline, advantage_reads_log_probs=False)),
    ("declared_needs_are_used", broken(Groups, advantage_reads_log_probs=True)),
    ("declared_needs_can_be_met", broken(Groups, scope="batch")),
    ("state_round_trips", broken(Baseline, next_state=lambda self, group: {})),
    ("one_loss_per_example", broken(Good, loss=loss(lambda example, value: value.mean()))),
    ("one_loss_per_example", broken(OnOne, loss=loss(lambda example, value: value.mean()))),
    ("one_loss_per_example", broken(Ranked, loss=loss(lambda example, value: value[:, None]))),
    ("keeps_the_dtype", broken(Good, loss=loss(lambda example, value: value.float()))),
    ("keeps_the_dtype", Float32),
    ("finite_at_extremes", Overflows), ("finite_at_extremes", OverflowsDownwards), ("finite_at_extremes", OverflowsOnOne),
    ("finite_in_bfloat16", NoBfloat16), ("finite_in_bfloat16", VanishesInBfloat16),
    ("gradient_is_right", WrongGradient), ("gradient_is_right", broken(InBatch, stop_gradient="")),
    ("gradient_reaches_the_policy", broken(Good, loss=loss(lambda pair, value: value.detach()))),
    ("gradient_reaches_the_policy", broken(Good, loss=loss(lambda pair, value: value.detach() + 0 * value))),
    ("gradient_reaches_the_policy", broken(Reward, loss=loss(lambda pair, value: value.detach()))),
    ("loss_decreases", Climbs),
    *[("descent_raises_what_it_says", broken(cls, loss=loss(lambda example, value: -value))) for cls in GOOD],
    ("descent_raises_what_it_says", AddsTheRejected), ("descent_raises_what_it_says", AllAreDesirable),
    ("descent_raises_what_it_says", WorstFirst),
    ("rows_are_independent", Coupled), ("rows_are_independent", broken(InBatch, scope="example")),
    ("order_does_not_matter", ByPlace),
    ("input_is_untouched", broken(Good, loss=in_place(lambda pair: pair.chosen.length.add_(1)))),
    ("input_is_untouched", broken(Good, loss=in_place(lambda pair: pair.rejected.ref_log_prob.mul_(2)))),
    ("input_is_untouched", broken(ByToken, loss=in_place(lambda pair: pair.chosen.tokens.ref_log_prob.mul_(2)))),
    ("input_is_untouched", broken(Ranked, loss=in_place(lambda lists: lists.completions.column("score").zero_()))),
    ("input_is_untouched", broken(Kept, loss=in_place(lambda pair: pair.state.update(mean=2.0)))),
    ("same_twice", broken(Good, loss=loss(lambda pair, value: value * torch.rand(())))), ("same_twice", Remembers),
    ("weights_are_positive", broken(Good, weight=lambda self, pair: -pair.chosen.length)),
    ("weights_are_positive", broken(Good, weight=lambda self, pair: pair.chosen.log_prob.detach().exp())),
    ("weights_are_positive", broken(Good, weight=lambda self, pair: pair.chosen.length.sum())),
    ("weights_are_positive", broken(InBatch, weight=lambda self, batch: torch.zeros_like(batch.completion.length))),
    ("weights_are_positive", broken(InBatch, weight=lambda self, batch: batch.completion.log_prob.exp())),
    ("state_round_trips", Grows), ("state_round_trips", KeepsATensor), ("state_round_trips", StateByChance),
    ("state_round_trips", NeverCalled), ("state_round_trips", Infinite),
    ("declared_needs_can_be_met", broken(Good, reference_update=lambda self, step: 1.0)),
    ("declared_needs_can_be_met", broken(Kept, scope="example")),
    ("declared_needs_can_be_met", broken(Ranked, scope="batch")),
    ("declared_needs_are_enough", broken(Good, reference="none")),
    ("declared_needs_are_enough", broken(OnOne, reference="none")),
    ("declared_needs_are_enough", broken(Good, implicit_reward=lambda self, scored: scored.scalar)),
    ("declared_needs_are_enough", broken(InBatch, mismatched=False)),
    ("declared_needs_are_enough", broken(Ranked, columns=())),
    ("declared_needs_are_enough", broken(Live, statistics=())),
    ("own_statistics_are_right", broken(Distilled, apart=lambda self, p, q: Distilled().apart(p, q).mean())),
    ("own_statistics_are_right", broken(Distilled, apart=lambda self, p, q: Distilled().apart(p, q).cumsum(0))),
    ("own_statistics_are_right", broken(Distilled, apart=lambda self, p, q: (p.exp() * (p.exp() / q.exp()).log()).sum(1))),
    ("own_statistics_are_right", broken(Distilled, apart=lambda self, p, q: Distilled().apart(p, p.detach().lerp(q, 0.5)))),
    ("declared_needs_can_be_met", broken(Good, named_reference=True, reference="none", loss=Alone.loss)),
    ("declared_needs_are_enough", broken(Distilled, statistics=())),
    ("declared_needs_are_used", broken(Distilled, statistics=("apart", "entropy"))),
    ("declared_needs_are_used", broken(Alone, reference="sequence")),
    ("declared_needs_are_used", broken(Good, reference="token", tokens=True)),
    ("declared_needs_are_used", broken(WithStatistics, reference="token")),
    ("declared_needs_are_used", broken(Good, reference="live")),
    ("declared_needs_are_used", broken(Good, tokens=True)),
    ("declared_needs_are_used", broken(WithStatistics, statistics=("entropy", "log_collision_prob", "forward_kl"), reference="live")),
    ("declared_needs_are_used", broken(Ranked, columns=("score", "length"))),
    ("declared_needs_are_used", broken(Unpaired, mismatched=True)),
    ("declared_needs_are_used", broken(Good, needs_uniform=True)),
    ("declared_needs_are_used", broken(Good, ties=True)),
    ("declared_needs_are_used", broken(Good, hidden_sum=True)),
    ("declared_needs_are_enough", broken(WithStates, hidden_sum=False)),
    ("declared_needs_are_used", broken(Rated, outputs=("kind", "short", "long"), loss=lambda self, pair: Rated().loss(pair))),
    ("declared_needs_are_used", broken(Good, references=("guide",))),
    ("declared_needs_are_used", broken(Guided, references=("guide", "other", "third"))),
    ("declared_needs_are_used", broken(Good, flags=("safe",))),
    ("declared_needs_are_enough", broken(WithTies, ties=False)),
    ("declared_needs_are_enough", broken(Guided, references=("guide",))),
    ("declared_needs_are_enough", broken(Flagged, column_fields=())),
    ("declared_needs_can_be_met", broken(Unpaired, ties=True)),
    ("declared_needs_can_be_met", broken(Good, column_fields=("missing",))),
    ("declared_needs_can_be_met", broken(Good, min_completions=3)),
    ("declared_needs_are_enough", broken(BesideReference, drawn_by=())),
    ("declared_needs_can_be_met", broken(BesideReference, drawn_by=("reference", "reference"))),
    ("declared_needs_can_be_met", broken(Alone, drawn_by=("policy", "refrence"))),
    ("declared_needs_can_be_met", broken(BesideReference, drawn_by=("policy", "reference", "mixture"))),
    ("declared_needs_can_be_met", broken(Alone, drawn_by=("policy", "reference"))),
    ("parameters_are_bounded", Unbounded),
    ("documented", broken(Good, source="")), ("documented", broken(Good, __doc__=None)), ("documented", Undescribed),
]  # fmt: skip
FOLLOWS = {
    "one_loss_per_example": {"rows_are_independent", "order_does_not_matter"},
    "finite_at_extremes": {"finite_in_bfloat16"},
    "gradient_reaches_the_policy": {"gradient_is_right", "loss_decreases", "descent_raises_what_it_says"},
    "loss_decreases": {"descent_raises_what_it_says"},
    "rows_are_independent": {"weights_are_positive"},
    "same_twice": {"gradient_is_right", "rows_are_independent", "order_does_not_matter", "loss_decreases"},
    "weights_are_positive": {"gradient_reaches_the_policy", "loss_decreases", "descent_raises_what_it_says"},
    "declared_needs_are_enough": {check.__name__ for check in CHECKS},
}
"""Checks that a fault of this kind may fail too, because it can't be otherwise: a detached loss never falls."""
