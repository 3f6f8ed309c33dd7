"""Base class of judges that compare a reply with the answer in its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from alignzoo.interfaces.judge import Judge


class AnswerJudge(Judge):
    """Base class of judges that read an answer from a column of the data."""

    column: str = Field("answer", description="column with the answer")

    def columns_read(self) -> tuple[str, ...]:
        """Return the column of the answers."""
        return (self.column,)

    def answers(self, columns: Sequence[Mapping[str, Any]], replies: Sequence[str]) -> list[Any]:
        """Return the answer in each reply's row, None for a row without one."""
        return [row.get(self.column) for row in columns or [{}] * len(replies)]
