"""Sums and modifiers as a recipe writes them: every spelling, every mistake at its place, and what makes two the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from zoo import OBJECTIVES

from alignzoo.cli.app import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.objectives.composition import Modified, Sum
from alignzoo.recipe.load import load_recipe

REST = """\
plugins: [catalogue.py]
model: {config: {model_type: llama}, tokenizer: {train: bytes}}
data: toy
train: {batch_size: 4, optimizer: {name: sgd, learning_rate: 1e-3}}
"""
"""Below the objective, so that an objective's first line is line 1."""


@pytest.fixture
def write(tmp_path):
    """`write(objective as YAML, name)`: a recipe that knows the catalogue."""
    (tmp_path / "catalogue.py").write_text("from alignzoo_zoo import register_modifiers, register_objectives\n")

    def go(objective: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(f"{objective}\n{REST}")
        return path

    return go


def objective_of(path, *arguments):
    return load_recipe(path, *arguments).recipe.objective


def message(path, *arguments) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(path, *arguments)
    return str(error.value)


# Spellings


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("objective: [dpo, sft]", "1 dpo(beta=0.1) + 1 sft(reduction=token)"),
        ("objective: [{name: dpo}, {name: sft, weight: 0.2}]", "1 dpo(beta=0.1) + 0.2 sft(reduction=token)"),
        ("objective: [{name: dpo, beta: 0.3, weight: 2}, sft]", "2 dpo(beta=0.3) + 1 sft(reduction=token)"),
        ("objective: [dpo]", "1 dpo(beta=0.1)"),
        ("objective: [dpo, {name: dpo, beta: 0.5}]", "1 dpo(beta=0.1) + 1 dpo(beta=0.5)"),
        ("objective: {name: dpo, modifiers: [margin]}", "dpo(beta=0.1) with margin"),
        ("objective: {name: dpo, modifiers: [{name: margin, value: 2}, label_smoothing]}", "dpo(beta=0.1) with margin with label_smoothing"),
        ("objective: {name: dpo, modifiers: []}", "dpo(beta=0.1)"),
        ("objective: [{name: dpo, modifiers: [length_normalization], weight: 3}, sft]", "3 dpo(beta=0.1) with length_normalization + 1 sft(reduction=token)"),
        ("objective: [{name: kto, beta: 0.2}, {name: ld_dpo, alpha: 0.1, modifiers: [wpo_weighting]}]", None),
    ],
)  # fmt: skip
def test_a_composition_is_read(write, written, shown):
    objective = objective_of(write(written))
    if shown:
        assert str(objective) == shown
    assert isinstance(objective, Sum) is written.startswith("objective: [")


def test_modifiers_stand_in_the_order_of_the_list_the_first_one_innermost(write):
    objective = objective_of(
        write("objective: {name: dpo, modifiers: [length_normalization, length_desensitization, label_smoothing]}")
    )
    assert isinstance(objective, Modified)
    assert [one.name for one in objective.modifiers] == [
        "length_normalization",
        "length_desensitization",
        "label_smoothing",
    ]


