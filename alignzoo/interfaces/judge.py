"""The base class of judges, which rate replies or compare two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from alignzoo.core.digests import content_digest
from alignzoo.interfaces.component import Component

Prompt = str | Sequence[Mapping[str, Any]]
"""Plain text, or chat messages with `role` and either `content` or `tool_calls`."""


class Judge(Component):
    """Base class of judges: define `name` and `scores`, and return the class from `register_judges`.

    A recipe names it under `eval.judges`. It rates the policy's replies to held-out prompts once, at the end of a run.
    If a judge fails, only its own figures are missing.
    """

    source: ClassVar[str] = ""
    """The publication: authors, year, arXiv id."""

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that the verdicts depend on, as plain JSON values.

        The default is the name, the fields and the contents of the folder that a field `path` names.
        """
        values = {"name": self.name, **self.model_dump(mode="json")}
        path = values.get("path")
        if isinstance(path, str) and Path(path).is_dir():
            values["path"] = content_digest(Path(path))
        return values

    def address(self) -> str:
        """Return the address of the service that judges, on which verdicts depend too; "" for a judge of this process.

        It is no part of `fingerprint`: another address does not make another run.
        """
        return ""

    def ready(self) -> None:
        """Check that the judge can work here, before the run starts.

        Raises:
            UserError: it cannot, for example because an API key is missing.
        """

    def scores(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> Sequence[float]:
        """Return a score for each reply to its prompt: on any scale, higher is better, NaN without a verdict.

        An override may also take, by keyword and with a default, what rewards of draws are given: `columns`, for each
        reply the other columns of its row, such as a gold answer, and `finished`, False where a reply was cut.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scores")

    def prefers(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Sequence[float]:
        """Return 1 where the first reply is better, 0 where the second is, 0.5 for a tie, NaN without a verdict.

        The default compares `scores`. A judge that can only compare overrides this method and leaves `scores` out.
        """
        pairs = zip(self.scores(prompts, first), self.scores(prompts, second), strict=True)
        return [float("nan") if a != a or b != b else 0.5 + 0.5 * ((a > b) - (a < b)) for a, b in pairs]
