"""Rows in the shape that an objective takes: pairs, single completions with a label, or ranked lists.

    a pair is      a list of two; two single completions, the chosen one desirable
    a list is      pairs, by the source's rule (`pairs`); or single completions, of which the best is desirable, with
                   whatever ties with it, and no other
    a single one   is neither a pair nor a list, which is an error, and chosen only if it is desirable

A sum of objectives gets one shape: a list stays one for a ranked part, beside which a pairwise part gets the best and
the worst; else a pairwise part makes pairs of it for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from itertools import combinations
from typing import Literal

import numpy as np

from alignzoo.core.arrays import concat_ranges
from alignzoo.core.errors import UserError, nearest
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import Row, Skipped

Rule = Literal["extremes", "adjacent", "all"]


def convert_rows(rows: Sequence[Row], objective: Objective, rule: Rule) -> tuple[list[Row], list[Skipped]]:
    """The rows as the objective takes them, and those that can't be used.

    Raises UserError for rows of a kind that it can't take, or that lack a column which it declares.
    """
    terms = [term for _, term in objective.terms]
    wanted = {term.data for term in terms}
    kept: list[Row] = []
    skipped: list[Skipped] = []
    for row in rows:
        for term in terms:
            _check(row, term)
        if len(row.completions) > 2 and "pair" in wanted:
            pairs = [row] if _stays(row, wanted, rule) else list(_pairs(row, rule))
            kept += pairs
            if not pairs:
                skipped.append(Skipped(row.id, "no pair of different scores"))
        elif len(row.completions) == 1 and wanted == {"chosen"} and not row.completions[0].columns["desirable"]:
            skipped.append(Skipped(row.id, "undesirable completion"))
        else:
            kept.append(row)
    return kept, skipped


def _stays(row: Row, wanted: Set[str], rule: Rule) -> bool:
    if "ranked" in wanted and rule != "extremes":
        raise UserError(
            f"row {row.id} stays a list for the ranked part of the sum, and gives the pairwise one no {rule}",
            where="data.pairs", expected="extremes",
        )  # fmt: skip
    return "ranked" in wanted


def _check(row: Row, one: Objective | Metric) -> None:
    if len(row.completions) == 1 and one.data in ("pair", "ranked"):
        raise UserError(
            f"{one.name} compares completions, and row {row.id} has a single one with a label", where="data",
            expected="rows with chosen and rejected, or an objective for unpaired data (alignzoo list objectives)",
        )  # fmt: skip
    for n, completion in enumerate(row.completions, 1):
        known = {**row.columns, **completion.columns}
        missing = next((name for name in one.columns if name not in known), None)
        if missing is not None:
            of = f" for completion {n} of {len(row.completions)}" if n > 1 else ""
            raise UserError(
                f"{one.name} needs the column '{missing}', which row {row.id} has not{of}", where="data",
                expected=f"a number '{missing}' in every row (or chosen_{missing} and rejected_{missing}, or scores)",
                nearest=nearest(missing, known), hint=f"columns found: {', '.join(known) or 'none'}",
            )  # fmt: skip


def _pairs(row: Row, rule: Rule) -> Iterator[Row]:
    """Pairs of a ranked list by the rule; completions of one score are no pair."""
    last = len(row.completions) - 1
    couples = {
        "extremes": [(0, last)],
        "adjacent": [(i, i + 1) for i in range(last)],
        "all": list(combinations(range(last + 1), 2)),
    }[rule]
    for i, j in couples:
        better, worse = row.completions[i], row.completions[j]
        if "score" not in better.columns or better.columns["score"] > worse.columns.get("score", -np.inf):
            yield replace(row, id=row.id if rule == "extremes" else f"{row.id}/{i}-{j}", completions=(better, worse))


def check_measurable(rows: Sequence[Row], metrics: Sequence[Metric]) -> None:
    """Raises UserError for rows of a kind that a metric can't take, or that lack a column which it declares."""
    for metric in metrics:
        for row in rows:
            _check(row, metric)


def labeled(objective: Objective, metrics: Sequence[Metric] = ()) -> bool:
    """Whether somebody wants labels, even of rows that are pairs or lists."""
    asking: list[Objective | Metric] = [*(term for _, term in objective.terms), *metrics]
    return any(one.data == "unpaired" for one in asking)


def with_columns(
    trees: Trees, rows: Sequence[Row], objective: Objective, metrics: Sequence[Metric] = (), labels: bool | None = None
) -> Trees:
    """The trees with the numbers that objective and metrics declare, and the labels of unpaired data: `labels` says
    whether there are any, by default where somebody wants them or a row is a single completion."""
    asking: list[Objective | Metric] = [*(term for _, term in objective.terms), *metrics]
    names = list(dict.fromkeys(name for one in asking for name in one.columns))
    if "score" not in names and any(one.data == "ranked" for one in asking):
        names.append("score")  # not-a-number where a list has none: equal scores are ties, whoever reads them
    if labels is None:
        labels = labeled(objective, metrics) or any(len(row.completions) == 1 for row in rows)
    if labels:
        names.append("desirable")
    columns = {name: np.full(int(trees.first[-1]), np.nan, dtype=np.float32) for name in names}
    for row, first in zip(rows, trees.first[:-1].tolist(), strict=True):
        for b, completion in enumerate(row.completions):
            known = {**row.columns, **completion.columns, "desirable": _desirable(row, b)}
            for name in names:
                columns[name][first + b] = known.get(name, np.nan)
    return Trees(trees.ids, trees.tokens, trees.segments, trees.trees, trees.scored_from, columns, trees.mismatched)


def _desirable(row: Row, b: int) -> float:
    """1 or 0: a single completion's label; of several, the first is the best."""
    if len(row.completions) == 1:
        return row.completions[0].columns["desirable"]
    best, own = (row.completions[n].columns.get("score") for n in (0, b))
    ties = len(row.completions) > 2 and own is not None and own == best
    return float(b == 0 or ties)


def with_mismatched(trees: Trees, max_length: int, start: int = 0, stop: int | None = None) -> Trees:
    """Every prompt also with the completions of the next row that has another prompt (KTO's estimate of the KL), for
    the trees from `start` up to `stop`.

    Which completion meets which prompt is a function of the data alone, so the reference cache serves every run.
    Raises UserError when all prompts are the same.
    """
    stop = len(trees) if stop is None else min(stop, len(trees))
    wider = []
    for i in range(start, stop):
        tree = trees[i]
        others = (trees[(i + step) % len(trees)] for step in range(1, len(trees)))
        other = next((one for one in others if not np.array_equal(one.prompt, tree.prompt)), None)
        if other is None:
            raise UserError("all rows have the same prompt; a mismatched completion needs another one", where="data")
        strange = []
        for b in range(len(tree.branches)):
            branch = other.branches[b % len(other.branches)]
            tokens = branch.tokens[branch.scored_from :][: max(1, max_length - len(tree.prompt))]
            strange.append(Branch(tokens))
        wider.append(Tree(tree.id, tree.prompt, (*tree.branches, *strange)))
    built = Trees.build(wider, mismatched=True)
    first, last = (int(trees.trees[i]) - i for i in (start, stop))
    own = concat_ranges(built.first[:-1], np.diff(built.first) // 2)
    for name, values in trees.columns.items():
        built.columns[name] = np.full(int(built.first[-1]), np.nan, dtype=np.float32)
        built.columns[name][own] = values[first:last]
    return built
