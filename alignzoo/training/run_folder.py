"""The run folder: its files, and the lock that one process holds to write them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from alignzoo.core.door import BadFile, MissingFile, read_checked, read_text
from alignzoo.core.errors import UserError
from alignzoo.core.files import (
    atomic_write,
    make_folder,
    remove_temporaries,
    translate_os_errors,
    write_json,
    write_text,
)
from alignzoo.core.locks import locked
from alignzoo.core.paths import FIRST_DAY
from alignzoo.training.records import HELD_OUT, REPLIES, Summary

Report = Callable[[dict[str, Any], list[str]], list[str]]
"""Reports a summary to the reporters with these names, or to all; returns the names of those that failed."""


class RunFolder:
    """The folder `runs/<name>-<fingerprint>/`.

    JSON lines are appended, and restored from the checkpoint when a run resumes; every other file is replaced
    atomically. metrics.jsonl is reproducible byte for byte, files of times are not. Writes do nothing in all processes
    but one (`writes=False`), and raise NotWritten if the disk is full or the like.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    policy = property(lambda self: self.path / "policy", doc="The trained policy and its tokenizer.")
    critic = property(lambda self: self.path / "critic", doc="The trained critic of a run that has one.")
    checkpoints = property(lambda self: self.path / "checkpoints", doc="The folder of checkpoints.")
    metrics = property(lambda self: self.path / "metrics.jsonl", doc="One line per step and evaluation.")
    timings = property(lambda self: self.path / "timings.jsonl", doc="Seconds, pairs and tokens of each step.")

    _unreported = property(
        lambda self: self.path / ".unreported", doc="The reporters that have failed; empty before the first."
    )
    evaluation_times = property(
        lambda self: self.path / "evaluation_times.jsonl", doc="Seconds of each evaluation of the evaluated rows."
    )
    replies = property(lambda self: self.path / REPLIES, doc="Sampled replies along training; not in every run.")
    records = property(
        lambda self: (self.metrics, self.timings, self.evaluation_times), doc="The files that a run appends to."
    )

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of a finished run, or None.

        Raises:
            BadFile: summary.json is damaged or can't be read.
        """
        try:
            summary: dict[str, Any] = read_checked(self.path / "summary.json", Summary)
        except MissingFile:
            return None
        except BadFile as error:
            again = "--fresh removes the run and starts again"
            raise type(error)([replace(problem, hint=again) for problem in error.problems]) from None
        return summary if summary["finished"] else None

    def first_day(self) -> date:
        """Return the date of the run's first start.

        Chat templates may write it into every prompt.
        """
        try:
            return date.fromisoformat(read_text(self.path / FIRST_DAY, limit=64).strip())
        except (MissingFile, ValueError):  # not started yet, or by a version that recorded none
            today = date.today()
            if self.writes and self.path.is_dir() and self.summary() is None:
                self.write_text(FIRST_DAY, f"{today.isoformat()}\n")
            return today

    def finish(self, summary: dict[str, Any], report: Report) -> None:
        """Write the summary, which marks the run as finished, and call `report` with it."""
        if not self.writes:
            return
        with translate_os_errors(self._unreported):
            self._unreported.touch()
        self.write_json("summary.json", summary)
        self._report(report)

    def report_late(self, report: Report, waiting: Callable[[str], None]) -> None:
        """Call `report` if the run is finished, but the report on it is not.

        A process was killed between the summary and its report, or a reporter failed.
        """
        if self.writes and self._unreported.exists():
            with self.held(waiting):
                self._report(report)

    def _report(self, report: Report) -> None:
        summary = self.summary() if self._unreported.exists() else None
        if summary is None:
            return
        failed = report(summary, read_text(self._unreported).split())
        with translate_os_errors(self._unreported):
            self._unreported.write_text("\n".join(failed), encoding="utf-8")
        if not failed:
            self._unreported.unlink(missing_ok=True)

    @contextmanager
    def held(self, waiting: Callable[[str], None] | None = None, clearing: bool = False) -> Iterator[None]:
        """Hold the lock of the folder during the block.

        Args:
            waiting: Shows a line on the process that is waited for. None: do not wait.
            clearing: The block removes everything, links too.

        Raises:
            UserError: Another process holds the lock, or the folder is a link or holds one.
        """
        if not self.writes:
            yield
            return
        self.check_links(inside=not clearing)
        what = f"{self.path.name} is trained" if waiting else "this run is trained"
        with ExitStack() as stack:
            with translate_os_errors(self.path, hint="set ALIGNZOO_RUNS to another folder"):
                make_folder(self.path)
                stack.enter_context(locked(self.path / ".lock", waiting, what))
            remove_temporaries(self.path)
            yield

    def check_links(self, inside: bool = True) -> None:
        """Raise UserError if the folder, or with `inside` anything in it, is a link.

        Writes would go elsewhere.
        """
        links = [self.path] if self.path.is_symlink() else []
        if inside and self.path.is_dir():
            links += [path for path in self.path.iterdir() if path.is_symlink()]
        for link in links:
            what = "the run folder is" if link == self.path else "this part of the run folder is"
            raise UserError(
                f"{what} a symbolic link, through which nothing is written or removed", where=str(link),
                hint="" if link == self.path else "move it away, or remove the run with --fresh",
            )  # fmt: skip

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
        """Append one JSON line."""
        line = json.dumps(value, allow_nan=False) + "\n"
        if not self.writes:
            return
        with translate_os_errors(path), open(path, "a", encoding="utf-8") as file:
            file.write(line)

    def restore_records(self, kept: Path | None) -> None:
        """Restore the records from the checkpoint folder `kept`, or empty them."""
        for record in self.records if self.writes else ():
            with atomic_write(record) as temporary:
                there = kept is not None and (kept / record.name).is_file()  # an older version wrote fewer
                shutil.copyfile(kept / record.name, temporary) if kept and there else temporary.touch()
        if self.writes and kept and (kept / HELD_OUT).is_file():
            with atomic_write(self.path / HELD_OUT) as temporary:
                shutil.copyfile(kept / HELD_OUT, temporary)
        if self.writes and kept and (kept / REPLIES).is_file():
            with atomic_write(self.replies) as temporary:
                shutil.copyfile(kept / REPLIES, temporary)
        elif self.writes:
            with translate_os_errors(self.replies):
                self.replies.unlink(missing_ok=True)
