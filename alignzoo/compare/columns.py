"""The columns of a table and the numbers behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.compare.results import RepliesFolder, RunRecord
from alignzoo.compare.scales import COST as BY_RATIO
from alignzoo.compare.scales import POSITIVE, SHARE
from alignzoo.evaluation.area import pseudovalues

PAIRS, REPLIES, JUDGES, COST = "held-out pairs", "sampled replies", "judges", "cost"
UP, DOWN = "↑", "↓"


@dataclass(frozen=True)
class Column:
    """A figure of every row.

    `arrow` is the better direction, "" if neither is better by itself.
    """

    key: str
    title: str
    group: str
    arrow: str = ""
    description: str = ""
    """Definition of the figure, for the legend."""
    scale: str = ""
    """Scale of the figure: see `alignzoo.compare.scales`."""

    @property
    def head(self) -> str:
        """Title and arrow."""
        return f"{self.title} {self.arrow}".strip()


KNOWN = (
    Column("preference_accuracy", "accuracy (implicit reward)", PAIRS, UP,
           "share of pairs whose chosen completion has the higher implicit reward; ties count ½", SHARE),
    Column("likelihood_accuracy", "accuracy (likelihood)", PAIRS, UP,
           "share of pairs whose chosen completion has the higher log-prob", SHARE),
    Column("length_normalized_accuracy", "accuracy (per token)", PAIRS, UP,
           "share of pairs whose chosen completion has the higher mean log-prob per token", SHARE),
    Column("margin", "margin", PAIRS, "", "implicit reward of the chosen minus the rejected completion"),
    Column("chosen_log_ratio", "chosen log-ratio", PAIRS, "", "log π/π_ref of the chosen completions, nats"),
    Column("rejected_log_ratio", "rejected log-ratio", PAIRS, "", "log π/π_ref of the rejected completions, nats"),
    Column("kl", "KL to the reference", REPLIES, "", "KL(π‖π_ref) summed over a reply's tokens, nats", POSITIVE),
    Column("kl_sampled", "sampled KL", REPLIES, "",
           "mean log π/π_ref of whole replies, nats: the same KL, with a larger error"),
    Column("length", "reply length", REPLIES, "", "tokens", POSITIVE),
    Column("finished", "finished", REPLIES, "", "share of replies that ended before the token limit", SHARE),
    Column("distinct_2", "distinct-2", REPLIES, "", "distinct bigrams over all bigrams of a reply", SHARE),
    Column("entropy", "entropy", REPLIES, "", "entropy of the policy's next-token distribution, nats", POSITIVE),
    Column("seconds", "training (s)", COST, DOWN,
           "time in training steps and in evaluations that choose the checkpoint, without that of the start; "
           "geometric mean", BY_RATIO),
    Column("pairs_per_second", "pairs/s", COST, UP, "training rows per second; geometric mean", BY_RATIO),
    Column("peak_memory_bytes", "peak memory (MiB)", COST, DOWN,
           "peak of the GPU allocator, or of the process; geometric mean", BY_RATIO),
)  # fmt: skip
OF_JUDGE = (
    ("reward", "reward", "the judge's score of a reply", ""),
    ("over_start", "win rate over start", "share of replies that the judge prefers to the start's, ties ½", SHARE),
    ("over_chosen", "win rate over chosen",
     "share of replies that the judge prefers to the dataset's chosen ones, ties ½", SHARE),
)  # fmt: skip
STORED = {"kl_sampled": "log_ratio"}
"""Column -> its name in the records of replies, where that is another one."""
AT_ONE = ("kl", "kl_sampled")
"""Figures of replies at temperature 1 alone: at another one the replies are not the policy's."""
OTHERS = {column.key for column in KNOWN if column.group != PAIRS}
METRIC = "metric."
"""Prefix of a recipe's metric that has the name of a figure of the replies, such as `entropy`."""
AXES = ("test", "desirable", "undesirable")
"""Arrays of the examples that are not figures."""
MARGIN = "margin"
ORDERED = ("preference_accuracy", "likelihood_accuracy", "length_normalized_accuracy", "margin")
"""Figures that compare single labeled completions with those of the other kind."""
SCALE = {"peak_memory_bytes": 2.0**-20}


def columns_of(records: Sequence[RunRecord]) -> list[Column]:
    """Return every column that a finished run may have a figure for, in the table's order.

    A judge that failed in every run keeps its reward column, so that the failure is visible.
    """
    done = [record for record in records if record.state == "done"]
    named = {column.key for column in KNOWN if column.group == PAIRS}
    own = sorted({name for record in done for name in record.figures.examples} - named - set(AXES))
    metrics = [Column(f"{METRIC}{name}" if name in OTHERS else name, name.replace("_", " "), PAIRS, "",
                      "metric of the recipes, on held-out pairs") for name in own]  # fmt: skip
    judges = dict.fromkeys(judge for record in done for judge in record.figures.judges)
    judged = [
        Column(f"{judge}.{key}", f"{judge}: {title}", JUDGES, UP, description, scale)
        for judge in judges
        for key, title, description, scale in OF_JUDGE
    ]
    found = [*KNOWN, *metrics, *judged]
    order = (PAIRS, REPLIES, JUDGES, COST)
    return sorted(found, key=lambda column: order.index(column.group))


