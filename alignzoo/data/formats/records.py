"""Format of records with named columns: pairs, labeled completions, ranked lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from alignzoo.data.formats.pairs import Columns, column_of
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped


class Records(Format):
    """Records with named columns: pairs, labeled completions, ranked lists, and chats or texts for SFT.

    A pair has prompt, chosen and rejected, as strings or chat messages. Without a prompt column the prompt is the
    common beginning of both. A labeled completion has prompt, completion and label. A ranked list has prompt,
    completions, and scores or ranks. Data of SFT has messages, conversations (ShareGPT), text, prompt and completion,
    or instruction, input and output (Alpaca). Other numbers are columns that an objective can use.
    """

    name = "records"

    prompt: str = Field("prompt", description="column of the prompt; a column named `prompt` may be absent")
    chosen: str = Field("chosen", description="column of the preferred completion")
    rejected: str = Field("rejected", description="column of the other completion")
    completion: str = Field("completion", description="column of a single completion")
    messages: str = Field("messages", description="column of a chat for SFT")
    text: str = Field("text", description="column of a text for SFT")
    id: str | None = Field(None, description="column of unique row ids; by default the position of the row")

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """Build a row from one record. Raises UserError for a missing column or a value of the wrong type."""
        if self.id:
            id = str(column_of(dict(record), self.id, where))
        columns = Columns(self.prompt, self.chosen, self.rejected, self.completion, self.messages, self.text)
        return record_row(id, dict(record), columns, where)
