"""`alignzoo compare`: recipes side by side, and the table that can be believed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from alignzoo.compare.plan import Plan
    from alignzoo.compare.spec import Comparison
    from alignzoo.core.console import Screen
    from alignzoo.recipe.parse import Node


@click.command(name="compare")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE... | COMPARISON")
@click.option("--name", help="What the folder is called.")
@click.option("--seeds", type=int, help="Runs of each configuration (3).")
@click.option("--grid", multiple=True, metavar="KEY=A,B,...", help="Values to choose from on the validation split.")
@click.option("--rows", multiple=True, metavar="KEY=A,B,...", help="Values that are rows of their own.")
@click.option("--with", "overlays", multiple=True, help="A recipe laid on top of every one.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One value of every recipe.")
@click.option("--baseline", help="The row that the others are compared with.")
@click.option("--select", help="What the best grid point is chosen by (preference_accuracy).")
@click.option("--judge", "judges", multiple=True, help="Who reads the replies: a name, or {name: ..., fields}.")
@click.option("--samples", "prompts", type=int, help="Prompts answered by every run (128).")
@click.option("--sample-tokens", "tokens", type=int, help="At most so many new tokens a reply (64).")
@click.option("--temperature", type=float, help="Of the sampled replies (1).")
@click.option("--allow-different-data", is_flag=True, default=None, help="Rows on different data, or starts.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print table.json on stdout.")
def command(recipes: tuple[str, ...], dry_run: bool, as_json: bool, **options: Any) -> None:
    """Train every RECIPE at every grid point and seed, measure all alike, and leave a folder with the table.

    What can be shared is done once: the run that they start from, the tokens, the reference pass. The same command
    again goes on where it was stopped; finished runs are never done again. A run that fails is a row that says so.
    """
    from alignzoo.compare.plan import make_plan
    from alignzoo.compare.spec import make_judges
    from alignzoo.core.console import Screen

    comparison, node = _comparison(recipes, options)
    judges = make_judges(comparison.judges, node)
    for judge in judges:
        judge.ready()
    plan = make_plan(comparison)
    _check_names(plan)
    screen = Screen()
    _announce(plan, screen)
    if dry_run:
        return
    from alignzoo.compare.runner import compare_plan
    from alignzoo.report.comparison.write import write_all

    folder = compare_plan(plan, judges, screen, _command())
    table = write_all(folder)
    if as_json:
        click.echo((folder / "table.json").read_text(encoding="utf-8"))
        return
    from rich.console import Console

    from alignzoo.report.comparison.terminal import terminal_table

    Console(width=None if sys.stdout.isatty() else 160).print(terminal_table(table))
    click.echo(f"table, plots and report: {folder}")


def _comparison(recipes: tuple[str, ...], options: dict[str, Any]) -> tuple[Comparison, Node]:
    """What a file says, or the command line, or both: the latter has the last word."""
    from alignzoo.compare.spec import is_comparison, read_comparison, validate_comparison
    from alignzoo.recipe.parse import COMMAND_LINE, Node, Origin

    said = {key: value for key, value in options.items() if value not in (None, ())}
    for key in ("grid", "rows"):
        if key in said:
            said[key] = dict(_values(word, f"--{key}") for word in said[key])
    if "judges" in said:
        said["judges"] = [_value(word) for word in said["judges"]]
    samples = {key: said.pop(key) for key in ("prompts", "tokens", "temperature") if key in said}
    node = Node({}, Origin(COMMAND_LINE))
    base: dict[str, Any] = {"recipes": recipes}
    if is_comparison(recipes):
        node, found = read_comparison(Path(recipes[0]))
        base = found.model_dump()
    base["samples"] = base.get("samples", {}) | samples
    return validate_comparison(base | said, node), node


def _values(word: str, option: str) -> tuple[str, list[Any]]:
    from alignzoo.core.errors import UserError

    key, equals, values = word.partition("=")
    if not equals or not key or not values.strip():
        raise UserError(f"{option} {word}: no values", expected=f"{option} objective.beta=0.05,0.1,0.5")
    return key, [_value(part.strip()) for part in values.split(",")]


def _value(text: str) -> Any:
    """As in YAML: a number, a word, {name: ...}."""
    from alignzoo.core.errors import UserError
    from alignzoo.recipe.parse import COMMAND_LINE, parse

    node = parse(f"value: {text}", COMMAND_LINE)
    if node is None or node.value["value"].value is None:
        raise UserError(f"'{text}' is no value", where=COMMAND_LINE)
    return node.value["value"].plain()


def _check_names(plan: Plan) -> None:
    """The baseline is a row, and what grid points are chosen by is known of the validation rows: before any run."""
    from alignzoo.compare.columns import KNOWN, PAIRS
    from alignzoo.core.errors import UserError, nearest

    known = [column.key for column in KNOWN if column.group == PAIRS]
    known += [metric.name for job in plan.jobs for metric in job.resolved.recipe.eval.metrics]
    if plan.comparison.select not in known:
        close = nearest(plan.comparison.select, known)
        raise UserError(
            f"no grid point can be chosen by '{plan.comparison.select}'", where="select", nearest=close,
            expected="" if close else f"what is measured of validation rows: {', '.join(dict.fromkeys(known))}",
        )  # fmt: skip
    wanted, labels = plan.comparison.baseline, plan.labels
    if wanted and wanted not in labels:
        close = nearest(wanted, labels)
        raise UserError(
            f"no row is called '{wanted}'", where="baseline", nearest=close,
            expected="" if close else f"one of {', '.join(labels)}",
        )  # fmt: skip


def _announce(plan: Plan, screen: Screen) -> None:
    """How many runs, what they share, and about how long."""
    from alignzoo.compare.estimate import seconds_left
    from alignzoo.compare.runner import comparison_folder
    from alignzoo.training.run import folder_of

    every = {job.resolved.fingerprint: job.resolved for job in plan.jobs}
    every |= {start.fingerprint: start for start in plan.starts}
    done = sum(folder_of(resolved).summary() is not None for resolved in every.values())
    passes = plan.reference_passes()
    seeds, points = plan.comparison.seeds, {label: len({str(j.point) for j in plan.jobs if j.label == label})
                                            for label in plan.labels}  # fmt: skip
    budget = ", ".join(f"{label} {count}" for label, count in points.items())
    screen.info(f"{len(every)} runs ({done} done before), {len(plan.starts)} of them only to start others; "
               f"{passes} reference pass{'es' if passes != 1 else ''}; "
               f"{seeds} seed{'s' if seeds != 1 else ''}; configurations: {budget}")  # fmt: skip
    if done < len(every):
        found = seconds_left(plan)
        screen.info("how long: known after the first run" if found is None
                   else f"about {_minutes(found[0])} ({found[1]})")  # fmt: skip
    screen.info(f"folder: {comparison_folder(plan)}")


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _command() -> str:
    return shlex.join(["alignzoo", *sys.argv[1:]])
