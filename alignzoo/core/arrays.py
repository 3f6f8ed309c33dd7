"""Arrays in memory-mapped files, so that memory does not grow with them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

TYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64, "F32": np.float32}


def mmap_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Map the tensors of a safetensors file, copy-on-write: writing to one does not change the file.

    Raises:
        OSError: The file can't be read.
        ValueError: The header is damaged.
        KeyError: A tensor has a type other than uint8, int32, int64 or float32.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"{path} has no safetensors header")
        header = json.loads(file.read(size))
    raw = np.memmap(path, np.uint8, "c").view(np.ndarray)[8 + size :]
    return {
        name: raw[slice(*about["data_offsets"])].view(TYPES[about["dtype"]]).reshape(about["shape"])
        for name, about in header.items() if name != "__metadata__"
    }  # fmt: skip


def spill_to_disk(array: NDArray[Any], folder: Path) -> NDArray[Any]:
    """Move an array to an unnamed temporary file in `folder`, deleted with the array, and return it mapped.

    The array stays in memory if the folder can't be written to.
    """
    if not array.size:
        return array
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            array.tofile(file)
            file.flush()
            return np.memmap(file, array.dtype, "r", shape=array.shape).view(np.ndarray)
    except OSError:
        return array


def concat_ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate the ranges from `starts[i]` up to `starts[i] + lengths[i]`."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


class ArrayWriter:
    """A one-dimensional array that grows at its end, in a file instead of memory."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.path, self.dtype, self.size = path, np.dtype(dtype), 0
        self._file: IO[bytes] = open(path, "wb")

    def append(self, values: NDArray[Any]) -> None:
        """Append values, converted to the type of the array."""
        self._file.write(np.ascontiguousarray(values, dtype=self.dtype).tobytes())  # tofile hides the error number
        self.size += len(values)

    def whole(self) -> NDArray[Any]:
        """Close the file and return the array, mapped. Nothing can be appended afterwards."""
        self._file.close()
        if not self.size:
            return np.zeros(0, self.dtype)
        return np.memmap(self.path, self.dtype, "r", shape=(self.size,)).view(np.ndarray)


class StringArray(Sequence[str]):
    """Strings in one UTF-8 buffer: string i is `raw[cuts[i]:cuts[i + 1]]`."""

    def __init__(self, raw: NDArray[np.uint8], cuts: NDArray[np.int64]) -> None:
        self.raw, self.cuts = raw, cuts

    @classmethod
    def of(cls, texts: Iterable[str]) -> StringArray:
        """Encode strings."""
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        cuts = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=cuts[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8), cuts)

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return StringArray(self.raw, self.cuts[start : max(start, stop) + 1]) if step == 1 else list(self)[index]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        i = int(index) % len(self)
        return self.raw[self.cuts[i] : self.cuts[i + 1]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]
