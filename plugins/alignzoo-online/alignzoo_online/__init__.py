"""Online objectives for alignzoo, one small class each, on its public API."""

from alignzoo import Objective, hookimpl
from alignzoo_online.clipped import CISPO, DAPO, GRPO, GSPO, DrGRPO
from alignzoo_online.nash_md import NashMD
from alignzoo_online.ppo import PPO
from alignzoo_online.reinforce import REINFORCE, RLOO, ReMax
from alignzoo_online.reinforce_pp import ReinforcePP
from alignzoo_online.xpo import XPO

OBJECTIVES: list[type[Objective]] = [
    REINFORCE, RLOO, ReMax, GRPO, DrGRPO, DAPO, GSPO, CISPO, ReinforcePP, PPO, XPO, NashMD,
]  # fmt: skip


@hookimpl
def register_objectives() -> list[type[Objective]]:
    """Return all objectives of this package."""
    return OBJECTIVES
