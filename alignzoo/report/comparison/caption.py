"""The caption of a table: data, statistics, selection and settings behind its figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignzoo.compare.axes import best_of_draws
from alignzoo.compare.cells import paired_numbers
from alignzoo.compare.columns import COST, DOWN, JUDGES, MARGIN, PAIRS
from alignzoo.compare.grid import Point
from alignzoo.compare.results import RunRecord
from alignzoo.compare.scales import paired
from alignzoo.compare.statistics import METHOD
from alignzoo.compare.table import Table, sources_of
from alignzoo.report.comparison.notes import plural


@dataclass(frozen=True)
class Line:
    """A sentence or two of the caption; `loud` ones are warnings."""

    text: str
    loud: bool = False


def caption(table: Table) -> list[Line]:
    """Return the lines of the caption, most important first."""
    return [
        *_sources(table),
        Line(_samples(table)),
        *_coverage(table),
        Line(METHOD),
        *_selection(table),
        *_checkpoints(table),
        *_steps(table),
        *_sampling_differs(table),
        *_estimates_of_kl(table),
        *_unpicked(table),
        *_units(table),
        Line(_legend(table)),
        Line(_provenance(table)),
    ]


def legend(table: Table) -> list[tuple[str, str]]:
    """Return (heading, description) of every column."""
    return [(column.head, column.description) for column in table.columns]


def _sources(table: Table) -> list[Line]:
    """Warn of rows on different data or from different starts."""
    found = sources_of(list(_runs(table)))
    if len(found) < 2:
        return []
    data = len({data for data, _ in found}) > 1
    groups = "; ".join(
        f"{', '.join(labels)}: data {data[:8]}, start {start if ' ' in start else start[:8]}"
        for (data, start), labels in found.items()
    )
    warning = "DIFFERENT DATA" if data else "DIFFERENT STARTS"
    same = "trained and measured on the same data" if data else "trained from the same start"
    return [Line(f"{warning}: the rows were not {same}, so their differences are not due to the objectives alone. "
                 f"{groups}.", loud=True)]  # fmt: skip


def _runs(table: Table) -> Iterator[RunRecord]:
    return (run for row in table.rows for point in row.points for run in point.runs)


def _samples(table: Table) -> str:
    pairs = sorted({cell.estimate.examples for (_, key), cell in table.cells.items() if _group(table, key) == PAIRS})
    replies = sorted({
        cell.estimate.examples for (_, key), cell in table.cells.items() if _group(table, key) not in (PAIRS, COST)
    })  # fmt: skip
    seeds = sorted({run.seed for row in table.rows if row.chosen and not row.start for run in row.chosen.done})
    text = f"Means with 95% intervals over {_span(pairs)} test pairs{_prompts(table)}"
    text += f" and {_span(replies)} replies to test prompts" if replies else ""
    text += f"; {plural(len(seeds), 'seed')}" + (f" ({', '.join(map(str, seeds))})." if seeds else ".")
    if len(seeds) == 1:
        text += " With one seed an interval describes this model, not the objective."
    return text


def _prompts(table: Table) -> str:
    """Return ` of 120 prompts` if several rows share one."""
    cells = [cell.estimate for (_, key), cell in table.cells.items() if _group(table, key) == PAIRS]
    if all(one.clusters == one.examples for one in cells):
        return ""
    return f" of {_span(sorted({one.clusters for one in cells}))} prompts"


def _coverage(table: Table) -> list[Line]:
    """Explain the simulated coverage of intervals that may not cover 95%."""
    shown = (one for cell in table.cells.values() for one in (cell.estimate, cell.difference))
    if not any(one and one.coverage is not None for one in shown):
        return []
    return [Line("A percentage after an interval is its simulated coverage. It is shown where few prompts, few events "
                 "or skewed values keep an interval from covering 95%.")]  # fmt: skip


def _units(table: Table) -> list[Line]:
    """List margins in other units than the baseline's, which get no difference."""
    if table.column(MARGIN) is None:
        return []
    scales = {
        row.label: row.chosen.reward_scale for row in table.rows if (row.label, MARGIN) in table.cells and row.chosen
    }
    other = [label for label, scale in scales.items() if scale != scales.get(table.baseline)]
    if not other or table.baseline not in scales:
        return []
    return [Line(f"Margins of {', '.join(other)} are not compared with those of {table.baseline}: their implicit "
                 "reward is defined differently, or has another beta.")]  # fmt: skip


def _group(table: Table, key: str) -> str:
    column = table.column(key)
    return column.group if column else JUDGES


def _selection(table: Table) -> list[Line]:
    tried = {row.label: len(row.points) for row in table.rows if not row.start}
    budgets = ", ".join(f"{label} {count}" for label, count in tried.items())
    lines = []
    if any(count > 1 for count in tried.values()):
        rows = sorted({_count_rows(row.chosen, test=False) for row in table.rows if row.chosen and len(row.points) > 1})
        which = "lowest" if table.select.arrow == DOWN else "highest"
        lines.append(Line(f"Each row shows the configuration with the {which} mean {table.select.title} on "
                          f"{_span(rows)} validation rows. Its figures are of the test rows, which choose nothing. "
                          f"Configurations tried: {budgets}."))  # fmt: skip
    elif tried:
        lines.append(Line("One configuration of each recipe was run, so nothing was selected."))
    if len(set(tried.values())) > 1:
        lines.append(Line(f"UNEQUAL TUNING BUDGETS: {budgets} configurations. More configurations give a recipe "
                          "more chances.", loud=True))  # fmt: skip
    return lines


