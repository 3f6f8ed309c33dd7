"""The kill harness at a smaller size: benchmarks/faults/kills.py does every operation and a hundred random moments."""

from __future__ import annotations

import os

import pytest


def quiet(text: str, end: str = "") -> None:
    pass


@pytest.mark.slow
def test_killed_at_operations_on_the_disk_and_resumed_to_the_same_bytes(bench, tmp_path):
    from kills import every_operation

    tally = every_operation(tmp_path, 29, 1, quiet)
    assert tally.kills >= 15
    assert (tally.identical, tally.damaged, tally.left_over) == (tally.finished, 0, 0), tally.wrong


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_to_the_same_bytes(bench, tmp_path):
    from kills import random_moments

    tally = random_moments(tmp_path, 8, 0, quiet)
    assert tally.kills >= 8
    assert (tally.identical, tally.damaged, tally.left_over) == (tally.finished, 0, 0), tally.wrong


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
