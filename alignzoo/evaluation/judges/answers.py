"""Judges that compare a reply with the answer in its row, or with a pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from alignzoo.core.door import in_child
from alignzoo.evaluation.judges.answer_judge import AnswerJudge
from alignzoo.interfaces.judge import Judge, Prompt


def check_pattern(pattern: str | None) -> str | None:
    """Return a regular expression. Raises ValueError where it is none."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern


SECONDS, CHARACTERS_A_SECOND = 8.0, 100_000.0
"""Processor time for an expression on replies, and characters that it is longer for by a second."""


def searched(judge: str, search: Callable[[str], Any], replies: Sequence[str]) -> list[Any]:
    """Return a regular expression's finding in each reply, from a child process with limits.

    An expression such as (a+)+$ takes any time on some replies.

    Raises:
        BadFile: It exceeds the limits.
    """
    found: list[Any] = in_child(
        judge, lambda: [search(reply) for reply in replies], what="a reply", doing="matching its regular expression",
        seconds=SECONDS + sum(map(len, replies)) / CHARACTERS_A_SECOND, hint="an expression without nested repeats",
    )  # fmt: skip
    return found


class ExactMatch(AnswerJudge):
    """Score 1 for a reply that equals the answer in its row, and 0 for any other.

    Spaces around both are ignored. A list in the column has several right answers. A row without the column has no
    score.
    """

    name = "exact_match"
    source = "exact match: Rajpurkar et al. 2016 (arXiv:1606.05250), section 6.1, without its normalization"

    column: str = Field("answer", description="column with the answer, or a list of right ones")
    extract: str | None = Field(
        None,
        description="regular expression of the reply's answer, its first group if it has one; the last match counts",
    )
    ignore_case: bool = Field(False, description="compare without case")

    _is_pattern = field_validator("extract")(check_pattern)

    def scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], columns: Sequence[Mapping[str, Any]] = ()
    ) -> list[float]:
        """Return 1 or 0 for each reply, NaN for a row without an answer.

        Raises:
            BadFile: `extract` takes too long.
        """
        own = replies if self.extract is None else searched(f"judge {self.name}", self._extracted, replies)
        return [
            float("nan") if answer is None else float(self._is_right(reply, answer))
            for reply, answer in zip(own, self.answers(columns, replies), strict=True)
        ]

    def _extracted(self, reply: str) -> str | None:
        found = list(re.finditer(self.extract or "", reply))
        return found[-1].group(1 if found[-1].re.groups else 0) or "" if found else None

    def _is_right(self, reply: str | None, answer: Any) -> bool:
        if reply is None:
            return False
        answers = answer if isinstance(answer, list | tuple) else [answer]
        return self._form(reply) in {self._form(str(one)) for one in answers}

    def _form(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()


class Regex(Judge):
    """Score 1 for a reply that a regular expression matches, and 0 for any other."""

    name = "regex"
    source = "format rewards: DeepSeek-AI 2025 (arXiv:2501.12948), section 2.2.2"

    pattern: str = Field(min_length=1, description="regular expression of Python's re; (?s) lets . match line breaks")
    whole: bool = Field(False, description="match the whole reply, not a part of it")

    _is_pattern = field_validator("pattern")(check_pattern)

    def scores(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> list[float]:
        """Return 1 or 0 for each reply.

        Raises:
            BadFile: The expression takes too long.
        """
        match = re.fullmatch if self.whole else re.search
        found = searched(f"judge {self.name}", lambda reply: match(self.pattern, reply) is not None, replies)
        return [float(one) for one in found]
