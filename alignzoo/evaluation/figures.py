"""Figures of every held-out row, whose means are the columns of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.core.console import Screen
from alignzoo.evaluation.evaluate import by_example, score_all
from alignzoo.evaluation.row_metrics import Rows, means_by_row, row_metrics
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import ScoredBatch
from alignzoo.scoring.scorer import Scorer

Numbers = NDArray[np.float64]
ORDERS = ("preference_accuracy", "likelihood_accuracy", "length_normalized_accuracy")
FIGURES = ("preference_accuracy", "margin", *ORDERS[1:], "chosen_log_ratio", "rejected_log_ratio")
"""Names of the figures. A reward model has the first two."""


def for_testing(groups: Sequence[str]) -> NDArray[np.bool_]:
    """Return True for the rows of the test split, shape (rows,): about half of the groups.

    Each group is assigned by its own hash, so the split is the same for every run, seed and subset. Two groups or more
    give both splits at least one. A single group is for testing.
    """
    digest_of = {group: blake2b(f"test {group}".encode(errors="surrogatepass")).digest() for group in groups}
    by_hash = sorted(digest_of, key=lambda group: digest_of[group])
    wanted = sum(digest_of[group][0] < 128 for group in by_hash)
    chosen = set(by_hash[: min(max(wanted, 1), max(len(by_hash) - 1, 1))])
    return np.array([group in chosen for group in groups], dtype=bool)


def row_figures(
    scorer: Scorer, builder: BatchBuilder, test: NDArray[np.bool_], budget: int, screen: Screen, at_start: bool = False
) -> dict[str, Numbers]:
    """Return name -> (rows,), with nan where a row has no such figure; `test` is 1 or 0.

    Means over rows are the results of `alignzoo.evaluation.evaluate.evaluate`.

    Args:
        scorer: The policy.
        builder: Trees of the rows, and the reference of log-ratios.
        test: Rows of the test split, shape (rows,).
        budget: Token slots of a forward pass.
        screen: Where progress is shown.
        at_start: True if the policy is the reference.
    """
    batch = score_all(scorer, builder, budget, screen, "held-out rows")
    return figures_of(builder, batch, test, screen, at_start)


def figures_of(
    builder: BatchBuilder, batch: ScoredBatch, test: NDArray[np.bool_], screen: Screen, at_start: bool = False
) -> dict[str, Numbers]:
    """Return the figures of `row_figures` from the scores of all rows, which become float64."""
    batch.values = {name: value.double() for name, value in batch.values.items()}
    if at_start:
        batch.values["log_prob"] = batch.values["ref_log_prob"]
    known = row_metrics(builder, batch, ORDERS, pooled=True, test=test)
    names = FIGURES if builder.objective.terms[0][1].head != "scalar" else FIGURES[:2]
    nothing = torch.full((len(test),), torch.nan, dtype=torch.float64)
    found = {"test": test.astype(np.float64)} | {name: known.get(name, nothing).numpy() for name in names}
    rows = Rows(builder, batch, test)
    if rows.labeled:
        found["desirable"], found["undesirable"] = rows.kinds()
    for metric in builder.metrics:  # a metric with the name of a built-in figure does not replace it
        values, owners = by_example(metric, builder, batch, screen)
        found.setdefault(metric.name, means_by_row(values, torch.from_numpy(owners), len(test)).numpy())
    return found
