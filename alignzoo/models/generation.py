"""Generate replies in batches, each the same as if it were generated alone.

Every prompt has its own stream of random numbers on the CPU, determined by the seed, its token ids and the number of
equal prompts before it. A reply does not depend on the batch size, the order of the prompts or the other prompts. Two
policies with the same seed use the same random numbers.

The rest is rounding: another batch size changes logits by about 1e-6. Inverse transform sampling with one uniform
number is sensitive to that, because unlikely tokens in the tail of a vocabulary are narrower than the shift. (Over
50,000 tokens by Zipf's law with exponent 1.25, such noise changed 1 draw in 170.) Here a draw is a binary search over
the cumulative distribution, with one number for each bisection. It changes with a probability of the order of the noise
itself (none of 20,000 draws changed). In bfloat16 the noise is 1e-2 and no method is stable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.console import Advance
from alignzoo.core.errors import UserError
from alignzoo.core.memory import handle_out_of_memory
from alignzoo.core.packing import cut_by_width, largest_first
from alignzoo.data.trees import TokenIds
from alignzoo.models.attention import own_attention
from alignzoo.models.decoding import (
    BATCHED,
    UNCACHED,
    DecodingBatch,
    choose_strategy,
    crosses_length_rule,
    is_recurrent,
)
from alignzoo.models.ending import Ending
from alignzoo.models.logits import token_statistics
from alignzoo.models.positions import max_tokens

BISECTIONS = 24
"""Random numbers for each token, enough for a vocabulary of 16 million."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with its statistics under the policy at temperature 1 and with the full vocabulary."""

    tokens: TokenIds
    """Token ids, including the end-of-sequence token if it was generated."""
    text: str
    """Text before the end-of-sequence token or the stop string, without special tokens."""
    log_prob: float
    """Sum of the tokens' log-probs, in nats."""
    entropy: float
    """Mean entropy of the token distributions, in nats."""
    finished: bool
    """True if the reply ends with an end-of-sequence token or a stop string, False if it was truncated."""


