"""`alignzoo judge`: measure judges and finished runs on labeled preferences."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from alignzoo.cli.arguments import value_of

SPLITS = ("held_out", "validation", "test", "train", "all")


@click.command(name="judge", short_help="Measure judges and runs on labeled preferences.")
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option("--judge", "judges", multiple=True, metavar="NAME", help="A judge, or {name: ..., fields}; repeatable.")
@click.option(
    "--run", "runs", multiple=True, metavar="RUN",
    help="A finished run: a reward model, or a policy's implicit reward and likelihood; repeatable.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(SPLITS),
    help="Rows of data that divides into training and held-out ones, as a run on it divides it.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A .json file for the report.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="A .md file for the tables.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    data: tuple[str, ...], judges: tuple[str, ...], runs: tuple[str, ...], split: str | None, output: Path | None,
    markdown: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure judges against the labels of DATA: accuracy, ties, biases, agreement.

    DATA is a data file, a recipe or a part of one, or {name: ..., fields}. Without --split its rows are those of a test
    split, or else all. Without DATA they are the held-out rows of the first run. A judge that compares two replies is
    asked in both orders. Verdicts are kept: the same command asks no judge again.
    """
    from alignzoo.compare.judge_report import Measured, measure_judges
    from alignzoo.core.console import Screen
    from alignzoo.core.files import as_output, check_output, write_json, write_page
    from alignzoo.report.judges import markdown as as_markdown
    from alignzoo.training.runs import find_run

    for path in filter(None, (output, markdown)):
        check_output(path, data)
    folders = [find_run(run) for run in runs]
    report = measure_judges(Measured(data, [*map(value_of, judges)], folders, split), Screen())  # type: ignore[arg-type]
    plain = report.model_dump(mode="json")
    if output is not None:
        with as_output(output):
            write_json(output, plain)
    if markdown is not None:
        with as_output(markdown):
            write_page(markdown, as_markdown(report, command=shlex.join(["alignzoo", *sys.argv[1:]])))
    if as_json:
        import json

        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    from alignzoo.cli.tables import print_table
    from alignzoo.report.judges import headline, remarks, tables

    for name, found in report.sets.items():
        click.echo(headline(name, found))
        for line in remarks(found):
            click.echo(f"  {line}")
        for table in tables(found):
            click.echo()
            print_table([head.upper() for head in table.head], table.rows)
        click.echo()
    for path in filter(None, (output, markdown)):
        click.echo(f"report: {path}")
