"""Model + forest -> token log-probs: the only place that runs a model forward for a loss.

The language-model head runs only at slots that predict a scored token, in chunks, so the full logits never exist.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from alignzoo.forest import FOREST, PLAIN, Forest

HEAD_CHUNK_ELEMENTS = 2**25
"""Logits that exist at a time: 128 MiB in float32. A micro-batch of small vocabulary fits in one chunk."""


class Scorer(nn.Module):
    """A causal language model that maps a forest to the log-probs of its scored tokens.

    It is a module so that whatever wraps a model for several devices wraps the forward that is really used.
    """

    def __init__(self, model: PreTrainedModel, layout: str = FOREST, precision: str = "float32") -> None:
        super().__init__()
        self.model = model
        self.layout = layout
        self.precision = precision
        """`bfloat16` runs the forward under autocast; the weights keep their own type."""
        self.whole_head = False
        """True: take the logits from the model's own forward, for heads that do more than a matrix product."""
        self._accepts = set(inspect.signature(model.base_model.forward).parameters)

    def forward(self, forest: Forest) -> Tensor:
        """(N,) float32: log pi of each scored token given everything before it in its sequence."""
        with torch.autocast(forest.tokens.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self._score(forest)

    def _score(self, forest: Forest) -> Tensor:
        inputs = self._inputs(forest)
        if self.whole_head:
            logits = self.model(**inputs, use_cache=False).logits.flatten(0, 1)[forest.slot]
            return _log_prob(logits, forest.target)
        hidden = self.model.base_model(**inputs, use_cache=False)[0].flatten(0, 1)[forest.slot]
        rows = max(1, HEAD_CHUNK_ELEMENTS // int(self.model.config.get_text_config().vocab_size))
        if len(hidden) <= rows:
            return self._head(hidden, forest.target)
        # Recomputing a chunk's logits in the backward costs one more product; keeping them would cost the memory.
        chunks = zip(hidden.split(rows), forest.target.split(rows), strict=True)
        return torch.cat([checkpoint(self._head, h, t, use_reentrant=False) for h, t in chunks])

    def _head(self, hidden: Tensor, target: Tensor) -> Tensor:
        logits = self.model.get_output_embeddings()(hidden)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return _log_prob(logits, target)

    def _inputs(self, forest: Forest) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": forest.tokens}
        if "position_ids" in self._accepts:
            inputs["position_ids"] = forest.position
        if forest.layout == PLAIN:
            return inputs | {"attention_mask": forest.valid().long()}
        return inputs | {"attention_mask": self._masks(forest)}

    def _masks(self, forest: Forest) -> Any:
        """One 4-D mask, or one for each kind of layer where the model's layers differ."""
        config = self.model.config.get_text_config()
        dtype = self.model.dtype
        if torch.is_autocast_enabled(forest.tokens.device.type):
            dtype = torch.get_autocast_dtype(forest.tokens.device.type)
        window = getattr(config, "sliding_window", None)
        if not getattr(config, "use_sliding_window", True):
            window = None
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds:
            return forest.mask(dtype, window)
        return {kind: forest.mask(dtype, window if kind == "sliding_attention" else None) for kind in kinds}


def _log_prob(logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.float()
    return logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(1)


def per_sequence(token_log_probs: Tensor, forest: Forest) -> Tensor:
    """(S,) sums over each sequence's scored tokens, in the order of `forest.offsets`."""
    return torch.segment_reduce(token_log_probs, "sum", offsets=forest.offsets)