# Mistakes


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("objective: []", "1:1: objective: an empty list; expected at least one objective"),
        ("objective:\n- dpo\n- name: sft\n  weight: 0", "4:3: objective.1.weight: 0 is not a weight; expected a number above 0"),
        ("objective:\n- dpo\n- {name: sft, weight: -1}", "3:15: objective.1.weight: -1 is not a weight"),
        ("objective:\n- dpo\n- {name: sft, weight: much}", "3:15: objective.1.weight: 'much' is not a weight"),
        ("objective:\n- dpo\n- {name: sft, weight: .inf}", "3:15: objective.1.weight: inf is not a weight"),
        ("objective:\n- dpo\n- {name: sft, weight: .nan}", "3:15: objective.1.weight: nan is not a weight"),
        ("objective:\n- dpo\n- {name: sft, weight: true}", "3:15: objective.1.weight: True is not a weight"),
        ("objective:\n- dpo\n- {name: sft, weight: null}", "3:15: objective.1.weight: None is not a weight"),
        ("objective:\n- dpo\n- {name: sft, wieght: 1}", "3:15: objective.1.wieght: no such field; did you mean 'weight'?"),
        ("objective:\n- dpo\n- {name: sft, reduktion: token}", "3:15: objective.1.reduktion: no such field; did you mean 'reduction'?"),
        ("objective:\n- dpo\n- name: sft\n  reduction: tokens", "4:3: objective.1.reduction: 'tokens' is not an option; expected one of token, sequence; did you mean 'token'?"),
        ("objective:\n- dop", "2:3: objective.0.name: no objective is called 'dop'; did you mean 'dpo'?"),
        ("objective:\n- dpo\n- {name: stf}", "3:4: objective.1.name: no objective is called 'stf'; did you mean 'sft'?"),
        ("objective:\n- dpo\n- {beta: 0.1}", "3:3: objective.1.name: missing"),
        ("objective:\n- dpo\n- 3", "3:3: objective.1: a int; expected a name, or {name: ..., its fields}"),
        ("objective:\n- [dpo, sft]", "2:3: objective.0: a list; expected a name, or {name: ..., its fields}"),
        ("objective:\n- dpo\n- {name: sft, modifers: []}", "3:15: objective.1.modifers: no such field; did you mean 'modifiers'?"),
        ("objective: {name: dpo, modifer: [margin]}", "1:24: objective.modifer: no such field; did you mean 'modifiers'?"),
        ("objective: {name: dpo, weight: 0.5}", "1:24: objective.weight: no such field; expected one of beta, modifiers"),
        ("objective: {name: dpo, modifiers: 3}", "1:24: objective.modifiers: not a list; expected a list of modifiers"),
        ("objective: {name: dpo, modifiers: null}", "1:24: objective.modifiers: not a list"),
        ("objective:\n  name: dpo\n  modifiers:\n  - magrin", "4:5: objective.modifiers.0.name: no modifier is called 'magrin'; did you mean 'margin'?"),
        ("objective:\n  name: dpo\n  modifiers:\n  - margin\n  - {name: label_smoothing, epsilom: 0.1}", "5:29: objective.modifiers.1.epsilom: no such field; did you mean 'epsilon'?"),
        ("objective:\n  name: dpo\n  modifiers:\n  - {name: label_smoothing, epsilon: 0.5}", "4:29: objective.modifiers.0.epsilon: 0.5 is out of bounds; expected below 0.5"),
        ("objective:\n- dpo\n- name: dpo\n  modifiers:\n  - {name: margin, value: 0}", "5:20: objective.1.modifiers.0.value: 0 is out of bounds; expected above 0"),
        ("objective:\n  name: dpo\n  modifiers: [dpo]", "objective.modifiers.0.name: no modifier is called 'dpo'"),
        ("objective: [margin]", "objective.0.name: no objective is called 'margin'"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_at_its_place(write, written, said):
    assert said in message(write(written))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("objective: {name: kto, modifiers: [margin]}", "1:1: objective: margin applies to pair data, and kto takes unpaired"),
        ("objective: {name: simpo, modifiers: [length_normalization]}", "1:1: objective: length_normalization changes the log-ratio, and simpo has no reference"),
        ("objective:\n  name: aot\n  modifiers: [length_normalization]", "1:1: objective: length_normalization changes the log-ratio, which aot("),
        ("objective:\n- sft\n- name: ld_dpo\n  modifiers: [f_divergence]", "3:3: objective.1: f_divergence changes the log-ratio, which ld_dpo("),
        ("objective: {name: dpo, modifiers: [length_desensitization, length_normalization]}", "1:1: objective: length_normalization changes the log-ratio, which dpo(beta=0.1) with length_desensitization does not read"),
        ("objective: {name: ln_dpo, modifiers: [length_normalization]}", "1:1: objective: length_normalization is already part of ln_dpo"),
        ("objective: {name: ipo, log_ratio: mean, modifiers: [length_normalization]}", "1:1: objective: length_normalization is already part of ipo"),
        ("objective: {name: wpo, modifiers: [wpo_weighting]}", "1:1: objective: wpo_weighting is already part of wpo"),
        ("objective: {name: dpo, modifiers: [margin, margin]}", "1:1: objective: margin is listed twice"),
        ("objective: {name: dpo, modifiers: [label_smoothing, margin]}", "1:1: objective: margin must be the first modifier"),
        ("objective: {name: beta_dpo, modifiers: [label_smoothing]}", "1:1: objective: label_smoothing mixes the losses of single pairs, and beta_dpo has a loss of the batch"),
        ("objective: {name: bradley_terry, modifiers: [length_desensitization]}", "1:1: objective: length_desensitization reads log-probs, and bradley_terry trains a reward model"),
        ("objective: [dpo, bradley_terry]", "1:1: objective: one term trains a reward model and another a language model"),
        ("objective: [dpo, tr_dpo]", "1:1: objective: one term has a moving reference and another a frozen one"),
        ("objective: [tr_dpo, {name: tr_dpo, every: 9}]", "1:1: objective: two terms move the reference"),
        ("objective: [dpo, sft, dpo]", "1:1: objective: dpo(beta=0.1) is listed twice"),
        ("objective: [{name: dpo, weight: 2}, {name: dpo, beta: 0.1}]", "1:1: objective: dpo(beta=0.1) is listed twice"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_reported_when_the_recipe_is_read(write, written, said):
    assert f"recipe.yaml:{said}" in message(write(written))


def test_all_mistakes_of_a_composition_are_reported_at_once(write):
    written = "objective:\n- {name: dpo, beta: -1, weight: 0}\n- stf\n- {name: sft, modifiers: [magrin, {name: margin, valeu: 1}]}"
    said = [line for line in message(write(written)).splitlines() if "recipe.yaml" in line]
    assert [line.partition("recipe.yaml:")[2][:4] for line in said] == ["2:15", "2:25", "3:3:", "4:27", "4:50"]


# Layers


def test_a_list_replaces_a_list_and_a_name_and_a_name_replaces_a_list(write, tmp_path):
    base = write("objective: [dpo, {name: sft, weight: 0.2}]", "base.yaml")
    child = tmp_path / "child.yaml"
    for written, shown in [
        ("[ipo]", "1 ipo(beta=0.1, log_ratio=sum)"),
        ("{name: cdpo, beta: 0.4}", "cdpo(beta=0.4, label_smoothing=0.1)"),
        ("sft", "sft(reduction=token)"),
    ]:
        child.write_text(f"extends: base.yaml\nobjective: {written}\n")
        assert str(objective_of(child)) == shown
        overlay = tmp_path / "overlay.yaml"
        overlay.write_text(f"objective: {written}\n")
        assert str(objective_of(base, (), [overlay])) == shown
        assert str(objective_of(base, [f"objective={written}"])) == shown


def test_modifiers_of_an_extended_recipe_are_kept_until_the_name_changes(write, tmp_path):
    write("objective: {name: dpo, beta: 0.3, modifiers: [margin, label_smoothing]}", "base.yaml")
    child = tmp_path / "child.yaml"
    for written, shown in [
        ("{beta: 0.4}", "dpo(beta=0.4) with margin with label_smoothing"),
        ("{modifiers: [length_normalization]}", "dpo(beta=0.3) with length_normalization"),
        ("{modifiers: []}", "dpo(beta=0.3)"),
        ("{name: ipo}", "ipo(beta=0.1, log_ratio=sum)"),
    ]:
        child.write_text(f"extends: base.yaml\nobjective: {written}\n")
        assert str(objective_of(child)) == shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["objective.1.weight=0.5"], "1 dpo(beta=0.3) with margin + 0.5 sft(reduction=token)"),
        (["objective.0.beta=0.7", "objective.0.weight=2"], "2 dpo(beta=0.7) with margin + 0.2 sft(reduction=token)"),
        (["objective.0.modifiers=[]"], "1 dpo(beta=0.3) + 0.2 sft(reduction=token)"),
        (
            ["objective.0.modifiers.0=label_smoothing"],
            "1 dpo(beta=0.3) with label_smoothing + 0.2 sft(reduction=token)",
        ),
        (["objective.1=ipo"], "1 dpo(beta=0.3) with margin + 1 ipo(beta=0.1, log_ratio=sum)"),
    ],
)
def test_an_override_reaches_into_a_list_by_place(write, words, shown):
    path = write("objective: [{name: dpo, beta: 0.3, modifiers: [margin]}, {name: sft, weight: 0.2}]")
    assert str(objective_of(path, words)) == shown


