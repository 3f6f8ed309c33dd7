"""Write the pages and tables that follow from the code: module tree, recipe keys, objectives, commands.

Run as: python docs/generate.py

`tests/docs/test_generated.py` fails when a page differs from what this script writes.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from alignzoo.cli import COMMANDS, alignzoo
from alignzoo.cli.describe import needs, paper
from alignzoo.cli.parameters import parameters
from alignzoo.compare.spec import Comparison, Sampling
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.model_source import Lora, ModelSource
from alignzoo.recipe.schema import (
    SGD,
    AdamW,
    EvalConfig,
    Recipe,
    RepliesConfig,
    RMSprop,
    Schedule,
    TokensConfig,
    TrainConfig,
)
from alignzoo.registry.lookup import Registry

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTE = "<!-- Written by docs/generate.py. Do not edit. -->\n"
UNSET = {(Recipe, "name"): "the file's name", (Recipe, "reporters"): "`[html]`"}
"""Defaults that the loader fills in before the schema validates."""
MARK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated -->\n)", re.S)


def pages() -> dict[Path, str]:
    """Every generated page, and every page with a generated part: its path and its text."""
    whole = {"modules.md": modules(), "objectives.md": objectives(), "commands.md": commands()}
    parts = {"rooms": "".join(rooms()), "keys": "".join(keys())}
    found = {DOCS / name: text for name, text in whole.items()}
    for path in sorted(DOCS.glob("*.md")):
        if path.name not in whole and MARK.search(text := path.read_text(encoding="utf-8")):
            found[path] = MARK.sub(lambda match: match[1] + parts[match[2]] + match[3], text)
    return found


def first_line(path: Path) -> str:
    """The first line of a module's docstring, without its period."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0].rstrip(".")


def rooms() -> Iterator[str]:
    """A table of the packages directly below `alignzoo`, by name."""
    yield "\n| room | contents |\n|---|---|\n"
    for folder in sorted(path.parent for path in (ROOT / "alignzoo").glob("*/__init__.py")):
        yield f"| [`{folder.name}/`](modules.md#{folder.name}) | {cell(first_line(folder / '__init__.py'))} |\n"
    yield "\n"


def modules() -> str:
    """Every module with the first line of its docstring, by room."""
    lines = [NOTE, "# Module tree\n\nOne line for each module, from the first line of its docstring.\n"]
    room = ""
    for path in sorted((ROOT / "alignzoo").rglob("*.py"), key=lambda path: (path.parent.parts, path.name)):
        inside = path.relative_to(ROOT / "alignzoo")
        if (top := inside.parts[0] if len(inside.parts) > 1 else "alignzoo") != room:
            room = top
            lines.append(f"\n## {room}\n\n")
        lines.append(f"- [`{inside}`](../alignzoo/{inside}): {first_line(path)}\n")
    return "".join(lines)


def objectives() -> str:
    """The catalogue: built-in objectives and those of alignzoo-zoo, by family, with paper, needs and fields."""
    sys.path.insert(0, str(ROOT / "plugins" / "alignzoo-zoo"))
    from alignzoo_zoo import MODIFIERS, OBJECTIVES

    known = Registry()
    lines = [
        NOTE,
        "# Objectives and modifiers\n\nBuilt in, or in [alignzoo-zoo](../plugins/alignzoo-zoo/README.md). "
        "`h` is the difference of the two log-ratios. `needs` is what the engine provides.\n",
    ]
    for title, kind, zoo in (("Objectives", "objective", OBJECTIVES), ("Modifiers", "modifier", MODIFIERS)):
        built_in = [cls for cls in known.known(kind).values() if cls.__module__.startswith("alignzoo.")]
        lines.append(f"\n## {title}\n")
        every = {cls.name: cls for cls in (*built_in, *zoo)}.values()
        for family in sorted({cls.family for cls in every}):
            lines.append(f"\n### {title}: {family or 'general'}\n\n| name | description | paper | needs | fields |\n")
            lines.append("|---|---|---|---|---|\n")
            for cls in sorted((cls for cls in every if cls.family == family), key=lambda cls: cls.name):
                fields = ", ".join(
                    f"`{one['name']}`" + ("" if one["required"] else f" = {one['default']}") for one in parameters(cls)
                )
                id = paper(cls)
                link = f"[{id}](https://arxiv.org/abs/{id})" if id else cls.source
                what = (inspect.getdoc(cls) or "").partition("\n")[0].rstrip(".")
                lines.append(f"| `{cls.name}` | {cell(what)} | {link} | {needs(cls)} | {cell(fields)} |\n")
    return "".join(lines)


