"""`alignzoo plugins new`: a package that installs, trains and tests itself, for its author to put a loss in."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

import click

TEMPLATE = Path(__file__).parent / "new_plugin"
"""Files whose names end in .txt, with NAME for the name; in them `$name` and the like are put in place."""
SUFFIX = ".txt"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@click.command(name="new")
@click.argument("name")
@click.option(
    "--into", type=Path, default=Path(), help="The folder to put the package's folder in; this one unless said."
)
def new(name: str, into: Path) -> None:
    """Write a package alignzoo-NAME with an objective NAME, a recipe and tests, and say how to go on."""
    folder = write(name, into)
    click.echo(f"{folder}: an objective '{name}', a recipe, tests. Next:\n")
    for line in (
        f"cd {folder}",
        "pip install -e .",
        "python -m pytest tests",
        f"alignzoo plugins check {name}",
        f"alignzoo run dpo_hh --with {name}_hh.yaml",
    ):
        click.echo(f"  {line}")
    click.echo(f"\nThe loss is one line of alignzoo_{name}.py: put yours there; README.md says what else to write.")


def write(name: str, into: Path) -> Path:
    """The new package's folder. Raises UserError for a name that can't be used and for a folder that is there."""
    from alignzoo.core.errors import UserError

    problem = _problem(name)
    if problem:
        raise UserError(f"'{name}' {problem}", expected="another name, such as my_loss")
    folder = into / f"alignzoo-{name.replace('_', '-')}"
    if folder.exists():
        raise UserError("it is there already", where=str(folder), expected="another name, or another folder: --into")
    words = {"name": name, "package": folder.name, "loss": _class(name)}
    for file in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        target = folder / str(file.relative_to(TEMPLATE)).replace("NAME", name).removesuffix(SUFFIX)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(file.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    return folder


def _problem(name: str) -> str:
    """Why a plugin can't have this name, or ""."""
    import yaml

    from alignzoo.registry.lookup import registry

    if not NAME.fullmatch(name):
        return "is no name: lower case letters, digits and single underscores, from a letter on"
    if yaml.safe_load(name) != name:
        return f"is no name: in a recipe it would be read as {yaml.safe_load(name)}"
    known = registry().known("objective")
    if name in known and registry().origin(known[name]).package == "alignzoo":
        return "is the name of a built-in objective"
    return ""


def _class(name: str) -> str:
    """`my_loss` and `my` are both a MyLoss, which is no name of the public API."""
    return "".join(part.capitalize() for part in name.split("_")).removesuffix("Loss") + "Loss"
