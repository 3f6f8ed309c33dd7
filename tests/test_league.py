"""The league has every objective that needs pairs alone, with equal budgets, and its page says what was found."""

from __future__ import annotations

import sys
from argparse import Namespace
from math import prod

import pytest
from checkout import ROOT
from measured import START, Runs, about
from zoo import OBJECTIVES

from alignzoo.cli.describe import have
from alignzoo.compare.spec import Comparison
from alignzoo.compare.table import build

sys.path.append(str(ROOT / "benchmarks"))  # after tests/, which has modules of the same names

import league
import ranked_table

ALL = Namespace(only=[], overlays=[], overrides=[], samples=None)


@pytest.fixture(scope="module")
def whole() -> dict:
    return league.league(ALL)


def test_it_has_every_objective_on_pairs_alone(whole):
    needs_pairs = {
        name for name, cls in OBJECTIVES.items()
        if have(cls) == "pairs" and cls.head == "language_model" and not cls.references and not cls.flags
    }  # fmt: skip
    assert set(whole["rows"]["objective"]) == needs_pairs | {"sft"}


def test_every_row_has_four_settings_that_its_objective_takes(whole):
    for name, own in whole["rows"]["objective"].items():
        grid = whole["grid"] | own
        assert prod(len(values) for values in grid.values()) == 4, name
        fields = {
            key.removeprefix("objective."): values for key, values in grid.items() if key.startswith("objective.")
        }
        for n in range(2):
            OBJECTIVES[name](**{key: values[n % len(values)] for key, values in fields.items()})


def test_it_is_a_comparison(whole):
    found = Comparison.model_validate(whole)
    assert (found.seeds, found.search_seeds, found.baseline) == (3, 1, "objective=dpo")


def test_the_rows_are_dealt_once(whole):
    parts = league.dealt(whole, 2)
    names = [name for part in parts for name in part["rows"]["objective"]]
    assert sorted(names) == sorted(whole["rows"]["objective"])
    assert abs(len(parts[0]["rows"]["objective"]) - len(parts[1]["rows"]["objective"])) <= 1
    assert len({part["name"] for part in parts}) == 2
    few = league.league(Namespace(**vars(ALL) | {"only": ["ipo"], "overrides": ["train.max_steps=2"], "samples": 4}))
    assert list(few["rows"]["objective"]) == ["dpo", "ipo"]
    assert (few["set"][-1], few["samples"]["prompts"]) == ("train.max_steps=2", 4)


def test_an_objective_that_is_no_row_is_named():
    with pytest.raises(SystemExit, match=r"no row of league\.yaml is called ipoo"):
        league.league(Namespace(**vars(ALL) | {"only": ["ipoo"]}))


def test_the_page_ranks_and_says_what_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(ranked_table, "WON", "gold.over_start")
    monkeypatch.setitem(ranked_table.FIGURES, "gold.over_start", "win rate over the start")
    runs = Runs(tmp_path)
    for name, accuracy, reward in (("sft", 0.55, 0.0), ("dpo", 0.9, 0.4), ("ipo", 0.9, 0.4), ("simpo", 0.3, -0.3)):
        for seed in range(3):
            runs.add(f"objective={name}", seed, objective=name, accuracy=accuracy, reward=reward, start=START)
    runs.fail("objective=cpo")
    table = build(about(baseline="objective=dpo"), runs.entries)
    rows = ranked_table.ranked_rows(table)
    ranks = {
        row["objective"]: (row["ranks"].get("gold.over_start"), row["ranks"].get("preference_accuracy")) for row in rows
    }
    assert ranks["dpo"] == ranks["ipo"] == (1, 1)
    assert ranks["simpo"][1] == 4
    text = ranked_table.markdown(table, rows, runs.entries)
    assert "`dpo` is distinguishable from `sft` at 95%" in text
    assert "no memory left" in text
    assert ranked_table.draw(rows).axes