@torch.no_grad()
def generate_replies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[NDArray[Any]], *, temperature: float,
    top_p: float = 1.0, max_new_tokens: int, seed: int, budget: int = 16_384, progress: Advance | None = None,
    keys: Sequence[tuple[int, ...]] | None = None, texts: bool = True, ending: Ending | None = None,
) -> list[Reply]:  # fmt: skip
    """Generate one reply for each prompt. Equal prompts get different replies.

    A reply ends with an end-of-sequence token, after `max_new_tokens` tokens, or at the model's last position.

    Args:
        model: The policy.
        tokenizer: The policy's tokenizer.
        prompts: Token ids of the prompts.
        temperature: Temperature of the distribution; 0 takes the likeliest token.
        top_p: Draw from the smallest set of tokens that has this share of the distribution.
        max_new_tokens: Limit on the tokens of a reply.
        seed: Seed of the random numbers.
        budget: Limit on the tokens of a batch, prompts and replies together. It is halved when memory runs out. If
            batches change the model's logits, replies are generated one at a time.
        keys: For each prompt the numbers that, with the seed, determine its random numbers. By default they depend on
            its token ids and the number of equal prompts before it.
        progress: Function that receives the number of replies finished since its last call.
        texts: Decode the replies. Without, their texts are empty.
        ending: What ends a reply; by default the end-of-sequence tokens.

    Returns:
        The replies in the order of the prompts.

    Raises:
        UserError: A prompt is longer than the model's positions.
        ValueError: An argument is out of range, or a prompt is empty.
    """
    if not (temperature >= 0 and 0 < top_p <= 1 and max_new_tokens >= 1 and budget >= 1):
        raise ValueError("expected temperature >= 0, 0 < top_p <= 1, max_new_tokens >= 1 and budget >= 1")
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt is empty; expected at least one token")
    limits = _limits(model, prompts, max_new_tokens)
    ends = ending or Ending(tokenizer, frozenset(end_tokens(model, tokenizer)))

    def generate(batch: list[int]) -> list[Reply]:
        sequences = DecodingBatch(model, [prompts[i] for i in batch], cached=strategy != UNCACHED)
        generation = _BatchGeneration(sequences, np.array([limits[i] for i in batch]), ends)
        shape = (max(generation.limits), BISECTIONS)
        uniforms = np.stack([streams[i].random(shape) for i in batch]) if temperature > 0 else None
        for finished in generation.run(temperature, top_p, uniforms):
            if progress is not None:
                progress(finished, "")
        return list(generation.replies(texts))

    def halve(error: BaseException) -> None:
        nonlocal budget
        if budget <= max(len(prompts[i]) for i in range(len(prompts)) if i not in replies) + max_new_tokens:
            raise error
        budget //= 2

    with _evaluating(model):
        strategy = choose_strategy(model, prompts, limits) if prompts else BATCHED
    replies: dict[int, Reply] = {}
    while len(replies) < len(prompts):  # repeats only after memory ran out, with smaller batches
        left = [i for i in range(len(prompts)) if i not in replies]
        streams = _streams(prompts, seed) if keys is None else [_stream(f"{seed} {key}".encode()) for key in keys]
        with handle_out_of_memory(halve), _evaluating(model):
            for positions in _batches(model, [prompts[i] for i in left], max_new_tokens, budget, strategy):
                batch = [left[n] for n in positions]
                replies |= zip(batch, generate(batch), strict=True)
    return [replies[i] for i in range(len(prompts))]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of tokens that end a reply.

    These are the tokenizer's end-of-sequence token, and those of the model's generation config that are special tokens
    of this tokenizer. Chat models end turns with a separate token.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {int(tokenizer.eos_token_id)} | (set(ids) & special)


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token from each distribution by binary search.

    Args:
        probs: (B, V) probabilities, which need not sum to 1.
        uniforms: (B, BISECTIONS) uniform random numbers in [0, 1), one for each bisection.

    Returns:
        (B,) token ids.
    """
    tokens = probs.shape[1]
    before = torch.nn.functional.pad(probs.double().cumsum(1), (1, 0))  # (B, V + 1): mass of all tokens before each
    low, high = before[:, 0], before[:, -1]
    first = torch.zeros(len(probs), dtype=torch.long, device=probs.device)  # lower end of the search
    for k in range((tokens - 1).bit_length()):
        half = 1 << ((tokens - 1).bit_length() - 1 - k)
        middle = before.gather(1, (first + half).clamp(max=tokens)[:, None])[:, 0]
        right = uniforms[:, k] * (high - low) >= middle - low
        first = first + half * right
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return first


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Set probabilities (B, V) outside of the smallest set of tokens with mass `top_p` to 0, without normalizing.

    Source: Holtzman et al. 2020 (arXiv:1904.09751), section 3.1.
    """
    descending, order = probs.sort(dim=1, descending=True, stable=True)
    before = descending.cumsum(1) - descending
    return probs.masked_fill(torch.zeros_like(probs, dtype=torch.bool).scatter(1, order, before >= top_p), 0)


