"""`alignzoo chat`: a conversation with a finished run in the terminal."""

from __future__ import annotations

from pathlib import Path

import click

from alignzoo.cli.arguments import drawing_options
from alignzoo.cli.questions import end_of_input


@click.command(name="chat", short_help="Talk with a run in the terminal.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--compare", "other", type=click.Path(path_type=Path), metavar="RUN", help="Answers of another run too.")
@drawing_options
def command(
    run: Path, other: Path | None, temperature: float, top_p: float, max_new_tokens: int | None, seed: int
) -> None:
    """Talk with the policy of the finished RUN, with the chat template of its model.

    RUN is a run folder, its name in the folder of runs, or a recipe. Replies appear as they are written. With --compare
    both runs answer, each after its own replies. /new starts again, /quit or the end of the input ends.
    """
    from alignzoo.core.console import Screen
    from alignzoo.core.errors import UserError
    from alignzoo.core.redaction import printable
    from alignzoo.training.chat import Conversation
    from alignzoo.training.generate import Drawing
    from alignzoo.training.runs import find_run

    settings = Drawing(temperature, top_p, max_new_tokens, seed)
    folders = [find_run(one) for one in (run, other) if one is not None]
    talks = [Conversation(folder, settings, Screen()) for folder in folders]
    while True:
        try:
            text = click.prompt("you", prompt_suffix="> ", err=True)
        except click.Abort as stop:
            end_of_input(stop)
            return
        except UnicodeDecodeError:
            raise UserError("the input is not UTF-8", where="stdin", expected="UTF-8 text") from None
        if text.strip() == "/quit":
            return
        if text.strip() == "/new":
            for talk in talks:
                talk.clear()
            continue
        for folder, talk in zip(folders, talks, strict=True):
            if len(talks) > 1:
                click.echo(f"{folder.name}:")
            talk.reply(text, lambda piece: click.echo(printable(piece), nl=False))
            click.echo()
