"""Data source for files: JSONL, JSON, CSV, TSV, Parquet, or a folder saved by `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import SerializeAsAny

from alignzoo.core.digests import cached_file_digest
from alignzoo.data.formats.records import Records
from alignzoo.data.sources.arrow_tables import DICT, STATE, saved_records, saved_splits
from alignzoo.data.sources.base import FileSource
from alignzoo.data.sources.folders import expand_user, walk
from alignzoo.data.sources.json_records import Record
from alignzoo.data.sources.named_splits import choose_splits
from alignzoo.interfaces.data_source import Field, Split
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped

IGNORED_PREFIXES = (".", "cache-", "tmp")
"""Name prefixes of temporary files beside a saved dataset."""


class Files(FileSource):
    """Records in files, or in a folder saved by `datasets`, interpreted by a format."""

    name = "files"

    path: str | tuple[str, ...] = Field(
        description="a file, folder, glob pattern or list of these, or a `datasets` folder"
    )
    format: SerializeAsAny[Format] = Field(Records(), description="format of the records (see `alignzoo list`)")

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """Build a row from one record."""
        return self.format.row(id, record, where)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits of the saved DatasetDict or of the files."""
        if not self._saved():
            return super().splits()
        return ("train", "test") if len(self._parts()) > 1 else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield rows of the files or of the saved dataset."""
        if not self._saved():
            yield from super().read(split)
            return
        name, folder = self._parts()[0 if split == "train" else 1]
        for number, record in saved_records(folder, f"{self.path}: {name} row "):
            yield self.row(f"{name}:{number}", record, f"{self.path}: {name} row {number}")

    def fingerprint(self) -> str:
        """Return a digest of the fields, of the files' names and bytes, and of the splits read."""
        folder = self._saved()
        if not folder:
            return super().fingerprint()
        files = sorted(file for file in walk(folder) if not file.name.startswith(IGNORED_PREFIXES))
        contents = [f"{file.relative_to(folder).as_posix()} {cached_file_digest(file)}" for file in files]
        return self.digest_of([*contents, *(name for name, _ in self._parts())])

    def _saved(self) -> Path | None:
        """Return the folder if `datasets` saved it, else None."""
        folder = expand_user(self.path) if isinstance(self.path, str) else None
        return folder if folder and any((folder / name).is_file() for name in (DICT, STATE)) else None

    def _parts(self) -> list[tuple[str, Path]]:
        """Return name and folder of the training split, and of the held-out split if any."""
        folder = self._saved()
        assert folder is not None
        names = saved_splits(folder)
        if names == [""]:
            return [("train", folder)]
        chosen = choose_splits(names, str(self.path), self._kinds, self.train_split, self.test_split)
        return [(name, folder / name) for name in chosen if name is not None]
