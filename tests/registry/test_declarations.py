"""Declarations that a class may not have: loading the plugin is an error that states the right one."""

from __future__ import annotations

import pytest
from fake_plugins import GOOD, MODIFIER, problems

from alignzoo.core.errors import UserError
from alignzoo.interfaces.requirements import contradiction
from alignzoo.registry.lookup import Registry


def with_lines(code: str, *lines: str) -> str:
    """The plugin with more in its class."""
    return code.format(name="mine").replace(
        '    name = "mine"\n', '    name = "mine"\n' + "".join(f"    {line}\n" for line in lines)
    )


SYNC = "def reference_update(self, step): return 1.0"
STATE = 'def initial_state(self): return {"mean": 0.0}'
NEXT = "def next_state(self, example): return {}"
CRITIC = ("head = 'value'", "data = 'group'", "tokens = True", "advantage_reads_log_probs = True")
RETURNS = "def returns(self, group): return group.completions.tokens.old_value"


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        (["reference = 'sequense'"], "`reference` can't be 'sequense'; it is one of none, sequence, token, live, moving"),
        (["data = 'pairs'"], "`data` can't be 'pairs'; it is one of pair, chosen, unpaired, ranked"),
        (["data = ('pair',)", "scope = None"], "`scope` can't be None; it is one of example, batch"),
        (["head = 'values'"], "`head` can't be 'values'; it is one of language_model, scalar, value"),
        (["head = 'value'", RETURNS], "`head = \"value\"` needs `data = \"group\"`, `tokens = True` and `advantage_reads_log_probs = True`"),
        ([*CRITIC], "`head = \"value\"` needs `returns`, and `returns` needs it"),
        ([*CRITIC[1:], RETURNS], "`head = \"value\"` needs `returns`, and `returns` needs it"),
        (["tokens = True", "statistics = ('entropi',)"], "`statistics` can't be 'entropi'; it is one of entropy, log_collision_prob, forward_kl, reverse_kl, ref_normalized_entropy, or a method of the class"),
        (["tokens = True", "statistics = ('model_dump',)"], "`statistics` can't be 'model_dump'"),
        (["named_reference = True", "reference = 'none'"], "`named_reference` needs a frozen `reference`"),
        (["tokens = True", "statistics = 'entropy'"], "`statistics = 'entropy'` is not a tuple; write `statistics = (\"...\",)`"),
        (["columns = 'score'"], "`columns = 'score'` is not a tuple"),
        (["statistics = ('entropy',)"], "`statistics` need `tokens = True`"),
        (["tokens = True", "statistics = ('forward_kl',)"], "the statistics \"forward_kl\", \"reverse_kl\" and \"ref_normalized_entropy\" need `reference = \"live\"`: a cache has no distributions"),
        (["reference = 'token'"], "`reference = \"token\"` needs `tokens = True`"),
        (["mismatched = True"], "`mismatched` needs `data = \"unpaired\"`"),
        (["data = 'ranked'", "scope = 'batch'"], "`scope = \"batch\"` needs lists of one length: not with `data = \"ranked\"`"),
        ([STATE], "a state needs `scope = \"batch\"` or `data = \"group\"`: it must not depend on micro-batches"),
        ([NEXT], "a state needs `scope = \"batch\"` or `data = \"group\"`: it must not depend on micro-batches"),
        (["data = 'chosen'", "scope = 'batch'", STATE], "a state needs an example that has one: not with `data = \"chosen\"`"),
        (["head = 'scalar'"], "a scalar head has no log-probs: `reference = \"none\"`, no `tokens`"),
        (["head = 'scalar'", "reference = 'none'", "tokens = True"], "a scalar head has no log-probs"),
            (["data = 'group'", "scope = 'batch'"], "`data = \"group\"` needs `scope = \"example\"`"),
        (["data = 'group'", "head = 'scalar'", "reference = 'none'"], "`data = \"group\"` needs a language model"),
        (['data = "chosen"', "given_chosen = True"], "`given_chosen` needs `data = \"pair\"`"),
        (["greedy_baseline = True"], "`greedy_baseline` need `data = \"group\"`"),
        ([SYNC], "`reference_update` needs `reference = \"moving\"`"),
        (["reference = 'moving'"], "`reference = \"moving\"` needs `reference_update`"),
        (["mismatched = True", SYNC], "`mismatched` needs `data = \"unpaired\"`; `reference_update` needs `reference = \"moving\"`"),
    ],
)  # fmt: skip
def test_an_objective_that_no_engine_can_serve_is_rejected(install, lines, rule):
    install("alignzoo-mine", with_lines(GOOD, *lines))
    found = problems()["alignzoo-mine"]
    assert found.startswith("Mine declares what can't be provided: ")
    assert rule in found
    with pytest.raises(UserError, match="alignzoo-mine was not loaded: Mine declares what can't be provided"):
        Registry().find("objective", "mine")


