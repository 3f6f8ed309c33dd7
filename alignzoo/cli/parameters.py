"""Parameters of a component: defaults, bounds and descriptions, as JSON and as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

BOUNDS = {"exclusiveMinimum": "> {}", "minimum": ">= {}", "exclusiveMaximum": "< {}", "maximum": "<= {}"}
"""JSON Schema keyword -> printed form."""


def parameters(cls: Any) -> list[dict[str, Any]]:
    """Describe every field of a class."""
    schema = cls.model_json_schema(mode="validation")["properties"] if cls.model_fields else {}
    return [_parameter(info.alias or key, info, schema) for key, info in cls.model_fields.items()]


def print_parameters(fields: Sequence[dict[str, Any]], title: str = "parameters") -> dict[str, str]:
    """Print parameters under a title.

    Returns each as a recipe writes its default, `...` for a required one.
    """
    click.echo(f"\n{title}" if fields else f"\nno {title}")
    for field in fields:
        bounds = f", {field['bounds']}" if field["bounds"] else ""
        default = "(required)" if field["required"] else f"= {field['default']}"
        click.echo(f"  {field['name']} {default}  ({field['type']}{bounds})\n      {field['description']}")
    return {field["name"]: "..." if field["required"] else json.dumps(field["default"]) for field in fields}


def _parameter(name: str, info: FieldInfo, properties: Mapping[str, Any]) -> dict[str, Any]:
    schema = properties[name]
    kinds = schema.get("anyOf", [schema])  # two for a field that may be null
    bounds = [text.format(kind[word]) for kind in kinds for word, text in BOUNDS.items() if word in kind]
    types = [" | ".join(map(str, kind["enum"])) if "enum" in kind else _type(kind) for kind in kinds]
    return {
        "name": name,
        "type": " | ".join(types),
        "required": info.is_required(),
        "default": schema.get("default"),
        "bounds": ", ".join(bounds),
        "description": info.description or "",
    }


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "any")
    return " | ".join(kind) if isinstance(kind, list) else str(kind)
