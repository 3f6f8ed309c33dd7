"""The reference of a run: cached scores of the start, and the scorer that runs beside the policy."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from alignzoo.data.token_store import TokenizedDataset
from alignzoo.models.adapters import has_adapters
from alignzoo.models.loading import load_policy
from alignzoo.reference.scores import ReferenceScores, spot_check
from alignzoo.scoring.exactness import Check, SpotCheck
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.job import Job
from alignzoo.training.policy import cached_scores, copy_layout

CACHED = ("sequence", "token")
"""Kinds of reference whose scores are computed once, before training."""


@dataclass(frozen=True, slots=True)
class References:
    """The cached reference scores of both splits, None where nothing needs them."""

    train: ReferenceScores | None
    held_out: ReferenceScores | None
    exact: list[Check]
    """The check of these scores, as the cache has them, against the model's own forward; empty without one."""


def score_references(job: Job, scorer: Scorer, data: TokenizedDataset) -> References:
    """Score the splits with the policy before its first step.

    The held-out rows are scored also where the objective needs no reference and a metric does.
    """
    job.stopping.doing = "stopped in the reference pass; scores so far are kept, and the same command continues"
    kind = job.recipe.objective.reference
    of_metric = kind == "none" and any(metric.reference in CACHED for metric in job.recipe.eval.metrics)
    drawn, groups = job.recipe.rollout is not None, job.recipe.objective.data == "group"
    rows = not groups and data.held_out.trees.answered
    wanted = {"train": kind in CACHED and not drawn, "held_out": rows and (kind in CACHED or of_metric)}
    trees = {name: part.trees for name, part in (("train", data.train), ("held_out", data.held_out)) if wanted[name]}
    spot = None if job.ranks.sharded else SpotCheck(scorer)
    scores = cached_scores(job.resolved, scorer, list(trees.values()), job.screen, job.ranks, spot=spot)
    found = dict(zip(trees, scores, strict=True))
    checks = spot_check(spot, scores, job.ranks)
    # The check of the cache alone: those of the shards are printed, and a run that finds them in the cache has none.
    return References(found.get("train"), found.get("held_out"), checks[-1:])


def live_reference(job: Job, scorer: Scorer, tokenizer: PreTrainedTokenizerBase) -> Scorer | None:
    """Return the start as a second scorer, unsharded in each process; None if nothing needs one.

    Objectives with a `live` reference need its distributions, those with a `moving` one its weights, and any reference
    of draws is computed during the run. Under adapters the base model is the start, and no copy is made.
    """
    recipe = job.recipe
    if recipe.objective.reference not in ("live", "moving") and not (
        recipe.rollout and recipe.objective.reference != "none"
    ):
        return None
    job.screen.info(f"reference: runs beside the policy ({recipe.objective.reference})")
    if has_adapters(scorer.model):
        live = Scorer(scorer.model, scorer.layout, scorer.precision)
        live.base_alone = True
    else:
        if job.ranks.sharded:
            model = load_policy(recipe.model, tokenizer, recipe.seed, job.start, recipe.objective.head)
        else:
            model = copy.deepcopy(scorer.model)
        live = Scorer(model.requires_grad_(False), scorer.layout, scorer.precision).to(job.ranks.device)
    copy_layout(scorer, live)
    return live
