"""Named signatures of training that goes wrong, from the records of a run.

Each is a function from records to a `Sign`: found, not found, or not known because a record is missing. None runs a
model. The limits are conventions, and stand in the text of each sign beside its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.door import translate
from alignzoo.evaluation.aggregate import Z
from alignzoo.training.records import HELD_OUT, HeldOutRow, Line, read_data_report, read_lines
from alignzoo.training.run_folder import RunFolder

Lines = Sequence[dict[str, Any]]
LEAST_FALL = 0.01
"""Share of the chosen log-prob at the start that it falls by, at least, to be a displacement."""
LEAST_CORRELATION = 0.1
"""A correlation below it is small (Cohen 1988)."""
FAR = 5.0
"""Robust standard deviations below the median margin from which a negative margin is far below the others."""
TOP, LARGE_SHARE, LEAST_ROWS = 0.01, 0.25, 100
"""The largest rows, the share of the gradient that is too much for them, and the fewest rows that are judged."""
WORST = 10
"""Rows that are listed."""


@dataclass(frozen=True, slots=True)
class Sign:
    """A signature: whether it was found, the numbers behind it, and what people do about it."""

    name: str
    found: bool | None
    """None if it is not known."""
    numbers: list[tuple[str, str]] = field(default_factory=list)
    """(name, value with its unit)."""
    advice: str = ""
    """One sentence, with the paper."""
    missing: str = ""
    """The record that is missing, if it is not known."""
    rows: list[tuple[str, str]] = field(default_factory=list)
    """(id, numbers) of the rows behind it, the worst first."""

    @property
    def verdict(self) -> str:
        """Found, not found, or not known."""
        return {True: "found", False: "not found", None: "not known"}[self.found]

    def line(self) -> str:
        """Return the sign in one line."""
        why = self.missing if self.found is None else "; ".join(f"{name} {value}" for name, value in self.numbers)
        return f"{self.name}: {self.verdict}{f' ({why})' if why else ''}"


def diagnose(folder: Path) -> list[Sign]:
    """Return every sign of a run, from the files in its folder.

    Raises:
        BadFile: A file is damaged.
    """
    with translate(folder, "the run's records", "run the recipe again, or with --fresh"):
        lines = read_lines(folder / "metrics.jsonl", Line, nan=True)
        return signs(folder, lines, read_data_report(folder), kept_step(RunFolder(folder).summary() or {}))


def kept_step(summary: dict[str, Any]) -> int | None:
    """Return the step of the checkpoint that a run chose, or None for the last one."""
    found: int | None = summary.get("selection", {}).get("step")
    return found


def signs(folder: Path, lines: Lines, data: dict[str, Any], step: int | None = None) -> list[Sign]:
    """Return every sign of a run whose metrics.jsonl and data.json are read.

    `step` is that of the checkpoint that was kept, and of the recorded rows; None for the last one.
    """
    rows = read_lines(folder / HELD_OUT, HeldOutRow)
    return [
        displacement(lines, rows, step), length_exploitation(rows), over_optimization(lines), wrong_labels(rows),
        dominating_rows(rows), leakage(data),
    ]  # fmt: skip


def displacement(lines: Lines, rows: Lines = (), step: int | None = None) -> Sign:
    """Find likelihood displacement: chosen completions less likely, though the margin rose.

    It is found if the mean held-out log-prob of the chosen ones fell by more than 1%, and by more than its standard
    error explains where the rows are recorded.
    """
    name = "likelihood displacement"
    evals = [line for line in _of(lines, "eval") if _known(line, "chosen_log_prob", "rejected_log_prob")]
    if len(evals) < 2:
        return Sign(name, None, missing="needs evaluations of pairs by log-probs, before training and after")
    first, last = evals[0], next((line for line in evals if line["step"] == step), evals[-1])
    fall = last["chosen_log_prob"] - first["chosen_log_prob"]
    other = last["rejected_log_prob"] - first["rejected_log_prob"]
    numbers = [
        ("chosen log-prob", f"{first['chosen_log_prob']:.2f} to {last['chosen_log_prob']:.2f} nats ({fall:+.2f})"),
        ("rejected log-prob", f"{first['rejected_log_prob']:.2f} to {last['rejected_log_prob']:.2f} ({other:+.2f})"),
    ]
    noise = 0.0
    ratios = _column(rows, "chosen_log_ratio")
    if len(ratios) > 1 and abs(first.get("chosen_log_ratio", math.inf)) < 1e-3:  # the reference is the start
        noise = Z * float(ratios.std(ddof=1)) / math.sqrt(len(ratios))
        low, high = ratios.mean() - noise, ratios.mean() + noise
        numbers.append(
            (
                "chosen rows that fell",
                f"{(ratios < 0).mean():.0%} of {len(ratios):,}, 95% of the change {low:+.2f} to {high:+.2f}",
            )
        )
    found = fall < -max(LEAST_FALL * abs(first["chosen_log_prob"]), noise) and fall > other
    return Sign(
        name, found, numbers,
        "People filter pairs of similar completions (metric `ches`), or add a term on the chosen likelihood, as `dpop` "
        "and `rpo` do: Razin et al. 2024, arXiv:2410.08847; Pal et al. 2024, arXiv:2402.13228.",
    )  # fmt: skip


def length_exploitation(rows: Lines) -> Sign:
    """Find length exploitation: the margin of a held-out row follows its difference in length.

    It is found if the 95% interval of Spearman's correlation (standard error of Bonett and Wright 2000) is beyond 0.1
    on either side: the policy favors longer or shorter completions, whatever the data prefers.
    """
    name = "length exploitation"
    known = [row for row in rows if _known(row, "margin", "chosen_length", "rejected_length")]
    margin = _column(known, "margin")
    difference = _column(known, "chosen_length") - _column(known, "rejected_length")
    if len(known) < 10 or np.ptp(difference) == 0 or np.ptp(margin) == 0:
        return Sign(name, None, missing=f"needs 10 held-out pairs of different lengths in {HELD_OUT}")
    correlation, low, high = spearman(margin, difference)
    words = f"{correlation:.2f} (95% {low:.2f} to {high:.2f}), {len(known):,} rows"
    numbers = [("correlation of margin and chosen less rejected length", words)]
    if found := low > LEAST_CORRELATION or high < -LEAST_CORRELATION:
        numbers.append(("favored", "longer completions" if correlation > 0 else "shorter completions"))
    for words, of in (("longer", difference > 0), ("shorter", difference < 0)):
        if of.any():
            right = (margin[of] > 0).mean() + (margin[of] == 0).mean() / 2
            numbers.append((f"accuracy where the chosen is {words}", f"{right:.3f} of {of.sum():,}"))
    return Sign(
        name, found, numbers,
        "People take length out of the objective: a length penalty (`r_dpo`, Park et al. 2024, arXiv:2403.19159), mean "
        "log-probs (`simpo`, Meng et al. 2024, arXiv:2405.14734) or `length_desensitization` (Liu et al. 2024, "
        "arXiv:2409.06411).",
    )  # fmt: skip


def over_optimization(lines: Lines) -> Sign:
    """Find over-optimization: a larger KL, and a held-out figure that fell from its best.

    The figure is the held-out reward of draws, or else the preference accuracy. It is found if the fall exceeds the
    95% margin of the figure's standard error.
    """
    name = "over-optimization"
    evals = _of(lines, "eval")
    figure = next((key for key in ("reward", "preference_accuracy") if sum(_known(one, key) for one in evals) > 2), "")
    evals = [line for line in evals if figure and _known(line, figure)]
    if not figure:
        return Sign(name, None, missing="needs three evaluations: lower eval.every")
    distances = [_distance(line, lines) for line in evals]
    if distances[0] is None or distances[-1] is None:
        return Sign(name, None, missing="needs a KL from the reference: a run with draws, or with log-ratios")
    best = max(range(len(evals)), key=lambda n: evals[n][figure])
    last = evals[-1]
    fall = last[figure] - evals[best][figure]
    noise = Z * float(last.get(f"{figure}_se", 0.0))
    near, far = distances[best], distances[-1]
    unit = "KL from the reference" if _known(last, "kl") or _of(lines, "rollout") else "mean absolute log-ratio"
    numbers = [
        (f"held-out {figure.replace('_', ' ')}", f"best {evals[best][figure]:.3f} at step {evals[best]['step']:,}, "
                                                 f"last {last[figure]:.3f} ({fall:+.3f}, noise {noise:.3f})"),
        (unit, f"{near or 0:.2f} to {far:.2f} nats since then" if best < len(evals) - 1 else f"{far:.2f} nats"),
    ]  # fmt: skip
    moved = near is not None and far > near
    return Sign(
        name, fall < -noise and fall < 0 and moved, numbers,
        "People stop at the best evaluation, strengthen the tie to the reference (a larger beta or KL coefficient), or "
        "lower the learning rate: Gao et al. 2022, arXiv:2210.10760; Rafailov et al. 2024, arXiv:2406.02900.",
    )  # fmt: skip


def wrong_labels(rows: Lines) -> Sign:
    """Find labels that are likely wrong: held-out rows whose margin is far below the others.

    Far is a negative margin more than 5 robust standard deviations (1.4826 times the median absolute deviation) below
    the median. Most labels must be right, and the model must have learned them, for it to be seen.
    """
    name = "labels that are likely wrong"
    known = [row for row in rows if _known(row, "margin")]
    margin = _column(known, "margin")
    if len(known) < 10:
        return Sign(name, None, missing=f"needs the margins of 10 held-out rows in {HELD_OUT}")
    middle = float(np.median(margin))
    spread = 1.4826 * float(np.median(np.abs(margin - middle)))
    limit = min(0.0, middle - FAR * spread)
    far = np.flatnonzero(margin < limit) if middle > 0 else np.array([], dtype=np.int64)
    worst = far[np.argsort(margin[far], kind="stable")][:WORST]
    numbers = [
        ("rows with a margin below the limit", f"{len(far):,} of {len(known):,}"),
        ("margin", f"median {middle:.3g}, robust standard deviation {spread:.3g}, limit {limit:.3g}"),
    ]
    return Sign(
        name, bool(len(far)), numbers,
        "People read these rows, and drop or relabel them, or train with label smoothing or `robust_dpo`: Northcutt et "
        "al. 2019, arXiv:1911.00068; Chowdhury et al. 2024, arXiv:2403.00409.",
        rows=[(str(known[i]["id"]), _row_words(known[i])) for i in worst],
    )  # fmt: skip


def dominating_rows(rows: Lines) -> Sign:
    """Find rows that dominate the gradient: 1% of the rows hold a quarter of its weight.

    The weight of a row is the size of the loss's derivative with respect to its sequences' log-probs.
    """
    name = "rows that dominate the gradient"
    known = [row for row in rows if _known(row, "gradient_weight")]
    weight = _column(known, "gradient_weight")
    total = float(weight.sum())
    if len(known) < LEAST_ROWS or not total:
        return Sign(name, None, missing=f"needs the gradient weights of {LEAST_ROWS} held-out rows in {HELD_OUT}")
    order = np.argsort(-weight, kind="stable")
    top = max(1, round(TOP * len(known)))
    share = float(weight[order[:top]].sum()) / total
    numbers = [
        (f"share of the largest {top:,} of {len(known):,} rows", f"{share:.1%}"),
        ("effective number of rows, (sum w)^2 / sum w^2", f"{total**2 / float(weight @ weight):,.0f}"),
    ]
    return Sign(
        name, share >= LARGE_SHARE, numbers,
        "People read these rows, leave outliers out (`beta_dpo`, Wu et al. 2024, arXiv:2407.08639) or bound the loss "
        "with label smoothing (Mitchell 2023, a note on DPO with noisy preferences).",
        rows=[(str(known[i]["id"]), f"{weight[i] / total:.1%} of the weight, {_row_words(known[i])}")
              for i in order[: min(top, WORST)]] if share >= LARGE_SHARE else [],
    )  # fmt: skip


def leakage(data: dict[str, Any]) -> Sign:
    """Find leakage: rows that are trained on and held out, or are in an evaluation set."""
    name = "leakage"
    sets = {"held out": data.get("overlap")}
    sets |= {name: own.get("overlap") for name, own in (data.get("evaluation") or {}).items()}
    counts = {name: overlap for name, overlap in sets.items() if overlap}
    if not counts:
        return Sign(name, None, missing="data.json has no counts of rows in both splits")
    numbers = [
        (f"rows trained on and in {name}" if name != "held out" else "rows trained on and held out",
         f"{overlap['rows']:,}, and {overlap['prompts']:,} rows with a prompt that is trained on")
        for name, overlap in counts.items()
    ]  # fmt: skip
    return Sign(
        name, any(overlap["rows"] for overlap in counts.values()), numbers,
        "People remove the copies (`data.deduplicate: true`, or another split) before they believe a held-out figure: "
        "Lee et al. 2021, arXiv:2107.06499.",
    )  # fmt: skip


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return Spearman's rank correlation of (N,) values and its 95% interval.

    The interval is Fisher's with the standard error sqrt((1 + r^2 / 2) / (N - 3)): Bonett and Wright 2000,
    Psychometrika 65, equation 3.
    """
    r = float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])
    if abs(r) > 1 - 1e-12:
        return r, r, r
    half = Z * math.sqrt((1 + r * r / 2) / (len(x) - 3))
    return r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks of values; equal ones share their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[group]
    return ranks


