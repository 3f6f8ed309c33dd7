"""Evaluate a finished run without training: figures with intervals, replies, judges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo import __version__
from alignzoo.compare.columns import KNOWN, OF_JUDGE, ORDERED, Column
from alignzoo.compare.eval_data import read_sets
from alignzoo.compare.replies import distinct
from alignzoo.compare.scales import estimate
from alignzoo.compare.statistics import Interval
from alignzoo.core.console import Screen
from alignzoo.data.dataset import tokenized_dataset
from alignzoo.data.row_reader import RowReader, of_set
from alignzoo.data.token_store import TokenStore
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.evaluation.area import pseudovalues
from alignzoo.evaluation.evaluate import row_losses, score_all
from alignzoo.evaluation.figures import figures_of
from alignzoo.evaluation.judging import ask, failure
from alignzoo.evaluation.samples import as_text, choose_reply_rows
from alignzoo.interfaces.judge import Asked, Judge
from alignzoo.models.generation import generate_replies
from alignzoo.models.tokenizers import decode
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.generate import Drawing
from alignzoo.training.needed_runs import open_judges
from alignzoo.training.open_finished import FinishedPolicy
from alignzoo.training.runs import load_finished, read_recipe

LOSS = Column("loss", "loss", "", "", "the objective's loss")
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated of a run."""

    data: Sequence[str] = ()
    """Evaluation sets in place of the run's own rows: see `read_sets`."""
    metrics: Sequence[Any] = ()
    """Metrics besides those of the recipe, as a recipe writes them."""
    judges: Sequence[Any] = ()
    """Judges in place of those of the recipe, as a recipe writes them."""
    prompts: int | None = None
    """Prompts of each set that are replied to; None for the recipe's number where there are judges, and else for 0."""
    drawing: Drawing = field(default_factory=Drawing)

    def overrides(self, folder: Path) -> dict[str, Any]:
        """Return the values that the run's recipe gets."""
        found: dict[str, Any] = {"eval.data": read_sets(self.data)} if self.data else {}
        if self.judges:
            found["eval.judges"] = list(self.judges)
        if self.metrics:
            own = (read_recipe(folder).get("eval") or {}).get("metrics") or []
            new = [_name_of(one) for one in self.metrics]
            found["eval.metrics"] = [*(one for one in own if _name_of(one) not in new), *self.metrics]
        return found


def _name_of(node: Any) -> Any:
    return node.get("name") if isinstance(node, dict) else node


def open_evaluation(folder: Path, asked: Evaluation) -> Resolved:
    """Return the recipe of a finished run with what is evaluated, and nothing else, in `eval`.

    Raises:
        UserError: The run is not finished, or a set, metric or judge has a mistake.
    """
    overrides = asked.overrides(folder)
    resolved = load_finished(folder, overrides)
    names = overrides.get("eval.data", {})
    config = resolved.recipe.eval
    if names:
        config = config.model_copy(update={"data": {name: config.data[name] for name in names}})
    return replace(resolved, recipe=resolved.recipe.model_copy(update={"eval": config}))


def evaluate_run(folder: Path, asked: Evaluation, screen: Screen) -> dict[str, Any]:
    """Evaluate a finished run, and return the report as plain JSON values.

    Figures are those of the run's own evaluations. Implicit rewards are relative to the recipe's reference, which is
    the weights that the run started from unless it names another model; a moving reference stands where it began.

    Args:
        folder: The run folder. Nothing in it is written.
        asked: What is evaluated.
        screen: Shows progress.

    Raises:
        UserError: The run is not finished, a set, metric or judge has a mistake, or weights that are needed are gone.
    """
    resolved = open_evaluation(folder, asked)
    for judge in resolved.recipe.eval.judges:
        judge.ready()
    open_judges(resolved, screen, below="eval.")
    policy = FinishedPolicy(resolved, folder, screen)
    sets = dict(_own_rows(policy) if not asked.data else _named_rows(policy))
    figures = {name: _figures(policy, rows) if rows.trees.answered else {} for name, rows in sets.items()}
    report: dict[str, Any] = describe(policy, asked)
    for name, rows in sets.items():
        report["sets"][name] = {"rows": len(rows.trees), "figures": figures[name], **_replies(policy, rows, asked)}
    return report


def describe(policy: FinishedPolicy, asked: Evaluation) -> dict[str, Any]:
    """Return the report's description of the run and the settings, without sets."""
    eval_ = policy.resolved.plain["eval"]
    return {
        "run": policy.folder.path.name,
        "fingerprint": policy.summary["fingerprint"],
        "weights": policy.summary.get("model", {}).get("trained_weights"),
        "objective": policy.summary.get("objective", {}),
        "settings": {key: eval_[key] for key in ("data", "metrics", "judges")} | {"replies": _settings(policy, asked)},
        "alignzoo": __version__,
        "sets": {},
    }


def _settings(policy: FinishedPolicy, asked: Evaluation) -> dict[str, Any]:
    return {"prompts": _prompts(policy, asked), **asked.drawing.arguments(policy.resolved.recipe)}


def _prompts(policy: FinishedPolicy, asked: Evaluation) -> int:
    recipe = policy.resolved.recipe
    if recipe.objective.head == "scalar":
        return 0
    return asked.prompts if asked.prompts is not None else recipe.eval.replies.num_prompts * bool(recipe.eval.judges)


def _own_rows(policy: FinishedPolicy) -> Iterator[tuple[str, TokenizedRows]]:
    """Yield the rows that the run has evaluated: the held-out ones, and each evaluation set."""
    found = tokenized_dataset(policy.resolved, policy.tokenizer, policy.screen.info, policy.first_day)
    for name, rows in found.evaluated.items():
        yield name or "held_out", rows


