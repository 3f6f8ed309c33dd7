"""The headline compares like with like, in words that fit the rows of a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from alignzoo.registry.lookup import get_objective
from alignzoo.training.headline import IMPLICIT_REWARD, LOG_PROB, accuracy_of, headline, kind_of_rows, with_start

PAIRS = {"prompt": {}, "chosen": {}, "rejected": {}}
FIRST = {"kind": "eval", "step": 0, "n": 40, "loss": 0.69, "preference_accuracy": 0.5, "likelihood_accuracy": 0.6,
         "mine/loss": 0.7, "margin": 0.0}  # fmt: skip
LAST = FIRST | {"step": 8, "loss": 0.5, "preference_accuracy": 0.75, "preference_accuracy_se": 0.07,
                "likelihood_accuracy": 0.65, "mine/loss": 0.6, "margin": 0.2}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["chosen", "rejected"], "pairs"), (["rank_1", "rank_2", "rank_3"], "lists"), (["chosen"], "completions"),
        (["desirable", "undesirable"], "labels"), (["undesirable"], "labels"), ([], "rows"),
        (["chosen", "rejected", "rank_1", "rank_2", "rank_3"], "rows"),
    ],
)  # fmt: skip
def test_the_kind_of_rows(names, kind):
    assert kind_of_rows({name: {} for name in ["prompt", *names]}) == kind


def test_the_same_figure_stands_before_and_after():
    scores = with_start([FIRST, FIRST | {"step": 4}, LAST])
    accuracy, likelihood = headline(scores, {"rows": "pairs", "by": IMPLICIT_REWARD})
    assert (accuracy.key, accuracy.before, accuracy.after, accuracy.error) == ("preference_accuracy", 0.5, 0.75, 0.07)
    assert accuracy.words == (
        "0.500 before training, 0.750 after ± 0.070 (40 pairs, by the implicit reward; a tie counts one half)"
    )
    assert (likelihood.label, likelihood.before, likelihood.after) == ("by likelihood", 0.6, 0.65)
    assert scores["mine/loss_before"] == 0.7
    assert "margin_before" not in scores
    assert with_start([]) == {}


@pytest.mark.parametrize(
    ("rows", "label", "words"),
    [("labels", "held-out AUC", "labeled completions"), ("lists", "held-out accuracy", "ranked lists"),
     ("rows", "held-out accuracy", "40 rows")],
)  # fmt: skip
def test_the_words_fit_the_rows(rows, label, words):
    first = headline(with_start([FIRST, LAST]), {"rows": rows, "by": IMPLICIT_REWARD})[0]
    assert first.label == label
    assert words in first.about


def test_supervised_fine_tuning_leads_with_the_loss_and_has_one_accuracy():
    sft = SimpleNamespace(terms=[(1.0, get_objective("sft"))])
    of = accuracy_of(sft, PAIRS)
    assert of == {"rows": "pairs", "by": LOG_PROB}
    loss, accuracy = headline(with_start([FIRST, LAST]), of)
    assert (loss.label, loss.before, loss.after) == ("held-out loss", 0.69, 0.5)
    assert "by the log-prob" in accuracy.about
    assert accuracy_of(SimpleNamespace(terms=[(1.0, get_objective("dpo"))]), PAIRS)["by"] == IMPLICIT_REWARD


def test_an_unfinished_runs_figures_tell_what_orders_its_completions():
    same = {"chosen_reward": -190.5, "chosen_log_prob": -190.5}
    assert [one.key for one in headline(LAST | same, {"rows": "pairs"})] == ["loss", "preference_accuracy"]
    other = same | {"chosen_reward": 0.1}
    assert [one.key for one in headline(LAST | other, {"rows": "pairs"})] == [
        "preference_accuracy",
        "likelihood_accuracy",
    ]


def test_training_on_draws_leads_with_their_reward():
    drawn = {"drawn": 8.0, "reward": 0.3, "reward_se": 0.1}
    scores = with_start([FIRST | drawn, LAST | drawn | {"reward": 0.6}])
    reward = headline(scores, {"rows": "pairs", "by": IMPLICIT_REWARD})[0]
    assert reward.words == "0.300 before training, 0.600 after ± 0.100 (8 prompts)"


def test_a_figure_that_was_left_out_is_none():
    scores = with_start([FIRST, {key: value for key, value in LAST.items() if key != "preference_accuracy"}])
    assert [figure.key for figure in headline(scores, {})] == []
    assert headline({"preference_accuracy": None, "n": 3}, {})[0].words.startswith("none (3 rows")
