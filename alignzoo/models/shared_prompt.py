"""Attention of completions that share their prompts' keys and values.

A prompt's keys and values are stored once, in a slot that all of its completions read; each completion has a row for
its own. Both are allocated once and written in place. Attention over the prompt is one product for all completions of
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from alignzoo.core.arrays import offsets_of

NAME = "shared_prompt"
SUPPORTED = {"scaling", "sliding_window", "dropout", "is_causal", "position_ids", "use_cache"}
"""Options of an attention function that this one applies, or that have no effect on a forward without dropout."""


class PromptCache:
    """Keys and values of prompts and completions, and the prompt of each completion.

    Args:
        slots: The most prompts at a time.
        rows: The most completions at a time.
        width: The most tokens of a prompt.
        new_tokens: The most keys of a completion.
        device: Where the model is.
    """

    def __init__(self, slots: int, rows: int, width: int, new_tokens: int, device: torch.device) -> None:
        self.device = device
        self.slots, self.rows, self.width, self.new_tokens = slots, rows, width, max(1, new_tokens)
        self.lengths = np.zeros(0, np.int64)
        """(S,) tokens of each prompt in use; slots in use come first."""
        self.slot = np.zeros(0, np.int64)
        """(n,) the slot of each row's prompt."""
        self.used = np.zeros(0, np.int64)
        """(n,) keys of each row, without that of the token that a forward adds."""
        self._layers: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._prefill: list[tuple[int, int, int]] = []  # (slot, start, stop) of each prompt of the forward
        self._places: tuple[Tensor, Tensor] | None = None
        self._masks: dict[Any, Tensor | None] = {}
        self._count()

    def add_prompts(self, lengths: Sequence[int]) -> None:
        """Take a slot for each of some prompts, which the next forward has as one row."""
        cuts, first = offsets_of(lengths).tolist(), len(self.lengths)
        self._prefill = [(first + i, cuts[i], cuts[i + 1]) for i in range(len(lengths))]
        self.lengths = np.concatenate([self.lengths, lengths]).astype(np.int64)

    def add_rows(self, slots: NDArray[np.int64]) -> None:
        """Add a row without keys for each of these slots."""
        self._prefill = []
        self.slot = np.concatenate([self.slot, slots])
        self.used = np.concatenate([self.used, np.zeros_like(slots)])
        self._arrange()

    def advance(self) -> None:
        """Count the key that each row has got in a forward."""
        self.used += 1
        self._count()

    def keep(self, active: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Remove all other rows, and prompts that no row reads any more.

        Returns:
            For each row that is left its index before. The last rows fill the gaps, so that little is copied.
        """
        order, gaps = _filled(active)
        longest = int(self.used.max(initial=0))
        for _, _, keys, values in self._layers.values():
            for store in (keys, values):
                _move(store, self.rows, order[gaps], gaps, longest)
        self.slot, self.used = self.slot[order], self.used[order]
        read = np.bincount(self.slot, minlength=len(self.lengths)) > 0
        if not read.all():
            prompts, gaps = _filled(read)
            for keys, values, _, _ in self._layers.values():
                for store in (keys, values):
                    _move(store, self.slots, prompts[gaps], gaps, self.width)
            self.lengths = self.lengths[prompts]
            moved = np.zeros(len(read), np.int64)
            moved[prompts] = np.arange(len(prompts))
            self.slot = moved[self.slot]
        self._arrange()
        return order

    @property
    def positions(self) -> NDArray[np.int64]:
        """(n,) the position of each row's next token."""
        return self.lengths[self.slot] + self.used

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Store a layer's keys and values, (1, kv_heads, N, width), and compute its attention.

        The queries are (1, heads, N, width).
        """
        given = {name for name, value in options.items() if value is not None and value is not False}
        unknown = sorted(given - SUPPORTED)
        if unknown:
            raise NotImplementedError(f"options of attention that are not known here: {', '.join(unknown)}")
        scale = options.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
        window = options.get("sliding_window")
        # as in scoring: a CPU is no faster in bfloat16 here
        kind = torch.promote_types(value.dtype, torch.float32) if value.device.type == "cpu" else value.dtype
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
        layer = self._layers.get(id(module))
        if layer is None:
            layer = self._layers[id(module)] = self._allocate(key, value)
        with torch.autocast(query.device.type, enabled=False):
            if self._prefill:
                return self._attend_prompts(layer, query, key, value, scale, window)
            return self._attend_rows(layer, query, key, value, scale, window)

    def _allocate(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # zeros: what is masked still enters a product, with weight 0
        prompt_key, prompt_value, own_key, own_value = (
            part.new_zeros(count * part.shape[1], width, part.shape[3])
            for count, width in ((self.slots, self.width), (self.rows, self.new_tokens))
            for part in (key, value)
        )
        return prompt_key, prompt_value, own_key, own_value

    def _attend_prompts(
        self, layer: tuple[Tensor, ...], query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
    ) -> Tensor:
        heads, pieces = key.shape[1], []
        repeats = query.shape[1] // heads
        for slot, start, stop in self._prefill:
            own = slice(slot * heads, (slot + 1) * heads), slice(0, stop - start)
            q, k, v = (part[:, :, start:stop] for part in (query, key, value))
            layer[0][own], layer[1][own] = k[0], v[0]
            if repeats > 1:
                k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
            seen = None
            if window is not None and window < stop - start:
                position = torch.arange(stop - start, device=query.device)
                apart = position[:, None] - position
                seen = (apart >= 0) & (apart < window)
            pieces.append(
                nn.functional.scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None, scale=scale)
            )
        return torch.cat(pieces, 2).transpose(1, 2)

    def _attend_rows(
        self, layer: tuple[Tensor, ...], query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
    ) -> Tensor:
        n, heads, slots = len(self.slot), key.shape[1], len(self.lengths)
        own_keys, prompt_keys = self._longest + 1, self._longest_prompt
        self._store(layer[2], key)
        self._store(layer[3], value)
        q = (query[0].transpose(0, 1) * scale).reshape(n * heads, -1, query.shape[3])
        repeats = q.shape[1]
        own = _product(q, layer[2][: n * heads, :own_keys].transpose(1, 2))
        if (hidden := self._own_mask(window, own_keys, heads)) is not None:
            own.masked_fill_(hidden, torch.finfo(own.dtype).min)

        # from rows (n, heads, repeats) to prompts (slots, heads, rows of the prompt, repeats), and back
        def to_prompts(rows: Tensor) -> Tensor:
            rows = rows.view(n, heads, repeats, -1)
            rows = rows if self._places is None else rows.index_select(0, self._places[0])
            rows = rows.view(slots, -1, heads, repeats, rows.shape[3])
            return rows.transpose(1, 2).reshape(slots * heads, -1, rows.shape[4])

        def to_rows(prompts: Tensor) -> Tensor:
            prompts = prompts.view(slots, heads, -1, repeats, prompts.shape[2]).transpose(1, 2).flatten(0, 1)
            return prompts if self._places is None else prompts.index_select(0, self._places[1])

        shared = _product(to_prompts(q), layer[0][: slots * heads, :prompt_keys].transpose(1, 2))
        if (hidden := self._prompt_mask(window, shared.shape[1] // repeats, repeats, heads)) is not None:
            shared.masked_fill_(hidden, torch.finfo(shared.dtype).min)
        probs = torch.cat([shared, to_prompts(own)], 2).softmax(2).to(value.dtype)
        found = to_rows(torch.bmm(probs[:, :, :prompt_keys], layer[1][: slots * heads, :prompt_keys]))
        rest = to_rows(probs[:, :, prompt_keys:]).reshape(n * heads, repeats, -1)
        rest = torch.bmm(rest, layer[3][: n * heads, :own_keys])
        return (found.reshape(rest.shape) + rest).view(1, n, heads * repeats, -1)

    def _store(self, store: Tensor, new: Tensor) -> None:
        """Write the keys or values of the new token of each row, (1, kv_heads, n, width)."""
        n = len(self.slot)
        rows = store.view(self.rows, new.shape[1], self.new_tokens, -1)
        if self._shortest == self._longest:
            rows[:n, :, self._longest] = new[0].transpose(0, 1)
        else:
            at = self._remember("used", lambda: torch.from_numpy(self.used).to(self.device))
            every = self._remember("rows", lambda: torch.arange(n, device=self.device))
            rows[every, :, at] = new[0].transpose(0, 1)

    def _own_mask(self, window: int | None, longest: int, heads: int) -> Tensor | None:
        """Return the mask (n kv_heads, 1, T) of a row's hidden own keys, None if none is hidden."""

        def make() -> Tensor | None:
            if self._shortest + 1 == longest and (window is None or longest <= window):
                return None
            apart = self.used[:, None] - np.arange(longest)
            hidden = (apart < 0) | (apart >= (window or longest))
            return torch.from_numpy(hidden[:, None].repeat(heads, 0)).to(self.device)

        return self._remember(("own", window), make)

    def _prompt_mask(self, window: int | None, each: int, repeats: int, heads: int) -> Tensor | None:
        """Return the mask of the hidden keys of a row's prompt, None if none is hidden.

        Its shape is (S kv_heads, 1 or queries, P).
        """

        def make() -> Tensor | None:
            lengths, longest = self.lengths, self._longest_prompt
            hidden = (np.arange(longest) >= lengths[:, None])[:, None]
            if window is not None and int(self.positions.max()) >= window:
                position = self.positions if self._places is None else self.positions[self._places[0].cpu().numpy()]
                far = position.reshape(len(lengths), each, 1) - np.arange(longest) >= window
                hidden = (hidden | far).repeat(repeats, 1)
            elif int(lengths.min()) == longest:
                return None
            return torch.from_numpy(hidden.repeat(heads, 0)).to(self.device)

        return self._remember(("prompt", window), make)

    def _remember(self, key: Any, make: Any) -> Any:
        """Return a value that all layers of a forward share."""
        if key not in self._masks:
            self._masks[key] = make()
        return self._masks[key]

    def _count(self) -> None:
        """Count keys anew after a change."""
        self._masks = {}
        self._longest = int(self.used.max(initial=0))
        self._shortest = int(self.used.min(initial=self._longest))
        self._longest_prompt = int(self.lengths.max(initial=0))

    def _arrange(self) -> None:
        """Find a place for each row in a rectangle of prompts by the largest group of rows."""
        self._count()
        counts = np.bincount(self.slot, minlength=len(self.lengths))
        each = int(counts.max(initial=0))
        order = np.argsort(self.slot, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        place = self.slot * each + rank
        if len(place) == each * len(counts) and (place == np.arange(len(place))).all():
            self._places = None
            return
        rows = np.zeros(each * len(counts), np.int64)
        rows[place] = np.arange(len(place))
        self._places = torch.from_numpy(rows).to(self.device), torch.from_numpy(place).to(self.device)


def _product(query: Tensor, keys: Tensor) -> Tensor:
    """Return scores (B, Q, K) in float32, or float64 for such a model."""
    scores = torch.bmm(query, keys)
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _filled(active: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sources of the compacted places, the last ones in the gaps, and the gaps."""
    count = int(active.sum())
    order = np.arange(count)
    gaps = np.flatnonzero(~active[:count])
    order[gaps] = count + np.flatnonzero(active[count:])
    return order, gaps


def _move(store: Tensor, count: int, source: NDArray[np.int64], target: NDArray[np.int64], width: int) -> None:
    """Copy the first `width` keys of some rows or prompts of a store to the places of others."""
    if len(source):
        view = store.view(count, -1, *store.shape[1:])
        at, to = (torch.from_numpy(one).to(store.device) for one in (source, target))
        view[to, :, :width] = view[at, :, :width]


_current: list[PromptCache] = []


@torch.compiler.disable
def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    return _current[-1].attend(module, query, key, value, **options).to(query.dtype), None


AttentionInterface.register(NAME, _attention)


@contextmanager
def shared_prompt_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model that attends by SDPA attend by shared prompts inside the block."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def attending(cache: PromptCache) -> Iterator[None]:
    """Let forwards inside the block use this cache."""
    _current.append(cache)
    try:
        yield
    finally:
        _current.pop()
