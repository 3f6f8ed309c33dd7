"""The plan of a comparison, and the errors before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkout import ROOT

from alignzoo.compare.estimate import seconds_left
from alignzoo.compare.plan import finals, make_plan, points
from alignzoo.compare.spec import Comparison, read_comparison
from alignzoo.core.errors import UserError


def plan(*recipes: str, **fields):
    return make_plan(Comparison(recipes=recipes, overlays=("scale/smallest",), **fields))


def rejected(*recipes: str, **fields) -> str:
    with pytest.raises(UserError) as error:
        plan(*recipes, **fields)
    return str(error.value)


def test_points_are_every_combination():
    assert points({}) == [{}]
    assert points({"a": (1, 2), "b": ("x",)}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]


def test_every_recipe_gets_the_same_grid_and_seeds_and_the_start_is_one_run():
    found = plan("sft_hh", "dpo_hh", "ipo_hh", "cdpo_hh", seeds=3, grid={"objective.beta": (0.05, 0.1)})
    assert found.labels == ["sft_hh", "dpo_hh", "ipo_hh", "cdpo_hh"]
    assert len(found.jobs) == 1 + 3 * 2 * 3
    assert found.jobs[0].label == "sft_hh"  # what the others start from comes first
    assert (found.jobs[0].point, found.starts) == ({}, ())
    for label in ("dpo_hh", "ipo_hh", "cdpo_hh"):
        jobs = [job for job in found.jobs if job.label == label]
        assert {job.seed for job in jobs} == {0, 1, 2}
        assert {job.resolved.recipe.objective.beta for job in jobs} == {0.05, 0.1}
        assert {job.resolved.start.fingerprint for job in jobs} == {found.jobs[0].resolved.fingerprint}
    assert len({job.resolved.fingerprint for job in found.jobs}) == len(found.jobs)


def test_the_row_of_a_start_is_the_run_that_the_others_start_from():
    """An override of the steps reaches every recipe that is compared, and not the run that they start from."""
    found = plan("sft_hh", "dpo_hh", seeds=1, overrides=("train.max_steps=2",))
    start, other = (job.resolved for job in found.jobs)
    assert start.fingerprint == other.start.fingerprint
    assert (start.recipe.train.max_steps, other.recipe.train.max_steps) == (8, 2)


def test_a_start_that_is_no_row_is_run_all_the_same():
    found = plan("dpo_hh", "ipo_hh", seeds=1)
    assert [start.recipe.name for start in found.starts] == ["sft_hh"]


def test_what_starts_alike_is_scored_once(tmp_path):
    assert plan("sft_hh", "dpo_hh", "ipo_hh", seeds=2).reference_passes() == 1
    assert plan("sft_hh", seeds=2).reference_passes() == 0
    names = []
    for name in ("dpo", "ipo"):
        names.append(str(tmp_path / f"{name}.yaml"))
        drawn = f"extends: {ROOT}/recipes/dpo_hh.yaml\nobjective: {{name: {name}}}\n"
        drawn += "model: {from: null, config: {model_type: llama, hidden_size: 8}, tokenizer: {vocab_size: 300}}\n"
        Path(names[-1]).write_text(drawn)
    assert plan(*names, seeds=1).reference_passes() == 1, "from the same weights, without a run before"
    assert plan(*names, seeds=3).reference_passes() == 3, "other weights for each seed"


def test_a_key_that_a_recipe_lacks_gives_it_one_configuration():
    found = plan("dpo_hh", "cdpo_hh", seeds=1, grid={"objective.label_smoothing": (0.1, 0.2)})
    assert [job.label for job in found.jobs] == ["dpo_hh", "cdpo_hh", "cdpo_hh"]


def test_rows_are_rows_of_their_own_and_noise_leaves_the_start_alone():
    found = plan("dpo_hh", seeds=2, rows={"data.label_noise": (0.0, 0.3)}, allow_different_data=True)
    assert found.labels == ["label_noise=0.0", "label_noise=0.3"]
    assert len({job.resolved.start.fingerprint for job in found.jobs}) == 1
    assert [job.resolved.recipe.data.label_noise for job in found.jobs] == [0.0, 0.0, 0.3, 0.3]


def test_rows_of_several_recipes_have_their_recipes_name():
    found = plan("dpo_hh", "ipo_hh", seeds=1, rows={"objective.beta": (0.1, 0.2)})
    assert found.labels == ["dpo_hh (beta=0.1)", "dpo_hh (beta=0.2)", "ipo_hh (beta=0.1)", "ipo_hh (beta=0.2)"]


def test_a_row_may_have_a_grid_of_its_own(tmp_path):
    """It goes on top of the general one, whose keys that the row's recipe lacks are left out."""
    path = tmp_path / "own.yaml"
    path.write_text(
        f"recipes: [{ROOT}/recipes/dpo_hh.yaml]\nwith: [scale/smallest]\nseeds: 1\n"
        "grid: {train.optimizer.learning_rate: [0.001, 0.01]}\n"
        "rows: {objective: {dpo: {objective.beta: [0.1, 0.5]}, sft:, ipo: {objective.log_ratio: mean}}}\n"
    )
    found = make_plan(read_comparison(path)[1])
    tried = {label: [job.point for job in found.jobs if job.label == label] for label in found.labels}
    rates = [{"train.optimizer.learning_rate": rate} for rate in (0.001, 0.01)]
    assert tried["objective=sft"] == rates
    assert tried["objective=ipo"] == [rate | {"objective.log_ratio": "mean"} for rate in rates]
    assert tried["objective=dpo"] == [rate | {"objective.beta": beta} for rate in rates for beta in (0.1, 0.5)]
    assert {job.resolved.recipe.objective.name for job in found.jobs} == {"dpo", "sft", "ipo"}


