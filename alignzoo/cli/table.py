"""`alignzoo table`: redraw the table of comparisons or measured runs, without training."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(name="table")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for table, plots and report.html.")
@click.option("--baseline", metavar="LABEL", help="Row that the others are compared with.")
@click.option("--select", metavar="METRIC", help="Metric that chooses the best grid point on the validation split.")
@click.option(
    "--evaluation",
    metavar="KEY",
    multiple=True,
    help="Of run folders: use the figures in evaluations/KEY, "
    "or the verdicts in evaluations/verdicts/KEY. May be given several times.",
)
@click.option("--allow-different-data", is_flag=True, help="Allow rows on different data or from different starts.")
@click.option("--json", "as_json", is_flag=True, help="Print table.json on stdout.")
def command(
    folders: tuple[Path, ...], output: Path | None, baseline: str | None, select: str | None,
    evaluation: tuple[str, ...], allow_different_data: bool, as_json: bool,
) -> None:  # fmt: skip
    """Print one table of every FOLDER: comparisons, measured runs, or both.

    A single run must have been measured by a comparison. Nothing is trained or measured. The figures of every held-out
    row are read from the folders. A FOLDER may be given by its name in the folder of runs, and a run by its recipe.
    """
    from alignzoo.compare.gather import gather
    from alignzoo.compare.table import build
    from alignzoo.training.runs import folder_named

    about, entries = gather([*map(folder_named, folders)], evaluation)
    if allow_different_data:
        about["allow_different_data"] = True
    table = build(about, entries, baseline=baseline, select=select)
    if output is not None:
        from alignzoo.report.comparison.write import write_all

        write_all(output, table)
    if as_json:
        from alignzoo.report.comparison.write import as_json as described

        click.echo(json.dumps(described(table), indent=2, ensure_ascii=False))
        return
    from alignzoo.core.console import results_console
    from alignzoo.report.comparison.terminal import terminal_table

    results_console().print(terminal_table(table) if output else terminal_table(table, "-o DIR writes them"))
    if output is not None:
        click.echo(f"table, plots and report: {output}")
