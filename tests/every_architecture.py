"""Tiny models of every causal-LM architecture that transformers knows, made by shrinking each default config."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers as hf
from architectures import spread
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

from alignzoo.data.trees import Branch, Tree
from alignzoo.scoring.forest import sequences

VOCABULARY = 97
LENGTHS = (20, 80, 66, 62, 12)
"""Tokens of the longest sequence of each row: below and above 64, where windows, chunks and frequencies change."""
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "is_decoder": True, "hidden_size": 32, "n_embd": 32, "d_model": 32,
    "intermediate_size": 64, "ffn_dim": 64,
    "decoder_ffn_dim": 64, "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "decoder_layers": 2, "n_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 8, "moe_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": 16,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "qk_head_dim": 16,
    "sliding_window": 64, "window_size": 64, "attention_chunk_size": 64, "attention_window_size": 64,
    "sliding_window_size": 64, "index_topk": 16, "index_n_heads": 4, "index_head_dim": 16, "state_size": 8,
    "lru_width": 32, "shared_expert_intermediate_size": 32, "expert_ffn_hidden_size": 32, "max_position_embeddings": 256,
    "n_positions": 256, "rotary_dim": 8, "rotary_pct": 1.0, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
    "word_embed_proj_dim": 32, "embedding_size": 32, "num_experts_per_token": 2, "first_k_dense_replace": 1,
    "intermediate_size_mlp": 64, "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "dim": 32, "decoder_hidden_size": 32, "attention_hidden_size": 32, "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY, "shared_intermediate_size": 64, "moe_topk": 2, "moe_num_experts": 4,
    "moe_k": 2, "ffn_hidden_size": 64, "global_head_dim": 8, "num_global_key_value_heads": 4, "block_size": 64,
}  # fmt: skip
PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "no_rope_layers", "moe_layers")


def names() -> list[str]:
    """Model types with a causal language model."""
    return sorted(KNOWN)


def tiny(name: str, seed: int = 0) -> hf.PreTrainedModel:
    """A model of two to four layers in float32, random weights of deviation .1. Raises what transformers raises."""
    whole = hf.AutoConfig.for_model(name)
    text = whole.get_text_config(decoder=True)
    own = text.to_dict()
    wanted = {
        key: value for key, value in SMALL.items() if isinstance(own.get(key), int | float) or own.get(key) is None
    }
    wanted = {key: value for key, value in wanted.items() if key in own or hasattr(text, key)}
    wanted = {key: value for key, value in wanted.items() if not isinstance(getattr(type(text), key, None), property)}
    if isinstance(own.get("head_dim"), list | dict):
        wanted.pop("head_dim", None)
    for key in PER_LAYER:
        kinds = own.get(key)
        if isinstance(kinds, list) and kinds:  # two layers, as different as they come
            different = sorted(dict.fromkeys(map(str, kinds)), key=list(map(str, kinds)).index)
            by_name = {str(kind): kind for kind in kinds}
            wanted[key] = [by_name[one] for one in (different * 2)[:2]]
    config = type(text)(**wanted)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in hf.AutoModelForCausalLM.from_config(config).parameters())
    if size > 2_000_000:
        raise ValueError(f"{size:,} parameters are not tiny: its config has settings with names of their own")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spread(hf.AutoModelForCausalLM.from_config(config).eval())


def trees_of(lengths: tuple[int, ...], seed: int = 0) -> list[Tree]:
    """Rows of random tokens with two completions each; the longest sequence of each has these lengths."""
    rng = np.random.default_rng(seed)

    def some(count: int) -> np.ndarray:
        return rng.integers(3, VOCABULARY - 3, count).astype(np.int32)

    return [
        Tree(f"row {i}", some(n - n // 4), (Branch(some(n // 4)), Branch(some(n // 8)))) for i, n in enumerate(lengths)
    ]


def sequence_oracle(model: hf.PreTrainedModel, trees: list[Tree]) -> torch.Tensor:
    """Token log-probs of every sequence by the untouched model, float32."""
    found = []
    for tree, branch in sequences(trees):
        ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()
        first = len(tree.prompt) + branch.context
        with torch.no_grad():
            logits = model(ids[None], use_cache=False).logits[0].float()
        found.append(logits.log_softmax(-1)[first - 1 : -1].gather(1, ids[first:, None])[:, 0])
    return torch.cat(found)
