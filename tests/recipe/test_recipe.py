"""Recipes: merging, origins, what needed runs inherit, and every mistake reported at its place."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from bad_recipes import GOOD, MISTAKES
from checkout import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignzoo.core.errors import UserError, nearest
from alignzoo.recipe.find import shipped_recipes
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.parse import parse


@pytest.fixture
def write(tmp_path):
    def go(text, name="recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False))
        return path

    return go


def message(path, *arguments) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(path, *arguments)
    return str(error.value)


NEED_A_PACKAGE = {*(ROOT / "recipes" / "zoo").glob("*.yaml"), *(ROOT / "recipes" / "online").glob("*_hh.yaml")} - {
    ROOT / "recipes" / "online" / f"{name}_hh.yaml" for name in ("dpo", "raft", "best_of_n")
}
"""`tests/plugins` has these, with the package installed."""


@pytest.mark.parametrize(
    "path",
    sorted(path for path in (ROOT / "recipes").rglob("*_hh.yaml") if path not in NEED_A_PACKAGE),
    ids=lambda path: path.stem,
)
@pytest.mark.parametrize("overlay", [None, "pythia-2.8b", "pythia-160m", "smallest", "lora"])
def test_every_shipped_recipe_is_good(path, overlay):
    above = {"lora": ["scale/pythia-160m", "scale/lora"]}.get(overlay, [f"scale/{overlay}"] if overlay else [])
    train = load_recipe(path, (), above).recipe.train
    if train.max_steps and overlay == "smallest":
        assert train.schedule.warmup_steps < train.max_steps / 2, "it would train next to nothing"


def test_the_papers_setting_is_the_papers():
    resolved = load_recipe("dpo_hh", (), ["scale/pythia-2.8b"])
    for part in (resolved.recipe, resolved.start.recipe):
        assert part.data.path == "Anthropic/hh-rlhf"
        assert part.train.batch_size == 64
        assert (part.train.optimizer.name, part.train.optimizer.learning_rate) == ("rmsprop", 1e-6)
        assert (part.train.schedule.name, part.train.schedule.warmup_steps) == ("constant", 150)
        assert (part.tokens.max_length, part.tokens.max_prompt_length) == (512, 256)
    assert resolved.recipe.objective.beta == 0.1
    assert resolved.start.recipe.model.path == "EleutherAI/pythia-2.8b"
    assert resolved.start.recipe.objective.name == "sft"


def test_adapters_are_given_by_an_overlay_to_every_run_and_by_a_bare_value_to_the_last():
    both = load_recipe("dpo_hh", (), ["scale/pythia-160m", "scale/lora"])
    assert both.recipe.model.lora.r == both.start.recipe.model.lora.r == 16
    last = load_recipe("dpo_hh", ["model.lora.r=4"])
    assert (last.recipe.model.lora.r, last.start.recipe.model.lora) == (4, None)
    plain = load_recipe("dpo_hh")
    assert last.start.fingerprint == plain.start.fingerprint
    assert len({one.fingerprint for one in (plain, last, load_recipe("dpo_hh", ["model.lora.r=8"]))}) == 3


def test_a_macs_gpu_is_a_sentence():
    with pytest.raises(UserError, match=r"train.device.*float64.*use cpu, which auto takes on a Mac"):
        load_recipe("sft_hh", ["train.device=mps"])


def test_yamls_traps_are_closed():
    assert parse("a: 5e-7", "x").plain() == {"a": 5e-7}
    assert parse("a: [1e3, -2E-1, .5e1]", "x").plain() == {"a": [1000.0, -0.2, 5.0]}
    with pytest.raises(UserError, match=r"x:3:1: 'a' is given twice \(first at line 1\)"):
        parse("a: 1\nb: 2\na: 3\n", "x")
    with pytest.raises(UserError, match="the key 'no' is read as False, not as text"):
        parse("no: 1", "x")
    with pytest.raises(UserError, match=r"x:1:5: not YAML"):
        parse("a: b: c", "x")


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system [ls]", "a: !mine 3", "a: *nothing", "{a: [}", "\t- a"]
)
def test_tags_and_broken_syntax_are_rejected_with_their_place(text):
    with pytest.raises(UserError, match=r"x:\d+:\d+: not YAML"):
        parse(text, "x")


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_every_mistake_is_reported_at_its_place(write, old, new, expected):
    text = yaml.safe_dump(GOOD, sort_keys=False)
    assert old in text
    path = write(text.replace(old, new, 1))
    said = message(path)
    assert expected in said
    line = 1 + text[: text.index(old)].count("\n")
    assert f"recipe.yaml:{line}:" in said or "missing" in expected or expected.split(":")[0] in ("tokens", "model")


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_lines(write):
    broken = copy.deepcopy(GOOD)
    broken["objective"]["beta"] = -1
    broken["train"]["batch_sise"] = broken["train"].pop("batch_size")
    broken["seed"] = "x"
    said = message(write(broken)).splitlines()
    assert len(said) == 3
    assert [int(line.split(":")[1]) for line in said] == sorted(int(line.split(":")[1]) for line in said)


def test_missing_sections_are_reported(write):
    said = message(write({"data": "hh"}))
    for name in ("objective", "model", "train"):
        assert f"{name}: missing" in said
    assert "objective: missing" in message(write(GOOD | {"objective": None}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the recipe is empty"),
        ("- a\n", "a recipe is a mapping of sections"),
        ("# only this\n", "the recipe is empty"),
    ],
)
def test_what_is_no_recipe_is_rejected(write, text, expected):
    assert expected in message(write(text))


def test_a_recipe_that_is_not_there_has_a_nearest_name(write, tmp_path):
    write(GOOD, "mine.yaml")
    assert "did you mean 'mine.yaml'?" in message(tmp_path / "mime.yaml")
    assert "did you mean 'dpo_hh.yaml'?" in message("recipes/dpo_h.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in message(tmp_path / "binary.yaml")


def test_extends_merges_maps_and_replaces_lists_and_named_nodes(write):
    write(GOOD, "base.yaml")
    child = write({"extends": "base.yaml", "objective": {"name": "ipo"}, "train": {"batch_size": 8, "optimizer": {"betas": [0.5, 0.5]}}}, "child.yaml")  # fmt: skip
    recipe = load_recipe(child).recipe
    assert recipe.objective.model_dump() == {"beta": 0.1, "log_ratio": "sum"}  # dpo's beta 0.2 is not inherited
    assert recipe.train.batch_size == 8
    assert recipe.train.optimizer.betas == (0.5, 0.5)
    assert recipe.train.optimizer.learning_rate == 1e-3
    assert recipe.name == "child"


def test_recipes_that_extend_each_other_are_reported(write):
    write("extends: b.yaml\n", "a.yaml")
    path = write("extends: a.yaml\n", "b.yaml")
    assert "recipes extend each other in a circle: b.yaml -> a.yaml -> b.yaml" in message(path)
    assert "no such recipe" in message(write("extends: c.yaml\n", "d.yaml"))


def test_recipes_that_start_from_each_other_are_reported(write):
    write(GOOD | {"model": {"from": "b.yaml"}}, "a.yaml")
    path = write(GOOD | {"model": {"from": "a.yaml"}}, "b.yaml")
    assert "recipes need each other's runs in a circle" in message(path)


def test_overlays_go_on_top_and_overrides_last(write):
    path, overlay = write(GOOD), write({"seed": 5, "train": {"batch_size": 16}}, "overlay.yaml")
    recipe = load_recipe(path, ["train.batch_size=32", "objective=ipo", "objective.beta=0.7"], [overlay]).recipe
    assert (recipe.seed, recipe.train.batch_size) == (5, 32)
    assert (recipe.objective.name, recipe.objective.beta) == ("ipo", 0.7)
    assert load_recipe(path, {"objective.beta": 5e-7}).recipe.objective.beta == 5e-7


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("objective.bta=1", "command line: objective.bta: no such field; did you mean 'beta'?"),
        ("seed", "'seed' is not an override; expected key=value"),
        ("seed.x=1", "seed.x: seed is a value, not a section"),
        ("=1", "'' is not a key"),
        ("train.epohcs=3", "train.epohcs: no such field; did you mean 'epochs'?"),
        ("objective={name: dpo", "command line: not YAML"),
    ],
)
def test_a_wrong_override_is_reported(write, override, expected):
    assert expected in message(write(GOOD), [override])


def test_origins_say_which_file_wrote_a_value(write, tmp_path):
    write(GOOD, "base.yaml")
    child = write("extends: base.yaml\nseed: 9\n", "child.yaml")
    origins = load_recipe(child, ["eval.every=7"]).origins
    assert str(origins["seed"]) == f"{child}:2:7"
    assert origins["objective.beta"].file == str(tmp_path / "base.yaml")
    assert str(origins["eval.every"]) == "command line"


def test_paths_are_relative_to_the_file_that_wrote_them(write, tmp_path, monkeypatch):
    data = tmp_path / "below" / "rows.jsonl"
    write(GOOD, "base.yaml")
    path = write("extends: ../base.yaml\ndata: {name: hh, path: ./rows.jsonl}\n", "below/child.yaml")
    monkeypatch.chdir("/")
    assert load_recipe(path).recipe.data.path == str(data)
    monkeypatch.chdir(tmp_path)
    data.write_text("{}")
    assert load_recipe(path, ["data.path=below/rows.jsonl"]).recipe.data.path == str(data)
    assert load_recipe(path, ["data.path=toy"]).recipe.data.path == "toy"
    assert load_recipe(path, ["data.path=[below/rows.jsonl, ./x*.gz]"]).recipe.data.path == (
        str(data), str(tmp_path / "x*.gz"),
    )  # fmt: skip


@pytest.mark.parametrize("node", ["data: {name: files, path: rows.jsonl}", "model: {path: rows.jsonl}"])
def test_nothing_is_read_from_the_working_directory_instead(write, tmp_path, monkeypatch, node):
    """transformers and datasets look there for what might be a hub id."""
    write(GOOD, "base.yaml")
    path = write(f"extends: ../base.yaml\n{node}\n", "below/child.yaml")
    (tmp_path / "rows.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    key = f"{node.partition(':')[0]}.path"
    with pytest.raises(UserError, match=f"child.yaml:2:.*: {key}: 'rows.jsonl' is in the working directory"):
        load_recipe(path)
    plain = load_recipe(path, [f"{key}=rows.jsonl"]).plain
    assert plain[key.partition(".")[0]]["path"] == str(tmp_path / "rows.jsonl")


def test_what_is_handed_on_to_the_recipe_a_run_starts_from(write):
    write(GOOD | {"objective": "sft"}, "start.yaml")
    child = write({key: value for key, value in GOOD.items() if key != "model"} | {"model": {"from": "start.yaml"}}, "child.yaml")  # fmt: skip
    overlay = write({"train": {"batch_size": 99}, "model": {"path": "org/name"}, "name": "big"}, "overlay.yaml")
    words = [
        "data.held_out_fraction=0.3",
        "tokens.max_length=100",
        "train.max_steps=5",
        "seed=8",
        "model.dtype=bfloat16",
    ]
    resolved = load_recipe(child, words, [overlay])
    mine, start = resolved.recipe, resolved.start.recipe
    assert start.objective.name == "sft"
    assert start.model.path == "org/name"
    assert start.model.config is None
    assert start.model.tokenizer is None
    assert mine.model.path is None
    assert mine.train.batch_size == start.train.batch_size == 99
    assert mine.data.held_out_fraction == start.data.held_out_fraction == 0.3
    assert mine.tokens.max_length == start.tokens.max_length == 100
    assert (mine.train.max_steps, start.train.max_steps) == (5, None)
    assert (mine.seed, start.seed) == (8, 1)
    assert mine.model.dtype == start.model.dtype == "bfloat16"
    assert (mine.name, start.name) == ("big", "start")


def test_a_first_policy_beside_a_run_to_start_from_is_reported(write):
    write(GOOD, "start.yaml")
    child = write(GOOD | {"model": {"from": "start.yaml", "path": "x/y"}}, "child.yaml")
    assert "model.path: it describes the first policy; move it to the recipe that model.from names" in message(child)


def test_an_unpackaged_plugin_is_named_by_the_recipe(write, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from alignzoo import Objective, hookimpl\n"
        "class Mine(Objective):\n    '''A loss.'''\n    name = 'mine'\n"
        "    def loss(self, pair):\n        return -pair.margin\n"
        "@hookimpl\ndef register_objectives():\n    return [Mine]\n"
    )
    path = write(GOOD | {"plugins": ["mine.py"], "objective": "mine"})
    first = load_recipe(path)
    assert first.recipe.objective.name == "mine"
    with open(tmp_path / "mine.py", "a") as file:
        file.write("# another loss now\n")
    assert load_recipe(path).fingerprint != first.fingerprint


def test_the_fingerprint_follows_what_the_result_depends_on(write, tmp_path):
    rows = write('{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b"}\n', "rows.jsonl")
    path = write(GOOD | {"data": {"name": "hh", "path": str(rows)}})
    first = load_recipe(path).fingerprint
    same = ["train.checkpoint_every=3", "train.keep_checkpoints=9", "name=other"]
    assert load_recipe(path, same).fingerprint == first
    ask = "eval.judges=[{name: chat, model: m, %s}]"
    asked = [load_recipe(path, [ask % more]).fingerprint for more in (
        "parallel: 8", "parallel: 3, timeout: 9, retries: 0, backoff: 2, key_env: null, base_url_env: OTHER",
        "temperature: 0.5",
    )]  # fmt: skip
    assert asked[0] == asked[1] != asked[2]
    for word in ("seed=2", "objective.beta=0.3", "train.batch_size=5", "data.label_noise=0.1", "tokens.max_length=99"):
        assert load_recipe(path, [word]).fingerprint != first
    moved = tmp_path / "elsewhere" / "rows.jsonl"
    moved.parent.mkdir()
    moved.write_bytes(rows.read_bytes())
    assert load_recipe(path, {"data.path": str(moved)}).fingerprint == first
    moved.write_bytes(rows.read_bytes() + b"\n")
    assert load_recipe(path, {"data.path": str(moved)}).fingerprint != first


def test_a_resolved_recipe_loads_to_itself(tmp_path):
    resolved = load_recipe("dpo_hh", ["objective.beta=0.3"], ["scale/smallest"])
    copy_ = tmp_path / "copy.yaml"
    copy_.write_text(resolved.to_yaml())
    again = load_recipe(copy_)
    assert again.recipe == resolved.recipe


def test_shipped_recipes_are_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    want = load_recipe(shipped_recipes() / "dpo_hh.yaml").path
    for name in ("dpo_hh", "dpo_hh.yaml", "recipes/dpo_hh.yaml"):
        assert load_recipe(name).path == want


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, child in value.items():
            yield (*path, key)
            yield from leaves(child, (*path, key))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from([path for path in leaves(GOOD) if path[:2] != ("model", "config")]),
    junk=st.one_of(
        st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3),
        st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    ),
    drop=st.booleans(),
)  # fmt: skip
def test_no_recipe_gives_a_traceback(place, junk, drop, tmp_path_factory):
    """Any value anywhere, or any key gone: a recipe or a UserError, never another exception."""
    broken = copy.deepcopy(GOOD)
    node = broken
    for key in place[:-1]:
        node = node[key]
    if drop:
        del node[place[-1]]
    else:
        node[place[-1]] = junk
    path = tmp_path_factory.mktemp("fuzz") / "recipe.yaml"
    path.write_text(yaml.safe_dump(broken))
    try:
        load_recipe(path)
    except UserError as error:
        assert all(problem.what for problem in error.problems)


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_no_text_gives_a_traceback(text):
    try:
        parse(text, "x")
    except UserError:
        pass


def test_the_nearest_spelling_is_really_near():
    assert nearest("epohcs", ["epochs", "eps"]) == "epochs"
    assert nearest("simpo", ["ipo", "dpo"]) == ""
    assert nearest("dop", ["dpo", "ipo"]) == "dpo"