def judge_of(column: Column) -> str:
    """Return the judge of a column, or ""."""
    return column.key.rpartition(".")[0] if column.group == JUDGES else ""


@dataclass(frozen=True)
class Series:
    """One run's numbers of a column."""

    ids: tuple[str, ...]
    values: NDArray[np.float64]
    """Numbers, shape (N,)."""
    groups: tuple[str, ...] = ()
    """Prompt of each number; empty if every number has its own."""
    weights: NDArray[np.float64] | None = None
    """Weights, shape (N,), for an area under the curve with pseudo-values in `values`; None for a plain mean."""

    def __bool__(self) -> bool:
        return bool(np.isfinite(self.values).any())


@dataclass(frozen=True)
class Beside:
    """Numbers that several runs have in common."""

    values: NDArray[np.float64]
    """Numbers, shape (runs, N)."""
    groups: NDArray[np.str_] | None = None
    """Prompt of each column, shape (N,)."""
    weights: NDArray[np.float64] | None = None
    """Weights, shape (N,): see `Series`."""

    @property
    def halves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The first half of the runs and the second half."""
        half = len(self.values) // 2
        return self.values[:half], self.values[half:]


def series(record: RunRecord, column: Column, test: bool) -> Series:
    """Return a finished run's numbers on the test or validation split; of a cost, one number."""
    if column.group == COST:
        value = record.run.get(column.key)
        return Series(("run",), _array([None if value is None else value * SCALE.get(column.key, 1.0)]))
    about, group_of = record.figures.about, prompts_of(record)
    if column.group == PAIRS:
        examples, name = record.figures.examples, column.key.removeprefix(METRIC)
        if name not in examples:
            return Series((), _array([]))
        keep = np.flatnonzero((examples["test"] > 0.5) == test)
        ids = [str(about["ids"][i]) for i in keep]
        groups = tuple(str(about["groups"][i]) for i in keep) if group_of else ()
        values, weights = np.asarray(examples[name], np.float64)[keep], None
        if name in ORDERED and "desirable" in examples:
            values, weights = pseudovalues(values, examples["desirable"][keep], examples["undesirable"][keep])
        return Series(_unique(ids), values, groups, weights)
    return reply_series(record, record.figures, column, test)


def prompts_of(record: RunRecord) -> dict[str, str]:
    """Return row's id -> its prompt, {} where the evaluation does not say."""
    about = record.figures.about
    return dict(zip(about["ids"], about["groups"], strict=True)) if "groups" in about else {}


def reply_series(record: RunRecord, replies: RepliesFolder, column: Column, test: bool) -> Series:
    """Return the numbers of a column of replies or judges, of single replies."""
    temperature = (replies.about.get("sampling") or {}).get("temperature", 1.0)
    if column.key in AT_ONE and temperature != 1:
        return Series((), _array([]))
    group_of = prompts_of(record)
    lines = [line for line in replies.samples if bool(line["test"]) == test]
    groups = tuple(str(group_of.get(line["id"], line["id"])) for line in lines) if group_of else ()
    return Series(_unique([str(line["id"]) for line in lines]), reply_values(lines, column), groups)


def reply_values(lines: Sequence[Mapping[str, Any]], column: Column) -> NDArray[np.float64]:
    """Return a column's number of each reply, nan where there is none."""
    judge, _, key = column.key.rpartition(".")
    key = STORED.get(key, key)
    return _array([(line.get("judges", {}).get(judge, {}) if judge else line).get(key) for line in lines])


def together(some: Sequence[Series]) -> Beside:
    """Return the numbers that all series have, in the order of the first."""
    if not some:
        return Beside(np.empty((0, 0)))
    first, places = some[0], [np.arange(len(one.ids)) for one in some]
    if any(one.ids != first.ids for one in some):
        at = [{name: i for i, name in enumerate(one.ids)} for one in some]
        shared = [name for name in first.ids if all(name in place for place in at)]
        places = [np.array([place[name] for name in shared], dtype=np.int64) for place in at]
    stacked = np.stack([one.values[place] for one, place in zip(some, places, strict=True)])
    keep = np.isfinite(stacked).all(axis=0)
    groups = np.array(first.groups)[places[0]][keep] if first.groups else None
    weighted = [one.weights[place] for one, place in zip(some, places, strict=True) if one.weights is not None]
    return Beside(stacked[:, keep], groups, weighted[0][keep] if weighted else None)


def _unique(ids: Sequence[str]) -> tuple[str, ...]:
    """Return ids with a counter after repeated ones, so that each has one counterpart."""
    seen: dict[str, int] = {}
    out = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(out)


def _array(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
