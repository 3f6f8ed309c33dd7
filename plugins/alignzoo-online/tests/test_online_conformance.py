"""The conformance kit on every objective, with defaults and other options."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from alignzoo_online import DAPO, GRPO, OBJECTIVES, PPO

from alignzoo.testing import run_checks

MORE = [
    DAPO(reduction="batch_tokens", overlong=4), GRPO(beta=0),
    PPO(target_kl=6.0, normalize_reward=True, reward_clip=5.0, dual_clip=3.0, value_clip=None, whiten=False,
        reduction="completion"),
]  # fmt: skip


@pytest.mark.parametrize("objective", [*(cls() for cls in OBJECTIVES), *MORE], ids=str)
def test_every_check_passes(objective):
    assert {name: problem for name, problem in run_checks(objective).items() if problem} == {}


@pytest.mark.parametrize("cls", OBJECTIVES, ids=lambda cls: cls.name)
def test_its_docstring_says_when_to_use_it_and_when_not(cls):
    assert all(f"\n    {heading}: " in cls.__doc__ for heading in ("When", "Not when"))
