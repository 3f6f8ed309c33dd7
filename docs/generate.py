"""Write the pages and tables that follow from the code: module tree, recipe keys, objectives, commands.

Run as: python docs/generate.py [--draw]

With --draw it also draws the objectives, which takes half a minute.

`tests/docs/test_generated.py` fails when a page differs from what this script writes.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from copy import copy
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, create_model

import alignzoo as alignzoo_package
from alignzoo.cli import COMMANDS, alignzoo
from alignzoo.cli.describe import HAVE, have, lines_of, needs, paper, usage
from alignzoo.cli.parameters import parameters
from alignzoo.compare.spec import Comparison, FrontierConfig, Sampling
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.model_source import Lora, ModelSource
from alignzoo.recipe.critic import CriticConfig
from alignzoo.recipe.optimizers import OPTIMIZERS
from alignzoo.recipe.peer_names import LOSSES, PEERS
from alignzoo.recipe.rewards import Reward
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.recipe.schema import (
    EarlyStopping,
    EvalConfig,
    FilterConfig,
    Recipe,
    RepliesConfig,
    Schedule,
    TokensConfig,
    TrainConfig,
)
from alignzoo.registry.lookup import Registry

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CATALOGUE = ("alignzoo-zoo", "alignzoo-unlearn", "alignzoo-online", "alignzoo-distill")
"""Packages in plugins/ whose objectives are listed."""
NOTE = "<!-- Written by docs/generate.py. Do not edit. -->\n"
UNSET = {(Recipe, "name"): "the file's name", (Recipe, "reporters"): "`[html]`"}
"""Defaults that the loader fills in before the schema validates."""
MARK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated -->\n)", re.S)


def pages() -> dict[Path, str]:
    """Every generated page, and every page with a generated part: its path and its text."""
    whole = {"modules.md": modules(), "objectives.md": objectives(), "commands.md": commands()}
    made = {"rooms": rooms, "keys": keys, "peers": peers, "losses": losses, "api": api}
    parts = {name: "".join(part()) for name, part in made.items()}
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


def catalogue(kind: str) -> list[Any]:
    """Built-in objectives or modifiers and those of the packages in `CATALOGUE`, by family and name."""
    every = [cls for cls in Registry().known(kind).values() if cls.__module__.startswith("alignzoo.")]
    for name in CATALOGUE:
        sys.path.insert(0, str(ROOT / "plugins" / name))
        module = import_module(name.replace("-", "_"))
        every += module.OBJECTIVES if kind == "objective" else getattr(module, "MODIFIERS", [])
    return sorted({cls.name: cls for cls in every}.values(), key=lambda cls: (cls.family, cls.name))


def package(cls: type) -> str:
    """A link to the package that has the objective, or "" for a built-in one."""
    name = cls.__module__.partition(".")[0].replace("_", "-")
    return f"[{name}](../plugins/{name}/README.md)" if name in CATALOGUE else ""


def objectives() -> str:
    """The catalogue: what to choose by data, then each family with its picture, and each objective with its fields."""
    known, modifiers = catalogue("objective"), catalogue("modifier")
    lines = [
        NOTE,
        "# Objectives and modifiers\n\nBuilt in, or in the package that each names. `h` is the "
        "difference of the two log-ratios, `log_ratio` that of log-probs under policy and reference. The pictures have "
        "the loss above, and below it its pull on the chosen completion and its push on the rejected one.\n\n"
        "Three packages have families of their own, with more on them in their READMEs: "
        "[distillation](../plugins/alignzoo-distill/README.md) from the distributions of a teacher, "
        "[unlearning](../plugins/alignzoo-unlearn/README.md), and "
        "[policy gradients](../plugins/alignzoo-online/README.md) on draws.\n",
        "\n## By what you have\n\n| you have | objectives |\n|---|---|\n",
    ]
    for key, words in HAVE.items():
        names = ", ".join(f"[`{cls.name}`](#{cls.name})" for cls in known if have(cls) == key)
        if names:
            lines.append(f"| {words} | {names} |\n")
    for family, some in groupby(known, key=lambda cls: cls.family):
        file = picture(family).relative_to(DOCS)
        lines.append(f"\n## {family.capitalize()}\n\n![Loss and gradients]({file})\n")
        lines += map(entry, some)
    lines.append("\n## Modifiers\n\nA modifier changes an objective's inputs or loss: `modifiers: [{name: NAME}]`.\n")
    return "".join([*lines, *map(entry, modifiers)])


def entry(cls: Any) -> str:
    """An objective or a modifier: what it is, when to use it, its equation, its needs and its fields."""
    id = paper(cls)
    source = f"[{cls.source}](https://arxiv.org/abs/{id})" if id else cls.source
    fields = ", ".join(
        f"`{one['name']}`" + ("" if one["required"] else f" = {one['default']}") for one in parameters(cls)
    )
    rows = {
        "When": sentence(usage(cls, "When")), "Not when": sentence(usage(cls, "Not when")),
        "Loss": f"`{cls.equation}`", "Needs": needs(cls), "Fields": fields, "Source": source,
        "Package": package(cls), "Lines of code": str(lines_of(cls)),
    }  # fmt: skip
    text = "\n\n".join(paragraphs_of(cls))
    listed = "".join(f"- {key}: {value}\n" for key, value in rows.items() if value)
    return f"\n### `{cls.name}`\n\n{text}\n\n{listed}"


def paragraphs_of(cls: Any) -> list[str]:
    """The paragraphs of a docstring, each on one line, without those on when to use it."""
    paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
    return [" ".join(one.split()) for one in paragraphs if not one.startswith(("When: ", "Not when: "))]


def sentence(text: str) -> str:
    """Text that begins with a capital letter, except for code."""
    return text[:1].upper() + text[1:]


def picture(family: str) -> Path:
    """The file with the curves of a family."""
    return DOCS / "objectives" / f"{family.replace(' ', '-')}.svg"


def draw() -> Iterator[Path]:
    """Draw the loss and the gradients of every objective, one picture a family."""
    from alignzoo.report.loss_curves import shape_of
    from alignzoo.report.objective_plots import write_zoo

    for family, some in groupby(catalogue("objective"), key=lambda cls: cls.family):
        picture(family).parent.mkdir(exist_ok=True)
        write_zoo([shape_of(cls.name, cls) for cls in some], picture(family), columns=5)
        yield picture(family)


def keys() -> Iterator[str]:
    """Tables of every key of a recipe and of a comparison."""
    known = Registry()

    def all_of(kind: str) -> list[type]:
        named = [cls for _, cls in sorted(known.known(kind).items())]
        return [cls for cls in named if cls.__module__.startswith("alignzoo.")]

    yield from table("Top level", "", Recipe)
    yield from table("Tokens", "tokens.", TokensConfig)
    yield from table("Train", "train.", TrainConfig)
    for name, optimizer in OPTIMIZERS.items():
        yield from table(f"Optimizer {name}", "train.optimizer.", optimizer)
    yield from table("Schedule", "train.schedule.", Schedule)
    yield from table("Early stopping", "train.early_stopping.", EarlyStopping)
    yield from table("Filter", "filter.", FilterConfig)
    yield from table("Rollout", "rollout.", RolloutConfig)
    beside = create_model("Beside", judge=(Any, None))
    yield from table("Reward, beside the keys of its judge", "rollout.rewards[].", Reward, beside)
    of_model = create_model("OfModel", model=(Any, None))
    yield from table("Critic, beside the keys of its model", "critic.", CriticConfig, of_model)
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
    yield from table("Comparison: frontier", "frontier.", FrontierConfig)
    for cls in all_of("executor"):
        yield from table(f"Executor {cls.name}", "executor.", cls)


def peers() -> Iterator[str]:
    """A table of other trainers' keys and ours."""
    yield "\n| TRL, Axolotl, LLaMA-Factory | alignzoo | remark |\n|---|---|---|\n"
    for name, (key, note) in sorted(PEERS.items()):
        yield f"| `{name}` | `{key}` | {cell(note)} |\n"
    yield "\n"


