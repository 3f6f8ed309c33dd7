"""A plugin written for former names is not loaded, and the error names the present one."""

from __future__ import annotations

import pytest
from fake_plugins import problems

from alignzoo.registry.renamed import RENAMED

HOOKS = {
    "Objective": "register_objectives", "Modifier": "register_modifiers", "DataSource": "register_data_sources",
    "Metric": "register_metrics", "Reporter": "register_reporters",
}  # fmt: skip
BODY = '''
from alignzoo import {base}, hookimpl

class Mine({base}):
    """Somebody's."""
    name = "mine"
    {line}
    def loss(self, *given): ...

@hookimpl
def {hook}(): return [Mine]
'''
CLASS_VARIABLES = {"detached": '"z0"', "random": "True", "includes": '("margin",)'}
CASES = [(base, old, new) for base, names in RENAMED.items() for old, new in names.items()]


@pytest.mark.parametrize(("base", "old", "new"), CASES, ids=lambda value: value)
def test_a_former_name_names_the_present_one(install, base, old, new):
    line = f"{old} = {CLASS_VARIABLES[old]}" if old in CLASS_VARIABLES else f"def {old}(self, *given): ..."
    install("alignzoo-old", BODY.format(base=base, line=line, hook=HOOKS[base]))
    said = problems()["alignzoo-old"]
    assert "renamed" in said
    assert f"{old}` was" in said or f"Mine.{old} was" in said
    assert said.endswith((f"Mine.{new}", f"`{new}`"))


def test_a_former_import_names_the_present_one(install):
    install("alignzoo-old", "from alignzoo import content_of")
    assert problems()["alignzoo-old"].endswith("`content_of` was renamed; expected `content_digest`")


def test_a_helper_beside_the_present_name_is_allowed(install):
    line = "def on_log(self, *given): ...\n    def line(self): ..."
    install("alignzoo-new", BODY.format(base="Reporter", line=line, hook=HOOKS["Reporter"]))
    assert problems() == {"alignzoo-new": ""}
