"""What a run leaves behind, and who may write it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignzoo.durable import write_json, write_text
from alignzoo.errors import UserError
from alignzoo.hiding import hide


class RunFolder:
    """`runs/<name>-<fingerprint>/`. Whole files are replaced atomically; the JSON lines are appended and cut on resume.

    metrics.jsonl holds what is reproducible byte for byte, timings.jsonl what is not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    policy = property(lambda self: self.path / "policy", doc="The trained policy and its tokenizer.")
    checkpoints = property(lambda self: self.path / "checkpoints", doc="Where a stopped run goes on from.")
    metrics = property(lambda self: self.path / "metrics.jsonl", doc="One line a step and an evaluation.")
    timings = property(lambda self: self.path / "timings.jsonl", doc="Seconds, pairs and tokens of each step.")

    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None."""
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return summary if summary.get("finished") else None

    @contextmanager
    def held(self, wait: bool = False) -> Iterator[None]:
        """Keep every other process out until the block ends, or this process does.

        Raises UserError when another process is in it, unless it is waited for.
        """
        if self.path.is_symlink():
            raise UserError("the run folder is a link: nothing is written or removed through it", where=str(self.path))
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise UserError("another process is working on this run", where=str(self.path)) from None
        try:
            yield
        finally:
            lock.release()

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file of the folder."""
        write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        """Replace a text file of the folder."""
        write_text(self.path / name, text)

    def write_lines(self, name: str, values: list[dict[str, Any]]) -> None:
        """Replace a JSON lines file of the folder."""
        self.write_text(name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))

    def append(self, path: Path, value: dict[str, Any]) -> None:
        """Add one JSON line."""
        with open(path, "a", encoding="utf-8") as file:
            file.write(hide(json.dumps(value, allow_nan=False)) + "\n")

    def cut_after(self, step: int) -> None:
        """Forget what was recorded after `step`: a resumed run does it again."""
        for path in (self.metrics, self.timings):
            self.write_lines(path.name, [line for line in read_lines(path) if line["step"] <= step])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON lines file; a last line that a crash cut short is left out."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):  # not splitlines: a sample may hold U+2028
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines
