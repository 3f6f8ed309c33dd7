"""A judge of mathematical answers, by the package math-verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from mmap import mmap
from typing import Any

from pydantic import Field

from alignzoo.core.door import BadFile, in_child
from alignzoo.core.errors import UserError
from alignzoo.evaluation.judges.answer_judge import AnswerJudge
from alignzoo.interfaces.judge import Prompt

SECONDS, PAIRS_A_SECOND = 5.0, 10.0
"""Processor time for comparing answers with replies, and pairs that it is longer for by a second."""
VALUES = (0.0, 1.0, None)
"""What a comparison can find."""


class Math(AnswerJudge):
    """Score 1 if a reply's last mathematical expression equals its row's answer, else 0.

    math-verify reads both as LaTeX or as a plain expression, what is boxed first. A row without the column, or with an
    answer that it can't read, has no score.
    """

    name = "math"
    source = "math-verify 0.9 (Hugging Face)"

    column: str = Field("answer", description="column with the answer, in LaTeX or as a plain expression")
    digits: int = Field(6, ge=1, le=15, description="digits to which numbers are compared")

    def ready(self) -> None:
        """Check that math-verify is installed.

        Raises:
            UserError: It is not.
        """
        if find_spec("math_verify") is None:
            raise UserError(
                "math requires math-verify, which is not installed", where="eval.judges",
                hint="pip install 'alignzoo[math]'",
            )  # fmt: skip

    def scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], columns: Sequence[Mapping[str, Any]] = ()
    ) -> list[float]:
        """Return 1 or 0 for each reply, NaN without an answer to compare with.

        Raises:
            UserError: math-verify is not installed.
        """
        self.ready()
        golds = self.answers(columns, replies)
        pairs = [(str(gold), reply) for gold, reply in zip(golds, replies, strict=True) if gold is not None]
        known = compared(list(dict.fromkeys(pairs)), self.digits)
        nothing = float("nan")
        return [
            nothing if gold is None or (score := known[str(gold), reply]) is None else score
            for gold, reply in zip(golds, replies, strict=True)
        ]


def compared(pairs: Sequence[tuple[str, str]], digits: int) -> dict[tuple[str, str], float | None]:
    """Return 1.0 or 0.0 for each pair of an answer and a reply.

    An answer that can't be read has None. An expression may take any time or memory, a power tower for example. All
    pairs are compared in one child process with limits on both. Where it ends, the pair that it was at is compared in a
    child of its own, in which one that exceeds the limits counts as different, and the rest in a further one. So that
    each such pair costs two children, whatever the number of pairs.
    """
    import_module("math_verify")  # here, so that no child imports it
    found: list[float | None] = []
    while len(found) < len(pairs):
        found += _compare(pairs[len(found) :], digits)
        if len(found) < len(pairs):
            found += _compare(pairs[len(found) :][:1], digits) or [0.0]
    return dict(zip(pairs, found, strict=True))


def _compare(pairs: Sequence[tuple[str, str]], digits: int) -> list[float | None]:
    """Return what a child has found: of all pairs, or of the first up to a limit exceeded."""
    with mmap(-1, len(pairs)) as known:  # shared with the child, so that its findings outlive it

        def compare() -> None:
            for n, (gold, reply) in enumerate(pairs):
                known[n] = VALUES.index(_equal(gold, reply, digits)) + 1

        with suppress(BadFile):
            in_child(
                "math-verify", compare, what="an answer", doing="comparing answers",
                seconds=SECONDS + len(pairs) / PAIRS_A_SECOND,
            )  # fmt: skip
        return [VALUES[n - 1] for n in known[:].rstrip(b"\0")]


def _equal(gold: str, reply: str, digits: int) -> float | None:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    how = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    right = parse(gold, how, parsing_timeout=None)
    if not right:
        return None
    own = parse(reply, how, parsing_timeout=None)
    return float(verify(right, own, float_rounding=digits, timeout_seconds=None))
