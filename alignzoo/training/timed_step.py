"""Estimate of a run's duration from timed steps of its own."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.models.adapters import add_adapters
from alignzoo.models.compile import compiled_layers, disable_tf32
from alignzoo.models.loading import use_gradient_checkpointing
from alignzoo.recipe.resolved import START, Resolved
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import TokenScores
from alignzoo.training.needed_runs import folder_of, start_weights
from alignzoo.training.optimizers import make_optimizer
from alignzoo.training.policy import cached_scores, device_of, open_policy
from alignzoo.training.references import CACHED
from alignzoo.training.schedule import rows_of_step, total_steps
from alignzoo.training.step import Engine

STEPS = 4
"""Steps that are taken. The first one warms up: kernels are compiled and optimizer states made in it."""
ENOUGH = 20.0
"""Seconds after which no further step is taken, once one is timed."""


def time_run(
    resolved: Resolved, tokenizer: PreTrainedTokenizerBase, data: TokenizedDataset, screen: Screen
) -> dict[str, Any]:
    """Load the model, time some steps on the run's first rows, and estimate the whole run.

    A start that is not trained yet has the weights of the first run of the chain, which take as long. Nothing is kept
    but scores in the reference cache, which the run uses.

    Returns:
        `seconds` of the run, of a `step`, the `reference` pass and `evaluations`; or why they are `unavailable`.

    Raises:
        UserError: The model can't be loaded.
        RunFailed: Memory does not suffice for a row.
    """
    recipe, objective = resolved.recipe, resolved.recipe.objective
    if reason := _untimed(resolved):
        return {"unavailable": reason}
    disable_tf32()
    ranks = Ranks(device_of(recipe.train.device))
    start = None
    if resolved.start and folder_of(resolved.start).summary() is not None:
        start = start_weights(resolved, screen)
    elif resolved.start:
        own = {key: getattr(recipe.model, key) for key in ("dtype", "lora", "quantize")}
        source = resolved.first.recipe.model.model_copy(update=own)
        needs = {key: need for key, need in resolved.needs.items() if key != START}
        resolved = replace(resolved, recipe=recipe.model_copy(update={"model": source}), needs=needs)
    train, trees = recipe.train, data.train.trees
    steps = min(STEPS, len(trees) // train.batch_size)
    some = trees.subset(_rows(steps, len(trees), resolved))
    scorer, _ = open_policy(resolved, tokenizer, start, some, ranks)
    reference: TokenScores | None = None
    if objective.reference in CACHED:
        (reference,) = cached_scores(resolved, scorer, [some], Screen(quiet=True), ranks)
    if recipe.model.lora:
        add_adapters(scorer.model, recipe.model.lora, recipe.seed)
    builder = BatchBuilder(objective, some, reference, None, recipe.seed)
    optimizer = make_optimizer(train.optimizer, scorer.model, train.master_weights, train.weight_decay_on)
    engine = Engine(builder, train, ranks, scorer, optimizer, steps, recipe.seed)
    forward = _forward(engine, list(range(min(train.batch_size, len(some)))))
    if train.gradient_checkpointing:
        use_gradient_checkpointing(scorer.model)
    taken: list[float] = []
    with compiled_layers(scorer.model, train.compile, ranks.device):
        while len(taken) < steps and (len(taken) < 2 or sum(taken) < ENOUGH):
            taken.append(_timed(ranks.device, lambda: engine.step(len(taken))))
    step = statistics.median(taken[1:] or taken)
    return _estimate(resolved, data, step, forward, len(taken) - 1)


def _untimed(resolved: Resolved) -> str:
    """Return why a run can't be timed by a few steps, or ""."""
    recipe = resolved.recipe
    if recipe.rollout:
        return "draws, judges and updates take turns, and depend on the length of what is drawn"
    if recipe.objective.reference in ("live", "moving"):
        return "a reference runs beside the policy"
    if recipe.objective.references:
        return "a named reference scores the rows"
    return ""


def _rows(steps: int, rows: int, resolved: Resolved) -> NDArray[np.int64]:
    """Return the rows of the run's first steps."""
    recipe = resolved.recipe
    return np.concatenate([rows_of_step(step, rows, recipe.train, recipe.seed) for step in range(steps)])


def _forward(engine: Engine, rows: list[int]) -> float:
    """Return the seconds a row of a forward without gradient."""

    def score(parts: list[list[int]]) -> None:
        with torch.no_grad():
            for part in parts:
                engine.passes.score(part)

    engine.passes.in_micro_batches(rows, score)
    return _timed(engine.ranks.device, lambda: engine.passes.in_micro_batches(rows, score)) / len(rows)


def _timed(device: torch.device, work: Any) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _estimate(resolved: Resolved, data: TokenizedDataset, step: float, forward: float, timed: int) -> dict[str, Any]:
    recipe = resolved.recipe
    steps = total_steps(recipe.train, len(data.train.trees))
    held_out = sum(len(part.trees) for part in data.evaluated.values())
    evaluations = 2 + (steps - 1) // recipe.eval.every if recipe.eval.every else 2
    scored = len(data.train.trees) + held_out if recipe.objective.reference in CACHED else 0
    parts = {"training": steps * step, "reference": scored * forward, "evaluations": evaluations * held_out * forward}
    return {"seconds": sum(parts.values()), "step": step, "steps": steps, "timed": max(1, timed)} | parts
