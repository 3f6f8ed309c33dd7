"""The built-in objectives, registered through the same hook as anybody's."""

from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.builtin.cdpo import CDPO
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.ipo import IPO
from alignzoo.objectives.builtin.sft import SFT


@hookimpl
def register_objectives() -> list[type[Objective]]:
    """Name the four of this package."""
    return [SFT, DPO, IPO, CDPO]
