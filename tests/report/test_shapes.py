"""The curves of an objective are its formula and its derivative, at margins worth seeing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from zoo import OBJECTIVES

from alignzoo.interfaces.objective import Field, Objective
from alignzoo.report.loss_curves import OTHERS, POINTS, shape_of


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def shape(name):
    found = shape_of(name, OBJECTIVES[name])
    assert not found.problem, found.problem
    return found


def logistic(scale, gamma=0.0):
    """-log sigmoid(scale h - gamma), and its pull at both log-probs."""
    return (
        lambda h: np.log1p(np.exp(gamma - scale * h)),
        lambda h: scale * sigmoid(gamma - scale * h),
        lambda h: scale * sigmoid(gamma - scale * h),
    )


FORMULAS = {
    "dpo": (60, *logistic(0.1)),
    "ipo": (60, lambda h: (h - 5) ** 2, lambda h: 2 * (5 - h), lambda h: 2 * (5 - h)),
    "rso_hinge": (120, lambda h: np.maximum(0, 1 - 0.05 * h), lambda h: 0.05 * (h < 20), lambda h: 0.05 * (h < 20)),
    "simpo": (3, *logistic(2.0, gamma=1.0)),
    "ln_dpo": (3, *logistic(2.0)),
    "ld_dpo": (60, *logistic(0.1)),
    "tdpo2": (60, *logistic(0.1)),
    "pl_dpo": (60, *logistic(0.1)),
    "rpo": (60, lambda h: np.log1p(np.exp(-0.1 * h)) + 2 - h / 40, lambda h: 0.1 * sigmoid(-0.1 * h) + 0.05, lambda h: 0.1 * sigmoid(-0.1 * h)),
    "slic_hf": (6, lambda h: np.maximum(0, 1 - h) + 0.1 * (40 - h / 2), lambda h: 0.1 + (h < 1), lambda h: 1.0 * (h < 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_curves_are_the_papers_formula_and_its_derivative(name):
    end, loss, chosen, rejected = FORMULAS[name]
    found = shape(name)
    inner = np.abs(found.h - {"rso_hinge": 20, "slic_hf": 1}.get(name, 1e9)) > 1e-9  # a kink has two derivatives
    assert found.h[0] == pytest.approx(-end)
    assert found.h[-1] == pytest.approx(end)
    assert len(found.h) == POINTS
    assert found.losses["loss"] == pytest.approx(loss(found.h), rel=1e-6, abs=1e-9)
    assert found.pulls["chosen"][inner] == pytest.approx(chosen(found.h)[inner], rel=1e-6, abs=1e-9)
    assert found.pulls["rejected"][inner] == pytest.approx(rejected(found.h)[inner], rel=1e-6, abs=1e-9)


def test_a_reward_model_is_drawn_over_its_scores():
    found = shape("bradley_terry")
    assert found.axis == "difference of scores"
    assert found.losses["loss"] == pytest.approx(np.log1p(np.exp(-found.h)))
    assert found.pulls["rejected"] == pytest.approx(sigmoid(-found.h))


def test_single_completions_have_a_loss_for_each_label():
    found = shape("kto")
    assert found.axis == "log-ratio"
    assert found.losses["chosen"] == pytest.approx(sigmoid(-0.1 * found.h))
    assert found.losses["rejected"] == pytest.approx(sigmoid(0.1 * found.h))
    slope = 0.1 * sigmoid(0.1 * found.h) * sigmoid(-0.1 * found.h)
    assert found.pulls["chosen"] == pytest.approx(slope)
    assert found.pulls["rejected"] == pytest.approx(slope)


def test_sft_pulls_at_the_chosen_completion_alone():
    found = shape("sft")
    assert found.axis == "change of log-prob"
    assert set(found.pulls) == {"chosen"}
    assert found.pulls["chosen"] == pytest.approx(np.ones(POINTS))


def test_a_loss_of_the_batch_is_drawn_among_others():
    """Dr. DPO: a pair's pull is DPO's times its softmax weight, which is small where its loss is large."""
    found = shape("dr_dpo")
    right = sigmoid(0.1 * found.h)
    others = sigmoid(np.array(OTHERS)).sum()
    weight = 8 * right / (right + others)
    assert found.pulls["chosen"] == pytest.approx(weight * 0.1 * sigmoid(-0.1 * found.h))
    assert any("7 others" in note for note in found.notes)


def test_the_others_have_known_margins():
    """beta-DPO keeps six of eight pairs, those nearest to the mean: among margins of -3 to 3, one beyond is left out."""
    found = shape("beta_dpo")
    assert ((found.losses["loss"] > 0) == (np.abs(found.h) < 30)).mean() > 0.98


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_of_the_zoo_has_a_shape(name):
    found = shape(name)
    assert found.axis
    assert all(np.isfinite(curve).all() for curve in (*found.losses.values(), *found.pulls.values()))


SMOOTH = [
    name for name, cls in OBJECTIVES.items()
    if cls.scope == "example" and not cls.stop_gradient and cls.data in ("pair", "ranked") and cls.head == "language_model"
]  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_half_of_both_pulls_is_how_fast_the_loss_falls(name):
    """Both log-probs move by h / 2, so d loss / dh = -(pull + push) / 2; a kink lies within a step or two."""
    found = shape(name)
    middle = (found.h[1:] + found.h[:-1]) / 2
    falls = -np.diff(found.losses["loss"]) / np.diff(found.h)
    pulls = np.interp(middle, found.h, (found.pulls["chosen"] + found.pulls["rejected"]) / 2)
    off = np.abs(falls - pulls) / np.abs(pulls).max()
    assert np.quantile(off, 0.95) < 0.02


class Greedy(Objective):
    """Keeps the largest log-prob it was ever shown."""

    name = "greedy"
    reference = "none"
    beta: float = Field(0.001, gt=0)

    def loss(self, pair):
        """Shape (B,)."""
        SEEN.append(torch.maximum(pair.chosen.log_prob, pair.rejected.log_prob).max().item())
        return -(self.beta * (pair.chosen.log_prob - pair.rejected.log_prob))


class Referring(Greedy):
    """The same with a reference."""

    name = "referring"
    reference = "sequence"


SEEN: list[float] = []


@pytest.mark.parametrize(("cls", "end"), [(Greedy, 79), (Referring, 6000)])
def test_no_log_prob_is_above_zero(cls, end):
    """Without a reference the axis is shortened; with one the policy starts where there is room."""
    SEEN.clear()
    assert shape_of("it", cls).h[-1] == pytest.approx(end)
    assert max(SEEN) < 0


class Raises(Objective):
    """Broken."""

    name = "broken"

    def loss(self, pair):
        """Raises."""
        return pair.chosen.scalar


class Scalar(Raises):
    """Broken."""

    def loss(self, pair):
        """Not one a pair."""
        return pair.margin.mean()


class Nan(Raises):
    """Broken."""

    def loss(self, pair):
        """Not finite."""
        return pair.margin * float("nan")


class Asks(Raises):
    """Has no defaults."""

    target: float = Field()


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Raises, "scalar head"),
        (Scalar, "shape () for 3 examples"),
        (Nan, "not finite"),
        (Asks, "target has no default"),
    ],
)
def test_what_can_not_be_drawn_says_why(cls, said):
    assert said in shape_of("broken", cls).problem
