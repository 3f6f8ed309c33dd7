"""Tables of `alignzoo judge`, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from alignzoo.compare.judge_figures import TITLES
from alignzoo.compare.judge_report import Figure, JudgeReport, SetResult
from alignzoo.report.comparison.markdown import escape, grid
from alignzoo.report.comparison.numbers import NOTHING, number

DECIMALS = 3
HEADS = {
    "accuracy": "accuracy", "ties": "ties", "accuracy_longer": "chosen longer", "accuracy_shorter": "chosen shorter",
    "prefers_longer": "prefers longer", "longer_than_labels": "longer vs labels", "first_place": "first place",
    "inconsistent": "inconsistent",
}  # fmt: skip
"""Figure -> its heading, in the table's order."""
SIGNED = ("longer_than_labels", "first_place")
WITH_INTERVAL = ("accuracy", "longer_than_labels", "first_place", "inconsistent")


class Grid(NamedTuple):
    """A table of one set."""

    title: str
    head: list[str]
    rows: list[list[str]]


def tables(found: SetResult) -> list[Grid]:
    """Return the tables of a set: judges, agreement, and best of N where there are lists."""
    return [_figures(found), _agreement(found), *_best_of_n(found)]


def headline(name: str, found: SetResult) -> str:
    """Return one line on the pairs of a set and what was left out."""
    text = f"{name}: {found.pairs:,} pairs of {found.prompts:,} prompts"
    if longer := found.labels.get("prefers_longer"):
        text += f"; the chosen reply is the longer one in {100 * (longer.mean or 0):.1f}%"
    return text


def remarks(found: SetResult) -> list[str]:
    """Return lines on what was left out, what failed, and who was trained on these rows."""
    lines = [f"skipped: {', '.join(f'{reason} {n:,}' for reason, n in found.skipped.items())}"] if found.skipped else []
    for label, one in found.judges.items():
        if one.problem:
            lines.append(f"{label} failed: {one.problem}")
        if one.without_verdict:
            why = f" ({', '.join(f'{reason} {n:,}' for reason, n in one.unreadable.items())})" if one.unreadable else ""
            lines.append(f"{label}: {one.without_verdict:,} pairs without a verdict{why}")
        if one.cut:
            lines.append(f"{label}: {one.cut:,} prompts and rows of completions were cut (tokens.max_length)")
        if one.trained_on:
            lines.append(f"{label} was trained on {one.trained_on:,} of these prompts")
    return lines


def markdown(report: JudgeReport, title: str = "Judges", command: str = "") -> str:
    """Return the report as Markdown."""
    return "\n".join(_lines(report, title, command)).rstrip() + "\n"


def _lines(report: JudgeReport, title: str, command: str) -> Iterator[str]:
    yield f"# {escape(title)}\n"
    for name, found in report.sets.items():
        yield f"## {escape(name)}\n"
        yield f"{escape(headline(name, found))}.\n"
        for line in remarks(found):
            yield f"- {escape(line)}"
        for table in tables(found):
            yield f"\n{escape(table.title)}:\n"
            yield from grid([list(map(escape, row)) for row in (table.head, *table.rows)])
        yield ""
    yield "## How to read it\n"
    yield "Means with 95% intervals, clustered by prompt."
    shown = {key for found in report.sets.values() for one in found.judges.values() for key in one.figures}
    yield from (f"- {HEADS[key]}: {escape(TITLES[key])}." for key in HEADS if key in shown)
    yield "- equal: share of equal verdicts, where a tie equals a tie alone."
    yield "- kappa: Cohen's, with every pair entered in both orders; without an interval where all verdicts are equal."
    if command:
        yield f"\n## How it was run\n\n    {command}"


def _figures(found: SetResult) -> Grid:
    keys = [key for key in HEADS if any(key in one.figures for one in found.judges.values())]
    head = ["judge", "kind", *(HEADS[key] for key in keys), "pairs"]
    rows = []
    for label, one in found.judges.items():
        cells = [_cell(one.figures.get(key), key) for key in keys]
        count = one.figures["accuracy"].n if "accuracy" in one.figures else 0
        rows.append([label, "failed" if one.problem else one.kind, *cells, f"{count:,}"])
    return Grid("judges", head, rows)


def _agreement(found: SetResult) -> Grid:
    rows = [
        [" and ".join(one.judges), _interval(one.equal), _interval(one.kappa) if one.kappa else NOTHING,
         f"{one.equal.n:,}"]
        for one in found.agreement
    ]  # fmt: skip
    return Grid("agreement", ["of", "equal", "kappa", "pairs"], rows)


def _best_of_n(found: SetResult) -> list[Grid]:
    subsets = list(dict.fromkeys(subset for one in found.judges.values() for subset in one.best_of_n))
    if not subsets:
        return []
    judges = {label: one.best_of_n for label, one in found.judges.items() if one.best_of_n}
    rows = [
        [subset, *(_interval(own[subset]) if subset in own else NOTHING for own in judges.values())]
        for subset in subsets
    ]
    return [Grid("best of N", ["subset", *judges], rows)]


def _cell(figure: Figure | None, key: str) -> str:
    if figure is None:
        return NOTHING
    return _interval(figure, key in SIGNED) if key in WITH_INTERVAL else _mean(figure)


def _mean(figure: Figure, signed: bool = False) -> str:
    return NOTHING if figure.mean is None else number(figure.mean, DECIMALS, signed)


def _interval(figure: Figure, signed: bool = False) -> str:
    bounds: Sequence[float | None] = (figure.low, figure.high)
    ends = [number(end, DECIMALS, signed) for end in bounds if end is not None]
    return _mean(figure, signed) + (f" [{', '.join(ends)}]" if len(ends) == 2 else "")
