"""PPO runs with adapters: the critic's start, its bytes after a kill, and starts that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT
from peft import PeftModel
from rollout_runs import PLAIN_STEP, killed, lines, phases
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training import step
from alignzoo.training.export import export_run
from alignzoo.training.preflight import preflight

SFT = ROOT / "recipes" / "sft_hh.yaml"
RECIPE = "recipes/online/dpo_hh.yaml"
SMALLEST = "tests/smallest.yaml"
LORA = "model.lora={r: 2, alpha: 4}"
WHOLE = ("train.max_steps=4", "rollout.prompts=8", "rollout.epochs=2", "train.checkpoint_every=3", LORA)


def adapter_of(folder: Path, part: str = "critic") -> dict[str, np.ndarray]:
    return load_file(folder / part / "adapter_model.safetensors")


def loaded(home: Path, folder: Path, base: str = "sft_hh-*/policy") -> torch.nn.Module:
    """The critic, by transformers and peft from the run's files."""
    (start,) = (home / "runs").glob(base)
    model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1)
    model.config.pad_token_id = None
    return PeftModel.from_pretrained(model, str(folder)).eval()


def check_first_values(model: torch.nn.Module, run: Path) -> None:
    """The first rollout's old values of a draw are the model's outputs at the token before each."""
    from transformers import AutoTokenizer

    at = load_file(run / "rollouts/000000/drawn/draws.safetensors")["cuts"]
    draws = phases(run)
    tokens = torch.from_numpy(draws["tokens"][at[0] : at[1]]).long()
    (first, *_) = map(json.loads, (run / "rollouts/000000/judged/replies.jsonl").open())
    ids = AutoTokenizer.from_pretrained(run / "policy")(first["prompt"], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        want = [model(torch.cat([torch.tensor(ids), tokens[:n]])[None]).logits.item() for n in range(len(tokens))]
    assert draws["old_value"][: len(tokens)] == pytest.approx(want, abs=1e-5)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bytes_of_both_adapters(online, home):
    words = ("{name: ppo, target_kl: 1.0}", *WHOLE, "critic={learning_rate: 1e-2, lora: {r: 3}}")

    def everything(folder: Path) -> list[bytes]:
        last = folder / "checkpoints" / "step-000004"
        files = [folder / "critic/adapter_model.safetensors", folder / "critic/adapter_config.json"]
        files += [folder / "policy/adapter_model.safetensors", last / "critic.safetensors"]
        files += [folder / "metrics.jsonl", folder / "samples.jsonl", *sorted(folder.glob("rollouts/*/scored/*"))]
        return [file.read_bytes() for file in files]

    done = online(*words)
    critic, start = adapter_of(done.folder), load_file(done.folder / "checkpoints/step-000004/critic.safetensors")
    assert all(np.array_equal(tensor, start[name]) for name, tensor in critic.items())
    assert {tensor.shape[0] for name, tensor in critic.items() if "lora_A" in name} == {3}
    assert all(tensor.any() for tensor in critic.values())  # every B has moved
    steps = lines(done.folder, "train")
    assert steps[0]["drift"] == 0
    assert steps[0]["learning_rate"] != 1e-2
    assert all(line["critic_grad_norm"] > 0 for line in steps)
    saved = (done.folder / "checkpoints/step-000004").stat().st_size
    assert saved < 1e6
    want = everything(done.folder)
    check_exports(loaded(home, done.folder / "critic"), done.folder)
    shutil.rmtree(done.folder)
    assert killed(step, "gradient_by_row", 4, lambda: online(*words))
    assert not (done.folder / "summary.json").exists()
    assert everything(online(*words).folder) == want


def check_exports(model: torch.nn.Module, run: Path) -> None:
    """The merged critic's logits are peft's values of every prefix, and the adapter is copied as it is."""
    alone = export_run(run, None, False, None, "5GB", False, Screen(quiet=True), critic=True)
    assert alone.name == "export-critic"
    name = "adapter_model.safetensors"
    assert (alone / name).read_bytes() == (run / "critic" / name).read_bytes()
    merged = export_run(run, None, True, None, "5GB", False, Screen(quiet=True), critic=True)
    assert merged.name == "export-critic-merged"
    assert "AutoModelForTokenClassification" in (merged / "README.md").read_text()
    tokens = AutoModelForTokenClassification.from_pretrained(merged)
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        want = [model(ids[:, : end + 1]).logits.item() for end in range(ids.shape[1])]
        assert tokens(ids).logits[0, :, 0].tolist() == pytest.approx(want, abs=1e-5)


def reward_model(home: Path, plugins: list[str], start: Path | None, **own: object) -> str:
    """The rewards of a recipe whose reward model is the smallest: adapters on a start, or all weights without one."""
    path = home / f"rm{'_lora' if start else ''}.yaml"
    recipe = {
        "extends": str(ROOT / "recipes/online/rm_hh.yaml"), "plugins": plugins,
        "train": {"max_steps": 2, "batch_size": 4, "optimizer": {"learning_rate": 1e-2}}, **own,
    }  # fmt: skip
    recipe |= {"model": {"from": str(start), "lora": {"r": 3}}} if start else {}
    path.write_text(json.dumps(recipe))
    return f"rollout.rewards={json.dumps([{'name': 'reward_model', 'from': str(path)}])}"


@pytest.mark.slow
def test_a_critic_starts_from_the_adapter_of_the_reward_model(online, home, plugins):
    rewards = reward_model(home, plugins, SFT)
    short = ("train.max_steps=1", "rollout.completions=2", rewards, LORA)
    done = online("ppo", *short)
    (trained,) = (home / "runs").glob("rm_lora-*/policy")
    check_first_values(loaded(home, trained), done.folder)
    assert {tensor.shape[0] for name, tensor in adapter_of(done.folder).items() if "lora_A" in name} == {3}
    assert {tensor.shape[0] for name, tensor in adapter_of(done.folder, "policy").items() if "lora_A" in name} == {2}
    config = json.loads((done.folder / "critic/adapter_config.json").read_text())
    assert "sft_hh-" in config["base_model_name_or_path"]
    anew = online("ppo", *short, "critic={from: recipes/sft_hh.yaml}")
    assert {tensor.shape[0] for name, tensor in adapter_of(anew.folder).items() if "lora_A" in name} == {2}
    assert not np.allclose(phases(anew.folder)["old_value"], phases(done.folder)["old_value"])


def test_starts_on_other_weights_are_refused_with_their_keys(online, home, plugins):
    """Before any run: `validate` says it too."""

    def problem(*overrides: str) -> str:
        with pytest.raises(UserError) as error:
            preflight(load_recipe(RECIPE, online.words("ppo", LORA, *overrides), [SMALLEST]))
        return str(error.value)

    found = problem(reward_model(home, plugins, None))
    assert "rollout.rewards.0.from: beside model.lora the critic is an adapter on the policy's start" in found
    assert "the run of rm trained all weights" in found
    assert "critic.from or critic.path" in found
    found = problem("critic={from: recipes/dpo_hh.yaml}")
    assert found.startswith("critic.from: ")
    assert "the run of dpo_hh trained no reward model of one output" in found
    other = home / "other_sft.yaml"
    other.write_text(json.dumps({"extends": str(SFT), "seed": 7}))
    assert "trained an adapter on other weights than the policy's start" in problem(reward_model(home, plugins, other))
    (folder,) = (home / "runs").glob("sft_hh-*/policy")
    of_path = home / "of_path.yaml"
    of_path.write_text(json.dumps({"extends": str(ROOT / RECIPE), "model": {"path": str(folder), "dtype": "bfloat16"}}))
    for recipe, same in (
        (RECIPE, "critic={from: recipes/sft_hh.yaml}"), (RECIPE, "critic={learning_rate: 1e-3}"),
        (of_path, f"critic={{path: {folder}}}"),
    ):  # fmt: skip
        preflight(load_recipe(recipe, online.words("ppo", LORA, same)))
    found = problem("critic={config: {model_type: gpt2}, tokenizer: {train: bytes}}")
    assert found.startswith("critic: ")
    assert " is another model than the policy's start" in found
    assert "critic.lora: the critic starts from the adapter of the run of rm_lora" in problem(
        reward_model(home, plugins, SFT), "critic={lora: {r: 2}}"
    )


@pytest.mark.slow
def test_two_processes_take_the_same_step_of_both_adapters(online_on):
    options = (*PLAIN_STEP, LORA, "critic={max_grad_norm: null, learning_rate: 0.1}")
    one, two = (online_on(count, "ppo", *options) for count in (1, 2))
    want, found = phases(one), phases(two)
    for name in want:
        assert np.allclose(found[name], want[name], rtol=1e-5, atol=1e-5), name
    for part in ("policy", "critic"):
        other = adapter_of(two, part)
        for name, tensor in adapter_of(one, part).items():
            assert tensor.any(), name  # every B has moved
            assert np.abs(tensor - other[name]).max() <= 5e-6 * max(np.abs(tensor).max(), 1e-2), name
