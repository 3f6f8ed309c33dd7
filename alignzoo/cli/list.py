"""`alignzoo list`: everything that a recipe can name, and the installed plugins."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from alignzoo.cli.describe import HAVE, LOSSES, describe, describe_kind
from alignzoo.cli.parameters import print_parameters

NODES = {
    "objective": "objective: NODE",
    "modifier": "objective: {name: dpo, modifiers: [NODE]}",
    "data source": "data: NODE",
    "format": "data: {name: files, path: FILE, format: NODE}",
    "model source": "model: NODE",
    "metric": "eval: {metrics: [NODE]}",
    "judge": "eval: {judges: [NODE]}",
    "reporter": "reporters: [NODE]",
    "executor": "executor: NODE",
}
"""Kind -> where a recipe, or a comparison, names one."""
OF_COMPARISONS = ("executor",)
"""Kinds that comparisons name, and no recipe."""
PLUGINS = "plugin"
LINES = ("family", "source", "equation", "needs", "constant", "package")


@click.command(name="list")
@click.argument("words", nargs=-1, metavar="[KIND | NAME | KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def command(words: tuple[str, ...], as_json: bool) -> None:
    """List what a recipe can name: everything, one KIND, or all about one NAME or one KEY.

    Kinds: objectives, modifiers, data sources, formats, model sources, metrics, judges, reporters, executors (of
    comparisons). Objectives come by the data that you have, and by family.

    A KEY such as train.optimizer is explained: type, bounds, default and description.

    `alignzoo list plugins` lists the installed packages, what each registers, and why one was not loaded.
    """
    from alignzoo.cli.keys import explain, is_key

    name = " ".join(words)
    kind = re.sub(r"[-_]", " ", name).removesuffix("s")
    if kind == PLUGINS:
        _list_plugins(as_json)
        return
    if not name:
        entries = [entry for each in NODES for entry in describe_kind(each)]
    elif kind not in NODES and is_key(name):
        explained = explain(name)
        click.echo(json.dumps(explained, indent=2)) if as_json else _print_keys(name, explained)
        return
    else:
        entries = describe_kind(kind) if kind in NODES else _find(name)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
    elif not name:
        _table(entries, ("kind", "name", "what", "package"))
    elif kind in LOSSES:
        _losses(entries)
    elif kind in NODES:
        _table(entries, ("name", "what", "package"))
    else:
        for entry in entries:
            _show(entry)


def _find(name: str) -> list[dict[str, Any]]:
    """Describe every component called `name`, of any kind.

    Raises:
        UserError: Nothing has this name. The error gives the nearest spelling of any kind.
    """
    from alignzoo.core.errors import UserError, nearest
    from alignzoo.registry.lookup import registry

    found = registry().find_all(name)
    if found:
        return [describe(kind, registry().spelling(cls), cls) for kind, cls in found]
    errors = []
    for kind in NODES:
        try:
            registry().find(kind, name)
        except UserError as error:
            errors.append(error)
    for missing in errors:
        if missing.problems[0].nearest or "pip install" in missing.problems[0].hint:
            raise missing
    close = nearest(name, [spelling for kind in (*NODES, PLUGINS) for spelling in (kind, f"{kind}s")])
    hints = ["alignzoo list prints every name", *(missing.problems[0].hint for missing in errors[:1])]
    raise UserError(f"nothing is called '{name}'", nearest=close, hint="\n    ".join(filter(None, hints)))


def _print_keys(name: str, explained: list[dict[str, Any]]) -> None:
    """Print a key of a recipe and the keys of its section, by component."""
    for entry in explained:
        of = f" of {entry['of']}" if entry["of"] else ""
        click.echo(f"{name}{of}: {entry['description']}")
        if entry["type"]:
            bounds = f", {entry['bounds']}" if entry["bounds"] else ""
            default = "required" if entry["required"] else f"default {json.dumps(entry['default'])}"
            click.echo(f"  {entry['type']}{bounds}; {default}")
        if entry["keys"]:
            print_parameters(entry["keys"], "keys")
        click.echo()


def _table(entries: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    from alignzoo.cli.tables import print_table

    headings = {"package": "FROM"}
    print_table([headings.get(key, key.upper()) for key in keys], ([entry[key] for key in keys] for entry in entries))


def _losses(entries: list[dict[str, Any]]) -> None:
    """Print objectives by the data that they are for, or modifiers in one table.

    Each table is ordered by family.
    """
    keys = ("name", "family", "paper", "needs", "package")
    cited = [entry | {"paper": _citation(entry)} for entry in entries]
    if any("have" not in entry for entry in entries):
        _table(cited, keys)
        return
    for n, (group, words) in enumerate(HAVE.items()):
        some = [entry for entry in cited if entry["have"] == group]
        if some:
            click.echo(f"{'' if n == 0 else chr(10)}You have {words}\n")
            _table(some, keys)


def _citation(entry: dict[str, Any]) -> str:
    """Return the arXiv id, if any, and the authors: "2305.18290 Rafailov et al. 2023".

    Remarks in parentheses are dropped.
    """
    authors = re.sub(r" \(.*?\)", "", entry["source"].partition(",")[0])
    return f"{entry['paper']} {authors}".strip()


def _show(entry: dict[str, Any]) -> None:
    kind, name = entry["kind"], entry["name"]
    click.echo(f"{kind} {name}: {_without_name(entry['description'], name)}\n")
    for key in LINES:
        if entry.get(key):
            click.echo(f"{key:<10}{entry[key]}")
    values = print_parameters(entry["parameters"])
    required = [field["name"] for field in entry["parameters"] if field["required"]]
    written = values if kind in LOSSES else {key: values[key] for key in required}
    node = f"{{name: {name}{''.join(f', {key}: {value}' for key, value in written.items())}}}"
    click.echo(f"\nin a {'comparison' if kind in OF_COMPARISONS else 'recipe'}\n  {NODES[kind].replace('NODE', node)}")


def _without_name(text: str, name: str) -> str:
    """Drop a name that the text begins with: "KTO: a value ..." of kto is "a value ..."."""
    first, colon, rest = text.partition(": ")
    repeated = colon and re.sub(r"\W|_", "", first).lower() == name.replace("_", "")
    return rest if repeated else text


def _list_plugins(as_json: bool) -> None:
    from dataclasses import asdict

    from alignzoo.registry.loading import OFF, PluginInfo
    from alignzoo.registry.lookup import registry

    infos = registry().plugins()
    if as_json:
        click.echo(json.dumps([asdict(info) for info in infos], indent=2))
        return
    if not infos:
        click.echo("no plugin is installed (alignzoo list prints the built-ins)")
        return

    def row(info: PluginInfo) -> dict[str, str]:
        offers = "; ".join(f"{kind} {', '.join(names)}" for kind, names in info.offers.items())
        status = "off" if info.problem == OFF else "not loaded" if info.problem else "ok"
        return {"plugin": info.package, "version": info.version, "status": status,
                "offers": info.problem or offers or "nothing"}  # fmt: skip

    _table([row(info) for info in infos], ("plugin", "version", "status", "offers"))
