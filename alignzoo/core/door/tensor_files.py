"""The header of a safetensors file, checked before anything maps or loads the file."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeGuard

from alignzoo.core.door.file_errors import BadFile, of_os_error
from alignzoo.core.door.files import open_file
from alignzoo.core.door.json_values import parse_json

HEADER_BYTES = 100_000_000
"""The limit of the format."""
MOST_DIMENSIONS = 16
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: its type, its shape, and the place of its bytes.

    The type is in the format's spelling. The bytes are given as offsets in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors that a safetensors file holds, from its header alone.

    Raises:
        BadFile: The file is truncated or no safetensors file, or a tensor has an unknown type, a shape that does not
            fit its bytes, or bytes outside of the file or of another tensor, or some bytes are no tensor's.
    """
    with open_file(path) as file:
        try:
            size = int.from_bytes(file.read(8), "little")
            total = file.seek(0, 2)
            file.seek(8)
            if total < 8 or size > min(HEADER_BYTES, total - 8):
                raise BadFile("truncated, or not a safetensors file", where=str(path))
            header = parse_json(file.read(size), path)
        except OSError as error:
            raise of_os_error(error, path) from None
    if not isinstance(header, dict):
        raise BadFile("not a safetensors file: the header is no object", where=str(path))
    metadata = header.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise BadFile("damaged: the metadata is not text", where=str(path))
    found = {name: _tensor(about, name, path, 8 + size, total) for name, about in header.items()}
    filled = 8 + size
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start < filled:
            raise BadFile(f"damaged: the bytes of '{name:.80}' are another tensor's too", where=str(path))
        if tensor.start > filled:
            break
        filled = tensor.end
    if filled != total:
        raise BadFile(f"damaged: the bytes from {filled:,} on are no tensor's", where=str(path))
    return found


def _tensor(about: object, name: str, path: Path, first: int, total: int) -> Tensor:
    def bad(what: str) -> BadFile:
        return BadFile(f"damaged: '{name:.80}' {what}", where=str(path))

    if not isinstance(about, dict):
        raise bad("is no object")
    dtype, shape, offsets = (about.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        raise bad(f"has the unknown type {dtype!r:.40}")
    if not _whole(shape) or len(shape) > MOST_DIMENSIONS:
        raise bad(f"has the shape {shape!r:.80}")
    if not _whole(offsets) or len(offsets) != 2:
        raise bad(f"has the offsets {offsets!r:.80}")
    start, end = (first + offset for offset in offsets)
    if not start <= end <= total:
        raise bad(f"ends at byte {end:,} of {total:,}: the file is truncated")
    if prod(shape) * BITS[dtype] != (end - start) * 8:
        raise bad(f"has {end - start:,} bytes, which don't fit {dtype} of shape {shape!r:.80}")
    return Tensor(dtype, tuple(shape), start, end)


def _whole(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values)
