"""Arguments that several commands have: of a recipe, of draws, and of an export."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from alignzoo.recipe.sampling import LEAST_TOP_P, check_temperature


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
        try:
            return check_temperature(click.FLOAT.convert(value, param, ctx))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class TopP(click.FloatRange):
    """The share of the distribution that is drawn from."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, or end with a usage error."""
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


def value_of(text: str) -> Any:
    """Parse a YAML value: a number, a word, {name: ...}."""
    from alignzoo.core.errors import UserError
    from alignzoo.recipe.parse import COMMAND_LINE, parse

    node = parse(f"value: {text}", COMMAND_LINE)
    if node is None or node.value["value"].value is None:
        raise UserError(f"'{text}' is not a value", where=COMMAND_LINE)
    return node.value["value"].plain()


def _shard_size(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?\s*[KMG]i?B", value, re.IGNORECASE):
        raise click.BadParameter("expected a size such as 5GB or 500MB")
    return value


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that exports a policy: merge, type and size of files."""
    for option in (
        click.option(
            "--max-shard-size", "shard", default="5GB", show_default=True, callback=_shard_size,
            help="Maximum size of a file.",
        ),
        click.option(
            "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
            help="Dtype of full weights; default: as the weights that training started from.",
        ),
        click.option("--merge", is_flag=True, help="Merge trained adapters into full weights."),
    ):  # fmt: skip
        command = option(command)
    return command
