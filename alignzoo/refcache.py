"""The reference log-prob cache: every sequence is scored once by a reference, whatever run asks for it.

A cache folder belongs to what the numbers depend on besides the tokens: the reference's weights, its architecture and
the precision of the forward. In it each sequence is addressed by the hash of its token ids and of where scoring
starts; objective, beta, learning rate, seed, batch size, order and subset are not part of any key. Values are per-token
float32 log-probs in ragged safetensors shards:

    keys (n, 16) uint8 · offsets (n + 1) int64 · log_probs (total) float32

A shard is named by the digest of its contents, written to a temporary name, synced and renamed: an interrupted pass
keeps every shard that it finished, a damaged one is noticed by its name, and processes that share a folder never write
the same file with different bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from alignzoo.durable import replacing

SHARD_ROWS = 16_384
Scores = NDArray[np.float32]


@dataclass
class Shard:
    """One file. Its log-probs are read from disk when asked for, so that memory does not grow with the cache."""

    path: Path
    keys: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    log_probs: Scores


@dataclass
class ReferenceCache:
    """The scores of one reference. `add` collects, `flush` writes a shard; what is flushed is safe."""

    folder: Path
    damaged: list[Path] = field(default_factory=list)
    """Shards set aside when the cache was opened, renamed to `*.damaged`. Their rows are scored again."""

    def __post_init__(self) -> None:
        self._shards: list[Shard] = []
        self._pending: dict[bytes, Scores] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            shard = read_shard(path)
            if shard is None:
                path.rename(path.with_suffix(".damaged"))
                self.damaged.append(path)
            else:
                self._shards.append(shard)
        self._index()

    def _index(self) -> None:
        """Sort all keys once: a look-up is then a binary search, not a Python dictionary of a million entries."""
        keys = [shard.keys for shard in self._shards]
        joined = np.concatenate(keys) if keys else np.zeros((0, 16), np.uint8)
        names = _as_names(joined)
        self._order = np.argsort(names, kind="stable")
        self._names = names[self._order]
        shard_of = [np.full(len(shard.keys), s) for s, shard in enumerate(self._shards)]
        row_of = [np.arange(len(shard.keys)) for shard in self._shards]
        self._shard_of = np.concatenate(shard_of)[self._order] if keys else np.zeros(0, np.int64)
        self._row_of = np.concatenate(row_of)[self._order] if keys else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(np.unique(self._names)) + len(self._pending)

    def find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Where each key's scores are (an index for `get`), or -1. Only what was flushed is found."""
        if not len(keys) or not len(self._names):
            return np.full(len(keys), -1, dtype=np.int64)
        wanted = _as_names(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16))
        at = np.searchsorted(self._names, wanted)
        at[at == len(self._names)] = 0
        return np.where(self._names[at] == wanted, at, -1)

    def get(self, index: int) -> Scores:
        """The token log-probs of one sequence, in the order of its tokens."""
        shard = self._shards[self._shard_of[index]]
        row = int(self._row_of[index])
        return shard.log_probs[int(shard.offsets[row]) : int(shard.offsets[row + 1])]

    def add(self, key: bytes, log_probs: Scores) -> None:
        """Remember one sequence's scores until `flush`; a full shard is flushed at once."""
        self._pending[key] = np.asarray(log_probs, dtype=np.float32)
        if len(self._pending) >= SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added as one shard, durably."""
        if not self._pending:
            return
        keys = np.frombuffer(b"".join(self._pending), np.uint8).reshape(-1, 16)
        offsets = np.zeros(len(keys) + 1, dtype=np.int64)
        np.cumsum([len(scores) for scores in self._pending.values()], out=offsets[1:])
        log_probs = np.concatenate(list(self._pending.values()))
        path = self.folder / f"{_digest(keys, offsets, log_probs)}.safetensors"
        with replacing(path) as temporary:
            save_file({"keys": keys, "offsets": offsets, "log_probs": log_probs}, temporary)
        shard = read_shard(path)
        if shard is None:
            raise OSError(f"{path} does not read back as it was written")
        self._shards.append(shard)
        self._pending.clear()
        self._index()


def read_shard(path: Path) -> Shard | None:
    """Open a shard and check it against its name; None when it is truncated or altered."""
    try:
        with safe_open(path, "np") as file:
            keys, offsets = file.get_tensor("keys"), file.get_tensor("offsets")
        log_probs = _mapped(path, "log_probs")
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    intact = path.stem == _digest(keys, offsets, log_probs)
    return Shard(path, keys, offsets, log_probs) if intact else None


def _mapped(path: Path, name: str) -> Scores:
    """One float32 tensor of a safetensors file as a memory map (safe_open would copy it into memory)."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        first, last = json.loads(file.read(size))[name]["data_offsets"]
    if first == last:
        return np.zeros(0, np.float32)
    return np.memmap(path, np.float32, "r", offset=8 + size + first, shape=((last - first) // 4,))


def _digest(keys: NDArray[np.uint8], offsets: NDArray[np.int64], log_probs: Scores) -> str:
    digest = blake2b(digest_size=16)
    for array in (keys, offsets, log_probs):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _as_names(keys: NDArray[np.uint8]) -> NDArray[np.void]:
    """16 bytes as one sortable value. numpy ignores trailing zero bytes, which all names of one length survive."""
    return np.ascontiguousarray(keys).view("S16").reshape(-1)


def caches(root: Path) -> Iterable[Path]:
    """Every reference's folder under a cache root."""
    folder = root / "reference"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
