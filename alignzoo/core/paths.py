"""Where things are kept: runs beside the user's work, caches in the user's home; both can be moved by environment."""

from __future__ import annotations

import os
from pathlib import Path


def runs_root() -> Path:
    """`ALIGNZOO_RUNS`, or `runs` in the working directory."""
    return Path(os.environ.get("ALIGNZOO_RUNS") or "runs")


def cache_root() -> Path:
    """`ALIGNZOO_CACHE`, or `~/.cache/alignzoo`. Losing it costs time and nothing else."""
    return Path(os.environ.get("ALIGNZOO_CACHE") or Path.home() / ".cache" / "alignzoo")
