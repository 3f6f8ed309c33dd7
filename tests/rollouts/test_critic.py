"""PPO runs: the critic's start, what is exact, what a stop keeps, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import bytes_of
from rollout_runs import PLAIN_STEP, killed, lines, phases
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.models.loading import pretrained
from alignzoo.rollouts import source as source_module
from alignzoo.training import checkpoint, step
from alignzoo.training.export import export_run

SEVERAL = ("rollout.prompts=8", "rollout.epochs=2", "train.max_steps=8")
"""Two minibatches and two epochs, two rollouts."""


def start_of(home: Path) -> dict[str, np.ndarray]:
    """The tensors that a critic without a run of its own starts from: the SFT policy's, and a head of the seed."""
    (policy,) = (home / "runs").glob("sft_hh-*/policy")
    return {
        name: one.numpy() for name, one in pretrained(str(policy), None, 0, "scalar", "float32").state_dict().items()
    }


def critic_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "critic" / "model.safetensors")


def same_update(before: dict[str, np.ndarray], one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Two updates agree to 5e-6 of the largest element of each."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        largest = np.abs(value - before[name]).max()
        assert largest > 0, name
        assert np.abs(value - other[name]).max() <= 5e-6 * max(largest, 1e-2), name


@pytest.mark.slow
def test_a_run_has_a_critic_its_figures_and_ratios_of_1_at_first(online, home):
    done = online(
        "{name: ppo, target_kl: 1.0, horizon: 100}", *SEVERAL, "train.optimizer.learning_rate=1e-2",
        "critic={learning_rate: 1e-3, max_grad_norm: 0.5}", "train.schedule={name: constant}",
    )  # fmt: skip
    steps, rollouts = lines(done.folder, "train"), lines(done.folder, "rollout")
    for n, line in enumerate(steps):
        first = n in (0, 4)
        assert (line["drift"] == 0) == first
        assert (line["approx_kl"] == 0) == first
        assert ("clipped" in line) == ("value_clipped" in line) == (not first)
        assert line["value_error"] > 0
        assert line["critic_grad_norm"] > 0
        assert line["learning_rate"] == 1e-2
    assert all(line["approx_kl"] > 0 for line in steps if line["drift"])
    assert {"value", "returns", "explained_variance", "entropy", "state_beta"} <= rollouts[0].keys()
    assert rollouts[0]["state_beta"] == 0.05
    scored = load_file(done.folder / "rollouts/000000/scored/scores.safetensors")
    kl = np.add.reduceat(scored["old_log_prob"].astype(float) - scored["ref_log_prob"], cuts(done.folder)[:-1]).mean()
    assert rollouts[1]["state_beta"] == pytest.approx(0.05 * (1 + np.clip(kl - 1, -0.2, 0.2) * 32 / 100), rel=1e-6)
    value, returns = (scored[name].astype(float) for name in ("old_value", "returns"))
    assert value.shape == returns.shape == scored["advantage"].shape == scored["old_log_prob"].shape
    assert rollouts[0]["explained_variance"] == pytest.approx(1 - (returns - value).var() / returns.var(), rel=1e-6)
    critic, start = critic_of(done.folder), start_of(home)
    assert all((critic[name] != start[name]).any() for name in ("score.weight", "model.layers.0.mlp.up_proj.weight"))
    AutoModelForCausalLM.from_pretrained(done.policy)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(done.folder / "critic", output_loading_info=True)
    assert not info["missing_keys"]
    assert loaded.config.num_labels == 1
    exported = export_run(done.folder, None, False, None, "5GB", False, Screen(quiet=True), critic=True)
    tokens = AutoModelForTokenClassification.from_pretrained(exported)
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        want = [loaded(ids[:, : end + 1]).logits.item() for end in range(ids.shape[1])]
        assert tokens(ids).logits[0, :, 0].tolist() == pytest.approx(want, abs=1e-5)


def cuts(folder: Path) -> np.ndarray:
    return load_file(folder / "rollouts/000000/drawn/draws.safetensors")["cuts"]


@pytest.mark.slow
def test_no_budget_changes_values_or_either_update(online, home):
    found = [online("ppo", "train.max_steps=1", *PLAIN_STEP, "critic={max_grad_norm: null, learning_rate: 0.1}",
                    f"train.micro_batch_tokens={budget}") for budget in (100_000, 64)]  # fmt: skip
    scored = [phases(done.folder) for done in found]
    assert np.array_equal(scored[0]["tokens"], scored[1]["tokens"])
    for name in ("old_value", "returns", "advantage"):
        assert np.allclose(scored[0][name], scored[1][name], rtol=1e-5, atol=1e-5), name
    (policy,) = (home / "runs").glob("sft_hh-*/policy/model.safetensors")
    same_update(load_file(policy), *(load_file(done.policy / "model.safetensors") for done in found))
    same_update(start_of(home), *(critic_of(done.folder) for done in found))


@pytest.mark.slow
def test_two_processes_take_the_same_steps_of_both(online_on, trained):
    options = (*PLAIN_STEP, "critic={max_grad_norm: null, learning_rate: 0.1}")
    one, two = (online_on(count, "ppo", *options) for count in (1, 2))
    want, found = phases(one), phases(two)
    assert want.keys() == found.keys()
    for name in want:
        assert np.allclose(found[name], want[name], rtol=1e-5, atol=1e-5), name
    (policy,) = (trained / "runs").glob("sft_hh-*/policy/model.safetensors")
    same_update(load_file(policy), *(load_file(run / "policy" / "model.safetensors") for run in (one, two)))
    same_update(start_of(trained), critic_of(one), critic_of(two))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["remax", "{name: ppo, target_kl: 1.0}"])
