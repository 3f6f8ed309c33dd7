"""`alignzoo objectives`: the zoo, and the modifiers that change what its objectives see."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import click

from alignzoo.cli.objectives_plot import plot
from alignzoo.cli.parameters import parameters, print_parameters

DATA = {"pair": "pairs", "chosen": "chosen completions", "unpaired": "labeled completions", "ranked": "ranked lists"}
REFERENCE = {
    "none": "no reference", "sequence": "cached reference", "token": "cached reference by token",
    "live": "live reference", "moving": "moving reference",
}  # fmt: skip
ASPECTS = ("data", "reference", "scope", "head", "tokens", "statistics", "columns", "mismatched", "needs_uniform")
"""What is declared in class attributes, as in the JSON."""


@click.group(name="objectives", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the objectives that a recipe can name, by family, and then the modifiers."""
    if ctx.invoked_subcommand is not None:
        return
    described = {kind: _described(kind) for kind in ("objective", "modifier")}
    if as_json:
        click.echo(json.dumps([one for some in described.values() for one in some], indent=2))
        return
    from alignzoo.cli.tables import print_table

    for kind, some in described.items():
        if kind == "modifier":
            click.echo()
        rows = ((one["name"], one["family"], _paper(one), one["needs"], one["package"]) for one in some)
        print_table((kind.upper(), "FAMILY", "PAPER", "NEEDS", "FROM"), rows)


@command.command(name="show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Everything about one objective or modifier: paper, equation, parameters with defaults and bounds, needs."""
    kind, cls = _find(name)
    one = _describe(kind, name, cls)
    if as_json:
        click.echo(json.dumps(one, indent=2))
        return
    click.echo(f"{one['name']}: {_without_name(one['description'], name)}\n")
    for key in ("family", "source", "equation", "needs", "constant", "package"):
        if one[key]:
            click.echo(f"{key:<10}{one[key]}")
    values = print_parameters(one["parameters"])
    node = f"{{name: {name}{''.join(f', {key}: {value}' for key, value in values.items())}}}"
    if kind == "modifier":
        node = f"{{name: dpo, modifiers: [{node}]}}"
    click.echo(f"\nin a recipe\n  objective: {node}")


def _without_name(text: str, name: str) -> str:
    """ "KTO: a value ..." of kto is "a value ...": the name has been said."""
    first, colon, rest = text.partition(": ")
    said = colon and re.sub(r"\W|_", "", first).lower() == name.replace("_", "")
    return rest if said else text


def _find(name: str) -> tuple[str, Any]:
    """The kind and the class. Raises UserError with the nearest spelling of either kind."""
    from alignzoo.core.errors import UserError
    from alignzoo.registry.lookup import registry

    failed = {}
    for kind in ("objective", "modifier"):
        try:
            return kind, registry().find(kind, name)
        except UserError as error:
            failed[kind] = error
    close = failed["modifier"].problems[0].nearest and not failed["objective"].problems[0].nearest
    raise failed["modifier" if close else "objective"]


def _described(kind: str) -> list[dict[str, Any]]:
    from alignzoo.registry.lookup import registry

    found = [_describe(kind, name, cls) for name, cls in registry().known(kind).items()]
    return sorted(found, key=lambda one: (one["family"], one["name"]))


def _describe(kind: str, name: str, cls: Any) -> dict[str, Any]:
    import inspect

    from alignzoo.registry.lookup import registry

    origin = registry().origin(cls)
    text = inspect.getdoc(cls) or ""
    return {
        "kind": kind,
        "name": name,
        "family": cls.family,
        "what": next(iter(text.splitlines()), ""),
        "description": text,
        "paper": paper(cls),
        "source": cls.source,
        "equation": cls.equation,
        "needs": needs(cls),
        "package": f"{origin.package} {origin.version}".strip(),
        **{key: getattr(cls, key) for key in ASPECTS if hasattr(cls, key)},
        **({"state": _has_state(cls)} if kind == "objective" else {"changes_log_ratio": cls.changes_log_ratio}),
        "constant": cls.stop_gradient,
        "parameters": parameters(cls),
    }


def paper(cls: Any) -> str:
    """The arXiv id of the first paper that the source names, or ""."""
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})", cls.source)
    return found[1] if found else ""


def needs(cls: Any) -> str:
    """What an objective or a modifier asks for, in a few words each; what is the same for all is not said."""
    return ", ".join(_needs(cls))


def _needs(cls: Any) -> Iterator[str]:
    from alignzoo.interfaces.objective import Objective

    if issubclass(cls, Objective):
        yield DATA[cls.data]
        yield "scalar head" if cls.head == "scalar" else REFERENCE[cls.reference]
        if cls.scope == "batch":
            yield "whole batch"
        if _has_state(cls):
            yield "state"
        if cls.mismatched:
            yield "mismatched completions"
    else:
        yield "any data" if set(cls.data) == set(DATA) else " or ".join(DATA[one] for one in cls.data)
        if cls.reference != "none":
            yield REFERENCE[cls.reference]
    if cls.tokens and cls.reference not in ("token", "live") and not cls.statistics:
        yield "tokens"
    yield from (f"{name} of each token" for name in cls.statistics)
    yield from (f"column {name}" for name in cls.columns)
    if cls.needs_uniform:
        yield "random numbers"


def _has_state(cls: Any) -> bool:
    from alignzoo.interfaces.objective import Objective

    return cls.initial_state is not Objective.initial_state


def _paper(one: dict[str, Any]) -> str:
    """The arXiv id, if there is one, and the authors without their remarks: "2305.18290 Rafailov et al. 2023"."""
    authors = re.sub(r" \(.*?\)", "", one["source"].partition(",")[0])
    return f"{one['paper']} {authors}".strip()


command.add_command(plot)
