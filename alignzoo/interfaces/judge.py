"""The base class of judges, which rate replies or compare two of them."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from alignzoo.core.concurrency import run_coroutine
from alignzoo.core.digests import content_digest
from alignzoo.interfaces.component import Component

Prompt = str | Sequence[Mapping[str, Any]]
"""Plain text, or chat messages with `role` and either `content` or `tool_calls`."""
Scores = Sequence[float] | Coroutine[Any, Any, Sequence[float]]
"""What `Judge.scores` returns: one score for each reply, or the coroutine that waits for them."""
MORE = ("columns", "finished", "tokens")
"""What `Judge.scores` may take besides prompts and replies, by keyword."""


@dataclass(frozen=True)
class Asked:
    """Inputs of a judge, with one entry for each reply.

    An empty sequence stands for an unknown input, which is not passed.
    """

    prompts: Sequence[Prompt]
    replies: Sequence[str]
    columns: Sequence[Mapping[str, Any]] = ()
    """The other columns of each reply's row, such as a gold answer."""
    finished: Sequence[bool] = ()
    """False where a limit of new tokens has cut a reply."""
    tokens: Sequence[Sequence[int]] = ()
    """Token ids of each reply as it was drawn."""
    rows: Sequence[str] = ()
    """The id of each reply's row, for messages."""

    def scored_by(self, judge: Judge) -> Any:
        """Return what `judge.scores` returns: a sequence, or its coroutine where it is one."""
        taken = inspect.signature(judge.scores).parameters
        more = {name: getattr(self, name) for name in MORE if name in taken and len(getattr(self, name))}
        return judge.scores(self.prompts, self.replies, **more)

    def scores_of(self, judge: Judge) -> Sequence[Any]:
        """Return the scores of a judge, whether its `scores` is a coroutine function or not."""
        found = self.scored_by(judge)
        return list(run_coroutine(found) if inspect.iscoroutine(found) else found)


class Judge(Component):
    """Base class of judges: a subclass defines `name` and `scores`.

    The hook `register_judges` returns the class. A recipe names it under `eval.judges`. It rates the policy's replies
    to held-out prompts once, at the end of a run. If a judge fails, only its own figures are missing.
    """

    source: ClassVar[str] = ""
    """The publication: authors, year, arXiv id."""
    needs_runs: ClassVar[tuple[str, ...]] = ()
    """Fields that name the recipe of a reward model, whose run is made first. They are not part of `fingerprint`."""

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that the verdicts depend on, as plain JSON values.

        The default is the name, the fields without those marked `NoEffect`, and the contents of the folder that a
        field `path` names.
        """
        runs = {name for name, field in type(self).model_fields.items() if (field.alias or name) in self.needs_runs}
        left_out = dict.fromkeys(runs, True) | self.fields_without_effect()
        values = {"name": self.name, **self.model_dump(mode="json", exclude=left_out)}
        path = values.get("path")
        if isinstance(path, str) and Path(path).is_dir():
            values["path"] = content_digest(Path(path))
        return values

    @property
    def only_compares(self) -> bool:
        """True for a judge that gives no scores."""
        return type(self).scores is Judge.scores

    def address(self) -> str:
        """Return the address of the judging service; "" for a judge of this process.

        Verdicts depend on the address too. It is no part of `fingerprint`: another address does not make another run.
        """
        return ""

    def ready(self) -> None:
        """Check that the judge can work here, before the run starts.

        Raises:
            UserError: it cannot, for example because an API key is missing.
        """

    def open_run(self, folder: Path) -> None:
        """Use the finished run that a field of `needs_runs` names.

        Args:
            folder: Its policy: full weights and the tokenizer, in transformers' format.
        """

    def columns_read(self) -> tuple[str, ...]:
        """Return the data columns that the scores need; a run checks them before it starts."""
        return ()

    def scores(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> Scores:
        """Return a score for each reply to its prompt: higher is better, NaN without a verdict.

        Scores may have any scale.

        An override may also take, by keyword and with the default `()` for what is not known: `columns`, for each reply
        the other columns of its row, such as a gold answer; `finished`, False where a reply was cut; and `tokens`, the
        token ids of each drawn reply. It may be a coroutine function (`async def`): rewards that are wait together.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scores")

    def prefers(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Sequence[float]:
        """Return 1 where the first reply is better, 0 where the second is, 0.5 for a tie.

        The result is NaN without a verdict. The default compares `scores`. A judge that can only compare overrides this
        method and leaves `scores` out.
        """
        found = (Asked(prompts, replies).scores_of(self) for replies in (first, second))
        pairs = zip(*found, strict=True)
        return [float("nan") if a != a or b != b else 0.5 + 0.5 * ((a > b) - (a < b)) for a, b in pairs]

    def prefers_as_shown(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Sequence[float]:
        """Return the verdicts of `prefers` with the replies shown in this order alone.

        The default is `prefers`. A judge whose `prefers` averages both orders overrides it, so that `alignzoo judge`
        can measure its position bias.
        """
        return self.prefers(prompts, first, second)
