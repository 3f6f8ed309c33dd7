"""Attention over one long row of trees, tree by tree.

The row's integer for every token, `end`, is passed in place of the 4-D mask, which a transformers model hands to its
attention unchanged. The function here, registered as `trees`, computes each tree by itself: the prompt causally, then
all branches against their tree. Masked blocks cost nothing, and no slot is padding. Given a block mask it runs
FlexAttention, one kernel for the whole row. Given any other mask it runs transformers' own SDPA, so that sampling and
plain forwards do not change.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from alignzoo.models.attention import NAME
from alignzoo.scoring.flex_attention import attend


def tree_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attend by trees: (1, heads, W, width) queries, keys and values -> (1, W, heads, width)."""
    if isinstance(attention_mask, BlockMask):
        found = attend(query, key, value, attention_mask, **options)
        return found.transpose(1, 2).contiguous(), None
    if not isinstance(attention_mask, Tensor) or attention_mask.dtype != torch.int64:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return _tree_by_tree(query, key, value, attention_mask[0, 0, 0], options.get("scaling")), None


@torch.compiler.disable  # a loop over this row's trees, which no other row would share
def _tree_by_tree(query: Tensor, key: Tensor, value: Tensor, end: Tensor, scale: float | None) -> Tensor:
    kind = query.dtype
    if query.device.type == "cpu":  # its flash kernel takes longer in bfloat16 than in float32
        query, key, value = (part.to(torch.promote_types(kind, torch.float32)) for part in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    trees = cuts(end)
    widths = [stop - at for at, _, stop in trees]
    pieces = []
    # split: its backward concatenates, while that of a slice makes a row of zeros for each tree
    for (at, fork, stop), q, k, v in zip(trees, *(part.split(widths, 2) for part in (query, key, value)), strict=True):
        trunk = fork - at
        if fork == stop:
            pieces.append(_attend(q, k, v, None, scale))
            continue
        above, below = q.split([trunk, stop - fork], 2)
        pieces.append(_attend(above, k[:, :, :trunk], v[:, :, :trunk], None, scale))
        pieces.append(_attend(below, k, v, _seen(end[at:stop], trunk), scale))
    return torch.cat(pieces, 2).transpose(1, 2).to(kind).contiguous()


def cuts(end: Tensor) -> list[tuple[int, int, int]]:
    """Return (start, fork, stop) of every tree in the row.

    A single branch is part of the trunk.
    """
    ends = end.cpu().numpy()
    found, at = [], 0
    while at < len(ends):
        stop = int(ends[at])
        inside = ends[at:stop] != stop  # only the last branch ends where its tree does
        found.append((at, at + int(inside.argmax()) if inside.any() else stop, stop))
        at = stop
    return found


def _seen(end: Tensor, first: int) -> Tensor:
    """Return (W - first, W) bool of one tree: the slots visible to each slot from `first` on."""
    slot = torch.arange(len(end), device=end.device)
    q = slot[first:, None]
    base = int(end[0]) - len(end)
    return (slot <= q) & (q < end - base)


def _attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, scale: float | None) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=seen is None, scale=scale
        )


def register_tree_attention() -> None:
    """Register tree attention with transformers under `NAME`.

    Plain forwards use SDPA's mask.
    """
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