def _trained(table: Table) -> Iterator[tuple[str, RunRecord]]:
    """Yield (label, run) of every finished run that is no start of others."""
    return ((row.label, run) for row in table.rows for run in (row.chosen.done if row.chosen and not row.start else ()))


def _checkpoints(table: Table) -> list[Line]:
    """Explain which checkpoint was measured, where the evaluations of training chose it."""
    counts: dict[str, set[int]] = {}
    for label, run in _trained(table):
        counts.setdefault(label, set()).add(int(run.run.get("selecting_evaluations", 0)))
    if not any(map(any, counts.values())):
        return []
    spans = {label: _span(sorted(found)) for label, found in counts.items()}
    each = ", ".join(f"{label} {span}" for label, span in spans.items())
    charged = "Their time counts as training. They read validation rows, so the test rows choose nothing."
    lines = [Line(f"Evaluations that chose the checkpoint: {each}. {charged}")]
    if not all(map(all, counts.values())):
        last = ", ".join(label for label, found in counts.items() if 0 in found)
        lines.append(Line(f"CHECKPOINTS ARE CHOSEN DIFFERENTLY: the last step is measured of {last}, and the best "
                          "evaluation of the others, which gives these more chances.", loud=True))  # fmt: skip
    return lines


def _steps(table: Table) -> list[Line]:
    found: dict[str, list[str]] = {}
    for label, run in _trained(table):
        if "steps" in run.run:
            labels = found.setdefault(f"{run.run['steps']:,.0f} steps of {run.run.get('rows', 0):,.0f} rows", [])
            if label not in labels:
                labels.append(label)
    if not found:
        return []
    if len(found) == 1:
        return [Line(f"Every run took {next(iter(found))}.")]
    each = "; ".join(f"{', '.join(labels)} {steps}" for steps, labels in found.items())
    return [Line(f"STEPS DIFFER: {each}.", loud=True)]


def _sampling_differs(table: Table) -> list[Line]:
    """Warn of replies that were sampled with different settings."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        for run in row.chosen.done if row.chosen else ():
            settings = run.figures.about.get("sampling") or {}
            labels = found.setdefault(", ".join(f"{key} {value}" for key, value in settings.items()), [])
            if row.label not in labels:
                labels.append(row.label)
    if len(found) < 2:
        return []
    each = "; ".join(f"{', '.join(labels)}: {settings}" for settings, labels in found.items())
    return [Line(f"SAMPLING SETTINGS DIFFER: {each}.", loud=True)]


def _estimates_of_kl(table: Table) -> list[Line]:
    """Say how far the two estimates of the KL are apart, in standard errors."""
    kl, sampled = table.column("kl"), table.column("kl_sampled")
    apart = {}
    for row in table.rows if kl is not None and sampled is not None else ():
        one, other = (
            row.chosen.by_seed(column, test=True) if row.chosen and column else {} for column in (sampled, kl)
        )
        pair = paired_numbers(one, other)
        by = paired(*pair.halves, "", pair.groups) if pair else None
        if by and by.se and math.isfinite(by.se):
            apart[row.label] = abs(by.mean) / by.se
    if not apart:
        return []
    label = max(apart, key=lambda name: apart[name])
    return [
        Line(
            "The KL is the sum of each token's exact KL along the replies. The sampled KL, the mean log-ratio of the "
            "same replies, has the same expectation and a larger error. They are at most "
            f"{apart[label]:.1f} standard errors of their paired difference apart ({label})."
        )
    ]


def _unpicked(table: Table) -> list[Line]:
    """Warn of rows whose draws no judge could pick from."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        for _, drawn in best_of_draws(row.chosen.done if row.chosen else ()):
            if problem := drawn.picker["problem"]:
                labels = found.setdefault(f"the judge {drawn.picked_by} failed: {problem}", [])
                if row.label not in labels:
                    labels.append(row.label)
    return [Line(f"NO BEST OF N of {', '.join(labels)}: {why}.", loud=True) for why, labels in found.items()]


def _legend(table: Table) -> str:
    return (
        f"Differences are from {table.baseline}; ≈ marks those whose interval contains 0. Arrows point to the better "
        "direction; a figure without one has none by itself (read a KL together with the reward). Bold figures beat "
        "every other row by a difference whose 95% interval excludes 0, without correction for multiple comparisons. "
        "Differences of costs are relative, in percent of the baseline's geometric mean."
    )


def _provenance(table: Table) -> str:
    about, runs = table.about, list(_runs(table))
    data = ", ".join(dict.fromkeys(run.data[:8] for run in runs))
    starts = ", ".join(dict.fromkeys(run.start[:8] for run in runs if run.start))
    parts = [f"Data {data}", f"start and reference {starts}" if starts else "", _sampling(about.get("samples"))]
    versions = ", ".join(f"{package} {version}" for package, version in about.get("versions", {}).items())
    return "; ".join(filter(None, [*parts, versions, str(about.get("machine", ""))])) + "."


def _sampling(samples: object) -> str:
    if not isinstance(samples, Mapping):
        return ""
    given = samples.get("temperature")
    words = f"temperature {given}"
    if isinstance(given, list | tuple):
        words = f"temperatures {', '.join(f'{one:g}' for one in given)}"
    return f"replies at {words}, at most {samples.get('tokens')} tokens"


def _count_rows(point: Point, test: bool) -> int:
    examples = point.done[0].figures.examples if point.done else {}
    return int(np.count_nonzero((examples["test"] > 0.5) == test)) if "test" in examples else 0


def _span(counts: Sequence[int]) -> str:
    if not counts:
        return "0"
    return f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
