"""The end of a reply: an end-of-sequence token, or a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.data.token_store import vocabulary_size
from alignzoo.models.tokenizers import decode

BESIDE = 16
"""Tokens before those that may hold a stop string. Decoders treat the first token of a text differently."""
PART = "\ufffd"
"""What a token that is a part of a character is decoded to."""


@dataclass(frozen=True)
class Ending:
    """Decides when a reply is finished, and which part of it is its text.

    A reply keeps the token that ends it, and all tokens of a stop string: they are what was drawn. Its text is without.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens: frozenset[int]
    """Ids of the tokens that end a reply."""
    stop: tuple[str, ...] = ()
    """Strings that end a reply once its text has one of them."""

    def reached(self, last: NDArray[np.int64], reply: Callable[[int], NDArray[Any]]) -> NDArray[np.bool_]:
        """Return True for each reply that its last token ends, (B,). Earlier tokens have not.

        Args:
            last: The last token of each reply, (B,).
            reply: From a reply's number to its tokens so far. Few are read.
        """
        ended: NDArray[np.bool_] = (last[:, None] == self._ids).any(1)
        if self.stop and (look := np.flatnonzero(~ended & self._may_stop[last.clip(max=len(self._may_stop) - 1)])).size:
            width = max(len(one.encode()) for one in self.stop) + BESIDE  # a token has at least one byte
            ends = [reply(int(i))[-width:].tolist() for i in look]
            # So few tokens are not worth a child process, which would be one at each token drawn.
            texts = [str(self.tokenizer.decode(ids, skip_special_tokens=True)) for ids in ends]
            ended[look] = [any(one in text for one in self.stop) for text in texts]
        return ended

    def texts(self, replies: Sequence[NDArray[Any]]) -> list[str]:
        """Return the text of each reply before its ending, without special tokens.

        A token or a stop string ends a reply.
        """
        inner = [reply[:-1] if len(reply) and int(reply[-1]) in self.tokens else reply for reply in replies]
        found = decode(self.tokenizer, inner, skip_special_tokens=True)
        return [text[: min((text.index(one) for one in self.stop if one in text), default=None)] for text in found]

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        return np.array(sorted(self.tokens), dtype=np.int64)

    @cached_property
    def _may_stop(self) -> NDArray[np.bool_]:
        """Return a mask (V + 1,) of the tokens that may complete a stop string.

        With it few replies are decoded at each step. The last entry is for ids above the tokenizer's highest, which
        have no text.
        """
        pieces = decode(self.tokenizer, [[id] for id in range(vocabulary_size(self.tokenizer))])
        last = {one[-1] for one in self.stop}
        any_ = " " in last  # decoders may drop the space of a first token
        found = [any_ or PART in piece or not last.isdisjoint(piece) for piece in pieces]
        return np.array([*found, False], dtype=np.bool_)
