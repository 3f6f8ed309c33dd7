"""Base class of data sources that read files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from alignzoo.core.digests import cached_file_digest
from alignzoo.data.sources.folders import expand_user
from alignzoo.data.sources.json_records import Record
from alignzoo.data.sources.named_splits import choose_splits, side, split_in_path
from alignzoo.data.sources.readers import find_files, read_records
from alignzoo.interfaces.data_source import DataSource, Split
from alignzoo.interfaces.rows import Row, Skipped


class FileSource(DataSource):
    """Base class for sources that read records from files. Subclasses implement `row`."""

    path: str | tuple[str, ...]
    train_split: str | None = Field(None, description="by default `train`, or the only split that is not a test split")
    test_split: str | None = Field(None, description="by default the test split whose name matches the training split")

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """Build a row from one record.

        Args:
            id: `file:line`.
            record: The record.
            where: The same with the whole path, for errors.
        """
        raise NotImplementedError

    def splits(self) -> tuple[Split, ...]:
        """Return both splits if the file names distinguish them."""
        return ("train", "test") if {split for _, _, split in self._files()} == {"train", "test"} else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield rows in the order of the files and their lines."""
        for file, label, own in self._files():
            if own != split:
                continue
            for line, record in read_records(file):
                yield self.row(f"{label}:{line}", record, f"{file}:{line}")

    def fingerprint(self) -> str:
        """Return a digest of the fields and of every file's name and bytes."""
        return self.digest_of(f"{label} {cached_file_digest(file)}" for file, label, _ in self._files())

    def _files(self) -> list[tuple[Path, str, Split]]:
        """Return (file, label in ids, split) for every file that is read, without repeats.

        The label of a file is its name, or its path relative to the folder in `path`. If two labels are equal, all
        labels are paths relative to the common folder.
        """
        labels: dict[Path, str] = {}
        for part in _parts(self.path):
            root = expand_user(part)
            for file in find_files(part):
                label = file.relative_to(root).as_posix() if root.is_dir() else file.name
                labels.setdefault(file.absolute(), label)
        if len(set(labels.values())) < len(labels):
            shared = os.path.commonpath([file.parent for file in labels])
            labels = {file: file.relative_to(shared).as_posix() for file in labels}
        parts = self._split_of({label: split_in_path(label) for label in labels.values()})
        return [(file, label, parts[label]) for file, label in labels.items() if label in parts]

    def _split_of(self, names: dict[str, str]) -> dict[str, Split]:
        """Map labels to splits by the split names in the paths.

        Files without a split name are for training. Test files are used for training only if `path` names them
        directly, not through a folder.
        """
        found = set(names.values())
        plain = "train" if "train" in found or not any(name.startswith("train") for name in found) else ""
        names = {label: name or plain for label, name in names.items()}
        if {side(name) for name in names.values()} == {"test"} and not self.train_split and not self._in_folders():
            return dict.fromkeys(names, "train")
        train, test = choose_splits(
            list(dict.fromkeys(names.values())), str(self.path), self._kinds, self.train_split, self.test_split
        )
        return {label: "train" if name == train else "test" for label, name in names.items() if name in (train, test)}

    def _in_folders(self) -> bool:
        return any(expand_user(part).is_dir() for part in _parts(self.path))


def _parts(path: str | tuple[str, ...]) -> tuple[str, ...]:
    return (path,) if isinstance(path, str) else path
