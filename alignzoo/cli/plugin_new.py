"""`alignzoo plugins new`: write a starter package with an objective, a recipe and tests."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

import click

TEMPLATE = Path(__file__).parent / "new_plugin"
"""Templates: file names hold NAME, contents hold `$name`, `$package` and `$loss`."""
SUFFIX = ".txt"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@click.command(name="new")
@click.argument("name")
@click.option("--into", type=Path, default=Path(), help="Parent folder; default: this one.")
def new(name: str, into: Path) -> None:
    """Write a package alignzoo-NAME with an objective NAME, and print the next steps.

    The package also has a recipe and tests.
    """
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
    click.echo(f"\nThe loss is one line of alignzoo_{name}.py. Replace it; README.md lists what else to write.")


def write(name: str, into: Path) -> Path:
    """Write the package and return its folder.

    Raises:
        UserError: The name is invalid, or the folder exists.
        NotWritten: The disk is full, read-only or the like. Nothing is left.
    """
    from alignzoo.core.artifacts import atomic_folder
    from alignzoo.core.errors import UserError

    problem = _problem(name)
    if problem:
        raise UserError(f"'{name}' {problem}", expected="another name, such as my_loss")
    folder = into / f"alignzoo-{name.replace('_', '-')}"
    if folder.exists():
        raise UserError("the folder exists", where=str(folder), expected="another name, or another folder with --into")
    words = {"name": name, "package": folder.name, "loss": _class(name)}
    with atomic_folder(folder) as temporary:
        for file in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
            target = temporary / str(file.relative_to(TEMPLATE)).replace("NAME", name).removesuffix(SUFFIX)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(file.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    return folder


def _problem(name: str) -> str:
    """Return the problem of a name, or ""."""
    import yaml

    from alignzoo.registry.lookup import registry

    if not NAME.fullmatch(name):
        return "is not a name: use lower-case letters, digits and single underscores, with a letter first"
    if yaml.safe_load(name) != name:
        return f"is not a name: YAML reads it as {yaml.safe_load(name)}"
    known = registry().known("objective")
    if name in known and registry().origin(known[name]).package == "alignzoo":
        return "is the name of a built-in objective"
    return ""


def _class(name: str) -> str:
    """Class name: MyLoss for both `my_loss` and `my`, which no name of the public API equals."""
    return "".join(part.capitalize() for part in name.split("_")).removesuffix("Loss") + "Loss"
