"""`alignzoo plot`: the loss and the gradient weights of objectives as curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

SUFFIXES = (".svg", ".png", ".html")


@click.command(name="plot")
@click.argument("names", nargs=-1, metavar="[OBJECTIVE]...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("objectives.svg"), show_default=True,
    help="The file to write: .svg, .png or .html.",
)  # fmt: skip
@click.option(
    "--columns", type=click.IntRange(1, 20), default=6, show_default=True, help="Panels in a row (.svg and .png)."
)
def command(names: tuple[str, ...], output: Path, columns: int) -> None:
    """Draw loss and gradient weights as functions of the margin.

    The figure has a panel for each OBJECTIVE, or for all objectives by family.
    """
    from alignzoo.core.errors import UserError
    from alignzoo.core.files import as_output, check_output
    from alignzoo.registry.lookup import registry

    if output.suffix not in SUFFIXES:
        raise UserError(
            f"'{output.suffix}' is no image format" if output.suffix else "the file name has no suffix",
            where=str(output),
            expected=f"a name that ends in {', '.join(SUFFIXES)}",
        )
    check_output(output)
    from alignzoo.report.loss_curves import shape_of
    from alignzoo.report.objective_plots import write_zoo

    if names:
        found = {name: registry().find("objective", name) for name in names}
    else:
        found = _by_family(registry().known("objective"))
    shapes = [shape_of(name, cls) for name, cls in found.items()]
    with as_output(output):
        write_zoo(shapes, output, columns)
    click.echo(f"{output}: {sum(not shape.problem for shape in shapes)} objectives")
    for shape in shapes:
        if shape.problem:
            click.echo(f"not drawn: {shape.name}: {shape.problem}", err=True)


def _by_family(known: dict[str, Any]) -> dict[str, Any]:
    """Order objectives by family, the family with the fewest requirements first.

    Within a family, the order is that of registration.
    """
    families: dict[str, list[str]] = {}
    for name, cls in known.items():
        families.setdefault(cls.family, []).append(name)
    ordered = sorted(families.values(), key=lambda names: max(_requirements(known[name]) for name in names))
    return {name: known[name] for names in ordered for name in names}


def _requirements(cls: Any) -> tuple[bool, int, bool, int]:
    from alignzoo.interfaces.requirements import Data, ReferenceKind

    data, reference = get_args(Data).index(cls.data), get_args(ReferenceKind).index(cls.reference)
    return cls.head == "scalar", data, cls.scope == "batch", reference