@pytest.mark.parametrize(
    "lines",
    [
        ["tokens = True", "statistics = ('entropy', 'log_collision_prob')"],
        ["reference = 'live'", "tokens = True", "statistics = ('forward_kl',)"],
        ["reference = 'moving'", SYNC, "tokens = True", "statistics = ('forward_kl',)"],
        ["tokens = True", "statistics = ('entropy', 'own')", "def own(self, log_pi, log_ref): return log_pi[:, 0]"],
        ["data = 'unpaired'", "mismatched = True", "scope = 'batch'", STATE, NEXT],
        ["data = 'ranked'", "columns = ('score', 'length')", "needs_uniform = True"],
        ["head = 'scalar'", "reference = 'none'", "scope = 'batch'", STATE],
        ["data = 'chosen'", "scope = 'batch'", "reference = 'none'"],
        [*CRITIC, RETURNS],
    ],
)
def test_what_can_be_served_is_loaded(install, lines):
    install("alignzoo-mine", with_lines(GOOD, *lines))
    assert problems() == {"alignzoo-mine": ""}


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        (["reference = 'tokens'"], "`reference` can't be 'tokens'"),
        (["data = ('pair', 'list')"], "`data` can't be 'list'; it is one of pair, chosen, unpaired, ranked"),
        (["reference = 'token'"], "`reference = \"token\"` needs `tokens = True`"),
        (["tokens = True", "statistics = ('forward_kl',)"], "the statistics \"forward_kl\", \"reverse_kl\" and \"ref_normalized_entropy\" need `reference = \"live\"`"),
        (["statistics = ('log_collision_prob',)"], "`statistics` need `tokens = True`"),
        (["columns = 'score'"], "`columns = 'score'` is not a tuple"),
    ],
)  # fmt: skip
def test_a_modifier_is_held_to_the_same(install, lines, rule):
    install("alignzoo-mine", with_lines(MODIFIER, *lines))
    assert rule in problems()["alignzoo-mine"]


def test_a_modifier_that_changes_nothing_is_rejected(install):
    code = MODIFIER.format(name="mine")
    install("alignzoo-mine", code.replace("def scored(", "def score("))
    assert "it changes nothing: override `scored`, `transform` or `loss`" in problems()["alignzoo-mine"]
    for method in ("transform(self, example, objective)", "loss(self, objective, example)"):
        name = method.partition("(")[0]
        install(
            f"alignzoo-{name}", code.replace("def scored(self, scored)", f"def {method}").replace('"mine"', f'"{name}"')
        )
        assert problems()[f"alignzoo-{name}"] == ""


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("code", [GOOD, MODIFIER], ids=["objective", "modifier"])
@pytest.mark.parametrize("field", ["weight", "modifiers"])
def test_a_field_that_means_something_else_in_a_recipe_is_rejected(install, code, field):
    install("alignzoo-mine", with_lines(code, f"{field}: float = Field(1.0, gt=0, description='x')"))
    assert f"Mine has a field '{field}', which is a reserved key of recipes" in problems()["alignzoo-mine"]


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("field", ["loss", "reference", "data", "scope", "columns", "reference_update", "terms"])
def test_a_field_that_hides_what_an_objective_is_is_rejected(install, field):
    """`data: str = Field("pair")` would be a hyper-parameter to pydantic and a declaration to the engine."""
    install("alignzoo-mine", with_lines(GOOD, f"{field}: float = Field(1.0, gt=0, description='x')"))
    assert (
        f"Mine has a field '{field}', which is no hyper-parameter but Objective.{field}" in problems()["alignzoo-mine"]
    )


def test_a_name_that_is_a_field_is_no_name(install):
    code = with_lines(GOOD).replace('name = "mine"', 'name: str = Field("mine", description="x")')
    install("alignzoo-mine", code)
    assert problems() == {"alignzoo-mine": "Mine.name is None; expected lower case letters, digits and underscores"}


