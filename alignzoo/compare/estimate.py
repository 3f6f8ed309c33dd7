"""A rough estimate of a plan's duration, from finished runs or from a short trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

import torch
from torch import nn

from alignzoo.compare.plan import Plan
from alignzoo.interfaces.rows import Row, words
from alignzoo.models.loading import from_config
from alignzoo.models.sources.transformers import TokenizerConfig
from alignzoo.models.tokenizers import train_tokenizer
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.policy import device_of

TOKENS = 1024
LETTERS = 4.0
"""Letters per token, of English in a large vocabulary."""
LOOKED_AT = 200
"""Rows that are read to guess the length of all."""
FORWARDS = 1.5
"""Time per row for reference pass, evaluations and sampling, relative to its training step."""


def seconds_left(plan: Plan) -> tuple[float, str] | None:
    """Return (seconds for the missing runs, basis of the estimate), or None without a basis."""
    runs = {resolved.fingerprint: resolved for resolved in [*(job.resolved for job in plan.jobs), *plan.starts]}
    runs = {key: resolved for key, resolved in runs.items() if not resolved.recipe.draw}  # which takes no steps
    left = [resolved for resolved in runs.values() if folder_of(resolved).summary() is None]
    done = [summary["train"]["pairs_per_second"] for r in runs.values() if (summary := folder_of(r).summary())]
    rows = sum(_rows(resolved) for resolved in left)
    rows += plan.later * max(_rows(job.resolved) for job in plan.jobs)
    if done:
        return rows / min(done) * FORWARDS, f"from {len(done)} finished runs"
    per_row = _tried(list(runs.values()))
    return None if per_row is None else (rows * per_row * FORWARDS, "roughly, from one step on made-up tokens")


def _rows(resolved: Resolved) -> float:
    train = resolved.recipe.train
    if train.max_steps:
        return train.max_steps * train.batch_size
    return train.epochs * (resolved.recipe.data.max_train_rows or 5000)


def _tried(runs: Sequence[Resolved]) -> float | None:
    """Return the seconds per row of a training step, measured on a model from scratch.

    A pretrained model is not loaded for this.
    """
    bottom = runs[0].first
    config, wanted = (getattr(bottom.recipe.model, key, None) for key in ("config", "tokenizer"))
    if not config:
        return None
    if not isinstance(wanted, TokenizerConfig):
        return None
    tokenizer = train_tokenizer(wanted, ())
    size = {"vocab_size": max(len(tokenizer), wanted.vocab_size)}
    model: nn.Module = from_config(size | config, tokenizer, 0, "language_model", "float32")
    model.to(device_of(bottom.recipe.train.device))
    ids = torch.zeros((4, TOKENS // 4), dtype=torch.long, device=next(model.parameters()).device)
    taken = []
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        model(ids).logits.logsumexp(-1).mean().backward()
        taken.append(time.perf_counter() - began)
    known = [resolved for resolved in runs if not any(key.startswith("data.") for key in resolved.needs)]
    return min(taken) / TOKENS * _tokens_a_row(known[-1]) if known else None  # rows of draws may not be there yet


def _tokens_a_row(resolved: Resolved) -> float:
    """Return a guess of a row's tokens from the letters of the first rows."""
    recipe = resolved.recipe
    lengths = []
    for row in islice(recipe.data.read("train"), LOOKED_AT):
        if isinstance(row, Row):
            texts = [row.prompt, *(part for one in row.completions for part in (one.context, one.text))]
            letters = [len(t) if isinstance(t, str) else sum(len(words(m)) for m in t) for t in texts]
            lengths.append(min(sum(letters) / LETTERS, len(row.completions) * recipe.tokens.max_length))
    return sum(lengths) / max(1, len(lengths))
