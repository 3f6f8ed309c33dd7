"""Rows of tokens that grow to the right, and how many of them a model may be given at once.

Padding on the left, a cache of keys and values, a window that the cache has passed: in all of these a model can part
from its own forward on the prompt alone. So each way is tried on rows like those to be written, in float32, before it
is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.core.memory import out_of_memory
from alignzoo.models.oracle import in_float32, limit_of, sequence_logits
from alignzoo.models.probes import turning_points
from alignzoo.models.rope import length_rules, reset_frequencies

CACHE_NAMES = ("cache", "past_key_values")
"""What a forward calls its key-value cache: the newer transformers and the older ones."""
TOGETHER, ALONE, AGAIN = "together", "alone", "again"
WAYS = (TOGETHER, ALONE, AGAIN)
"""Many rows at a time; one at a time; one at a time and read from its start for each token, which is the oracle."""
STEPS = 8
"""Tokens that a trial writes."""
_known: WeakKeyDictionary[PreTrainedModel, dict[tuple[Any, ...], str]] = WeakKeyDictionary()


class Rows:
    """Rows of tokens, padded on the left, and the model's logits after the last token of each.

    A model that takes no cache, or hands none back, reads the whole rows again for each token.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[NDArray[Any]], cached: bool = True) -> None:
        self.model, self.accepts = model, accepts(model)
        self.cache: Any = None
        self.cache_name = next((name for name in CACHE_NAMES if name in self.accepts), None) if cached else None
        self.can_shrink = not recurrent(model)
        """A recurrent state, unlike keys and values, can't be cut by rows."""
        self.rules = length_rules(model.config)
        self.key = -1
        width = max(map(len, prompts))
        ids = np.zeros((2, len(prompts), width), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[0, row, width - len(prompt) :] = prompt
            ids[1, row, width - len(prompt) :] = 1
        self.ids, self.mask = torch.from_numpy(ids).to(model.device)

    def logits(self) -> Tensor:
        """(rows, V) after each row's last token, in float32, or float64 where the model is."""
        if self.rules:
            self._prefill_at_other_frequencies()
        new = self.ids if self.cache is None else self.ids[:, -1:]
        inputs: dict[str, Any] = {"input_ids": new, "use_cache": self.cache_name is not None, "logits_to_keep": 1}
        inputs["attention_mask"] = self.mask
        inputs["position_ids"] = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
        inputs = {name: value for name, value in inputs.items() if name in self.accepts}
        if self.cache_name is not None:
            inputs[self.cache_name] = self.cache
        output = self.model(**inputs)
        self.cache = getattr(output, self.cache_name, None) if self.cache_name is not None else None
        logits: Tensor = output.logits[:, -1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _prefill_at_other_frequencies(self) -> None:
        """Forget keys that were rotated at other frequencies than those of the present length."""
        length = int(self.mask.sum(1).max())
        thresholds = [
            0,
            *(length - rule.threshold if rule.every else 1 for rule in self.rules if length > rule.threshold),
        ]
        if sum(thresholds) != self.key:
            self.cache, self.key = None, sum(thresholds)
        reset_frequencies(self.model)

    def append(self, tokens: Tensor, going: NDArray[np.bool_]) -> None:
        """One more token for each row; a row that has ended gets padding, which takes no position."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        more = torch.from_numpy(going[:, None]).to(self.mask)
        self.mask = torch.cat([self.mask, more], 1)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Leave out all other rows."""
        at = torch.from_numpy(rows).to(self.ids.device)
        self.ids, self.mask = self.ids[at], self.mask[at]
        if self.cache is not None:
            self.cache.batch_select_indices(at)


def accepts(model: PreTrainedModel) -> set[str]:
    """The names that a model's forward takes."""
    parameters = inspect.signature(model.forward).parameters
    passed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return set(parameters) | (set(inspect.signature(model.base_model.forward).parameters) if passed_on else set())


def recurrent(model: PreTrainedModel) -> bool:
    """Whether padding would go into a state: batches are then of one length."""
    return bool(getattr(model, "_is_stateful", False)) or not set(CACHE_NAMES) & accepts(model)


def crosses(model: PreTrainedModel, prompt: NDArray[Any], room: int) -> bool:
    """Whether a reply of up to `room` tokens may have other rotary frequencies than shorter rows beside it."""
    return any(len(prompt) + room > rule.threshold for rule in length_rules(model.config))


def way_to_write(model: PreTrainedModel, prompts: Sequence[NDArray[Any]], rooms: Sequence[int]) -> str:
    """The fastest of WAYS whose logits are those of the model's own forward, tried once for lengths like these.

    Tried are rows as short, as long and as long with their replies as those to be written, and rows that pass each
    length that the config names. `rooms`: the most tokens of each reply. The model must be in eval mode, without
    gradient.
    """
    shortest, longest = min(map(len, prompts)), max(map(len, prompts))
    reach = max(len(prompt) + room for prompt, room in zip(prompts, rooms, strict=True))
    points = [point for point in turning_points(model.config) if shortest < point < reach]
    about = (tuple(points), reach.bit_length(), model.config._attn_implementation)
    known = _known.setdefault(model, {})
    if about not in known:
        ends = [shortest + STEPS, longest + STEPS, reach, *(point + STEPS // 2 for point in points)]
        if recurrent(model):
            ends = [reach, reach]
        known[about] = _tried(model, np.concatenate(list(prompts)), [min(end, reach) for end in ends])
    return known[about]


def _tried(model: PreTrainedModel, tokens: NDArray[Any], ends: Sequence[int]) -> str:
    rows = [np.resize(np.roll(tokens, -row), end) for row, end in enumerate(ends)]
    for wide in (True, False):
        try:
            with in_float32(model, wide):
                want = [_own(model, row) for row in rows]
                return next((way for way in WAYS[:-1] if _agrees(model, rows, want, way)), AGAIN)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not wide or not out_of_memory(error):
                raise
    raise AssertionError


def _start(row: NDArray[Any]) -> int:
    return max(1, len(row) - STEPS)


def _own(model: PreTrainedModel, row: NDArray[Any]) -> Tensor:
    """Log-probs (steps, V) of what follows each of the last tokens."""
    if length_rules(model.config):
        logits = torch.stack([sequence_logits(model, row[:n])[-1] for n in range(_start(row), len(row))])
    else:
        logits = sequence_logits(model, row[:-1])[_start(row) - 1 :]
    return logits.float().log_softmax(-1)


def _agrees(model: PreTrainedModel, rows: Sequence[NDArray[Any]], want: Sequence[Tensor], way: str) -> bool:
    batches = [list(range(len(rows)))] if way == TOGETHER else [[i] for i in range(len(rows))]
    if way == TOGETHER and length_rules(model.config):
        thresholds = [rule.threshold for rule in length_rules(model.config)]
        below = [i for i in batches[0] if len(rows[i]) <= min(thresholds)]
        batches = [part for part in (below, *([i] for i in batches[0] if i not in below)) if part]
    try:
        return all(_written(model, [rows[i] for i in batch], [want[i] for i in batch]) for batch in batches)
    except Exception as error:  # a model may fail on padding or on its cache in its own way
        if out_of_memory(error):
            raise
        return False


def _written(model: PreTrainedModel, rows: Sequence[NDArray[Any]], want: Sequence[Tensor]) -> bool:
    """Whether the rows, written token by token side by side, have these log-probs."""
    writing = Rows(model, [row[: _start(row)] for row in rows])
    for step in range(max(map(len, want))):
        found = writing.logits().float().log_softmax(-1)
        going = np.array([step < len(one) for one in want])
        for i in np.flatnonzero(going).tolist():
            if not float((found[i] - want[i][step]).abs().max()) <= limit_of(model):
                return False
        following = [row[min(_start(row) + step, len(row) - 1)] for row in rows]
        writing.append(torch.tensor(following, device=writing.ids.device), going)
    return True
