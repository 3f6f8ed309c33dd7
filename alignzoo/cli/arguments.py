"""Arguments of the commands on a recipe: `RECIPE [key=value ...] --with OVERLAY ...`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click


def recipe_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments `recipe`, `overrides` and `overlays` to a command."""
    command = click.option(
        "--with",
        "overlays",
        multiple=True,
        metavar="OVERLAY",
        help="A recipe to merge on top; repeatable.",
    )(command)
    command = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")(command)
    return click.argument("recipe")(command)


class Temperature(click.FloatRange):
    """The temperature of draws: 0 for the likeliest token, or a divisor of the logits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the temperature, or end with a usage error."""
        from alignzoo.recipe.rollout import LEAST_TEMPERATURE

        number: float = click.FLOAT.convert(value, param, ctx)
        if not (number == 0 or LEAST_TEMPERATURE <= number < math.inf):
            self.fail(f"{value} is neither 0 nor a number of at least {LEAST_TEMPERATURE}.", param, ctx)
        return number


class TopP(click.FloatRange):
    """The share of the distribution that is drawn from."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, or end with a usage error."""
        from alignzoo.recipe.rollout import LEAST_TOP_P

        number: float = click.FLOAT.convert(value, param, ctx)
        if not LEAST_TOP_P <= number <= 1:
            self.fail(f"{value} is no number from {LEAST_TOP_P} to 1.", param, ctx)
        return number


def drawing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that draws: temperature, top-p, length and seed."""
    for option in (
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the draws."),
        click.option(
            "--max-new-tokens", type=click.IntRange(1), help="Limit of a reply; default: eval.replies.max_new_tokens."
        ),
        click.option(
            "--top-p", type=TopP(0, 1, min_open=True), default=1.0, show_default=True,
            help="Draw from the likeliest tokens with this share of the mass.",
        ),
        click.option(
            "--temperature", type=Temperature(min=0), default=0.0, show_default=True,
            help="0 takes the likeliest token.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command
