"""Replies drawn from a policy, many at a time, each as if it were drawn alone.

Every prompt has a stream of random numbers of its own, a function of the seed, its token ids and of how many equal
prompts stood before it, made on the CPU. So a reply does not depend on the batch size, on the order of the prompts or
on what is beside it, and two policies that are given one seed draw with the same numbers.

What is left is rounding: a batch of another size moves logits by about 1e-6. One uniform number looked up in the
cumulative distribution would not stand that: in a vocabulary's tail unlikely tokens lie side by side, each narrower
than the shift (over 50,000 tokens by Zipf's law with exponent 1.25, such noise changed 1 draw in 170). Here the
distribution is halved until one token is left, and each halving has a number of its own: a draw then changes with a
probability of the order of the noise itself, whatever the tail (none of 20,000). In bfloat16 the noise is 1e-2, and
nothing helps.
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
from alignzoo.core.memory import out_of_memory
from alignzoo.data.trees import TokenIds
from alignzoo.models.attention import own_attention
from alignzoo.models.decoding import AGAIN, TOGETHER, Rows, crosses, recurrent, way_to_write
from alignzoo.models.logits import token_statistics

HALVINGS = 24
"""Numbers for each token: enough for a vocabulary of 16 million."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply and what the policy, at temperature 1 and with its whole vocabulary, says of it."""

    tokens: TokenIds
    """The end-of-sequence token included, where it was reached."""
    text: str
    """Without what ended it and without special tokens."""
    log_prob: float
    """Sum over the tokens of log pi, in nats."""
    entropy: float
    """Mean over the tokens of the entropy of pi, in nats."""
    finished: bool
    """Whether it ended by itself: False when it was cut."""


