"""Format of Anthropic's HH records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.formats.dialogue import dialogue_row
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped


class HHDialogues(Format):
    r"""Pairs of whole dialogues, `chosen` and `rejected`, in HH's `\n\nHuman: ...` format.

    Source: Bai et al. 2022, arXiv:2204.05862; records as in the dataset Anthropic/hh-rlhf.
    """

    name = "hh"

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """Build a row from one pair of dialogues. Raises UserError for a missing field."""
        for name in ("chosen", "rejected"):
            if not isinstance(record.get(name), str):
                raise UserError(
                    f"no text field '{name}'", where=where, nearest=nearest(name, record),
                    expected="chosen and rejected, each a whole dialogue as text",
                )  # fmt: skip
        return dialogue_row(id, record["chosen"], record["rejected"])
