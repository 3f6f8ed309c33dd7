"""Arrays in files are the arrays that were put there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignzoo.core import arrays
from alignzoo.core.arrays import (
    ArrayWriter,
    StringArray,
    in_parts,
    mmap_bytes,
    mmap_safetensors,
    spill_to_disk,
    write_safetensors,
)
from alignzoo.core.door import BadFile


def test_an_array_goes_to_disk_and_is_the_same(tmp_path):
    array = np.arange(12, dtype=np.float32)
    moved = spill_to_disk(array, tmp_path)
    assert np.array_equal(moved, array)
    assert moved.dtype == array.dtype
    assert isinstance(moved.base, np.memmap)
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    assert spill_to_disk(array, tmp_path / "nowhere") is array
    assert spill_to_disk(array[:0], tmp_path).size == 0


def test_a_spool_gives_back_what_was_appended_as_its_own_type(tmp_path):
    spool = ArrayWriter(tmp_path / "a", np.int32)
    for part in (np.arange(3), np.zeros(0), np.arange(9)[::2]):
        spool.append(part)
    assert spool.whole().tolist() == [0, 1, 2, 0, 2, 4, 6, 8]
    assert spool.whole().dtype == np.int32
    assert ArrayWriter(tmp_path / "b", np.int64).whole().tolist() == []


def test_texts_are_a_list_of_strings():
    want = ["a:1", "", "ü\u2028", "\ud800", "z"]
    texts = StringArray.of(want)
    assert texts == want
    assert texts != want[:-1]
    assert texts != [*want[:-1], "y"]
    assert list(texts) == want
    assert [texts[-1], texts[np.int64(2)]] == ["z", "ü\u2028"]
    assert [list(texts[1:3]), list(texts[3:1]), texts[::-1]] == [want[1:3], [], want[::-1]]
    for index in (5, -6):
        with pytest.raises(IndexError):
            texts[index]


def test_what_is_no_safetensors_file_is_reported(tmp_path):
    good = tmp_path / "good"
    save_file({"a": np.arange(3, dtype=np.int32)}, good)
    assert mmap_safetensors(good)["a"].tolist() == [0, 1, 2]
    bad = tmp_path / "bad"
    for raw in (b"", b"not a header", good.read_bytes()[:-1], (5).to_bytes(8, "little") + b"nulls"):
        bad.write_bytes(raw)
        with pytest.raises(BadFile):
            mmap_safetensors(bad)


def test_written_bytes_are_those_of_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "PART", 100)
    random = np.random.default_rng(0)
    given = {
        "ids": random.integers(0, 9, 1000).astype(np.int32), "keys": random.integers(0, 9, (33, 16)).astype(np.uint8),
        "cuts": np.arange(9), "none": np.zeros(0, np.int64), "a": random.random(77).astype(np.float32), "b": random.random(5),
        "every second": np.arange(60)[::2],
    }  # fmt: skip
    write_safetensors(tmp_path / "ours", given)
    save_file({name: np.ascontiguousarray(array) for name, array in given.items()}, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
def test_parts_of_a_mapped_array_are_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "PART", 2**20)
    path = tmp_path / "numbers"
    np.arange(2**22, dtype=np.int32).tofile(path)
    mapped = mmap_bytes(path).view(np.int32)[1:]  # a part ends amid a page
    assert [part[0] for part in in_parts(mapped)] == list(range(1, 2**22, 2**18))
    assert mapped.min() == 1
    assert resident(path) >= 2**24
    assert sum(int(part.sum()) for part in in_parts(mapped)) == sum(range(2**22))
    assert resident(path) < 2**20
    assert mapped[-1] == 2**22 - 1


def resident(path):
    """Bytes of a mapped file that are in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return next(
        1024 * int(line.split()[1])
        for start in lines
        if start.endswith(str(path))
        for line in lines
        if line.startswith("Rss")
    )
