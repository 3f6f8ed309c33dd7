"""Folders of runs and caches, from environment variables."""

from __future__ import annotations

import os
from pathlib import Path

ABOUT = "about.json"
"""The file with the digests of a folder's other files."""
FIRST_DAY = "started.txt"
"""The first file of a run folder."""


def runs_root() -> Path:
    """Return `ALIGNZOO_RUNS`, or `runs` in the working directory."""
    return Path(os.environ.get("ALIGNZOO_RUNS") or "runs")


def cache_root() -> Path:
    """Return `ALIGNZOO_CACHE`, or `~/.cache/alignzoo`. Everything in it can be computed again."""
    return Path(os.environ.get("ALIGNZOO_CACHE") or Path.home() / ".cache" / "alignzoo")
