"""From a recipe to a run folder: what is there, what is shared, and that the same run gives the same bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import alignzoo
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.training.records import read_lines


def bytes_of(result) -> dict[str, bytes]:
    return {
        "weights": (result.policy / "model.safetensors").read_bytes(),
        "metrics": (result.folder / "metrics.jsonl").read_bytes(),
        "samples": (result.folder / "samples.jsonl").read_bytes(),
    }


def test_a_run_leaves_everything_behind(run):
    result = run("recipes/dpo_hh.yaml", "reporters=html")
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary == result.summary
    assert summary["objective"] == {"name": "dpo", "beta": 0.1}
    assert summary["layout"]["used"] == "packed"  # the fast path, and no silent fallback
    assert summary["data"]["read"] == summary["data"]["used"] + summary["data"]["skipped"] + 5400 - 160
    assert {
        "preference_accuracy",
        "margin",
        "preference_accuracy_before",
        "likelihood_accuracy_before",
        "likelihood_accuracy",
    } <= set(summary["eval"])
    assert summary["train"]["pairs_per_second"] > 0
    assert summary["train"]["tokens_per_second"] > summary["train"]["pairs_per_second"]
    assert summary["reference"] == {"kind": "sequence", "rows_scored": 160, "rows_cached": 0}
    assert summary["peak_memory_bytes"] > 2**20
    assert summary["versions"]["alignzoo"] == alignzoo.__version__
    assert summary["layout"]["used"] == "packed"
    lines = read_lines(result.folder / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [0, 4, 8]
    assert (result.folder / "report.html").read_text().startswith("<!doctype html>")
    policy = AutoModelForCausalLM.from_pretrained(result.policy)
    tokenizer = AutoTokenizer.from_pretrained(result.policy)
    assert policy.get_input_embeddings().num_embeddings >= len(tokenizer)
    sample = read_lines(result.folder / "samples.jsonl")[0]
    assert sample["prompt"].startswith("\n\nHuman:")


@pytest.mark.slow
def test_the_reference_against_itself_is_a_tie(run):
    start = read_lines(run().folder / "metrics.jsonl")[0]
    assert (start["kind"], start["step"]) == ("eval", 0)
    assert start["preference_accuracy"] == 0.5
    assert start["margin"] == 0
    assert start["loss"] == pytest.approx(np.log(2))
    assert start["chosen_log_prob"] != start["rejected_log_prob"]


@pytest.mark.slow
def test_the_same_run_again_gives_the_same_bytes(again):
    first = bytes_of(again())
    assert bytes_of(again(fresh=True)) == first


@pytest.mark.slow
def test_a_finished_run_is_not_done_again(run):
    first = run()
    stamp = (first.folder / "summary.json").stat().st_mtime_ns
    assert run().summary == first.summary
    assert (first.folder / "summary.json").stat().st_mtime_ns == stamp


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        ("recipes/ipo_hh.yaml",),
        ("recipes/cdpo_hh.yaml",),
        ("recipes/dpo_hh.yaml", "objective.beta=0.5"),
        ("recipes/dpo_hh.yaml", "train.optimizer.learning_rate=1e-5", "train.schedule=constant", "train.epochs=1"),
        ("recipes/dpo_hh.yaml", "seed=3", "train.batch_size=8"),
        ("recipes/dpo_hh.yaml", "train.micro_batch_tokens=300", "name=other"),
    ],
    ids=["ipo", "cdpo", "beta", "learning rate", "order", "execution"],
)
def test_the_reference_is_scored_once_for_all(again, change):
    again()
    assert again(*change).summary["reference"] == {"kind": "sequence", "rows_scored": 0, "rows_cached": 160}


@pytest.mark.slow
def test_a_subset_and_more_rows_reuse_what_was_scored(again):
    again()
    # The rows of the SFT run are the data's too: the start is named here, so that it stays the same reference.
    start = next(path for path in (again().folder.parent).glob("sft_hh-*")) / "policy"
    data = {"model.from": None, "model.path": str(start), "data.max_train_rows": 60}
    fewer = alignzoo.run("recipes/dpo_hh.yaml", data, ["tests/smallest.yaml"])
    assert fewer.summary["reference"] == {"kind": "sequence", "rows_scored": 0, "rows_cached": 92}
    more = alignzoo.run("recipes/dpo_hh.yaml", data | {"data.max_train_rows": 200}, ["tests/smallest.yaml"])
    assert more.summary["reference"] == {"kind": "sequence", "rows_scored": 72, "rows_cached": 160}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "scored"),
    [
        ("train.precision", "bfloat16", 160),
        ("model.dtype", "bfloat16", 160),
        ("train.layout", "plain", 160),
        ("tokens.max_length", 24, None),
    ],
)
def test_what_changes_the_numbers_never_hits(again, key, value, scored):
    """Another precision or truncation is another number; peers' caches hit wrongly on both."""
    again()
    start = next(again().folder.parent.glob("sft_hh-*")) / "policy"
    fields = {"model.from": None, "model.path": str(start), key: value}
    if key == "tokens.max_length":
        fields["tokens.max_prompt_length"] = 12
    result = alignzoo.run("recipes/dpo_hh.yaml", fields, ["tests/smallest.yaml"])
    got = result.summary["reference"]
    if scored is not None:
        assert got["rows_scored"] == scored
    else:
        untouched = 160 - result.summary["data"]["truncated_prompts"] - result.summary["data"]["truncated_completions"]
        assert got["rows_cached"] <= max(untouched, 0) + 1
        assert got["rows_scored"] > 0


