"""Kill a command at its n-th disk operation or in a phase of its work, and examine what it left."""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from stage import Child, Workplace

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.copyfile")


KILL, TORN, FULL = "kill", "torn", "full"
GROWING = ("write", "append", "fsync", "mkdir", "copyfile")
"""Operations that need room."""


class Operations:
    """Counts every operation by which the child changes the disk under a folder, and injects a fault at one.

    Python announces opening, renaming, removing and making before it does them (audit events); os.fsync is wrapped.

    `how`: KILL the child right before the operation; TORN leaves what a power cut may leave of it too: half the bytes of
    a file that was not synced yet, half a line; FULL lets it and all later ones that need room fail, as on a full disk.
    """

    def __init__(self, folder: Path, at: int = 0, how: str = KILL, under: str = "") -> None:
        self.folder, self.at, self.how, self.under = f"{folder}{os.sep}", at, how, under
        self.shared = mmap.mmap(-1, 1 << 20)  # the child's list, for the parent to read
        self.kept = Path(f"{folder}.kept")
        """Digests of all files under final names when the disk was full for the first time."""

    def __call__(self) -> None:
        """In the child."""
        self.count = 0
        self.lines: list[str] = []
        fsync = os.fsync

        def synced(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle}")
            self._next("fsync", path, lambda: self._halve(path))
            fsync(handle)

        os.fsync = synced
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | os.PathLike) and flags & WRITES:
                line = '{"kind": "tra' if flags & os.O_APPEND else ""
                self._next("append" if line else "write", os.path.abspath(path), lambda: self._add(str(path), line))
        elif event in CHANGES and isinstance(arguments[0], str | os.PathLike):
            self._next(event.split(".")[1], os.path.abspath(arguments[0]), None)

    def _next(self, what: str, path: str, tear: Callable[[], None] | None) -> None:
        if not path.startswith(self.folder) or self.under not in path:
            return
        self.count += 1
        line = f"{what} {os.path.relpath(path, self.folder)}".encode()
        at = self.shared.tell()
        self.shared.write(line + b"\n")
        assert self.shared.tell() > at
        if self.how == FULL:
            if self.at and self.count >= self.at and what in GROWING:
                self._fail(path)
        elif self.count == self.at:
            if self.how == TORN and tear:
                tear()
            os.kill(os.getpid(), signal.SIGKILL)

    def _fail(self, path: str) -> None:
        at, self.at = self.at, 0
        if not self.kept.exists():
            self.kept.write_text(json.dumps(final_files(Path(self.folder))))
        self.at = at
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def lost(self) -> list[str]:
        """Files under final names that a full disk has cost, in the parent."""
        before = json.loads(self.kept.read_text()) if self.kept.exists() else {}
        self.kept.unlink(missing_ok=True)
        now = final_files(Path(self.folder))
        return [path for path, digest in before.items() if now.get(path) != digest]

    @staticmethod
    def _halve(path: str) -> None:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            os.truncate(path, found.st_size // 2)

    def _add(self, path: str, line: str) -> None:
        if line:
            self.at = 0
            with open(path, "a") as file:
                file.write(line)

    def seen(self) -> list[str]:
        """Every operation so far, in the parent."""
        return self.shared[:].split(b"\0", 1)[0].decode().splitlines()


def final_files(folder: Path) -> dict[str, str]:
    """Digests of the files that a run replaces as a whole; lines are appended to the others."""
    from alignzoo.core.digests import digest_file

    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".jsonl"]
    inside = {path.relative_to(folder): path for path in paths}
    return {str(own): digest_file(path) for own, path in inside.items()
            if not any(part.startswith(".") for part in own.parts)}  # fmt: skip


PHASES = (
    "starting", "tokenization", "model and layout", "reference pass", "samples", "evaluation", "drawing", "judging",
    "scoring draws", "step", "checkpoint", "export", "summary and report",
)  # fmt: skip

