"""Convert rows to an objective's shape: pairs, labeled completions, or ranked lists.

| row               | pairwise objective      | ranked objective | unpaired objective                          |
|-------------------|-------------------------|------------------|---------------------------------------------|
| pair              | pair                    | list of two      | two completions, the chosen one desirable   |
| list              | pairs, by `data.pairs`  | list             | completions, the best (and ties) desirable  |
| tie               | pair, where it declares `ties`; else skipped when it is read                             |
| single completion | error                   | error            | completion with its label                   |
| labeled steps     | error                   | error            | each step with its label, a row of its own  |

Objectives on chosen completions (SFT) skip undesirable single completions. All objectives of a sum share one shape. If
a ranked objective is among them, lists stay whole and the pairwise ones compare the best and the worst completion.
Otherwise a pairwise objective splits lists into pairs for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from itertools import combinations, pairwise
from math import comb
from typing import TYPE_CHECKING, Literal

import numpy as np

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.formats.guess import closest_reading
from alignzoo.data.trees import Trees
from alignzoo.interfaces.data_source import TrainOn
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import TIE, Message, Row, Skipped, is_unfinished

if TYPE_CHECKING:
    from alignzoo.interfaces.data_source import DataSource
    from alignzoo.recipe.schema import Recipe

PairRule = Literal["extremes", "adjacent", "all"]
NEEDED = {
    "pair": "rows with chosen and rejected", "ranked": "rows with completions and scores",
    "chosen": "rows with a completion, messages or text", "unpaired": "rows with a completion and a label",
    "group": "a section `rollout`",
}  # fmt: skip
"""Kind of data -> rows that an objective on it takes."""
MOST_PAIRS = 10_000
"""Pairs of one ranked list; a list with more is left out and counted."""


def convert_rows(
    rows: Sequence[Row], objective: Objective, rule: PairRule, train_on: TrainOn = "assistant"
) -> tuple[list[Row], list[Skipped]]:
    """Convert rows to the shape that the objective takes.

    With `last_assistant`, all turns of SFT data before the last are prompt.

    Returns:
        The converted rows, and the rows that the objective can't use.

    Raises:
        UserError: The objective does not support this kind of row, or the row lacks a column that it needs.
    """
    terms = [term for _, term in objective.terms]
    wanted = {term.data for term in terms}
    least = max((term.min_completions for term in terms if term.data == "ranked"), default=0)
    kept: list[Row] = []
    skipped: list[Skipped] = []
    for row in (one for whole in rows for one in _each_labeled(whole, wanted)):
        for term in terms:
            _check(row, term)
        _check_scored(row, train_on)
        if train_on == "last_assistant" and row.is_training_text and row.completions[0].context:
            row = _with_longer_prompt(row)
        if len(row.completions) < least:
            skipped.append(Skipped(row.id, f"fewer than {least} completions"))
            continue
        if len(row.completions) > 2 and "pair" in wanted:
            whole = _stays_a_list(row, wanted, rule)
            if not whole and number_of_pairs(rule, len(row.completions)) > MOST_PAIRS:
                skipped.append(Skipped(row.id, f"over {MOST_PAIRS:,} pairs"))
                continue
            pairs = [row] if whole else list(_pairs(row, rule, objective.ties))
            kept += pairs
            if not pairs:
                skipped.append(Skipped(row.id, "no pair of different scores"))
        elif len(row.completions) == 1 and wanted == {"chosen"} and not _desirable(row, 0):
            skipped.append(Skipped(row.id, "undesirable completion"))
        else:
            kept.append(row)
    return kept, skipped


def _each_labeled(row: Row, wanted: Set[str]) -> list[Row]:
    """Return a row for each completion if each has a label of its own, else the row as it is.

    Rows of several answers to one prompt stay whole for objectives that compare. Steps are never compared.
    """
    labeled = len(row.completions) > 1 and all("desirable" in one.columns for one in row.completions)
    steps = labeled and isinstance(row.prompt, str) and any(one.context for one in row.completions)
    if not labeled or not (steps or wanted <= {"unpaired", "chosen"}):
        return [row]
    return [replace(row, id=f"{row.id}/{n}", completions=(one,)) for n, one in enumerate(row.completions, 1)]


def further_pairs(rows: Sequence[Row], kept: Sequence[Row], skipped: Sequence[Skipped]) -> Counter[str]:
    """Count the rows that `convert_rows` adds, by the part of the id before the first "/"."""
    made = Counter(one.id.partition("/")[0] for part in (kept, skipped) for one in part)
    return made - Counter(row.id.partition("/")[0] for row in rows)


def convert_side(
    rows: Sequence[Row], recipe: Recipe, source: DataSource, prompts: bool = True
) -> tuple[list[Row], list[Skipped]]:
    """Convert rows of one side of the split, as `convert_rows` does.

    With `prompts`, those of a recipe with `rollout` become prompts alone: training rows, and held-out rows among all of
    which a prompt is alone. So do all rows of a recipe with `draw`.
    """
    if recipe.draw is not None:
        return to_prompts(rows, source.train_on)
    if recipe.rollout is None or not prompts:
        return convert_rows(rows, recipe.objective, source.pairs, source.train_on)
    return to_prompts(rows, source.train_on, with_best=recipe.rollout.pairs == "data")


def to_prompts(
    rows: Sequence[Row], train_on: TrainOn = "assistant", with_best: bool = False
) -> tuple[list[Row], list[Skipped]]:
    """Return the prompts that completions are drawn for, and the skipped rows.

    A skipped row has no prompt that ends where a reply begins. With `with_best` each prompt has the row's best
    completion beside it, which answers the last prompt of a chat.
    """
    kept: list[Row] = []
    skipped: list[Skipped] = []
    for row in rows:
        if with_best and (reason := _without_best(row)):
            skipped.append(Skipped(row.id, reason))
            continue
        longer = with_best or train_on == "last_assistant"
        if longer and row.is_training_text and row.completions[0].context:
            row = _with_longer_prompt(row)
        if isinstance(row.prompt, str) and any(one.context for one in row.completions):
            skipped.append(Skipped(row.id, "dialogues that differ before the reply"))
        else:
            kept.append(replace(row, completions=row.completions[:1]) if with_best else row.alone())
    return kept, skipped


def _without_best(row: Row) -> str:
    """Return why a row has no completion that is preferred to draws, "" if it has one."""
    if not row.completions or row.alone().prompt != row.prompt:
        return "a prompt without a completion"
    if row.completions[0].context and not row.is_training_text:
        return "dialogues that differ before the reply"
    return "" if _desirable(row, 0) else "undesirable completion"


def _stays_a_list(row: Row, wanted: Set[str], rule: PairRule) -> bool:
    if "ranked" in wanted and rule != "extremes":
        raise UserError(
            f"'{rule}' can't be combined with a ranked objective: row {row.id} stays a list, and pairwise objectives "
            "compare its best and worst completion",
            where="data.pairs", expected="extremes",
        )  # fmt: skip
    return "ranked" in wanted


def _check_scored(row: Row, train_on: TrainOn) -> None:
    if train_on == "all" and not row.is_training_text:
        what = "labeled completion" if is_labeled(row) else f"{len(row.completions)} completions"
        raise UserError(
            f"'all' scores the prompt too, which is data for SFT, and row {row.id} has {what}",
            where="data.train_on", expected="assistant, or last_assistant",
        )  # fmt: skip


def _with_longer_prompt(row: Row) -> Row:
    (completion,) = row.completions
    prompt: tuple[Message, ...] = (*row.prompt, *completion.context)
    if is_unfinished(prompt):  # the completion would be read as the rest of the assistant's message before it
        return row
    return replace(row, prompt=prompt, completions=(replace(completion, context=()),))


def is_labeled(row: Row) -> bool:
    """Return True for a single completion with a label."""
    return len(row.completions) == 1 and not row.is_training_text


def _check(row: Row, one: Objective | Metric) -> None:
    if not row.completions:
        there = ("prompt",) if isinstance(row.prompt, str) else ("prompt", "instruction")
        raise UserError(
            f"{one.name} needs completions, and row {row.id} has a prompt alone", where="data",
            expected=f"{NEEDED.get(one.data, 'completions')}, or a recipe with rollout or draw, which draws them",
            hint=closest_reading(row.extra, there),
        )  # fmt: skip
    if row.is_training_text and one.data == "unpaired":
        raise UserError(
            f"{one.name} needs labels, and row {row.id} has a single completion without one", where="data",
            expected="a column label: true (desirable) or false, pairs, or an objective on completions alone (sft)",
        )  # fmt: skip
    fewest = one.min_completions if isinstance(one, Objective) and one.data == "ranked" else 2
    if len(row.completions) == 1 and one.data in ("pair", "ranked") and fewest > 1:
        kind = "" if row.is_training_text else "labeled "
        raise UserError(
            f"{one.name} compares completions, and row {row.id} has a single {kind}completion", where="data",
            expected="rows with chosen and rejected, or an objective for unpaired data (see `alignzoo list`)",
        )  # fmt: skip
    for n, completion in enumerate(row.completions, 1):
        known = {**row.columns, **completion.columns}
        missing = next((name for name in one.columns if name not in known), None)
        if missing is not None:
            of = f" for completion {n} of {len(row.completions)}" if n > 1 else ""
            raise UserError(
                f"{one.name} needs the column '{missing}', which row {row.id} does not have{of}", where="data",
                expected=f"a number '{missing}' in every row (or chosen_{missing} and rejected_{missing}, or scores)",
                nearest=nearest(missing, known), hint=f"columns found: {', '.join(known) or 'none'}",
            )  # fmt: skip
        for name in (*one.flags, *one.probabilities, *((TIE,) if one.ties and TIE in known else ())):
            most, least, value = 1.0, 0.0, known[name]
            if not least <= value <= most or (name not in one.probabilities and value not in (least, most)):
                raise UserError(
                    f"{one.name} reads the column '{name}', which is {value:g} in row {row.id}", where="data",
                    expected="a number from 0 to 1" if name in one.probabilities else "0 or 1 (false or true)",
                )  # fmt: skip


def number_of_pairs(rule: PairRule, count: int) -> int:
    """Return the number of pairs that a rule makes of a list of `count`."""
    return {"extremes": 1, "adjacent": count - 1, "all": comb(count, 2)}[rule]


def pair_places(rule: PairRule, count: int) -> Iterable[tuple[int, int]]:
    """Return the (better, worse) places of a rule's pairs in a list of `count`, best first."""
    if rule == "all":
        return combinations(range(count), 2)
    return pairwise(range(count)) if rule == "adjacent" else [(0, count - 1)]


