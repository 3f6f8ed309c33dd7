"""Data source for the completions that a run with `draw` has drawn and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PrivateAttr, model_validator

from alignzoo.core.door import read_json_lines
from alignzoo.core.errors import UserError
from alignzoo.data.drawn_rows import FILES, FOLDER, DrawnRow, checked_row, read_about
from alignzoo.data.formats.values import numbers, plain_values
from alignzoo.interfaces.data_source import DataSource, Field, Split
from alignzoo.interfaces.rows import TIE, Completion, Row, Skipped, Text


class Draws(DataSource):
    """Completions that another recipe draws and scores: pairs, lists, labels, or the best.

    The objective decides: pairs by `pairs`, ranked lists, completions with a label by `labels`, or the best completion
    for SFT. Completions keep the token ids that were drawn where the tokenizer is that of the model that drew them.
    """

    name = "draws"
    needs_runs = ("from",)
    reads_draws = True

    from_: str = Field(alias="from", description="recipe with a section `draw`, or its run folder; its run comes first")
    labels: float | Literal["mean"] = Field(
        "mean",
        description="completions with a higher score are desirable, for objectives on labels; mean: that of the prompt",
    )

    _folder: Callable[[], Path] | None = PrivateAttr(None)
    _about: dict[str, Any] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _without_prefixes(self) -> Draws:
        if self.prefix_tokens is not None:
            raise ValueError("prefix_tokens belongs to the recipe that draws, whose prompts are read here")
        return self

    def bind_run(self, key: str, folder: Callable[[], Path]) -> None:
        """Take the folder of the run that draws."""
        self._folder, self._about = folder, None

    def splits(self) -> tuple[Split, ...]:
        """Return both splits if there were held-out prompts.

        Before the run is made it is the training split alone.
        """
        folder = self._folder() / FOLDER if self._folder is not None else None
        return ("train", "test") if folder is not None and (folder / FILES["test"]).is_file() else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield a row for each prompt.

        Raises:
            UserError: The run is not made yet, was removed, or its rows are damaged.
        """
        folder = self._run() / FOLDER
        if self._about is None:
            self._about = read_about(folder, f"alignzoo run {self.from_} --fresh draws them again")
        file = folder / FILES[split]
        for line, value in enumerate(read_json_lines(file, nan=True), 1):
            yield self._row(checked_row(value, f"{file}:{line}", self._about["rewards"]))

    def _run(self) -> Path:
        """Return the run folder. Raises UserError if there is none that is finished."""
        if self._folder is None:
            raise UserError(
                "data.from: the run was removed, and its rows are needed", where=self.from_,
                hint="run its recipe again; it comes back under the same name",
            )  # fmt: skip
        folder = self._folder()
        if not (folder / FOLDER).is_dir():
            raise UserError(
                f"data.from: the rows of {folder.name} are not drawn yet", where=self.from_,
                hint=f"alignzoo run {self.from_} draws them",
            )  # fmt: skip
        return folder

    def _row(self, drawn: DrawnRow) -> Row | Skipped:
        scores, kinds = drawn.scores, self._kinds
        order = [n for n in range(len(drawn.completions)) if scores is None or scores[n] is not None]
        if scores is not None:
            order.sort(key=lambda n: -(scores[n] or 0.0))  # stable: ties keep the order of the draws
        labels: list[float] = []
        if kinds & {"pair", "ranked"}:
            order = _distinct(order, drawn)
            if len(order) < 2:
                return Skipped(drawn.id, "fewer than two different draws")
        elif not order:
            return Skipped(drawn.id, "no draw is kept")
        elif "unpaired" in kinds:
            found = self._labels([(scores or [])[n] or 0.0 for n in order] if scores else [])
            if found is None:
                return Skipped(drawn.id, "all scores are equal")
            labels = found
        elif kinds == {"chosen"}:
            order = order[:1]
        return self._as_row(drawn, order, labels)

    def _labels(self, scores: Sequence[float]) -> list[float] | None:
        """Return a label for each score, as `rollout.labels` gives them.

        None where no draw is better than another.
        """
        if self.labels == "mean":
            if not scores or scores[0] == scores[-1]:
                return None
            return [float(score > np.mean(scores)) for score in scores]
        return [float(score > self.labels) for score in scores]

    def _as_row(self, drawn: DrawnRow, order: Sequence[int], labels: Sequence[float]) -> Row:
        assert self._about is not None
        chat = not isinstance(drawn.prompt, str)
        single = self._kinds == {"chosen"}
        completions = []
        for place, n in enumerate(order):
            lists = {name: (drawn.model_extra or {})[name] for name in self._about["rewards"]}
            columns = {name: float(values[n]) for name, values in lists.items() if values[n] is not None}
            if drawn.scores is not None:
                columns["score"] = float(drawn.scores[n] or 0.0)
            if labels:
                columns["desirable"] = labels[place]
            said = drawn.completions[n]
            text: Text = ({"role": "assistant", "content": said},) if chat else said
            completions.append(Completion(text, () if chat else "", columns, tuple(drawn.completion_ids[n])))
        values = {one.columns.get("score") for one in completions}
        tied = not labels and not single and len(completions) > 1 and len(values) == 1 and drawn.scores is not None
        return Row(
            drawn.id, drawn.prompt if isinstance(drawn.prompt, str) else tuple(drawn.prompt), tuple(completions),
            drawn.group, {**numbers(drawn.columns), **({TIE: 1.0} if tied else {})},
            None if drawn.tools is None else tuple(drawn.tools), drawn.chat_template_kwargs,
            plain_values(drawn.columns), tuple(drawn.prompt_ids), self._about["vocabulary"],
        )  # fmt: skip


def _distinct(order: Sequence[int], drawn: DrawnRow) -> list[int]:
    """Keep the first of completions with the same tokens."""
    seen: set[tuple[int, ...]] = set()
    kept = []
    for n in order:
        ids = tuple(drawn.completion_ids[n])
        if ids not in seen:
            seen.add(ids)
            kept.append(n)
    return kept
