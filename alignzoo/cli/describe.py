"""Descriptions of what a recipe can name, as plain values.

Those of objectives and modifiers have more entries than those of other kinds.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from alignzoo.cli.parameters import parameters

DATA = {"pair": "pairs", "chosen": "chosen completions", "unpaired": "labeled completions", "ranked": "ranked lists",
        "group": "draws with rewards"}  # fmt: skip
REFERENCE = {
    "none": "no reference", "sequence": "cached reference", "token": "cached reference by token",
    "live": "live reference", "moving": "moving reference",
}  # fmt: skip
HAVE = {
    "pairs": "pairs: a chosen and a rejected completion of each prompt",
    "scores": "scores of both completions of a pair",
    "flags": "pairs, and yes-or-no labels of their completions",
    "ties": "pairs, some of which are ties",
    "labels": "labels alone: single completions, good or bad",
    "list": "a list: several ranked or scored completions of each prompt",
    "chosen": "good completions alone",
    "marked": "completions, some of which are marked, as those to forget",
    "teacher": "a teacher: another model with the same tokenizer, to learn from on given completions or on draws",
    "rollout": "prompts and a reward",
}
"""What a dataset has -> its description, in the order of the list of objectives."""
ASPECTS = (
    "data", "reference", "named_reference", "references", "scope", "head", "tokens", "statistics", "columns", "flags",
    "probabilities", "column_fields", "ties", "mismatched", "needs_uniform",
)  # fmt: skip
"""Declarations in class attributes, under the same names."""
LOSSES = ("objective", "modifier")
"""Kinds that are described by paper, equation and needs."""


def describe_kind(kind: str) -> list[dict[str, Any]]:
    """Describe everything of a kind, by family and name."""
    from alignzoo.registry.lookup import registry

    found = [describe(kind, name, cls) for name, cls in registry().known(kind).items()]
    return sorted(found, key=lambda entry: (entry.get("family", ""), entry["name"]))


def describe(kind: str, name: str, cls: Any) -> dict[str, Any]:
    """Describe a class that a recipe calls `name`."""
    from alignzoo.registry.lookup import registry

    origin, text = registry().origin(cls), inspect.getdoc(cls) or ""
    return {
        "kind": kind,
        "name": name,
        "what": next(iter(text.splitlines()), ""),
        "description": text,
        "source": getattr(cls, "source", ""),
        "package": f"{origin.package} {origin.version}".strip(),
        "parameters": parameters(cls),
        **(_loss(kind, cls) if kind in LOSSES else {}),
    }


def _loss(kind: str, cls: Any) -> dict[str, Any]:
    return {
        "family": cls.family,
        "paper": paper(cls),
        "equation": cls.equation,
        "needs": needs(cls),
        "when": usage(cls, "When"),
        "not_when": usage(cls, "Not when"),
        "constant": cls.stop_gradient,
        **{key: getattr(cls, key) for key in ASPECTS if hasattr(cls, key)},
        **(
            {"state": _has_state(cls), "have": have(cls)}
            if kind == "objective"
            else {"changes_log_ratio": cls.changes_log_ratio}
        ),
    }


def paper(cls: Any) -> str:
    """Return the arXiv id of the first paper in `source`, or ""."""
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})", cls.source)
    return found[1] if found else ""


def have(cls: Any) -> str:
    """Return the key of `HAVE` that says which data an objective is for."""
    if cls.named_reference:
        return "teacher"
    by_data = {"unpaired": "labels", "ranked": "list", "chosen": "chosen"}
    if getattr(cls, "drawn_by", ()):
        return "rollout"
    if cls.data == "chosen" and cls.flags:
        return "marked"
    if cls.data != "pair":
        return by_data.get(cls.data, "rollout")
    kinds = {
        "ties": getattr(cls, "ties", False),
        "flags": getattr(cls, "flags", ()),
        "scores": cls.columns or cls.column_fields,
    }
    return next((kind for kind, present in kinds.items() if present), "pairs")


def usage(cls: Any, heading: str) -> str:
    """Return the paragraph of a docstring that begins with a heading, without it, or ""."""
    paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
    found = next((one for one in paragraphs if one.startswith(f"{heading}: ")), "")
    return " ".join(found.removeprefix(f"{heading}: ").split())


def lines_of(cls: type) -> int:
    """Count the lines of a class, without blank ones and docstrings."""
    source = textwrap.dedent(inspect.getsource(cls))
    docs: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docs.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return sum(bool(line.strip()) and n not in docs for n, line in enumerate(source.splitlines(), 1))


def needs(cls: Any) -> str:
    """Return the comma-separated needs of an objective or a modifier beyond the defaults."""
    return ", ".join(_needs(cls))


def _needs(cls: Any) -> Iterator[str]:
    from alignzoo.interfaces.objective import Objective

    if issubclass(cls, Objective):
        yield DATA[cls.data]
        yield "scalar head" if cls.head == "scalar" else REFERENCE[cls.reference]
        if cls.head == "value":
            yield "critic"
        if cls.language_head:
            yield "language head"
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
    if cls.named_reference:
        yield "a named reference"
    kinds = {name: "flag" for name in cls.flags} | {name: "probability" for name in cls.probabilities}
    yield from (f"{kinds.get(name, 'column')} {name}" for name in cls.columns)
    yield from (f"columns named by {name}" for name in cls.column_fields)
    yield from (f"reference {name}" for name in cls.references)
    yield from (f"output {name}" for name in getattr(cls, "outputs", ()))
    yield from (f"outputs named by {name}" for name in getattr(cls, "output_fields", ()))
    if cls.ties:
        yield "ties"
    if cls.needs_uniform:
        yield "random numbers"


def _has_state(cls: Any) -> bool:
    from alignzoo.interfaces.objective import Objective

    return cls.initial_state is not Objective.initial_state
