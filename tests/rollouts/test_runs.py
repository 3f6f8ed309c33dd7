"""Online runs: any objective, budgets, several updates of a rollout, failures."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from byte_tokenizer import byte_tokenizer
from click.testing import CliRunner
from rollout_runs import drawn, lines
from safetensors.numpy import load_file

from alignzoo.cli import alignzoo as cli
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.training.online import Online


@pytest.mark.slow
def test_online_dpo_learns_from_what_it_wrote(online, home):
    done = online("dpo")
    rollouts, steps, figures = (lines(done.folder, kind) for kind in ("rollout", "train", "eval"))
    assert [line["step"] for line in rollouts] == [line["step"] for line in steps] == [1, 2, 3, 4]
    assert rollouts[0]["kl"] == rollouts[0]["kl_sampled"] == 0
    assert rollouts[-1]["kl"] > 0
    assert 1 <= rollouts[0]["rows"] <= 4
    assert {"reward", "reward_vowels", "reward_se", "length", "unfinished", "no_spread", "left_out", "entropy"} <= set(
        rollouts[0]
    )
    assert rollouts[0]["mismatch"] < 1e-4
    assert {"loss", "preference_accuracy", "reward", "kl"} <= set(figures[0])
    assert done.summary["eval"]["reward"] == figures[-1]["reward"]
    assert not any(name.name.startswith("reference") for name in (done.folder / "rollouts").rglob("*"))
    replies = [
        json.loads(line) for line in (done.folder / "rollouts/000000/judged/replies.jsonl").read_text().splitlines()
    ]
    assert len(replies) == 16
    raw = load_file(done.folder / "rollouts/000000/judged/rewards.safetensors")["raw"][0]
    vowels = [sum(c in "aeiou" for c in one["reply"]) / max(1, len(one["reply"])) for one in replies]
    assert raw.tolist() == pytest.approx(vowels)
    assert [one["scores"] for one in replies] == [[value] for value in raw.tolist()]
    assert all(("prompt" in one) == (one["number"] == 0) for one in replies)
    said = CliRunner().invoke(
        cli, ["rollouts", str(done.folder), "--step", "1", "--prompts", "1"], catch_exceptions=False
    )
    assert said.output.startswith("rollout 0, first used in step 1: reward ")
    assert replies[0]["row"] in said.output
    assert f"[{raw[0]:.3f}" in said.output
    assert "3 more prompts" in said.output
    with pytest.raises(UserError, match="no step 9; expected a step from 1 to 4"):
        CliRunner().invoke(cli, ["rollouts", str(done.folder), "--step", "9"], catch_exceptions=False)
    timing = json.loads((done.folder / "timings.jsonl").read_text().splitlines()[0])
    assert {"drawn_seconds", "judged_seconds", "scored_seconds", "seconds"} <= set(timing)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        "kto",
        "pl_dpo",
        "sft",
        "simpo",
        "tdpo1",
        "tr_dpo",
        "rloo",
        "remax",
        "reinforce",
        "reinforce_pp",
        "dapo",
        "gspo",
        "cispo",
        "xpo",
        "nash_md",
    ],
)
def test_every_kind_of_objective_trains_on_draws(online, objective):
    done = online(objective, *(["rollout.completions=2"] if objective in ("xpo", "nash_md") else []))
    steps = lines(done.folder, "train")
    assert any(line["grad_norm"] > 0 for line in steps)
    assert all(math.isfinite(line["loss"]) for line in steps if "loss" in line)
    assert len(lines(done.folder, "rollout")) == 4
    if "drift" in steps[0]:
        assert [line["drift"] for line in steps] == pytest.approx([0] * 4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["grpo", "rloo"])
def test_no_budget_changes_draws_or_the_update(online, objective):
    """One step of plain gradient descent from the same start; the difference is relative to the largest element."""
    plain = ["train.max_steps=1", "train.optimizer={name: sgd, learning_rate: 1.0}", "train.schedule={name: constant}",
             "train.max_grad_norm=null"]  # fmt: skip
    found = [
        online(objective, *plain, f"train.micro_batch_tokens={budget}", f"name=of-{budget}") for budget in (100_000, 64)
    ]
    one, other = (drawn(done.folder) for done in found)
    assert np.array_equal(one.tokens, other.tokens)
    start = next(found[0].folder.parent.glob("sft_hh-*")) / "policy" / "model.safetensors"
    before = load_file(start)
    updates = [
        {name: value - before[name] for name, value in load_file(done.policy / "model.safetensors").items()}
        for done in found
    ]
    for name, update in updates[0].items():
        largest = np.abs(update).max()
        assert largest > 0
        assert np.abs(update - updates[1][name]).max() <= 5e-6 * max(largest, 1e-2), name


@pytest.mark.slow
def test_several_updates_of_one_rollout(online):
    """Two minibatches and two epochs: the ratio is 1 at first, and moves with each update."""
    done = online(
        "grpo", "rollout.prompts=8", "rollout.epochs=2", "train.max_steps=8", "train.optimizer.learning_rate=1e-2"
    )
    assert [(line["step"], line["rollout"]) for line in lines(done.folder, "rollout")] == [(1, 0), (5, 1)]
    steps = lines(done.folder, "train")
    drift = [line["drift"] for line in steps]
    assert ["clipped" in line for line in steps] == ["effective_sample_size" in line for line in steps]
    assert ["clipped" in line for line in steps] == 2 * [False, True, True, True]
    assert all(0 < line["effective_sample_size"] < 1 for line in steps if "clipped" in line)
    assert (drift[0], drift[4]) == (0, 0)  # exactly: the forward's own log-probs
    assert min(drift[1:4] + drift[5:]) > 1e-4
    scored = load_file(done.folder / "rollouts/000000/scored/scores.safetensors")
    assert scored["old_log_prob"].shape == (drawn(done.folder).lengths.sum(),)
    assert scored["advantage"].shape == (8, 4)


@pytest.mark.slow
def test_a_temperature_is_that_of_draws_and_of_ratios(online):
    done = online("grpo", "rollout.temperature=0.7", "rollout.prompts=8", "train.max_steps=2")
    first = lines(done.folder, "train")[0]
    assert first["drift"] <= 1e-5
    assert "mismatch" not in lines(done.folder, "rollout")[0]
    assert lines(done.folder, "exactness")[0]["difference"] < 1e-3


@pytest.mark.slow
def test_a_judge_that_fails_stops_the_run_and_the_same_command_goes_on(online, monkeypatch):
    monkeypatch.setenv("VOWELS", "fail")
    with pytest.raises(RunFailed, match=r"the reward vowels raised ValueError: no vowels today .*vowels\.py"):
        online("grpo", "eval.every=null", "rollout.held_out_prompts=0")
    monkeypatch.delenv("VOWELS")
    done = online("grpo", "eval.every=null", "rollout.held_out_prompts=0")
    assert len(lines(done.folder, "train")) == 4


@pytest.mark.slow
def test_too_few_prompts_and_too_long_ones_are_errors(online):
    with pytest.raises(UserError, match=r"rollout\.prompts: .*prompts can be drawn from"):
        online("dpo", "rollout.prompts=400")
    with pytest.raises(UserError, match=r"rollout\.max_new_tokens: no prompt leaves room"):
        online("dpo", "tokens.max_length=20", "tokens.max_prompt_length=19", "rollout.max_new_tokens=18")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "grpo"])
def test_rows_of_a_prompt_alone_are_drawn_for(online, home, objective):
    """There is nothing else to evaluate on but draws."""
    file = home / "prompts.jsonl"
    words = ["rivers", "bread", "stars", "winter", "trains"]
    rows = [{"prompt": f"\n\nHuman: Tell me of {a} and {b}.\n\nAssistant:"} for a in words for b in words]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (start,) = (home / "runs").glob("sft_hh-*/policy")
    data = f"data={{name: files, path: {file}, held_out_fraction: 0.3}}"
    done = online(objective, data, f"model={{path: {start}}}", "train.max_steps=2")
    assert any(line["grad_norm"] > 0 for line in lines(done.folder, "train"))
    assert all("loss" not in line and "reward" in line for line in lines(done.folder, "eval"))
    assert done.summary["reference"]["rows_scored"] == 0


@pytest.mark.slow
def test_spin_prefers_the_data_to_what_the_policy_writes(online):
    """Each iteration's reference is the policy that has drawn it: the first loss of each is log 2."""
    done = online("{name: dpo, beta: 0.3}", "rollout.pairs=data", "rollout.reference=rollout", "rollout.completions=1",
                  "rollout.rewards=null", "rollout.prompts=8", "rollout.epochs=2", "train.max_steps=8",
                  "train.optimizer.learning_rate=1e-2")  # fmt: skip
    loss = [line["loss"] for line in lines(done.folder, "train")]
    assert (loss[0], loss[4]) == pytest.approx((math.log(2), math.log(2)), abs=1e-6)
    assert max(loss[2:4] + loss[6:]) < 0.69
    for line in lines(done.folder, "rollout"):
        assert line["rows"] == 8
        assert "reward" not in line
    assert lines(done.folder, "rollout")[1]["kl"] > 0.01  # still from the start of the run
    replies = [
        json.loads(line) for line in (done.folder / "rollouts/000000/judged/replies.jsonl").read_text().splitlines()
    ]
    assert [one["scores"] for one in replies] == [[]] * 8
    said = CliRunner().invoke(cli, ["rollouts", str(done.folder), "--step", "1"], catch_exceptions=False)
    assert said.output.startswith("rollout 0, first used in step 1: kl 0")


