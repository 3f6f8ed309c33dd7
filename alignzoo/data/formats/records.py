"""Records with named columns: pairs, labeled completions, ranked lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from alignzoo.data.formats.pairs import Columns, column_of
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped


class Records(Format):
    """Prompt, chosen and rejected, as strings or chat messages; without a prompt it is what both share.

    Also labeled completions (prompt, completion, label) and ranked lists (prompt, completions, scores or ranks).
    Numbers beside them are columns that an objective can ask for.
    """

    name = "records"

    prompt: str = Field("prompt", description="the column of the prompt; `prompt` may be absent")
    chosen: str = Field("chosen", description="the column of the preferred completion")
    rejected: str = Field("rejected", description="the column of the other completion")
    id: str | None = Field(None, description="the column of a row's own id, unique; by default the row's place")

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """One record."""
        if self.id:
            id = str(column_of(dict(record), self.id, where))
        return record_row(id, dict(record), Columns(self.prompt, self.chosen, self.rejected), where)
