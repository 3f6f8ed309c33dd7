"""`alignzoo compare`: train recipes side by side and draw the table."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignzoo.cli.arguments import value_of

if TYPE_CHECKING:
    from alignzoo.compare.plan import Plan
    from alignzoo.compare.spec import Comparison
    from alignzoo.core.console import Screen
    from alignzoo.recipe.parse import Node


@click.command(name="compare")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE... | COMPARISON")
@click.option("--name", help="Name of the folder.")
@click.option("--seeds", type=int, help="Runs per configuration (3).")
@click.option("--search-seeds", type=int, help="Runs per grid point before one is chosen (as many as --seeds).")
@click.option("--grid", multiple=True, metavar="KEY=A,B,...", help="Values to tune on the validation split.")
@click.option("--rows", multiple=True, metavar="KEY=A,B,...", help="Values with a row each.")
@click.option("--with", "overlays", multiple=True, help="A recipe to merge on top of each; repeatable.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a value in every recipe; repeatable.")
@click.option("--baseline", help="Row that the others are compared with.")
@click.option("--select", help="Metric that chooses the best grid point (preference_accuracy).")
@click.option("--judge", "judges", multiple=True, help="Judge of the replies: a name, or {name: ..., fields}.")
@click.option("--samples", "prompts", type=int, help="Prompts that every run answers (128).")
@click.option("--sample-tokens", "tokens", type=int, help="Maximum new tokens per reply (64).")
@click.option("--temperature", metavar="A,B,...", help="Sampling temperature of the replies, or several (1).")
@click.option("--best-of", metavar="N,M,...", help="Measure the best of N replies too, for each N.")
@click.option("--best-of-judge", help="Judge whose score picks the best: a name, or {name: ..., fields}.")
@click.option("--best-of-rows", multiple=True, metavar="ROW", help="Row that it is measured of (all); repeatable.")
@click.option(
    "--allow-different-data", is_flag=True, default=None, help="Allow rows on different data or from different starts."
)
@click.option("--jobs", type=int, help="Runs at a time, each in a process with its share of the cores, or a GPU (1).")
@click.option("--executor", help="Where they run: local, or a plugin's; a name, or {name: ..., fields}.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print table.json on stdout.")
def command(recipes: tuple[str, ...], dry_run: bool, as_json: bool, **options: Any) -> None:
    """Train every RECIPE at every grid point and seed, and write a folder with the table.

    All runs are measured alike. Shared work is done once: the starting run, the tokens, the reference pass. The same
    command continues a stopped comparison, and finished runs are not repeated. A failed run is marked in its row.
    """
    from alignzoo.compare.checks import check_plan
    from alignzoo.compare.plan import make_plan
    from alignzoo.compare.pool import DEFAULT, executor_of
    from alignzoo.compare.spec import make_judges
    from alignzoo.core.console import Screen

    comparison, node = _comparison(recipes, options)
    judges = make_judges(comparison.judges, node)
    for judge in judges:
        judge.ready()
    plan = make_plan(comparison)
    check_plan(plan)
    executor = executor_of(plan, node)
    screen = Screen()
    _announce(plan, screen, here=executor is None or executor.name == DEFAULT)
    if dry_run:
        return
    from alignzoo.compare.exclusive import exclusive
    from alignzoo.compare.runner import compare_plan, comparison_folder
    from alignzoo.report.comparison.write import draw_finished

    with exclusive(comparison_folder(plan), screen):
        folder = compare_plan(plan, judges, screen, _command(), executor)
        table = draw_finished(folder)
    if as_json:
        from alignzoo.core.door import read_text

        click.echo(read_text(folder / "table.json"))
        return
    from alignzoo.core.console import results_console
    from alignzoo.report.comparison.terminal import terminal_table

    results_console().print(terminal_table(table))
    click.echo(f"table, plots and report: {folder}")


def _comparison(recipes: tuple[str, ...], options: dict[str, Any]) -> tuple[Comparison, Node]:
    """Build the comparison from a file, the command line, or both.

    The command line takes precedence.
    """
    from alignzoo.compare.spec import is_comparison, read_comparison, validate_comparison
    from alignzoo.recipe.parse import COMMAND_LINE, Node, Origin

    chosen = {key: value for key, value in options.items() if value not in (None, ())}
    for key in ("grid", "rows"):
        if key in chosen:
            chosen[key] = dict(_values(word, f"--{key}") for word in chosen[key])
    if "judges" in chosen:
        chosen["judges"] = [value_of(word) for word in chosen["judges"]]
    for key in ("temperature", "best_of"):
        if key in chosen:
            chosen[key] = [value_of(part.strip()) for part in chosen[key].split(",")]
    for key in ("best_of_judge", "executor"):
        if key in chosen:
            chosen[key] = value_of(chosen[key])
    samples = {key: chosen.pop(key) for key in ("prompts", "tokens", "temperature") if key in chosen}
    node = Node({}, Origin(COMMAND_LINE))
    base: dict[str, Any] = {"recipes": recipes}
    if is_comparison(recipes):
        node, found = read_comparison(Path(recipes[0]))
        base = found.model_dump()
    base["samples"] = base.get("samples", {}) | samples
    return validate_comparison(base | chosen, node), node


def _values(word: str, option: str) -> tuple[str, list[Any]]:
    from alignzoo.core.errors import UserError

    key, equals, values = word.partition("=")
    if not equals or not key or not values.strip():
        raise UserError(f"{option} {word}: no values", expected=f"{option} objective.beta=0.05,0.1,0.5")
    return key, [value_of(part.strip()) for part in values.split(",")]


def _announce(plan: Plan, screen: Screen, here: bool) -> None:
    """Print the number of runs and the shared work, and the time of runs `here`."""
    from alignzoo.compare.estimate import seconds_left
    from alignzoo.compare.runner import comparison_folder
    from alignzoo.training.needed_runs import folder_of

    every = {job.resolved.fingerprint: job.resolved for job in plan.jobs}
    every |= {start.fingerprint: start for start in plan.starts}
    done = sum(folder_of(resolved).summary() is not None for resolved in every.values())
    passes = plan.reference_passes()
    seeds, points = plan.comparison.seeds, {label: len({str(j.point) for j in plan.jobs if j.label == label})
                                            for label in plan.labels}  # fmt: skip
    budget = ", ".join(f"{label} {count}" for label, count in points.items())
    later = f", and {plan.later} of the chosen configurations" if plan.later else ""
    screen.info(f"{len(every)} runs ({done} done before){later}, {len(plan.starts)} of them only to start others; "
               f"{passes} reference pass{'es' if passes != 1 else ''}; "
               f"{seeds} seed{'s' if seeds != 1 else ''}; configurations: {budget}")  # fmt: skip
    if plan.judge_runs is not None:
        first = ", ".join(need.recipe.name for need in plan.judge_runs.needs.values())
        screen.info(f"the judges' runs come first: {first}")
    if words := _replies(plan):
        screen.info(words)
    if done < len(every):
        found = seconds_left(plan) if here else None
        one_by_one = ", one run after another" if plan.comparison.jobs > 1 else ""
        screen.info("time: estimated after the first run" if found is None
                   else f"about {_minutes(found[0])} ({found[1]}){one_by_one}")  # fmt: skip
    screen.info(f"folder: {comparison_folder(plan)}")


def _replies(plan: Plan) -> str:
    """Return how many replies each run draws; "" for one to each prompt."""
    samples, best_of = plan.comparison.samples, plan.best_of
    parts = []
    if len(samples.temperature) > 1:
        parts.append(
            f"{samples.prompts:,} at each temperature of {', '.join(f'{one:g}' for one in samples.temperature)}"
        )
    if best_of is not None:
        rows = "every row" if best_of.labels is None else ", ".join(best_of.labels)
        first = "".join(f", whose run of {need.recipe.name} comes first" for need in best_of.picker.needs.values())
        parts.append(f"{best_of.draws * samples.prompts:,} for the best of {best_of.draws} of {rows}, picked by "
                     f"{best_of.judge.name}{first}")  # fmt: skip
    return f"replies of each run: {'; '.join(parts)}" if parts else ""


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _command() -> str:
    return shlex.join(["alignzoo", *sys.argv[1:]])
