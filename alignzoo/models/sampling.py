"""Choose the next token of each row: greedy, or a draw that rounding hardly ever changes.

Another batch size changes logits by about 1e-6. Inverse transform sampling with one uniform number is sensitive to
that, because unlikely tokens in the tail of a vocabulary are narrower than the shift. (Over 50,000 tokens by Zipf's law
with exponent 1.25, such noise changed 1 draw in 170.) Here a draw is a binary search over the cumulative distribution,
with one number for each bisection. It changes with a probability of the order of the noise itself (none of 20,000 draws
changed). In bfloat16 the noise is 1e-2 and no method is stable.

A draw costs a softmax and a sum over the vocabulary: the search begins on sums of blocks, and ends within one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BISECTIONS = 24
"""Random numbers for each token, enough for a vocabulary of 16 million."""
AHEAD = 8
"""Tokens whose numbers are made at a time."""
BLOCK_BITS = 6
"""A block of the search has 2 to the power of this many tokens."""


class Uniforms:
    """Random numbers of replies, a function of a reply's key and the token's place.

    They are drawn for a few tokens at a time.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.keys = keys
        self._streams: dict[int, np.random.Generator] = {}
        self._ahead = np.zeros((len(keys), AHEAD, BISECTIONS))

    def next(self, replies: NDArray[np.int64], places: NDArray[np.int64]) -> Tensor:
        """Return the numbers (B, BISECTIONS) of a token of each reply; places count up from 0."""
        for reply, place in zip(replies[places % AHEAD == 0].tolist(), places[places % AHEAD == 0], strict=True):
            if place == 0:
                digest = blake2b(self.keys[reply], digest_size=16).digest()
                self._streams[reply] = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
            self._streams[reply].random(out=self._ahead[reply])
        return torch.from_numpy(self._ahead[replies, places % AHEAD])

    def drop(self, replies: NDArray[np.int64]) -> None:
        """Forget the streams of replies that are done."""
        for reply in replies.tolist():
            self._streams.pop(reply, None)


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token from each distribution by binary search.

    Args:
        probs: (B, V) probabilities, which need not sum to 1.
        uniforms: (B, BISECTIONS) uniform random numbers in [0, 1), one for each bisection.

    Returns:
        (B,) token ids.
    """
    tokens, size = probs.shape[1], 1 << BLOCK_BITS
    whole = tokens // size
    if whole < 2:
        return _search(probs, uniforms, (tokens - 1).bit_length())
    blocks = probs[:, : whole * size].unflatten(1, (whole, size)).sum(2)
    if whole * size < tokens:
        blocks = torch.cat([blocks, probs[:, whole * size :].sum(1, keepdim=True)], 1)
    levels = (tokens - 1).bit_length() - BLOCK_BITS
    block = _search(blocks, uniforms, levels)
    places = block[:, None] * size + torch.arange(size, device=probs.device)
    inside = probs.gather(1, places.clamp(max=tokens - 1)).masked_fill_(places >= tokens, 0)
    return block * size + _search(inside, uniforms[:, levels:], BLOCK_BITS)


def _search(mass: Tensor, uniforms: Tensor, levels: int) -> Tensor:
    """Draw an index (B,) from masses (B, K), one number for each of `levels` bisections.

    K is at most 2 to the power of `levels`.
    """
    count = mass.shape[1]
    before = torch.nn.functional.pad(mass.double().cumsum(1), (1, 0))  # (B, K + 1): mass of all before each
    low, high = before[:, 0], before[:, -1]
    first = torch.zeros(len(mass), dtype=torch.long, device=mass.device)  # lower end of the search
    for k in range(levels):
        half = 1 << (levels - 1 - k)
        middle = before.gather(1, (first + half).clamp_(max=count)[:, None])[:, 0]
        right = uniforms[:, k] * (high - low) >= middle - low
        first = first + half * right
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return first


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Set probabilities (B, V) outside of the nucleus to 0, without normalizing.

    The nucleus is the smallest set of tokens with mass `top_p`. Of equal probabilities the first tokens are in the set.
    Tokens below (1 - top_p) / V are never in it, because all of them together have less than 1 - top_p; so only the
    others are sorted.

    Source: Holtzman et al. 2020 (arXiv:1904.09751), section 3.1.
    """
    floor = 0.5 * (1 - top_p) / probs.shape[1]  # half: for rounding
    count = max(1, int((probs >= floor).sum(1).max()))
    descending = probs.topk(count, dim=1).values
    inside = (descending.cumsum(1) - descending < top_p).sum(1, keepdim=True)
    least = descending.gather(1, inside - 1)
    above = probs > least
    ties = probs == least
    room = inside - above.sum(1, keepdim=True)
    return probs.masked_fill(~(above | (ties & (ties.cumsum(1) <= room))), 0)


def choose(
    logits: Tensor, temperature: float, top_p: float, uniforms: Tensor | None, entropy: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Choose a token of each row.

    Args:
        logits: (B, V) logits, in float32 or float64.
        temperature: Temperature of the draws; 0 takes the likeliest tokens.
        top_p: Share of the distribution that is drawn from.
        uniforms: (B, BISECTIONS) random numbers, None at temperature 0.
        entropy: Also return entropies.

    Returns:
        Token ids (B,), and at temperature 1 and with the full vocabulary their log-probs (B,) and the entropies (B,) of
        the distributions, in nats.
    """
    probs = logits.softmax(1)
    if uniforms is None:
        token = logits.argmax(1)
    else:
        drawn = probs if temperature == 1 else (logits / temperature).softmax(1)
        token = draw(nucleus(drawn, top_p) if top_p < 1 else drawn, uniforms)
    at = token[:, None]
    # the largest probability is 1 over the sum of exp(logit - largest): log-probs without another pass
    log_prob = (logits.gather(1, at) - logits.amax(1, keepdim=True) + probs.amax(1, keepdim=True).log())[:, 0]
    return token, log_prob, torch.special.entr(probs).sum(1) if entropy else None
