"""Declarations of the inputs that an objective, a modifier or a metric needs.

A check finds those that cannot be provided. Plugin authors declare inputs as class attributes. `Requirements` holds the
same declarations as one value, so that the needs of a composition are `inner.requirements | modifier.requirements`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from alignzoo.interfaces.component import Component

if TYPE_CHECKING:
    from torch import Tensor

ReferenceKind = Literal["none", "sequence", "token", "live", "moving"]
"""In increasing order of what the reference provides."""
Statistic = Literal["entropy", "log_collision_prob", "forward_kl", "reverse_kl", "ref_normalized_entropy"]
DIVERGENCES: tuple[Statistic, ...] = ("forward_kl", "reverse_kl")
"""Statistics of two distributions."""
CONSTANT: tuple[Statistic, ...] = ("ref_normalized_entropy",)
"""Statistics of the reference alone, which have no gradient."""
OF_REFERENCE: tuple[Statistic, ...] = (*DIVERGENCES, *CONSTANT)
"""Statistics that need the reference's distributions, so a live reference."""
TokenStatistic = Callable[["Tensor", "Tensor | None"], "Tensor"]
"""From the log-probs (n, V) of policy and reference at n tokens to a number of each, (n,)."""
OWN = " of "
"""Between the name of a component's own statistic and the component, whose fields are part of what it means."""
Data = Literal["pair", "chosen", "unpaired", "ranked", "group"]
Scope = Literal["example", "batch"]
"""In increasing order of what `loss` sees."""
Head = Literal["language_model", "scalar", "value"]
DrawnBy = Literal["policy", "reference", "mixture"]
Raises = Literal["by_data", "margin", "chosen", "labels", "order", "rewarded", "nothing"]


@dataclass(frozen=True)
class Requirements:
    """The declarations of one component as a value; the attributes are those of `Objective`."""

    reference: ReferenceKind = "none"
    tokens: bool = False
    statistics: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    needs_uniform: bool = False
    mismatched: bool = False
    scope: Scope = "example"
    data: Data = "pair"
    head: Head = "language_model"
    ties: bool = False
    references: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    probabilities: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    hidden_sum: bool = False
    drawn_by: tuple[DrawnBy, ...] = ()
    named_reference: bool = False
    language_head: bool = False

    def __or__(self, other: Requirements) -> Requirements:
        """Return the needs of both. `data` and `head` are those of the left operand."""
        references, scopes = get_args(ReferenceKind), get_args(Scope)
        return Requirements(
            max(self.reference, other.reference, key=references.index),
            self.tokens or other.tokens,
            tuple(dict.fromkeys(self.statistics + other.statistics)),
            tuple(dict.fromkeys(self.columns + other.columns)),
            self.needs_uniform or other.needs_uniform,
            self.mismatched or other.mismatched,
            max(self.scope, other.scope, key=scopes.index),
            self.data,
            self.head,
            self.ties or other.ties,
            tuple(dict.fromkeys(self.references + other.references)),
            tuple(dict.fromkeys(self.flags + other.flags)),
            tuple(dict.fromkeys(self.probabilities + other.probabilities)),
            tuple(dict.fromkeys(self.outputs + other.outputs)),
            self.hidden_sum or other.hidden_sum,
            self.drawn_by or other.drawn_by,
            self.named_reference or other.named_reference,
            self.language_head or other.language_head,
        )


