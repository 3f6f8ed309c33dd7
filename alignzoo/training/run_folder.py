"""What a run leaves behind, and who may write it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignzoo.core.errors import UserError
from alignzoo.core.files import atomic_write, make_folder, translate_os_errors, write_json, write_text
from alignzoo.core.redaction import redact

FIRST_DAY = "started.txt"


class RunFolder:
    """`runs/<name>-<fingerprint>/`. Whole files are replaced atomically; the JSON lines are appended, and a resumed run
    puts back the lines that its checkpoint holds. Where the disk refuses, whatever writes raises NotWritten.

    metrics.jsonl holds what is reproducible byte for byte, timings.jsonl what is not. Of several processes one writes;
    in the others (`writes=False`) whatever writes does nothing.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    policy = property(lambda self: self.path / "policy", doc="The trained policy and its tokenizer.")
    checkpoints = property(lambda self: self.path / "checkpoints", doc="Where a stopped run goes on from.")
    metrics = property(lambda self: self.path / "metrics.jsonl", doc="One line a step and an evaluation.")
    timings = property(lambda self: self.path / "timings.jsonl", doc="Seconds, pairs and tokens of each step.")

    _unreported = property(lambda self: self.path / ".unreported", doc="Is there until the reporters have drawn.")
    records = property(lambda self: (self.metrics, self.timings), doc="The files that grow while a run works.")

    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None."""
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return summary if summary.get("finished") else None

    def first_day(self) -> date:
        """The date of the run's first start, recorded then: chat templates may write it into every prompt."""
        try:
            return date.fromisoformat((self.path / FIRST_DAY).read_text(encoding="utf-8").strip())
        except (OSError, ValueError):  # not started yet, or by a version that recorded none
            today = date.today()
            if self.writes and self.path.is_dir() and self.summary() is None:
                self.write_text(FIRST_DAY, f"{today.isoformat()}\n")
            return today

    def finish(self, summary: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        """Write the summary, with which the run is finished, and have `report` draw from it."""
        if not self.writes:
            return
        with translate_os_errors(self._unreported):
            self._unreported.touch()
        self.write_json("summary.json", summary)
        self._report(report)

    def report_late(self, report: Callable[[dict[str, Any]], None]) -> None:
        """What a process that was killed after it had finished the run had no time for."""
        if self.writes and self._unreported.exists():
            with self.held(wait=True):
                self._report(report)

    def _report(self, report: Callable[[dict[str, Any]], None]) -> None:
        summary = self.summary() if self._unreported.exists() else None
        if summary is not None:
            report(summary)
            self._unreported.unlink(missing_ok=True)

    @contextmanager
    def held(self, wait: bool = False) -> Iterator[None]:
        """Keep every other process out until the block ends, or this process does.

        Raises UserError when another process is in it, unless it is waited for.
        """
        if not self.writes:
            yield
            return
        if self.path.is_symlink():
            raise UserError("the run folder is a link: nothing is written or removed through it", where=str(self.path))
        lock = FileLock(self.path / ".lock")
        with translate_os_errors(self.path, hint="ALIGNZOO_RUNS puts runs elsewhere"):
            make_folder(self.path)
            try:
                lock.acquire(timeout=-1 if wait else 0)
            except Timeout:
                raise UserError("another process is working on this run", where=str(self.path)) from None
        try:
            for left_over in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
                shutil.rmtree(left_over) if left_over.is_dir() and not left_over.is_symlink() else left_over.unlink()
            yield
        finally:
            lock.release()

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file of the folder."""
        if self.writes:
            write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        """Replace a text file of the folder."""
        if self.writes:
            write_text(self.path / name, text)

    def write_lines(self, name: str, values: list[dict[str, Any]]) -> None:
        """Replace a JSON lines file of the folder."""
        self.write_text(name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))

    def append(self, path: Path, value: dict[str, Any]) -> None:
        """Add one JSON line."""
        line = redact(json.dumps(value, allow_nan=False)) + "\n"
        if not self.writes:
            return
        with translate_os_errors(path), open(path, "a", encoding="utf-8") as file:
            file.write(line)

    def put_back(self, kept: Path | None) -> None:
        """The records as they are in the checkpoint `kept`, or empty: a resumed run does the rest again."""
        for record in self.records if self.writes else ():
            with atomic_write(record) as temporary:
                shutil.copyfile(kept / record.name, temporary) if kept else temporary.touch()


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
