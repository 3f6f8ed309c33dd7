"""Peak memory of a process, machine memory, allocator settings, out-of-memory errors."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Limit of a container or a job, in version 2 of control groups."""


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of mallopt, from glibc's malloc.h."""


def tune_malloc() -> None:
    """Make glibc keep freed memory for the next allocation.

    Other C libraries are left as they are. By default glibc returns every large array to the system and gets it back
    page by page, zeroed: on a CPU a fifth of a training step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def total_memory() -> int:
    """Return the bytes of memory of this machine, or of its container or job."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = LIMIT.read_text().strip() if LIMIT.is_file() else ""
    return min(there, int(limit)) if limit.isdecimal() else there


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak memory, so that each run in a process has its own.

    On systems other than Linux the CPU's peak stays.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        CLEAR.write_text("5")  # man 5 proc: the peak resident set size becomes the present one
    except OSError:
        pass


def peak_memory(device: torch.device) -> int:
    """Return the peak memory since the last reset, in bytes.

    It is that of the CUDA allocator, or of resident memory.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    if found:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def handle_out_of_memory(handle: Callable[[BaseException], None]) -> Iterator[None]:
    """Call `handle` where memory runs out inside the block, and leave the block.

    All other errors pass.

    To repeat work with less memory, put the block into a loop and let `handle` reduce what the next pass needs. What
    `handle` raises passes too.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not out_of_memory(error):
            raise
        handle(error)


def out_of_memory(error: BaseException) -> bool:
    """Return True for an error that reports a lack of memory, of a GPU or of the CPU."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
