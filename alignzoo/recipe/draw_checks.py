"""Contradictions between the section `draw` and the rest of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alignzoo.interfaces.data_source import DataSource
from alignzoo.objectives.no_training import NoTraining
from alignzoo.recipe.draw import DrawConfig
from alignzoo.recipe.optimizers import OPTIMIZERS
from alignzoo.recipe.problems import Problems
from alignzoo.recipe.rollout import RolloutConfig

SECTIONS = ("name", "plugins", "draw", "model", "data", "tokens", "train", "seed")
"""Sections of a recipe with `draw`."""
OF_TRAIN = ("device", "precision")
"""Keys of `train` that a recipe with `draw` has."""
OF_READING = ("pairs", "label_noise", "label_noise_seed")
"""Keys of `data` that belong to the recipes that read the draws."""
READ_BY = {
    "pairs": "data.pairs of the recipe that reads the draws: extremes, adjacent, or all",
    "labels": "data.labels of the recipe that reads the draws: mean, or a number",
    "prompts": "data.max_train_rows, the number of prompts",
    "held_out_prompts": "data.held_out_rows, the number of held-out prompts",
    "epochs": "train.epochs of the recipe that reads the draws",
    "reference": "references of the recipe that reads the draws",
}
"""Key of `rollout` that `draw` lacks -> what has its place."""
MEANINGLESS = "it has no meaning beside `draw`, which trains nothing"
Found = tuple[tuple[str, ...], str, str]
"""The key, what is wrong, and what was expected."""


def complete_draw(plain: dict[str, Any], problems: Problems) -> None:
    """Fill in the sections of training, and add a problem for each key of one that is written."""
    from alignzoo.recipe.schema import Recipe

    for key in [key for key in plain if key in Recipe.model_fields and key not in SECTIONS]:
        if plain.pop(key) is not None:
            expected = "the same keys under `draw`" if key == "rollout" else "no such section"
            problems.add((key,), MEANINGLESS, expected)
    train = plain.get("train") or {}
    for key in [key for key in train if key not in OF_TRAIN] if isinstance(train, dict) else ():
        problems.add(("train", key), MEANINGLESS, " or ".join(OF_TRAIN))
    if isinstance(train, dict):
        kept = {key: train[key] for key in OF_TRAIN if key in train}
        plain["train"] = kept | {"optimizer": OPTIMIZERS["sgd"](learning_rate=1)}  # stands in for one
    section = plain["draw"]
    for key in [key for key in section if key not in DrawConfig.model_fields] if isinstance(section, dict) else ():
        if key in RolloutConfig.model_fields:
            expected = READ_BY.get(key, "no such key")
            problems.add(("draw", key), "it belongs to `rollout`, and has no meaning in `draw`", expected)
            del section[key]
    plain["objective"], plain["reporters"] = NoTraining(), []


def check_draw(plain: Mapping[str, Any], problems: Problems) -> None:
    """Add a problem for each contradiction between `draw` and data, tokens or its own keys."""
    section, data = plain["draw"], plain.get("data")
    if not isinstance(section, dict):
        return
    for own in OF_READING if isinstance(data, DataSource) else ():
        if getattr(data, own) != (default := DataSource.model_fields[own].default):
            problems.add(("data", own), "it belongs to the recipes that read the draws", f"{default}")
    if getattr(data, "train_on", "") == "all":
        problems.add(("data", "train_on"), "'all' leaves no prompts to complete", "assistant")
    count = section.get("completions", DrawConfig.model_fields["completions"].default)
    if "rewards" not in section and count != 1:
        problems.add(("draw", "rewards"), "missing", "a list of judges, or completions: 1")
    for n, reward in enumerate(section.get("rewards", ())):
        if count == 1 and reward.judge.only_compares:
            what = f"{reward.judge.name} compares replies and gives no scores"
            problems.add(("draw", "rewards", str(n)), what, "a judge that scores each reply")
        elif count == 1 and reward.normalize == "group":
            key = ("draw", "rewards", str(n), "normalize")
            problems.add(key, "a prompt has one completion", "completions of at least 2")
    for found in of_any_draw(plain, section, "draw"):
        problems.add(*found)


def of_any_draw(plain: Mapping[str, Any], section: Mapping[str, Any], name: str) -> Iterator[Found]:
    """Yield the contradictions that `draw` and `rollout` share."""
    if section.get("penalty", 1.0) != 1.0 and section.get("unfinished") != "penalty":
        yield (name, "penalty"), "it has no effect", "unfinished: penalty"
    tokens = plain.get("tokens") or {}
    limit, new = tokens.get("max_length", 512) if isinstance(tokens, dict) else 512, section.get("max_new_tokens", 48)
    if isinstance(limit, int) and isinstance(new, int) and new >= limit:
        yield (name, "max_new_tokens"), f"it leaves no room for a prompt in tokens.max_length, {limit}", "less"