def _of(lines: Lines, kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("kind") == kind]


def _known(line: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(line.get(key), int | float) and math.isfinite(line[key]) for key in keys)


def _column(rows: Lines, key: str) -> NDArray[np.float64]:
    return np.array([row[key] for row in rows if _known(row, key)], dtype=np.float64)


def _distance(line: dict[str, Any], lines: Lines) -> float | None:
    """Return the distance of policy and reference at an evaluation, in nats, or None.

    It is the KL of held-out draws, or that of training's draws, or the mean absolute log-ratio of the data.
    """
    if _known(line, "kl"):
        return float(line["kl"])
    drawn = [one["kl"] for one in _of(lines, "rollout") if _known(one, "kl") and one["step"] <= line["step"]]
    if drawn:
        return median(drawn[-5:])
    if _known(line, "chosen_log_ratio", "rejected_log_ratio"):
        return (abs(line["chosen_log_ratio"]) + abs(line["rejected_log_ratio"])) / 2
    return None


def _row_words(row: dict[str, Any]) -> str:
    words = [f"margin {row['margin']:.3g}"] if _known(row, "margin") else []
    if _known(row, "chosen_length", "rejected_length"):
        words.append(f"{row['chosen_length']:.0f} chosen and {row['rejected_length']:.0f} rejected tokens")
    return ", ".join(words)
