"""The best checkpoint is kept and exported, and training stops where nothing gets better."""

from __future__ import annotations

import json

import pytest
import torch
from jobs import bytes_of, unfinish
from safetensors.torch import load_file
from tiny_runs import evaluations, tiny, tiny_recipe

from alignzoo.compare.measure import measure
from alignzoo.compare.spec import Sampling
from alignzoo.core.console import Screen
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.evaluation.figures import for_testing
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.schema import TrainConfig
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.selection import Selection
from alignzoo.training.step import Engine

pytestmark = pytest.mark.usefixtures("no_fork")
BEST = ("train.keep_best=preference_accuracy", "eval.every=1", "train.checkpoint_every=3", "train.keep_checkpoints=1")
STOP = ("train.early_stopping={metric: loss, patience: 2}", "eval.every=1", "train.optimizer.learning_rate=0.3",
        "train.max_steps=30")  # fmt: skip


def config(**train) -> TrainConfig:
    return TrainConfig.model_validate({"optimizer": {"name": "sgd", "learning_rate": 1}} | train)


def fed(train: TrainConfig, metric: str, values: list[float | None]) -> tuple[Selection, list[bool]]:
    """A selection after a start at 0 and these values, and whether each was the best so far."""
    selection = Selection(train)
    lines = [{"kind": "eval", "step": n} | ({} if value is None else {f"validation_{metric}": value})
             for n, value in enumerate([0.0, *values])]  # fmt: skip
    return selection, [selection.add(line) for line in lines][1:]


@pytest.mark.parametrize(
    ("metric", "direction", "values", "better"),
    [
        (
            "preference_accuracy",
            None,
            [0.5, 0.7, 0.7, 0.6, 0.8],
            [True, True, False, False, True],
        ),  # the first of equals
        ("loss", None, [0.5, 0.7, 0.4], [True, False, True]),
        ("entropy", None, [2.0, 1.0, 3.0], [True, False, True]),
        ("entropy", False, [2.0, 1.0, 3.0], [True, True, False]),
        ("margin", None, [None, -1.0, None, 2.0], [False, True, False, True]),  # a value that was not finite
    ],
)
def test_the_best_step_by_a_figure(metric, direction, values, better):
    selection, found = fed(config(keep_best=metric, greater_is_better=direction), metric, values)
    assert found == better
    assert selection.best_step == len(better) - better[::-1].index(True)
    assert selection.about()["value"] == values[selection.best_step - 1]
    assert selection.about()["evaluations"] == len(values)


@pytest.mark.parametrize(
    ("delta", "values", "stopped"),
    [
        (0.0, [3.0, 2.0, 1.0], False),
        (0.0, [1.0, 2.0, 2.0], True),
        (0.0, [2.0, 3.0, 1.0, 3.0], False),  # an improvement starts the count again
        (0.5, [2.0, 1.7, 1.6], True),  # each too small
        (0.5, [2.0, 1.7, 1.4], False),  # together large enough: they count from the best
    ],
)
def test_stopping_waits_for_evaluations_without_an_improvement(delta, values, stopped):
    train = config(early_stopping={"metric": "loss", "patience": 2, "min_delta": delta})
    assert fed(train, "loss", values)[0].stopped is stopped


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_exported_and_reported(tmp_path):
    result = tiny(tmp_path, *BEST, "train.max_steps=8")
    chosen, lines = result.summary["selection"], evaluations(result)
    key = "validation_preference_accuracy"
    want = max(lines[1:], key=lambda line: line[key])
    assert (chosen["step"], chosen["value"], chosen["evaluations"]) == (want["step"], want[key], 8)
    assert chosen["step"] < 8
    checkpoints = sorted(path.name for path in (result.folder / "checkpoints").iterdir())
    assert checkpoints == [f"step-{chosen['step']:06d}", "step-000008"]
    best, last = (load_file(result.folder / "checkpoints" / name / "model.safetensors") for name in checkpoints)
    policy = load_file(result.policy / "model.safetensors")
    assert all(torch.equal(policy[name], best[name]) for name in policy)
    assert not all(torch.equal(policy[name], last[name]) for name in policy)
    assert result.summary["eval"]["preference_accuracy"] == want["preference_accuracy"]
    assert result.summary["train"]["evaluation_seconds"] > 0


