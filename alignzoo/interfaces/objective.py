"""What an objective is, and what it declares.

An objective is pure math over log-probabilities: it never sees padding, masks, devices or ranks. It declares what it
needs in class attributes, and the engine provides that and no more (`alignzoo.interfaces.loss_inputs` has the types).
Reading anything else is an error that names the missing declaration. torch is not imported here, so that a recipe can
be read without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from alignzoo.interfaces.loss_inputs import NotDeclared, Pair, Ranked, Scored, Tokens, Unpaired

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["Field", "NotDeclared", "Objective", "Pair", "Ranked", "Requirements", "Scored", "Tokens", "Unpaired"]


ReferenceKind = Literal["none", "sequence", "token", "live", "moving"]
"""From the least to the most."""
Statistic = Literal["entropy", "log_collision_prob", "kl"]
Data = Literal["pair", "chosen", "unpaired", "ranked"]
Scope = Literal["example", "batch"]
Head = Literal["language_model", "scalar"]
Raises = Literal["by_data", "margin", "chosen", "labels", "order", "nothing"]


class Requirements(BaseModel):
    """What an objective or a modifier asks for, in class attributes. Everything is off unless it is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]
    """How a recipe calls it: lower case letters, digits and underscores."""
    family: ClassVar[str] = ""
    """What it is listed with."""
    source: ClassVar[str] = ""
    """Where it was published: authors, year, arXiv id, equation."""
    equation: ClassVar[str] = ""
    """The loss of one example in plain text; h is the difference of the log-ratios."""

    reference: ClassVar[ReferenceKind] = "none"
    """`sequence`, `token`: log-probs of whole completions, or of each token too, under the frozen reference, from the
    cache. `live`: the reference runs beside the policy, for `statistics = ("kl",)`. `moving`: it runs beside the policy
    and follows it, as `reference_update` says. `none`: not computed."""
    tokens: ClassVar[bool] = False
    """`scored.tokens`: what is known of each scored token."""
    statistics: ClassVar[tuple[Statistic, ...]] = ()
    """Of the whole distribution at each scored token; see `Tokens`. They need `tokens`, kl also a live reference."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Numbers that come with the data, by name: `scored.column("score")`."""
    stop_gradient: ClassVar[str] = ""
    """What the loss holds constant on purpose, in words, where its gradient is not the derivative of its value."""
    needs_uniform: ClassVar[bool] = False
    """`example.uniform` and `tokens.uniform`: seeded by run, step and row, whatever the micro-batches are."""

    @classmethod
    def _impossible(cls) -> dict[str, bool]:
        """What no engine can provide -> whether the class declares it."""
        return {
            "`statistics` need `tokens = True`": bool(cls.statistics) and not cls.tokens,
            'the statistic "kl" needs `reference = "live"`: a cache has no distributions':
                "kl" in cls.statistics and cls.reference not in ("live", "moving"),
            '`reference = "token"` needs `tokens = True`': cls.reference == "token" and not cls.tokens,
        }  # fmt: skip


Spelling = Callable[[type[Any]], str]
"""From a class to how a recipe names it: where several packages offer the name, `package/name`."""


def plain_name(cls: type[Any]) -> str:
    """The name by itself."""
    return str(cls.name)


