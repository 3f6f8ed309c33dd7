"""For authors of objectives: what an objective sees, made from plain numbers, and a conformance kit.

from alignzoo.testing import ObjectiveTests

class TestMine(ObjectiveTests):
    objective = Mine(beta=0.2)
"""

from alignzoo.testing.factory import pair, scored
from alignzoo.testing.kit import CHECKS, ObjectiveTests, run_checks

__all__ = ["CHECKS", "ObjectiveTests", "pair", "run_checks", "scored"]
