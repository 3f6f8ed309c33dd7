"""A tiny model, rows of pairs and a recipe without either, all in memory."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

TRAIN = {"batch_size": 4, "optimizer": {"name": "adamw", "learning_rate": 1e-3}, "max_steps": 2, "device": "cpu"}
RECIPE = {
    "objective": "dpo", "train": TRAIN, "eval": {"replies": {"num_prompts": 0, "max_new_tokens": 4}}, "reporters": [],
}  # fmt: skip
ROWS = [{"prompt": f"{n}+1?", "chosen": f" {n + 1}", "rejected": f" {n}"} for n in range(14)]


def make_model(seed: int = 0, **config) -> LlamaForCausalLM:
    """A model of the byte tokenizer's vocabulary, with random weights."""
    torch.manual_seed(seed)
    fields = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "max_position_embeddings": 128, "eos_token_id": 1, "bos_token_id": 0}  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**fields | config))
