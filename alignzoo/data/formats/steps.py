"""Format of solutions in steps with a label each, for process and outcome reward models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from alignzoo.core.errors import UserError
from alignzoo.data.formats.parts import column_of
from alignzoo.data.formats.row_shapes import as_label
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Completion, Row, Skipped


class Steps(Format):
    """Solutions with labeled steps, each of which is a completion.

    The steps before a step are its context. The defaults are the columns of TRL's stepwise supervision. The
    end-of-sequence token follows each step, and a reward model is read there.
    """

    name = "steps"

    prompt: str = Field("prompt", description="column of the problem, as text")
    steps: str = Field("completions", description="column of the steps: a list, or a text that `separator` divides")
    labels: str = Field("labels", description="column of a list with true or false for each step")
    separator: str = Field("\n", min_length=1, description="text between two steps")
    last_only: bool = Field(False, description="use the last step alone, whose label is that of the whole solution")
    id: str | None = Field(None, description="column of unique row ids; by default the position of the row")

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """Build the row of one solution.

        Raises:
            UserError: A column is missing, or a value has the wrong type.
        """
        id = str(column_of(record, self.id, where)) if self.id else id
        prompt = column_of(record, self.prompt, where)
        if not isinstance(prompt, str):
            raise UserError(f"{self.prompt} is no text", where=where, expected="the problem as text")
        steps, labels = self._steps(record, where), self._labels(record, where)
        if len(steps) != len(labels):
            raise UserError(
                f"{self.steps} has {len(steps)} steps, and {self.labels} {len(labels)} labels", where=where,
                expected="a label for each step",
                hint="" if isinstance(record[self.steps], list) else f"separator is {self.separator!r}",
            )  # fmt: skip
        if not steps:
            return Skipped(id, "no steps")
        before = ["".join(step + self.separator for step in steps[:k]) for k in range(len(steps))]
        completions = tuple(
            Completion(step, context, {"desirable": label})
            for step, context, label in zip(steps, before, labels, strict=True)
        )
        return Row(id, prompt, completions[-1:] if self.last_only else completions, group=prompt)

    def _steps(self, record: Mapping[str, Any], where: str) -> list[str]:
        found = column_of(record, self.steps, where)
        steps = found.removesuffix(self.separator).split(self.separator) if isinstance(found, str) else found
        if not isinstance(steps, list) or not all(isinstance(step, str) and step for step in steps):
            raise UserError(
                f"{self.steps} is no list of texts", where=where, expected="one text for each step, or one text"
            )
        return steps

    def _labels(self, record: Mapping[str, Any], where: str) -> list[float]:
        found = column_of(record, self.labels, where)
        labels = [as_label(value) for value in found] if isinstance(found, list) else [None]
        known = [label for label in labels if label is not None]
        if len(known) < len(labels):
            shown = found if not isinstance(found, list) else found[labels.index(None)]
            raise UserError(
                f"{self.labels} has {shown!r}", where=where, expected="a list of true or false for each step"
            )
        return known