@pytest.mark.slow
def test_another_start_has_another_reference(again):
    again()
    other = again("recipes/dpo_hh.yaml", "model.config.intermediate_size=48")  # handed on to the SFT run
    assert other.summary["reference"]["rows_scored"] == 160


@pytest.mark.slow
def test_label_noise_is_put_on_preferences_and_leaves_the_start_alone(run):
    run()
    noisy = run("recipes/dpo_hh.yaml", "data.label_noise=0.3")
    assert noisy.summary["data"]["flipped"] > 10
    assert noisy.summary["reference"] == {"kind": "sequence", "rows_scored": 0, "rows_cached": 160}


@pytest.mark.slow
def test_scores_can_be_checked_by_anyone(run, tmp_path):
    """`alignzoo score` against a forward that is written out here."""
    from alignzoo.core.console import Screen
    from alignzoo.recipe.load import load_recipe
    from alignzoo.training.row_scores import write_scores

    result = run()
    resolved = load_recipe("recipes/dpo_hh.yaml", (), ["tests/smallest.yaml"])
    assert write_scores(resolved, tmp_path / "scores.jsonl", "held_out", Screen(quiet=True)) == 32
    models = {
        "policy": AutoModelForCausalLM.from_pretrained(result.policy),
        "reference": AutoModelForCausalLM.from_pretrained(next(result.folder.parent.glob("sft_hh-*")) / "policy"),
    }
    for line in read_lines(tmp_path / "scores.jsonl")[:8]:
        for side in ("chosen", "rejected"):
            ids = torch.tensor([line["prompt_tokens"] + line[side]["tokens"]])
            first = len(line["prompt_tokens"]) + line[side]["spans"][0][0]
            for who, model in models.items():
                with torch.no_grad():
                    log_probs = model(ids).logits[0].log_softmax(-1)[first - 1 : -1]
                want = log_probs.gather(1, ids[0, first:, None])[:, 0]
                assert torch.allclose(torch.tensor(line[side][f"{who}_token_log_probs"]), want, atol=1e-4)
                assert line[side][f"{who}_log_prob"] == pytest.approx(want.sum().item(), rel=1e-5)
                assert line[side]["length"] == len(want)


@pytest.mark.slow
def test_a_loss_that_blows_up_stops_the_run_and_keeps_the_checkpoint(run):
    with pytest.raises(RunFailed, match=r"step \d+: .*not finite.*; the steps up to (\d) are kept in .*step-00000\1"):
        run("recipes/dpo_hh.yaml", "train.optimizer={name: sgd, learning_rate: 1e30}", "train.max_grad_norm=null",
            "train.checkpoint_every=1", "train.schedule=constant")  # fmt: skip


def test_fewer_rows_than_a_batch_is_a_clear_error(run):
    with pytest.raises(UserError, match="128 training rows are usable, fewer than one batch"):
        run("recipes/dpo_hh.yaml", "train.batch_size=200")


def test_a_row_longer_than_the_models_positions_is_a_clear_error(run):
    with pytest.raises(UserError, match=r"tokens\.max_length: a row has \d+ tokens, and the model has 16 positions"):
        run("recipes/sft_hh.yaml", "model.config.max_position_embeddings=16")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.config.model_type=lama", "transformers has no model_type 'lama'; did you mean 'llama'"),
        ("model.config.hiden_size=8", "llama has no setting 'hiden_size'; did you mean 'hidden_size'"),
        ("model.config.num_attention_heads=5", "can't build this llama"),
        (
            "model.config.intermediate_size=1000000000000",
            r"takes [\d,]+ GB, and this machine has \d+; expected a smaller",
        ),
    ],
)
@pytest.mark.slow
def test_a_bad_architecture_is_a_clear_error(run, override, message):
    with pytest.raises(UserError, match=message):
        run("recipes/sft_hh.yaml", override)


def test_a_model_that_is_not_there_is_a_clear_error(run):
    with pytest.raises(UserError, match="could be loaded from 'nobody/nothing'"):
        run("recipes/sft_hh.yaml", "model.config=null", "model.tokenizer=null", "model.path=nobody/nothing")


@pytest.mark.slow
def test_a_run_leaves_the_process_as_it_was(run):
    """Tiny numbers are flushed to zero while it works, for speed, and not in what its caller reckons afterwards."""
    import sys

    run("recipes/dpo_hh.yaml", "train.max_steps=1")
    assert sys.float_info.min / 2 > 0
