"""Cut a batch into micro-batches, and retry with smaller ones when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import RunFailed
from alignzoo.core.memory import handle_out_of_memory
from alignzoo.core.packing import balance_within, cut_by_width, pack_rows
from alignzoo.data.trees import BLOCK, Tree, Trees
from alignzoo.scoring.forest import PACKED, PADDED, PLAIN

T = TypeVar("T")


def halve_budget(budget: int, trees: Sequence[Tree], error: BaseException) -> int:
    """Return half the budget, in token slots, after memory ran out.

    Raises:
        RunFailed: The longest of these rows does not fit alone.
    """
    longest = max(trees, key=lambda tree: tree.slots)
    if budget <= longest.slots:
        raise RunFailed(
            f"memory ran out for row {longest.id} alone, of {longest.slots} token slots; "
            "train.gradient_checkpointing=true or a smaller tokens.max_length needs less"
        ) from error
    return budget // 2


def in_micro_batches(
    trees: Sequence[Tree] | Trees, rows: Sequence[int] | NDArray[np.int64], budget: int, layout: str,
    work: Callable[[list[int]], T], say: Callable[[str], None], ranks: Ranks | None = None,
    wanted: Callable[[int], bool] = lambda row: True, alike: NDArray[np.int64] | None = None,
) -> Iterator[tuple[list[int], T]]:  # fmt: skip
    """Yield micro-batches of some rows, each with the result of `work`.

    When memory runs out, the rows that are left are cut again at half the budget, with a message. Processes that hold
    shards fail instead. A few thousand rows are sorted by length at a time, which packs well and bounds the memory.

    Args:
        trees: All trees.
        rows: Indices of the trees to work on.
        budget: Token slots of a micro-batch.
        layout: Layout that slots are counted for.
        work: Function of a micro-batch, given as indices of trees.
        say: Function that shows a message.
        ranks: The processes, or None for one.
        wanted: False for rows that shape the micro-batches but are not worked on.
        alike: (len(trees),) Rows with different values share no micro-batch.

    Raises:
        RunFailed: Memory is too little for a single row.
    """
    if ranks is not None and ranks.sharded:
        yield from _in_step(trees, rows, budget, layout, work, ranks)
        return
    for start in range(0, len(rows), BLOCK):
        left = {int(row): trees[int(row)] for row in rows[start : start + BLOCK]}

        def halve(error: BaseException, left: dict[int, Tree] = left) -> None:
            nonlocal budget
            budget = halve_budget(budget, list(left.values()), error)
            say(f"memory ran out: going on in micro-batches of {budget} token slots")

        while left:
            numbers = list(left)
            with handle_out_of_memory(halve):
                for part in _cut(left, budget, layout, alike):
                    some = [numbers[i] for i in part if wanted(numbers[i])]
                    if some:
                        yield some, work(some)
                    for i in part:
                        del left[numbers[i]]


def _cut(left: dict[int, Tree], budget: int, layout: str, alike: NDArray[np.int64] | None) -> Iterator[list[int]]:
    """Yield micro-batches as indices into the rows that are left."""
    trees = list(left.values())
    kinds = np.zeros(len(trees), np.int64) if alike is None else alike[list(left)]
    for kind in np.unique(kinds):
        own = np.flatnonzero(kinds == kind).tolist()
        for part in plan_micro_batches([trees[i] for i in own], budget, layout):
            yield [own[i] for i in part]


def _in_step(
    trees: Sequence[Tree] | Trees, rows: Sequence[int] | NDArray[np.int64], budget: int, layout: str,
    work: Callable[[list[int]], T], ranks: Ranks,
) -> Iterator[tuple[list[int], T]]:  # fmt: skip
    """Run as many micro-batches in this process as in all others, and yield its own.

    A filler row is run where none is left.
    """
    parts: list[list[int]] = []
    for start in range(0, len(rows), BLOCK):
        numbers = [int(row) for row in rows[start : start + BLOCK]]
        parts += [
            [numbers[i] for i in part] for part in plan_micro_batches([trees[row] for row in numbers], budget, layout)
        ]
    for n in range(max(ranks.all_gather(len(parts)))):
        part = parts[n] if n < len(parts) else [0]
        with ranks.connected(), fail_on_oom(budget):
            made = work(part)
        if n < len(parts):
            yield part, made


@contextmanager
def fail_on_oom(budget: int) -> Iterator[None]:
    """Turn a lack of memory into RunFailed.

    For a forward or backward in which several processes take part.
    """

    def fail(error: BaseException) -> None:
        raise RunFailed(
            f"memory ran out in a micro-batch of at most {budget} token slots, and processes that hold shards of a "
            f"model can't do it again at half; expected a smaller train.micro_batch_tokens"
        ) from error

    with handle_out_of_memory(fail):
        yield


def plan_micro_batches(trees: Sequence[Tree], budget: int, layout: str = PADDED) -> list[list[int]]:
    """Cut a batch into micro-batches of at most `budget` slots.

    Longest rows come first, for little padding. Returns lists of indices into `trees`, every index once. A tree over
    the budget has one of its own.
    """
    if layout == PLAIN:
        widths = [len(tree.prompt) + max(len(branch.tokens) for branch in tree.branches) for tree in trees]
        return cut_by_width(widths, budget, [len(tree.branches) for tree in trees])
    sizes = [tree.slots for tree in trees]
    if layout == PACKED:
        return balance_within(sizes, budget)
    parts = [[i for row in part for i in row] for part in pack_rows(sizes, budget)]
    return [sorted(part, key=lambda i: (-sizes[i], i)) for part in parts]
