"""Runs of adapters: one reference for all on a base, exact resume, and what later runs, scores and exports make of them."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import yaml
from jobs import unfinish
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import alignzoo
from alignzoo.core.artifacts import read_verified
from alignzoo.core.errors import UserError
from alignzoo.training import checkpoint

FILES = ("policy/adapter_model.safetensors", "metrics.jsonl", "samples.jsonl")


def bytes_of(folder):
    return [(folder / name).read_bytes() for name in FILES]


def start_of(result, runs):
    return runs / yaml.safe_load((result.folder / "recipe.yaml").read_text())["model"]["from"].split("/")[1]


def log_probs(path):
    """Of every scored token of a score file: policy and reference."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return tuple(
        torch.tensor(
            [x for line in lines for side in ("chosen", "rejected") for x in line[side][f"{who}_token_log_probs"]]
        )
        for who in ("policy", "reference")
    )


def score(tmp_path, *overrides):
    from alignzoo.core.console import Screen
    from alignzoo.recipe.load import load_recipe
    from alignzoo.training.row_scores import write_scores

    overlays = ["tests/smallest.yaml"]
    write_scores(
        load_recipe("recipes/dpo_hh.yaml", list(overrides), overlays), tmp_path / "s", "held_out", Screen(True)
    )
    return log_probs(tmp_path / "s")


@pytest.mark.slow
def test_every_adapter_on_a_base_and_a_whole_run_share_one_reference(run, tmp_path):
    first = run()
    assert first.summary["reference"]["rows_scored"] == 160
    second = run("model.lora.r=8", "objective.beta=0.5")
    whole = run(lora=None)
    for other in (second, whole):
        assert (other.summary["reference"]["rows_scored"], other.summary["reference"]["rows_cached"]) == (0, 160)
        assert other.summary["model"]["weights"] == first.summary["model"]["weights"]
        assert other.folder != first.folder
    assert second.summary["model"]["trained_parameters"] < second.summary["model"]["parameters"] / 2
    assert len(list((tmp_path / "cache" / "reference").iterdir())) == 1