def test_an_override_reaches_a_field_of_a_modifier(write):
    path = write("objective: [{name: dpo, modifiers: [margin]}, sft]")
    objective = objective_of(path, ["objective.0.modifiers.0.value=2.5", "objective.1.weight=3"])
    assert objective.parts[0].modifiers[0].value == 2.5
    assert objective.weights == (1.0, 3.0)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("objective.2.weight=1", "command line: objective.2.weight: objective is a list of 2; expected 0 or 1 in place of '2'"),
        ("objective.weight=1", "command line: objective.weight: objective is a list of 2; expected 0 or 1 in place of 'weight'"),
        ("objective.-1.weight=1", "objective is a list of 2"),
        ("objective.0.weight=0", "command line: objective.0.weight: 0 is not a weight"),
        ("objective.0.bta=1", "command line: objective.0.bta: no such field; did you mean 'beta'?"),
        ("objective.1.reduction.x=1", "reduction is a value, not a section"),
        ("train.optimizer.name.first=1", "train.optimizer.name is a value, not a section"),
    ],
)  # fmt: skip
def test_a_wrong_step_into_a_list_is_reported(write, word, said):
    path = write("objective: [dpo, {name: sft, reduction: token}]")
    assert said in message(path, [word])


def test_an_override_below_an_empty_section_is_no_traceback(write):
    path = write("objective: dpo\neval: null")
    assert load_recipe(path, ["eval.replies.num_prompts=2"]).recipe.eval.replies.num_prompts == 2
    assert "eval.replies.num_prompts: {'x': {'y': 2}} is not a whole number" in message(
        path, ["eval.replies.num_prompts.x.y=2"]
    )


