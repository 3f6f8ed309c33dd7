"""A reward that another recipe trains: its run is needed, counts in the fingerprint, and must be a reward model."""

from __future__ import annotations

import pytest
import yaml
from checkout import ROOT

from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe

KEY = "rollout.rewards.0.from"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """`write("rm.yaml", objective=...)`: a recipe with the objectives of the zoo, from the SFT run."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins" / "alignzoo-zoo"))
    (tmp_path / "zoo_file.py").write_text("from alignzoo_zoo import register_objectives\n")

    def go(name: str, **keys) -> str:
        recipe = {"extends": str(ROOT / "recipes/bases/hh_preference.yaml"), "plugins": ["zoo_file.py"], **keys}
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(recipe))
        return str(tmp_path / name)

    return go


def online(write, name: str = "top.yaml", run: str = "rm.yaml", **more) -> str:
    rollout = {"rewards": [{"name": "reward_model", "from": run}, {"name": "toy", "weight": 0}]}
    return write(name, objective="dpo", rollout=rollout, **more)


def test_the_run_is_needed_and_inherits_as_others_do(write):
    write("rm.yaml", objective={"name": "bradley_terry", "centering": 0.02})
    one = load_recipe(online(write), ["data.max_train_rows=64", "train.epochs=1"], ["scale/smallest"])
    assert list(one.needs) == ["model.from", KEY]
    need = one.needs[KEY].recipe
    assert (need.objective.name, need.rollout, need.data.max_train_rows, need.train.max_steps) == (
        "bradley_terry", None, 64, 8,
    )  # fmt: skip
    assert need.train.epochs == 2
    assert one.needs[KEY].start.fingerprint == one.start.fingerprint


def test_the_fingerprint_has_the_run_and_not_its_file(write, tmp_path):
    write("rm.yaml", objective="bradley_terry")
    top = online(write)
    before = load_recipe(top).fingerprint
    write("rm.yaml", objective={"name": "bradley_terry", "centering": 0.5})
    assert load_recipe(top).fingerprint != before
    (tmp_path / "rm.yaml").rename(tmp_path / "other.yaml")
    write("other.yaml", objective="bradley_terry")
    assert load_recipe(online(write, run="other.yaml")).fingerprint == before


def test_a_resolved_recipe_names_the_resolved_run(write, tmp_path):
    write("rm.yaml", objective="bradley_terry")
    one = load_recipe(online(write, eval={"judges": [{"name": "reward_model", "from": "rm.yaml"}]}))
    assert list(one.needs) == ["model.from", KEY, "eval.judges.0.from"]
    places = {"model.from": str(ROOT / "recipes/sft_hh.yaml")}
    places |= {key: str(tmp_path / "rm.yaml") for key in (KEY, "eval.judges.0.from")}
    (tmp_path / "again.yaml").write_text(one.to_yaml(places))
    assert load_recipe(tmp_path / "again.yaml").fingerprint == one.fingerprint


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("dpo", "rollout.rewards.0.from: rm trains a language model, which gives no scores; expected a recipe whose"),
        (
            {"name": "attribute_regression", "attributes": ["help", "truth"]},
            "rollout.rewards.0.label: rm trains 2 outputs; expected the one that is the score, of help, truth",
        ),
    ],
)
def test_a_run_that_gives_no_score_is_an_error(write, objective, words):
    write("rm.yaml", objective=objective)
    with pytest.raises(UserError) as error:
        load_recipe(online(write))
    assert words in str(error.value)


def test_a_circle_and_a_missing_recipe_are_errors(write):
    with pytest.raises(UserError, match=r"rm\.yaml"):
        load_recipe(online(write))
    online(write, "rm.yaml", run="top.yaml")
    with pytest.raises(UserError, match="recipes need each other's runs in a circle"):
        load_recipe(online(write))


def test_the_shipped_recipes_draw_as_many_completions(tmp_path, monkeypatch):
    """Those of compare/online; all but the start."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins" / "alignzoo-online"))
    (tmp_path / "groups.py").write_text("from alignzoo_online import register_objectives\n")
    spec = yaml.safe_load((ROOT / "recipes/compare/online.yaml").read_text())
    drawn = set()
    for path in spec["recipes"][1:]:
        recipe = load_recipe(ROOT / "recipes/compare" / path, {"plugins": [str(tmp_path / "groups.py")]}).recipe
        assert not recipe.objective.greedy_baseline
        prompts, more = divmod(recipe.train.max_steps * recipe.train.batch_size, recipe.rollout.epochs)
        assert not more
        drawn.add((prompts, recipe.rollout.completions))
    assert drawn == {(80 * 16, 8)}
