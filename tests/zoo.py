"""The catalogue of plugins/alignzoo-zoo, which a checkout has whether it is installed or not."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "alignzoo-zoo"))

from alignzoo_zoo import MODIFIERS as ZOO_MODIFIERS
from alignzoo_zoo import OBJECTIVES as ZOO

from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.builtin import register_objectives
from alignzoo.objectives.composition import Modified
from alignzoo.objectives.modifiers import register_modifiers

OBJECTIVES = {cls.name: cls for cls in (*register_objectives(), *ZOO)}
MODIFIERS: dict[str, type[Modifier]] = {cls.name: cls for cls in (*register_modifiers(), *ZOO_MODIFIERS)}


def make(name: str, **fields: object) -> Objective:
    """An objective of ours or of the catalogue."""
    return OBJECTIVES[name](**fields)


def modified(objective: Objective | str, *modifiers: str | Modifier) -> Modified:
    """An objective with modifiers around it, the first one innermost; names stand for their defaults."""
    inner = make(objective) if isinstance(objective, str) else objective
    around = tuple(MODIFIERS[one]() if isinstance(one, str) else one for one in modifiers)
    return Modified(inner=inner, modifiers=around)