# The same, or not


COMPOSED = [
    "objective: [dpo, {name: sft, weight: 0.2}]",
    "objective: {name: dpo, beta: 0.3, modifiers: [{name: margin, value: 2}, label_smoothing]}",
    "objective: [{name: dpo, modifiers: [length_normalization, length_desensitization]}, {name: kto, weight: 1e-3}, {name: f_dpo, divergence: js}]",
]


@pytest.mark.parametrize("written", COMPOSED)
def test_what_show_prints_is_a_recipe_with_the_same_fingerprint(write, tmp_path, written):
    path = write(written)
    done = CliRunner().invoke(alignzoo, ["show", str(path)])
    assert done.exit_code == 0, done.output
    again = tmp_path / "again" / "recipe.yaml"
    again.parent.mkdir()
    again.write_text(done.stdout)
    first, second = load_recipe(path), load_recipe(again)
    assert second.recipe.objective == first.recipe.objective
    assert second.fingerprint == first.fingerprint
    assert second.to_yaml() == first.to_yaml()


def test_origins_of_a_composition_say_who_wrote_it(write):
    path = write(COMPOSED[0])
    text = CliRunner().invoke(alignzoo, ["show", str(path), "--origins"]).output
    said = dict(line.split(": ", 1) for line in text.splitlines() if line.startswith("objective"))
    column = COMPOSED[0].index("weight: 0.2") + 1 + len("weight: ")
    value, origin = (part.strip() for part in said["objective.1.weight"].split("  # "))
    assert (value, origin) == ("0.2", f"{path}:1:{column}")
    assert said["objective.1.reduction"].endswith("# default")


