"""Errors with a location, an expectation and a fix.

Each mistake of a user is a `Problem`. `UserError` carries one or more of them; the command line prints them and exits
with 2, without a traceback. This module imports nothing outside the standard library, so that it is cheap and always
works.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from alignzoo.core.redaction import printable, redact

LONGEST, MOST_PROBLEMS = 2_000, 50
"""Limits of what is printed: characters of each part of a problem, and problems of one error."""
LONGEST_WORD, MOST_WORDS = 100, 1_000
"""Characters of a word whose nearest spelling is looked for, and words among which it is."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, printed as `where: what; expected ...; did you mean '...'?`."""

    what: str
    where: str = ""
    expected: str = ""
    nearest: str = ""
    hint: str = ""

    def __str__(self) -> str:
        what, where, expected, close, hint = map(
            _shown, (self.what, self.where, self.expected, self.nearest, self.hint)
        )
        text = f"{where}: {what}" if where else what
        if expected:
            text += f"; expected {expected}"
        if close:
            text += f"; did you mean '{close}'?"
        if hint:
            text += f"\n    {hint}"
        return printable(text)


def _shown(part: str) -> str:
    """A part without secrets, and without the middle of what nobody would read."""
    part = redact(part) if part else part
    return part if len(part) <= LONGEST else f"{part[: LONGEST // 2]} ... {part[-LONGEST // 2 :]}"


class UserError(Exception):
    """A mistake in a recipe, a command or data, with every problem found. Exit code 2."""

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
            if (left := len(self.problems) - MOST_PROBLEMS) > 1:
                self.problems[MOST_PROBLEMS:] = [Problem(f"and {left:,} more problems like these")]
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RunFailed(Exception):
    """A valid run that could not continue, for example after a NaN. Exit code 1.

    Nothing that was saved is lost.
    """

    def more(self, words: str) -> RunFailed:
        """Return the error with a clause appended, and the same propagation through the job."""
        other = RunFailed(f"{self}; {words}")
        vars(other)[_PROPAGATION] = replace(propagation(self))
        return other


class NotWritten(RunFailed):
    """A write that the operating system rejected: the disk is full, read-only or gone.

    Older files are unchanged.
    """


_PROPAGATION = "_propagation"


@dataclass(slots=True)
class Propagation:
    """The path of an error through the processes of a job."""

    agreed: bool = False
    """All processes raise the same error."""
    alone: bool = False
    """Raised inside a collective operation, where the processes can't agree on an error."""
    lost: bool = False
    """Caused by the end of another process."""
    reported_elsewhere: bool | None = None
    """True if another process prints the error; None until that is decided."""


def propagation(error: BaseException) -> Propagation:
    """Return the propagation of any error, attached to it at the first call."""
    found: Propagation = vars(error).setdefault(_PROPAGATION, Propagation())
    return found


def first_line(error: object) -> str:
    """Return the first nonblank line of an error's message, without secrets, or ""."""
    return redact(next(iter(str(error).strip()[:LONGEST].splitlines()), ""))


@contextmanager
def attribute_errors(what: str, by: object, then: str = "") -> Iterator[None]:
    """Turn any exception of a plugin's code into a RunFailed with its location.

    The location is the innermost frame in the file that defines the class of `by`, or else the innermost frame of all.
    RunFailed, UserError and errors about memory pass unchanged.

    Args:
        what: The call that is made, such as "step 3: the loss of dpo".
        by: The plugin.
        then: Appended to the message.

    Raises:
        RunFailed: The block raised another exception.
    """
    try:
        yield
    except (RunFailed, UserError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if "memory" in str(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)[1:]
        module = sys.modules.get(type(by).__module__)
        own = [frame for frame in frames if frame.filename == getattr(module, "__file__", None)]
        at = (own or frames)[-1]
        raised = f"{type(error).__name__}: {first_line(error)}"
        raise RunFailed(f"{what} raised {raised} ({at.filename}:{at.lineno}){then}") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the nearest known word within edit distance 2, or "" without one.

    The limit is 1 if either word has up to four letters. The ratio of difflib would suggest 'ipo' for 'simpo', another
    objective.
    """
    if len(word) > LONGEST_WORD:
        return ""
    alike = (
        other for other in islice(known, MOST_WORDS) if abs(len(word) - len(other)) <= 2
    )  # as far as they can be from each other
    scored = sorted((_distance(word.lower(), other.lower()), other) for other in alike)
    close = [other for distance, other in scored if distance <= (1 if min(len(word), len(other)) <= 4 else 2)]
    return close[0] if close else ""


def _distance(a: str, b: str) -> int:
    """The edit distance, with a swap of two adjacent letters as one edit (`epohcs`)."""
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i] + [0] * len(b)
        for j, y in enumerate(b, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], older[j - 2] + 1)
    return row[-1]


def kind_of(value: Any) -> str:
    """Return the JSON name of a value's type, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return "a number" if type(value) in (int, float) else names.get(type(value), f"a {type(value).__name__}")