def test_an_objective_without_a_loss_is_rejected(install):
    install("alignzoo-mine", with_lines(GOOD).replace("def loss(", "def los("))
    assert problems() == {"alignzoo-mine": "Mine declares what can't be provided: it has no `loss`"}


# Modifiers follow the same rules as objectives


def test_a_modifier_is_found_and_attributed(install):
    install("alignzoo-mine", MODIFIER.format(name="halved"))
    registry = Registry()
    cls = registry.find("modifier", "halved")
    assert registry.find("modifier", "alignzoo-mine/halved") is cls
    assert registry.origin(cls).package == "alignzoo-mine"
    assert registry.plugins()[0].offers == {"modifier": ["halved"]}
    with pytest.raises(UserError, match="no objective is called 'halved'"):
        registry.find("objective", "halved")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def register_modifiers()", "def register_modifier()", "hook register_modifier is unknown; did you mean 'register_modifiers'?"),
        ("def register_modifiers()", "def register_modifiers(objective)", "hook register_modifiers takes no argument 'objective'"),
        ("return [Mine]", "return Mine", "register_modifiers returned ModelMetaclass; expected a list of classes"),
        ("return [Mine]", "return [Mine()]", "which is not a subclass of Modifier"),
        ("return [Mine]", "return [Objective]", "register_modifiers returned <class 'alignzoo.interfaces.objective.Objective'>, which is not a subclass of Modifier"),
        ("return [Mine]", "return [Mine, type('Other', (Mine,), {'__doc__': 'x'})]", "modifier 'mine' is registered twice"),
        ("return [Mine]", "raise SystemExit(3)", "SystemExit in register_modifiers: 3"),
        ('"""A modifier for a test."""', "", "Mine has no docstring"),
    ],
)  # fmt: skip
def test_a_broken_modifier_is_reported_in_our_words(install, old, new, message):
    code = MODIFIER.format(name="mine")
    assert old in code
    install("alignzoo-broken", code.replace(old, new))
    assert message in problems()["alignzoo-broken"]
    assert Registry().find("modifier", "margin").__module__ == "alignzoo.objectives.modifiers.margin"
    with pytest.raises(UserError, match="alignzoo-broken was not loaded"):
        Registry().find("modifier", "mine")


def test_an_objective_and_a_modifier_may_share_a_name(install):
    both = GOOD.format(name="same") + MODIFIER.format(name="same").replace("class Mine", "class Other").replace(
        "[Mine]", "[Other]"
    )
    install("alignzoo-both", both)
    registry = Registry()
    assert registry.plugins()[0].offers == {"objective": ["same"], "modifier": ["same"]}
    assert registry.find("objective", "same") is not registry.find("modifier", "same")


def test_a_modifiers_name_is_qualified_by_its_package_and_a_built_in_is_never_shadowed(install):
    install("alignzoo-one", MODIFIER.format(name="same"))
    install("alignzoo-two", MODIFIER.format(name="same"))
    install("alignzoo-three", MODIFIER.format(name="margin"))
    registry = Registry()
    with pytest.raises(
        UserError, match="modifier 'same' is offered by 2 plugins; expected alignzoo-one/same or alignzoo-two/same"
    ):
        registry.find("modifier", "same")
    assert registry.find("modifier", "alignzoo-two/same").__module__ == "alignzoo_two_module"
    assert registry.find("modifier", "margin").__module__ == "alignzoo.objectives.modifiers.margin"
    assert registry.find("modifier", "alignzoo-three/margin").__module__ == "alignzoo_three_module"


def test_a_modifier_that_is_known_and_not_installed_names_its_package(install):
    with pytest.raises(UserError, match=r"no modifier is called 'length_desensitization'\n.*pip install alignzoo-zoo"):
        Registry().find("modifier", "length_desensitization")
    with pytest.raises(UserError, match="no modifier is called 'magrin'; did you mean 'margin'"):
        Registry().find("modifier", "magrin")


@pytest.mark.parametrize("kind", ["objective", "modifier"])
def test_every_built_in_can_be_served(kind):
    classes = Registry().known(kind).values()
    assert [contradiction(cls) for cls in classes] == [""] * len(classes)
    assert len(classes) >= 3
