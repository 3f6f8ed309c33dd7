"""Named references of a recipe: how they are written, what they need, and the mistakes that can be made with them."""

from __future__ import annotations

import shutil

import pytest
import yaml

from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe

PLUGIN = '''
from alignzoo import Metric, Objective, hookimpl

class Guided(Objective):
    """A loss with a guide."""
    name = "guided"
    references = ("guide",)
    def loss(self, pair):
        return -pair.margin * pair.chosen.ref("guide")

class Far(Metric):
    """The distance from a model."""
    name = "far"
    references = ("other",)
    def values(self, pair, objective):
        return pair.chosen.log_prob - pair.chosen.ref("other")

@hookimpl
def register_objectives():
    return [Guided]

@hookimpl
def register_metrics():
    return [Far]
'''
FIRST = {
    "objective": "sft", "data": {"name": "hh"},
    "model": {"config": {"model_type": "llama"}, "tokenizer": {"train": "bytes"}},
    "train": {"batch_size": 4, "optimizer": {"name": "sgd", "learning_rate": 1e-3}},
}  # fmt: skip
TOP = FIRST | {"plugins": ["mine.py"], "objective": "guided", "model": {"from": "sft.yaml"}}


@pytest.fixture
def write(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)

    def go(name: str, recipe: dict) -> str:
        (tmp_path / name).write_text(yaml.safe_dump(recipe))
        return str(tmp_path / name)

    go("sft.yaml", FIRST)
    go("dpo.yaml", FIRST | {"objective": "dpo", "model": {"from": "sft.yaml"}})
    return go


def test_a_reference_is_a_run_by_one_word_or_a_model_as_model_is_written(write, tmp_path):
    word = load_recipe(write("word.yaml", TOP | {"references": {"guide": "dpo.yaml"}}))
    assert word.needs["references.guide.from"].recipe.name == "dpo"
    assert word.needs["references.guide.from"].start.fingerprint == word.start.fingerprint
    node = load_recipe(write("node.yaml", TOP | {"references": {"guide": {"from": "dpo.yaml"}}}))
    assert node.fingerprint == word.fingerprint
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    model = load_recipe(write("path.yaml", TOP | {"references": {"guide": {"path": "model"}}}))
    assert model.recipe.references["guide"].path == str(tmp_path / "model")
    assert list(model.needs) == ["model.from"]


def test_the_written_recipe_reads_as_the_same(write, tmp_path):
    first = load_recipe(write("top.yaml", TOP | {"references": {"guide": "dpo.yaml"}}))
    (tmp_path / "again.yaml").write_text(first.to_yaml())
    assert load_recipe(tmp_path / "again.yaml").fingerprint == first.fingerprint
    shutil.copy(tmp_path / "dpo.yaml", tmp_path / "moved.yaml")
    (tmp_path / "again.yaml").write_text(first.to_yaml({"references.guide.from": "moved.yaml"}))
    moved = load_recipe(tmp_path / "again.yaml")
    assert moved.needs["references.guide.from"].path.name == "moved.yaml"


def test_the_fingerprint_has_every_reference_and_none_where_there_is_none(write, tmp_path):
    plain = load_recipe(tmp_path / "sft.yaml")
    assert plain.plain["references"] == {}
    two = load_recipe(write("two.yaml", TOP | {"references": {"guide": "dpo.yaml"}}))
    other = load_recipe(write("other.yaml", TOP | {"references": {"guide": "sft.yaml"}}))
    own = load_recipe(write("own.yaml", TOP | {"references": {"guide": "dpo.yaml", "reference": "dpo.yaml"}}))
    half = TOP | {"references": {"guide": {"from": "dpo.yaml", "dtype": "bfloat16"}}}
    found = {one.fingerprint for one in (plain, two, other, own, load_recipe(write("half.yaml", half)))}
    assert len(found) == 5
    write("dpo.yaml", FIRST | {"objective": {"name": "dpo", "beta": 0.3}, "model": {"from": "sft.yaml"}})
    assert load_recipe(tmp_path / "two.yaml").fingerprint != two.fingerprint


def test_a_layer_replaces_the_start_of_a_reference_and_a_needed_run_inherits_none(write, tmp_path):
    top = write("top.yaml", TOP | {"references": {"guide": "dpo.yaml"}})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    other = load_recipe(top, [f"references.guide.path={tmp_path / 'model'}"])
    assert (other.recipe.references["guide"].from_, list(other.needs)) == (None, ["model.from"])
    overlay = write("over.yaml", {"references": {"guide": "sft.yaml"}})
    laid = load_recipe(top, overlays=[overlay])
    assert laid.needs["references.guide.from"].recipe.name == "sft"
    assert all(need.recipe.references == {} for need in laid.needs.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "objective: guided reads the reference 'guide', which the recipe does not name; expected references: {guide: RECIPE}"),
        ({"references": {"giude": "dpo.yaml"}}, "did you mean 'giude'?"),
        ({"references": {"giude": "dpo.yaml", "guide": "dpo.yaml"}}, "references.giude: nothing reads this reference"),
        ({"references": {"guide": "dpo.yaml"}, "eval": {"metrics": ["far"]}}, "eval.metrics.0: far reads the reference 'other'"),
        ({"objective": "sft", "references": {"reference": "dpo.yaml"}}, "references.reference: nothing reads this reference; expected no references"),
        ({"references": {"guide": "nowhere.yaml"}}, "nowhere.yaml"),
        ({"references": {"guide": {"form": "dpo.yaml"}}}, "references.guide.form"),
        ({"references": {"guide": 3}}, "references.guide: 3 is no model; expected the recipe of a run, or {path: FOLDER}"),
        ({"references": {"guide": "dpo.yaml", "The Guide": "dpo.yaml"}}, "references.The Guide: is not a name"),
        ({"references": {"guide": {"from": "dpo.yaml", "lora": {"r": 4}}}}, "references.guide.lora: a reference is not trained"),
        ({"references": ["dpo.yaml"]}, "references"),
        ({"references": {"guide": "reward.yaml"}}, "references.guide: reward trains a reward model, which has no log-probs"),
    ],
)  # fmt: skip
def test_every_mistake_is_an_error_when_the_recipe_is_read(write, changes, said):
    write("reward.yaml", FIRST | {"plugins": ["reward.py"], "objective": "scores", "model": {"from": "sft.yaml"}})
    with pytest.raises(UserError) as error:
        load_recipe(write("top.yaml", TOP | changes))
    assert said in str(error.value)


@pytest.fixture(autouse=True)
def reward(tmp_path):
    (tmp_path / "reward.py").write_text('''
from alignzoo import Objective, hookimpl

class Scores(Objective):
    """A reward model."""
    name = "scores"
    head = "scalar"
    reference = "none"
    def loss(self, pair):
        return pair.rejected.scalar - pair.chosen.scalar

@hookimpl
def register_objectives():
    return [Scores]
''')