@pytest.mark.slow
def test_scores_are_those_of_the_trained_adapter_and_of_the_plain_base(run, tmp_path):
    result = run()
    policy, reference = score(tmp_path, "model.lora={r: 4, alpha: 8}")
    run(lora=None)
    assert torch.equal(reference, score(tmp_path)[1])
    base = start_of(result, tmp_path / "runs") / "policy"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(result.policy)).eval()
    line = json.loads((tmp_path / "s").read_text().splitlines()[0])
    ids = torch.tensor(line["prompt_tokens"] + line["chosen"]["tokens"])
    found = model(ids[None]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
    count = line["chosen"]["length"]
    torch.testing.assert_close(policy[:count], found[-count:], rtol=0, atol=1e-5)
    assert (policy - reference).abs().max() > 1e-5


@pytest.mark.slow
def test_the_policy_is_an_adapter_that_names_its_base(run, tmp_path):
    result = run()
    there = {path.name for path in result.policy.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= there
    assert "model.safetensors" not in there
    base = json.loads((result.policy / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert AutoTokenizer.from_pretrained(result.policy).eos_token == AutoTokenizer.from_pretrained(base).eos_token
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(result.policy))


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bytes(run):
    result = run(fresh=True)
    want = bytes_of(result.folder)
    end, _ = checkpoint.latest(result.folder / "checkpoints")
    assert end.step == 8
    unfinish(result.folder)
    good, _ = checkpoint.latest(result.folder / "checkpoints")
    assert good.step == 4
    assert {"adapter_model.safetensors", "optimizer.safetensors"} <= set(read_verified(good.path)["files"])
    assert not list(good.path.glob("model*"))
    assert bytes_of(run().folder) == want
    raw = bytearray((good.path / "adapter_model.safetensors").read_bytes())
    raw[-1] ^= 1
    (good.path / "adapter_model.safetensors").write_bytes(raw)
    unfinish(result.folder)
    assert bytes_of(run().folder) == want


@pytest.mark.slow
def test_execution_changes_nothing(run):
    one = load_file(run().policy / "adapter_model.safetensors")
    other = run("train.micro_batch_tokens=600", "train.gradient_checkpointing=true")
    two = load_file(other.policy / "adapter_model.safetensors")
    assert other.folder != run().folder
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_a_run_that_starts_from_adapters_starts_from_them_merged(run, tmp_path, start_folder):
    """An overlay gives both runs adapters: the second starts from the first one's policy, within rounding."""
    overlay = tmp_path / "lora.yaml"
    overlay.write_text(f"model: {{path: {start_folder}, lora: {{r: 4}}}}\n")
    result = run(lora=None, overlays=[overlay])
    start = start_of(result, tmp_path / "runs")
    assert {path.name for path in start.iterdir()} >= {"policy", "merged"}
    config = json.loads((result.policy / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(start / "merged")
    summary = json.loads((start / "summary.json").read_text())
    assert summary["model"]["trained_parameters"] > 0
    base = json.loads((start / "policy" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(start_folder)
    trained = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(start / "policy")).eval()
    merged = AutoModelForCausalLM.from_pretrained(start / "merged")
    ids = torch.arange(40)[None]
    want = trained(ids).logits.log_softmax(-1)
    torch.testing.assert_close(merged(ids).logits.log_softmax(-1), want, rtol=0, atol=1e-5)
    assert not torch.equal(AutoModelForCausalLM.from_pretrained(base)(ids).logits, merged(ids).logits)


@pytest.mark.slow
def test_a_base_with_new_tokens_is_saved_once_and_is_the_start(run, start_folder):
    model = f"model={{path: {start_folder}, chat_template: chatml}}"
    result = run(model, recipe="recipes/sft_hh.yaml")
    whole = alignzoo.load_recipe("recipes/sft_hh.yaml", [model], ["tests/smallest.yaml"]).recipe
    again = whole.model.load_model(AutoTokenizer.from_pretrained(result.policy), 0, "language_model").state_dict()
    saved = load_file(result.folder / "base" / "model.safetensors")
    assert all(torch.equal(saved[name], again[name]) for name in saved)
    assert result.summary["reference"]["kind"] == "none"


@pytest.mark.slow
def test_evaluation_measures_the_adapter_and_its_base(run, tmp_path):
    from alignzoo.compare import measure, spec
    from alignzoo.core.console import Screen
    from alignzoo.recipe.load import load_recipe

    result = run()
    resolved = load_recipe("recipes/dpo_hh.yaml", ["model.lora={r: 4, alpha: 8}"], ["tests/smallest.yaml"])
    found = measure.measure(resolved, result.folder, spec.Sampling(), [], None, Screen(True))
    assert found.path.is_dir()


ZOO = ["plugins/alignzoo-zoo/alignzoo_zoo/__init__.py"]


@pytest.fixture
def zoo(monkeypatch):
    monkeypatch.syspath_prepend("plugins/alignzoo-zoo")
    return f"plugins={json.dumps(ZOO)}"


@pytest.mark.slow
def test_a_live_reference_is_the_policy_with_its_adapter_off(run, zoo, monkeypatch):
    """No copy is made, and the steps are those that a copy of the start gives."""
    import copy

    from alignzoo.scoring.scorer import Scorer
    from alignzoo.training import references
    from alignzoo.training import run as run_module

    short = (zoo, "objective=tdpo1", "train.max_steps=3", "reporters=[]", "eval.replies.num_prompts=0")
    own, start = run_module.adapt, {}
    with monkeypatch.context() as patch:
        patch.setattr(references, "copy", None)
        one = load_file(run(*short).policy / "adapter_model.safetensors")

    def adapt(job, model, tokenizer):
        start["copy"] = copy.deepcopy(model).requires_grad_(False)
        own(job, model, tokenizer)

    def live(job, scorer, tokenizer, trees):
        beside = Scorer(start["copy"], scorer.layout, scorer.precision)
        beside.whole_head = scorer.whole_head
        return beside

    monkeypatch.setattr(run_module, "adapt", adapt)
    monkeypatch.setattr(run_module, "live_reference", live)
    two = load_file(run(*short, fresh=True).policy / "adapter_model.safetensors")
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.slow
def test_a_moving_reference_is_rejected_when_the_recipe_is_read(run, zoo):
    with pytest.raises(UserError, match=r"model.lora: tr_dpo averages the weights"):
        run(zoo, "objective=tr_dpo")


@pytest.mark.slow
def test_a_new_reward_head_is_trained_whole_beside_the_adapters(run, zoo):
    """Its random start is saved beside, with the base."""
    result = run(zoo, "objective=bradley_terry", "train.max_steps=3", "reporters=[]")
    tensors = load_file(result.policy / "adapter_model.safetensors")
    base = json.loads((result.policy / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = AutoModelForSequenceClassification.from_pretrained(base)
    assert not torch.equal(tensors["base_model.model.score.weight"], model.score.weight)
    merged = PeftModel.from_pretrained(model, str(result.policy)).merge_and_unload()
    assert type(merged.score) is torch.nn.Linear
    with pytest.raises(UserError, match=r"model.quantize: bradley_terry trains a reward model, and its new head"):
        run(zoo, "objective=bradley_terry", "model.quantize=8bit")


@pytest.mark.slow
def test_what_has_no_place_beside_adapters_is_reported(run, tmp_path):
    with pytest.raises(UserError, match=r"model.lora.dropout: 0.1 is not 0: with dropout"):
        run("model.lora.dropout=0.1")
    with pytest.raises(UserError, match=r"model.lora.rank: no such field; expected one of r, alpha, dropout"):
        run("model.lora.rank=3")
    with pytest.raises(UserError, match=r"quantized weights can't be trained: quantize needs lora"):
        run("model.quantize=4bit", lora=None)
    with pytest.raises(UserError, match=r"quantize needs pretrained weights"):
        run("model.quantize=4bit", recipe="recipes/sft_hh.yaml")
    with pytest.raises(UserError, match=r"has no linear layer 'q_prj'; did you mean 'q_proj'"):
        run("model.lora.target_modules=[q_prj]")


def test_a_library_that_is_not_there_is_reported_with_its_command(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("alignzoo.models.adapters.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"adapters require peft, which is not installed\n.*pip install 'alignzoo\[lora\]'"
    ):
        run("seed=7")


def test_an_adapter_is_no_start_by_path(run):
    result = run()
    with pytest.raises(
        UserError, match=r"the folder contains an adapter, and a policy starts from whole weights\n.*--merge"
    ):
        alignzoo.run("recipes/sft_hh.yaml", [f"model.path={result.policy}"], ["tests/smallest.yaml"])


def test_adapters_on_random_weights_are_refused_with_what_to_do(run):
    for recipe, overlays, lora in (("sft_hh", [], "model.lora={r: 4}"), ("dpo_hh", ["recipes/scale/lora.yaml"], None)):
        with pytest.raises(UserError, match=r"lora needs pretrained weights, and config creates random ones") as error:
            run(recipe=recipe, lora=lora, overlays=overlays)
        assert "use model.path, or train them whole and name that recipe in model.from" in str(error.value)
