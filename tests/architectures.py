"""Random-weight models of every architecture that the agreement table names: tiny, seeded, made in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as hf

VOCABULARY = 97
_SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
_GROUPED = _SHAPE | {"num_key_value_heads": 2, "head_dim": 8}
_OLD = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
WINDOW = 7
"""Of the sliding-window models: shorter than the sequences in the tests."""

FOREST: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**_GROUPED),
    "gpt2": lambda: hf.GPT2Config(**_OLD, n_positions=256),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**_SHAPE),
    "gptj": lambda: hf.GPTJConfig(**_OLD, n_positions=256, rotary_dim=8),
    "opt": lambda: hf.OPTConfig(
        **{k: v for k, v in _SHAPE.items() if k != "intermediate_size"}, ffn_dim=64, word_embed_proj_dim=32,
        max_position_embeddings=256,
    ),
    "phi3": lambda: hf.Phi3Config(**_SHAPE),
    "qwen2": lambda: hf.Qwen2Config(**_GROUPED),
    "qwen3": lambda: hf.Qwen3Config(**_GROUPED),
    "mixtral": lambda: hf.MixtralConfig(**_GROUPED, num_local_experts=4),
    "mistral (window)": lambda: hf.MistralConfig(**_GROUPED, sliding_window=WINDOW),
    "gemma3 (window)": lambda: hf.Gemma3TextConfig(
        **_GROUPED, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
}  # fmt: skip
"""Those that take the forest's mask."""

PLAIN: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "bloom": lambda: hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda: hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8),
}
"""Those that can't: position by attention bias, and a state-space model."""


def build(config: hf.PreTrainedConfig, seed: int = 0) -> hf.PreTrainedModel:
    """The model, in float32 and eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return hf.AutoModelForCausalLM.from_config(config).eval()
