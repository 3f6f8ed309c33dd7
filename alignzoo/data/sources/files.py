"""Data source for files: JSONL, JSON, CSV, TSV, Parquet, or a folder saved by `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SerializeAsAny

from alignzoo.core.digests import cached_file_digest
from alignzoo.core.errors import UserError
from alignzoo.data.formats.records import Records
from alignzoo.data.sources.base import FileSource
from alignzoo.data.sources.json_records import Record
from alignzoo.data.sources.named_splits import choose_splits
from alignzoo.data.sources.optional import need
from alignzoo.data.sources.readers import walk
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
        name, dataset = self._parts()[0 if split == "train" else 1]
        for number, record in enumerate(dataset, 1):
            yield self.row(f"{name}:{number}", record, f"{self.path}: {name} row {number}")

    def fingerprint(self) -> str:
        """Return a digest of the fields, of every file's name and bytes, and of the splits that are read."""
        folder = self._saved()
        if not folder:
            return super().fingerprint()
        files = sorted(file for file in walk(folder) if not file.name.startswith(IGNORED_PREFIXES))
        contents = [f"{file.relative_to(folder).as_posix()} {cached_file_digest(file)}" for file in files]
        return self.digest_of([*contents, *(name for name, _ in self._parts())])

    def _saved(self) -> Path | None:
        """Return the folder if `datasets` saved it, else None."""
        folder = Path(self.path).expanduser() if isinstance(self.path, str) else None
        if folder and any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return folder
        return None

    def _parts(self) -> list[tuple[str, Any]]:
        try:
            loaded = need("datasets", "saved datasets").load_from_disk(str(self._saved()))
        except (OSError, ValueError, KeyError, TypeError) as error:  # a file is missing or has other content
            raise UserError(f"the saved dataset can't be loaded: {error}", where=str(self.path)) from None
        if not hasattr(loaded, "keys"):
            return [("train", loaded)]
        names = choose_splits(list(loaded), str(self.path), self._kinds, self.train_split, self.test_split)
        return [(name, loaded[name]) for name in names if name is not None]
