"""`alignzoo run`: train a recipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from alignzoo.cli.arguments import recipe_arguments
from alignzoo.core.distributed import launch


@click.command(name="run", short_help="Train a recipe and write its report.")
@recipe_arguments
@click.option("--dry-run", is_flag=True, help="Check and print the plan without training, as `validate`.")
@click.option("--resume", is_flag=True, help="Continue or extend a run; an error if there is none.")
@click.option(
    "--resume-from", type=click.Path(path_type=Path), metavar="CHECKPOINT",
    help="Go on from this checkpoint, of this recipe or of one that differs in its length alone.",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Remove this recipe's earlier run and start over.")
@click.option("--processes", type=click.IntRange(1), help="Number of processes on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def command(
    recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...],
    dry_run: bool, resume: bool, resume_from: Path | None, fresh: bool, processes: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Train RECIPE, after the recipes that it needs.

    The same command again returns a finished run and continues a stopped one.
    """
    if dry_run:
        from alignzoo.cli.validate import check

        return check(recipe, overrides, overlays, as_json)
    if fresh and (resume or resume_from):
        raise click.UsageError(f"{'--resume-from' if resume_from else '--resume'} and --fresh exclude each other")
    if processes and processes > 1 and not launch.launched():
        from alignzoo.core.distributed.spawn import run_on

        sys.exit(run_on(processes))
    from alignzoo.core.console import Screen
    from alignzoo.core.distributed.process_group import together
    from alignzoo.core.errors import UserError
    from alignzoo.recipe.load import load_recipe
    from alignzoo.training.extension import check_resumable
    from alignzoo.training.needed_runs import folder_of
    from alignzoo.training.run import run_resolved

    if processes and processes != launch.size():
        raise UserError(
            f"a launcher has started {launch.size()} processes",
            where="--processes",
            expected="the launcher's count, or no option",
        )
    with together():  # one process reports an error
        resolved = load_recipe(recipe, overrides, overlays)
        if resume:
            check_resumable(resolved, folder_of(resolved))
    result = run_resolved(resolved, fresh=fresh, screen=Screen(), resume_from=resume_from)
    if launch.rank() > 0:
        return
    if as_json:
        click.echo(json.dumps(result.summary, indent=2, ensure_ascii=False))
        return
    from alignzoo.core.console import results_console
    from alignzoo.core.door import translate
    from alignzoo.report.summary import summary_table

    with translate(result.folder / "summary.json", "the summary", "run the recipe again with --fresh"):
        table = summary_table(result.summary)
    results_console().print(table)
    if "draws" in result.summary:
        click.echo(f"data: {_near(result.folder / 'draws')}")
    else:
        click.echo(f"report: {_near(result.folder / 'report.html')}")


def _near(path: Path) -> Path:
    """Return a path below the working directory as a relative one."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
