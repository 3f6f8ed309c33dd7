"""Arrays in files are the arrays that were put there."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignzoo.core.arrays import ArrayWriter, StringArray, mmap_safetensors, spill_to_disk
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


def test_what_is_no_safetensors_file_is_told(tmp_path):
    good = tmp_path / "good"
    save_file({"a": np.arange(3, dtype=np.int32)}, good)
    assert mmap_safetensors(good)["a"].tolist() == [0, 1, 2]
    bad = tmp_path / "bad"
    for raw in (b"", b"not a header", good.read_bytes()[:-1], (5).to_bytes(8, "little") + b"nulls"):
        bad.write_bytes(raw)
        with pytest.raises(BadFile):
            mmap_safetensors(bad)
