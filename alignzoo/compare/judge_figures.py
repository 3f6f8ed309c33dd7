"""Figures of judges on labeled pairs, with 95% intervals clustered by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.compare.agreement import kappa_values
from alignzoo.compare.columns import Column
from alignzoo.compare.eval_best_of_n import as_rated, by_subset, subset_of
from alignzoo.compare.eval_run import as_figure, figure_of
from alignzoo.compare.judge_pairs import Pairs
from alignzoo.compare.judge_verdicts import Verdicts
from alignzoo.compare.scales import SHARE, paired
from alignzoo.evaluation.best_of_n import TIES

Figures = dict[str, dict[str, Any]]
Numbers = NDArray[np.float64]
LABELS = "labels"
"""The labels of the data, as a party of an agreement."""
SHARES = {
    "accuracy": "share of pairs whose chosen reply the judge prefers; ties count ½",
    "ties": "share of pairs on which the judge ties",
    "inconsistent": "share of pairs whose verdict changes with the order of the replies",
    "accuracy_longer": "accuracy where the chosen reply has more characters",
    "accuracy_shorter": "accuracy where the chosen reply has fewer characters",
    "prefers_longer": "share of pairs of unequal length whose longer reply the judge prefers; ties count ½",
}
TITLES = SHARES | {
    "first_place": "share of verdicts for the reply that is shown first, less ½",
    "longer_than_labels": "share for the longer reply, less that of the labels on the same pairs",
}


def figures_of(verdicts: Verdicts, pairs: Pairs) -> Figures:
    """Return the figures of a judge, without those that don't apply."""
    values, longer, groups = verdicts.values, pairs.longer(), pairs.groups
    known = ~np.isnan(values)

    def where(mask: NDArray[np.bool_], of: Numbers = values) -> Numbers:
        return np.where(mask & known, of, np.nan)

    for_longer = where(longer != 0, np.where(longer > 0, values, 1 - values))
    found = {
        "accuracy": values,
        "ties": where(known, (values == 0.5).astype(np.float64)),
        "accuracy_longer": where(longer > 0),
        "accuracy_shorter": where(longer < 0),
        "prefers_longer": for_longer,
    }
    if verdicts.second is not None:
        first, second = verdicts.first, verdicts.second
        found["inconsistent"] = where(known, (np.sign(first - 0.5) != np.sign(second - 0.5)).astype(np.float64))
        found["first_place"] = where(known, (first + 1 - second) / 2 - 0.5)
    figures: Figures = {}
    for name in TITLES:
        column = Column(name, TITLES[name], "", scale=SHARE if name in SHARES else "")
        if name in found and (figure := figure_of(column, found[name], groups)) is not None:
            figures[name] = figure
    unequal = ~np.isnan(for_longer)
    if unequal.any():
        own, labels = for_longer[None, unequal], (longer[unequal] > 0).astype(np.float64)[None]
        by = paired(own, labels, SHARE, groups[unequal])
        figures["longer_than_labels"] = as_figure(TITLES["longer_than_labels"], by)
    return figures


def labels_figures(pairs: Pairs) -> Figures:
    """Return the share of pairs of unequal length whose chosen reply is the longer one."""
    longer = pairs.longer()
    values = np.where(longer == 0, np.nan, (longer > 0).astype(np.float64))
    figure = figure_of(Column("prefers_longer", TITLES["prefers_longer"], "", scale=SHARE), values, pairs.groups)
    return {} if figure is None else {"prefers_longer": figure}


def agreement(judges: Mapping[str, Verdicts], pairs: Pairs) -> list[dict[str, Any]]:
    """Return the agreement of each judge with the labels, and of each two judges.

    It is over pairs on which both have a verdict: the share of equal verdicts, where a tie equals a tie alone, and
    Cohen's kappa. A kappa without variance has no interval.
    """
    signs = {LABELS: np.ones(len(pairs))} | {name: one.signs for name, one in judges.items()}
    groups, names, found = pairs.groups, list(signs), []
    for n, one in enumerate(names):
        for other in names[n + 1 :]:
            both = ~np.isnan(signs[one]) & ~np.isnan(signs[other])
            if not both.any():
                continue
            first, second = signs[one][both], signs[other][both]
            equal = figure_of(
                Column("equal", "share of equal verdicts", "", scale=SHARE),
                (first == second).astype(np.float64), groups[both],
            )  # fmt: skip
            kappa = figure_of(Column("kappa", "Cohen's kappa", ""), kappa_values(first, second), groups[both])
            if kappa is not None:
                bounds = {key: None if not kappa["se"] else kappa[key] for key in ("low", "high")}
                kappa |= {key: value if value is None else max(-1.0, min(1.0, value)) for key, value in bounds.items()}
            found.append({"judges": [one, other], "equal": equal, "kappa": kappa})
    return found


def best_of_n(verdicts: Verdicts, pairs: Pairs) -> Figures:
    """Return the best-of-N accuracy of each subset, and their mean; {} for plain pairs.

    By scores it is that of `alignzoo eval --best-of-n`. A judge that compares is right about a row where it prefers the
    chosen completion to every other one; k ties among them give 1 / (1 + k). It has no figure of rows with several
    chosen completions, as of the subset Ties.
    """
    if not pairs.lists and not any("subset" in row.extra for row in pairs.rows):
        return {}
    if verdicts.scores:
        known = [n for n, scores in enumerate(verdicts.scores) if not np.isnan(scores).all()]
        scores = [verdicts.scores[n] for n in known]
    else:
        by_comparison = {n: own for n in range(len(pairs.rows)) if (own := _compared(verdicts, pairs, n)) is not None}
        known, scores = list(by_comparison), list(by_comparison.values())
    rows = [pairs.rows[n] for n in known]
    return by_subset(rows, [as_rated(row, own) for row, own in zip(rows, scores, strict=True)]) if rows else {}


def _compared(verdicts: Verdicts, pairs: Pairs, row: int) -> Numbers | None:
    """Return numbers that order a row's chosen completion and the others, or None.

    The chosen completion has 0; another one has -1, 0 for a tie, or 1 where it is preferred.
    """
    own = np.flatnonzero(pairs.row == row)
    places, signs = set(pairs.chosen[own].tolist()), verdicts.signs[own]
    if places != {0} or np.isnan(signs).any() or subset_of(pairs.rows[row]).lower() == TIES:
        return None
    found = np.full(len(pairs.rows[row].completions), np.nan)
    found[0] = 0.0
    found[pairs.rejected[own]] = -signs
    return found