def _pairs(row: Row, rule: PairRule, ties: bool = False) -> Iterator[Row]:
    """Yield pairs of a ranked list; equal scores form a pair only with `ties`."""
    for i, j in pair_places(rule, len(row.completions)):
        better, worse = row.completions[i], row.completions[j]
        if "score" not in better.columns or ties or better.columns["score"] > worse.columns.get("score", -np.inf):
            yield replace(row, id=row.id if rule == "extremes" else f"{row.id}/{i}-{j}", completions=(better, worse))


def check_measurable(rows: Sequence[Row], metrics: Sequence[Metric]) -> None:
    """Check that every metric supports every row.

    Raises:
        UserError: A metric does not support this kind of row, or the row lacks a column that it needs.
    """
    for metric in metrics:
        for row in rows:
            _check(row, metric)


def needs_labels(objective: Objective, metrics: Sequence[Metric] = ()) -> bool:
    """Return True if the objective or a metric reads labels, even those of pairs and lists."""
    consumers: list[Objective | Metric] = [*(term for _, term in objective.terms), *metrics]
    return any(one.data == "unpaired" for one in consumers)


def with_columns(
    trees: Trees, rows: Sequence[Row], objective: Objective, metrics: Sequence[Metric] = (), labels: bool | None = None
) -> Trees:
    """Return the trees with the columns that the objective and the metrics declare.

    Args:
        trees: One tree for each row.
        rows: The rows, with their numbers.
        objective: The objective, or a sum of several.
        metrics: Metrics computed on these rows.
        labels: Whether to add the column `desirable`. By default it is added if the objective or a metric reads it,
            or if a row is a single completion with a label.
    """
    consumers: list[Objective | Metric] = [*(term for _, term in objective.terms), *metrics]
    names = list(dict.fromkeys(name for one in consumers for name in one.columns))
    if "score" not in names and any(one.data == "ranked" for one in consumers):
        names.append("score")  # nan for a list without scores; equal scores are ties for every reader
    if objective.ties:
        names.append(TIE)
    if labels is None:
        labels = needs_labels(objective, metrics) or any(is_labeled(row) for row in rows)
    if labels:
        names.append("desirable")
    columns = {name: np.full(int(trees.first[-1]), np.nan, dtype=np.float32) for name in names}
    for row, first in zip(rows, trees.first[:-1].tolist(), strict=True):
        for b, completion in enumerate(row.completions):
            known = {**row.columns, **completion.columns, "desirable": _desirable(row, b)}
            known |= {TIE: float(is_tied(row))} if TIE in names else {}
            for name in names:
                columns[name][first + b] = known.get(name, np.nan)
    return Trees(
        trees.ids, trees.tokens, trees.segments, trees.trees, trees.spans, trees.span_cuts, columns, trees.mismatched
    )  # fmt: skip


def is_tied(row: Row) -> bool:
    """Return True if the best and the worst completion of a row are equally good."""
    best, worst = (row.completions[k].columns.get("score") for k in (0, -1))
    return row.columns.get(TIE) == 1 or (len(row.completions) > 1 and best is not None and best == worst)


def _desirable(row: Row, b: int) -> float:
    """Return a single completion's label; of several, 1 for the first and its ties, else 0."""
    if len(row.completions) == 1:
        return row.completions[0].columns.get("desirable", 1.0)
    best, own = (row.completions[n].columns.get("score") for n in (0, b))
    ties = len(row.completions) > 2 and own is not None and own == best
    return float(b == 0 or ties)
