"""Generate replies in batches, each the same as if it were generated alone.

Every reply has its own stream of random numbers on the CPU, determined by the seed and either its key, or its prompt's
token ids and the number of equal prompts before it. A reply does not depend on the batch size, the order of the prompts
or the other prompts. Two policies with the same seed use the same random numbers. The rest is rounding
(`alignzoo.models.sampling`).

Replies to equal prompts share the prompt where the model allows it: it is read once, replies that end leave the batch,
and others take their place.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from alignzoo.models.continuous_batching import Capacity, SharedBatch
from alignzoo.models.decoding import (
    BATCHED,
    SHARED,
    UNCACHED,
    DecodingBatch,
    choose_strategy,
    crosses_length_rule,
    is_recurrent,
)
from alignzoo.models.drawing_mode import autocast_once, evaluating
from alignzoo.models.ending import Ending
from alignzoo.models.mixture import MixedBatch, Mixture, mixed_strategy
from alignzoo.models.positions import max_tokens
from alignzoo.models.sampling import Uniforms, choose
from alignzoo.models.shared_prompt import shared_prompt_attention


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with its statistics under the policy at temperature 1 over the full vocabulary."""

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
    keys: Sequence[tuple[int, ...]] | None = None, texts: bool = True, entropy: bool = True, precision: str = "float32",
    mixture: Mixture | None = None, ending: Ending | None = None, vocabulary: int | None = None,
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
        entropy: Compute entropies. Without, they are NaN.
        precision: `bfloat16` runs the model under autocast; the weights keep their own type.
        mixture: A second model to mix in. Statistics of replies are then those of the mixture.
        ending: What ends a reply; by default the end-of-sequence tokens.
        vocabulary: Only token ids below it are generated; by default all of the model's.

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
    named = _streams(prompts, seed) if keys is None else [f"{seed} {key}".encode() for key in keys]

    def halve(error: BaseException) -> None:
        nonlocal budget
        if budget <= max(len(prompts[i]) for i in np.flatnonzero(~found.done).tolist()) + max_new_tokens:
            raise error
        budget //= 2

    with evaluating(model):
        strategy = choose_strategy(model, prompts, limits) if prompts else BATCHED
    if mixture is not None and prompts:
        with evaluating(mixture.model):
            strategy = mixed_strategy(strategy, choose_strategy(mixture.model, prompts, limits))
    ending = ending or Ending(tokenizer, frozenset(end_tokens(model, tokenizer)))
    found = _Replies(limits, ending, temperature, top_p, entropy, named, progress, vocabulary)
    while not found.done.all():  # repeats only after memory ran out, with smaller batches
        left = found.begin()
        models = [model] if mixture is None else [model, mixture.model]
        with handle_out_of_memory(halve), evaluating(model), autocast_once(models, precision):
            if strategy == SHARED:
                _generate_shared(model, prompts, left, max_new_tokens, budget, found)
                continue
            for positions in _batches(model, [prompts[i] for i in left], max_new_tokens, budget, strategy):
                batch = np.array([left[n] for n in positions])
                own = [prompts[i] for i in batch]
                if mixture is None:
                    _generate_batch(DecodingBatch(model, own, strategy != UNCACHED), batch, found)
                else:
                    with evaluating(mixture.model):
                        _generate_batch(MixedBatch(model, mixture, own, strategy != UNCACHED), batch, found)
    return list(found.replies(texts))


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of tokens that end a reply.

    These are the tokenizer's end-of-sequence token, and those of the model's generation config that are special tokens
    of this tokenizer. Chat models end turns with a separate token.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {int(tokenizer.eos_token_id)} | (set(ids) & special)


class _Replies:
    """All replies while they are generated."""

    def __init__(
        self, limits: Sequence[int], ends: Ending, temperature: float, top_p: float, entropy: bool,
        keys: Sequence[bytes], progress: Advance | None, vocabulary: int | None = None,
    ) -> None:  # fmt: skip
        self.limits, self.ends = np.array(limits, np.int64), ends
        self.temperature, self.top_p, self.entropy = temperature, top_p, entropy
        self.uniforms, self.progress, self.vocabulary = Uniforms(keys), progress, vocabulary
        self.tokens = np.zeros((len(limits), max(limits, default=1)), dtype=np.int32)
        self.sums = np.zeros((2, len(limits)))  # of log-probs and of entropies
        self.length = np.zeros(len(limits), dtype=np.int64)
        self.done = np.zeros(len(limits), dtype=np.bool_)

    def begin(self) -> list[int]:
        """Return the replies that are not done. They start from nothing."""
        left = np.flatnonzero(~self.done)
        self.length[left], self.sums[:, left] = 0, 0
        return [int(reply) for reply in left]

    def take(self, logits: Tensor, at: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.bool_]]:
        """Choose the next token of each of the replies `at` (n,) from its logits (n, V).

        Returns:
            The tokens (n,), and False for replies that end with theirs.
        """
        step = self.length[at]
        uniforms = self.uniforms.next(at, step).to(logits.device) if self.temperature > 0 else None
        token, log_prob, entropy = choose(
            logits[:, : self.vocabulary], self.temperature, self.top_p, uniforms, self.entropy
        )
        ids = token.cpu().numpy()
        self.tokens[at, step] = ids
        self.sums[0, at] += log_prob.double().cpu().numpy()
        self.sums[1, at] += np.nan if entropy is None else entropy.double().cpu().numpy()
        self.length[at] = step + 1
        ended = self.ends.reached(ids, lambda n: self.tokens[at[n], : self.length[at[n]]])
        going = ~ended & (step + 1 < self.limits[at])
        self.done[at] = ~going
        self.uniforms.drop(at[~going])
        if self.progress is not None and not going.all():
            self.progress(int((~going).sum()), "")
        return token, going

    def replies(self, decoded: bool) -> Iterator[Reply]:
        """Yield the generated replies, with their texts if they are to be decoded."""
        all_tokens = [self.tokens[row, :length].copy() for row, length in enumerate(self.length)]
        last = np.array([tokens[-1] for tokens in all_tokens], dtype=np.int64)
        finished = self.ends.reached(last, all_tokens.__getitem__).tolist()
        texts = self.ends.texts(all_tokens) if decoded else [""] * len(all_tokens)
        for row, (tokens, text, end) in enumerate(zip(all_tokens, texts, finished, strict=True)):
            log_prob, entropy = (float(value) for value in self.sums[:, row])
            yield Reply(tokens, text, log_prob, entropy / len(tokens), end)


