"""Decode token by token, with the fastest strategy that equals the model's forward pass.

Shared prompts, left padding, a key-value cache, or a window that the cache has passed can change a model's logits. Each
strategy is therefore tested in float32, on sequences like those to generate, before it is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.core.memory import handle_out_of_memory, out_of_memory
from alignzoo.models.continuous_batching import Capacity, SharedBatch
from alignzoo.models.oracle import in_float32, limit_of, sequence_logits
from alignzoo.models.positions import first_position
from alignzoo.models.probes import turning_points
from alignzoo.models.rope import length_rules, reset_frequencies
from alignzoo.models.shared_prompt import shared_prompt_attention

CACHE_NAMES = ("cache", "past_key_values")
"""Names of the key-value cache among the arguments of a forward pass."""
SHARED, BATCHED, SINGLE, UNCACHED = "shared", "batched", "single", "uncached"
STRATEGIES = (SHARED, BATCHED, SINGLE, UNCACHED)
"""Replies that share prompts; batches of whole sequences with the model's own cache; one sequence at a time; one
without a cache, which is the oracle. Fastest first."""
TEST_STEPS = 8
"""Number of tokens that a test of a strategy decodes."""
_choices: WeakKeyDictionary[PreTrainedModel, dict[tuple[Any, ...], str]] = WeakKeyDictionary()


class DecodingBatch:
    """Batch of sequences, padded on the left, that grow by one token at a time.

    A model without a key-value cache reads the whole sequences for each token.

    Args:
        model: The model.
        prompts: Token ids of the prompts.
        cached: Use the model's cache if it has one.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[NDArray[Any]], cached: bool = True) -> None:
        self.model, self.arguments = model, forward_arguments(model)
        self.first_position, self.alone = first_position(model), len(prompts) == 1
        self.cache: Any = None
        self.cache_name = next((name for name in CACHE_NAMES if name in self.arguments), None) if cached else None
        self.can_shrink = not is_recurrent(model)
        """True if rows can be removed from the cache. A recurrent state does not support this."""
        self.rules = length_rules(model.config)
        self.frequency_key = -1
        width = max(map(len, prompts))
        ids = np.zeros((2, len(prompts), width), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[0, row, width - len(prompt) :] = prompt
            ids[1, row, width - len(prompt) :] = 1
        self.ids, self.mask = torch.from_numpy(ids).to(model.device)

    def logits(self) -> Tensor:
        """Return logits (B, V) after the last token of each sequence, in float32 or wider.

        They are float64 for a model in float64.
        """
        if self.rules:
            self._drop_outdated_cache()
        new = self.ids if self.cache is None else self.ids[:, -1:]
        inputs: dict[str, Any] = {"input_ids": new, "use_cache": self.cache_name is not None, "logits_to_keep": 1}
        inputs["attention_mask"] = self.mask
        if not (self.first_position and self.alone):  # a sequence alone is left to count for itself
            position = (self.mask.cumsum(1) - 1).clamp(min=0) + self.first_position
            inputs["position_ids"] = position[:, -new.shape[1] :]
        inputs = {name: value for name, value in inputs.items() if name in self.arguments}
        if self.cache_name is not None:
            inputs[self.cache_name] = self.cache
        output = self.model(**inputs)
        self.cache = getattr(output, self.cache_name, None) if self.cache_name is not None else None
        logits: Tensor = output.logits[:, -1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _drop_outdated_cache(self) -> None:
        """Drop cached keys if the rotary frequencies of the current length differ from theirs."""
        length = int(self.mask.sum(1).max())
        thresholds = [
            0,
            *(length - rule.threshold if rule.every else 1 for rule in self.rules if length > rule.threshold),
        ]
        if sum(thresholds) != self.frequency_key:
            self.cache, self.frequency_key = None, sum(thresholds)
        reset_frequencies(self.model)

    def append(self, tokens: Tensor, active: NDArray[np.bool_]) -> None:
        """Append one token (B,) to each sequence, as masked padding where `active` (B,) is False."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        more = torch.from_numpy(active[:, None]).to(self.mask)
        self.mask = torch.cat([self.mask, more], 1)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Remove all rows from the batch except these."""
        at = torch.from_numpy(rows).to(self.ids.device)
        self.ids, self.mask = self.ids[at], self.mask[at]
        if self.cache is not None:
            self.cache.batch_select_indices(at)


def forward_arguments(model: PreTrainedModel) -> set[str]:
    """Return the names of the arguments of a model's forward pass."""
    parameters = inspect.signature(model.forward).parameters
    passed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return set(parameters) | (set(inspect.signature(model.base_model.forward).parameters) if passed_on else set())


def is_recurrent(model: PreTrainedModel) -> bool:
    """Return True if padding would enter a recurrent state.

    Batches then need sequences of one length.
    """
    return bool(getattr(model, "_is_stateful", False)) or not set(CACHE_NAMES) & forward_arguments(model)


def can_share(model: PreTrainedModel) -> bool:
    """Return True if the model's attention can be replaced, and its forward takes positions."""
    if model.config._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
        return False
    needed = {"position_ids", "attention_mask", "logits_to_keep"}
    return needed <= forward_arguments(model) and not is_recurrent(model) and not length_rules(model.config)


def crosses_length_rule(model: PreTrainedModel, prompt: NDArray[Any], max_new_tokens: int) -> bool:
    """Return True if the sequence may pass a length at which rotary frequencies change."""
    return any(len(prompt) + max_new_tokens > rule.threshold for rule in length_rules(model.config))


def choose_strategy(model: PreTrainedModel, prompts: Sequence[NDArray[Any]], limits: Sequence[int]) -> str:
    """Return the fastest of STRATEGIES whose log-probs equal the model's own forward pass.

    The test sequences have the shortest and the longest prompt, the longest prompt with its reply, and a length on both
    sides of every turning point of the config. The result is kept for sequences of similar lengths.

    Args:
        model: The model, in eval mode and without gradient.
        prompts: Token ids of the prompts.
        limits: Maximum number of new tokens for each prompt.
    """
    shortest, longest = min(map(len, prompts)), max(map(len, prompts))
    end = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
    points = [point for point in turning_points(model.config) if shortest < point < end]
    lengths = (tuple(points), end.bit_length(), model.config._attn_implementation)
    choices = _choices.setdefault(model, {})
    if lengths not in choices:
        sizes = [shortest + TEST_STEPS, longest + TEST_STEPS, end, *(point + TEST_STEPS // 2 for point in points)]
        if is_recurrent(model):
            sizes = [end, end]
        choices[lengths] = _fastest_exact(model, np.concatenate(list(prompts)), [min(size, end) for size in sizes])
    return choices[lengths]


def _fastest_exact(model: PreTrainedModel, tokens: NDArray[Any], sizes: Sequence[int]) -> str:
    rows = [np.resize(np.roll(tokens, -row), size) for row, size in enumerate(sizes)]
    for wide in (True, False):
        again = handle_out_of_memory(lambda error: None) if wide else nullcontext()
        with again, in_float32(model, wide):
            expected = [_oracle_log_probs(model, row) for row in rows]
            names = STRATEGIES[0 if can_share(model) else 1 : -1]
        return next((name for name in names if _is_exact(model, rows, expected, name)), UNCACHED)
    raise AssertionError


def _start(row: NDArray[Any]) -> int:
    return max(1, len(row) - TEST_STEPS)


def _oracle_log_probs(model: PreTrainedModel, row: NDArray[Any]) -> Tensor:
    """Return log-probs (steps, V) of the token at each of the last positions."""
    if length_rules(model.config):
        logits = torch.stack([sequence_logits(model, row[:n])[-1] for n in range(_start(row), len(row))])
    else:
        logits = sequence_logits(model, row[:-1])[_start(row) - 1 :]
    return logits.float().log_softmax(-1)


def _is_exact(model: PreTrainedModel, rows: Sequence[NDArray[Any]], expected: Sequence[Tensor], strategy: str) -> bool:
    batches = [list(range(len(rows)))] if strategy in (SHARED, BATCHED) else [[i] for i in range(len(rows))]
    if strategy == BATCHED and length_rules(model.config):
        thresholds = [rule.threshold for rule in length_rules(model.config)]
        below = [i for i in batches[0] if len(rows[i]) <= min(thresholds)]
        batches = [part for part in (below, *([i] for i in batches[0] if i not in below)) if part]
    decodes = _shares_to if strategy == SHARED else _decodes_to
    try:
        return all(decodes(model, [rows[i] for i in batch], [expected[i] for i in batch]) for batch in batches)
    except Exception as error:  # models without support for padding or a cache raise many types
        if out_of_memory(error):
            raise
        return False


def _decodes_to(model: PreTrainedModel, rows: Sequence[NDArray[Any]], expected: Sequence[Tensor]) -> bool:
    """Return True if decoding the rows as one batch gives these log-probs."""
    batch = DecodingBatch(model, [row[: _start(row)] for row in rows])
    for step in range(max(map(len, expected))):
        log_probs = batch.logits().float().log_softmax(-1)
        active = np.array([step < len(one) for one in expected])
        for i in np.flatnonzero(active).tolist():
            if not float((log_probs[i] - expected[i][step]).abs().max()) <= limit_of(model):
                return False
        following = [row[min(_start(row) + step, len(row) - 1)] for row in rows]
        batch.append(torch.tensor(following, device=batch.ids.device), active)
    return True


def _shares_to(model: PreTrainedModel, rows: Sequence[NDArray[Any]], expected: Sequence[Tensor]) -> bool:
    """Return True if replies that share prompts have these log-probs.

    The first row joins last; the third has one reply, and all others two. They differ in length, so that some leave
    before others.
    """
    sizes = [1 if i == 2 else 2 for i in range(len(rows))]
    prompts, longest = [row[: _start(row)] for row in rows], max(map(len, expected))
    at, step = np.zeros(0, np.int64), np.zeros(0, np.int64)
    with shared_prompt_attention(model):
        batch = SharedBatch(model, Capacity(sum(sizes), len(rows)), max(map(len, prompts)), longest)
        tokens = torch.zeros(0, dtype=torch.long, device=model.device)
        queue = [list(range(1, len(rows))), [0]] if len(rows) > 1 else [[0]]
        while queue or len(at):
            if queue and (not len(at) or step.max() > 1):
                more = queue.pop(0)
                logits = batch.add([prompts[i] for i in more], [sizes[i] for i in more])
                at = np.concatenate([at, np.repeat(more, [sizes[i] for i in more])])
                step = np.concatenate([step, np.zeros(len(logits), np.int64)])
            else:
                logits = batch.step(tokens)
            found = np.arange(len(at))[-len(logits) :]
            want = torch.stack([expected[i][n] for i, n in zip(at[found].tolist(), step[found].tolist(), strict=True)])
            if not float((logits.float().log_softmax(-1) - want).abs().max()) <= limit_of(model):
                return False
            step[found] += 1
            going = step < [len(expected[i]) for i in at.tolist()]
            order = batch.keep(going)
            at, step = at[order], step[order]
            following = [rows[i][_start(rows[i]) + n - 1] for i, n in zip(at.tolist(), step.tolist(), strict=True)]
            tokens = torch.tensor(following, dtype=torch.long, device=model.device)
    return True
