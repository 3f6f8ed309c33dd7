"""The list of mutants fits the code, so that each of them can still be applied."""

from __future__ import annotations

from checkout import ROOT


def test_every_mutant_is_found_once_and_names_tests_that_exist(monkeypatch):
    """Mend benchmarks/mutants.yaml where it fails: the code or a test has another name now."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import mutants

    entries = mutants.read_entries()
    assert [f"{one.name}: {problem}" for one in entries if (problem := mutants.stale(one, ROOT))] == []
    assert {one.fault[0] for one in entries if one.fault} >= set("ABCDE")
