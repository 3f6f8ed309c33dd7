"""The scorer: token log-probs of a forest. All forwards for a loss run here.

The language-model head runs only at slots that predict a scored token, in chunks, so the full logits never exist.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from alignzoo.core.errors import UserError
from alignzoo.interfaces.requirements import TokenStatistic
from alignzoo.models.adapters import disabled_adapters
from alignzoo.models.attention import NAME, can_attend_by_trees, use_tree_attention
from alignzoo.models.logits import _wide, token_statistics
from alignzoo.models.positions import first_position
from alignzoo.models.rope import length_keys, length_rules, reset_frequencies
from alignzoo.scoring.flex_attention import block_mask, widened
from alignzoo.scoring.forest import PACKED, PADDED, PLAIN, Forest
from alignzoo.scoring.head_statistics import Head, head_statistics
from alignzoo.scoring.lm_head import token_log_probs
from alignzoo.scoring.tree_attention import register_tree_attention

HEAD_CHUNK_ELEMENTS = 2**25
"""Logits that exist at a time: 128 MiB in float32. A micro-batch of small vocabulary fits in one chunk."""

HIDDEN_SUM = "hidden_sum"
"""The value that holds the sum of a sequence's hidden states: asked for as a statistic."""
LOG_PROB = "log_prob"
"""The value that holds log-probs, which a reward model has when it is asked for as a statistic."""
VALUE = "value"
"""The value that holds a critic's outputs: asked for as a statistic of a model with one scalar output."""
PER_SEQUENCE = ("scalar", HIDDEN_SUM)
"""Names of values with one number a sequence. All others have one a token."""

register_tree_attention()


def language_head(model: PreTrainedModel) -> Tensor:
    """Return the language head, (V, d), that a reward model shares with its embeddings.

    Raises:
        UserError: The embeddings are not tied to the head, or the head is more than a matrix product.
    """
    config = model.config.get_text_config()
    if not config.tie_word_embeddings or getattr(config, "final_logit_softcapping", None) is not None:
        why = "its logits are capped" if config.tie_word_embeddings else "its embeddings are not tied"
        raise UserError(
            f"this reward model needs a language head too, and {type(model).__name__} has none: {why}", where="model",
            expected="a model with tied embeddings, `tie_word_embeddings: true` in its config",
        )  # fmt: skip
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight


class Scorer(nn.Module):
    """A causal language model that maps a forest to the log-probs of its scored tokens.

    It is a module, so that wrappers for several devices wrap the forward that is used.
    """

    def __init__(self, model: PreTrainedModel, layout: str = PADDED, precision: str = "float32") -> None:
        super().__init__()
        self.model = model
        self.layout = layout
        self.precision = precision
        """`bfloat16` runs the forward under autocast; the weights keep their own type."""
        self.whole_head = False
        """True: take the logits from the model's own forward, for heads that do more than a matrix product."""
        self.temperature = 1.0
        """Divides the logits. Draws are scored at the temperature that they were drawn at."""
        self.base_alone = False
        """True: the model's adapters are off, which makes it what its training started from."""
        self.packs = can_attend_by_trees(model)
        """True if the model's attention can be replaced, as the packed layout requires."""
        self.flex = False
        """True: packed rows use FlexAttention, as on a GPU. False: attention tree by tree."""
        self.alone = False
        """True: every sequence has a forward of its own, for models that score no batch correctly."""
        self.rules = length_rules(model.config)
        """Lengths at which rotary frequencies change. A forward holds sequences with the same frequencies."""
        self.first_position = first_position(model)
        """Position id of a first token. Where it is not 0, a plain row is left to count for itself."""
        self._accepts = set(inspect.signature(model.base_model.forward).parameters)

    def forward(
        self, forest: Forest, statistics: Sequence[str] = (), live: Scorer | None = None,
        own: Mapping[str, TokenStatistic] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Score a forest.

        Args:
            forest: The sequences.
            statistics: Names of statistics: built-in ones, `HIDDEN_SUM`, and those in `own`.
            live: The reference, with the policy's tokenizer. Its logits past the policy's are left out: larger models
                of a family have more unused ones.
            own: Statistics of an objective's own, by name.

        Returns:
            `log_prob`: (N,) log pi of each scored token given the tokens before it in its sequence, in nats; float32,
            or float64 where the model is. Each of the `statistics`: (N,), or (S, d) for `HIDDEN_SUM`. With a `live`
            reference `ref_log_prob`: (N,), without gradient. Of a reward model instead `scalar`: (S,), or (S, K) for K
            outputs, and with `log_prob` among the statistics the log-probs of its language head too. With `VALUE` among
            the statistics such a model gives that alone: (N,), read at the slot that predicts each scored token.
        """
        groups = self._groups(forest) if self.rules or self.alone else []
        if len(groups) < 2:
            return self._alike(forest, statistics, live, own or {})
        parts = [self._alike(forest.only(group), statistics, live, own or {}) for group in groups]
        order, cuts = np.concatenate(groups), forest.offsets.tolist()
        tokens = np.concatenate([np.arange(cuts[s], cuts[s + 1]) for s in order])
        back = {
            whole: torch.from_numpy(indices.argsort()).to(forest.tokens.device)
            for whole, indices in ((True, order), (False, tokens))
        }
        return {name: torch.cat([part[name] for part in parts])[back[name in PER_SEQUENCE]] for name in parts[0]}

    def _groups(self, forest: Forest) -> list[NDArray[np.int64]]:
        """Group the sequences that may share a forward: those with the same rotary frequencies."""
        if self.alone:
            return list(np.arange(len(forest.last))[:, None])
        lengths = forest.position.flatten()[forest.last].cpu().numpy() + 1
        keys = length_keys(self.rules, lengths)
        return [np.flatnonzero(keys == key) for key in np.unique(keys)]

    def _alike(
        self, forest: Forest, statistics: Sequence[str], live: Scorer | None, own: Mapping[str, TokenStatistic]
    ) -> dict[str, Tensor]:
        with torch.autocast(forest.tokens.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            if VALUE in statistics:
                return {VALUE: self._values(forest)}
            if self.scalar:
                return self._reward(forest, LOG_PROB in statistics)
            return self._score(forest, tuple(statistics), live, own)

    @property
    def takes_positions(self) -> bool:
        """True if the model's forward accepts position ids.

        Rows of several sequences require them.
        """
        return "position_ids" in self._accepts

    @property
    def scalar(self) -> bool:
        """True for a reward model: numbers of each sequence, no log-probs."""
        return getattr(getattr(self.model, "score", None), "out_features", 0) >= 1

    def _reward(self, forest: Forest, with_log_probs: bool) -> dict[str, Tensor]:
        hidden = self.model.base_model(**self._inputs(forest), use_cache=False)[0].flatten(0, 1)
        output: Tensor = self.model.score(hidden[forest.last])  # type: ignore[operator]
        found = {"scalar": _wide(output[:, 0] if output.shape[1] == 1 else output)}
        if with_log_probs:
            head = language_head(self.model)
            found[LOG_PROB] = token_log_probs(hidden[forest.slot], head, None, forest.target)
        return found

    def _values(self, forest: Forest) -> Tensor:
        hidden = self.model.base_model(**self._inputs(forest), use_cache=False)[0].flatten(0, 1)
        head: Any = self.model.score
        # In float32: bfloat16 has steps of 0.03 between 4 and 8, and advantages are differences of values.
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if head.bias is None else _wide(head.bias)
            return nn.functional.linear(_wide(hidden[forest.slot]), _wide(head.weight), bias)[:, 0]

    def _score(
        self, forest: Forest, asked: tuple[str, ...], live: Scorer | None, own: Mapping[str, TokenStatistic]
    ) -> dict[str, Tensor]:
        hidden = [self._hidden(forest)]
        statistics = tuple(name for name in asked if name != HIDDEN_SUM)
        sums = {HIDDEN_SUM: self._hidden_sum(forest, hidden[0])} if HIDDEN_SUM in asked else {}
        if live is not None:
            with torch.no_grad():
                hidden.append(live._hidden(forest))
        names = ("log_prob", *statistics) + (("ref_log_prob",) if live is not None else ())
        plain = self._plain_head(hidden[0])
        beside = None if live is None else live._plain_head(hidden[1])
        if plain is not None and (live is None or beside is not None):
            beside = beside and beside.narrow(len(plain.weight))
            if statistics:
                found = head_statistics(plain, forest.target, statistics, beside, own)
            else:
                found = tuple(token_log_probs(*one, forest.target) for one in (plain, beside) if one is not None)
        else:
            found = self._sliced(forest.target, statistics, hidden, live, own)
        return dict(zip(names, found, strict=True)) | sums

    def _sliced(
        self, targets: Tensor, statistics: tuple[str, ...], hidden: Sequence[Tensor], live: Scorer | None,
        own: Mapping[str, TokenStatistic],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Return log-probs and statistics of heads that may do more than a matrix product."""

        def head(target: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
            logits = self._logits(parts[0])
            beside = live._logits(parts[1])[:, : logits.shape[1]] if live else None
            return token_statistics(logits, target, statistics, beside, own)

        rows = max(1, HEAD_CHUNK_ELEMENTS // int(self.model.config.get_text_config().vocab_size))
        if len(targets) <= rows:
            return head(targets, *hidden)
        # Recomputing a chunk's logits in the backward costs one more product; keeping them would cost the memory.
        pieces = zip(targets.split(rows), *(part.split(rows) for part in hidden), strict=True)
        chunks = [checkpoint(head, *piece, use_reentrant=False) for piece in pieces]
        return tuple(torch.cat(column) for column in zip(*chunks, strict=True))

    @torch.no_grad()
    def _hidden_sum(self, forest: Forest, hidden: Tensor) -> Tensor:
        """Sum the last hidden states that predict each sequence's scored tokens, (S, d)."""
        if self.whole_head:  # those are logits
            with self.adapters():
                hidden = self.model.base_model(**self._inputs(forest), use_cache=False)[0].flatten(0, 1)[forest.slot]
        lengths = forest.offsets.diff()
        owner = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        wide = _wide(hidden.detach())
        return wide.new_zeros(len(lengths), wide.shape[1]).index_add(0, owner, wide)

    def _hidden(self, forest: Forest) -> Tensor:
        """Return the head's inputs at slots that predict a scored token, (N, d).

        With `whole_head`, return logits (N, V).
        """
        inputs = self._inputs(forest)
        with self.adapters():
            if self.whole_head:
                return self.model(**inputs, use_cache=False).logits.flatten(0, 1)[forest.slot]
            return self.model.base_model(**inputs, use_cache=False)[0].flatten(0, 1)[forest.slot]

    def adapters(self) -> AbstractContextManager[None]:
        """Turn the model's adapters off inside the block if its base is what is scored."""
        return disabled_adapters(self.model) if self.base_alone else nullcontext()

    def _plain_head(self, hidden: Tensor) -> Head | None:
        """Return the head with its input if it is a matrix product and nothing more."""
        head = self.model.get_output_embeddings()
        capped = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None) is not None
        if type(head) is not nn.Linear or capped or self.whole_head:
            return None
        return Head(*self._cooled(hidden, head.weight, head.bias))

    def _logits(self, hidden: Tensor) -> Tensor:
        if self.whole_head:
            return self._cooled(_wide(hidden))[0]
        with self.adapters():
            logits = self.model.get_output_embeddings()(hidden)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return self._cooled(_wide(logits))[0]

    def _cooled(self, scaled: Tensor, weight: Any = None, bias: Tensor | None = None) -> tuple[Tensor, Any, Any]:
        """Divide logits, or a head's input and bias, by the temperature."""
        if self.temperature == 1:
            return scaled, weight, bias
        return scaled / self.temperature, weight, None if bias is None else bias / self.temperature

    def _inputs(self, forest: Forest) -> dict[str, Any]:
        if self.flex and forest.layout == PACKED:  # slots at the end of the one row: nothing that is read moves
            end, tokens, position = widened(forest.end, forest.tokens, forest.position)
            forest = replace(forest, end=end, tokens=tokens, position=position)
        if self.rules:
            reset_frequencies(self.model)
        if (self.model.config._attn_implementation == NAME) != (forest.layout == PACKED):
            use_tree_attention(self.model, forest.layout == PACKED)
        inputs: dict[str, Any] = {"input_ids": forest.tokens}
        if self.takes_positions and not (self.first_position and forest.layout == PLAIN):
            inputs["position_ids"] = forest.position + self.first_position
        if forest.layout == PLAIN:
            return inputs | {"attention_mask": forest.valid().long()}
        return inputs | {"attention_mask": self._masks(forest)}

    def _masks(self, forest: Forest) -> Any:
        """Return one 4-D mask, or one for each kind of layer where the model's layers differ."""
        config = self.model.config.get_text_config()
        dtype = self.model.dtype
        if torch.is_autocast_enabled(forest.tokens.device.type):
            dtype = torch.get_autocast_dtype(forest.tokens.device.type)
        window = getattr(config, "sliding_window", None)
        if not getattr(config, "use_sliding_window", True):
            window = None
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds:
            return self._mask(forest, dtype, window)
        return {kind: self._mask(forest, dtype, window if kind == "sliding_attention" else None) for kind in kinds}

    def _mask(self, forest: Forest, dtype: torch.dtype, window: int | None) -> Any:
        """Return the mask for one kind of layer.

        For a packed row it is FlexAttention's block mask, or else `end` alone unless a window cuts a sequence.
        """
        if self.flex and forest.layout == PACKED:
            return block_mask(forest.end[0], forest.position[0], window)
        if forest.layout == PACKED and (window is None or int(forest.position.max()) < window):
            return forest.end[:, None, None]
        return forest.mask(dtype, window)