OF_ROLLOUTS = ("drawing", "judging", "scoring draws")
"""Phases that only online runs have."""


class Phases:
    """Which phase a child is in, readable from outside at any moment."""

    def __init__(self) -> None:
        self.shared = mmap.mmap(-1, 1)

    def __call__(self) -> None:
        """In the child."""
        from alignzoo.rollouts import source
        from alignzoo.rollouts.attempts import Attempts
        from alignzoo.training import checkpoint, evaluations, policy
        from alignzoo.training import run as run_module
        from alignzoo.training.run_folder import RunFolder
        from alignzoo.training.step import Engine

        for owner, name, phase in (
            (run_module, "_tokenize", "tokenization"), (policy, "load_policy", "model and layout"),
            (policy, "choose_layout", "model and layout"), (policy, "score_reference", "reference pass"),
            (run_module, "greedy_replies", "samples"), (evaluations, "evaluate", "evaluation"),
            (Attempts, "_draw", "drawing"), (Attempts, "_judge", "judging"), (source, "score_rows", "scoring draws"),
            (source, "divergence", "scoring draws"), (Engine, "step", "step"),
            (checkpoint, "save", "checkpoint"), (run_module, "export_policy", "export"),
            (RunFolder, "finish", "summary and report"),
        ):  # fmt: skip
            setattr(owner, name, self._marking(getattr(owner, name), PHASES.index(phase)))

    def _marking(self, function: Callable[..., Any], phase: int) -> Callable[..., Any]:
        @wraps(function)
        def marked(*arguments: Any, **options: Any) -> Any:
            before, self.shared[0] = self.shared[0], phase
            try:
                return function(*arguments, **options)
            finally:
                self.shared[0] = before

        return marked

    def now(self) -> str:
        """In the parent."""
        return PHASES[self.shared[0]]


def kill_after(child: Child, phases: Phases, seconds: float, phase: str = "", times: int = 1) -> str:
    """Kill the child so long after its start, or after the phase has begun for so many times. Returns the phase in
    which it was hit, or "" where it was over by itself."""
    before, seen = "", 0
    while phase and seen < times and not child.over():
        now = phases.now()
        seen += now == phase != before
        before = now
        time.sleep(0.0002)
    time.sleep(seconds)
    if child.over():
        return ""
    hit = phases.now()
    os.kill(child.pid, signal.SIGKILL)
    return hit


def damaged(place: Workplace) -> list[str]:
    """Everything under its final name that is not whole: checkpoints, shards, token stores, files of JSON, lines.

    A last line that a kill cut short is not counted: it has no end, and the next command leaves it out.
    """
    from alignzoo.core.artifacts import read_verified
    from alignzoo.core.door import BadFile
    from alignzoo.reference.cache import read_shard

    def is_bad(path: Path) -> bool:
        try:
            read_shard(path)
        except BadFile:
            return True
        return False

    bad = [path for path in place.runs.glob("*/checkpoints/step-*") if read_verified(path) is None]
    bad += [path for path in place.runs.glob("*/rollouts/*/[a-z]*") if read_verified(path) is None]
    bad += [path for path in place.cache.glob("tokens/[0-9a-f]*") if read_verified(path) is None]
    bad += [path for path in place.cache.glob("reference/*/*.safetensors") if is_bad(path)]
    bad += [path for path in place.runs.glob("*/[a-z]*.json") if not _parses(path.read_text())]
    for path in place.runs.glob("*/[a-z]*.jsonl"):
        *whole, _ = path.read_text().split("\n")
        bad += [path for line in whole if not _parses(line)]
    return [str(path.relative_to(place.root)) for path in bad]


def _parses(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def leftovers(place: Workplace) -> list[str]:
    """Temporary files and folders that are still there."""
    found = [path for path in place.root.rglob("*") if path.name.endswith((".tmp", ".damaged"))]
    return [str(path.relative_to(place.root)) for path in found]
