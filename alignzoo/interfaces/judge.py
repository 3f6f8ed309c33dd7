"""What a judge is: it reads replies and says how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from alignzoo.core.digests import content_digest

Prompt = str | Sequence[Mapping[str, Any]]
"""Plain text, or chat messages: `role` and `content`, or `tool_calls` in place of a content."""


class Judge(BaseModel):
    """Base class: subclass it, give it a `name` and `scores`, and return it from `register_judges`.

    A recipe names it under `eval.judges`; it reads the policy's answers to held-out prompts, once at the end of a run.
    A judge that fails costs its own figures and nothing else.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]
    source: ClassVar[str] = ""
    """Where it was published."""

    def fingerprint(self) -> dict[str, Any]:
        """Everything that its verdicts depend on, as plain JSON values: the name, the fields, and what is in the folder
        that a field `path` names, wherever it is."""
        values = {"name": self.name, **self.model_dump(mode="json")}
        path = values.get("path")
        if isinstance(path, str) and Path(path).is_dir():
            values["path"] = content_digest(Path(path))
        return values

    def ready(self) -> None:
        """Raise UserError when it can't work here (a key is missing): asked before anything is done."""

    def scores(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> Sequence[float]:
        """How good each reply is to its prompt: any scale, higher is better; not-a-number where it can't say."""
        raise NotImplementedError(f"{type(self).__name__} has no scores")

    def prefers(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Sequence[float]:
        """1 where the first reply is better, 0 where the second is, one half for a tie: by the scores.

        A judge that can only compare overrides this and leaves `scores` alone.
        """
        pairs = zip(self.scores(prompts, first), self.scores(prompts, second), strict=True)
        return [float("nan") if a != a or b != b else 0.5 + 0.5 * ((a > b) - (a < b)) for a, b in pairs]
