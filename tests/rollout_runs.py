"""What tests of online runs share: records and arrays of a run folder, plain steps, and a process that is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from alignzoo.rollouts.draw import Draws

SMALL = [
    "train.batch_size=4", "train.max_steps=1", "eval.replies.num_prompts=1", "rollout.completions=4",
    "rollout.max_new_tokens=8", "rollout.rewards=[vowels]", "rollout.held_out_prompts=4", "rollout.kl_rows=4",
]  # fmt: skip
PLAIN_STEP = [
    "train.optimizer={name: sgd, learning_rate: 1.0}",
    "train.schedule={name: constant}",
    "train.max_grad_norm=null",
]


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


def drawn(folder: Path, rollout: int = 0) -> Draws:
    return Draws.from_arrays(load_file(folder / "rollouts" / f"{rollout:06d}" / "drawn" / "draws.safetensors"))


def phases(run: Path, rollout: int = 0) -> dict[str, np.ndarray]:
    """Return every array of a rollout."""
    files = (run / "rollouts" / f"{rollout:06d}").glob("*/*.safetensors")
    return {name: array for file in files for name, array in load_file(file).items()}


def killed(module: Any, name: str, at: int, work: Callable[[], object]) -> bool:
    """Do the work in a fork that ends without a word in the `at`-th call of a function. Returns True if it came to that."""
    child = os.fork()
    if child == 0:
        calls, function = [], getattr(module, name)

        def last(*arguments, **options):
            calls.append(1)
            if len(calls) == at:
                os._exit(9)
            return function(*arguments, **options)

        setattr(module, name, last)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