def keys() -> Iterator[str]:
    """Tables of every key of a recipe and of a comparison."""
    known = Registry()

    def all_of(kind: str) -> list[type]:
        named = [cls for _, cls in sorted(known.known(kind).items())]
        return [cls for cls in named if cls.__module__.startswith("alignzoo.")]

    yield from table("Top level", "", Recipe)
    yield from table("Tokens", "tokens.", TokensConfig)
    yield from table("Train", "train.", TrainConfig)
    for optimizer in (AdamW, RMSprop, SGD):
        yield from table(f"Optimizer {optimizer.model_fields['name'].default}", "train.optimizer.", optimizer)
    yield from table("Schedule", "train.schedule.", Schedule)
    yield from table("Eval", "eval.", EvalConfig)
    yield from table("Replies", "eval.replies.", RepliesConfig)
    yield from table("Model, every source", "model.", ModelSource)
    yield from table("LoRA", "model.lora.", Lora)
    for cls in all_of("model source"):
        yield from table(f"Model source {cls.name}", "model.", cls, ModelSource)
    yield from table("Data, every source", "data.", DataSource)
    for cls in all_of("data source"):
        yield from table(f"Data source {cls.name}", "data.", cls, DataSource)
    for kind, prefix in (
        ("format", "data.format."),
        ("metric", "eval.metrics[]."),
        ("judge", "eval.judges[]."),
        ("reporter", "reporters[]."),
    ):
        for cls in all_of(kind):
            yield from table(f"{kind.capitalize()} {cls.name}", prefix, cls)
    yield from table("Comparison", "", Comparison)
    yield from table("Comparison: samples", "samples.", Sampling)


def table(title: str, prefix: str, cls: type[BaseModel], base: type[BaseModel] | None = None) -> Iterator[str]:
    """The fields of a class as rows of a table; those of `base` are left out."""
    own = [one for one in parameters(cls) if base is None or one["name"] not in names(base)]
    yield f"\n### {title}\n\n"
    if not own:
        yield "No keys of its own.\n"
        return
    yield "| key | type | default | meaning |\n|---|---|---|---|\n"
    for one in own:
        default = UNSET.get((cls, one["name"])) or ("required" if one["required"] else f"`{value_of(one['default'])}`")
        kind = one["type"].replace("any", "section").replace("array", "list")
        limits = f", {one['bounds']}" if one["bounds"] else ""
        yield f"| `{prefix}{one['name']}` | {cell(kind + limits)} | {cell(default)} | {cell(one['description'])} |\n"


def names(cls: type[BaseModel]) -> set[str]:
    """The keys of a class, as a recipe writes them."""
    return {info.alias or key for key, info in cls.model_fields.items()}


def value_of(default: Any) -> str:
    """A default as YAML has it, on one line and not too long."""
    if isinstance(default, dict):
        return default.get("name", "see below")
    words = {None: "null", True: "true", False: "false", "": '""'}
    text = words[default] if isinstance(default, bool | str | None) and default in words else str(default)
    return text if len(text) < 60 and "\n" not in text else "see the source"


def commands() -> str:
    """The help of every command."""
    lines = [NOTE, "# Commands\n\nThe help of each command, as `alignzoo COMMAND --help` prints it.\n"]
    context = click.Context(alignzoo, info_name="alignzoo", max_content_width=100, terminal_width=100)
    for name in COMMANDS:
        lines += _help(alignzoo.get_command(context, name), name, context, 2)
    return "".join(lines)


def _help(command: Any, name: str, parent: click.Context, level: int) -> Iterator[str]:
    command = copy(command)
    command._help_option = None  # kept from whoever called the command without the group, and its -h, before
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=100, help_option_names=["-h", "--help"]
    )
    yield f"\n{'#' * level} {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _help(inner, str(inner.name), context, level + 1)


def cell(text: str) -> str:
    """Text that a Markdown table can hold."""
    return text.replace("|", r"\|").replace("\n", r"\n")


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
