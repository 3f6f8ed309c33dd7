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

_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0, 3.0, 4.0, 8.0],
}
CHANGING: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "deepseek_v32 (top 16)": lambda: hf.AutoConfig.for_model(
        "deepseek_v32", **_SHAPE, num_key_value_heads=4, index_topk=16, index_n_heads=4, index_head_dim=16,
        q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=32, first_k_dense_replace=1,
    ),
    "gpt_neo (window)": lambda: hf.GPTNeoConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=4, window_size=64, max_position_embeddings=512,
        attention_types=[[["global", "local"], 1]], bos_token_id=0, eos_token_id=0,
    ),
    "llama4 (chunk)": lambda: hf.Llama4TextConfig(
        **_GROUPED | {"num_hidden_layers": 4}, intermediate_size_mlp=64, num_local_experts=4, attention_chunk_size=64,
    ),
    "phi3 (longrope)": lambda: hf.Phi3Config(
        **_SHAPE, max_position_embeddings=512, original_max_position_embeddings=64, rope_parameters=dict(_LONGROPE),
    ),
    "gemma3 (longrope)": lambda: hf.Gemma3TextConfig(
        **_GROUPED, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=512, rope_parameters={
            "full_attention": _LONGROPE | {"original_max_position_embeddings": 64},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "llama (dynamic rope)": lambda: hf.LlamaConfig(
        **_GROUPED, max_position_embeddings=64,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    ),
    "recurrent_gemma": lambda: hf.RecurrentGemmaConfig(
        **_SHAPE | {"num_hidden_layers": 3}, num_key_value_heads=1, head_dim=8, lru_width=32, attention_window_size=32,
        block_types=["recurrent", "recurrent", "attention"],
    ),
    "qwen3_next": lambda: hf.Qwen3NextConfig(
        **_GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32,
        layer_types=["linear_attention", "full_attention"], linear_num_value_heads=4, linear_num_key_heads=2,
        linear_key_head_dim=8, linear_value_head_dim=8,
    ),
    "mistral (window)": FOREST["mistral (window)"],
    "mixtral (8 experts)": lambda: hf.MixtralConfig(**_GROUPED, num_local_experts=8),
}  # fmt: skip
"""Those that behave differently beyond a length, or whose experts are chosen at near ties."""


def spread(model: hf.PreTrainedModel, deviation: float = 0.1, seed: int = 0) -> hf.PreTrainedModel:
    """The model with every matrix drawn anew: the initial weights are so small that a wrong mask hardly shows."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, deviation, generator=generator)
    return model


def build(config: hf.PreTrainedConfig, seed: int = 0) -> hf.PreTrainedModel:
    """The model, in float32 and eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return hf.AutoModelForCausalLM.from_config(config).eval()
