"""Models on the meta device: architecture, shapes and types without memory for weights.

What a run needs of a model can be checked and counted before the weights are downloaded or drawn.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.data.token_store import vocabulary_size
from alignzoo.models.adapters import NEW_HEAD, add_adapters
from alignzoo.models.attention import NAME, can_attend_by_trees
from alignzoo.models.embeddings import embedding_rows
from alignzoo.models.from_pretrained import call_from_pretrained
from alignzoo.models.loading import auto_class, config_from_fields

if TYPE_CHECKING:
    from alignzoo.interfaces.model_source import Lora, ModelSource


COUNTED = f"{NAME}_counted"
"""Name, in transformers, of the attention whose memory is counted."""
SHORT = 64
"""Tokens of the row that is counted where bytes grow as the tokens do."""


def read_config(source: ModelSource, tokenizer: PreTrainedTokenizerBase, head: str, start: Path | None = None) -> Any:
    """Return the transformers config of a policy, or None if only its loader knows it.

    Args:
        source: The recipe's model source.
        tokenizer: The policy's tokenizer.
        head: `language_model`, or `scalar` for a reward model.
        start: Policy folder of the run that this run starts from.

    Raises:
        UserError: There is no such config, or transformers refuses it.
    """
    if start is None and (fields := getattr(source, "config", None)) is not None:
        return config_from_fields(fields, tokenizer, head)
    path, revision = (str(start), None) if start is not None else source.origin or (None, None)
    if path is None:
        return None
    return call_from_pretrained(AutoConfig, path, revision, "config", source.runs_code)


def meta_model(
    config: Any, dtype: str, head: str, outputs: int = 1, trust: bool = False, vocabulary: int = 0,
    lora: Lora | None = None,
) -> PreTrainedModel:  # fmt: skip
    """Build the model of a config, with adapters, without memory for its weights.

    Args:
        config: The transformers config.
        dtype: Type of the weights.
        head: `language_model`, or `scalar` for a reward model.
        outputs: Number of a reward model's outputs.
        trust: Allow running Python code that comes with the config.
        vocabulary: Number of ids that the embeddings have room for, after a chat template's new tokens.
        lora: The adapters, if any.

    Raises:
        UserError: A target layer of the adapters does not exist.
    """
    if head == "scalar":
        config.num_labels = outputs
    with torch.device("meta"):
        model: PreTrainedModel = auto_class(head).from_config(
            config, dtype=getattr(torch, dtype), trust_remote_code=trust
        )
        if vocabulary > embedding_rows(model):
            model.resize_token_embeddings(vocabulary, mean_resizing=False)
        setattr(model, NEW_HEAD, head == "scalar")
        model.eval()
        if lora is not None:
            add_adapters(model, lora, 0)
    return model


def room_for(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the ids that a chat template's new tokens need embeddings for; 0 without."""
    return vocabulary_size(tokenizer) if getattr(source, "chat_template", None) else 0


def saved_bytes(model: PreTrainedModel, slots: int, width: int, autocast: bool, device: str) -> int:
    """Return the bytes that a forward keeps for the backward, beside the weights.

    The forward runs on fake tensors, which have shapes and no memory. The head is left out: it runs in slices. Of an
    attention that can be replaced, the arrays that the layout `packed` keeps are counted. They grow as the slots do, so
    that short rows are enough.

    Args:
        model: A model on the meta device. Its parameters are replaced by fake ones.
        slots: Token slots of the micro-batch.
        width: Tokens of a row, for an attention that can't be replaced.
        autocast: Run under bfloat16 autocast, which keeps narrow copies of the weights too.
        device: `cpu`, where attention is computed in float32 and each query head has its own keys, or another.
    """
    replaced = can_attend_by_trees(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        own = _materialize(model)
        if replaced:
            _replace_attention(model, device == "cpu")
            width = SHORT
        width = min(width, slots)
        first = _kept(model, width, autocast, own)
        if not autocast:
            return first * slots // width
        both = _kept(model, 2 * width, autocast, own)
        return first + (both - first) * (slots - width) // width


def _kept(model: PreTrainedModel, width: int, autocast: bool, own: Collection[int]) -> int:
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if (key := storage._cdata) not in own:
            kept[key] = (tensor, storage.nbytes())  # the tensor is kept, so that no other gets its number
        return tensor

    inputs: dict[str, Any] = {"input_ids": torch.zeros((1, width), dtype=torch.long)}
    if "position_ids" in inspect.signature(model.base_model.forward).parameters:
        inputs["position_ids"] = torch.arange(width)[None]
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, autocast):
        model.base_model(**inputs, use_cache=False)
    return sum(size for _, size in kept.values())


def _materialize(model: nn.Module) -> set[int]:
    """Replace meta parameters and buffers by fake ones; return their storages."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for name, one in list(module._parameters.items()):
            if one is not None:
                if id(one) not in made:
                    made[id(one)] = nn.Parameter(torch.empty(one.shape, dtype=one.dtype), one.requires_grad)
                module._parameters[name] = made[id(one)]  # type: ignore[assignment]
        for name, other in list(module._buffers.items()):
            if other is not None:
                made[id(other)] = module._buffers[name] = torch.empty(other.shape, dtype=other.dtype)
    return {one.untyped_storage()._cdata for one in made.values()}


class _Attention(torch.autograd.Function):
    """An attention that computes nothing, and keeps what a flash kernel keeps."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found = torch.empty_like(query[..., : value.shape[-1]])
        ctx.save_for_backward(query, key, value, found, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return found


def _replace_attention(model: PreTrainedModel, on_cpu: bool) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import repeat_kv

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        kind = query.dtype
        if on_cpu:  # as `tree_attention`
            query, key, value = (part.to(torch.promote_types(kind, torch.float32)) for part in (query, key, value))
            groups = query.shape[1] // key.shape[1]
            key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        found: Tensor = _Attention.apply(query, key, value)
        return found.transpose(1, 2).to(kind).contiguous(), None

    AttentionInterface.register(COUNTED, attention)
    AttentionMaskInterface.register(COUNTED, lambda *_, **__: None)
    model.set_attn_implementation(COUNTED)
