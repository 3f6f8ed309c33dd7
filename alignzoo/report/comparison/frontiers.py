"""Frontiers of reward against KL in words, and as a picture like the DPO paper's figure 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from alignzoo.compare.frontier import Reading
from alignzoo.compare.frontier_runs import Curve, FrontierTable, RowFrontier
from alignzoo.report.comparison.look import hover_disc, legend, look, plain_words
from alignzoo.report.comparison.numbers import NOISE, number
from alignzoo.report.svg import INK, new_figure, style_axes

NOT_REACHED = "not reached"
DECIMALS = 3
TITLE = "Reward against KL along training"
LEGEND = "Faint: every checkpoint of every run. Solid: frontiers. Bars: their 95% intervals at the KLs of the table."


def heads(table: FrontierTable) -> list[str]:
    """Return `KL 1`, `KL 2`, ..."""
    return [f"KL {one:g}" for one in table.kl]


def words(reading: Reading, signed: bool = False) -> tuple[str, str]:
    """Return (`0.612`, `[0.580, 0.640]`), or (`not reached`, "").

    A difference whose interval contains 0 is marked as in the other tables.
    """
    if reading.value is None:
        return NOT_REACHED, ""
    value = number(reading.value, DECIMALS, signed)
    if reading.bounds is None:
        return value, f"reached in {reading.reached:.0%} of the bootstrap's draws, no interval"
    low, high = reading.bounds
    noise = f"{NOISE} " if signed and low <= 0 <= high else ""
    return noise + value, f"[{number(low, DECIMALS, signed)}, {number(high, DECIMALS, signed)}]"


def sentences(table: FrontierTable) -> Iterator[str]:
    """Yield what the frontiers are, what follows from them, and what does not."""
    over = "prompts alone, as there is one seed" if len(table.seeds) == 1 else f"prompts and {len(table.seeds)} seeds"
    yield (
        f"The score of {table.reward} against the KL divergence to the start, summed over a reply's tokens, on "
        f"{table.prompts:,} held-out prompts at temperature 1, at every checkpoint of every setting. A frontier is the "
        "upper concave hull of a row's points, the start included. Its corners are chosen on one half of the prompts "
        "and read on the other, and both readings are averaged. A KL beyond the last corner is not reached."
    )
    yield f"Intervals are 95% percentiles of a bootstrap over {over}; every draw chooses the corners again."
    yield _budgets(table)
    yield from verdicts(table)
    yield from (f"{label} has no frontier: {why}." for label, why in table.left_out.items())


def verdicts(table: FrontierTable) -> Iterator[str]:
    """Yield where each row is above or below the baseline, and which rows have not converged."""
    yield from (_verdict(table, row) for row in table.rows if row.differences)
    for row in table.rows:
        if row.rising:
            yield (
                f"{row.label} is not converged: the reward still rises over the last two checkpoints of "
                f"{', '.join(row.rising)}. No dominance is claimed from it."
            )


def _budgets(table: FrontierTable) -> str:
    each = {row.label: f"{row.settings} settings with {row.checkpoints} checkpoints each" for row in table.rows}
    if table.equal_budgets:
        return f"Every row has the same budget: {next(iter(each.values()))}."
    return f"Budgets differ: {'; '.join(f'{label} has {budget}' for label, budget in each.items())}."


def _verdict(table: FrontierTable, row: RowFrontier) -> str:
    tested = [(f"{one.kl:g}", one.bounds) for one in row.differences if one.bounds is not None]
    if not tested:
        return f"{row.label} and {table.baseline} reach no KL of the table together, so they are not compared."
    above = [kl for kl, (low, _) in tested if low > 0]
    below = [kl for kl, (_, high) in tested if high < 0]
    at = ", ".join(kl for kl, _ in tested)
    if row.dominance:
        return f"{row.label} is above {table.baseline} at every KL that both reach ({at}), with 95% confidence."
    if len(below) == len(tested):
        return f"{row.label} is below {table.baseline} at every KL that both reach ({at}), with 95% confidence."
    parts = [
        f"{row.label} is {side} {table.baseline} at a KL of {', '.join(where)}"
        for side, where in (("above", above), ("below", below)) if where
    ]  # fmt: skip
    apart = len(above) + len(below)
    if apart < len(tested):
        parts.append(
            f"{'elsewhere' if apart else f'At a KL of {at}'} {row.label} and {table.baseline} can't be told apart"
        )
    return "; ".join(parts) + "."


def picture(table: FrontierTable, labels: Sequence[str]) -> Figure:
    """Draw every run's course, the frontiers as they are read, and their intervals.

    Args:
        table: The frontiers.
        labels: All rows of the comparison, in their order, which gives each its color.
    """
    figure = new_figure(6.8, 4.4)
    axes = style_axes(figure.add_subplot())
    for row in table.rows:
        own = look(labels.index(row.label))
        for curve in table.curves:
            if curve.label == row.label:
                _course(axes, curve, own)
        axes.plot(*zip(*row.line, strict=True), color=own["color"], linewidth=2, label=plain_words(row.label), zorder=3)
        for reading in row.readings:
            _bar(axes, row, reading, own["color"])
    axes.set_xlabel("KL to the start (nats per reply)", color=INK)
    axes.set_ylabel(plain_words(f"score of {table.reward}"), color=INK)
    legend(figure)
    return figure


def _course(axes: Any, curve: Curve, own: dict[str, Any]) -> None:
    kl, reward = curve.kl.mean(1), curve.reward.mean(1)
    axes.plot(kl, reward, color=own["color"], alpha=0.25, linewidth=0.8)
    axes.scatter(kl, reward, s=9, alpha=0.4, linewidths=0, **own)
    for step, x, y in zip(curve.steps, kl, reward, strict=True):
        text = f"{curve.label}, {curve.setting}, seed {curve.seed}, step {step:,}: KL {x:.3g}, reward {y:.3f}"
        hover_disc(axes, x, y, text, size=60)


def _bar(axes: Any, row: RowFrontier, reading: Reading, color: str) -> None:
    if reading.value is None:
        return
    value, around = words(reading)
    if reading.bounds is not None:
        axes.plot([reading.kl, reading.kl], reading.bounds, color=color, linewidth=1.4, zorder=3)
    axes.scatter(reading.kl, reading.value, s=26, color=color, linewidths=0, zorder=4)
    text = f"{row.label} at a KL of {reading.kl:g}: {value} {around}".rstrip()
    hover_disc(axes, reading.kl, reading.value, text, zorder=5)


def tables(table: FrontierTable) -> Iterator[tuple[str, list[tuple[str, list[tuple[str, str]]]]]]:
    """Yield (title, rows) of frontiers and of differences; a row is (label, words)."""
    yield "Reward at each KL", [(row.label, [words(one) for one in row.readings]) for row in table.rows]
    apart = [(row.label, [words(one, True) for one in row.differences]) for row in table.rows if row.differences]
    if apart:
        yield f"Difference from {table.baseline}", apart


def as_json(table: FrontierTable) -> dict[str, Any]:
    """Return the frontiers and all points as plain values."""
    return {
        "reward": table.reward, "baseline": table.baseline, "seeds": table.seeds, "prompts": table.prompts,
        "rows": [
            {"label": row.label, "settings": row.settings, "checkpoints": row.checkpoints,
             "frontier": [_plain(one) for one in row.readings],
             "difference": [_plain(one) for one in row.differences], "above_baseline": row.dominance,
             "not_converged": row.rising}
            for row in table.rows
        ],
        "runs": [
            {"label": one.label, "setting": one.setting, "seed": one.seed, "steps": one.steps,
             "kl": one.kl.mean(1).tolist(), "reward": one.reward.mean(1).tolist()}
            for one in table.curves
        ],
        "left_out": table.left_out,
    }  # fmt: skip


def _plain(reading: Reading) -> dict[str, Any]:
    low, high = reading.bounds or (None, None)
    return {"kl": reading.kl, "value": reading.value, "low": low, "high": high, "reached": reading.reached}
