"""Rows in the shape that an objective takes: pairs, single completions with a label, or ranked lists.

A pair feeds an unpaired objective as two examples on one prompt, a ranked one as a list of two, and one that takes the
chosen completions alone with its better half. A list feeds a pairwise objective by the source's rule (`pairs`). A
single completion can't become a pair, and that is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from itertools import combinations
from typing import Literal

import numpy as np

from alignzoo.data.rows import Row, Skipped
from alignzoo.errors import UserError
from alignzoo.objective import Objective
from alignzoo.tree import Branch, Tree, Trees

Rule = Literal["best_worst", "neighbours", "all"]


def shape(rows: Sequence[Row], objective: Objective, rule: Rule) -> tuple[list[Row], list[Skipped]]:
    """The rows as the objective takes them, and those that can't be used.

    Raises UserError for rows of a kind that it can't take, or that lack a column which it declares.
    """
    wanted = {term.data for _, term in objective.terms}
    kept: list[Row] = []
    skipped: list[Skipped] = []
    for row in rows:
        _check(row, wanted, objective)
        if len(row.completions) > 2 and "ranked" not in wanted:
            pairs = list(_pairs(row, rule))
            kept += pairs
            if not pairs:
                skipped.append(Skipped(row.id, "no pair of different scores"))
        elif len(row.completions) == 1 and wanted == {"chosen"} and not row.completions[0].columns["desirable"]:
            skipped.append(Skipped(row.id, "undesirable completion"))
        else:
            kept.append(row)
    return kept, skipped


def _check(row: Row, wanted: Set[str], objective: Objective) -> None:
    if len(row.completions) == 1 and wanted & {"pair", "ranked"}:
        raise UserError(
            f"{objective.name} compares completions, and row {row.id} has a single one with a label", where="data",
            expected="rows with chosen and rejected, or an objective for unpaired data (alignzoo objectives)",
        )  # fmt: skip
    for completion in row.completions:
        known = {**row.columns, **completion.columns}
        for name in objective.columns:
            if name not in known:
                raise UserError(
                    f"{objective.name} needs the column '{name}', which row {row.id} has not", where="data",
                    expected=f"a number '{name}' in every row (or chosen_{name} and rejected_{name})",
                    hint=f"columns found: {', '.join(known) or 'none'}",
                )  # fmt: skip


def _pairs(row: Row, rule: Rule) -> Iterator[Row]:
    """Pairs of a ranked list by the rule; completions of one score are no pair."""
    last = len(row.completions) - 1
    couples = {
        "best_worst": [(0, last)],
        "neighbours": [(i, i + 1) for i in range(last)],
        "all": list(combinations(range(last + 1), 2)),
    }[rule]
    for i, j in couples:
        better, worse = row.completions[i], row.completions[j]
        if "score" not in better.columns or better.columns["score"] > worse.columns.get("score", -np.inf):
            yield replace(row, id=row.id if rule == "best_worst" else f"{row.id}/{i}-{j}", completions=(better, worse))


def with_columns(trees: Trees, rows: Sequence[Row], objective: Objective) -> Trees:
    """The trees with the numbers that the objective declares, and the labels of unpaired data."""
    names = list(objective.columns)
    single = any(len(row.completions) == 1 for row in rows)
    if single or any(term.data == "unpaired" for _, term in objective.terms):
        names.append("desirable")
    columns = {name: np.full(int(trees.first[-1]), np.nan, dtype=np.float32) for name in names}
    for row, first in zip(rows, trees.first[:-1].tolist(), strict=True):
        for b, completion in enumerate(row.completions):
            known = {"desirable": float(b == 0), **row.columns, **completion.columns}
            for name in names:
                columns[name][first + b] = known[name]
    return Trees(trees.ids, trees.tokens, trees.segments, trees.trees, trees.scored_from, columns, trees.mismatched)


def with_mismatched(trees: Trees, max_length: int) -> Trees:
    """Every prompt also with the completions of the next row that has another prompt (KTO's estimate of the KL).

    Which completion meets which prompt is a function of the data alone, so the reference cache serves every run.
    Raises UserError when all prompts are the same.
    """
    everything = list(trees)
    wider = []
    for i, tree in enumerate(everything):
        others = (everything[(i + step) % len(everything)] for step in range(1, len(everything)))
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
    columns = {}
    for name, values in trees.columns.items():
        columns[name] = np.full(int(built.first[-1]), np.nan, dtype=np.float32)
        for old, new, count in zip(trees.first[:-1], built.first[:-1], np.diff(trees.first), strict=True):
            columns[name][new : new + count] = values[old : old + count]
    built.columns = columns
    return built
