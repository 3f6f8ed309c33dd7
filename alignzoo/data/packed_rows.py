"""Tokenized rows as bytes, from the process that makes them to the one that writes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from alignzoo.core.door import parse_json
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.tree_writer import ARRAYS
from alignzoo.data.trees import Trees
from alignzoo.interfaces.rows import Row, Skipped

KEPT, ABOUT = "kept", "about"


def pack(part: TokenizedRows, rows: Sequence[Row], prefixes: Sequence[str | None] = ()) -> bytes:
    """Return the tokenized rows as bytes, without the rows themselves.

    Args:
        part: Trees without columns, their rows and counts.
        rows: The rows that were tokenized, of which `part.rows` are some.
        prefixes: The text of each prompt that was cut to its first tokens, None for the others.
    """
    kept = {id(row) for row in part.rows}
    about = {
        "skipped": [[one.id, one.reason, one.detail] for one in part.skipped], "boundary": part.boundary,
        "truncated": [part.truncated_prompts, part.truncated_completions], "cut": list(part.cut),
        "prefixes": list(prefixes) if any(row.prefix_tokens for row in part.rows) else [],
    }  # fmt: skip
    arrays: dict[str, Any] = {name: getattr(part.trees, name) for name in ARRAYS}
    arrays["keys"] = part.trees.keys
    arrays[KEPT] = np.array([id(row) in kept for row in rows], dtype=np.uint8)
    arrays[ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return bytes(save({name: np.ascontiguousarray(values) for name, values in arrays.items()}))


def unpack(raw: bytes, rows: Sequence[Row]) -> TokenizedRows:
    """Return the tokenized rows that `pack` has made of the same rows."""
    arrays = load(raw)
    about = parse_json(arrays[ABOUT].tobytes(), "the tokens of a child")
    kept = [row for row, own in zip(rows, arrays[KEPT].tolist(), strict=True) if own]
    if about["prefixes"]:
        cut = zip(kept, about["prefixes"], strict=True)
        kept = [row if text is None else replace(row, prompt=text) for row, text in cut]
    tokens, segments, trees, spans, span_cuts = (arrays[name] for name in ARRAYS)
    built = Trees([row.id for row in kept], tokens, segments, trees, spans, span_cuts, keys=arrays["keys"])
    skipped = [Skipped(*one) for one in about["skipped"]]
    prompts, completions = about["truncated"]
    return TokenizedRows(built, kept, skipped, prompts, completions, Counter(about["boundary"]), cut=about["cut"])
