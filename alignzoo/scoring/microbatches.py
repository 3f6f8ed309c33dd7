"""Cut a batch into micro-batches, and retry with smaller ones when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heapreplace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import RunFailed
from alignzoo.core.memory import out_of_memory
from alignzoo.data.trees import BLOCK, Tree, Trees
from alignzoo.scoring.forest import PACKED, PADDED, PLAIN

T = TypeVar("T")


def halve_budget(budget: int, trees: Sequence[Tree], error: BaseException) -> int:
    """Return half the budget, in token slots, after memory ran out.

    Raises the error itself if it is another one, and RunFailed when the longest of these rows does not fit alone.
    """
    if not out_of_memory(error):
        raise error
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
        while left:
            numbers = list(left)
            try:
                for part in _cut(left, budget, layout, alike):
                    some = [numbers[i] for i in part if wanted(numbers[i])]
                    if some:
                        yield some, work(some)
                    for i in part:
                        del left[numbers[i]]
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                budget = halve_budget(budget, list(left.values()), error)
                say(f"memory ran out: going on in micro-batches of {budget} token slots")


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
    """Yield as many micro-batches in this process as in all others, with a filler row where none is left."""
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
    """Turn a lack of memory into RunFailed, where several processes take part in a forward or backward."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise RunFailed(
            f"memory ran out in a micro-batch of at most {budget} token slots, and processes that hold shards of a "
            f"model can't do it again at half; expected a smaller train.micro_batch_tokens"
        ) from error


def plan_micro_batches(trees: Sequence[Tree], budget: int, layout: str = PADDED) -> list[list[int]]:
    """Cut a batch into micro-batches of at most `budget` slots, longest rows first for little padding.

    Returns lists of indices into `trees`, every index once. A tree over the budget has one of its own.
    """
    size = [_width(tree, layout) for tree in trees]
    parts: list[list[int]] = []
    free: list[int] = []
    width = 0
    if layout == PACKED:
        return _filled(size, budget)
    for i in sorted(range(len(trees)), key=lambda i: (-size[i], i)):
        rows = len(trees[i].branches) if layout == PLAIN else 1
        fits = None if layout == PLAIN else next((r for r, room in enumerate(free) if room >= size[i]), None)
        if not parts or (fits is None and (len(free) + rows) * width > budget):
            parts.append([])
            free, width, fits = [], size[i], None
        if fits is None:
            free.extend([width] * rows)
            fits = len(free) - 1
        parts[-1].append(i)
        free[fits] -= size[i]
    return parts


def _filled(size: Sequence[int], budget: int) -> list[list[int]]:
    """Fill as few parts as the budget allows, all about equally."""
    count = max(1, -(-sum(size) // budget))
    while True:
        parts: list[list[int]] = [[] for _ in range(count)]
        loads = [(0, p) for p in range(count)]  # a heap: the emptiest first
        for i in sorted(range(len(size)), key=lambda i: (-size[i], i)):
            load, least = loads[0]
            parts[least].append(i)
            heapreplace(loads, (load + size[i], least))
        if all(load <= budget or len(parts[p]) == 1 for load, p in loads):
            return [part for part in parts if part]
        count += 1


def _width(tree: Tree, layout: str) -> int:
    if layout == PLAIN:
        return len(tree.prompt) + max(len(branch.tokens) for branch in tree.branches)
    return tree.slots
