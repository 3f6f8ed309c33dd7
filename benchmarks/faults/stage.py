"""Run whole commands in forked children with a fault injected; shared by kills.py, table.py and the tests.

A new Python takes seconds to import torch and transformers. Here the parent imports all that a run needs, and every command
is a fork of it: `alignzoo.cli.main` with its own arguments, folders and standard streams.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {
    "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
    "ALIGNZOO_PLUGINS": "", "COLUMNS": "400", "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip
"""One thread: sums come in one order, and a fork has no threads to lose."""

NUMBERS = count()
"""Of the children: two of one workplace may work at once, each with streams of its own."""


@dataclass
class Finished:
    """What a command left: its exit code (negative: the signal that ended it) and what it said."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The line that says what went wrong, or the last one."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")


@dataclass
class Workplace:
    """A folder of runs and a cache."""

    root: Path
    recipe: list[str]
    """The arguments after `alignzoo run`."""

    @property
    def runs(self) -> Path:
        """ALIGNZOO_RUNS."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """ALIGNZOO_CACHE."""
        return self.root / "cache"

    def run_folder(self, name: str = "dpo_hh") -> Path:
        """The only run of this recipe."""
        (found,) = self.runs.glob(f"{name}-*")
        return found

    def start(self, *more: str, inject: Callable[[], object] | None = None, command: str = "run") -> Child:
        """The command in a child, which first does what `inject` says."""
        return Child(self, ["alignzoo", command, *self.recipe, *more], inject)

    def run(self, *more: str, inject: Callable[[], object] | None = None, command: str = "run") -> Finished:
        """The command, to its end."""
        return self.start(*more, inject=inject, command=command).wait()

    def artifacts(self, name: str = "dpo_hh") -> dict[str, bytes]:
        """What must come out the same to the byte."""
        files = ("policy/model.safetensors", "policy/config.json", "metrics.jsonl", "samples.jsonl", "data.json")
        folder = self.run_folder(name)
        return {f"{name}/{file}": (folder / file).read_bytes() for file in files}


class Child:
    """A command at work."""

    def __init__(self, place: Workplace, arguments: list[str], inject: Callable[[], object] | None) -> None:
        place.root.mkdir(parents=True, exist_ok=True)
        number = next(NUMBERS)
        self._files = [place.root / f".{stream} {number}" for stream in ("out", "err")]
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            for number, path in enumerate(self._files, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            os.environ |= {"ALIGNZOO_RUNS": str(place.runs), "ALIGNZOO_CACHE": str(place.cache)} | SETTINGS
            os.chdir(ROOT)
            sys.argv = arguments
            from alignzoo.cli.app import main

            if inject:
                inject()
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> Finished:
        """Its end."""
        _, status = os.waitpid(self.pid, 0)
        out, err = (path.read_text() for path in self._files)
        for path in self._files:
            path.unlink()
        return Finished(os.waitstatus_to_exitcode(status), out, err)

    def over(self) -> bool:
        """Whether it has ended by itself; it must still be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _all_rows(make: Callable[..., Iterator[object]], *asked: object) -> list[object]:
    return list(make(*asked))


def warm(place: Workplace) -> Finished:
    """Run the command once, and import here all that it imported.

    The embedded sample is made once too: every child would spend a second on making the same rows.
    """
    from alignzoo.data import toy

    if not hasattr(toy.rows, "cache_info"):
        toy.rows = lru_cache(partial(_all_rows, toy.rows))
        for split in toy.ROWS:
            toy.rows(split)
    listing = place.root / ".modules"

    def list_modules() -> None:
        from alignzoo.training.run_folder import RunFolder

        finish = RunFolder.finish

        def uninterruptible(*arguments):
            finish(*arguments)
            listing.write_text("\n".join(sys.modules))

        RunFolder.finish = uninterruptible

    finished = place.run(inject=list_modules)
    if finished.code == 0 and listing.exists():
        for name in listing.read_text().split("\n"):
            try:
                importlib.import_module(name)
            except Exception:
                continue
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        from alignzoo.registry.lookup import registry
        from alignzoo.report.run_page import write_report

        get_checkpoint_conversion_mapping("llama")  # a thousand regular expressions, compiled once a process
        registry().has(object)  # the digests of all plugins' code
        for folder in place.runs.iterdir():
            write_report(folder)  # matplotlib finds its fonts when it first draws
    gc.collect()
    gc.freeze()  # a child's collector would copy the pages of all that this process has
    return finished
