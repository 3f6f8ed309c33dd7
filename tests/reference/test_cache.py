"""The cache gives back the bytes it was given, or says that it can't."""

from __future__ import annotations

import numpy as np
import pytest

from alignzoo.core.door import BadFile
from alignzoo.reference.cache import ReferenceCache, read_shard


def key(n: int) -> bytes:
    return bytes([n % 251]) * 8 + n.to_bytes(8, "little")  # ends in zeros, which numpy's byte strings ignore


def fill(folder, numbers):
    cache = ReferenceCache(folder)
    for n in numbers:
        cache.add(key(n), np.full(n % 5 + 1, -n / 7, np.float32))
    cache.flush()
    return cache


def test_scores_come_back_from_disk(tmp_path):
    fill(tmp_path, range(10))
    fill(tmp_path, range(10, 25))
    cache = ReferenceCache(tmp_path)
    assert len(cache) == 25
    places = cache.find([key(n) for n in (24, 0, 7, 99)])
    assert places[3] == -1
    for n, place in zip((24, 0, 7), places, strict=False):
        assert cache.get(place).tolist() == [np.float32(-n / 7)] * (n % 5 + 1)


def test_nothing_is_found_in_an_empty_cache(tmp_path):
    assert ReferenceCache(tmp_path / "new").find([key(1)]).tolist() == [-1]
    assert fill(tmp_path, [1]).find([]).tolist() == []


def test_keys_with_trailing_zeros_are_not_confused(tmp_path):
    cache = ReferenceCache(tmp_path)
    first, second = b"\1" + b"\0" * 15, b"\1\1" + b"\0" * 14
    cache.add(first, np.array([-1.0]))
    cache.add(second, np.array([-2.0]))
    cache.flush()
    assert [cache.get(place).item() for place in cache.find([second, first])] == [-2.0, -1.0]
    assert cache.find([b"\0" * 16]).tolist() == [-1]


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "empty", "garbage"])
def test_a_damaged_shard_is_set_aside_and_the_rest_is_kept(tmp_path, damage):
    fill(tmp_path, range(10))
    bad = next(tmp_path.glob("*.safetensors"))
    fill(tmp_path, range(10, 20))
    raw = bytearray(bad.read_bytes())
    if damage == "truncated":
        raw = raw[:-3]
    elif damage == "flipped bit":
        raw[-2] ^= 1
    elif damage == "empty":
        raw = bytearray()
    else:
        raw = bytearray(b"not a shard at all")
    bad.write_bytes(raw)
    with pytest.raises(BadFile):
        read_shard(bad)
    cache = ReferenceCache(tmp_path)
    assert [path.name for path in cache.damaged] == [bad.name]
    assert bad.with_suffix(".damaged").exists()
    assert (cache.find([key(n) for n in range(10)]) == -1).all()
    assert (cache.find([key(n) for n in range(10, 20)]) >= 0).all()


def test_the_same_scores_make_the_same_shard(tmp_path):
    fill(tmp_path / "a", range(5))
    fill(tmp_path / "b", range(5))
    names = [[path.name for path in sorted((tmp_path / x).iterdir())] for x in "ab"]
    assert names[0] == names[1]
    assert len(names[0]) == 1


def test_a_leftover_of_an_interrupted_write_is_ignored(tmp_path):
    fill(tmp_path, range(3))
    (tmp_path / ".half.safetensors.1-2.tmp").write_bytes(b"half a shard")
    assert len(ReferenceCache(tmp_path)) == 3


def test_two_writers_of_one_folder_keep_both_works(tmp_path):
    one, two = ReferenceCache(tmp_path), ReferenceCache(tmp_path)
    one.add(key(1), np.array([-1.0]))
    two.add(key(2), np.array([-2.0]))
    two.add(key(1), np.array([-1.0]))
    one.flush()
    two.flush()
    assert len(ReferenceCache(tmp_path)) == 2


def test_many_keys_are_found_as_a_dictionary_would(tmp_path, monkeypatch):
    """Wanted twice, kept twice, alike in their first half: an index in Python is the oracle."""
    monkeypatch.setattr("alignzoo.reference.cache.SHARD_ROWS", 50)
    random = np.random.default_rng(0)
    known = [bytes(random.bytes(16)) for _ in range(400)]
    known += [one[:8] + bytes(random.bytes(8)) for one in known[:100]]
    scores = {one: random.normal(size=random.integers(0, 6)).astype(np.float32) for one in known}
    cache = ReferenceCache(tmp_path)
    for one in [*known, *known[:60]]:
        cache.add(one, scores[one])
        if cache.full:
            cache.flush()
    cache.flush()
    cache = ReferenceCache(tmp_path)
    assert len(list(tmp_path.iterdir())) > 9
    assert len(cache) == 500
    wanted = [*known[::-1], *(bytes(random.bytes(16)) for _ in range(50)), *known[:7], known[0][:8] + b"8 others"]
    raw = np.frombuffer(b"-" + b"".join(wanted), np.uint8)[1:].reshape(-1, 16)  # as from a file, at an odd address
    for keys in (wanted, raw):
        places = cache.find(keys)
        assert [place >= 0 for place in places] == [one in scores for one in wanted]
        for one, place in zip(wanted, places, strict=True):
            if place >= 0:
                assert np.array_equal(cache.get(int(place)), scores[one])


def test_a_flush_reads_no_other_shard(tmp_path, monkeypatch):
    """A pass over a million rows flushes some hundred times; each may cost what the shard costs, and no more."""
    cache = fill(tmp_path, range(10))
    read = []
    monkeypatch.setattr("alignzoo.reference.cache.read_shard", lambda path: read.append(path) or read_shard(path))
    cache.add(key(11), np.array([-1.0]))
    cache.flush()
    assert len(read) == 1


def test_a_shard_stays_on_disk(tmp_path):
    cache = fill(tmp_path, range(10))
    for array in (cache._shards[0].keys, cache._shards[0].offsets, cache.get(int(cache.find([key(3)])[0]))):
        while array.base is not None and not isinstance(array, np.memmap):
            array = array.base
        assert isinstance(array, np.memmap)