@pytest.mark.slow
def test_the_figure_is_that_of_the_validation_half_alone(tmp_path):
    """A comparison tests on the other half, which must choose nothing."""
    result = tiny(tmp_path, *BEST, "train.max_steps=1")
    last = evaluations(result)[-1]
    rows = [json.loads(line) for line in next((tmp_path / "cache" / "tokens").rglob("held_out.jsonl")).open()]
    test = for_testing([row["group"] for row in rows])
    assert 0 < test.sum() < len(test)
    resolved = load_recipe(tmp_path / "tiny.yaml", [*BEST, "train.max_steps=1"])
    found = measure(resolved, result.folder, Sampling(prompts=0), (), None, Screen(quiet=True)).examples
    accuracy = found["preference_accuracy"]
    assert last["validation_preference_accuracy"] == pytest.approx(accuracy[found["test"] < 0.5].mean())
    assert accuracy[found["test"] < 0.5].mean() != accuracy[found["test"] > 0.5].mean()


@pytest.mark.slow
def test_training_stops_early_and_the_start_again_does_nothing(tmp_path, monkeypatch):
    result = tiny(tmp_path, *STOP)
    chosen, train = result.summary["selection"], result.summary["train"]
    assert chosen["stopped_early"]
    assert train["steps"] == chosen["step"] + 2 < 30
    assert train["pairs"] == 4 * train["steps"]
    want = bytes_of(result.folder)
    (result.folder / "summary.json").unlink()  # as if it had been killed before it was written
    monkeypatch.setattr(Engine, "step", lambda *_: pytest.fail("a step after the end"))
    assert tiny(tmp_path, *STOP).summary["selection"] == chosen
    assert bytes_of(result.folder) == want


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["nothing", "the best checkpoint"])
def test_a_resumed_run_chooses_the_same(tmp_path, lost):
    """The choice follows from the records. Without its weights the run goes back to before them."""
    options = (*BEST, "train.keep_optimizer=true", "train.max_steps=8", "train.keep_checkpoints=9")
    result = tiny(tmp_path, *options)
    want, best = bytes_of(result.folder), result.summary["selection"]["step"]
    unfinish(result.folder, max(best, 6))
    if lost != "nothing":
        (result.folder / "checkpoints" / f"step-{best:06d}" / "model.safetensors").write_bytes(b"")
        assert any(int(path.name[5:]) > best for path in (result.folder / "checkpoints").glob("step-*"))
    again = tiny(tmp_path, *options)
    assert bytes_of(again.folder) == want
    assert again.summary["selection"] == result.summary["selection"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.keep_best=preference_accuracy"], "train.keep_best: nothing is evaluated during training; expected eval.every"),
        (["train.keep_best=acuracy", "eval.every=1"], "evaluations have no figure 'acuracy'"),
        (["train.keep_best=preference_acuracy", "eval.every=1"], "did you mean 'preference_accuracy'?"),
        (["train.keep_best=other/loss", "eval.every=1"], "no evaluation set is called 'other'"),
        (["train.early_stopping={patience: 2}", "eval.every=1"], "train.early_stopping: no figure is named to stop by"),
        (["train.early_stopping={patience: 0, metric: loss}", "eval.every=1"], "train.early_stopping.patience"),
        (["train.greater_is_better=true"], "train.greater_is_better: no figure chooses the checkpoint"),
        (["train.greater_is_better=true", "train.keep_best=margin", "eval.every=1", "train.early_stopping={metric: loss}"],
         "it can't be of both margin and loss"),
    ],
)  # fmt: skip
def test_a_figure_that_nothing_gives_is_an_error_before_the_run(tmp_path, overrides, words):
    with pytest.raises(UserError) as error:
        load_recipe(tiny_recipe(tmp_path), overrides)
    assert words in str(error.value)


def test_a_figure_that_the_data_does_not_give_ends_the_run_before_its_first_step(tmp_path):
    with pytest.raises(RunFailed, match="have no figure 'chosen_log_ratio' to choose by; it has loss, chosen_reward"):
        tiny(tmp_path, "objective=sft", "train.keep_best=chosen_log_ratio", "eval.every=1")


def test_rows_to_choose_by_are_needed(tmp_path):
    with pytest.raises(UserError, match="keep_best: loss: the held-out part of the data has no rows"):
        tiny(tmp_path, "train.keep_best=loss", "eval.every=1", "data.held_out_fraction=0")


def test_choosing_changes_the_run_and_the_defaults_do_not(tmp_path):
    path = tiny_recipe(tmp_path)
    plain = folder_of(load_recipe(path)).path
    assert folder_of(load_recipe(path, ["eval.every=3"])).path == plain
    best = ["train.keep_best=loss", "eval.every=3"]
    other = folder_of(load_recipe(path, best)).path
    assert other != plain
    assert folder_of(load_recipe(path, [*best, "eval.every=2"])).path != other  # the evaluations are read