@pytest.mark.slow
def test_prompts_of_equal_rewards_are_replaced(online):
    """A judge of few values, so that some prompts have no spread; their place is taken by others."""
    done = online("dapo", "rollout.rewards=[has_e]", "rollout.completions=2", "rollout.max_attempts=4",
                  "train.max_steps=2")  # fmt: skip
    first = lines(done.folder, "rollout")[0]
    assert first["no_spread"] > 0
    assert first["attempts"] > 1
    assert first["prompts_drawn"] > 4
    folder = done.folder / "rollouts/000000"
    attempts = [folder / "judged", *(folder / f"judged-{n}" for n in range(1, first["attempts"]))]
    raw = np.concatenate([load_file(one / "rewards.safetensors")["raw"][0] for one in attempts]).reshape(-1, 2)
    scored = load_file(folder / "scored" / "scores.safetensors")
    spread = np.flatnonzero(raw[:, 0] != raw[:, 1])
    assert sorted(scored["learnt"].tolist()) == spread.tolist()[:4]
    assert first["rows"] == len(scored["learnt"])
    replies = [
        json.loads(line)
        for line in CliRunner().invoke(cli, ["rollouts", str(done.folder), "--step", "1", "--json"]).output.splitlines()
    ]
    assert len(replies) == 2 * first["prompts_drawn"]
    assert [n // 2 for n, one in enumerate(replies) if "advantage" in one][::2] == sorted(scored["learnt"].tolist())
    assert all(one["advantage"] for one in replies if "advantage" in one)


@pytest.mark.slow
def test_the_kl_of_an_objective_without_a_reference_is_measured_unless_told_otherwise(online):
    done = online("dapo", "train.optimizer.learning_rate=1e-2", "train.max_steps=2")
    assert lines(done.folder, "rollout")[0]["kl"] == 0
    assert lines(done.folder, "rollout")[1]["kl"] > 1e-4
    without = online("dapo", "train.optimizer.learning_rate=1e-2", "train.max_steps=2", "rollout.kl_rows=0")
    assert "kl" not in lines(without.folder, "rollout")[1]
    assert (done.policy / "model.safetensors").read_bytes() == (without.policy / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_stop_strings_end_completions_that_judges_read_without_them(online):
    """Draws stop at the first vowel or end token, are finished, and keep its token."""
    done = online("dpo", "train.max_steps=1", "eval.every=null", 'rollout.stop=["e", "a"]', "rollout.max_new_tokens=16")
    replies = [
        json.loads(line) for line in (done.folder / "rollouts/000000/judged/replies.jsonl").read_text().splitlines()
    ]
    assert not any(set("ea") & set(one["reply"]) for one in replies)
    lengths = drawn(done.folder).lengths.tolist()
    assert all(one["finished"] == (length < 16) or length == 16 for one, length in zip(replies, lengths, strict=True))
    assert sum(length < 16 for length in lengths) > 8
    with pytest.raises(UserError, match=r"rollout\.end_tokens: '<\|im_ends\|>' is no token of the policy's tokenizer"):
        online("dpo", 'rollout.end_tokens=["<|im_ends|>"]')


def test_a_stop_string_with_a_special_token_is_an_error():
    """Texts are without special tokens, so it would never be found."""
    recipe = SimpleNamespace(rollout=RolloutConfig(stop=("\n", "no.</s>")))
    job = SimpleNamespace(recipe=recipe, ranks=SimpleNamespace(parted=False))
    with pytest.raises(
        UserError, match=r"rollout\.stop: 'no\.</s>' is never found: '</s>' is a special token(?s:.)*end_tokens"
    ):
        Online.of(job, None, byte_tokenizer())


@pytest.mark.slow
def test_the_best_checkpoint_by_the_reward_of_held_out_draws(online):
    """Of the validation half's prompts: a comparison draws replies to the others."""
    options = (
        "eval.every=1",
        "train.keep_best=reward",
        "rollout.held_out_prompts=16",
        "train.optimizer.learning_rate=0.01",
    )
    done = online("reinforce", *options)
    found = lines(done.folder, "eval")
    best = max(found[1:], key=lambda line: line["validation_reward"])
    chosen = done.summary["selection"]
    assert (chosen["step"], chosen["value"]) == (best["step"], best["validation_reward"])
    assert any(line["validation_reward"] != line["reward"] for line in found)
    assert (done.folder / "checkpoints" / f"step-{best['step']:06d}").is_dir()
