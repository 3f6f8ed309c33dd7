"""Checks across sections: an objective with the model that it trains and the figures that are measured."""

from __future__ import annotations

from typing import Any

from alignzoo.interfaces.model_source import ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.recipe.problems import Problems

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


def check_figures(objective: Any, section: dict[str, Any], problems: Problems) -> None:
    """Add a problem for each metric or judge of `eval` that the trained policy has no input for."""
    if not isinstance(objective, Objective):
        return
    for i, metric in enumerate(section.get("metrics", ())):
        if metric.head != objective.head:
            problems.add(
                ("eval", "metrics", str(i)),
                f"{metric.name} measures {POLICY[metric.head]}, and {objective.name} trains {POLICY[objective.head]}",
            )
    if objective.head == "scalar" and section.get("judges"):
        problems.add(("eval", "judges"), f"{objective.name} trains a reward model, which writes no replies to judge")
