"""`alignzoo validate --exactness`: the figures of the given model on the given data."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from alignzoo.cli.validate import command
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training import policy
from alignzoo.training import row_scores as score

SMALL = ["--with", "recipes/scale/smallest.yaml", "data.max_train_rows=24", "data.held_out_rows=8"]


@pytest.mark.slow
def test_the_figures_are_those_of_the_models_own_forward(monkeypatch):
    done = CliRunner().invoke(command, ["sft_hh", *SMALL, "--exactness", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)[-1]["exactness"]
    assert found["rows"] >= 8
    assert 0 < found["difference"] < found["limit"] == 1e-3
    assert not found["over"]
    forward = policy.Scorer.forward
    monkeypatch.setattr(policy, "choose_layout", lambda scorer, *_: score_layout(scorer))
    monkeypatch.setattr(policy.Scorer, "forward", lambda *given: {"log_prob": forward(*given)["log_prob"] + 0.25})
    output = CliRunner().invoke(command, ["sft_hh", *SMALL, "--exactness"], catch_exceptions=False).stdout
    assert "exactness   at most 0.25 nats a token from the model's own forward (limit 0.001; " in output
    assert "scored token" in output


def score_layout(scorer):
    from alignzoo.scoring.layout import Layout

    scorer.layout = "plain"
    return Layout("plain", "as asked")


def test_a_start_that_is_not_there_yet_is_a_sentence():
    with pytest.raises(UserError, match="the run of sft_hh is not finished, and its policy is the model to check"):
        score.exactness_figures(load_recipe("dpo_hh", [], ["recipes/scale/smallest.yaml"]), Screen(quiet=True))
