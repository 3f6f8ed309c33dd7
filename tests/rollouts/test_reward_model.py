"""A run on a reward that a recipe trains, with another tokenizer, and the true reward beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from checkout import ROOT
from safetensors.numpy import load_file


@pytest.mark.slow
def test_a_reward_model_is_trained_once_and_scores_the_draws(online, home, plugins):
    """Its scores are those of transformers on the text, with the model's own tokenizer."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = {"config": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
                        "num_attention_heads": 2, "max_position_embeddings": 1024}, "tokenizer": {"train": "bytes"}}  # fmt: skip
    (home / "rm.yaml").write_text(yaml.safe_dump({
        "extends": str(ROOT / "recipes/bases/hh.yaml"), "objective": "bradley_terry", "plugins": plugins, "model": model,
        "train": {"epochs": 1, "optimizer": {"name": "adamw", "learning_rate": 1e-3}},
        "tokens": {"max_length": 900, "max_prompt_length": 800},
    }))  # fmt: skip
    rewards = json.dumps([{"name": "reward_model", "from": str(home / "rm.yaml")}, {"name": "vowels", "weight": 0}])
    options = (f"rollout.rewards={rewards}", "train.max_steps=1", "eval.every=1")
    done = online("dpo", *options)
    (trained,) = (home / "runs").glob("rm-*")
    before = (trained / "summary.json").stat().st_mtime_ns
    metrics = [json.loads(line) for line in (done.folder / "metrics.jsonl").open()]
    for kind in ("rollout", "eval"):
        assert {"reward", "reward_reward_model", "reward_vowels"} <= set(
            next(line for line in metrics if line["kind"] == kind)
        )
    raw = load_file(done.folder / "rollouts/000000/judged/rewards.safetensors")["raw"][0]
    replies = [json.loads(line) for line in (done.folder / "rollouts/000000/judged/replies.jsonl").open()]
    scorer = AutoModelForSequenceClassification.from_pretrained(trained / "policy").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained / "policy")
    assert len(tokenizer) != len(AutoTokenizer.from_pretrained(done.policy))
    prompt, found = "", []
    for one in replies:
        prompt = one.get("prompt", prompt)
        text = f"{prompt} {one['reply']}{tokenizer.eos_token}"
        with torch.no_grad():
            found.append(float(scorer(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits))
    assert np.abs(raw - found).max() < 1e-4
    assert raw.std() > 0
    online("ipo", *options)
    assert (trained / "summary.json").stat().st_mtime_ns == before
