"""Inject faults into real runs, and record what the user sees, what stays intact, and whether the run resumes.

Every function takes a `Bench` and returns an `Outcome`. table.py prints them; tests/faults checks each.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crash import damaged
from stage import Finished, Workplace, warm

RECIPE = ["recipes/dpo_hh.yaml", "--with", "recipes/scale/smallest.yaml"]
SMALL = [
    "data.max_train_rows=32", "data.held_out_rows=8", "train.batch_size=8", "train.max_steps=6", "train.checkpoint_every=2",
    "eval.every=3", "eval.replies.num_prompts=1", "eval.replies.max_new_tokens=4", "reporters=[]",
]  # fmt: skip
FAULTS: dict[str, Callable[[Bench], Outcome]] = {}
"""What the table calls it -> the function."""


class Impossible(Exception):
    """This machine does not let the fault be made (mounting needs root)."""


@dataclass
class Outcome:
    """What came of a fault."""

    told: str
    """What the user sees, as it was printed."""
    checks: dict[str, bool] = field(default_factory=dict)
    """What survived, in words, and whether it was so."""


@dataclass
class Bench:
    """Where faults are made: a finished pair of runs to compare with."""

    root: Path
    whole: Workplace
    want: dict[str, bytes]

    @classmethod
    def make(cls, root: Path) -> Bench:
        """Do the runs that nothing happens to."""
        whole = Workplace(root / "whole", [*RECIPE, *SMALL])
        finished = warm(whole)
        assert finished.code == 0, finished.err
        return cls(root, whole, whole.artifacts())

    def place(self, *overrides: str) -> Workplace:
        """A new workplace in which the SFT run is done, and of the DPO run nothing."""
        place = Workplace(self.root / f"place {len(list(self.root.iterdir()))}", [*RECIPE, *SMALL, *overrides])
        place.runs.mkdir(parents=True)
        start = self.whole.run_folder("sft_hh")
        shutil.copytree(start, place.runs / start.name)
        return place

    def goes_on(self, place: Workplace) -> dict[str, bool]:
        """The same command again, and every byte as in the run that nothing happened to."""
        finished = place.run()
        same = finished.code == 0 and place.artifacts() == self.want
        return {"the same command then ends with the bytes of a run that nothing happened to": same}

    def failed(self, place: Workplace, finished: Finished, step: int, code: int = 1) -> Outcome:
        """A command that ended with a sentence, and the checkpoint that is kept."""
        from alignzoo.training import checkpoint

        good, bad = checkpoint.latest(place.run_folder().joinpath("checkpoints"))
        checks = {
            f"exit code {code}, no traceback": finished.code == code and "Traceback" not in finished.err,
            f"the checkpoint of step {step} is intact": bool(good) and good.step == step and not bad,
            "no damaged artifact": not damaged(place),
        }
        return Outcome(finished.message, (checks if step else without(checks, "checkpoint")) | self.goes_on(place))


def without(checks: dict[str, bool], word: str) -> dict[str, bool]:
    return {key: value for key, value in checks.items() if word not in key}


def fault(name: str) -> Callable[[Callable[[Bench], Outcome]], Callable[[Bench], Outcome]]:
    def register(function: Callable[[Bench], Outcome]) -> Callable[[Bench], Outcome]:
        FAULTS[name] = function
        return function

    return register


def line(finished: Finished, words: str) -> str:
    """The line of the screen that says so."""
    return next((line.strip() for line in finished.err.splitlines() if words in line), f"(nothing of '{words}')")


def at_call(owner: object, name: str, number: int, do: Callable[[], object], after: bool = False) -> None:
    """In a child: `do` before (or after) the so-many-th call of a function."""
    function, calls = getattr(owner, name), []

    def wrapped(*arguments, **options):
        calls.append(1)
        if len(calls) == number and not after:
            do()
        result = function(*arguments, **options)
        if len(calls) == number and after:
            do()
        return result

    setattr(owner, name, wrapped)


def stop_in_step(number: int, with_signal: int) -> Callable[[], None]:
    """A signal when a step begins."""

    def inject() -> None:
        from alignzoo.training.step import Engine

        at_call(Engine, "step", number, lambda: os.kill(os.getpid(), with_signal))

    return inject


def flipped(raw: bytes) -> bytes:
    """One bit, in the middle of the numbers."""
    at = len(raw) - 101
    return raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]
