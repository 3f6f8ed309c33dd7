"""A packed row of trees as a FlexAttention mask, and attention over it: what a GPU runs.

The mask is the forest's own rule `k <= q < end[k]`. Which blocks of it are empty, full or mixed follows from the least
and the greatest `end` (and, under a window, position) of each block of slots, so no W x W array is ever made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK_SIZE = 128
"""Slots on a block's side: FlexAttention's own default. Rows are widened to a multiple of it, so that no kernel has an
edge to look after and the widths that it is compiled for repeat."""
COMPILED = 64
"""Kernels that may be compiled in a process, for types, widths, windows, with and without gradient. torch stops at 8,
and what comes after runs over the whole matrix of scores."""


def widened(end: Tensor, tokens: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same rows (R, W) with slots at the end that see only themselves, W a multiple of the block's side."""
    width = end.shape[1]
    more = -width % BLOCK_SIZE
    own = torch.arange(width + 1, width + more + 1, device=end.device).expand(len(end), more)
    pad = torch.nn.functional.pad
    return torch.cat([end, own], 1), pad(tokens, (0, more)), pad(position, (0, more))


def block_mask(end: Tensor, position: Tensor, window: int | None = None) -> BlockMask:
    """The mask (1, 1, W, W) of a row, from its `end` and `position` (W,), W a multiple of the block's side."""
    end, position = end.int(), position.int()

    def seen(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < end[k])

    def seen_in_window(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < end[k]) & (position[q] - position[k] < (window or 0))

    ends, depths = end.view(-1, BLOCK_SIZE), position.view(-1, BLOCK_SIZE)
    block = torch.arange(len(ends), device=end.device)
    q, k = block[:, None], block[None, :]
    some = (k <= q) & (q * BLOCK_SIZE < ends.amax(1))
    full = (k < q) & ((q + 1) * BLOCK_SIZE <= ends.amin(1))
    if window is not None:  # bounds: a block that is called mixed may be full or empty, never the other way round
        some &= depths.amin(1)[:, None] - depths.amax(1) < window
        full &= depths.amax(1)[:, None] - depths.amin(1) < window
    mixed = some & ~full
    mask = BlockMask.from_kv_blocks(
        *_listed(mixed), *_listed(some & full), BLOCK_SIZE=BLOCK_SIZE,
        mask_mod=seen if window is None else seen_in_window, seq_lengths=(len(end), len(end)),
    )  # fmt: skip
    mask.ndim = 4  # type: ignore[attr-defined]  # GPT-2 asks its mask for it
    return mask


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 1, blocks) how many of each row of blocks are chosen, and (1, 1, blocks, blocks) which, these first."""
    order = chosen.int().argsort(dim=1, descending=True, stable=True)
    return chosen.sum(1).int()[None, None], order.int()[None, None].contiguous()


def attend(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, **options: Any) -> Tensor:
    """(1, heads, W, width) queries, keys and values -> (1, heads, W, width). Keys and values may have fewer heads.

    Raises ValueError for what would change the scores (a soft cap, sinks, a position bias).
    """
    more = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if more:
        raise ValueError(f"the layer's attention asks for {', '.join(more)}")
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    run: Any = flex_attention if kind == "cpu" or torch.compiler.is_compiling() else _compiled()
    with torch.autocast(kind, enabled=False):
        grouped = query.shape[1] != key.shape[1]
        found: Tensor = run(query, key, value, block_mask=mask, scale=options.get("scaling"), enable_gqa=grouped)
        return found


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    """FlexAttention as kernels. On a CPU torch compiles it without a backward; there it runs as written, for tests."""
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = max(COMPILED, dynamo.recompile_limit)
    compiled: Callable[..., Tensor] = torch.compile(flex_attention)
    return compiled
