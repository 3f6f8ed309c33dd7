"""Every worker collects the same tests, whatever its hash seed, clock and temporary folder."""

from __future__ import annotations

import pytest
from collected import ROOT, collect

LONGEST = 400
"""Characters of an id. A longer one holds data, which belongs into the test."""


def test_ids_are_short_enough_to_read(request):
    assert [item.nodeid[:LONGEST] for item in request.session.items if len(item.nodeid) > LONGEST] == []


@pytest.mark.slow
def test_another_process_collects_the_same_tests(request, tmp_path):
    """Seeds 1 and, here, whatever this process drew; benchmarks/collection.py does it under twenty."""
    ours = [item.nodeid for item in request.session.items]
    paths = list(dict.fromkeys(str(item.path.relative_to(ROOT)) for item in request.session.items))
    known = set(ours)
    assert [name for name in collect(paths, 1, tmp_path) if name in known] == ours
