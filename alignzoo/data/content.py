"""Equality of rows and prompts after normalization, as 64-bit hashes; repeated rows.

Two texts are equal here if they are after Unicode NFC and case folding, with every run of white space as one space and
none at the ends. A prompt is the texts of its messages without their roles. A row is its prompt, its completions in any
order, and its tools; labels, scores and other columns don't count. A row without a prompt is its own prompt.

Hashes of 64 bits collide: among n different rows, any two with a probability of at most n^2 / 2^65, which is 3e-8 for a
million rows and 3e-4 for a hundred million.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from alignzoo.interfaces.rows import Message, Row, Text, plain_text, reasoning

Hashes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Content:
    """Hashes of the prompts and of the whole rows of one split, in the same order."""

    prompts: Hashes
    rows: Hashes

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def joined(cls, parts: Sequence[Content]) -> Content:
        """Return the hashes of several splits as one."""
        empty = np.zeros(0, np.int64)
        return cls(
            np.concatenate([empty, *(part.prompts for part in parts)]),
            np.concatenate([empty, *(part.rows for part in parts)]),
        )

    def taken(self, mask: NDArray[np.bool_]) -> Content:
        """Return the hashes of the rows under a mask."""
        return Content(self.prompts[mask], self.rows[mask])

    def repeats(self) -> dict[str, int]:
        """Count the rows that equal an earlier one, and those with the prompt of an earlier one."""
        return {"rows": repeats(self.rows), "prompts": repeats(self.prompts)}

    def also_in(self, other: Content) -> dict[str, int]:
        """Count the rows that are in `other` too, and those whose prompt is."""
        return {
            "rows": int(np.isin(self.rows, other.rows).sum()),
            "prompts": int(np.isin(self.prompts, other.prompts).sum()),
        }


def repeats(hashes: Hashes) -> int:
    """Count the hashes that are there before in the array."""
    return len(hashes) - len(np.unique(hashes))


def is_first(hashes: Hashes) -> NDArray[np.bool_]:
    """Return True for each hash that is not there before in the array."""
    first = np.zeros(len(hashes), dtype=np.bool_)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first


def content_of(row: Row) -> tuple[int, int]:
    """Return the hash of a row's prompt and the hash of the whole row."""
    prompt = normalized(_words(row.prompt))
    completions = sorted(normalized(f"{_words(one.context)}\n{_words(one.text)}") for one in row.completions)
    tools = [json.dumps(tool, sort_keys=True, default=str) for tool in row.tools or ()]
    whole = _hash("\0".join([prompt, *completions, *tools]))
    return (_hash(prompt) if prompt else whole), whole


def normalized(text: str) -> str:
    """Return a text in NFC, case folded, with single spaces between its words."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(normalize("NFC", normalize("NFC", text).casefold()).split())


def _words(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(map(_message, text))


def _message(message: Message) -> str:
    return f"{reasoning(message)}\n{plain_text(message)}"


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big", signed=True)


def overlap_lines(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each set of evaluation rows that overlaps with the training rows.

    A row overlaps if it equals a training row, or has its prompt.
    """
    found = {"held-out rows": report["overlap"]}
    found |= {f"rows of eval.data.{name}": own["overlap"] for name, own in report.get("evaluation", {}).items()}
    return [
        f"overlap: {own['rows']:,} {what} are also training rows, {own['prompts']:,} have a prompt that is trained on "
        "(eval.allow_overlap=true hides this line)"
        for what, own in found.items()
        if own["rows"] or own["prompts"]
    ]  # fmt: skip
