"""Rollouts on disk: a sealed folder for each phase, written before it is trained on.

    rollouts/000012/drawn/    draws.safetensors: token ids, where each completion starts, and whether it finished
    rollouts/000012/judged/   rewards.safetensors: raw scores; replies.jsonl: prompts' ids, texts and scores, to read
    rollouts/000012/scored/   scores.safetensors: log-probs at the time of drawing, of the reference, and advantages

Later attempts at a rollout have drawn-1, judged-1, drawn-2 and so on.
A resumed run reads what is there and repeats the rest. A damaged folder is set aside, and its phase repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from alignzoo.core.arrays import mmap_safetensors
from alignzoo.core.artifacts import Manifest, atomic_folder, quarantine, read_verified, write_manifest
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.door import BadFile
from alignzoo.core.files import translate_os_errors

Arrays = Mapping[str, NDArray[Any]]
PHASES = {"drawn": "draws.safetensors", "judged": "rewards.safetensors", "scored": "scores.safetensors"}
"""Phase -> the file of its arrays, in the order in which they are written."""
TEXTS = "replies.jsonl"


def attempt_of(phase: str, attempt: int) -> str:
    """Return the name of a phase's folder in an attempt, from 0."""
    return f"{phase}-{attempt}" if attempt else phase


class PhaseManifest(Manifest):
    """The about.json of a phase."""

    rollout: int
    run: str
    """Fingerprint of the run."""


@dataclass(frozen=True)
class RolloutFolder:
    """The rollouts of a run."""

    root: Path
    run: str
    """Fingerprint of the run, which alone reads them again."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes, which read one folder. The main one writes."""

    def phase(
        self,
        rollout: int,
        phase: str,
        make: Callable[[], Arrays],
        fits: Callable[[Arrays], bool],
        texts: Callable[[Arrays], Sequence[Any]] | None = None,
        attempt: int = 0,
    ) -> Arrays:
        """Return the arrays of a phase, made and written if they are not there.

        Collective: every process calls it.

        Args:
            rollout: The number of the rollout.
            phase: One of `PHASES`.
            make: Makes the arrays, the same in every process.
            fits: Tells arrays of the right form. Others are set aside, as a damaged folder is.
            texts: From the arrays to JSON values that are written beside them, one a line.
            attempt: The number of the attempt at the rollout.

        Raises:
            NotWritten: The disk is full or the like.
        """
        folder = self.root / f"{rollout:06d}" / attempt_of(phase, attempt)
        if self.ranks.broadcast_from_main(lambda: self._is_intact(folder, rollout, phase, fits)):
            return mmap_safetensors(folder / PHASES[phase])
        if self.ranks.main and folder.exists():
            quarantine(folder)
        arrays = make()
        if self.ranks.main:
            self._write(folder, rollout, phase, arrays, texts(arrays) if texts else ())
        return arrays

    def _is_intact(self, folder: Path, rollout: int, phase: str, fits: Callable[[Arrays], bool]) -> bool:
        about = read_verified(folder, PhaseManifest)
        if about is None or about["run"] != self.run or about["rollout"] != rollout:
            return False
        try:
            return fits(mmap_safetensors(folder / PHASES[phase]))
        except BadFile:
            return False

    def _write(self, folder: Path, rollout: int, phase: str, arrays: Arrays, texts: Sequence[Any]) -> None:
        with atomic_folder(folder, needs=sum(array.nbytes for array in arrays.values())) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary / PHASES[phase])
            if texts:
                lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in texts)
                with translate_os_errors(temporary / TEXTS):
                    (temporary / TEXTS).write_text(lines, encoding="utf-8")
            write_manifest(temporary, {"rollout": rollout, "run": self.run})
