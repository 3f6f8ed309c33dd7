"""The league's table and picture, from a finished comparison. Used by league.py."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from alignzoo.compare.grid import ComparedRow
from alignzoo.compare.ranking import Ranking, rank
from alignzoo.compare.results import RunRecord
from alignzoo.compare.table import Table
from alignzoo.report.svg import INK, new_figure, style_axes

WON, RIGHT = "toy.over_start", "preference_accuracy"
FIGURES = {
    WON: "win rate over the start", RIGHT: "accuracy", "margin": "margin", "kl": "KL", "length": "length",
    "seconds": "seconds", "peak_memory_bytes": "MiB",
}  # fmt: skip
NOT_SHOWN = """
What it does not show:

- Which objective is better for another model, other data or more steps. The model has 0.17 million parameters, the replies come
  from a grammar, and the judge is that grammar.
- The best that an objective can do. Four settings are few, and settings were chosen by accuracy, which is not the win rate.
- Anything within a rank: rows of one rank differ by less than can be told apart here. That is not the same as being equal.
- Costs on an idle machine: two processes ran beside each other, each on one thread.
- One accuracy: without a reference a pair is right where the chosen reply is the likelier one, and with one where it has the
  higher implicit reward.
- Margins across rows: each is in the unit of its own implicit reward.
"""


def ranked_rows(table: Table) -> list[dict[str, Any]]:
    """Return a row for each objective, best rank first: ranks, figures with intervals, setting, and the test against
    the baseline.
    """
    columns = {key: table.column(key) for key in FIGURES}
    ranks = {key: rank(table, column) for key in (WON, RIGHT) if (column := columns[key])}
    rows = []
    for row in table.rows:
        cells = {key: table.cell(row, column) if column else None for key, column in columns.items()}
        figures = {
            key: {"mean": one.estimate.mean, "low": one.estimate.low, "high": one.estimate.high}
            for key, one in cells.items() if one
        }  # fmt: skip
        of_row = {key: ranking.ranks.get(row.label) for key, ranking in ranks.items()}
        rows.append({
            "objective": row.objective, "setting": row.description, "seeds": row.seeds, "problem": row.problem,
            "baseline": row.label == table.baseline, "ranks": of_row, "figures": figures,
            "against_baseline": {key: _against(table, row, key, ranking) for key, ranking in ranks.items()},
        })  # fmt: skip
    last = len(rows) + 1
    return sorted(rows, key=lambda row: (row["ranks"].get(WON) or last, -row["figures"].get(WON, {}).get("mean", 0)))


def _against(table: Table, row: ComparedRow, key: str, ranking: Ranking) -> dict[str, float] | None:
    cell = table.cells.get((row.label, key))
    if cell is None or cell.difference is None:
        return None
    pair = (row.label, table.baseline)
    p = ranking.p_values.get(pair, ranking.p_values.get(pair[::-1], 1.0))
    return {"difference": cell.difference.mean, "low": cell.difference.low, "high": cell.difference.high, "p": p}


def markdown(table: Table, rows: list[dict[str, Any]], records: list[RunRecord]) -> str:
    """Return the page."""
    done = [record for record in records if record.state == "done"]
    steps = sorted({int(record.run["steps"]) for record in done if "steps" in record.run})
    pairs = len(rows) * (len(rows) - 1) // 2
    baseline = next(row["objective"] for row in rows if row["baseline"])
    versions = ", ".join(f"{name} {version}" for name, version in table.about.get("versions", {}).items())
    lines = [
        "# The league of objectives on pairs", "",
        f"Command: `python benchmarks/league.py` ({versions}; {table.about.get('machine', '')}, two processes at once). "
        f"{len(done)} runs of {', '.join(map(str, steps))} steps on the embedded dataset at recipes/scale/small.yaml.", "",
        "Each objective has four settings, run once; the one with the highest held-out accuracy on validation rows has two more "
        "seeds. All figures are of the test rows, which choose nothing. Intervals are 95%, over seeds and examples, clustered by "
        "prompt. **Rank** is 1 plus the number of objectives that are distinguishably better, among all "
        f"{pairs:,} pairs at once (Holm, 5% for any false distinction). Rows of one rank cannot be told apart from its best by more "
        f"than chance; their order means nothing. `p` is the adjusted p-value of the difference from `{baseline}`.", "",
        "![Win rate against KL](league.svg)", "",
        f"| rank by win rate | by accuracy | objective | setting | win rate over the start | p | difference from {baseline} "
        "| accuracy | margin | KL, nats | length, tokens | seconds | MiB |",
        "|---:|---:|---|---|---|---:|---|---|---:|---|---|---:|---:|",
    ]  # fmt: skip
    for row in rows:
        if not row["figures"]:
            lines.append(f"| | | `{row['objective']}` | {row['problem']} |" + " |" * 9)
            continue
        by = row["against_baseline"].get(WON)
        apart = "" if by is None else f"{by['difference']:+.3f} [{by['low']:+.3f}, {by['high']:+.3f}]"
        cells = [
            row["ranks"].get(WON) or "", row["ranks"].get(RIGHT) or "", f"`{row['objective']}`", row["setting"],
            _span(row, WON, 3), "" if by is None else f"{by['p']:.2g}", apart, _span(row, RIGHT, 3), _mean(row, "margin", 2),
            _span(row, "kl", 2), _span(row, "length", 1), _mean(row, "seconds", 1), _mean(row, "peak_memory_bytes", 0),
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    failed = [f"`{record.objective}` {record.point}: {record.reason}" for record in records if record.state == "failed"]
    lines += ["", *(["Runs that failed: " + "; ".join(failed) + ".", ""] if failed else []), *separation(rows)]
    return "\n".join(lines) + "\n" + NOT_SHOWN


def separation(rows: list[dict[str, Any]]) -> list[str]:
    """Say whether the baseline can be told from supervised fine-tuning, at 95% and after the correction."""
    sft = next((row for row in rows if row["objective"] == "sft"), None)
    baseline = next(row["objective"] for row in rows if row["baseline"])
    lines = []
    for key, by in (sft or {"against_baseline": {}})["against_baseline"].items():
        if by:
            apart = "is" if by["low"] > 0 or by["high"] < 0 else "is not"
            lines.append(f"- By {FIGURES[key]} `{baseline}` {apart} distinguishable from `sft` at 95% (p {by['p']:.2g} after the "
                         "correction).")  # fmt: skip
    return lines


def _span(row: dict[str, Any], key: str, digits: int) -> str:
    one = row["figures"].get(key)
    return f"{one['mean']:.{digits}f} [{one['low']:.{digits}f}, {one['high']:.{digits}f}]" if one else ""


def _mean(row: dict[str, Any], key: str, digits: int) -> str:
    one = row["figures"].get(key)
    return f"{one['mean']:,.{digits}f}" if one else ""


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the win rate against the KL, one point an objective, colored by its rank."""
    figure = new_figure(8.4, 6.0)
    axes = style_axes(figure.add_subplot())
    shown = [row for row in rows if {"kl", WON} <= set(row["figures"])]
    for row in shown:
        x, y = row["figures"]["kl"], row["figures"][WON]
        best = row["ranks"][WON] == 1
        color = "#4477aa" if best else "#bbbbbb"
        axes.errorbar(
            x["mean"], y["mean"], fmt="s" if row["baseline"] else "o", markersize=4.5, color=color, ecolor=color,
            xerr=[[x["mean"] - x["low"]], [x["high"] - x["mean"]]], yerr=[[y["mean"] - y["low"]], [y["high"] - y["mean"]]],
            elinewidth=0.6, alpha=0.9, zorder=3 if best else 2,
        )  # fmt: skip
        axes.annotate(
            row["objective"], (x["mean"], y["mean"]), xytext=(3, 3), textcoords="offset points", fontsize=6.5, color=INK
        )
    axes.axhline(0.5, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlabel(
        "KL to the reference (nats per reply; linear below 1). Blue: rank 1. Square: the baseline", color=INK
    )
    axes.set_ylabel("win rate over the start", color=INK)
    return figure
