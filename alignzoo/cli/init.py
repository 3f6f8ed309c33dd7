"""`alignzoo init`: a first recipe for a data file and a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click


@click.command(name="init", short_help="Write a first recipe for a data file and a model.")
@click.argument("data", metavar="DATA_FILE")
@click.option("--model", required=True, help="A folder or hub id, as for from_pretrained.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("recipe.yaml"), show_default=True,
    help="The recipe to write.",
)  # fmt: skip
@click.option("--objective", help="The objective; default: one that fits the rows.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def command(data: str, model: str, output: Path, objective: str | None, force: bool) -> None:
    """Write a complete recipe with a comment on every key.

    The rows of DATA_FILE are read and recognized: pairs, labels, ranked lists, texts or chats, or prompts alone. They
    decide the format and the objective, and their tokens the limits of length. The file may be JSONL, JSON, CSV, TSV or
    Parquet, or a folder.
    """
    from alignzoo.core.errors import UserError
    from alignzoo.core.files import as_output, atomic_write, check_output
    from alignzoo.recipe.load import load_recipe
    from alignzoo.training.starter import starter

    if output.exists() and not force:
        raise UserError("the file exists", where=str(output), expected="another name, or --force")
    check_output(output, [data])
    found = starter(data, model, output.parent, objective)
    with as_output(output), atomic_write(output) as temporary:
        temporary.write_text(found.text, encoding="utf-8")
        try:
            load_recipe(temporary, {"name": output.stem})
        except UserError as error:
            problems = [replace(one, where=one.where.replace(str(temporary), str(output))) for one in error.problems]
            raise UserError(problems) from None
    for note in found.notes:
        click.echo(note)
    click.echo(f"wrote {output}; next:\n  alignzoo validate {output}\n  alignzoo run {output}")
    click.echo("for completion in an editor:  alignzoo schema -o recipe.schema.json")
