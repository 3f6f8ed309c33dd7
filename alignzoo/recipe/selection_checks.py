"""Checks of the figures that choose the best checkpoint and stop training."""

from __future__ import annotations

from alignzoo.core.errors import nearest
from alignzoo.recipe.problems import Problems
from alignzoo.recipe.schema import Recipe

SIDES = ("chosen", "rejected")
FIGURES = (
    "loss", "preference_accuracy", "likelihood_accuracy", "margin",
    *(f"{side}_{name}" for side in SIDES for name in ("reward", "log_prob", "log_ratio")),
)  # fmt: skip
"""Figures of evaluations. An objective has those that its data allows."""


def check_selection(recipe: Recipe, problems: Problems) -> None:
    """Add a problem for each figure that `train` chooses by and no evaluation gives."""
    train, stopping = recipe.train, recipe.train.early_stopping
    best, watched = ("train", "keep_best"), ("train", "early_stopping")
    if stopping is not None and train.stopping_metric is None:
        problems.add(watched, "no figure is named to stop by", "metric: loss, or train.keep_best")
    named = {best: train.keep_best, (*watched, "metric"): stopping.metric if stopping else None}
    for at, metric in named.items():
        if metric is not None:
            _check_figure(recipe, at, metric, problems)
    if (train.keep_best or stopping) and recipe.eval.every is None:
        at = best if train.keep_best else watched
        problems.add(at, "nothing is evaluated during training", "eval.every, such as 100")
    if train.greater_is_better is not None:
        at = ("train", "greater_is_better")
        if train.best_metric is None:
            problems.add(at, "no figure chooses the checkpoint", "train.keep_best, or no such key")
        elif train.stopping_metric not in (None, train.best_metric):
            problems.add(at, f"it can't be of both {train.best_metric} and {train.stopping_metric}", "one figure")


def _check_figure(recipe: Recipe, at: tuple[str, ...], metric: str, problems: Problems) -> None:
    part, _, figure = metric.rpartition("/")
    if part and part not in recipe.eval.data:
        close = nearest(part, recipe.eval.data)
        expected = "" if close else "a name under eval.data"
        problems.add(at, f"no evaluation set is called '{part}'", expected, f"{close}/{figure}" if close else "")
    known = [*FIGURES, *(metric.name for metric in recipe.eval.metrics)]
    if figure not in known and (part or recipe.rollout is None):  # held-out draws have figures of their rewards too
        close = nearest(figure, known)
        expected = "" if close else f"one of {', '.join(known)}"
        problems.add(at, f"evaluations have no figure '{figure}'", expected, close)
