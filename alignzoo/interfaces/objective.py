"""The base class of objectives.

An objective is pure math over log-probabilities: it never sees padding, masks, devices or ranks. It declares the inputs
that it needs in class attributes (`alignzoo.interfaces.requirements`), and the engine provides those and no others
(`alignzoo.interfaces.loss_inputs`). Reading anything else raises an error that names the missing declaration. This
module does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from alignzoo.interfaces.declared import NotDeclared
from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Unpaired
from alignzoo.interfaces.requirements import (
    Data,
    DrawnBy,
    Head,
    Raises,
    ReferenceKind,
    Requirements,
    Scope,
    ScoredComponent,
)
from alignzoo.interfaces.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from alignzoo.interfaces.group import Group


__all__ = ["Field", "NotDeclared", "Objective", "Pair", "Ranked", "Scored", "Tokens", "Unpaired"]


class Objective(ScoredComponent):
    """Base class of objectives: a subclass defines `name` and `loss`.

    The hook `register_objectives` returns the class. Hyper-parameters are pydantic fields with bounds and descriptions;
    a recipe's `objective:` node is validated against them. Start the docstring with the full name of the objective.
    """

    reference: ClassVar[ReferenceKind] = "sequence"
    data: ClassVar[Data] = "pair"
    """The type of the example. `pair`: a `Pair`. `chosen`: only the preferred completions, a `Scored`. `unpaired`:
    single completions labeled desirable or undesirable, an `Unpaired`. `ranked`: K completions of each prompt, a
    `Ranked`. `group`: completions of each prompt drawn from the policy, with rewards, a `Group`; the recipe needs a
    section `rollout`."""
    advantage_reads_log_probs: ClassVar[bool] = False
    """`advantage` reads log-probs, which costs one more forward of the draws; only for groups."""
    min_completions: ClassVar[int] = 2
    """The fewest completions of a prompt that the objective can learn from; for groups and ranked lists. Rows of lists
    with fewer are skipped and counted."""
    drawn_by: ClassVar[tuple[DrawnBy, ...]] = ()
    """What draws each completion of a prompt, in this order: `policy`, `reference`, or `mixture`, whose distribution at
    each token is proportional to policy^(1 - c) reference^c, with c the field `mixture_coef`. () draws all of them from
    the policy. `scored.drawn_by("reference")` tells them apart. The recipe needs a section `rollout`."""
    greedy_baseline: ClassVar[bool] = False
    """Also draw and judge the likeliest completion of each prompt, `group.greedy_reward`; only for groups."""
    given_chosen: ClassVar[bool] = False
    """The chosen completion is never the policy's own draw: it is a teacher's answer, for example. With a section
    `rollout` the recipe then needs `pairs: data`, which prefers the data's completion to a draw; only for pairs."""
    mismatched: ClassVar[bool] = False
    """Also score every prompt with the completion of another row, for KTO's KL estimate; only for unpaired data."""
    scope: ClassVar[Scope] = "example"
    """`batch`: `loss` sees the whole global batch at once, so that an example's loss may depend on the others. It
    costs one more forward pass."""
    head: ClassVar[Head] = "language_model"
    """`scalar`: the policy is a reward model with one number for each completion (`scored.scalar`) and no log-probs.
    `value`: a critic is trained beside the policy, a model of its own with one number for each token, `tokens.value`
    and `tokens.old_value`; only for groups. The section `critic` of the recipe has its start and learning rate."""
    language_head: ClassVar[bool] = False
    """A reward model that is a language model too: `scored.log_prob` beside `scored.scalar`. Its language head is the
    embedding, so embeddings have to be tied."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Names of a reward model's numbers for each completion, read with `scored.output("helpfulness")`; () for a single
    one without a name. `scored.scalar` is their mean."""
    output_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that name outputs, as `column_fields` name columns."""
    needs_runs: ClassVar[tuple[str, ...]] = ()
    """Fields that name a recipe, whose run is made first."""
    raises: ClassVar[Raises] = "by_data"
    """The quantity that a small step of gradient descent raises, for the conformance kit. `margin`: log-probs of chosen
    completions minus those of rejected ones. `chosen`: log-probs of chosen completions. `labels`: log-probs of
    desirable completions, while those of undesirable ones fall. `order`: the agreement of log-probs with the order of
    the data. `rewarded`: log-probs of draws with a high reward minus those with a low one. `by_data`: the one of these
    that fits `data`. `nothing`: not checked."""
    already_applies: ClassVar[tuple[str, ...]] = ()
    """Names of modifiers whose change is already part of the formula; a recipe that adds one is an error."""

    def loss(self, example: Any) -> Tensor:
        """Return the loss of each example, shape (B,).

        Args:
            example: a `Pair`, `Scored`, `Unpaired`, `Ranked` or `Group`, as declared by `data`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def weight(self, example: Any) -> Tensor:
        """Return the weight of each example, shape (B,).

        A step minimizes sum(loss) / sum(weight) over the global batch. The default is ones: a mean over examples. SFT
        returns token counts: a mean over tokens. The weight may depend on lengths and columns; with `scope = "batch"`,
        on anything.
        """
        return example.ones()

    def advantage(self, group: Group) -> Tensor:
        """Return the advantage of each completion, (B, G), or of each token, (N,).

        `loss` reads it as `group.advantage`. This method is called once a rollout without a graph, with all prompts of
        the rollout. The default is the reward.
        """
        return group.reward

    def returns(self, group: Group) -> Tensor:
        """Return the target of the critic's value before each token, (N,), for `head = "value"`.

        `loss` reads it as `group.returns`. It is called as `advantage` is, and sees the same.
        """
        raise NotImplementedError(f"{type(self).__name__} has no returns")

    def implicit_reward(self, scored: Scored) -> Tensor:
        """Return the implicit reward of completions, for metrics: beta times the log-ratio.

        Completions may have any shape. Without a reference the reward is beta times the log-prob. An objective without
        a beta counts as beta = 1.
        """
        if self.head == "scalar":
            return scored.scalar
        beta = getattr(self, "beta", 1.0)
        return beta * (scored.log_prob if self.reference == "none" else scored.log_ratio)

    def initial_state(self) -> dict[str, float]:
        """Return the numbers that are kept from step to step, such as running means.

        They are checkpointed with the run, and need `scope = "batch"` or `data = "group"`.
        """
        return {}

    def next_state(self, example: Any) -> dict[str, float]:
        """Return the state after a global batch; `example.state` is the state before it.

        It is called before `loss`, which then sees the new state. All ranks see the same batch and keep the same state.
        For groups it is called once a rollout, with all of its prompts and after `advantage`, which sees the old state.
        """
        return dict(example.state)

    def reference_update(self, step: int) -> float:
        """Return the share s of the policy in a moving reference after optimizer step `step`.

        Steps count from 1. The update is reference = s * policy + (1 - s) * reference, weight by weight.
        """
        return 0.0

    def reference_correction(self, step: int) -> float:
        """Return the weight a of the correction of a moving reference for its lag.

        It is 0 in every step, or in none. Otherwise the reference is average + a (policy - start), with the average
        moved as in `reference_update`.
        """
        return 0.0

    def model_post_init(self, context: Any, /) -> None:
        """Count the outputs that fields name among the outputs of this instance."""
        super().model_post_init(context)
        if self.output_fields:
            self.__dict__["outputs"] = tuple(dict.fromkeys((*type(self).outputs, *self._names_in(self.output_fields))))

    @classmethod
    def _contradictions(cls) -> dict[str, bool]:
        def defines(method: str) -> bool:
            return getattr(cls, method) is not getattr(Objective, method)

        keeps = defines("initial_state") or defines("next_state")
        return super()._contradictions() | {
            "it has no `loss`": not defines("loss"),
            '`min_completions` needs `data = "group"` or "ranked", and at least 1':
                cls.min_completions < 1 or (cls.min_completions != 2 and cls.data not in ("group", "ranked")),
            '`references` needs rows of the data, which are scored beforehand: not with `data = "group"`':
                bool(cls.references) and cls.data == "group",
            '`given_chosen` needs `data = "pair"`': cls.given_chosen and cls.data != "pair",
            '`mismatched` needs `data = "unpaired"`': cls.mismatched and cls.data != "unpaired",
            '`scope = "batch"` needs lists of one length: not with `data = "ranked"`':
                cls.scope == "batch" and cls.data == "ranked",
            '`data = "group"` needs `scope = "example"`: its `advantage` sees the whole rollout':
                cls.scope == "batch" and cls.data == "group",
            '`data = "group"` needs a language model': cls.head == "scalar" and cls.data == "group",
            '`head = "value"` needs `data = "group"`, `tokens = True` and `advantage_reads_log_probs = True`':
                cls.head == "value" and not (cls.data == "group" and cls.tokens and cls.advantage_reads_log_probs),
            '`head = "value"` needs `returns`, and `returns` needs it': (cls.head == "value") != defines("returns"),
            '`advantage`, `advantage_reads_log_probs` and `greedy_baseline` need `data = "group"`':
                cls.data != "group"
                and (defines("advantage") or cls.advantage_reads_log_probs or cls.greedy_baseline),
            '`drawn_by` needs "policy" among its names, unless it is ()':
                bool(cls.drawn_by) and "policy" not in cls.drawn_by,
            '`drawn_by` with "reference" or "mixture" needs a reference':
                cls.reference == "none" and not {"reference", "mixture"}.isdisjoint(cls.drawn_by),
            '`drawn_by` with "mixture" needs a field `mixture_coef`':
                "mixture" in cls.drawn_by and "mixture_coef" not in cls.model_fields,
            'a state needs `scope = "batch"` or `data = "group"`: it must not depend on micro-batches':
                keeps and cls.scope != "batch" and cls.data != "group",
            'a state needs an example that has one: not with `data = "chosen"`': keeps and cls.data == "chosen",
            'a scalar head has no log-probs: `reference = "none"`, no `tokens`, no `references`':
                cls.head == "scalar" and bool(cls.reference != "none" or cls.tokens or cls.references),
            "a reward model has no `hidden_sum`": cls.head == "scalar" and cls.hidden_sum,
            '`language_head` needs `head = "scalar"`': cls.language_head and cls.head != "scalar",
            '`outputs` needs `head = "scalar"`':
                bool(cls.outputs or cls.output_fields) and cls.head != "scalar",
            '`ties` needs `data = "pair"` or "ranked"':
                cls.ties and cls.data not in ("pair", "ranked"),
            '`reference_update` needs `reference = "moving"`':
                defines("reference_update") and cls.reference != "moving",
            "`reference_correction` needs `reference_update`":
                defines("reference_correction") and not defines("reference_update"),
            '`reference = "moving"` needs `reference_update`':
                cls.reference == "moving" and not defines("reference_update"),
        }  # fmt: skip

    @property
    def requirements(self) -> Requirements:
        """The declarations as one value."""
        needs = super().requirements
        return replace(
            needs,
            mismatched=self.mismatched,
            scope=self.scope,
            data=self.data,
            head=self.head,
            outputs=self.outputs,
            drawn_by=self.drawn_by,
            language_head=self.language_head,
        )

    @property
    def policy_head(self) -> Head:
        """The head of the policy: `scalar` for a reward model, else `language_model`."""
        return "scalar" if self.head == "scalar" else "language_model"

    @property
    def terms(self) -> Sequence[tuple[float, Objective]]:
        """The (weight, objective) terms of a sum; a plain objective is its only term."""
        return ((1.0, self),)

    @property
    def components(self) -> Sequence[ScoredComponent]:
        """The objectives and modifiers from the registry that this objective consists of."""
        return (self,)

    def __str__(self) -> str:
        fields = ", ".join(f"{key}={value}" for key, value in self.model_dump().items())
        return f"{self.name}({fields})"
