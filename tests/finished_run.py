"""A finished run made by hand: its files as a run writes them, around a tiny model, without a step of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

SUMMARY: dict[str, Any] = {
    "name": "dpo_pairs", "fingerprint": "ab" * 16, "finished": True, "objective": {"name": "dpo", "beta": 0.1},
    "model": {"start": "transformers", "parameters": 1000, "weights": "cd" * 16, "trained_weights": "ef" * 16},
    "data": {"train": 4798, "held_out": 400},
    "eval": {"n": 400, "loss": 0.6, "loss_before": 0.69, "preference_accuracy": 0.75, "preference_accuracy_se": 0.0216506,
             "preference_accuracy_before": 0.5, "likelihood_accuracy": 0.6, "margin": 0.4, "entropy": 2.0, "entropy_se": 0.1,
             "hard/n": 100, "hard/loss": 0.7, "hard/preference_accuracy": 1.0, "hard/preference_accuracy_se": 0.0},
    "judges": {"length": {"reward": 1.5, "reward_se": 0.5, "reward_n": 16, "reward_before": 1.0, "win_rate_over_start": 0.75,
                          "win_rate_over_start_se": 0.1, "win_rate_over_start_n": 16}, "broken": {"problem": "gone"}},
    "train": {"steps": 300, "pairs": 4800, "seconds": 40.0, "pairs_per_second": 120.0, "tokens_per_second": 1e4, "final_loss": 0.3},
    "reference": {"rows_scored": 0, "rows_cached": 5400}, "layout": {"used": "padded", "reason": "agrees"},
    "peak_memory_bytes": 1, "versions": {"alignzoo": "0.2.0", "torch": "2.13.0"}, "processes": 1, "plugins": [],
}  # fmt: skip
RECIPE: dict[str, Any] = {
    "name": "dpo_pairs", "objective": {"name": "dpo", "beta": 0.1},
    "model": {"name": "transformers", "path": "meta-llama/Llama-3.2-1B", "revision": None, "dtype": "float32"},
    "data": {"name": "hub", "path": "Anthropic/hh-rlhf"},
    "train": {"batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 1e-4}, "schedule": {"name": "linear"},
              "precision": "float32"},
    "seed": 3,
}  # fmt: skip
WORDS = [f"w{i}" for i in range(1, 32)]


def finished_run(folder: Path, summary: dict[str, Any] | None = None, weights: bool = True, **recipe: Any) -> Path:
    """Write a run folder and return it. `recipe` replaces sections, `summary` top keys; False leaves the weights out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | recipe, sort_keys=False))
    (folder / "summary.json").write_text(json.dumps(SUMMARY | (summary or {})))
    (folder / "policy").mkdir(exist_ok=True)
    if not weights:
        (folder / "policy" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        return folder
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=32, **small)).save_pretrained(folder / "policy")
    ids = {"<eos>": 0} | {word: i for i, word in enumerate(WORDS, 1)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(ids, "<eos>")), eos_token="<eos>")
    tokenizer.save_pretrained(folder / "policy")
    return folder