SAME = [
    ("objective: [dpo, sft]", "objective: [{name: dpo, weight: 1}, {weight: 1.0, name: sft, reduction: token}]"),
    ("objective: {name: dpo}", "objective: {name: dpo, modifiers: []}"),
    ("objective: {name: dpo, modifiers: [margin]}", "objective: {modifiers: [{value: 1.0, name: margin}], beta: 0.1, name: dpo}"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_spellings_of_one_composition_have_one_fingerprint(write, one, other):
    assert load_recipe(write(one)).fingerprint == load_recipe(write(other)).fingerprint


def test_other_compositions_have_other_fingerprints(write):
    """The order of a sum's parts too: metrics speak of the first part's implicit reward."""
    written = [
        *COMPOSED, "objective: dpo", "objective: [dpo, sft]", "objective: [sft, dpo]", "objective: [dpo, {name: sft, weight: 0.3}]",
        "objective: [{name: dpo, weight: 0.2}, sft]", "objective: [dpo, {name: sft, reduction: sequence}]",
        "objective: {name: dpo, modifiers: [margin]}", "objective: {name: dpo, modifiers: [{name: margin, value: 2}]}",
        "objective: {name: dpo, modifiers: [margin, label_smoothing]}",
        "objective: {name: dpo, modifiers: [length_normalization, f_divergence]}",
        "objective: {name: dpo, modifiers: [f_divergence, length_normalization]}",
        "objective: {name: ln_dpo, beta: 0.1}", "objective: {name: dpo, modifiers: [length_normalization]}",
        "objective: [{name: dpo, modifiers: [margin]}, sft]", "objective: [dpo, {name: dpo, modifiers: [margin]}, sft]",
    ]  # fmt: skip
    prints = [load_recipe(write(one)).fingerprint for one in written]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.slow
def test_every_objective_can_be_written_in_a_sum(write, name):
    models = {each: {"path": "nowhere"} for each in OBJECTIVES[name].references}
    path = write(f"objective: [{{name: {name}, weight: 0.5}}]\nreferences: {models}")
    objective = objective_of(path)
    assert objective.terms[0][0] == 0.5
    assert yaml.safe_load(load_recipe(path).to_yaml())["objective"] == objective.to_recipe()


def test_one_modifier_metric_judge_or_reporter_needs_no_brackets():
    text = ["objective.modifiers=margin", "eval={metrics: entropy, judges: {name: toy}}", "reporters=html"]
    lists = ["objective.modifiers=[margin]", "eval={metrics: [entropy], judges: [{name: toy}]}", "reporters=[html]"]
    one, several = load_recipe("dpo_hh", text), load_recipe("dpo_hh", lists)
    assert one.plain == several.plain
    assert one.plain["objective"]["modifiers"] == [{"name": "margin", "value": 1.0}]


def test_a_run_with_another_objective_is_called_so(tmp_path):
    def name(*words, recipe="dpo_hh", overlays=()):
        return load_recipe(recipe, words, overlays).recipe.name

    assert name("objective=ipo") == "dpo_hh-ipo"
    assert name("objective.beta=0.2") == name("objective=dpo") == "dpo_hh"
    assert name("objective=[dpo, sft]") == "dpo_hh"
    assert name("objective=ipo", "name=mine") == "mine"
    (tmp_path / "over.yaml").write_text("objective: cdpo")
    assert name(overlays=[tmp_path / "over.yaml"]) == "dpo_hh-cdpo"
    assert load_recipe("dpo_hh", ["objective=ipo"]).start.recipe.name == "sft_hh"
