"""`alignzoo list`: everything that a recipe can name, of every kind."""

from __future__ import annotations

import inspect
import json
from typing import Any

import click

from alignzoo.cli.parameters import parameters, print_parameters

WHERE = {
    "objective": "objective: NODE",
    "modifier": "objective: {name: dpo, modifiers: [NODE]}",
    "data source": "data: NODE",
    "format": "data: {name: files, path: FILE, format: NODE}",
    "model source": "model: NODE",
    "metric": "eval: {metrics: [NODE]}",
    "judge": "eval: {judges: [NODE]}",
    "reporter": "reporters: [NODE]",
}
"""How a recipe names one of each kind."""


@click.command(name="list")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List everything that a recipe can name; with NAME (of a kind, or of one of these) all about it."""
    from alignzoo.interfaces.hookspecs import KINDS

    everything = [one for kind in KINDS for one in _of(kind)]
    chosen = [one for one in everything if name in (None, one["kind"], f"{one['kind']}s", one["name"])]
    if not chosen:
        from alignzoo.core.errors import UserError, nearest

        known = [*KINDS, *(one["name"] for one in everything)]
        close = nearest(str(name), known)
        raise UserError(f"nothing is called '{name}'", nearest=close, hint="alignzoo list shows everything")
    if as_json:
        click.echo(json.dumps(chosen, indent=2))
    elif name is not None and all(one["name"] == name for one in chosen):
        for one in chosen:
            _show(one)
    else:
        from alignzoo.cli.tables import print_table

        keys = ("kind", "name", "what", "package")
        print_table(("KIND", "NAME", "WHAT", "FROM"), ([one[key] for key in keys] for one in chosen))


def _of(kind: str) -> list[dict[str, Any]]:
    from alignzoo.registry.lookup import registry

    found = []
    for name, cls in sorted(registry().known(kind).items()):
        origin, text = registry().origin(cls), inspect.getdoc(cls) or ""
        found.append({
            "kind": kind, "name": name, "what": next(iter(text.splitlines()), ""), "description": text,
            "source": getattr(cls, "source", ""), "package": f"{origin.package} {origin.version}".strip(),
            "parameters": parameters(cls),
        })  # fmt: skip
    return found


def _show(one: dict[str, Any]) -> None:
    click.echo(f"{one['kind']} {one['name']}: {one['description']}\n")
    for key in ("source", "package"):
        if one[key]:
            click.echo(f"{key:<10}{one[key]}")
    required = [field for field in one["parameters"] if field["required"]]
    print_parameters(one["parameters"])
    fields = "".join(f", {field['name']}: ..." for field in required)
    node = f"{{name: {one['name']}{fields}}}"
    click.echo(f"\nin a recipe\n  {WHERE[one['kind']].replace('NODE', node)}")
