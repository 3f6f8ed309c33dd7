"""The base classes of data sources."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from alignzoo.data.files import Record, find_files, own_split, read_records
from alignzoo.data.format import Format
from alignzoo.data.rows import Row, Skipped

__all__ = ["DataSource", "Field", "FileSource", "Split", "content_of", "file_digest"]

Split = Literal["train", "test"]


class DataSource(BaseModel):
    """Where preference rows come from. Subclass it, give it a `name` and `read`, and return it from
    `register_data_sources`. The fields below are every source's; a subclass adds its own (a `path`, column names)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]

    train_rows: int | None = Field(None, ge=1, description="use at most this many training rows (the first ones)")
    held_out_rows: int | None = Field(None, ge=1, description="use at most this many held-out rows")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="share of the groups held out when the source has no test split of its own"
    )
    label_noise: float = Field(
        0.0, ge=0, le=1, description="share of training rows to mislabel: pairs swapped, labels flipped, lists reversed"
    )
    label_noise_seed: int = Field(0, ge=0, description="which rows are mislabelled")
    pairs: Literal["best_worst", "neighbours", "all"] = Field(
        "best_worst", description="which pairs a ranked list gives to an objective that takes pairs"
    )

    def splits(self) -> tuple[Split, ...]:
        """Its own splits. With `("train",)` a held-out one is carved from it, whole groups at a time."""
        return ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Its rows in a fixed order. What can't be used is yielded as `Skipped`, never dropped; what can't be read at
        all (no such file, malformed line) raises `alignzoo.errors.UserError` with file and line."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """32 hex digits of everything that its rows depend on. A source that reads something outside its fields adds
        the contents of that: a path alone says nothing about what is in the file."""
        return self.digest_of(())

    @property
    def pieces(self) -> Sequence[BaseModel]:
        """Itself, and the format that it reads with where that has a name of its own."""
        own = (getattr(self, key) for key in type(self).model_fields)
        return (self, *(value for value in own if isinstance(value, Format)))

    def digest_of(self, contents: Iterable[str]) -> str:
        """A digest of the fields (less `path`, which may be moved) and of these strings."""
        fields = json.dumps(self.model_dump(mode="json", exclude={"path"}), sort_keys=True)
        return blake2b("\n".join([self.name, fields, *contents]).encode(), digest_size=16).hexdigest()


class FileSource(DataSource):
    """A source that reads records from files: subclass it and turn a record into a row."""

    path: str | tuple[str, ...]

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """A row from one record. `id` is `file:line`; `where` has the whole path, for errors."""
        raise NotImplementedError

    def splits(self) -> tuple[Split, ...]:
        """Both, when the names of the files say which is which."""
        found = {split for _, _, split in self._files()}
        return ("train", "test") if {"train", "test"} <= found else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Rows in the order of the files and their lines."""
        own = len(self.splits()) > 1
        for file, label, named in self._files():
            if own and (named or "train") != split:
                continue
            for line, record in read_records(file):
                yield self.row(f"{label}:{line}", record, f"{file}:{line}")

    def fingerprint(self) -> str:
        """Of the fields and of every file's name and bytes."""
        return self.digest_of(f"{label} {file_digest(file)}" for file, label, _ in self._files())

    def _files(self) -> list[tuple[Path, str, str]]:
        """(file, what rows call it, the split its name says) for every file, each once.

        A file is called by its name, below a folder by its path in it; where two would be called the same, all by
        their paths below the folder that they share.
        """
        labels: dict[Path, str] = {}
        for part in (self.path,) if isinstance(self.path, str) else self.path:
            root = Path(part).expanduser()
            for file in find_files(part):
                label = file.relative_to(root).as_posix() if root.is_dir() else file.name
                labels.setdefault(file.absolute(), label)
        if len(set(labels.values())) < len(labels):
            shared = os.path.commonpath([file.parent for file in labels])
            labels = {file: file.relative_to(shared).as_posix() for file in labels}
        return [(file, label, own_split(label)) for file, label in labels.items()]


def file_digest(path: Path) -> str:
    """32 hex digits of a file's bytes; read again only when the file has changed within this process."""
    about = path.stat()
    return _digest(str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def content_of(folder: Path) -> str:
    """32 hex digits of the files of a folder (not of folders in it): their names and bytes."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    text = "\n".join(f"{path.name} {file_digest(path)}" for path in files)
    return blake2b(text.encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def _digest(path: str, size: int, modified: int, changed: int) -> str:
    with open(path, "rb") as file:  # SHA-256, which processors have instructions for: several times BLAKE2's rate
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
