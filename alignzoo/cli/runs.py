"""`alignzoo runs`: list the runs there are, compare two, remove some."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

import click

from alignzoo.cli.questions import end_of_input


@click.group(name="runs", invoke_without_command=True, short_help="The runs there are: list, `diff`, `rm`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the runs in ALIGNZOO_RUNS, or `runs`.

    Each has its name, state, objective, data, accuracy and the time of its last record. The accuracy is that of
    implicit rewards on held-out rows. RUN is a run folder, its name, or a recipe.
    """
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from alignzoo.cli.tables import print_table
    from alignzoo.core.paths import runs_root
    from alignzoo.training.runs import describe_run, run_folders

    found = sorted(map(describe_run, run_folders(runs_root())), key=lambda run: -run.when)
    if as_json:
        click.echo(json.dumps([asdict(run) | {"folder": str(run.folder)} for run in found], indent=2))
    elif not found:
        click.echo(f"no run in {runs_root()}")
    else:
        rows = [
            [run.name, run.state, run.objective, run.data, "" if run.accuracy is None else f"{run.accuracy:.3f}",
             time.strftime("%Y-%m-%d %H:%M", time.localtime(run.when))]
            for run in found
        ]  # fmt: skip
        print_table(["NAME", "STATE", "OBJECTIVE", "DATA", "ACCURACY", "WHEN"], rows)


@command.command(name="diff")
@click.argument("a", metavar="RUN")
@click.argument("b", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(a: str, b: str, as_json: bool) -> None:
    """Print what differs in two runs: recipe, data, curves, and the first step."""
    from alignzoo.training.run_diff import diff_runs
    from alignzoo.training.runs import find_run

    folders = [find_run(one) for one in (a, b)]
    found = diff_runs(*folders)
    if as_json:
        click.echo(json.dumps({"runs": [str(folder) for folder in folders], **found}, indent=2))
        return
    names = [folder.name for folder in folders]
    for title in ("recipe", "data", "curves"):
        _print_differences(title, names, found[title])
    first = found["first"]
    if first:
        words = f"the first record that differs: {first['kind']} {first['step']}"
        _print_differences(words, names, first["figures"])
    else:
        click.echo(f"the records are the same up to step {min(found['steps']):,}")


def _print_differences(title: str, names: Sequence[str], rows: Sequence[tuple[str, Any, Any]]) -> None:
    from alignzoo.cli.tables import print_table

    click.echo(title if rows else f"{title}: the same")
    if rows:
        print_table(["", *names], [[f"  {key}", _word(x), _word(y)] for key, x, y in rows])
        click.echo()


def _word(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else json.dumps(value)


@command.command(name="rm")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Remove without asking.")
def rm(runs: tuple[str, ...], yes: bool) -> None:
    """Remove run folders: records, checkpoints and policy.

    Asks first, and names the runs that start from one. Nothing is removed that is no run folder, or that a process
    works on.
    """
    from alignzoo.training.runs import check_ours, find_run, needed_by, remove_run

    found = [find_run(one) for one in runs]
    folders = list({os.path.realpath(folder): folder for folder in found}.values())
    for folder in folders:
        check_ours(folder)
    for folder in folders:
        users = needed_by(folder)
        note = f" ({', '.join(users)} need it)" if users else ""
        if yes or _confirmed(f"remove {folder}{note}?"):
            remove_run(folder)
            click.echo(f"removed {folder}")
        else:
            click.echo(f"kept {folder}")


def _confirmed(question: str) -> bool:
    from alignzoo.core.errors import UserError

    try:
        return click.confirm(question, err=True)
    except click.Abort as stop:
        end_of_input(stop)
        raise UserError("the input ended without an answer", where="stdin", expected="y, n, or --yes") from None
