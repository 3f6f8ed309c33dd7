"""The base classes of data sources."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from alignzoo.data.files import Record, find_files, read_records
from alignzoo.data.format import Format
from alignzoo.data.named_splits import choose_splits, side, split_in_path
from alignzoo.data.rows import Row, Skipped
from alignzoo.errors import UserError

__all__ = ["DataSource", "Field", "FileSource", "Split", "content_of", "file_digest"]

Split = Literal["train", "test"]


class DataSource(BaseModel):
    """Where preference rows come from. Subclass it, give it a `name` and `read`, and return it from
    `register_data_sources`. The fields below are every source's; a subclass adds its own (a `path`, column names)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]
    needs_runs: ClassVar[tuple[str, ...]] = ()
    """Keys of fields that name a recipe: its run is made first. They are no part of `fingerprint`."""

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

    _kinds: frozenset[str] = PrivateAttr(frozenset())

    def serving(self, kinds: Collection[str]) -> Self:
        """The same source for an objective that takes these kinds of rows (`Objective.data`): where a dataset has a
        split for each way to train, they say which one is meant."""
        copy = self.model_copy()
        copy._kinds = frozenset(kinds)
        return copy

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
        fields = json.dumps(self.model_dump(mode="json", exclude={"path", *self.needs_runs}), sort_keys=True)
        return blake2b("\n".join([self.name, fields, *contents]).encode(), digest_size=16).hexdigest()


class FileSource(DataSource):
    """A source that reads records from files: subclass it and turn a record into a row."""

    path: str | tuple[str, ...]
    train_split: str | None = Field(None, description="by default `train`, or the only one that is no test split")
    test_split: str | None = Field(None, description="by default the one named like the training split")

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """A row from one record. `id` is `file:line`; `where` has the whole path, for errors."""
        raise NotImplementedError

    def splits(self) -> tuple[Split, ...]:
        """Both, when the names of the files say which is which."""
        return ("train", "test") if {split for _, _, split in self._files()} == {"train", "test"} else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Rows in the order of the files and their lines."""
        for file, label, own in self._files():
            if own != split:
                continue
            for line, record in read_records(file):
                yield self.row(f"{label}:{line}", record, f"{file}:{line}")

    def fingerprint(self) -> str:
        """Of the fields and of every file's name and bytes."""
        return self.digest_of(f"{label} {file_digest(file)}" for file, label, _ in self._files())

    def _files(self) -> list[tuple[Path, str, Split]]:
        """(file, its label in ids, its split) for every file that is read, each once.

        A file is called by its name, below a folder by its path in it; where two would be called the same, all by
        their paths below the folder that they share.
        """
        labels: dict[Path, str] = {}
        for part in _parts(self.path):
            root = Path(part).expanduser()
            for file in find_files(part):
                label = file.relative_to(root).as_posix() if root.is_dir() else file.name
                labels.setdefault(file.absolute(), label)
        if len(set(labels.values())) < len(labels):
            shared = os.path.commonpath([file.parent for file in labels])
            labels = {file: file.relative_to(shared).as_posix() for file in labels}
        parts = self._split_of({label: split_in_path(label) for label in labels.values()})
        return [(file, label, parts[label]) for file, label in labels.items() if label in parts]

    def _split_of(self, names: dict[str, str]) -> dict[str, Split]:
        """Label -> split, by the names in the files' paths. Files without one are for training.

        Test files train only where the recipe names them: as `path`, and not as a folder that holds them.
        """
        said = set(names.values())
        plain = "train" if "train" in said or not any(name.startswith("train") for name in said) else ""
        names = {label: name or plain for label, name in names.items()}
        if {side(name) for name in names.values()} == {"test"} and not self.train_split and not self._in_folders():
            return dict.fromkeys(names, "train")
        train, test = choose_splits(
            list(dict.fromkeys(names.values())), str(self.path), self._kinds, self.train_split, self.test_split
        )
        return {label: "train" if name == train else "test" for label, name in names.items() if name in (train, test)}

    def _in_folders(self) -> bool:
        return any(Path(part).expanduser().is_dir() for part in _parts(self.path))


def _parts(path: str | tuple[str, ...]) -> tuple[str, ...]:
    return (path,) if isinstance(path, str) else path


def file_digest(path: Path) -> str:
    """32 hex digits of a file's bytes; read again only when the file has changed within this process.

    Raises UserError for a file that changes while it is read.
    """
    for _ in range(3):
        before = _state(path)
        found = _digest(str(path.resolve()), *before)
        if _state(path) == before:
            return found
    raise UserError("the file changes while it is read", where=str(path), expected="a file that is complete")


def _state(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def content_of(folder: Path) -> str:
    """32 hex digits of the files of a folder (not of folders in it): their names and bytes."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    text = "\n".join(f"{path.name} {file_digest(path)}" for path in files)
    return blake2b(text.encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def _digest(path: str, *state: int) -> str:
    with open(path, "rb") as file:  # SHA-256, which processors have instructions for: several times BLAKE2's rate
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
