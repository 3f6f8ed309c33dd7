"""Graceful shutdown after Ctrl-C, SIGTERM or SIGHUP (the terminal is closed).

The first signal interrupts at once, except in a step or a checkpoint's write, which finish first. A second signal
interrupts those too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def stop_signals() -> list[int]:
    """Return the signals that stop a run: SIGINT, SIGTERM, and SIGHUP unless ignored.

    SIGHUP is ignored from the start under nohup.
    """
    found: list[int] = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Windows has none
        found.append(signal.SIGHUP)
    return found


def exit_words(code: int) -> str:
    """Return how a process ended, as a predicate.

    Args:
        code: Its exit code, or the negative number of the signal that ended it.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = "; the system does this when memory runs out" if -code == getattr(signal, "SIGKILL", 9) else ""
    return f"was ended by {name}{hint}"


class Interrupted(KeyboardInterrupt):
    """A run stopped by a signal. Carries the message for the user and the exit code."""

    def __init__(self, words: str, number: int = signal.SIGINT, at_once: bool = False) -> None:
        super().__init__(words)
        self.at_once = at_once
        """True if a step was left in the middle, so that the state in memory can't be saved."""
        self.code = 128 + number
        """The exit code: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""


class GracefulShutdown:
    """A context in which a signal raises Interrupted.

    Inside `uninterruptible` the first signal waits for the end of that block.
    """

    def __init__(self, ends_process: bool = False) -> None:
        """Set `ends_process` in a command, which then ends LINGER seconds after a signal.

        The process ends whatever runs.
        """
        self.doing = "stopped"
        """The message of an Interrupted raised now."""
        self.asked = 0
        """The number of the signal received, 0 before one."""
        self.agree: Callable[[int], int] | None = None
        """With several processes, returns the signal that any of them received, so that all stop at the same point."""
        self.ends_process = ends_process
        self._reported = False
        self._ending = False
        self._came = 0.0
        self._finishing = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():  # signals can be handled nowhere else
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._on_signal)
            if self.ends_process:
                _shield.process = self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if _shield.process is self:
            _shield.process = None

    @contextmanager
    def uninterruptible(self, agreed: bool = True) -> Iterator[None]:
        """Finish the block before a stop.

        Args:
            agreed: Ask the other processes for their signals too, at the end of the block.

        Raises:
            Interrupted: A signal came meanwhile; raised at the end of the block.
        """
        self._finishing += 1
        try:
            yield
        finally:
            self._finishing -= 1
        # A signal that comes during the exchange counts at the next one: the other processes do not know of it yet.
        asked = self.agree(self.asked) if self.agree is not None and agreed else self.asked
        if asked:
            self.asked = asked
            raise Interrupted(self.doing, asked)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if _shield.up:
            _shield.late = (self, number)
            return
        again = self.asked and time.monotonic() - self._came < SAME
        if self.agree is not None and again:  # launchers forward a signal that the terminal has already sent to all
            return
        if _shield.process is not None:
            _shield.process._end_soon(self, number)
        if self.asked and self._finishing:
            raise Interrupted("stopped at once; the same command continues from the last checkpoint", number, True)
        self.asked, self._came = number, time.monotonic()
        if not self._finishing:
            raise Interrupted(self.doing, number)

    def _end_soon(self, inner: GracefulShutdown, number: int) -> None:
        """End the process after LINGER seconds without uninterruptible work.

        A judge's threads that wait for an answer would otherwise be waited for, here and when Python ends.
        """
        if self._ending:
            return
        self._ending = True

        def watch() -> None:
            waited = 0.0
            while waited < LINGER:
                time.sleep(TICK)
                busy = self._finishing or inner._finishing or _shield.up
                waited = 0.0 if busy else waited + TICK
            if not self._reported:
                print(f"\n{inner.doing}", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + number)

        threading.Thread(target=watch, daemon=True).start()


def stop_reported() -> None:
    """Record that the message of a stop is printed.

    The end of the process then does not print it again.
    """
    if _shield.process is not None:
        _shield.process._reported = True


LINGER, TICK = 6.0, 0.1
"""Seconds after a signal in which a process ends by itself, and between two looks."""
SAME = 3.0
"""Seconds within which a second signal to one of several processes is a repetition of the first."""


class _Shield:
    """Depth of the shielded blocks, and the signal received inside."""

    process: GracefulShutdown | None = None
    """The one that ends the process."""
    up = 0
    late: tuple[GracefulShutdown, int] | None = None


_shield = _Shield()


@contextmanager
def shielded() -> Iterator[None]:
    """Defer signals to the end of the block.

    No exchange between processes is then left in the middle.
    """
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
            else:  # the error of the block comes first
                stopping.asked = number
