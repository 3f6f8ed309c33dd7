"""Rows to stored trees a chunk at a time: rows are read and trees made while the tokenizer is at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from alignzoo.data.convert import check_measurable, convert_rows, labeled, with_columns, with_mismatched
from alignzoo.data.row_reader import RowReader
from alignzoo.data.tokenize import Encoded, Encoder, TokenizedRows, trees_of
from alignzoo.data.tree_writer import TreeWriter
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.rows import Row, Skipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.schema import Recipe

CHUNK = 1_024
"""Rows that are tokenized at once: enough for the tokenizer's threads, and little memory."""
AHEAD, THREADS = 3, 2
"""Chunks that wait for the tokenizer or come from it; chunks that it works on. A fast tokenizer has threads of its own
for one chunk, and a second chunk keeps the cores busy while the first one's ids become Python's."""
T = TypeVar("T")
W = TypeVar("W")
Chunk = tuple[bool, list[Row], list[Skipped]]
"""Whether it is held out; rows in the objective's shape; rows that have none."""


class TokenizePipeline:
    """Makes what `prepare` makes of the training and of the held-out rows, on disk in `folder`."""

    def __init__(
        self, unread: RowReader, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, folder: Path,
        today: date | None = None,
    ) -> None:  # fmt: skip
        self.unread, self.tokenizer, self.recipe, self.folder = unread, tokenizer, recipe, folder
        self.encoder = Encoder(tokenizer, recipe.tokens.thinking, today)
        self.objective, self.single = recipe.objective, [False, False]

    def prepare(self, rows: Path) -> tuple[tuple[TreeWriter, TokenizedRows], tuple[TreeWriter, TokenizedRows]]:
        """The training and the held-out trees with their piles; the held-out rows go to the file `rows`."""
        for special in (True, False):  # it settles its options now: threads at once may not change them
            self.encoder.reader.read(["a"], [()], special)
        piles = TreeWriter(self.folder / "train"), TreeWriter(self.folder / "held_out", rows)
        for (held_out, fitting, refused), encoded in ahead(
            self._chunks(), self._encoded, THREADS if self.tokenizer.is_fast else 1
        ):
            found = trees_of(fitting, encoded, self.recipe.tokens)
            metrics = self._metrics(held_out)
            check_measurable(found.rows, metrics)
            found.trees = with_columns(found.trees, found.rows, self.objective, metrics, labels=True)
            self.single[held_out] |= any(len(row.completions) == 1 for row in found.rows)
            piles[held_out].add(found, refused)
        return (piles[0], self._whole(0, piles[0])), (piles[1], self._whole(1, piles[1]))

    def _metrics(self, held_out: bool) -> Sequence[Metric]:
        return self.recipe.eval.metrics if held_out else ()

    def _encoded(self, chunk: Chunk) -> list[Encoded]:
        return self.encoder(chunk[1])

    def _chunks(self) -> Iterator[Chunk]:
        waiting: tuple[list[Row], list[Row]] = ([], [])
        last = [(held_out, None) for held_out in (False, True)]
        for held_out, row in chain(self.unread.used(), last):
            rows = waiting[held_out]
            if row is not None:
                rows.append(row)
            if len(rows) == CHUNK or (row is None and rows):
                yield held_out, *convert_rows(rows, self.objective, self.recipe.data.pairs)
                rows.clear()

    def _whole(self, held_out: int, pile: TreeWriter) -> TokenizedRows:
        """All trees of a pile: without labels where nobody asked and no row is single, with other rows' completions."""
        wanted = self.single[held_out] or labeled(self.objective, self._metrics(bool(held_out)))
        trees = pile.trees(without=() if wanted else ("desirable",))
        if self.objective.mismatched and len(trees):
            wider = TreeWriter(self.folder / f"mismatched {held_out}")
            for start in range(0, len(trees), CHUNK):
                wider.add_trees(with_mismatched(trees, self.recipe.tokens.max_length, start, start + CHUNK))
            trees = wider.trees()
        return TokenizedRows(trees, (), pile.skipped, pile.truncated_prompts, pile.truncated_completions, pile.boundary)


def ahead(items: Iterable[T], work: Callable[[T], W], threads: int = 1) -> Iterator[tuple[T, W]]:
    """Each item and what `work` makes of it, in their order: in threads, while the caller reads items before and uses
    the results behind."""
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[tuple[T, Future[W]]] = deque()
        for item in items:
            coming.append((item, pool.submit(work, item)))
            if len(coming) > AHEAD:
                ready, result = coming.popleft()
                yield ready, result.result()
        for ready, result in coming:
            yield ready, result.result()
