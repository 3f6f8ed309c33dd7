"""Attention over one long row of trees, tree by tree.

The row's one integer for every token, `end`, takes the place of the 4-D mask that a transformers model hands to its
attention untouched. Registered under the name `trees`, the function here reads it and computes each tree by itself: the
prompt causally, then all branches against their tree. What no token may see costs nothing, and no slot is padding.
Given a block mask it is FlexAttention, which a GPU does in one kernel for the whole row. Given any other mask it is
transformers' own SDPA, so that sampling and plain forwards are what they were.
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
    """(1, heads, W, width) queries, keys and values -> (1, W, heads, width), as transformers has it."""
    if isinstance(attention_mask, BlockMask):
        found = attend(query, key, value, attention_mask, **options)
        return found.transpose(1, 2).contiguous(), None
    if not isinstance(attention_mask, Tensor) or attention_mask.dtype != torch.int64:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return _tree_by_tree(query, key, value, attention_mask[0, 0, 0], options.get("scaling")), None


@torch.compiler.disable  # its loop is over the trees of this very row: nothing that compiling could use again
def _tree_by_tree(query: Tensor, key: Tensor, value: Tensor, end: Tensor, scale: float | None) -> Tensor:
    kind = query.dtype
    if query.device.type == "cpu":  # its flash kernel takes longer in bfloat16 than in float32
        query, key, value = (part.to(torch.promote_types(kind, torch.float32)) for part in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    trees = cuts(end)
    widths = [stop - at for at, _, stop in trees]
    pieces = []
    # split, whose backward joins; the backward of a slice of the row would be a row of zeros for each tree
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
    """(start, where its branches fork, stop) of every tree in the row. A single branch is part of the trunk."""
    ends = end.cpu().numpy()
    found, at = [], 0
    while at < len(ends):
        stop = int(ends[at])
        inside = ends[at:stop] != stop  # only the last branch ends where its tree does
        found.append((at, at + int(inside.argmax()) if inside.any() else stop, stop))
        at = stop
    return found


def _seen(end: Tensor, first: int) -> Tensor:
    """(W - first, W) bool of one tree: which of its slots each slot from `first` on may see."""
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
    """Register the attention function, and SDPA's mask for plain forwards, with transformers under `NAME`."""
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
