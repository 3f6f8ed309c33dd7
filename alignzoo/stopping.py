"""Ctrl-C once (or SIGTERM) ends after the step at hand with a checkpoint; twice stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Stopped(KeyboardInterrupt):
    """The run was asked to stop and its state is saved. Carries what to tell the user."""


class Stopping:
    """While the block runs, the first signal sets `asked`; the second one interrupts."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():  # signals can be handled nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def interrupt(self, words: str) -> Stopped:
        """The exception that ends the run, to be raised when the checkpoint is written."""
        return Stopped(words)
