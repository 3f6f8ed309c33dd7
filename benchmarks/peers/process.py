"""Measurements that both sides take of their own process."""

import os
import re
import time
from pathlib import Path


def resident(key: str) -> int:
    """Bytes of /proc/self/status: `VmRSS` is the resident memory now, `VmHWM` the most that it was."""
    return int(re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


class Clock:
    """Times of steps, and what came before the first one."""

    def __init__(self, launched: float) -> None:
        self.launched, self.seconds, self.startup, self.imported = launched, [], None, resident("VmRSS")
        self.began = self.cpu_began = 0.0
        self.cpu: list[float] = []

    def begin(self) -> None:
        if self.startup is None:
            self.startup = time.time() - self.launched
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def end(self) -> None:
        self.seconds.append(time.perf_counter() - self.began)
        self.cpu.append(time.process_time() - self.cpu_began)

    def figures(self) -> dict:
        """Seconds of each step, as they pass and of processor time, and from the launch to the first; bytes after the
        imports, and at the peak."""
        return {
            "seconds": self.seconds, "cpu": self.cpu, "startup_seconds": self.startup, "import_bytes": self.imported,
            "peak_bytes": resident("VmHWM"), "threads": os.environ.get("OMP_NUM_THREADS"),
        }  # fmt: skip
