"""The memory of a process: the most that a run took, how it is asked of the system, and going on with too little."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.errors import RunFailed
from alignzoo.forest import plan
from alignzoo.ranks import Ranks
from alignzoo.tree import BLOCK, Tree, Trees

T = TypeVar("T")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for what is asked for next; where it is not glibc, nothing changes.

    By default it returns every large array to the system and gets it back page by page, zeroed: on a CPU a fifth of a
    training step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far: several runs in one process each have their own.

    Where the system can't (it is not Linux), the peak is the process's.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        CLEAR.write_text("5")  # man 5 proc: the peak resident set size becomes the present one
    except OSError:
        pass


def peak_memory(device: torch.device) -> int:
    """Bytes since the last reset: of the GPU's allocator, or the resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    if found:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, on a GPU or not."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def halved(budget: int, trees: Sequence[Tree], error: BaseException) -> int:
    """The token slots to try with next. Raises the error itself if it is another one, and RunFailed when the longest of
    these rows would not fit alone."""
    if not out_of_memory(error):
        raise error
    longest = max(trees, key=lambda tree: tree.slots)
    if budget <= longest.slots:
        raise RunFailed(
            f"memory ran out for row {longest.id} alone, of {longest.slots} token slots; "
            "train.gradient_checkpointing=true or a smaller tokens.max_length needs less"
        ) from error
    return budget // 2


def in_parts(
    trees: Sequence[Tree] | Trees, rows: Sequence[int] | NDArray[np.int64], budget: int, layout: str,
    work: Callable[[list[int]], T], say: Callable[[str], None], ranks: Ranks | None = None,
    wanted: Callable[[int], bool] = lambda row: True, alike: NDArray[np.int64] | None = None,
) -> Iterator[tuple[list[int], T]]:  # fmt: skip
    """Micro-batches of some rows of the trees, and what `work` makes of each. When memory runs out for one, what is
    left is cut again at half the budget, and told; not where every process has to do the same many (`ranks.sharded`).
    Rows that are not `wanted` take part in the cutting alone; rows that differ in `alike` share no micro-batch.

    Some thousands of rows are sorted by length at a time: enough for good packing, and no more trees in memory.
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
                budget = halved(budget, list(left.values()), error)
                say(f"memory ran out: going on in micro-batches of {budget} token slots")


def _cut(left: dict[int, Tree], budget: int, layout: str, alike: NDArray[np.int64] | None) -> Iterator[list[int]]:
    """Micro-batches, as places among the rows that are left."""
    trees = list(left.values())
    kinds = np.zeros(len(trees), np.int64) if alike is None else alike[list(left)]
    for kind in np.unique(kinds):
        own = np.flatnonzero(kinds == kind).tolist()
        for part in plan([trees[i] for i in own], budget, layout):
            yield [own[i] for i in part]


def _in_step(
    trees: Sequence[Tree] | Trees, rows: Sequence[int] | NDArray[np.int64], budget: int, layout: str,
    work: Callable[[list[int]], T], ranks: Ranks,
) -> Iterator[tuple[list[int], T]]:  # fmt: skip
    """As many forwards in this process as in all others: those without a micro-batch left take any row."""
    parts: list[list[int]] = []
    for start in range(0, len(rows), BLOCK):
        numbers = [int(row) for row in rows[start : start + BLOCK]]
        parts += [[numbers[i] for i in part] for part in plan([trees[row] for row in numbers], budget, layout)]
    for n in range(max(ranks.everyone(len(parts)))):
        part = parts[n] if n < len(parts) else [0]
        with ranks.connected(), no_retry(budget):
            made = work(part)
        if n < len(parts):
            yield part, made


@contextmanager
def no_retry(budget: int) -> Iterator[None]:
    """A lack of memory within a forward or backward of several processes ends them all."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise RunFailed(
            f"memory ran out in a micro-batch of at most {budget} token slots, and processes that hold shards of a "
            f"model can't do it again at half; expected a smaller train.tokens_per_batch"
        ) from error
