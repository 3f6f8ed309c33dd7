"""A field marked `NoEffect` is no part of a run's fingerprint, whichever component it belongs to."""

from __future__ import annotations

from typing import Annotated

from checkout import ROOT

from alignzoo import Field, NoEffect
from alignzoo.data.sources.hh import HH
from alignzoo.recipe.load import load_recipe

PLUGIN = '''
from typing import Annotated
from alignzoo import Field, Metric, Modifier, NoEffect, Objective, hookimpl

class Chunked(Objective):
    """A loss in chunks."""
    name = "chunked"
    chunk: Annotated[int, NoEffect] = Field(8, ge=1)
    scale: float = Field(1.0, gt=0)
    def loss(self, pair):
        return -self.scale * pair.margin

class Twice(Modifier):
    """Twice the log-ratio."""
    name = "twice"
    chunk: Annotated[int, NoEffect] = Field(8, ge=1)
    scale: float = Field(2.0, gt=0)
    def scored(self, scored):
        return scored.with_log_ratio(self.scale * scored.log_ratio)

class Margin(Metric):
    """The margin."""
    name = "own_margin"
    chunk: Annotated[int, NoEffect] = Field(8, ge=1)
    scale: float = Field(1.0, gt=0)
    def values(self, pair, objective):
        return self.scale * pair.margin

@hookimpl
def register_objectives():
    return [Chunked]

@hookimpl
def register_modifiers():
    return [Twice]

@hookimpl
def register_metrics():
    return [Margin]
'''


class Own(HH):
    """HH, read in chunks."""

    name = "own_hh"
    chunk: Annotated[int, NoEffect] = Field(8, ge=1)
    scale: float = Field(1.0, gt=0)


def test_another_value_of_a_marked_field_is_the_same_data():
    assert Own(chunk=3).fingerprint() == Own().fingerprint() != Own(scale=3).fingerprint()


def test_another_value_of_a_marked_field_is_the_same_run(tmp_path):
    (tmp_path / "own.py").write_text(PLUGIN)

    def fingerprint(**own: int) -> str:
        given = {
            "plugins": [str(tmp_path / "own.py")],
            "objective": {"name": "chunked", **own, "modifiers": [{"name": "twice", **own}]},
            "eval.metrics": [{"name": "own_margin", **own}],
            "filter": {"metric": {"name": "own_margin", **own}, "keep": 0.5},
        }
        return load_recipe(str(ROOT / "recipes" / "dpo_hh.yaml"), given).fingerprint

    plain = fingerprint()
    assert fingerprint(chunk=3) == plain
    assert fingerprint(scale=3) != plain
