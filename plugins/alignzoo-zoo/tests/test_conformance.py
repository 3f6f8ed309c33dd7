"""alignzoo's conformance kit, on every objective with its defaults and with others, and on every modifier of DPO."""

from __future__ import annotations

import pytest
from alignzoo_zoo import MODIFIERS, OBJECTIVES
from cases import FIELDS

from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.composition import Modified
from alignzoo.testing import run_checks

OBJECTS = [cls(**fields) for cls in OBJECTIVES for fields in [{}, *FIELDS.get(cls.name, [])]]
MODIFIED = [Modified(inner=DPO(), modifiers=(cls(),)) for cls in MODIFIERS]


@pytest.mark.parametrize("objective", [*OBJECTS, *MODIFIED], ids=str)
def test_it_conforms(objective):
    assert {check: problem for check, problem in run_checks(objective).items() if problem} == {}
