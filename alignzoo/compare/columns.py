"""What a table can say of a run: its columns, and where each finds its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.compare.results import Entry

PAIRS, REPLIES, JUDGES, COST = "held-out pairs", "sampled replies", "judges", "cost"
UP, DOWN = "↑", "↓"


@dataclass(frozen=True)
class Column:
    """A figure of every row. `arrow` is the better direction, "" where neither is better by itself."""

    key: str
    title: str
    group: str
    arrow: str = ""
    says: str = ""
    """What the figure is, for the legend."""
    share: bool = False
    """From 0 to 1."""

    @property
    def head(self) -> str:
        """Title and arrow."""
        return f"{self.title} {self.arrow}".strip()


KNOWN = (
    Column("preference_accuracy", "accuracy (implicit reward)", PAIRS, UP,
           "share of pairs whose chosen completion has the higher implicit reward, ties ½", True),
    Column("likelihood_accuracy", "accuracy (likelihood)", PAIRS, UP,
           "share of pairs whose chosen completion is the likelier one", True),
    Column("length_normalised_accuracy", "accuracy (per token)", PAIRS, UP,
           "share of pairs whose chosen completion is the likelier one per token", True),
    Column("margin", "margin", PAIRS, "", "chosen less rejected implicit reward, on the objective's own scale"),
    Column("chosen_log_ratio", "chosen log-ratio", PAIRS, "", "log π/π_ref of the chosen completions, nats"),
    Column("rejected_log_ratio", "rejected log-ratio", PAIRS, "", "log π/π_ref of the rejected completions, nats"),
    Column("kl", "KL to the reference", REPLIES, "", "KL(π‖π_ref) of a reply to a prompt, nats"),
    Column("length", "reply length", REPLIES, "", "tokens"),
    Column("finished", "finished", REPLIES, "", "share of replies that ended before the limit of tokens", True),
    Column("distinct_2", "distinct-2", REPLIES, "", "share of a reply's bigrams that are different ones", True),
    Column("entropy", "entropy", REPLIES, "", "of the policy's next token, nats"),
    Column("seconds", "training (s)", COST, DOWN, "time in training steps, its start's not counted"),
    Column("pairs_per_second", "pairs/s", COST, UP, "training rows a second"),
    Column("peak_memory_bytes", "peak memory (MiB)", COST, DOWN, "of the GPU's allocator, or of the process"),
)  # fmt: skip
OF_JUDGE = (
    ("reward", "reward", "what the judge says that a reply is worth", False),
    ("over_start", "win rate over start", "share of replies that the judge prefers to the start's, ties ½", True),
    ("over_chosen", "win rate over chosen",
     "share of replies that the judge prefers to the data's chosen ones, ties ½", True),
)  # fmt: skip
OTHERS = {column.key for column in KNOWN if column.group != PAIRS}
METRIC = "metric."
"""Before the name of a recipe's metric that is called as a figure of the replies is (`entropy`): they are two."""
AXES = ("test",)
"""Arrays of the examples that are no figures."""
SCALE = {"peak_memory_bytes": 2.0**-20}


def columns_of(entries: Sequence[Entry]) -> list[Column]:
    """Every column that some finished run may have a figure for, in the table's order.

    A judge that failed in every run keeps its reward column: that it has no figures must be seen.
    """
    done = [entry for entry in entries if entry.state == "done"]
    named = {column.key for column in KNOWN if column.group == PAIRS}
    own = sorted({name for entry in done for name in entry.figures.examples} - named - set(AXES))
    metrics = [Column(f"{METRIC}{name}" if name in OTHERS else name, name.replace("_", " "), PAIRS, "",
                      "a metric that the recipes name, of the held-out pairs") for name in own]  # fmt: skip
    judges = dict.fromkeys(judge for entry in done for judge in entry.figures.about.get("judges", {}))
    judged = [
        Column(f"{judge}.{key}", f"{judge}: {title}", JUDGES, UP, says, share)
        for judge in judges
        for key, title, says, share in OF_JUDGE
    ]
    found = [*KNOWN, *metrics, *judged]
    order = (PAIRS, REPLIES, JUDGES, COST)
    return sorted(found, key=lambda column: order.index(column.group))


def judge_of(column: Column) -> str:
    """The judge whose figure it is, or ""."""
    return column.key.rpartition(".")[0] if column.group == JUDGES else ""


@dataclass(frozen=True)
class Series:
    """One run's numbers of a column: what each is of, and the numbers, shape (N,)."""

    ids: tuple[str, ...]
    values: NDArray[np.float64]

    def __bool__(self) -> bool:
        return bool(np.isfinite(self.values).any())


def series(entry: Entry, column: Column, test: bool) -> Series:
    """A finished run's numbers on the test or on the validation split; of what a whole run costs, one number."""
    if column.group == COST:
        value = entry.run.get(column.key)
        return Series(("run",), _array([None if value is None else value * SCALE.get(column.key, 1.0)]))
    if column.group == PAIRS:
        examples, name = entry.figures.examples, column.key.removeprefix(METRIC)
        if name not in examples:
            return Series((), _array([]))
        keep = np.flatnonzero((examples["test"] > 0.5) == test)
        ids = entry.figures.about["ids"]
        return Series(_unique([str(ids[i]) for i in keep]), np.asarray(examples[name], np.float64)[keep])
    lines = [line for line in entry.figures.samples if bool(line["test"]) == test]
    judge, _, key = column.key.rpartition(".")
    found = [(line.get("judges", {}).get(judge, {}) if judge else line).get(key) for line in lines]
    return Series(_unique([str(line["id"]) for line in lines]), _array(found))


def together(some: Sequence[Series]) -> NDArray[np.float64]:
    """Runs beside each other, shape (runs, N): of what all of them have a number for, in the order of the first."""
    if not some:
        return np.empty((0, 0))
    if any(one.ids != some[0].ids for one in some):
        places = [{name: i for i, name in enumerate(one.ids)} for one in some]
        shared = [name for name in some[0].ids if all(name in place for place in places)]
        rows = [one.values[[place[n] for n in shared]] for one, place in zip(some, places, strict=True)]
    else:
        rows = [one.values for one in some]
    stacked = np.stack(rows)
    return stacked[:, np.isfinite(stacked).all(axis=0)]


def _unique(ids: Sequence[str]) -> tuple[str, ...]:
    """Ids, and the k-th of the same one told from the first: nothing is paired with another's number."""
    seen: dict[str, int] = {}
    out = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(out)


def _array(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