class _BatchGeneration:
    """Generation of one batch of replies."""

    def __init__(self, sequences: DecodingBatch, limits: NDArray[np.int64], ends: Ending) -> None:
        self.sequences, self.limits, self.ends = sequences, limits, ends
        self.tokens = np.zeros((len(limits), max(limits)), dtype=np.int32)
        self.sums = np.zeros((2, len(limits)))  # of log-probs and of entropies
        self.length = np.zeros(len(limits), dtype=np.int64)

    def run(self, temperature: float, top_p: float, uniforms: NDArray[np.float64] | None) -> Iterator[int]:
        """Generate all tokens; after each step, yield the number of replies that ended.

        `uniforms` is (replies, tokens, BISECTIONS), or None to take the likeliest token.
        """
        indices = np.arange(len(self.limits))  # the reply of each row in `sequences`
        active = np.ones(len(self.limits), dtype=bool)
        for step in range(max(self.limits)):
            logits = self.sequences.logits()
            numbers = None if uniforms is None else torch.from_numpy(uniforms[indices, step]).to(logits.device)
            token = _choose(logits, temperature, top_p, numbers)
            statistics = token_statistics(logits, token, ("entropy",))
            results = torch.stack([token.double(), *(one.double() for one in statistics)]).cpu().numpy()
            own = active[indices]
            at, results = indices[own], results[:, own]
            self.tokens[at, step] = results[0]
            self.sums[:, at] += results[1:]
            self.length[at] = step + 1
            ended = self.ends.reached(self.tokens[at, step], lambda n, at=at, step=step: self.tokens[at[n], : step + 1])
            active[at] = ~ended & (step + 1 < self.limits[at])
            yield int(len(at) - active[at].sum())
            if not active.any():
                return
            self.sequences.append(token, active[indices])
            if self.sequences.can_shrink and 2 * active[indices].sum() <= len(indices):
                self.sequences.keep(np.flatnonzero(active[indices]))
                indices = indices[active[indices]]

    def replies(self, decoded: bool) -> Iterator[Reply]:
        """Yield the generated replies, with their texts if they are to be decoded."""
        all_tokens = [self.tokens[row, :length].copy() for row, length in enumerate(self.length)]
        last = np.array([tokens[-1] for tokens in all_tokens])
        finished = self.ends.reached(last, all_tokens.__getitem__).tolist()
        texts = self.ends.texts(all_tokens) if decoded else [""] * len(all_tokens)
        for row, (tokens, text, end) in enumerate(zip(all_tokens, texts, finished, strict=True)):
            log_prob, entropy = (float(value) for value in self.sums[:, row])
            yield Reply(tokens, text, log_prob, entropy / len(tokens), end)


def _choose(logits: Tensor, temperature: float, top_p: float, uniforms: Tensor | None) -> Tensor:
    if uniforms is None:
        return logits.argmax(1)
    probs = (logits.double() / temperature).softmax(1)
    return draw(nucleus(probs, top_p) if top_p < 1 else probs, uniforms)


def _streams(prompts: Sequence[NDArray[Any]], seed: int) -> list[np.random.Generator]:
    seen: Counter[bytes] = Counter()  # equal prompts so far
    streams = []
    for prompt in prompts:
        ids = np.asarray(prompt, dtype=np.int64).tobytes()
        streams.append(_stream(f"{seed} {seen[ids]} ".encode() + ids))
        seen[ids] += 1
    return streams


def _stream(key: bytes) -> np.random.Generator:
    digest = blake2b(key, digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def _batches(
    model: PreTrainedModel, prompts: Sequence[NDArray[Any]], max_new_tokens: int, budget: int, strategy: str
) -> Iterator[list[int]]:
    """Yield batches of indices of prompts with similar lengths, longest first so that memory fails early.

    Batches of a recurrent model have one length, because padding would enter its state. A reply that may pass a length
    at which rotary frequencies change is generated alone.
    """
    lengths = [len(prompt) for prompt in prompts]
    one_length = is_recurrent(model)
    together: dict[int, list[int]] = {}
    for i in largest_first(lengths):
        if strategy != BATCHED or crosses_length_rule(model, prompts[i], max_new_tokens):
            yield [i]
        else:
            together.setdefault(lengths[i] if one_length else 0, []).append(i)
    for group in together.values():
        for part in cut_by_width([lengths[i] + max_new_tokens for i in group], budget):
            yield [group[n] for n in part]


def _limits(model: PreTrainedModel, prompts: Sequence[NDArray[Any]], max_new_tokens: int) -> list[int]:
    """Return the maximum number of tokens of each reply. The last token needs no position."""
    positions = max_tokens(model)
    longest = max(map(len, prompts), default=0)
    if positions is not None and longest > positions:
        raise UserError(
            f"a prompt has {longest} tokens and the model has {positions} positions",
            where="tokens.max_length", expected=f"at most {positions}",
        )  # fmt: skip
    if positions is None:
        return [max_new_tokens] * len(prompts)
    return [min(max_new_tokens, positions - len(prompt) + 1) for prompt in prompts]


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Disable dropout, tree attention and gradient checkpointing inside the block.

    Gradient checkpointing would disable the cache.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with own_attention(model):
            yield
    finally:
        for module in training:
            module.training = True
