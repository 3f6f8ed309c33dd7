"""For plugin authors: the conformance kit, and what an objective sees made from plain numbers."""

from alignzoo.testing.factory import completions, pair, scored
from alignzoo.testing.formula import held_constant
from alignzoo.testing.kit import CHECKS, ObjectiveTests, run_checks

__all__ = ["CHECKS", "ObjectiveTests", "completions", "held_constant", "pair", "run_checks", "scored"]
