"""Arrays in memory-mapped files, so that memory does not grow with them."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignzoo.core.door import BadFile, open_file, tensors, translate

TYPES = {"U8": np.uint8, "I32": np.int32, "F32": np.float32, "F64": np.float64, "I64": np.int64}
"""Types of tensors, in the order of the format: the last ones come first in a file, so that all are aligned."""
PART = 2**24
"""Bytes of a mapped array that are read at once."""


def mmap_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Map the tensors of a safetensors file into memory, copy-on-write.

    Writing to a tensor does not change the file.

    Raises:
        BadFile: The file can't be read, its header is damaged, or a tensor has a type other than uint8, int32, int64,
            float32 or float64.
    """
    found = tensors(path)
    for name, tensor in found.items():
        if tensor.dtype not in TYPES:
            raise BadFile(f"'{name:.80}' has the type {tensor.dtype}", where=str(path), expected=" or ".join(TYPES))
    raw = mmap_bytes(path)
    return {
        name: raw[tensor.start : tensor.end].view(TYPES[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in found.items()
    }


def mmap_bytes(path: Path) -> NDArray[np.uint8]:
    """Map the bytes of a file, copy-on-write. Raises BadFile where it can't be read."""
    with open_file(path) as file, translate(path):
        size = os.fstat(file.fileno()).st_size
        return np.memmap(file, np.uint8, "c").view(np.ndarray) if size else np.zeros(0, np.uint8)


def in_parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield consecutive parts of an array along its first axis.

    Memory does not grow with the size of a mapped array. The pages of a part are let go once it is used. Values that
    were written to a copy-on-write array are lost.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    size = max(1, PART * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), size):
        part = array[start : start + size]
        yield part
        if isinstance(owner, mmap.mmap) and hasattr(owner, "madvise") and part.flags.c_contiguous:
            first = part.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
            page = first - first % mmap.PAGESIZE
            owner.madvise(mmap.MADV_DONTNEED, page, first + part.nbytes - page)


def write_safetensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays, which may be mapped and larger than memory, to a safetensors file.

    The bytes are those of the library `safetensors`, which maps all of an array at once.
    """
    types = {np.dtype(type): name for name, type in TYPES.items()}
    order = list(types)
    ordered = sorted(arrays, key=lambda name: (-order.index(arrays[name].dtype), name))
    header, end = {}, 0
    for name in ordered:
        array, start = arrays[name], end
        end += array.nbytes
        header[name] = {"dtype": types[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            for part in in_parts(arrays[name]):
                file.write(part.tobytes())


def offsets_fit(offsets: NDArray[np.int64], total: int) -> bool:
    """Return True for offsets that begin at 0, never fall, and end at `total`."""
    whole = offsets.ndim == 1 and len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == total
    return bool(whole and (offsets[1:] >= offsets[:-1]).all())


def spill_to_disk(array: NDArray[Any], folder: Path) -> NDArray[Any]:
    """Move an array to an unnamed temporary file in `folder`, and return it mapped.

    The file is deleted with the array. The array stays in memory if the folder can't be written to.
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


def offsets_of(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return the offsets (len + 1,) of consecutive parts, the end of the last one included."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def evenly_spaced(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` evenly spaced indices below `count`, 0 among them."""
    most = min(most, count)
    return (np.arange(most) * count) // max(1, most)


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
        found = self.raw[self.cuts[i] : self.cuts[i + 1]].tobytes()
        try:
            return found.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # of a file that was not written by `of`
            return found.decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]