def _named_rows(policy: FinishedPolicy) -> Iterator[tuple[str, TokenizedRows]]:
    resolved = policy.resolved
    for name, source in resolved.recipe.eval.data.items():
        with of_set(name):
            store = TokenStore(resolved, policy.tokenizer, policy.first_day, name)
            yield name, store.get(RowReader(source, evaluation=True), policy.screen.info).held_out


def _figures(policy: FinishedPolicy, rows: TokenizedRows) -> dict[str, dict[str, Any]]:
    """Return each figure's mean and interval, clustered by prompt."""
    builder = policy.builder(rows.trees, policy.resolved.recipe.eval.metrics)
    batch = score_all(policy.scorer, builder, policy.budget, policy.screen, "evaluation")
    loss = {} if builder.groups else {"loss": row_losses(builder, batch)}
    found = figures_of(builder, batch, np.ones(len(rows.trees), np.bool_), policy.screen)
    kinds = [found.pop(name) for name in ("desirable", "undesirable") if name in found]
    found.pop("test")
    groups, figures = np.array([row.group for row in rows.rows]), {}
    for name, values in (loss | found).items():
        weights = None
        if kinds and name in ORDERED:
            values, weights = pseudovalues(values, *kinds)
        if (one := figure_of(column_of(name), values, groups, weights)) is not None:
            figures[name] = one
    return figures


def column_of(name: str) -> Column:
    """Return the column of a figure, whose scale its interval has."""
    return next((one for one in (LOSS, *KNOWN) if one.key == name), Column(name, name.replace("_", " "), ""))


def figure_of(
    column: Column, values: Numbers, groups: NDArray[Any], weights: Numbers | None = None
) -> dict[str, Any] | None:
    """Return the mean of a figure over rows and its 95% interval; None without a number."""
    known = np.isfinite(values)
    if not known.any():
        return None
    weights = None if weights is None else weights[known]
    return as_figure(column.title, estimate(values[None, known], column.scale, groups[known], weights))


def as_figure(title: str, found: Interval) -> dict[str, Any]:
    """Return an interval as JSON values."""
    numbers = {key: float(getattr(found, key)) for key in ("mean", "low", "high", "se")}
    return {"title": title} | {key: value if math.isfinite(value) else None for key, value in numbers.items()} | {
        "n": found.examples, "prompts": found.clusters,
    }  # fmt: skip


def _replies(policy: FinishedPolicy, rows: TokenizedRows, asked: Evaluation) -> dict[str, Any]:
    """Return the replies to some prompts of a set, their figures and those of the judges."""
    recipe, count = policy.resolved.recipe, _prompts(policy, asked)
    chosen = choose_reply_rows(rows, count) if recipe.data.train_on != "all" else []
    if not chosen:
        return {}
    prompts = [rows.trees[i].prompt for i in chosen]
    with policy.screen.bar("replies", len(prompts)) as advance:
        replies = generate_replies(
            policy.scorer.model, policy.tokenizer, prompts, **asked.drawing.arguments(recipe), progress=advance
        )
    own = [rows.rows[i] for i in chosen]
    lines: list[dict[str, Any]] = [
        {"id": row.id, "prompt": prompt, "reply": reply.text, "length": len(reply.tokens), "finished": reply.finished,
         "entropy": reply.entropy, "distinct_2": distinct(reply.text, 2)}
        for row, prompt, reply in zip(own, decode(policy.tokenizer, prompts), replies, strict=True)
    ]  # fmt: skip
    groups = np.array([row.group for row in own])
    figures = {
        name: one for name in ("length", "finished", "entropy", "distinct_2")
        if (one := figure_of(column_of(name), _numbers([line[name] for line in lines]), groups))
    }  # fmt: skip
    asked_of = Asked(
        [row.prompt for row in own], [reply.text for reply in replies], [row.all_columns for row in own],
        [reply.finished for reply in replies], [reply.tokens.tolist() for reply in replies], [row.id for row in own],
    )  # fmt: skip
    answers = [as_text(row, 0) or None for row in own]
    judges = {
        judge.name: _judged(judge, asked_of, answers, lines, groups, policy.screen) for judge in recipe.eval.judges
    }
    return {"replies": lines, "reply_figures": figures, **({"judges": judges} if judges else {})}


def _judged(
    judge: Judge, asked: Asked, chosen: Sequence[str | None], lines: Sequence[dict[str, Any]], groups: NDArray[Any],
    screen: Screen,
) -> dict[str, Any]:  # fmt: skip
    """Return a judge's figures, or its `problem`, and add its verdicts to the lines."""
    try:
        verdicts = ask(judge, asked, chosen, None, screen.info)
    except (Exception, SystemExit) as error:  # a judge may fail in any way
        screen.info(f"judge {judge.name} failed ({failure(error)}); its figures are left out")
        return {"problem": failure(error)}
    for line, verdict in zip(lines, verdicts, strict=True):
        line.setdefault("judges", {})[judge.name] = verdict
    columns = [Column(key, title, "", "", "", scale) for key, title, _, scale in OF_JUDGE]
    found = {one.key: figure_of(one, _numbers([v.get(one.key) for v in verdicts]), groups) for one in columns}
    return {key: figure for key, figure in found.items() if figure is not None}


def _numbers(values: Sequence[Mapping[str, Any] | float | None]) -> Numbers:
    return np.array([math.nan if value is None else value for value in values], np.float64)
