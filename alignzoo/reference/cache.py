"""Cache of reference log-probs: a sequence is scored once by each reference, for all runs.

A cache folder is keyed by everything but the tokens that the numbers depend on: see `cache_folder`. In it each sequence
is keyed by the hash of its token ids and of its scored positions. Objective, beta, learning rate, seed, batch size,
order and subset are part of no key. Values are per-token float32 log-probs in ragged safetensors shards:

    keys (n, 16) uint8 · offsets (n + 1) int64 · log_probs (total) float32

A shard is named by the digest of its contents, written to a temporary name, synced and renamed: an interrupted pass
keeps every finished shard, a damaged shard does not match its name, and processes that share a folder never write
different bytes to one file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from alignzoo.core.arrays import concat_ranges, mmap_safetensors, offsets_fit
from alignzoo.core.door import BadFile, MissingFile, UnreadableFile
from alignzoo.core.errors import NotWritten, RunFailed, first_line
from alignzoo.core.files import atomic_write

SHARD_ROWS = 16_384
ROW_BITS = 32
"""Bits of an index that hold the row; the shard's number is above them."""
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
Scores = NDArray[np.float32]
_FORM = {"keys": (np.uint8, 2), "offsets": (np.int64, 1), "log_probs": (np.float32, 1)}
"""The arrays of a shard: type and number of dimensions."""


@dataclass
class Shard:
    """One file. Its arrays are memory-mapped, so memory does not grow with the cache."""

    path: Path
    keys: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    log_probs: Scores


