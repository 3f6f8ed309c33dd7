"""Log-probs of every row under the trained policy and its reference, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.core.files import atomic_write
from alignzoo.data.trees import Tree
from alignzoo.recipe.resolved import Resolved
from alignzoo.reference.scores import ReferenceScores
from alignzoo.rollouts.prompts import Prompts
from alignzoo.scoring.exactness import SpotCheck, no_oracle
from alignzoo.scoring.forest import lay_out, sequences
from alignzoo.scoring.microbatches import plan_micro_batches
from alignzoo.training.needed_runs import folder_of, reference_weights, start_weights
from alignzoo.training.policy import cached_scores, device_of, open_data, open_policy, open_reference
from alignzoo.training.run import run_resolved
from alignzoo.training.run_folder import RunFolder


def write_scores(resolved: Resolved, output: Path, split: str, screen: Screen) -> int:
    """Write one JSON line per row to `output`, atomically, and return the number of rows.

    Both models are scored through the cache, each under its own key, so a second call runs no forward. With several
    processes each scores its share, and the main one writes.

    Raises:
        UserError: The run trains a reward model, which has no log-probs, or the rows have no completions.
    """
    resolved = resolved.reread()
    ranks = Ranks(device_of(resolved.recipe.train.device))
    with ranks.together():
        return _write(resolved, output, split, screen if ranks.main else Screen(quiet=True), ranks)


def exactness_figures(resolved: Resolved, screen: Screen, rows: int = 8) -> dict[str, Any]:
    """Compare a model's scores of a recipe's data with the model's own forward.

    The model is that of the recipe before any training. The longest, the first and up to `rows` training rows are
    scored both ways. The tokenized data is kept for the run.

    Returns:
        The layout and the reason for it, the largest difference of a token in nats, its limit, and counts.

    Raises:
        UserError: The model starts from a run that is not finished.
    """
    recipe, ranks = resolved.recipe, Ranks(device_of(resolved.recipe.train.device))
    if ranks.sharded:
        return {"unavailable": no_oracle(sharded=True, compiled=False)}
    if resolved.start and folder_of(resolved.start).summary() is None:
        raise UserError(
            f"the run of {resolved.start.recipe.name} is not finished, and its policy is the model to check",
            where="model.from", hint=f"alignzoo run {resolved.start.recipe.name} makes it",
        )  # fmt: skip
    start = start_weights(resolved, screen)
    tokenizer, data = open_data(resolved, start, None, screen, ranks)
    trees = data.train.trees
    if (config := recipe.rollout) is not None:  # random continuations stand for the draws
        prompts = Prompts.of(data.train, recipe.tokens.max_length, config.max_new_tokens, screen.info)
        trees = prompts.probes(config.completions, config.max_new_tokens, len(tokenizer))
    scorer, layout = open_policy(resolved, tokenizer, start, trees, ranks)
    spread = np.linspace(0, len(trees) - 1, min(rows, len(trees))).astype(int).tolist()
    some = [trees[row] for row in dict.fromkeys([int(trees.sizes.argmax()), *spread])]
    name = "scalar" if scorer.scalar else "log_prob"
    parts = plan_micro_batches(some, 2 * recipe.train.micro_batch_tokens, scorer.layout)
    found = []
    for part in parts:
        laid = [some[i] for i in part]
        forest = lay_out(laid, scorer.layout).to(ranks.device)
        with torch.no_grad():
            values = scorer(forest)[name]
        cuts = [1] * len(forest.last) if scorer.scalar else forest.offsets.diff().tolist()
        found.append(SpotCheck(scorer).compare(laid, values.split(cuts)))
    worst = max(found, key=lambda check: check.difference / check.limit)
    return {
        "layout": layout.used, "reason": layout.reason, "difference": worst.difference, "limit": worst.limit,
        "over": worst.over, "worst": worst.worst, "rows": len(some),
        "tokens": sum(check.tokens for check in found), "longest": int(trees.longest()),
    }  # fmt: skip


def _write(resolved: Resolved, output: Path, split: str, screen: Screen, ranks: Ranks) -> int:
    recipe = resolved.recipe
    if recipe.objective.head == "scalar":
        raise UserError(
            "a reward model has no log-probs", where="objective", expected="an objective that trains a language model"
        )
    if recipe.rollout is not None and recipe.rollout.pairs != "data" and split != "held_out":
        raise _without_completions("training", "rollout")
    result = run_resolved(resolved, screen=screen)
    start = ranks.main_process_first(lambda: start_weights(resolved, screen))
    first_day = ranks.broadcast_from_main(RunFolder(result.folder).first_day)
    tokenizer, data = open_data(resolved, start, first_day, screen, ranks)
    parts = {"train": data.train.trees, "held_out": data.held_out.trees}
    trees = {name: part for name, part in parts.items() if split in (name, "all")}
    if not all(part.answered for part in trees.values()):
        raise _without_completions("held-out", "data")

    def scores(label: str, trained: Path | None = None) -> dict[str, ReferenceScores]:
        first, named = next(iter(trees.values())), None if trained else recipe.references.get(label)
        if named is None:
            scorer, _ = open_policy(resolved, tokenizer, start, first, ranks, trained=trained)
        else:
            own = ranks.main_process_first(lambda: reference_weights(resolved, screen)).get(label)
            scorer = open_reference(resolved, label, tokenizer, own, first, ranks)
        found = cached_scores(resolved, scorer, list(trees.values()), screen, ranks, label=label, source=named)
        return dict(zip(trees, found, strict=True))

    reference, policy = scores("reference"), scores("policy", result.policy)
    if ranks.main:
        with atomic_write(output) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for name, part in trees.items():
                for i, tree in enumerate(part):
                    file.write(json.dumps(_line(name, tree, part.names(i), i, policy[name], reference[name])) + "\n")
    ranks.all_gather()
    return sum(len(part) for part in trees.values())


def _without_completions(side: str, where: str) -> UserError:
    return UserError(
        f"the {side} rows are prompts, and have no completions to score", where=where,
        expected="rows with completions, or `--split held_out` where those have some",
        hint="`alignzoo rollouts RUN` prints what was drawn",
    )  # fmt: skip


def _line(
    split: str, tree: Tree, names: Sequence[str], index: int, policy: ReferenceScores, reference: ReferenceScores
) -> dict[str, Any]:
    line: dict[str, Any] = {"id": tree.id, "split": split, "prompt_tokens": tree.prompt.tolist()}
    for b, (_, branch) in enumerate(sequences([tree])):
        scores = {"policy": policy.tokens(index, b), "reference": reference.tokens(index, b)}
        line[names[b]] = {
            "tokens": branch.tokens.tolist(),
            "spans": branch.spans.tolist(),
            "length": branch.scored,
            **{f"{model}_log_prob": float(values.sum(dtype=np.float64)) for model, values in scores.items()},
            **{f"{model}_token_log_probs": [float(value) for value in values] for model, values in scores.items()},
        }
    return line
