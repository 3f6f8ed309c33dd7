"""`alignzoo eval`: evaluate a finished run on any data, with metrics, judges and replies."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from alignzoo.cli.arguments import drawing_options, value_of


@click.command(name="eval", short_help="Evaluate a finished run: data, metrics, judges, replies.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--data", multiple=True, metavar="FILE", help="Rows in place of the run's own: a data file, a recipe or a part of "
    "one, or {name: ..., fields}; repeatable.",
)  # fmt: skip
@click.option("--metrics", multiple=True, metavar="NAME", help="A further metric, or {name: ..., fields}; repeatable.")
@click.option("--judge", "judges", multiple=True, metavar="NAME", help="A judge of the replies, likewise; repeatable.")
@click.option("--prompts", type=click.IntRange(0), help="Prompts of each set that are replied to.")
@drawing_options
@click.option("--best-of-n", is_flag=True, help="Accuracy on lists of chosen and rejected, by subset (RewardBench 2).")
@click.option("--lm-eval", "tasks", metavar="TASK,...", help="Tasks of lm-evaluation-harness instead.")
@click.option(
    "--lm-eval-arg",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An argument of its simple_evaluate; repeatable.",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: eval/SET.json of the run."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    run: Path, data: tuple[str, ...], metrics: tuple[str, ...], judges: tuple[str, ...], prompts: int | None,
    temperature: float, top_p: float, max_new_tokens: int | None, seed: int, best_of_n: bool, tasks: str | None,
    options: tuple[str, ...], output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Evaluate the finished RUN without training, and print figures with 95% intervals.

    RUN is a run folder, its name in the folder of runs, or a recipe. Without --data the rows are those that the run has
    evaluated itself. Of --data it is a test split, or else all rows. Replies are drawn where there are judges or
    --prompts. The report is a JSON file; the run's own records stay as they are.
    """
    from alignzoo.compare.eval_best_of_n import evaluate_best_of_n
    from alignzoo.compare.eval_run import Evaluation, evaluate_run
    from alignzoo.core.console import Screen
    from alignzoo.core.errors import UserError
    from alignzoo.core.files import as_output, check_output, write_json
    from alignzoo.training.generate import Drawing
    from alignzoo.training.lm_eval import run_tasks
    from alignzoo.training.runs import find_run

    rows = {"--data": data, "--metrics": metrics, "--judge": judges, "--prompts": prompts, "--best-of-n": best_of_n}
    if tasks is not None and (beside := [name for name, value in rows.items() if value]):
        raise UserError(f"{', '.join(beside)} can't be combined with --lm-eval", expected="one of them")
    if best_of_n and (beside := [name for name in ("--metrics", "--judge", "--prompts") if rows[name]]):
        raise UserError(f"{', '.join(beside)} can't be combined with --best-of-n", expected="one of them")
    if options and tasks is None:
        raise UserError("there is no task", where="--lm-eval-arg", expected="--lm-eval TASK,...")
    if output is not None:
        check_output(output, data)
    folder, screen = find_run(run), Screen()
    if tasks is not None:
        names = [name.strip() for name in tasks.split(",") if name.strip()]
        report = {"run": folder.name, "lm_eval": run_tasks(folder, names, dict(map(_option, options)), screen)}
        title = "lm_eval"
    else:
        drawing = Drawing(temperature, top_p, max_new_tokens, seed)
        asked = Evaluation(data, tuple(map(value_of, metrics)), tuple(map(value_of, judges)), prompts, drawing)
        report = (evaluate_best_of_n if best_of_n else evaluate_run)(folder, asked, screen)
        title = "+".join(report["sets"])[:100] if data else "own"
    path = output or folder / "eval" / f"{re.sub(r'[^A-Za-z0-9_.+-]', '_', title)}.json"
    with as_output(path):
        write_json(path, report)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    _print(report)
    click.echo(f"report: {path}")


def _option(word: str) -> tuple[str, Any]:
    from alignzoo.core.errors import UserError

    key, equals, text = word.partition("=")
    if not equals or not key.isidentifier():
        raise UserError(f"'{word}' is no argument", where="--lm-eval-arg", expected="KEY=VALUE, such as num_fewshot=5")
    return key, value_of(text)


def _print(report: Mapping[str, Any]) -> None:
    from alignzoo.training.lm_eval import task_figures

    if "lm_eval" in report:
        _print_figures("lm_eval", task_figures(report["lm_eval"]))
    for name, found in report.get("sets", {}).items():
        _print_figures(f"{name}: {found['rows']:,} rows", found.get("best_of_n", found.get("figures", {})))
        if "replies" in found:
            _print_figures(f"{name}: {len(found['replies']):,} replies", found["reply_figures"])
        for judge, figures in found.get("judges", {}).items():
            if "problem" in figures:
                click.echo(f"{judge}: {figures['problem']}")
            else:
                _print_figures(f"{name}: judge {judge}", figures)


def _print_figures(title: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    from alignzoo.cli.tables import print_table

    click.echo(title)
    if not figures:
        click.echo("  nothing to score: the rows are prompts")
        return
    rows = [[f"  {key}", *_words(one), "" if one.get("n") is None else f"{one['n']:,}"] for key, one in figures.items()]
    print_table(["", "MEAN", "95% INTERVAL", "N"], rows)
    click.echo()


def _words(figure: Mapping[str, Any]) -> tuple[str, str]:
    """Return the mean and the interval, with three significant digits of the mean."""
    mean, low, high = (figure[key] for key in ("mean", "low", "high"))
    if mean is None:
        return "", ""
    decimals = min(6, max(0, 2 - math.floor(math.log10(abs(mean))))) if mean else 3
    return f"{mean:.{decimals}f}", "" if low is None or high is None else f"[{low:.{decimals}f}, {high:.{decimals}f}]"