def losses() -> Iterator[str]:
    """A table of other trainers' losses and our objectives."""
    yield "\n| TRL, Axolotl, LLaMA-Factory | alignzoo | remark |\n|---|---|---|\n"
    for name, (objective, note) in LOSSES.items():
        yield f"| `{name}` | [`{objective}`](objectives.md#{objective}) | {cell(note)} |\n"
    yield "\n"


def api() -> Iterator[str]:
    """The directives of mkdocstrings for each public name, by kind."""
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": [], "Modules": []}
    elsewhere = ["__version__"]
    for name, home in homes():
        if find_spec(home).submodule_search_locations and find_spec(f"{home}.{name}"):
            kinds["Modules"].append(f"{home}.{name}")
            continue
        value = getattr(import_module(home), name)
        if (getattr(value, "__module__", ""), getattr(value, "__name__", "")) != (home, name):
            elsewhere.append(name)
            continue
        error = inspect.isclass(value) and issubclass(value, BaseException)
        kind = "Errors" if error else "Classes" if inspect.isclass(value) else "Functions"
        kinds[kind].append(f"{home}.{name}")
    yield f"\nWithout a section here: {', '.join(f'`{name}`' for name in elsewhere)}.\n"
    for kind, paths in kinds.items():
        yield f"\n## {kind}\n"
        yield from (f"\n::: {path}\n" for path in paths)
    yield "\n"


def homes() -> list[tuple[str, str]]:
    """Every public name and the module that has it, as `alignzoo/__init__.py` states for type checkers."""
    source = ast.parse((ROOT / "alignzoo" / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(source) if isinstance(node, ast.ImportFrom) and node.module]
    found = {one.name: str(node.module) for node in imports for one in node.names}
    return [(name, found[name]) for name in alignzoo_package.__all__ if name != "__version__"]


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
        return default.get("name", "see below") if default else "{}"
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
    for path in draw() if "--draw" in sys.argv else ():
        print(path.relative_to(ROOT))
