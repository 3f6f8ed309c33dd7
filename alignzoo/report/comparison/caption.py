"""What is said around a table: how its figures were come by, and what is odd about some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignzoo.compare.columns import COST, DOWN, JUDGES, MARGIN, PAIRS, Column, judge_of
from alignzoo.compare.grid import ComparedRow, Point
from alignzoo.compare.results import RunRecord
from alignzoo.compare.statistics import METHOD
from alignzoo.compare.table import Table, sources_of

DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


@dataclass(frozen=True)
class Line:
    """A sentence or two of the caption; `loud` is what nobody may overlook."""

    text: str
    loud: bool = False


@dataclass(frozen=True)
class Note:
    """What is odd about some rows, or about what a judge says of them."""

    text: str
    labels: tuple[str, ...]
    judge: str = ""


def caption(table: Table) -> list[Line]:
    """How the figures were come by, most important first."""
    return [
        *_sources(table),
        Line(_over(table)),
        Line(METHOD),
        *_selection(table),
        *_steps(table),
        *_sampled(table),
        *_units(table),
        Line(_reading(table)),
        Line(_made_of(table)),
    ]


def notes(table: Table) -> list[Note]:
    """What is odd, row by row; what is said alike of several rows is said once."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in table.rows:
        for text, judge in [*((text, "") for text in _of_row(row, table)), *_of_judges(row)]:
            labels = found.setdefault((text, judge), [])
            if row.label not in labels:
                labels.append(row.label)
    return [Note(text, tuple(labels), judge) for (text, judge), labels in found.items()]


def mark(notes: Sequence[Note], label: str, column: Column | None = None) -> str:
    """Raised numbers of the notes on a row, or on what a judge's column says of it."""
    judge = judge_of(column) if column else ""
    if column and not judge:
        return ""
    found = [n for n, note in enumerate(notes, 1) if label in note.labels and note.judge == judge]
    return "˒".join(raised(n) for n in found)


def raised(number: int) -> str:
    """12 as ¹²."""
    return "".join(DIGITS[int(digit)] for digit in str(number))


def legend(table: Table) -> list[tuple[str, str]]:
    """(heading, what it is) of every column."""
    return [(column.head, column.says) for column in table.columns]


def failures(table: Table) -> list[RunRecord]:
    """Every failed run, of chosen and of other points."""
    return [run for row in table.rows for point in row.points for run in point.failed]


def _sources(table: Table) -> list[Line]:
    """Loud, where rows are not comparable."""
    entries = [run for row in table.rows for point in row.points for run in point.runs]
    found = sources_of(entries)
    if len(found) < 2:
        return []
    data = len({data for data, _ in found}) > 1
    what = "DIFFERENT DATA" if data else "DIFFERENT STARTS"
    groups = "; ".join(
        f"{', '.join(labels)}: data {data[:8]}, start {start if ' ' in start else start[:8]}"
        for (data, start), labels in found.items()
    )
    why = "trained and measured on the same data" if data else "trained from the same start"
    return [Line(f"{what}: the rows were not {why}, so a difference between them is not one of objectives alone. "
                 f"{groups}.", loud=True)]  # fmt: skip


def _over(table: Table) -> str:
    pairs = sorted({cell.estimate.examples for (_, key), cell in table.cells.items() if _group(table, key) == PAIRS})
    replies = sorted({
        cell.estimate.examples for (_, key), cell in table.cells.items() if _group(table, key) not in (PAIRS, COST)
    })  # fmt: skip
    seeds = sorted({run.seed for row in table.rows if row.chosen and not row.start for run in row.chosen.done})
    text = f"Means with 95% intervals over {_span(pairs)} test pairs{_prompts(table, PAIRS)}"
    text += f" and {_span(replies)} replies to test prompts" if replies else ""
    text += f"; {_plural(len(seeds), 'seed')}" + (f" ({', '.join(map(str, seeds))})." if seeds else ".")
    if len(seeds) == 1:
        text += " One seed: an interval speaks of this one model, not of what its objective gives."
    if any(
        one and one.coverage is not None for cell in table.cells.values() for one in (cell.estimate, cell.difference)
    ):
        text += (
            " A percentage behind an interval is its simulated coverage: it is from too few prompts or events, or too "
            "skewed, to cover 95%."
        )
    return text


def _prompts(table: Table, group: str) -> str:
    """` of 120 prompts`, where several rows share one."""
    cells = [cell.estimate for (_, key), cell in table.cells.items() if _group(table, key) == group]
    if all(one.clusters == one.examples for one in cells):
        return ""
    return f" of {_span(sorted({one.clusters for one in cells}))} prompts"


def _units(table: Table) -> list[Line]:
    """Margins that are in other units than the baseline's, and so have no difference."""
    if table.column(MARGIN) is None:
        return []
    scales = {
        row.label: row.chosen.reward_scale for row in table.rows if (row.label, MARGIN) in table.cells and row.chosen
    }
    other = [label for label, scale in scales.items() if scale != scales.get(table.baseline)]
    if not other or table.baseline not in scales:
        return []
    return [Line(f"The margins of {', '.join(other)} are in another unit than those of {table.baseline} (another "
                 "implicit reward, or another beta): they are not compared.")]  # fmt: skip


def _group(table: Table, key: str) -> str:
    column = table.column(key)
    return column.group if column else JUDGES


