"""Format of records with named columns: every shape of `alignzoo.data.formats.row_shapes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from alignzoo.data.formats.parts import PARTS, column_of
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped


class Records(Format):
    """Records with named columns: pairs, labeled completions, ranked lists, SFT data, prompts.

    SFT data are chats or texts. The prompt is a column, Alpaca's instruction and input, a chat that is not finished,
    or the common beginning of whole chats. Beside it are chosen and rejected, completions with scores or ranks, a
    completion with or without a label, or nothing. A renamed column must be in every record, and null stands for a part
    that is not read. Other columns are kept with the row.
    """

    name = "records"

    prompt: str | None = Field("prompt", description="column of the prompt, as text or messages")
    chosen: str | None = Field("chosen", description="column of the preferred completion")
    rejected: str | None = Field("rejected", description="column of the other completion")
    completion: str | None = Field("completion", description="column, or field of `completions`, of one completion")
    completions: str | tuple[str, ...] | None = Field("completions", description="column of a list, or several columns")
    label: str | None = Field("label", description="column of a label: true for a desirable completion")
    scores: str | tuple[str, ...] | None = Field("scores", description="a number for each of `completions`")
    ranks: str | tuple[str, ...] | None = Field(
        "ranks", description="a rank for each of `completions`, the best lowest"
    )
    preferred: str | None = Field("preferred", description="column that names the better of two columns")
    messages: str | None = Field("messages", description="column of a chat")
    conversations: str | None = Field("conversations", description="column of a chat, as ShareGPT names it")
    instruction: str | None = Field("instruction", description="column of a user's message, as Alpaca names it")
    input: str | None = Field("input", description="column of what the instruction is about")
    output: str | None = Field("output", description="column of the answer to an instruction")
    system: str | None = Field("system", description="column of the system message of a chat")
    history: str | None = Field("history", description="column of the turns before an instruction")
    text: str | None = Field("text", description="column of a text for SFT")
    tools: str | None = Field("tools", description="column of the functions that a chat can call")
    chat_template_kwargs: str | None = Field(
        "chat_template_kwargs", description="column of variables of the chat template"
    )
    id: str | None = Field(None, description="column of unique row ids; by default the position of the row")

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """Build a row from one record.

        Raises:
            UserError: A column is missing, or a value has the wrong type.
        """
        if self.id:
            id = str(column_of(record, self.id, where))
        names = {part: name for part in PARTS if (name := getattr(self, part)) != part}
        return record_row(id, record, names, where)
