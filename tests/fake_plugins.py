"""Plugins as somebody might write them, and what the registry says of those that are installed."""

from __future__ import annotations

from alignzoo.registry.lookup import Registry

GOOD = '''
from alignzoo import Field, Objective, hookimpl

class Mine(Objective):
    """A loss for a test."""
    name = "{name}"
    source = "nobody 2026"
    equation = "-h"
    beta: float = Field(0.1, gt=0, description="strength")

    def loss(self, pair):
        return -self.beta * pair.margin

@hookimpl
def register_objectives():
    return [Mine]
'''

REWARD_MODEL = '''
import torch
from alignzoo import Objective, hookimpl

class Ranks(Objective):
    """A reward model on pairs."""
    name = "ranks"
    data = "pair"
    head = "scalar"
    reference = "none"
    def loss(self, pair):
        return -torch.nn.functional.logsigmoid(pair.chosen.scalar - pair.rejected.scalar)

@hookimpl
def register_objectives():
    return [Ranks]
'''

MODIFIER = '''
from alignzoo import Field, Modifier, Objective, hookimpl

class Mine(Modifier):
    """A modifier for a test."""
    name = "{name}"
    source = "nobody 2026"
    equation = "log_ratio / 2"
    half: float = Field(0.5, gt=0, description="what is left")

    def scored(self, scored):
        return scored.with_log_ratio(self.half * scored.log_ratio)

@hookimpl
def register_modifiers():
    return [Mine]
'''


def problems() -> dict[str, str]:
    return {info.package: info.problem for info in Registry().plugins()}