@dataclass
class ReferenceCache:
    """Cache of the scores of one reference, in shards.

    `add` collects scores, and `flush` writes them durably as a shard.
    """

    folder: Path
    damaged: list[Path] = field(default_factory=list)
    """Shards set aside when the cache was opened, renamed to `*.damaged`. Their rows are scored again."""
    unreadable: list[Path] = field(default_factory=list)
    """Shards that this user can't read, and that stay: another user wrote them. Their rows are scored again."""

    def __post_init__(self) -> None:
        self._shards: list[Shard] = []
        self._pending: dict[bytes, Scores] = {}
        paths = shard_paths(self.folder)
        with ThreadPoolExecutor() as threads:
            for path, found in zip(paths, threads.map(_try_to_read, paths), strict=True):
                if isinstance(found, Shard):
                    self._shards.append(found)
                elif isinstance(found, UnreadableFile):
                    self.unreadable.append(path)
                elif not isinstance(found, MissingFile):  # that another process has removed
                    with suppress(OSError):  # renamed by another process, or a read-only disk
                        path.rename(path.with_suffix(".damaged"))
                    self.damaged.append(path)

    def __len__(self) -> int:
        return len({key.tobytes() for shard in self._shards for key in shard.keys}) + len(self._pending)

    def find(self, keys: Sequence[bytes] | NDArray[np.uint8]) -> NDArray[np.int64]:
        """Find each key's index for `get`, or -1: (n,) for n keys. Only flushed scores are found.

        The keys are sorted, and each shard's keys looked up among them, so that no index is kept in memory.
        """
        wanted = _words(np.frombuffer(b"".join(keys), np.uint8) if isinstance(keys, Sequence) else keys)
        order = np.argsort(wanted[:, 0])
        ordered = wanted[order, 0]
        found = np.full(len(wanted), -1, dtype=np.int64)
        for s, shard in reversed(list(enumerate(self._shards))):  # the first of two shards with a key counts
            own = _words(shard.keys)
            sorted_rows = np.argsort(own[:, 0])  # searching in order stays in the CPU's cache
            first, last = (np.searchsorted(ordered, own[sorted_rows, 0], side) for side in SIDES)
            rows = np.repeat(sorted_rows, last - first)
            at = order[concat_ranges(first, last - first)]
            same = wanted[at, 1] == own[rows, 1]
            found[at[same]] = s << ROW_BITS | rows[same]
        return found

    def get(self, index: int) -> Scores:
        """Return the token log-probs of one sequence, (n,), in nats."""
        shard, row = self._shards[index >> ROW_BITS], index & (1 << ROW_BITS) - 1
        return shard.log_probs[int(shard.offsets[row]) : int(shard.offsets[row + 1])]

    def add(self, key: bytes, log_probs: Scores) -> None:
        """Hold one sequence's scores until `flush`."""
        self._pending[key] = np.asarray(log_probs, dtype=np.float32)

    @property
    def full(self) -> bool:
        """True if the scores added since the last `flush` make a shard."""
        return len(self._pending) >= SHARD_ROWS

    def drop(self) -> None:
        """Discard the scores added since the last `flush`."""
        self._pending.clear()

    def flush(self) -> None:
        """Write the added scores as one shard, durably.

        Raises:
            NotWritten: The disk fails.
            RunFailed: A score is not finite; nothing is written.
        """
        if not self._pending:
            return
        keys = np.frombuffer(b"".join(self._pending), np.uint8).reshape(-1, 16)
        offsets = np.zeros(len(keys) + 1, dtype=np.int64)
        np.cumsum([len(scores) for scores in self._pending.values()], out=offsets[1:])
        log_probs = np.concatenate(list(self._pending.values()))
        if not np.isfinite(log_probs).all():
            wrong = sum(not np.isfinite(scores).all() for scores in self._pending.values())
            self.drop()
            raise RunFailed(f"the reference's log-probs of {wrong:,} of {len(keys):,} sequences are not finite")
        path = self.folder / f"{_digest(keys, offsets, log_probs)}.safetensors"
        with atomic_write(path, hint="set ALIGNZOO_CACHE to put the cache elsewhere") as temporary:
            save_file({"keys": keys, "offsets": offsets, "log_probs": log_probs}, temporary)
        try:
            shard = read_shard(path)
        except BadFile as error:
            raise NotWritten(f"{path} could not be written: read back, it differs ({first_line(error)})") from error
        self._shards.append(shard)
        self._pending.clear()


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a cache folder, by name. Temporary files have other endings."""
    return sorted(folder.glob("*.safetensors"))


def read_shard(path: Path) -> Shard:
    """Open a shard, check its arrays, and compare it with its name.

    Raises:
        UnreadableFile: This user can't read it.
        BadFile: It is damaged.
    """
    arrays = mmap_safetensors(path)
    if set(arrays) != set(_FORM):
        raise BadFile(f"not a shard: it has {', '.join(arrays) or 'no arrays'}", where=str(path))
    for name, (dtype, dimensions) in _FORM.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != dimensions:
            raise BadFile(f"not a shard: '{name}' has another type or shape", where=str(path))
    keys, offsets, log_probs = arrays["keys"], arrays["offsets"], arrays["log_probs"]
    if keys.shape[1] != 16 or len(offsets) != len(keys) + 1 or not offsets_fit(offsets, len(log_probs)):
        raise BadFile("damaged: its offsets don't fit its arrays", where=str(path))
    if path.stem != _digest(keys, offsets, log_probs):
        raise BadFile("damaged: its contents differ from its name", where=str(path))
    if not np.isfinite(log_probs).all():
        raise BadFile("damaged: a log-prob is not finite", where=str(path))
    return Shard(path, keys, offsets, log_probs)


def _try_to_read(path: Path) -> Shard | BadFile:
    try:
        return read_shard(path)
    except BadFile as error:
        return error


def _digest(keys: NDArray[np.uint8], offsets: NDArray[np.int64], log_probs: Scores) -> str:
    digest = blake2b(digest_size=16)
    for array in (keys, offsets, log_probs):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _words(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """View 16-byte keys as (n, 2) numbers, which compare in one instruction each."""
    return np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)


def caches(root: Path) -> Iterable[Path]:
    """Return every reference's folder under a cache root."""
    folder = root / "reference"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
