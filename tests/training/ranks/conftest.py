"""One set of runs on 1, 2 and 4 processes, for all tests here to look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import DPO, start


@pytest.fixture(scope="session")
def done(tmp_path_factory) -> Callable[..., Path]:
    """`done(2)`: a folder with the runs of SFT and DPO on so many processes, made once; not to be written to."""
    made: dict[tuple, Path] = {}

    def of(ranks: int, *arguments: str, **environment: str) -> Path:
        key = (ranks, arguments, *environment.items())
        if key not in made:
            folder = tmp_path_factory.mktemp(f"on-{ranks}")
            job = start(folder, [*DPO, *arguments], ranks, [environment])
            assert job.wait() == [0] * ranks, job.said()
            made[key] = folder
        return made[key]

    return of


@pytest.fixture
def copy(tmp_path) -> Callable[[Path], Path]:
    """A folder of runs to go on with."""

    def of(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    return of
