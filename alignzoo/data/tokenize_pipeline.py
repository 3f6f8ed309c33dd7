"""Read, tokenize and write rows in chunks, with the tokenizer running in background threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from alignzoo.data.convert import (
    check_measurable,
    convert_rows,
    is_labeled,
    needs_labels,
    with_columns,
    with_mismatched,
)
from alignzoo.data.row_reader import RowReader
from alignzoo.data.tokenize import Encoded, Encoder, TokenizedRows, build_trees
from alignzoo.data.tree_writer import TreeWriter
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.rows import Row, Skipped, strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.schema import Recipe

CHUNK = 1_024
"""Rows tokenized at once: enough for all of the tokenizer's threads at a small memory cost."""
CHUNK_CHARACTERS = 1_000_000
"""Characters that are tokenized at once, one row more at most."""
AHEAD, THREADS = 3, 2
"""Chunks in flight, and chunks tokenized at the same time.

A fast tokenizer has its own threads for one chunk. The second chunk keeps the cores busy while the ids of the first
become Python objects."""
T = TypeVar("T")
W = TypeVar("W")
Chunk = tuple[bool, list[Row], list[Skipped]]
"""(is held out, rows in the objective's shape, rows that the objective can't use)."""


class TokenizePipeline:
    """Equivalent of `prepare` for all rows of a source, in constant memory and with its results on disk.

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
        self.encoder = Encoder(tokenizer, recipe.tokens, today, recipe.data.train_on)
        self.objective, self.has_singles = recipe.objective, [False, False]

    def prepare(
        self, rows: Path, train_rows: Path | None = None
    ) -> tuple[tuple[TreeWriter, TokenizedRows], tuple[TreeWriter, TokenizedRows]]:
        """Prepare the training and the held-out rows.

        Args:
            rows: File to write the held-out rows to.
            train_rows: File to write the training rows to; None discards them.

        Returns:
            (writer, trees) of the training rows, and of the held-out rows.

        Raises:
            UserError: As `prepare` and `read_rows`.
        """
        for special in (True, False):  # sets the tokenizer's options once, before several threads use it
            self.encoder.boundary.tokenize(["a"], [()], special)
        writers = TreeWriter(self.folder / "train", train_rows), TreeWriter(self.folder / "held_out", rows)
        for (held_out, converted, unconverted), encoded in map_ahead(
            self._chunks(), self._encode, THREADS if self.tokenizer.is_fast else 1
        ):
            part = build_trees(converted, encoded, self.recipe.tokens)
            metrics = self._metrics(held_out)
            check_measurable(part.rows, metrics)
            part.trees = with_columns(part.trees, part.rows, self.objective, metrics, labels=True)
            self.has_singles[held_out] |= any(is_labeled(row) for row in part.rows)
            writers[held_out].add(part, unconverted)
        return (writers[0], self._finish(0, writers[0])), (writers[1], self._finish(1, writers[1]))

    def _metrics(self, held_out: bool) -> Sequence[Metric]:
        return self.recipe.eval.metrics if held_out else ()

    def _encode(self, chunk: Chunk) -> list[Encoded]:
        return self.encoder(chunk[1])

    def _chunks(self) -> Iterator[Chunk]:
        waiting: tuple[list[Row], list[Row]] = ([], [])
        sizes = [0, 0]
        end = [(held_out, None) for held_out in (False, True)]
        for held_out, row in chain(self.reader.used(), end):
            rows = waiting[held_out]
            if row is not None:
                rows.append(row)
                sizes[held_out] += sum(map(len, strings([row.prompt, [[c.context, c.text] for c in row.completions]])))
            full = len(rows) == CHUNK or sizes[held_out] > CHUNK_CHARACTERS
            if full or (row is None and rows):
                data = self.recipe.data
                yield held_out, *convert_rows(rows, self.objective, data.pairs, data.train_on)
                rows.clear()
                sizes[held_out] = 0

    def _finish(self, held_out: int, writer: TreeWriter) -> TokenizedRows:
        """Drop the labels if nothing reads them, and add mismatched completions if the objective needs them."""
        labels = self.has_singles[held_out] or needs_labels(self.objective, self._metrics(bool(held_out)))
        trees = writer.trees(without=() if labels else ("desirable",))
        if self.objective.mismatched and len(trees):
            wider = TreeWriter(self.folder / f"mismatched {held_out}")
            for start in range(0, len(trees), CHUNK):
                wider.add_trees(with_mismatched(trees, self.recipe.tokens.max_length, start, start + CHUNK))
            trees = wider.trees()
        counts = writer.truncated_prompts, writer.truncated_completions, writer.boundary
        return TokenizedRows(trees, (), writer.skipped, *counts)


def map_ahead(items: Iterable[T], function: Callable[[T], W], threads: int = 1) -> Iterator[tuple[T, W]]:
    """Yield (item, function(item)) in order, computed by threads up to `AHEAD` items before they are consumed."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[tuple[T, Future[W]]] = deque()
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > AHEAD:
                ready, future = pending.popleft()
                yield ready, future.result()
        for ready, future in pending:
            yield ready, future.result()
