"""Every held-out row's figures: what the columns of a comparison are means of."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.arrays import ranges
from alignzoo.evaluate import by_example, score_all
from alignzoo.examples import Flat, Supply
from alignzoo.progress import Screen
from alignzoo.scoring import Scorer

Numbers = NDArray[np.float64]


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
    scorer: Scorer, supply: Supply, test: NDArray[np.bool_], budget: int, screen: Screen, at_start: bool = False
) -> dict[str, Numbers]:
    """Name -> (rows,), not-a-number where a row has no such figure; `test` is 1 or 0.

    Log-ratios are to `supply.reference`; `at_start` says that the policy is that reference. Means over rows are
    what `alignzoo.evaluate.evaluate` reports.
    """
    flat = score_all(scorer, supply, budget, screen, "held-out rows")
    flat.values = {name: value.double() for name, value in flat.values.items()}
    if supply.reference is not None:
        places = [(row, b) for row, count in zip(flat.rows, flat.counts, strict=True) for b in range(count)]
        sums = [supply.reference.tokens(row, b).sum(dtype=np.float64) for row, b in places]
        flat.sums["ref_log_prob"] = torch.tensor(sums, dtype=torch.float64)
    if at_start:
        flat.sums["log_prob"] = flat.sums["ref_log_prob"]
    rows = _Rows(supply, flat, test)
    objective = supply.objective.terms[0][1]
    with torch.no_grad():
        reward = objective.reward(supply.scored(flat, objective, rows.index)).double().numpy()
    found = {
        "test": test.astype(np.float64), "preference_accuracy": rows.ordered(reward), "margin": rows.margin(reward)
    }  # fmt: skip
    if not rows.compared:
        found["desirable"], found["undesirable"] = rows.kinds()
    if objective.head == "language_model":
        log_prob, reference = (flat.sum(name).numpy()[rows.index] for name in ("log_prob", "ref_log_prob"))
        found["likelihood_accuracy"] = rows.likelier(log_prob)
        found["length_normalised_accuracy"] = rows.likelier(log_prob / flat.lengths[rows.index])
        found["chosen_log_ratio"] = rows.of_best(log_prob - reference)
        found["rejected_log_ratio"] = rows.of_worst(log_prob - reference)
    for metric in supply.metrics:  # one that is called as a figure of ours is not shown in its place
        with torch.no_grad():
            values, owners = by_example(metric, supply, flat)
        found.setdefault(metric.name, _means(values.numpy(), owners, len(test)))
    return found


class _Rows:
    """The rows' own completions, S in all, one after the other, and how they are compared.

    Where every row has several, each row compares its own. Else there are desirable completions and others: a row's
    accuracy is then the share of the completions of the other kind on its side of the split that stand on the right
    side of its own (DeLong et al. 1988, "placements"), whose mean is the area under the curve; a row with several has
    the mean over its own.
    """

    def __init__(self, supply: Supply, flat: Flat, test: NDArray[np.bool_]) -> None:
        self.count = supply.real(flat)
        self.index = ranges(flat.first[:-1], self.count)
        """Places of the completions among the flat's sequences, which may have mismatched ones between them."""
        self.best = np.cumsum(self.count) - self.count
        self.worst = self.best + self.count - 1
        self.compared = supply.compared and bool((self.count > 1).all())
        self.owner = np.repeat(np.arange(len(self.count)), self.count)
        self.test = test[self.owner]
        self.good = np.ones(len(self.owner), dtype=bool)
        if not self.compared:
            self.good = supply.column(flat, "desirable")[self.index] > 0.5

    def ordered(self, score: Numbers) -> Numbers:
        """The share of each row's couples of completions that the score orders as the data does, ties one half."""
        if not self.compared:
            return self._placements(score)
        found = np.zeros(len(self.count))
        for k in np.unique(self.count):
            rows = np.flatnonzero(self.count == k)
            own = score[self.best[rows][:, None] + np.arange(k)]
            found[rows] = np.mean([_correct(own[:, i], own[:, j]) for i, j in combinations(range(int(k)), 2)], axis=0)
        return found

    def likelier(self, score: Numbers) -> Numbers:
        """1 where the best completion has the higher score, 0 where the worst has, one half for a tie."""
        return _correct(score[self.best], score[self.worst]) if self.compared else self._placements(score)

    def kinds(self) -> tuple[Numbers, Numbers]:
        """How many desirable completions and how many others each row has, shape (rows,) each."""
        good, bad = (np.bincount(self.owner[kind], minlength=len(self.count)) for kind in (self.good, ~self.good))
        return good.astype(np.float64), bad.astype(np.float64)

    def margin(self, score: Numbers) -> Numbers:
        """The best less the worst; of single completions the distance to the mean of the other kind, on its side."""
        if self.compared:
            return score[self.best] - score[self.worst]
        found = np.full(len(score), np.nan)
        for own, other in self._kinds():
            if own.any() and other.any():
                found[own] = (score[own] - score[other].mean()) * np.where(self.good[own], 1, -1)
        return _means(found, self.owner, len(self.count))

    def of_best(self, values: Numbers) -> Numbers:
        """Of the best completion; not-a-number where it is not a desirable one."""
        return np.where(self.good[self.best], values[self.best], np.nan)

    def of_worst(self, values: Numbers) -> Numbers:
        """Of the worst completion; not-a-number where it is a desirable one."""
        return np.where(self.compared | ~self.good[self.worst], values[self.worst], np.nan)

    def _placements(self, score: Numbers) -> Numbers:
        found = np.full(len(score), np.nan)
        for own, other in self._kinds():
            if own.any() and other.any():
                others = np.sort(score[other])
                below = (np.searchsorted(others, score[own], "left") + np.searchsorted(others, score[own], "right")) / 2
                found[own] = np.where(self.good[own], below, len(others) - below) / len(others)
        return _means(found, self.owner, len(self.count))

    def _kinds(self) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """Completions of one kind and of the other one, on either side of the split."""
        return [
            ((self.good == own) & (self.test == side), (self.good != own) & (self.test == side))
            for side in (False, True) for own in (False, True)
        ]  # fmt: skip


def _correct(better: Numbers, worse: Numbers) -> Numbers:
    return 0.5 * ((better > worse).astype(np.float64) + (better >= worse))


def _means(values: Numbers, owners: NDArray[np.int64], rows: int) -> Numbers:
    """(rows,) the mean of each row's values that are numbers."""
    known = np.isfinite(values)
    counts = np.bincount(owners[known], minlength=rows)
    sums = np.bincount(owners[known], weights=values[known], minlength=rows)
    return np.divide(sums, counts, out=np.full(rows, np.nan), where=counts > 0)
