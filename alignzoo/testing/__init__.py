"""The conformance kit for plugin authors, and builders of loss inputs from plain numbers."""

from alignzoo.testing.builders import completions, group, pair, scored
from alignzoo.testing.kit import CHECKS, ObjectiveTests, run_checks
from alignzoo.testing.numerics import held_constant

__all__ = ["CHECKS", "ObjectiveTests", "completions", "group", "held_constant", "pair", "run_checks", "scored"]
