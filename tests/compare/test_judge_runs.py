"""`alignzoo judge --run`: the accuracies of `alignzoo eval` on the same rows, best of N, and rows that were trained on."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from compare.test_eval_run import at, bytes_of, evaluated, made  # noqa: F401  (fixtures)

from alignzoo.cli import alignzoo as cli
from alignzoo.data.content import content_of
from alignzoo.data.row_reader import RowReader
from alignzoo.recipe.load import load_recipe

ENDS = ("mean", "low", "high", "n", "prompts")


def called(*options):
    """The report, and what was said on the way."""
    done = CliRunner().invoke(cli, ["judge", *map(str, options), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_runs_accuracies_are_those_of_an_evaluation(at, tmp_path):  # noqa: F811
    _, dpo, rm = at
    rows = [row for held_out, row in RowReader(load_recipe(dpo).recipe.data).used() if held_out]
    file = tmp_path / "mine.jsonl"
    records = [{"prompt": one.prompt, **dict(zip(("chosen", "rejected"), (c.text for c in one.completions), strict=True))}
               for one in rows]  # fmt: skip
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    before = bytes_of(dpo)
    report, _ = called(file, "--run", dpo, "--run", rm, "--judge", "length")
    assert bytes_of(dpo) == before
    judges = report["sets"]["mine"]["judges"]
    kinds = {"length": "scores", "dpo_hh": "implicit reward", "dpo_hh likelihood": "likelihood", "rm": "reward model"}
    assert {label: one["kind"] for label, one in judges.items()} == kinds
    wanted = {label: evaluated(run, "--data", file, "-o", tmp_path / "e.json")["sets"]["mine"]["figures"]
              for label, run in (("dpo_hh", dpo), ("rm", rm))}  # fmt: skip
    for label, want in (
        ("dpo_hh", wanted["dpo_hh"]["preference_accuracy"]),
        ("dpo_hh likelihood", wanted["dpo_hh"]["likelihood_accuracy"]),
        ("rm", wanted["rm"]["preference_accuracy"]),
    ):
        found = judges[label]["figures"]["accuracy"]
        assert [found[key] for key in ENDS] == pytest.approx([want[key] for key in ENDS]), label
    assert len(report["sets"]["mine"]["agreement"]) == 10  # of five parties


@pytest.mark.slow
def test_without_data_the_rows_are_those_that_the_run_held_out(at):  # noqa: F811
    _, dpo, _ = at
    source = load_recipe(dpo).recipe.data
    sides = {side: [content_of(row)[0] for held, row in RowReader(source).used() if held == side] for side in (0, 1)}
    report, said = called("--run", dpo, "--run", load_recipe(dpo).start.path.parent)
    assert report["split"] == "held_out"
    (found,) = report["sets"].values()
    assert found["rows"] == len(sides[1])
    common = len(set(sides[0]) & set(sides[1]))
    judges = found["judges"]
    assert list(judges) == ["dpo_hh", "dpo_hh likelihood", "sft_hh"]
    assert judges["sft_hh"]["kind"] == "likelihood"
    assert {one["trained_on"] for one in judges.values()} == {common}
    assert ("was trained on" in said) == (common > 0)
    report, said = called("--run", dpo, "--split", "train")
    (found,) = report["sets"].values()
    assert found["rows"] == len(sides[0])
    assert found["judges"]["dpo_hh"]["trained_on"] == len(set(sides[0]))
    assert f"warning: dpo_hh was trained on {len(set(sides[0]))} of the {len(set(sides[0]))} prompts of" in said


@pytest.mark.slow
def test_best_of_n_is_that_of_an_evaluation(at):  # noqa: F811
    root, dpo, rm = at
    report, _ = called(root / "lists.jsonl", "--run", dpo, "--run", rm)
    found = report["sets"]["lists"]["judges"]
    for label, run in (("dpo_hh", dpo), ("rm", rm)):
        want = evaluated(run, "--data", root / "lists.jsonl", "--best-of-n")["sets"]["lists"]["best_of_n"]
        assert {subset: one["mean"] for subset, one in found[label]["best_of_n"].items()} == pytest.approx(
            {subset: one["mean"] for subset, one in want.items()}
        )
        assert found[label]["best_of_n"]["Ties"]["parts"] == pytest.approx(want["Ties"]["parts"])
