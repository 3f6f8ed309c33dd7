"""`alignzoo objectives`: the zoo."""

from __future__ import annotations

import json
from typing import Any

import click

BOUNDS = {"exclusiveMinimum": "> {}", "minimum": ">= {}", "exclusiveMaximum": "< {}", "maximum": "<= {}"}
"""JSON Schema's words, and ours."""


@click.group(name="objectives", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the objectives that a recipe can name."""
    if ctx.invoked_subcommand is not None:
        return
    from alignzoo.registry import registry

    known = registry().known("objective")
    described = [_describe(name, cls) for name, cls in sorted(known.items())]
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    from alignzoo.cli.tables import print_table

    keys = ("name", "what", "needs", "source", "package")
    print_table(("NAME", "WHAT", "NEEDS", "SOURCE", "FROM"), ([one[key] for key in keys] for one in described))


@command.command(name="show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Everything about one objective: what it is, paper, equation, parameters with defaults and bounds, needs."""
    from alignzoo.registry import registry

    one = _describe(name, registry().find("objective", name))
    if as_json:
        click.echo(json.dumps(one, indent=2))
        return
    click.echo(f"{one['name']}: {one['description']}\n")
    for key in ("source", "equation", "needs", "package"):
        click.echo(f"{key:<10}{one[key]}")
    click.echo("\nparameters" if one["parameters"] else "\nno parameters")
    for field in one["parameters"]:
        bounds = f", {field['bounds']}" if field["bounds"] else ""
        default = "(required)" if field["required"] else f"= {field['default']}"
        click.echo(f"  {field['name']} {default}  ({field['type']}{bounds})\n      {field['description']}")
    values = {f["name"]: "..." if f["required"] else json.dumps(f["default"]) for f in one["parameters"]}
    fields = "".join(f", {key}: {value}" for key, value in values.items())
    click.echo(f"\nin a recipe\n  objective: {{name: {name}{fields}}}")


def _describe(name: str, cls: Any) -> dict[str, Any]:
    import inspect

    from alignzoo.registry import registry

    origin = registry().origin(cls)
    text = inspect.getdoc(cls) or ""
    data = "pairs" if cls.data == "pair" else "chosen completions"
    return {
        "name": name,
        "what": text.splitlines()[0],
        "description": text,
        "source": cls.source,
        "equation": cls.equation,
        "needs": f"{data}, {'no reference' if cls.reference == 'none' else 'reference log-probs'}",
        "package": f"{origin.package} {origin.version}".strip(),
        "parameters": [_parameter(key, cls) for key in cls.model_fields],
    }


def _parameter(key: str, cls: Any) -> dict[str, Any]:
    info = cls.model_fields[key]
    schema = cls.model_json_schema()["properties"][key]
    kinds = schema.get("anyOf", [schema])  # a field that may be null has two
    bounds = [text.format(kind[word]) for kind in kinds for word, text in BOUNDS.items() if word in kind]
    types = [" | ".join(map(str, kind["enum"])) if "enum" in kind else kind.get("type", "any") for kind in kinds]
    return {
        "name": key,
        "type": " | ".join(types),
        "required": info.is_required(),
        "default": schema.get("default"),
        "bounds": ", ".join(bounds),
        "description": info.description or "",
    }