def test_a_rows_own_grid_over_a_key_that_its_recipe_lacks_is_rejected():
    words = rejected("dpo_hh", rows={"objective": {"sft": {"objective.reductoin": ("token",)}}})
    assert (
        "rows, objective=sft: the recipe has no key 'objective.reductoin'; did you mean 'objective.reduction'?" in words
    )


def test_a_search_runs_few_seeds_and_the_chosen_points_get_the_rest():
    found = plan("sft_hh", "dpo_hh", "ipo_hh", seeds=3, search_seeds=1, grid={"objective.beta": (0.05, 0.1)})
    assert [(job.label, job.seed) for job in found.jobs if job.point] == [("dpo_hh", 0)] * 2 + [("ipo_hh", 0)] * 2
    assert found.later == 4
    more = finals(found, {"sft_hh": {}, "dpo_hh": {"objective.beta": 0.1}})
    assert [(job.label, job.point, job.seed) for job in more] == [
        ("dpo_hh", {"objective.beta": 0.1}, seed) for seed in (1, 2)
    ]


def test_a_row_without_a_choice_runs_all_seeds_at_once():
    found = plan("dpo_hh", seeds=3, search_seeds=1)
    assert ([job.seed for job in found.jobs], found.later, finals(found, {"dpo_hh": {}})) == ([0, 1, 2], 0, [])


def test_a_search_of_more_seeds_than_there_are_is_rejected():
    with pytest.raises(ValueError, match="search_seeds is 4, more than seeds, 3"):
        Comparison(recipes=("dpo_hh",), search_seeds=4)


@pytest.mark.parametrize(
    ("where", "given", "named"),
    [
        ("grid", {"objective.beta": ()}, "grid: 'objective.beta' has no values"),
        ("rows", {"objective.beta": ()}, "rows: 'objective.beta' has no values"),
        ("rows", {"objective": {"dpo": {"objective.beta": ()}}}, "'objective.beta' of 'objective: dpo' has no values"),
    ],
)
def test_a_key_without_values_is_rejected(where, given, named):
    with pytest.raises(ValueError, match=named):
        Comparison(recipes=("dpo_hh",), **{where: given})


def test_a_grid_over_a_key_that_does_not_exist_is_rejected_with_the_nearest():
    assert "grid: no recipe has the key 'objective.bta'; did you mean 'objective.beta'?" in rejected(
        "dpo_hh", grid={"objective.bta": (1,)}
    )


def test_a_value_that_a_recipe_refuses_is_its_error():
    assert "objective.beta: -1 is out of bounds; expected above 0" in rejected("dpo_hh", grid={"objective.beta": (-1,)})


