"""FlexAttention over a packed row of trees, for GPUs, and its block mask.

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
"""Slots on a block's side, FlexAttention's own default. Rows are widened to a multiple of it, so that no kernel handles
an edge and the compiled widths repeat."""
COMPILED = 64
"""Kernels that a process may compile, for dtypes, widths and windows, with and without gradient.

torch's own limit is 8. Beyond it the full matrix of scores is computed."""


def widened(end: Tensor, tokens: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Widen rows (R, W) to a multiple of the block's side.

    Each new slot is visible to itself alone.
    """
    width = end.shape[1]
    more = -width % BLOCK_SIZE
    own = torch.arange(width + 1, width + more + 1, device=end.device).expand(len(end), more)
    pad = torch.nn.functional.pad
    return torch.cat([end, own], 1), pad(tokens, (0, more)), pad(position, (0, more))


def block_mask(end: Tensor, position: Tensor, window: int | None = None) -> BlockMask:
    """Build a row's mask (1, 1, W, W) from its `end` and `position` (W,).

    W is a multiple of the block's side.
    """
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
    if window is not None:  # bounds: a block called mixed may be full or empty, but never the reverse
        some &= depths.amin(1)[:, None] - depths.amax(1) < window
        full &= depths.amax(1)[:, None] - depths.amin(1) < window
    mixed = some & ~full
    mask = BlockMask.from_kv_blocks(
        *_listed(mixed), *_listed(some & full), BLOCK_SIZE=BLOCK_SIZE,
        mask_mod=seen if window is None else seen_in_window, seq_lengths=(len(end), len(end)),
    )  # fmt: skip
    mask.ndim = 4  # type: ignore[attr-defined]  # read by GPT-2
    return mask


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return counts of chosen blocks in each row, and indices with chosen blocks first.

    Shapes: (1, 1, blocks) and (1, 1, blocks, blocks).
    """
    order = chosen.int().argsort(dim=1, descending=True, stable=True)
    return chosen.sum(1).int()[None, None], order.int()[None, None].contiguous()


def attend(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, **options: Any) -> Tensor:
    """Run FlexAttention on queries, keys and values of shape (1, heads, W, width).

    Keys and values may have fewer heads. Raises ValueError for options that change the scores: a soft cap, sinks, a
    position bias.
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
    """Compile FlexAttention.

    A CPU has no compiled backward, so there it runs uncompiled, for tests.
    """
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = max(COMPILED, dynamo.recompile_limit)
    compiled: Callable[..., Tensor] = torch.compile(flex_attention)
    return compiled
