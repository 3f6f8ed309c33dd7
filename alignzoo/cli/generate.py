"""`alignzoo generate`: replies of a finished run to the prompts of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from alignzoo.cli.arguments import drawing_options


@click.command(name="generate", short_help="Write a run's replies to the prompts of a file.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("prompts", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write."
)
@drawing_options
@click.option(
    "--as", "benchmark", type=click.Choice(["alpaca_eval", "arena_hard"]), help="Write what this benchmark reads."
)
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Replies to each prompt.")
def command(
    run: Path, prompts: Path, output: Path, temperature: float, top_p: float, max_new_tokens: int | None, seed: int,
    benchmark: Any, samples: int,
) -> None:  # fmt: skip
    """Reply to each record of PROMPTS with the policy of the finished RUN.

    The output has a JSON line for each reply. RUN is a run folder, its name in the folder of runs, or a recipe. Replies
    are those that an evaluation draws with the same settings. Each has its own random numbers: it does not depend on
    the other prompts.

    With --as prompts are a user's messages. AlpacaEval reads a JSON array and Arena-Hard JSON lines, with the name of
    the run's folder for the model's.
    """
    from alignzoo.core.console import Screen
    from alignzoo.core.errors import UserError
    from alignzoo.core.files import as_output, check_output, write_text
    from alignzoo.training.benchmark_outputs import benchmark_text
    from alignzoo.training.generate import Drawing, reply_to_file
    from alignzoo.training.runs import find_run

    if samples > 1 and temperature == 0:
        raise UserError(
            f"{samples} samples of the likeliest tokens are all the same", where="--samples",
            expected="--temperature above 0, such as 1",
        )  # fmt: skip
    check_output(output, [prompts], "prompts")
    settings = Drawing(temperature, top_p, max_new_tokens, seed, samples)
    if benchmark:
        text, count = benchmark_text(find_run(run), prompts, settings, benchmark, Screen())
    else:
        lines = reply_to_file(find_run(run), prompts, settings, Screen())
        text, count = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), len(lines)
    with as_output(output):
        write_text(output, text)
    click.echo(f"{count:,} {'reply' if count == 1 else 'replies'} in {output}")
