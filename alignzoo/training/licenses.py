"""The license of a base model, from its own model card on this machine."""

from __future__ import annotations

from typing import Any

from huggingface_hub.repocard import REGEX_YAML_BLOCK

from alignzoo.core.door import read_text
from alignzoo.core.door.marked_yaml import parse
from alignzoo.core.errors import UserError
from alignzoo.training.run_source import RunSource, file_of_source

FIELDS = ("license", "license_name", "license_link")


def license_beside(source: RunSource) -> dict[str, Any]:
    """Return the fields on the license in the model card of a run's base model.

    There are none where no card is known. The card is README.md in the model's folder, or in the hub's cache.

    Args:
        source: The source of weights of the first run of a chain of starts.
    """
    card = file_of_source(source, "README.md")
    if card is None:
        return {}
    try:
        block = REGEX_YAML_BLOCK.search(read_text(card))
        node = parse(block[2], str(card)) if block else None
        values = node.plain() if node is not None else None
    except UserError:  # a card that can't be read names no license
        return {}
    fields = values if isinstance(values, dict) else {}
    return {key: fields[key] for key in FIELDS if isinstance(fields.get(key), str)}