def test_other_data_in_one_table_is_rejected_unless_it_is_allowed(tmp_path):
    other = tmp_path / "other_hh.yaml"
    other.write_text("extends: dpo_hh\ndata: {label_noise: 0.1}\nname: other\n")
    words = rejected("dpo_hh", str(other), seeds=1)
    assert "these recipes have different data or starts: dpo_hh; other_hh" in words
    assert "--allow-different-data" in words
    assert len(plan("dpo_hh", str(other), seeds=1, allow_different_data=True).jobs) == 2


def test_other_evaluation_sets_are_other_data_where_they_are_what_is_compared(tmp_path):
    def paths(held_out_rows: int) -> list[str]:
        found = [tmp_path / f"{name}.yaml" for name in ("first", "second")]
        for path, shape in zip(found, ("lists", "tools"), strict=True):
            path.write_text(
                f"extends: dpo_hh\ndata: {{held_out_rows: {held_out_rows}}}\n"
                f"eval: {{data: {{test: {{name: toy, shape: {shape}}}}}}}\n"
            )
        return list(map(str, found))

    assert len(make_plan(Comparison(recipes=paths(9), seeds=1)).jobs) == 2
    with pytest.raises(UserError, match="these recipes have different data or starts: first; second"):
        make_plan(Comparison(recipes=paths(0), seeds=1))


def test_two_rows_of_one_name_are_rejected(tmp_path):
    (tmp_path / "dpo_hh.yaml").write_text("extends: dpo_hh\n")
    assert "two recipes are named dpo_hh" in rejected("dpo_hh", str(tmp_path / "dpo_hh.yaml"))


def test_the_fingerprint_is_of_runs_and_measuring_not_of_where_files_are(tmp_path):
    (tmp_path / "dpo_hh.yaml").write_text("extends: dpo_hh\n")
    first, moved = plan("dpo_hh", seeds=2), plan(str(tmp_path / "dpo_hh.yaml"), seeds=2)
    assert first.fingerprint == moved.fingerprint
    assert plan("dpo_hh", seeds=3).fingerprint != first.fingerprint
    assert plan("dpo_hh", seeds=2, samples={"prompts": 3}).fingerprint != first.fingerprint


NEED_A_PACKAGE = ("league", "online")
"""Comparisons with objectives of plugins, which tests of their own read."""
SHIPPED = [path for path in sorted((ROOT / "recipes" / "compare").glob("*.yaml")) if path.stem not in NEED_A_PACKAGE]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_comparisons_are_good(path):
    _, comparison = read_comparison(path)
    found = make_plan(comparison)
    assert comparison.baseline in found.labels
    assert len(found.jobs) > 10


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("recipes: [dpo_hh]\nseed: 3", ":2:1: seed: no such field; did you mean 'seeds'?"),
        ("recipes: [dpo_hh]\nseeds: 0", ":2:1: seeds: 0 is out of bounds; expected at least 1"),
        ("recipes: []", ":1:1: recipes:"),
        ("recipes: [dpo_hh]\nsampling: {prompts: 3}", ":2:1: sampling: was renamed; expected samples"),
        ("recipes: [dpo_hh]\nsamples: {temperature: [0, x]}", ":2:28: samples.temperature.1: 'x' is not a number"),
        ("recipes: [dpo_hh]\nsamples: {temperature: [1, 1.0]}", ":2:11: samples.temperature: 1 is listed twice"),
        ("recipes: [dpo_hh]\nbest_of: [1, 4]", "best_of needs best_of_judge"),
        ("recipes: [dpo_hh]\nbest_of_judge: toy", "best_of_judge and best_of_rows need best_of"),
        ("recipes: [dpo_hh]\nbest_of: 4\nbest_of_judge: toy\nsamples: {temperature: 0}", "equal at temperature 0"),
        ("recipes: [dpo_hh]\nsamples: {promts: 3}", ":2:11: samples.promts: no such field; did you mean 'prompts'?"),
    ],
)
def test_a_mistake_in_a_file_is_reported_at_its_line(tmp_path, text, problem):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_comparison(path)
    assert problem in str(error.value)


def test_the_time_of_runs_on_draws_is_estimated_before_there_are_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path))
    found = make_plan(Comparison(recipes=("online/dpo_draws_hh",), seeds=1))
    assert found.starts
    seconds, basis = seconds_left(found)
    assert seconds > 0
    assert "made-up tokens" in basis
