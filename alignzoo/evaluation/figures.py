"""Every held-out row's figures: what the columns of a comparison are means of."""

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
from alignzoo.scoring.scorer import Scorer

Numbers = NDArray[np.float64]
ORDERS = ("preference_accuracy", "likelihood_accuracy", "length_normalized_accuracy")
FIGURES = ("preference_accuracy", "margin", *ORDERS[1:], "chosen_log_ratio", "rejected_log_ratio")
"""The first two are a reward model's too."""


def for_testing(groups: Sequence[str]) -> NDArray[np.bool_]:
    """Which held-out rows are for testing, shape (rows,): about half of the groups, each by its own hash.

    So it is the same for every run, every seed and every subset. Two groups at least have one on either side; a single
    one is for testing, and nothing can be chosen by it.
    """
    place = {group: blake2b(f"test {group}".encode(errors="surrogatepass")).digest() for group in groups}
    by_place = sorted(place, key=lambda group: place[group])
    wanted = sum(place[group][0] < 128 for group in by_place)
    chosen = set(by_place[: min(max(wanted, 1), max(len(by_place) - 1, 1))])
    return np.array([group in chosen for group in groups], dtype=bool)


def row_figures(
    scorer: Scorer, supply: BatchBuilder, test: NDArray[np.bool_], budget: int, screen: Screen, at_start: bool = False
) -> dict[str, Numbers]:
    """Name -> (rows,), not-a-number where a row has no such figure; `test` is 1 or 0.

    Log-ratios are to `supply.reference`; `at_start` says that the policy is that reference. Means over rows are
    what `alignzoo.evaluation.evaluate.evaluate` reports.
    """
    flat = score_all(scorer, supply, budget, screen, "held-out rows")
    flat.values = {name: value.double() for name, value in flat.values.items()}
    if at_start:
        flat.values["log_prob"] = flat.values["ref_log_prob"]
    known = row_metrics(supply, flat, ORDERS, pooled=True, test=test)
    names = FIGURES if supply.objective.terms[0][1].head == "language_model" else FIGURES[:2]
    nothing = torch.full((len(test),), torch.nan, dtype=torch.float64)
    found = {"test": test.astype(np.float64)} | {name: known.get(name, nothing).numpy() for name in names}
    rows = Rows(supply, flat, test)
    if rows.labeled:
        found["desirable"], found["undesirable"] = rows.kinds()
    for metric in supply.metrics:  # one that is called as a figure of ours is not shown in its place
        with torch.no_grad():
            values, owners = by_example(metric, supply, flat)
        found.setdefault(metric.name, means_by_row(values, torch.from_numpy(owners), len(test)).numpy())
    return found
