"""The built-in objectives, registered through the hook that plugins use."""

from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.builtin.cdpo import CDPO
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.ipo import IPO
from alignzoo.objectives.builtin.sft import SFT


@hookimpl
def register_objectives() -> list[type[Objective]]:
    """Return SFT, DPO, IPO and cDPO."""
    return [SFT, DPO, IPO, CDPO]
