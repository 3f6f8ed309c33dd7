"""A seeded slice of the kill harness: benchmarks/faults/kills.py does every operation of six commands."""

from __future__ import annotations

import os
import random

import pytest

SEED = int(os.environ.get("KILLS_SEED", "0"))


@pytest.mark.slow
def test_a_slice_of_the_kills_and_full_disks_ends_with_the_same_bytes(bench, tmp_path):
    """Two of each kind of fault at operations on the disk, and two kills at random moments."""
    from kills import HOWS, Tally, eligible, fault_at, operations_of, random_moments
    from scenarios import prepared

    dice = random.Random(SEED)
    (scenario,) = prepared(["DPO"], tmp_path)
    place = scenario.place(tmp_path / "place")
    seen = operations_of(scenario, place)
    tally = Tally()
    for how in HOWS:
        for n in dice.sample(eligible(seen, how), 2):
            fault_at(scenario, place, n, how, seen[n - 1], tally)
    at_random = random_moments(scenario, tmp_path, 2, SEED, print)
    assert tally.faults == 6
    assert at_random.faults >= 2
    for one in (tally, at_random):
        assert (one.wrong, one.identical) == ([], one.finished)


@pytest.mark.slow
def test_the_harness_sees_what_is_damaged(bench, tmp_path):
    """A test that can't fail proves nothing: each kind of artifact, damaged by hand, is found."""
    import shutil

    from crash import damaged, leftovers
    from stage import Workplace

    place = Workplace(tmp_path / "place", bench.whole.recipe)
    shutil.copytree(bench.whole.root, place.root)
    assert damaged(place) == []
    for pattern in (
        "runs/dpo*/checkpoints/*/model.safetensors", "cache/tokens/*/train.safetensors", "cache/reference/*/*.safetensors",
        "runs/dpo*/summary.json", "runs/dpo*/metrics.jsonl",
    ):  # fmt: skip
        path = next(place.root.glob(pattern))
        raw = path.read_bytes()
        path.write_bytes(raw[1:])
        assert len(damaged(place)) == 1, pattern
        path.write_bytes(raw)
    (place.runs / ".x.tmp").mkdir()
    assert leftovers(place) == ["runs/.x.tmp"]
    assert os.listdir(place.runs)