@torch.no_grad()
def generate_replies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[NDArray[Any]], *, temperature: float,
    top_p: float = 1.0, most: int, seed: int, budget: int = 16_384, progress: Advance | None = None,
) -> list[Reply]:  # fmt: skip
    """One reply for each prompt (token ids), in the order of the prompts; the same prompt twice gets two replies.

    `temperature` 0 takes the likeliest token each time and draws nothing; `top_p` below 1 draws only from the fewest
    tokens that hold that share of the tempered distribution. A reply ends with an end-of-sequence token, after `most`
    tokens, or where the model has no position left. Batches hold up to `budget` tokens, prompts and replies together,
    and half of it when memory runs out; one reply, where a batch has other logits than the model's own forward.
    `progress` is told of finished replies. Raises UserError for a prompt longer than the model's positions.
    """
    if not (temperature >= 0 and 0 < top_p <= 1 and most >= 1 and budget >= 1):
        raise ValueError("expected temperature >= 0, 0 < top_p <= 1, most >= 1 and budget >= 1")
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt has no token to go on from")
    limits = _limits(model, prompts, most)
    ends = np.array(sorted(end_tokens(model, tokenizer)))

    def write(batch: list[int]) -> list[Reply]:
        rows = Rows(model, [prompts[i] for i in batch], cached=way != AGAIN)
        writing = _Writing(rows, np.array([limits[i] for i in batch]), ends)
        shape = (max(writing.room), HALVINGS)
        uniforms = np.stack([streams[i].random(shape) for i in batch]) if temperature > 0 else None
        for finished in writing.run(temperature, top_p, uniforms):
            if progress is not None:
                progress(finished, "")
        return list(writing.replies(tokenizer))

    with _evaluating(model):
        way = way_to_write(model, prompts, limits) if prompts else TOGETHER
    replies: dict[int, Reply] = {}
    while len(replies) < len(
        prompts
    ):  # once, but when memory runs out: what is left is then written in smaller batches
        left = [i for i in range(len(prompts)) if i not in replies]
        streams = _streams(prompts, seed)
        try:
            with _evaluating(model):
                for some in _batches(model, [prompts[i] for i in left], most, budget, way):
                    batch = [left[n] for n in some]
                    replies |= zip(batch, write(batch), strict=True)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or budget <= max(len(prompts[i]) for i in left if i not in replies) + most:
                raise
            budget //= 2
    return [replies[i] for i in range(len(prompts))]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """What ends a reply: the tokenizer's end of sequence, and what the model's generation settings call one (chat
    models end turns with a token of its own) as far as it is a special token of this tokenizer."""
    named = getattr(model.generation_config, "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {int(tokenizer.eos_token_id)} | (set(several) & special)


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """(B,) one token of each row of `probs` (B, V), by `uniforms` (B, HALVINGS) in [0, 1); need not sum to 1.

    A binary search in which each halving has a number of its own; see the top of this file for why.
    """
    tokens = probs.shape[1]
    before = torch.nn.functional.pad(probs.double().cumsum(1), (1, 0))  # (B, V + 1): the mass of all tokens before v
    low, high = before[:, 0], before[:, -1]
    first = torch.zeros(len(probs), dtype=torch.long, device=probs.device)  # the token is one of first ... first + size
    for k in range((tokens - 1).bit_length()):
        half = 1 << ((tokens - 1).bit_length() - 1 - k)
        middle = before.gather(1, (first + half).clamp(max=tokens)[:, None])[:, 0]
        right = uniforms[:, k] * (high - low) >= middle - low
        first = first + half * right
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return first


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """(B, V) without what is outside the fewest tokens that hold `top_p`; not normalized again.

    Holtzman et al. 2020 (arXiv:1904.09751), section 3.1.
    """
    falling, order = probs.sort(dim=1, descending=True, stable=True)
    before = falling.cumsum(1) - falling
    return probs.masked_fill(torch.zeros_like(probs, dtype=torch.bool).scatter(1, order, before >= top_p), 0)


class _Writing:
    """A batch of replies while they are written."""

    def __init__(self, rows: Rows, room: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.rows, self.room, self.ends = rows, room, ends
        self.tokens = np.zeros((len(room), max(room)), dtype=np.int32)
        self.measured = np.zeros((2, len(room)))  # sums of log-probs and of entropies
        self.length = np.zeros(len(room), dtype=np.int64)

    def run(self, temperature: float, top_p: float, uniforms: NDArray[np.float64] | None) -> Iterator[int]:
        """Write them to their ends; after each token, yield how many ended with it.

        `uniforms`: (replies, tokens, HALVINGS), None to take the likeliest token.
        """
        live = np.arange(len(self.room))  # the reply that each row of `rows` belongs to
        going = np.ones(len(self.room), dtype=bool)
        for step in range(max(self.room)):
            logits = self.rows.logits()
            chance = None if uniforms is None else torch.from_numpy(uniforms[live, step]).to(logits.device)
            token = _choose(logits, temperature, top_p, chance)
            figures = torch.stack(
                [token.double(), *(one.double() for one in token_statistics(logits, token, ("entropy",)))]
            )
            found = figures.cpu().numpy()
            still = going[live]
            at, found = live[still], found[:, still]
            self.tokens[at, step] = found[0]
            self.measured[:, at] += found[1:]
            self.length[at] = step + 1
            going[at] = ~np.isin(self.tokens[at, step], self.ends) & (step + 1 < self.room[at])
            yield int(len(at) - going[at].sum())
            if not going.any():
                return
            self.rows.append(token, going[live])
            if self.rows.can_shrink and 2 * going[live].sum() <= len(live):
                self.rows.keep(np.flatnonzero(going[live]))
                live = live[going[live]]

    def replies(self, tokenizer: PreTrainedTokenizerBase) -> Iterator[Reply]:
        """What was written."""
        for row, length in enumerate(self.length):
            tokens = self.tokens[row, :length].copy()
            log_prob, entropy = (float(value) for value in self.measured[:, row])
            finished = bool(np.isin(tokens[-1], self.ends))
            text = str(tokenizer.decode(tokens[: length - finished], skip_special_tokens=True))
            yield Reply(tokens, text, log_prob, entropy / int(length), finished)


def _choose(logits: Tensor, temperature: float, top_p: float, uniforms: Tensor | None) -> Tensor:
    if uniforms is None:
        return logits.argmax(1)
    probs = (logits.double() / temperature).softmax(1)
    return draw(nucleus(probs, top_p) if top_p < 1 else probs, uniforms)


def _streams(prompts: Sequence[NDArray[Any]], seed: int) -> list[np.random.Generator]:
    seen: Counter[bytes] = Counter()
    streams = []
    for prompt in prompts:
        ids = np.asarray(prompt, dtype=np.int64).tobytes()
        digest = blake2b(f"{seed} {seen[ids]} ".encode() + ids, digest_size=16).digest()
        seen[ids] += 1
        streams.append(np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little"))))
    return streams


def _batches(
    model: PreTrainedModel, prompts: Sequence[NDArray[Any]], most: int, budget: int, way: str
) -> Iterator[list[int]]:
    """Prompts of like length, the longest first: what does not fit into memory then fails at once.

    Padding would go into a recurrent state: such a model's batches are of one length. A reply that may pass a length at
    which rotary frequencies change is written alone.
    """
    one_length = recurrent(model)
    batch: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
        if way != TOGETHER or crosses(model, prompts[i], most):
            yield [i]
            continue
        slots = len(prompts[batch[0]]) + most if batch else 0
        if batch and ((len(batch) + 1) * slots > budget or (one_length and len(prompts[i]) + most != slots)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _limits(model: PreTrainedModel, prompts: Sequence[NDArray[Any]], most: int) -> list[int]:
    """How many tokens each reply can have. The last one needs no position: nothing is predicted from it."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if positions is not None and longest > positions:
        raise UserError(
            f"a prompt has {longest} tokens and the model {positions} positions",
            where="tokens.max_length", expected=f"at most {positions}",
        )  # fmt: skip
    return [most if positions is None else min(most, positions - len(prompt) + 1) for prompt in prompts]


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout, with the attention that the model was loaded with, and without gradient checkpointing, which
    would have the layers forget the cache."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with own_attention(model):
            yield
    finally:
        for module in training:
            module.training = True
