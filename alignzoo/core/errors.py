"""What a user did wrong, said once and said well.

Every mistake of a user becomes a `Problem`: where it is, what is wrong, what was expected and the nearest valid
spelling. `UserError` carries one or more of them; the command line prints them and exits with 2, without a traceback.
This module needs nothing outside the standard library, so that errors stay cheap and always work.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alignzoo.core.redaction import printable, redact


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `where: what; expected ...; did you mean '...'?`."""

    what: str
    where: str = ""
    expected: str = ""
    nearest: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            text += f"; expected {self.expected}"
        if self.nearest:
            text += f"; did you mean '{self.nearest}'?"
        if self.hint:
            text += f"\n    {self.hint}"
        return printable(redact(text))


class UserError(Exception):
    """A mistake in what the user gave us. Carries every problem found, not only the first."""

    def __init__(
        self,
        what: str | Iterable[Problem],
        *,
        where: str = "",
        expected: str = "",
        nearest: str = "",
        hint: str = "",
    ) -> None:
        if isinstance(what, str):
            self.problems = [Problem(what, where, expected, nearest, hint)]
        else:
            self.problems = list(what)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RunFailed(Exception):
    """A run that was well asked for but could not go on (a NaN, no memory left). Exit code 1, nothing saved is lost."""

    def more(self, words: str) -> RunFailed:
        """The same with more said, and told to the user no more often."""
        other = RunFailed(f"{self}; {words}")
        other.__dict__ |= self.__dict__
        return other


class NotWritten(RunFailed):
    """The disk refused: it is full, read-only, or gone. What was written before is as it was."""


@contextmanager
def attribute_errors(what: str, by: object, then: str = "") -> Iterator[None]:
    """Somebody's code may raise anything: it becomes a RunFailed that says what raised it, and where.

    The place is the innermost one in the file that defines the class of `by`, or else the innermost of all. A lack of
    memory is nobody's mistake and stays what it is.
    """
    try:
        yield
    except (RunFailed, UserError, MemoryError):
        raise
    except Exception as error:
        if "memory" in str(error):
            raise
        places = traceback.extract_tb(error.__traceback__)[1:]
        module = sys.modules.get(type(by).__module__)
        own = [place for place in places if place.filename == getattr(module, "__file__", None)]
        at = (own or places)[-1]
        words = (str(error).splitlines() or [""])[0]
        raise RunFailed(f"{what} raised {type(error).__name__}: {words} ({at.filename}:{at.lineno}){then}") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """The known spelling within edit distance 1 (if either word has up to four letters) or 2, or "" if none is.

    difflib's ratio suggests 'ipo' for 'simpo', which sends people to another objective; an edit distance does not.
    """
    scored = sorted((_distance(word.lower(), other.lower()), other) for other in known)
    close = [other for distance, other in scored if distance <= (1 if min(len(word), len(other)) <= 4 else 2)]
    return close[0] if close else ""


def _distance(a: str, b: str) -> int:
    """Edit distance in which swapping two neighboring letters counts as one edit (`epohcs`)."""
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i] + [0] * len(b)
        for j, y in enumerate(b, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], older[j - 2] + 1)
    return row[-1]


def kind_of(value: Any) -> str:
    """JSON's name of a value's type, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return "a number" if type(value) in (int, float) else names.get(type(value), f"a {type(value).__name__}")
