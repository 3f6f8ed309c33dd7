"""`alignzoo report`: draw reports again from run folders."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="report")
@click.argument("folders", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--open", "show", is_flag=True, help="Open the report in a browser.")
def command(folders: tuple[Path, ...], show: bool) -> None:
    """Draw report.html of each RUN from its files, finished or not, and print its diagnosis.

    The diagnosis, on stderr, has a line for each sign of training that goes wrong: found or not, with its numbers. RUN
    is a run folder, its name in the folder of runs, or a recipe.
    """
    from alignzoo.core.console import Screen
    from alignzoo.report.diagnosis import diagnose
    from alignzoo.report.run_page import write_report
    from alignzoo.training.runs import find_run

    screen = Screen()
    for folder in map(find_run, folders):
        path = write_report(folder)
        for sign in diagnose(folder):
            screen.info(sign.line())
            for id, words in sign.rows:
                screen.info(f"    {id}: {words}")
            if sign.found:
                screen.info(f"    {sign.advice}")
        click.echo(path)
        if show:
            click.launch(str(path))
