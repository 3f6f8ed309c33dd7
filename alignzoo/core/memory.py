"""The memory of a process: the most that a run took, how it is asked of the system, and going on with too little."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def tune_malloc() -> None:
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
