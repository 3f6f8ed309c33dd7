"""Read, tokenize and write rows in chunks.

Tokenizer and chat template run in children with limits. Their code and patterns may come from strangers, and what they
make of a text may take time and memory without end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from alignzoo.core.concurrency import usable_cores
from alignzoo.core.door import Child, in_children
from alignzoo.data.boundary import place_of
from alignzoo.data.convert import (
    check_measurable,
    convert_side,
    further_pairs,
    is_labeled,
    needs_labels,
    with_columns,
)
from alignzoo.data.mismatched import with_mismatched
from alignzoo.data.packed_rows import pack, unpack
from alignzoo.data.row_reader import RowReader
from alignzoo.data.tokenize import Encoder, TokenizedRows, build_trees
from alignzoo.data.tree_writer import TreeWriter
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.rows import Row, Skipped, characters, strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.schema import Recipe

CHUNK = 1_024
"""Rows tokenized at once: enough for the start of a child to cost little."""
CHUNK_CHARACTERS = 1_000_000
"""Characters that are tokenized at once, one row more at most."""
SECONDS, CHARACTERS_A_SECOND = 8.0, 20_000
"""Processor time to tokenize a chunk: so much, and more for more characters. Fast ones take a million a second."""
MOST_AT_ONCE = 8
"""Chunks in work at the same time, where there are so many cores. More would keep more in memory."""
Chunk = tuple[bool, list[Row], list[Skipped], Counter[str]]
"""(is held out, rows in the objective's shape, rows that the objective can't use, `further_pairs`)."""


class TokenizePipeline:
    """Equivalent of `prepare` for a whole source, in constant memory with results on disk.

    Args:
        reader: Reader of the source's rows.
        tokenizer: The policy's tokenizer.
        recipe: Recipe with the objective, the metrics and the length limits.
        folder: Empty folder for temporary arrays.
        today: Date that a chat template may format. None means the current date.
    """

    def __init__(
        self, reader: RowReader, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, folder: Path,
        today: date | None = None,
    ) -> None:  # fmt: skip
        self.reader, self.tokenizer, self.recipe, self.folder = reader, tokenizer, recipe, folder
        self.encoder = Encoder(tokenizer, recipe.tokens, today, reader.source.train_on)
        self.tools = sum(map(len, strings(list(recipe.tokens.tools or ()))))
        self.objective, self.has_singles = recipe.objective, [False, False]

    def prepare(
        self, rows: Path, train_rows: Path | None = None, most: int | None = None
    ) -> tuple[tuple[TreeWriter, TokenizedRows], tuple[TreeWriter, TokenizedRows]]:
        """Prepare the training and the held-out rows.

        Args:
            rows: File to write the held-out rows to.
            train_rows: File to write training rows to; None discards them.
            most: Number of training rows that are written, the first ones; None for all.

        Returns:
            (writer, trees) of the training rows, and of the held-out rows.

        Raises:
            UserError: As `prepare` and `read_rows`.
        """
        writers = TreeWriter(self.folder / "train", train_rows, most), TreeWriter(self.folder / "held_out", rows)
        for (held_out, converted, unconverted, further), raw in in_children(self._chunks(), self._start, _at_once()):
            part = unpack(raw, converted)
            metrics = self._metrics(held_out)
            check_measurable(part.rows, metrics)
            part.trees = with_columns(part.trees, part.rows, self.objective, metrics, labels=True)
            self.has_singles[held_out] |= any(is_labeled(row) for row in part.rows)
            writers[held_out].add(part, unconverted)
            writers[held_out].further_pairs += further
        return (writers[0], self._finish(0, writers[0])), (writers[1], self._finish(1, writers[1]))

    def _metrics(self, held_out: bool) -> Sequence[Metric]:
        return self.recipe.eval.metrics if held_out else ()

    def _start(self, chunk: Chunk) -> Child:
        rows = chunk[1]
        seconds = SECONDS + sum(map(self._characters, rows)) / CHARACTERS_A_SECOND
        named = f"rows {rows[0].id} to {rows[-1].id}" if len(rows) > 1 else f"row {rows[0].id}" if rows else "no row"
        return Child(
            place_of(self.tokenizer), self._make, rows, what="the tokenizer", seconds=seconds,
            doing=f"tokenizing {named:.200}",
            hint="the tokenizer or chat template makes much of little text, or a chat has thousands of turns",
        )  # fmt: skip

    def _make(self, rows: list[Row]) -> bytes:
        part = build_trees(rows, self.encoder(rows), self.recipe.tokens)
        return pack(part, rows, self.encoder.prefixes(part))

    def _characters(self, row: Row) -> int:
        """Return the number of characters that a row has to tokenize, about."""
        return characters(row) + self.tools * (row.tools is None) * len(row.completions)

    def _chunks(self) -> Iterator[Chunk]:
        waiting: tuple[list[Row], list[Row]] = ([], [])
        sizes = [0, 0]
        end = [(held_out, None) for held_out in (False, True)]
        for held_out, row in chain(self.reader.used(), end):
            rows = waiting[held_out]
            if row is not None:
                rows.append(row)
                sizes[held_out] += self._characters(row)
            full = len(rows) == CHUNK or sizes[held_out] > CHUNK_CHARACTERS
            if full or (row is None and rows):
                prompts = not held_out or self.reader.plan.holds_prompts_out
                kept, skipped = convert_side(rows, self.recipe, self.reader.source, prompts)
                yield held_out, kept, skipped, further_pairs(rows, kept, skipped)
                rows.clear()
                sizes[held_out] = 0

    def _finish(self, held_out: int, writer: TreeWriter) -> TokenizedRows:
        """Drop labels that nothing reads, and add mismatched completions that are needed."""
        labels = self.has_singles[held_out] or needs_labels(self.objective, self._metrics(bool(held_out)))
        trees = writer.trees(without=() if labels else ("desirable",))
        if self.objective.mismatched and len(trees) and trees.answered:
            wider = TreeWriter(self.folder / f"mismatched {held_out}")
            for start in range(0, len(trees), CHUNK):
                wider.add_trees(with_mismatched(trees, self.recipe.tokens.max_length, start, start + CHUNK))
            trees = wider.trees()
        counts = writer.truncated_prompts, writer.truncated_completions, writer.boundary, writer.further_pairs
        return TokenizedRows(trees, (), writer.skipped, *counts)


def _at_once() -> int:
    return min(usable_cores(), MOST_AT_ONCE)
