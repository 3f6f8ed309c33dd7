"""The built-in objectives, registered through the same hook as anybody's."""

from alignzoo.hookspecs import hookimpl
from alignzoo.objective import Objective
from alignzoo.objectives.cdpo import CDPO
from alignzoo.objectives.dpo import DPO
from alignzoo.objectives.ipo import IPO
from alignzoo.objectives.sft import SFT


@hookimpl
def register_objectives() -> list[type[Objective]]:
    """Name the four of this package."""
    return [SFT, DPO, IPO, CDPO]