def _generate_shared(
    model: PreTrainedModel, prompts: Sequence[NDArray[Any]], left: Sequence[int], max_new_tokens: int, budget: int,
    found: _Replies,
) -> None:  # fmt: skip
    """Generate replies, with one prefill for equal prompts.

    Longest prompts come first, so that memory fails early. A slot is as wide as the longest prompt. Where not all
    replies fit into the budget, prompts of less than half of that length come after the others.
    """
    groups: dict[bytes, list[int]] = {}
    for i in left:
        groups.setdefault(np.asarray(prompts[i], np.int64).tobytes(), []).append(i)
    members = sorted(groups.values(), key=lambda group: -len(prompts[group[0]]))
    lengths, sizes = [len(prompts[group[0]]) for group in members], [len(group) for group in members]
    start = 0
    while start < len(members):
        width = lengths[start]
        capacity, stop = Capacity.within(budget, sizes[start:], width, max_new_tokens), len(members)
        if capacity.rows < sum(sizes[start:]):
            stop = next((n for n in range(start, stop) if 2 * lengths[n] < width), stop)
        _generate_together(model, prompts, members[start:stop], capacity, width, found)
        start = stop


def _generate_together(
    model: PreTrainedModel, prompts: Sequence[NDArray[Any]], members: Sequence[list[int]], capacity: Capacity,
    width: int, found: _Replies,
) -> None:  # fmt: skip
    """Generate the replies of groups with equal prompts of at most `width` tokens."""
    queue = deque(
        group[start : start + capacity.rows] for group in members for start in range(0, len(group), capacity.rows)
    )
    longest = max(int(found.limits[i]) for group in members for i in group)
    with shared_prompt_attention(model):
        batch = SharedBatch(model, capacity, width, longest)
        at, tokens = np.zeros(0, np.int64), torch.zeros(0, dtype=torch.long, device=model.device)
        while queue or len(at):
            joining: list[list[int]] = []
            while queue and batch.fits(sum(map(len, [*joining, queue[0]])), len(joining) + 1):
                joining.append(queue.popleft())
            if joining:
                new = np.concatenate(joining)
                logits = batch.add([prompts[group[0]] for group in joining], [len(group) for group in joining])
                token, more = found.take(logits, new)
                going = np.concatenate([np.ones(len(at), np.bool_), more])
                at, tokens = np.concatenate([at, new]), torch.cat([tokens, token])
            else:
                tokens, going = found.take(batch.step(tokens), at)
            if not going.all():
                order = batch.keep(going)
                at, tokens = at[order], tokens[torch.from_numpy(order).to(tokens.device)]


def _generate_batch(sequences: DecodingBatch | MixedBatch, replies: NDArray[np.int64], found: _Replies) -> None:
    """Generate some replies with the model's own cache.

    Rows that have ended are padded until half of them have.
    """
    active = np.ones(len(replies), np.bool_)
    while active.any():
        rows = torch.from_numpy(np.flatnonzero(active)).to(sequences.ids.device)
        logits = sequences.logits()
        tokens = torch.zeros(len(replies), dtype=torch.long, device=rows.device)
        tokens[rows], active[active] = found.take(logits[rows], replies[active])
        if not active.any():
            return
        sequences.append(tokens, active)
        if sequences.can_shrink and 2 * active.sum() <= len(replies):
            sequences.keep(np.flatnonzero(active))
            replies, active = replies[active], active[active]


def _streams(prompts: Sequence[NDArray[Any]], seed: int) -> list[bytes]:
    """Return each reply's random key: seed, prompt, and the number of equal prompts before it."""
    seen: Counter[bytes] = Counter()
    keys = []
    for prompt in prompts:
        ids = np.asarray(prompt, dtype=np.int64).tobytes()
        keys.append(f"{seed} {seen[ids]} ".encode() + ids)
        seen[ids] += 1
    return keys


def _batches(
    model: PreTrainedModel, prompts: Sequence[NDArray[Any]], max_new_tokens: int, budget: int, strategy: str
) -> Iterator[list[int]]:
    """Yield batches of indices of prompts with similar lengths, longest first.

    Memory then fails early. Batches of a recurrent model have one length, because padding would enter its state. A
    reply that may pass a length at which rotary frequencies change is generated alone.
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
