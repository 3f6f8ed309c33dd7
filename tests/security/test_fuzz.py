"""A few hundred inputs that nobody means, the same ones each time. benchmarks/faults/fuzz.py takes many more."""

from __future__ import annotations

import fuzz_inputs as fuzz
import pytest
from hypothesis import HealthCheck, Phase, given, settings

NUMBERS = {"recipe": 120, "override": 80, "comparison": 15, "plugins": 15, "data": 90, "run": 6}
STRATEGIES = {"recipe": fuzz.recipes, "override": fuzz.overrides, "comparison": fuzz.comparisons, "plugins": fuzz.plugins,
              "data": fuzz.data, "run": fuzz.runs}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", NUMBERS)
def test_it_ends_well_or_with_a_message(kind, tmp_path):
    fuzz.workplace(tmp_path)
    codes = []

    @settings(
        max_examples=NUMBERS[kind], derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(STRATEGIES[kind]())
    def check(case):
        found = fuzz.outcome(case, tmp_path)
        assert not found.error, f"{found.error}: {case}\n{found.trace}"
        codes.append(found.code)

    check()
    assert 2 in codes  # mistakes were made
    good = fuzz.Case(kind, ("validate", "recipes/dpo_hh.yaml"))
    assert fuzz.outcome(good, tmp_path).code == 0  # and not everything was one


def test_a_traceback_is_noticed(tmp_path, monkeypatch):
    from alignzoo.core.door import marked_yaml

    def broken(*_):
        raise KeyError("nobody thought of this")

    fuzz.workplace(tmp_path)
    case = fuzz.Case("recipe", ("show", "recipes/dpo_hh.yaml"))
    assert fuzz.outcome(case, tmp_path) == fuzz.Outcome(0)
    monkeypatch.setattr(marked_yaml, "parse", broken)
    found = fuzz.outcome(case, tmp_path)
    assert found.error.startswith("KeyError at marked_yaml.py")
    assert "nobody thought of this" in found.trace