def _selection(table: Table) -> list[Line]:
    tried = {row.label: len(row.points) for row in table.rows if not row.start}
    budgets = ", ".join(f"{label} {count}" for label, count in tried.items())
    lines = []
    if any(count > 1 for count in tried.values()):
        rows = sorted({_rows(row.chosen, test=False) for row in table.rows if row.chosen and len(row.points) > 1})
        which = "lowest" if table.select.arrow == DOWN else "highest"
        lines.append(Line(f"The configuration of a row is the one with the {which} mean {table.select.title} on "
                          f"{_span(rows)} validation rows; its figures are of the test rows, which chose nothing. "
                          f"Configurations tried: {budgets}."))  # fmt: skip
    elif tried:
        lines.append(Line("One configuration of each recipe was tried: nothing was chosen."))
    if len(set(tried.values())) > 1:
        lines.append(Line(f"UNEQUAL TUNING BUDGETS: {budgets} configurations. A recipe with more of them "
                          "has had more chances.", loud=True))  # fmt: skip
    return lines


def _steps(table: Table) -> list[Line]:
    found: dict[str, list[str]] = {}
    for row in table.rows:
        for run in row.chosen.done if row.chosen and not row.start else ():
            if "steps" in run.run:
                labels = found.setdefault(f"{run.run['steps']:,.0f} steps of {run.run.get('rows', 0):,.0f} rows", [])
                if row.label not in labels:
                    labels.append(row.label)
    if not found:
        return []
    if len(found) == 1:
        return [Line(f"Every run took {next(iter(found))}.")]
    words = "; ".join(f"{', '.join(labels)} {steps}" for steps, labels in found.items())
    return [Line(f"STEPS DIFFER: {words}.", loud=True)]


def _sampled(table: Table) -> list[Line]:
    """Loud, where replies were not drawn alike."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        for run in row.chosen.done if row.chosen else ():
            settings = run.figures.about.get("sampling") or {}
            labels = found.setdefault(", ".join(f"{key} {value}" for key, value in settings.items()), [])
            if row.label not in labels:
                labels.append(row.label)
    if len(found) < 2:
        return []
    words = "; ".join(f"{', '.join(labels)}: {settings}" for settings, labels in found.items())
    return [Line(f"REPLIES WERE DRAWN IN DIFFERENT WAYS: {words}.", loud=True)]


def _reading(table: Table) -> str:
    return (
        f"Differences are to {table.baseline}; ≈ before one says that its interval contains 0. ↑ and ↓ say which way "
        "is better; without an arrow neither is by itself (a KL is to be read with the reward). Bold is better than "
        "every other row by a difference whose interval leaves out 0, each at 95%, not corrected for their number. "
        "Differences of costs are relative, in percent of the baseline's geometric mean."
    )


def _made_of(table: Table) -> str:
    about = table.about
    entries = [run for row in table.rows for point in row.points for run in point.runs]
    data = ", ".join(dict.fromkeys(entry.data[:8] for entry in entries))
    starts = ", ".join(dict.fromkeys(entry.start[:8] for entry in entries if entry.start))
    parts = [f"Data {data}", f"start and reference {starts}" if starts else "", _sampling(about.get("samples"))]
    versions = ", ".join(f"{package} {version}" for package, version in about.get("versions", {}).items())
    return "; ".join(filter(None, [*parts, versions, str(about.get("machine", ""))])) + "."


def _sampling(samples: object) -> str:
    if not isinstance(samples, dict):
        return ""
    return f"replies at temperature {samples.get('temperature')}, at most {samples.get('tokens')} tokens"


def _of_row(row: ComparedRow, table: Table) -> list[str]:
    out = []
    if row.why:
        out.append(f"{row.why[0].upper()}{row.why[1:]}.")
    if row.chosen:
        if row.start:
            out.append("What the others start from: one run, so its intervals are over examples alone.")
        elif len(row.chosen.done) == 1 and not all(_single(other) for other in table.rows):
            out.append("One run: its intervals speak of this one model, not of what the objective gives.")
        if not row.chosen.whole:
            rest = _plural(len(row.chosen.done), "run")
            out.append(f"{_lost(row.chosen)}: the figures are of the other {rest}.")
    others = [point for point in row.points if point is not row.chosen and not point.whole and row.chosen]
    if others:
        which = "; ".join(f"{point.words}: {_lost(point)}" for point in others)
        out.append(f"Configurations that lack runs: {which}.")
    return out


def _single(row: ComparedRow) -> bool:
    return row.chosen is None or row.start or len(row.chosen.done) == 1


def _lost(point: Point) -> str:
    failed = [f"seed {run.seed} failed ({run.reason})" for run in point.failed]
    waiting = [str(run.seed) for run in point.runs if run.state not in ("done", "failed")]
    return "; ".join([*failed, *([f"seed {', '.join(waiting)} not run yet"] if waiting else [])])


def _of_judges(row: ComparedRow) -> list[tuple[str, str]]:
    """(what went wrong, the judge) of the chosen point's runs."""
    runs = row.chosen.done if row.chosen else []
    found: dict[tuple[str, str], list[int]] = {}
    for run in runs:
        for judge, about in run.figures.judges.items():
            if about["problem"]:
                found.setdefault((judge, about["problem"]), []).append(run.seed)
    return [
        (f"The judge {judge} failed: {problem}" if len(seeds) == len(runs)
         else f"The judge {judge} failed in seed {', '.join(map(str, seeds))}: {problem}", judge)
        for (judge, problem), seeds in found.items()
    ]  # fmt: skip


def _rows(point: Point, test: bool) -> int:
    run = point.done[0].figures.examples if point.done else {}
    return int(np.count_nonzero((run["test"] > 0.5) == test)) if "test" in run else 0


def _span(counts: Sequence[int]) -> str:
    if not counts:
        return "0"
    return f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
