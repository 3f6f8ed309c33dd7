"""Checks of an objective against the model that it trains and the figures measured."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from alignzoo.core.errors import nearest
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.recipe.problems import Problems

OF_TRAINING = ("max_train_rows", "label_noise", "held_out_fraction", "weights")
"""Fields of a data source that have no meaning for an evaluation set."""
SPLITS = ("train", "held_out")
POLICY = {"scalar": "a reward model", "language_model": "a language model"}


def check_adapters(objective: Any, model: Any, problems: Problems) -> None:
    """Add a problem for an objective that can't train adapters of this model."""
    if not isinstance(objective, Objective) or not isinstance(model, ModelSource) or model.lora is None:
        return
    if objective.reference == "moving":
        problems.add(
            ("model", "lora"),
            f"{objective.name} averages the weights of policy and reference, and the product of averaged adapters is "
            "not the average of their products",
            "an objective with a frozen reference",
        )
    if objective.head == "scalar" and model.quantize:
        problems.add(
            ("model", "quantize"),
            f"{objective.name} trains a reward model, and its new head has no quantized weights to load",
            "lora without quantize",
        )


def check_evaluation_sets(sets: dict[str, DataSource], problems: Problems) -> None:
    """Add a problem for each field of an evaluation set that describes training rows."""
    for name, source in sets.items():
        if name in SPLITS:
            problems.add(("eval", "data", name), "this is the name of a split of `data`", "another name")
        own = _of_training(source)
        found: list[tuple[tuple[str, ...], str]] = [((), key) for key in sorted(own)]
        for n, part in enumerate(getattr(source, "of", ())):  # what a source takes from its mixture is told once
            found += [(("of", str(n)), key) for key in sorted(_of_training(part) - own)]
        for at, key in found:
            problems.add(
                ("eval", "data", name, *at, key),
                "it describes rows to train on, and all rows of this set are held out",
                "held_out_rows, to use fewer of them" if key == "max_train_rows" else "no such field",
            )


def _of_training(source: DataSource) -> set[str]:
    fields = type(source).model_fields
    return {key for key in OF_TRAINING if key in fields and getattr(source, key) != fields[key].default}


def check_references(objective: Any, section: Any, names: Collection[str], drawn: bool, problems: Problems) -> None:
    """Add a problem for each reference that is read but not named, or named but not read."""
    if not isinstance(objective, Objective):
        return
    metrics = section.get("metrics", ()) if isinstance(section, dict) else ()
    readers: list[tuple[tuple[str, ...], Objective | Metric]] = [(("objective",), term) for _, term in objective.terms]
    readers += [(("eval", "metrics", str(i)), metric) for i, metric in enumerate(metrics)]
    read = {name for _, one in readers for name in one.references}
    for at, one in readers:
        for name in one.references:
            if name not in names:
                expected = f"references: {{{name}: RECIPE}}, or {{{name}: {{path: FOLDER}}}}"
                what = f"{one.name} reads the reference '{name}', which the recipe does not name"
                problems.add(at, what, expected, nearest(name, set(names) - read))
        if one.named_reference and "reference" not in names:
            what = f"{one.name} learns from another model, such as a teacher, which the recipe does not name"
            expected = "references: {reference: RECIPE}, or {reference: {path: FOLDER}}"
            problems.add(at, what, expected, nearest("reference", set(names) - read))
    if any(one.reference != "none" for _, one in readers):
        read.add("reference")
    if drawn and objective.references:
        what = f"{objective.name} reads the reference '{objective.references[0]}', which scores no draws"
        problems.add(("rollout",), what, "a recipe without `rollout`")
    for name in names:
        if name not in read:
            expected = f"one of {', '.join(sorted(read))}" if read else "no references"
            problems.add(("references", name), "nothing reads this reference", expected, nearest(name, read))
    if objective.reference == "moving" and "reference" in names:
        problems.add(
            ("references", "reference"), f"{objective.name} moves its reference, which starts as the policy does",
            "an objective with a frozen reference",
        )  # fmt: skip


def check_filter(objective: Any, metric: Any, drawn: bool, problems: Problems) -> None:
    """Add a problem if a filter's metric needs more than the training rows and the start."""
    if not isinstance(objective, Objective) or not isinstance(metric, Metric):
        return
    at = ("filter", "metric")
    if drawn:
        problems.add(("filter",), "draws are not filtered before training", "no filter, or no rollout")
    if metric.head != objective.policy_head:
        problems.add(at, f"{metric.name} measures {POLICY[metric.head]}")
    if metric.reference != "none" or metric.references:
        problems.add(at, f"{metric.name} reads a reference, which has scored nothing yet", "a metric of the start")
    missing = sorted(set(metric.columns) - set(objective.columns))
    if missing:
        problems.add(at, f"{metric.name} reads the column '{missing[0]}', which {objective.name} does not")


def check_figures(objective: Any, section: dict[str, Any], problems: Problems) -> None:
    """Add a problem for each metric or judge of `eval` that the policy gives no input."""
    if not isinstance(objective, Objective):
        return
    for i, metric in enumerate(section.get("metrics", ())):
        if metric.head != objective.policy_head:
            problems.add(
                ("eval", "metrics", str(i)),
                f"{metric.name} measures {POLICY[metric.head]}, and "
                f"{objective.name} trains {POLICY[objective.policy_head]}",
            )
    if objective.head == "scalar" and section.get("judges"):
        problems.add(("eval", "judges"), f"{objective.name} trains a reward model, which writes no replies to judge")