class ScoredComponent(Component):
    """A component that reads scored completions: an objective, a modifier or a metric.

    It declares the inputs that it needs in class attributes. Everything is off unless it is declared.
    """

    family: ClassVar[str] = ""
    """The heading under which it is listed."""
    source: ClassVar[str] = ""
    """The publication: authors, year, arXiv id, equation."""
    equation: ClassVar[str] = ""
    """The loss of one example in plain text; h is the difference of the log-ratios."""

    reference: ClassVar[ReferenceKind] = "none"
    """`none`: no reference is computed. `sequence`: log-probs of completions under the frozen reference, from the
    cache. `token`: log-probs of each token as well. `live`: the reference runs beside the policy, for
    `forward_kl` and `reverse_kl`. `moving`: it runs beside the policy and is updated by `reference_update`."""
    named_reference: ClassVar[bool] = False
    """The reference is another model than the policy's start, such as a teacher: the recipe has to name it under
    `references.reference`."""
    tokens: ClassVar[bool] = False
    """Provide `scored.tokens`, the values of each scored token."""
    statistics: ClassVar[tuple[str, ...]] = ()
    """Statistics of the distribution over the vocabulary at each scored token, as in `Tokens`. They need `tokens`;
    `forward_kl`, `reverse_kl` and `ref_normalized_entropy` also need a live reference.

    Further names are methods of the class, `def skew(self, log_pi, log_ref)`: from the log-probs (n, V) of policy and
    reference at n tokens, which are None without a live reference, to a number of each token, (n,). They are called for
    a slice of the tokens at a time, with gradient to `log_pi`, and read with `tokens.statistic("skew")`."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Names of numeric columns of the data, read with `scored.column("score")`."""
    flags: ClassVar[tuple[str, ...]] = ()
    """Names of columns that are 0 or 1 (false or true) in every row, read with `scored.flag("unsafe")`."""
    probabilities: ClassVar[tuple[str, ...]] = ()
    """Names of columns that lie in [0, 1] in every row, such as win rates, read as other columns are."""
    column_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that name columns: a name, a list of names, or names as the keys of a mapping. They are declared with the
    others, so that a recipe chooses what the data's columns are called."""
    hidden_sum: ClassVar[bool] = False
    """Provide `scored.hidden_sum`, without gradient: the sum of the last hidden states that predict scored tokens."""
    ties: ClassVar[bool] = False
    """Take rows in which no completion is better too; of pairs, `pair.tied` marks them. Without it such rows are
    skipped and counted. A row is a tie if its column `tie` is 1 or all of its scores are equal."""
    references: ClassVar[tuple[str, ...]] = ()
    """Names of further frozen models, which a recipe gives under `references`: log-probs of completions from the cache,
    read with `scored.ref("teacher")`, and with `tokens = True` those of each token, `scored.tokens.ref("teacher")`."""
    stop_gradient: ClassVar[str] = ""
    """A sentence on what the loss holds constant, for a loss whose gradient is not the derivative of its value."""
    needs_uniform: ClassVar[bool] = False
    """Provide `example.uniform` and `tokens.uniform`: seeded by run, step and row, independent of micro-batches."""

    @property
    def requirements(self) -> Requirements:
        """The declarations as one value."""
        return Requirements(
            self.reference, self.tokens, self.statistics, self.columns, self.needs_uniform, ties=self.ties,
            references=self.references, flags=self.flags, probabilities=self.probabilities,
            hidden_sum=self.hidden_sum, named_reference=self.named_reference,
        )  # fmt: skip

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Count flags and probabilities among the columns."""
        super().__pydantic_init_subclass__(**kwargs)
        named = (cls.columns, cls.flags, cls.probabilities)
        if all(isinstance(names, tuple) for names in named):
            cls.columns = tuple(dict.fromkeys(name for names in named for name in names))

    def model_post_init(self, context: Any, /) -> None:
        """Add columns that fields name to `columns`, and name own statistics after this instance."""
        super().model_post_init(context)
        if set(self.statistics) - set(get_args(Statistic)):
            fields = ", ".join(f"{key}={value}" for key, value in self.model_dump().items())
            names = {name: f"{name}{OWN}{self.name}({fields})" for name in self.statistics}
            self.__dict__["statistics"] = tuple(name if name in get_args(Statistic) else names[name] for name in names)
        if self.column_fields:
            self.__dict__["columns"] = tuple(dict.fromkeys((*type(self).columns, *self._names_in(self.column_fields))))

    @property
    def own_statistics(self) -> dict[str, TokenStatistic]:
        """Statistics that are methods of the class, by name in this instance's `statistics`."""
        return {name: getattr(self, name.partition(OWN)[0]) for name in self.statistics if OWN in name}

    def _names_in(self, fields: tuple[str, ...]) -> list[str]:
        """Return the names in some fields: a name, a list of names, or the keys of a mapping."""
        values = [getattr(self, field) for field in fields if field in type(self).model_fields]
        return [name for value in values for name in ((value,) if isinstance(value, str) else value)]

    @classmethod
    def _contradictions(cls) -> dict[str, bool]:
        """Map each rule that an engine depends on to True if the class breaks it."""
        return {
            "`statistics` need `tokens = True`": bool(cls.statistics) and not cls.tokens,
            f'the statistics {listed(OF_REFERENCE)} need `reference = "live"`: a cache has no distributions':
                bool(set(OF_REFERENCE) & set(cls.statistics)) and cls.reference not in ("live", "moving"),
            '`reference = "token"` needs `tokens = True`': cls.reference == "token" and not cls.tokens,
            '`named_reference` needs a frozen `reference`':
                cls.named_reference and cls.reference in ("none", "moving"),
            '"reference" is declared as `reference = "sequence"`, not among `references`':
                "reference" in cls.references,
            "`column_fields` needs names of fields": bool(set(cls.column_fields) - set(cls.model_fields)),
        }  # fmt: skip


def listed(names: tuple[str, ...]) -> str:
    """Return quoted names as words: `"a", "b" and "c"`."""
    quoted = [f'"{name}"' for name in names]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


OPTIONS: dict[str, Any] = {
    "reference": ReferenceKind, "data": Data, "scope": Scope, "head": Head, "raises": Raises, "drawn_by": DrawnBy,
}  # fmt: skip


def contradiction(cls: type[ScoredComponent]) -> str:
    """Return why no engine can provide what a class declares, or "" if one can."""
    for key in (
        "statistics", "columns", "flags", "probabilities", "column_fields", "references", "outputs", "drawn_by",
    ):  # fmt: skip
        value = getattr(cls, key, ())
        if not isinstance(value, tuple):
            return f'`{key} = {value!r}` is not a tuple; write `{key} = ("...",)`'
    for key, options in OPTIONS.items():
        value = getattr(cls, key, ())
        for one in value if isinstance(value, tuple) else (value,):
            if one not in get_args(options):
                return f"`{key}` can't be {one!r}; it is one of {', '.join(get_args(options))}"
    for name in cls.statistics:
        own = callable(getattr(cls, str(name), None)) and not hasattr(ScoredComponent, str(name))
        if name not in get_args(Statistic) and not own:
            known = ", ".join(get_args(Statistic))
            return f"`statistics` can't be {name!r}; it is one of {known}, or a method of the class"
    return "; ".join(rule for rule, broken in cls._contradictions().items() if broken)