def test_a_list_of_one_objective_on_groups_is_that_objective(online, objective):
    """It has its advantage, its returns and its state, and not the default's, which is the bare reward."""
    alone, listed = (online(words, "train.max_steps=2") for words in (objective, f"[{objective}]"))
    assert [phases(listed.folder, n).keys() for n in (0, 1)] == [phases(alone.folder, n).keys() for n in (0, 1)]
    for name, value in phases(alone.folder, 1).items():
        assert np.array_equal(phases(listed.folder, 1)[name], value, equal_nan=value.dtype.kind == "f"), name
    want, found = (load_file(done.policy / "model.safetensors") for done in (alone, listed))
    assert all(np.array_equal(found[name], value) for name, value in want.items())


KILLS = {
    "scoring the second rollout": (source_module, "returns", 2),
    "learning": (step, "gradient_by_row", 6),
    "saving": (checkpoint, "write_manifest", 2),
}


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bytes_of_both_learners(online):
    """From a checkpoint within a rollout too, with a state, and an optimizer of each."""
    words = ("{name: ppo, target_kl: 1.0, normalize_reward: true}", *SEVERAL, "train.checkpoint_every=3")

    def everything(folder: Path) -> list[bytes]:
        last = folder / "checkpoints" / "step-000008"
        state = json.loads((last / "about.json").read_text())["objective"]
        critics = [(folder / "critic/model.safetensors").read_bytes(), (last / "critic.safetensors").read_bytes()]
        scored = [file.read_bytes() for file in sorted(folder.glob("rollouts/*/scored/*"))]
        return [json.dumps(state).encode(), *critics, *scored, *bytes_of(folder)]

    done = online(*words)
    want = everything(done.folder)
    for what, (module, name, at) in KILLS.items():
        shutil.rmtree(done.folder)
        assert killed(module, name, at, lambda: online(*words)), what
        assert not (done.folder / "summary.json").exists()
        assert everything(online(*words).folder) == want, what


def reward_model(home: Path, plugins: list[str]) -> Path:
    """A recipe of the smallest reward model, from the SFT run."""
    from checkout import ROOT

    path = home / "rm.yaml"
    path.write_text(json.dumps({
        "extends": str(ROOT / "recipes/online/rm_hh.yaml"), "plugins": plugins,
        "train": {"max_steps": 2, "batch_size": 4},
    }))  # fmt: skip
    return path


@pytest.mark.slow
def test_a_critic_starts_from_the_reward_model_that_is_learnt_from(online, home, plugins):
    """Its first values are the reward model's outputs at the token before each, by transformers."""
    rewards = json.dumps([{"name": "reward_model", "from": str(reward_model(home, plugins))}])
    done = online("ppo", f"rollout.rewards={rewards}", "train.max_steps=1", "rollout.completions=2")
    (trained,) = (home / "runs").glob("rm-*/policy")
    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    draws, at = phases(done.folder), cuts(done.folder)
    tokens = torch.from_numpy(draws["tokens"][at[0] : at[1]]).long()
    prompt = prompt_of(done)
    for n in range(len(tokens)):
        with torch.no_grad():
            want = model(torch.cat([prompt, tokens[:n]])[None]).logits.item()
        assert draws["old_value"][n] == pytest.approx(want, abs=1e-5)
    named = online("ppo", "critic={from: recipes/sft_hh.yaml}", f"rollout.rewards={rewards}", "train.max_steps=1",
                   "rollout.completions=2")  # fmt: skip
    assert not np.allclose(phases(named.folder)["old_value"][: len(tokens)], draws["old_value"][: len(tokens)])


def prompt_of(done) -> torch.Tensor:
    """The token ids of the first prompt that was drawn for."""
    from transformers import AutoTokenizer

    (first, *_) = map(json.loads, (done.folder / "rollouts/000000/judged/replies.jsonl").open())
    ids = AutoTokenizer.from_pretrained(done.policy)(first["prompt"], add_special_tokens=False)["input_ids"]
    return torch.tensor(ids)


@pytest.mark.parametrize(
    ("objective", "override", "said"),
    [
        ("grpo", "critic={learning_rate: 1e-3}", "critic: grpo trains no critic"),
        ("ppo", "critic={lora: {r: 2}}", "critic.lora: a critic has adapters where the policy has them"),
        ("ppo", "critic={learning_rat: 1e-3}", "critic.learning_rat"),
        ("ppo", "critic=[1]", "critic: a list"),
        ("[ppo, sft]", "seed=0", "ppo learns from groups of draws, and can't be a term of a sum"),
    ],
)
def test_what_a_critic_can_not_have_is_said(online, objective, override, said):
    with pytest.raises(UserError) as error:
        online(objective, override)
    assert said in str(error.value)
