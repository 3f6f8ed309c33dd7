"""Choice of the best checkpoint, and early stopping, by a figure of the evaluations.

The figure is that of the validation half of the evaluated rows. The other half chooses nothing, so that a comparison
can test on it. Both choices follow from the lines of metrics.jsonl, so a resumed run makes the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.errors import RunFailed, UserError, nearest
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.evaluation.evaluate import VALIDATION
from alignzoo.evaluation.figures import for_testing
from alignzoo.recipe.schema import TrainConfig

LOWER = ("loss", "kl", "perplexity")
"""Last words of the figures that are better when they are lower."""
ValidationRows = dict[str, NDArray[np.bool_]]
"""Name of a part of the evaluated rows, "" for the held-out ones -> True for its validation rows."""


def validation_key(metric: str) -> str:
    """Return the name of the validation half's figure, such as `SET/validation_loss`."""
    part, slash, figure = metric.rpartition("/")
    return f"{part}{slash}{VALIDATION}{figure}"


def validation_rows(config: TrainConfig, data: TokenizedDataset) -> ValidationRows:
    """Return the validation half of each part that `config` names a figure of.

    Raises:
        UserError: There is no such part, or it has one prompt only.
    """
    found: ValidationRows = {}
    for key, metric in _watched(config).items():
        part = metric.rpartition("/")[0]
        rows = data.evaluated.get(part)
        half = ~for_testing([row.group for row in rows.rows]) if rows else np.zeros(0, dtype=bool)
        if not half.any():
            sets = [name for name in data.evaluated if name]
            problem = "has one prompt only, and a half of them is needed to choose by" if rows else "has no rows"
            raise UserError(
                f"{metric}: {f'the evaluation set {part}' if part else 'the held-out part of the data'} {problem}",
                where=key, nearest=f"{sets[0]}/{metric}" if sets and not part else "",
                expected="" if sets and not part else "data.held_out_fraction above 0, or an evaluation set's figure",
            )  # fmt: skip
        found[part] = half
    return found


def _watched(config: TrainConfig) -> dict[str, str]:
    """Return the recipe's key -> the figure that it names."""
    named = {"train.keep_best": config.keep_best, "train.early_stopping.metric": config.stopping_metric}
    return {key: metric for key, metric in named.items() if metric is not None}


class _Course:
    """The best value of a figure so far, and the evaluations since."""

    def __init__(self, config: TrainConfig, metric: str, min_delta: float = 0.0) -> None:
        lower = metric.rpartition("/")[2].rpartition("_")[2] in LOWER
        self.sign = (1 if config.greater_is_better else -1) if config.greater_is_better is not None else 1 - 2 * lower
        self.metric, self.min_delta, self.since = metric, min_delta, 0
        self.best: dict[str, Any] | None = None

    def add(self, line: Mapping[str, Any]) -> bool:
        """Add an evaluation, and return True if it is better than all before."""
        value = line.get(validation_key(self.metric))  # None: it was not a finite number
        before = None if self.best is None else self.best[validation_key(self.metric)]
        if value is None or (before is not None and not self.sign * (value - before) > self.min_delta):
            self.since += 1
            return False
        self.best, self.since = dict(line), 0
        return True


class Selection:
    """What the evaluations after the start choose: the best step, and whether to stop.

    As in transformers, the first of two equal values counts, and the start is no candidate.
    """

    def __init__(self, config: TrainConfig) -> None:
        stopping, watched = config.early_stopping, config.stopping_metric
        self.metrics = sorted(set(_watched(config).values()))
        self._best = _Course(config, config.best_metric) if config.best_metric else None
        self._stop = _Course(config, watched, stopping.min_delta) if stopping and watched else None
        self._patience = stopping.patience if stopping else 0
        self.evaluations = 0
        """Evaluations after the start."""

    def of_part(self, part: str) -> list[str]:
        """Return the names of the figures of one part of the evaluated rows."""
        return [figure for found, _, figure in (metric.rpartition("/") for metric in self.metrics) if found == part]

    def add(self, line: Mapping[str, Any]) -> bool:
        """Add an evaluation of metrics.jsonl, and return True if its checkpoint is the best one.

        Raises:
            RunFailed: It is the first, and lacks a figure.
        """
        if line["step"] == 0:
            self._check(line)
            return False
        self.evaluations += 1
        if self._stop:
            self._stop.add(line)
        return self._best is not None and self._best.add(line)

    def add_all(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add the evaluations among the lines of metrics.jsonl."""
        for line in lines:
            if line["kind"] == "eval":
                self.add(line)

    def _check(self, line: Mapping[str, Any]) -> None:
        known = [key for key, value in line.items() if key not in ("kind", "step") and isinstance(value, float)]
        known = [key for key in known if VALIDATION not in key]
        for metric in self.metrics:
            if validation_key(metric) not in line:
                close = nearest(metric, known)
                more = f"; did you mean {close}?" if close else f"; it has {', '.join(known)}"
                raise RunFailed(f"train: the evaluations have no figure '{metric}' to choose by{more}")

    @property
    def stopped(self) -> bool:
        """True if the last `patience` evaluations brought no improvement."""
        return self._stop is not None and self._stop.since >= self._patience

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation of the checkpoint to export; None for the last one."""
        return self._best.best if self._best else None

    @property
    def best_step(self) -> int | None:
        """The step of `best`."""
        return None if self.best is None else int(self.best["step"])

    def about(self) -> dict[str, Any]:
        """Return section `selection` of summary.json; {} where nothing is chosen."""
        if self._best is None:
            return {}
        value = self.best[validation_key(self._best.metric)] if self.best else None
        found = {"metric": self._best.metric, "step": self.best_step, "value": value, "evaluations": self.evaluations}
        return found | ({"patience": self._patience, "stopped_early": self.stopped} if self._stop else {})

    def words(self) -> str:
        """Return a sentence on the checkpoint that is exported."""
        about = self.about()
        return (
            f"best checkpoint: step {about['step']:,}, with {about['metric']} {about['value']:.4g} on the validation "
            f"rows (of {about['evaluations']:,} evaluations)"
        )