class Objective(Requirements):
    """Base class: subclass it, give it a `name` and `loss`, and return it from `register_objectives`.

    Hyper-parameters are pydantic fields with bounds and descriptions; a recipe's `objective:` node is validated
    against them. The docstring's first line says what the objective is.
    """

    reference: ClassVar[ReferenceKind] = "sequence"
    data: ClassVar[Data] = "pair"
    """What `loss` gets. `pair`: a `Pair`. `chosen`: the preferred completions alone, a `Scored`. `unpaired`: single
    completions, labeled desirable or not, an `Unpaired`. `ranked`: K completions of each prompt, a `Ranked`."""
    mismatched: ClassVar[bool] = False
    """Unpaired data alone: also score every prompt with the completion of another row (KTO's KL estimate)."""
    scope: ClassVar[Scope] = "example"
    """`batch`: `loss` sees the whole global batch at once, so that an example's loss may depend on the others. It
    costs one more forward."""
    head: ClassVar[Head] = "language_model"
    """`scalar`: the policy is a reward model, one number a completion (`scored.scalar`), and has no log-probs."""
    needs_runs: ClassVar[tuple[str, ...]] = ()
    """Keys of fields that name a recipe: its run is made first."""
    raises: ClassVar[Raises] = "by_data"
    """What a small step of gradient descent raises, which the conformance kit checks. `margin`: log-probs of chosen
    completions less those of rejected ones. `chosen`: log-probs of the chosen ones. `labels`: log-probs of desirable
    completions, and it lowers those of undesirable ones. `order`: the agreement of log-probs with the data's order.
    `by_data`: the one of these that fits `data`. `nothing`: not checked."""
    already_applies: ClassVar[tuple[str, ...]] = ()
    """Names of modifiers that do what its own formula does already: a recipe that adds one is refused."""

    def loss(self, example: Any) -> Tensor:
        """The loss of each example, shape (B,). `example` is what `data` says."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def weight(self, example: Any) -> Tensor:
        """What each example counts for, shape (B,). A step minimizes sum(loss) / sum(weight) over the global batch.

        One for every example unless overridden: a mean over examples. SFT returns the token counts: a mean over tokens.
        It may depend on lengths and columns; only with `scope = "batch"` on anything else.
        """
        return example.ones()

    def implicit_reward(self, scored: Scored) -> Tensor:
        """The implicit reward of completions, of any shape, for metrics alone: beta times their log-ratio.

        Without a reference it is beta times the log-probability. An objective with no beta counts as beta = 1.
        """
        if self.head == "scalar":
            return scored.scalar
        beta = getattr(self, "beta", 1.0)
        return beta * (scored.log_prob if self.reference == "none" else scored.log_ratio)

    def initial_state(self) -> dict[str, float]:
        """Numbers kept from step to step (running means), checkpointed with the run. They need `scope = "batch"`."""
        return {}

    def next_state(self, example: Any) -> dict[str, float]:
        """The state after seeing a global batch; `example.state` is the one before. Called before `loss`, which then
        sees what this returns. Every rank sees the same batch, so every rank has the same state."""
        return dict(example.state)

    def reference_update(self, step: int) -> float:
        """For a moving reference: how far it moves to the policy after optimizer step `step` (from 1).

        0: stays; 1: becomes the policy; between: reference = s * policy + (1 - s) * reference, weight by weight.
        """
        return 0.0

    @classmethod
    def _impossible(cls) -> dict[str, bool]:
        def defines(method: str) -> bool:
            return getattr(cls, method) is not getattr(Objective, method)

        keeps = defines("initial_state") or defines("next_state")
        return super()._impossible() | {
            "it has no `loss`": not defines("loss"),
            '`mismatched` needs `data = "unpaired"`': cls.mismatched and cls.data != "unpaired",
            '`scope = "batch"` needs lists of one length: not with `data = "ranked"`':
                cls.scope == "batch" and cls.data == "ranked",
            'a state needs `scope = "batch"`: it must not depend on micro-batches': keeps and cls.scope != "batch",
            'a state needs an example that has one: not with `data = "chosen"`': keeps and cls.data == "chosen",
            'a scalar head has no log-probs: `reference = "none"`, no `tokens`':
                cls.head == "scalar" and (cls.reference != "none" or cls.tokens),
            '`reference_update` needs `reference = "moving"`':
                defines("reference_update") and cls.reference != "moving",
            '`reference = "moving"` needs `reference_update`':
                cls.reference == "moving" and not defines("reference_update"),
        }  # fmt: skip

    @property
    def terms(self) -> Sequence[tuple[float, Objective]]:
        """(weight, objective) of a sum of objectives; an ordinary one is a sum of one."""
        return ((1.0, self),)

    @property
    def components(self) -> Sequence[Requirements]:
        """What it is made of: objectives and modifiers that have a name in the registry."""
        return (self,)

    def to_recipe(self, spelling: Spelling = plain_name) -> dict[str, Any] | list[dict[str, Any]]:
        """How a recipe writes it, defaults included."""
        return {"name": spelling(type(self)), **self.model_dump(mode="json")}

    def __str__(self) -> str:
        fields = ", ".join(f"{key}={value}" for key, value in self.model_dump().items())
        return f"{self.name}({fields})"


OPTIONS: dict[str, Any] = {
    "reference": ReferenceKind, "statistics": Statistic, "data": Data, "scope": Scope, "head": Head,
    "raises": Raises,
}  # fmt: skip


def contradiction(cls: type[Requirements]) -> str:
    """Why no engine can provide what a class declares, or "" when one can."""
    for key in ("statistics", "columns"):
        value = getattr(cls, key)
        if not isinstance(value, tuple):
            return f'`{key} = {value!r}` is no tuple; write `{key} = ("...",)`'
    for key, options in OPTIONS.items():
        value = getattr(cls, key, ())
        for one in value if isinstance(value, tuple) else (value,):
            if one not in get_args(options):
                return f"`{key}` can't be {one!r}; it is one of {', '.join(get_args(options))}"
    return "; ".join(rule for rule, broken in cls._impossible().items() if broken)
