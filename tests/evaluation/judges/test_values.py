"""One rule for the values that a judge returns, in runs and in comparisons."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import torch

from alignzoo import Judge
from alignzoo.core.console import Screen
from alignzoo.evaluation.judging import PREFERENCE, SCORE, ask, run_judge, verdict_values
from alignzoo.interfaces.judge import Asked

LINES = [{"before": "a", "after": "bb", "chosen": "c"}, {"before": "dd", "after": "e", "chosen": ""}]
PROMPTS = ["p", "q"]


def judge_of(scores=None, prefers=None) -> Judge:
    """A judge that returns these values, whatever it is asked."""
    methods = {name: lambda self, *_, value=value: value for name, value in (("scores", scores), ("prefers", prefers)) if value is not None}  # fmt: skip
    return type("Fixed", (Judge,), {"name": "fixed", "__doc__": "Fixed values.", "__module__": __name__, **methods})()


@pytest.mark.parametrize(
    ("kind", "given", "found"),
    [
        (SCORE, [1, nan], [1.0, None]),
        (SCORE, [None, True], [None, 1.0]),
        (SCORE, np.array([2.5, -inf]), [2.5, None]),
        (SCORE, torch.tensor([inf, 3.0]), [None, 3.0]),
        (PREFERENCE, [0.5, 1], [0.5, 1.0]),
        (PREFERENCE, [1.5, -1], [None, None]),
        (PREFERENCE, (value for value in (0, 1)), [0.0, 1.0]),
    ],
)
def test_numbers_stay_and_all_else_is_no_verdict(kind, given, found):
    said: list[str] = []
    assert verdict_values(judge_of(), kind, given, 2, said.append) == found
    odd = any(value is None for value in found) and not any(value is None or value != value for value in given)
    assert len(said) == odd


@pytest.mark.parametrize(
    ("given", "problem"),
    [([1.0], "1 values for 2 replies"), ([1.0] * 3, "3 values for 2 replies"), (["A", "B"], "'A' is no number"),
     (3.0, "not iterable"), ([{}, {}], "must be a string or a real number")],
)  # fmt: skip
def test_anything_else_is_a_failure_of_the_judge_in_both(given, problem):
    judge = judge_of(given)
    assert problem in run_judge(judge, PROMPTS, LINES, Screen(quiet=True))["problem"]
    with pytest.raises((TypeError, ValueError), match=problem):
        ask(judge, Asked(PROMPTS, ["bb", "e"]), ["c", None], ["a", "dd"], print)


def test_runs_and_comparisons_have_the_same_verdicts():
    for judge in (judge_of([1.0, inf]), judge_of(prefers=[0.25, nan]), judge_of([nan, 2.0], [1.0, 7.0])):
        verdicts = ask(judge, Asked(PROMPTS, ["bb", "e"]), ["c", "c"], ["a", "dd"], lambda text: None)
        figures = run_judge(judge, PROMPTS, [line | {"chosen": "c"} for line in LINES], Screen(quiet=True))
        for key, name in (
            ("reward", "reward"),
            ("over_start", "win_rate_over_start"),
            ("over_chosen", "win_rate_over_chosen"),
        ):
            known = [one[key] for one in verdicts if one.get(key) is not None]
            if name in figures:
                assert (figures[name], figures[f"{name}_n"]) == (np.mean(known) if known else None, len(known))


def test_a_judge_that_exits_costs_its_own_figures():
    class Exits(Judge):
        """Exits."""

        name = "exits"

        def scores(self, prompts, replies):
            raise SystemExit(3)

    assert run_judge(Exits(), PROMPTS, LINES, Screen(quiet=True)) == {"problem": "SystemExit: 3"}
