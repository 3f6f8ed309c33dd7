"""Tables in files: JSONL, JSON, CSV, TSV, Parquet, or a folder that `datasets` saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SerializeAsAny

from alignzoo.data.files import Record, need
from alignzoo.data.format import Format
from alignzoo.data.formats.records import Records
from alignzoo.data.rows import Row, Skipped
from alignzoo.data.source import Field, FileSource, Split, file_digest
from alignzoo.errors import UserError

TEST_NAMES = ("test", "validation", "valid", "eval", "dev")


class Table(FileSource):
    """Records in files or in a folder that `datasets` saved; a format says what a record means."""

    name = "table"

    path: str | tuple[str, ...] = Field(description="a file, a folder, a pattern or a list; or a `datasets` folder")
    format: SerializeAsAny[Format] = Field(Records(), description="what a record means (alignzoo list format)")

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """One record."""
        return self.format.row(id, record, where)

    def splits(self) -> tuple[Split, ...]:
        """A saved DatasetDict's, or the files'."""
        if not self._saved():
            return super().splits()
        return ("train", "test") if len(self._parts()) > 1 else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Rows of the files, or of the saved dataset."""
        if not self._saved():
            yield from super().read(split)
            return
        name, dataset = self._parts()[0 if split == "train" else 1]
        for number, record in enumerate(dataset, 1):
            yield self.row(f"{name}:{number}", record, f"{self.path}: {name} row {number}")

    def fingerprint(self) -> str:
        """Of the fields and of every file's name and bytes."""
        folder = self._saved()
        if not folder:
            return super().fingerprint()
        tables = sorted(folder.rglob("*.arrow"))
        return self.digest_of(f"{file.relative_to(folder).as_posix()} {file_digest(file)}" for file in tables)

    def _saved(self) -> Path | None:
        """The folder, if `datasets` saved it."""
        folder = Path(self.path).expanduser() if isinstance(self.path, str) else None
        if folder and any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return folder
        return None

    def _parts(self) -> list[tuple[str, Any]]:
        try:
            loaded = need("datasets", "saved datasets").load_from_disk(str(self._saved()))
        except (OSError, ValueError, KeyError, TypeError) as error:  # a file is missing, or holds something else
            raise UserError(f"the saved dataset can't be loaded: {error}", where=str(self.path)) from None
        return split_parts(loaded, str(self.path)) if hasattr(loaded, "keys") else [("train", loaded)]


def split_parts(splits: dict[str, Any], where: str) -> list[tuple[str, Any]]:
    """The training split of a dictionary of them, and the test split if there is one."""
    if not splits:
        raise UserError("the dataset has no splits", where=where)
    train = "train" if "train" in splits else next(iter(splits))
    test = next((name for name in TEST_NAMES if name in splits and name != train), None)
    return [(name, splits[name]) for name in (train, test) if name is not None]
