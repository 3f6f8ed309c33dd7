"""Sampled replies to held-out prompts, and their figures that need no judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.compare.spec import Sampling
from alignzoo.core.console import Screen
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.evaluation.samples import as_text, choose_reply_rows
from alignzoo.models.generation import generate_replies
from alignzoo.models.tokenizers import decode
from alignzoo.rollouts.prompts import Prompts
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.microbatches import plan_micro_batches
from alignzoo.scoring.scorer import Scorer


def reply_lines(
    policy: Scorer, reference: Scorer | None, tokenizer: PreTrainedTokenizerBase, held_out: TokenizedRows,
    test: NDArray[np.bool_], usable: bool, settings: Sampling, budget: int, screen: Screen, draws: int = 1,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return a record for each sampled reply, as in `RepliesFolder.samples` without judges.

    `kl` is the sum over the reply's tokens of KL(policy || reference), in nats, as in section 6.1 of the DPO paper. It
    is 0 if `policy` is `reference`, and None at other temperatures than 1: the replies are then not the policy's.

    Args:
        policy: Model that replies.
        reference: Model of `kl` and `log_ratio`; None where neither is measured.
        tokenizer: Tokenizer of both.
        held_out: Held-out rows, whose prompts are used.
        test: Rows of the test split, shape (rows,).
        usable: False for no replies: no prompt ends where a reply begins.
        settings: Number of prompts, length, one temperature, and seed.
        budget: Token slots of a forward pass.
        screen: Where progress is shown.
        draws: Replies to each prompt. With several, a record has its `number`, and the first alone has the row's texts.
    """
    temperature = settings.main
    wanted = {True: settings.prompts, False: settings.validation_prompts} if usable else {}
    chosen = [(row, side) for side, count in wanted.items() for row in choose_reply_rows(held_out, count, test == side)]
    chosen = [one for one in chosen for _ in range(draws)]
    rows = [row for row, _ in chosen]
    prompts = [held_out.trees[i].prompt for i in rows]
    with screen.bar("replies", len(rows)) as advance:
        replies = generate_replies(
            policy.model, tokenizer, prompts, temperature=temperature, max_new_tokens=settings.tokens,
            seed=settings.seed, progress=advance,
        )  # fmt: skip
    kl: list[float | None] = [None] * len(rows)
    log_ratio = kl
    if reference is not None and temperature == 1:
        trees = [
            Tree(held_out.trees.ids[i], prompt, (Branch(reply.tokens),))
            for i, prompt, reply in zip(rows, prompts, replies, strict=True)
        ]
        kl, log_ratio = divergences(policy, reference, trees, budget)
    shown = decode(tokenizer, prompts)
    return [
        {
            "id": held_out.rows[i].id, "test": int(chosen[n][1]), "prompt": "" if n % draws else shown[n],
            "reply": reply.text, "chosen": "" if n % draws else as_text(held_out.rows[i], 0),
            "length": len(reply.tokens), "finished": reply.finished, "kl": kl[n], "log_ratio": log_ratio[n],
            "entropy": reply.entropy, "distinct_2": distinct(reply.text, 2),
        } | ({"number": n % draws} if draws > 1 else {})
        for n, (i, reply) in enumerate(zip(rows, replies, strict=True))
    ]  # fmt: skip


@torch.no_grad()
def divergences(
    policy: Scorer, reference: Scorer, trees: Sequence[Tree], budget: int
) -> tuple[list[float | None], list[float | None]]:
    """Return (KL(policy || reference), log policy - log reference) of each sequence.

    Both are sums over its tokens, in nats.
    """
    kl: list[float | None] = [0.0] * len(trees)
    log_ratio: list[float | None] = [0.0] * len(trees)
    if policy is reference:
        return kl, log_ratio
    device = next(policy.parameters()).device
    for part in plan_micro_batches(trees, budget, policy.layout):
        forest = lay_out([trees[i] for i in part], policy.layout).to(device)
        found = policy(forest, ("reverse_kl",), live=reference)
        ratios = found["log_prob"].double() - found["ref_log_prob"].double()
        lengths = forest.offsets.diff().tolist()
        kls = found["reverse_kl"].double().split(lengths)
        for i, own_kl, own_ratio in zip(part, kls, ratios.split(lengths), strict=True):
            kl[i], log_ratio[i] = float(own_kl.sum()), float(own_ratio.sum())
    return kl, log_ratio


def distinct(text: str, n: int) -> float | None:
    """Return distinct n-grams of words over all n-grams, or None without any.

    Source: Li et al. 2016, arXiv:1510.03055.
    """
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def answered(held_out: TokenizedRows, new_tokens: int, vocabulary: int) -> Trees:
    """Return the rows; of prompts alone, some of them with random continuations."""
    if held_out.trees.answered:
        return held_out.trees
    return Prompts(held_out, np.arange(len(held_out.trees))).probes(1, new_tokens, vocabulary)
