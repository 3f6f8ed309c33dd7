"""`alignzoo report`: draw reports again from run folders."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="report")
@click.argument("folders", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--open", "show", is_flag=True, help="Open the report in a browser.")
def command(folders: tuple[Path, ...], show: bool) -> None:
    """Draw report.html of each RUN from its files, finished or not.

    RUN is a run folder, its name in the folder of runs, or a recipe.
    """
    from alignzoo.core.errors import UserError, nearest
    from alignzoo.report.run_page import write_report
    from alignzoo.training.runs import folder_named

    for folder in map(folder_named, folders):
        if not (folder / "recipe.yaml").is_file():
            siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
            raise UserError("not a run folder", where=str(folder), nearest=nearest(folder.name, siblings))
        path = write_report(folder)
        click.echo(path)
        if show:
            click.launch(str(path))
