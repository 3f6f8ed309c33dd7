"""The objective of a recipe that trains nothing: one with `draw` in place of `objective`."""

from __future__ import annotations

from alignzoo.interfaces.objective import Objective


class NoTraining(Objective):
    """No loss. It reads prompts and needs no reference; no recipe names it."""

    name = "draw"
    data = "chosen"
    reference = "none"
