"""Ctrl-C or SIGTERM once: a step, or a checkpoint's write, is finished first, and anything else is left at once. Twice
stops at once whatever it is.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop. Carries what to tell the user, and the signal's number."""

    def __init__(self, words: str, number: int = signal.SIGINT, at_once: bool = False) -> None:
        super().__init__(words)
        self.at_once = at_once
        """Whether something was left in the middle: what is in memory can't be saved."""
        self.code = 128 + number
        """The exit code: 130 after Ctrl-C, 143 after SIGTERM."""


class GracefulShutdown:
    """While the block runs a signal raises Stopped with the words of what was being done; within `finishing` the first
    one waits for the end of that, and the second one interrupts.
    """

    def __init__(self) -> None:
        self.doing = "stopped"
        """What to say when a signal comes now."""
        self.asked = 0
        """The number of the signal that came, 0 before one did."""
        self.agree: Callable[[int], int] | None = None
        """Of several processes: what any of them was asked. All of them then stop after the same thing."""
        self._came = 0.0
        self._finishing = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():  # signals can be handled nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def uninterruptible(self, agreed: bool = True) -> Iterator[None]:
        """What is finished before a stop. Raises Stopped at its end if a signal came meanwhile, to any process unless
        it was `agreed` before.
        """
        self._finishing += 1
        try:
            yield
        finally:
            self._finishing -= 1
        # A signal that comes while they agree is for the next time they do: the others have not heard of it.
        asked = self.agree(self.asked) if self.agree is not None and agreed else self.asked
        if asked:
            self.asked = asked
            raise Interrupted(self.doing, asked)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if _shield.up:
            _shield.late = (self, number)
            return
        again = self.asked and time.monotonic() - self._came < SAME
        if self.agree is not None and again:  # launchers pass on what the terminal has sent to all already
            return
        if self.asked and self._finishing:
            raise Interrupted("stopped at once; the same command goes on from the last checkpoint", number, True)
        self.asked, self._came = number, time.monotonic()
        if not self._finishing:
            raise Interrupted(self.doing, number)


SAME = 3.0
"""Seconds within which a second signal to one of several processes is the first one again."""


class _Shield:
    """Whether signals wait, and the one that came meanwhile."""

    up = 0
    late: tuple[GracefulShutdown, int] | None = None


_shield = _Shield()


@contextmanager
def shielded() -> Iterator[None]:
    """A signal within the block is answered at its end: what processes exchange is never left in the middle."""
    _shield.up += 1
    done = False
    try:
        yield
        done = True
    finally:
        _shield.up -= 1
        if _shield.late is not None and not _shield.up:
            (stopping, number), _shield.late = _shield.late, None
            if done:
                stopping._on_signal(number, None)
            else:  # what went wrong in the block comes first
                stopping.asked = number
