from dataclasses import replace

import pytest
import torch
from alignzoo_diagnostics import CHES, Displaced, Flipped, RewardLengthGap

from alignzoo import Pair, get_objective
from alignzoo.testing import pair

DPO = get_objective("dpo", beta=0.5)
BATCH = pair(
    chosen=[-3.0, -9.0, -5.0], rejected=[-5.0, -6.0, -6.0],
    ref_chosen=[-6.0, -7.0, -4.0], ref_rejected=[-5.0, -8.0, -9.0],
    chosen_length=[4, 2, 3], rejected_length=[2, 6, 3],
)  # fmt: skip


def test_flipped():
    assert Flipped().values(BATCH, DPO).tolist() == [1.0, 0.0, 0.0]


def test_displaced():
    assert Displaced().values(BATCH, DPO).tolist() == [0.0, 1.0, 1.0]


def test_reward_length_gap():
    first, second, third = RewardLengthGap().values(BATCH, DPO).tolist()
    assert first == pytest.approx(0.5 * (3.0 - 0.0))
    assert second == pytest.approx(-0.5 * (-2.0 - 2.0))
    assert third != third


def test_ches():
    """<H_w, H_l> - |H_w|^2: 1 * 3 + 2 * 1 - (1 + 4), and with each H over its length (2 and 4)."""
    chosen, rejected = (
        replace(side, _hidden_sum=torch.tensor([states]))
        for side, states in zip(
            pair([-3.0], [-5.0], chosen_length=2, rejected_length=4).sides().values(),
            ([1.0, 2.0], [3.0, 1.0]),
            strict=True,
        )
    )
    one = Pair(chosen, rejected)
    assert CHES().values(one, DPO).tolist() == [0.0]
    assert CHES(normalized=True).values(one, DPO).tolist() == [5 / 8 - 5 / 4]
