"""Reference of a run: cached scores of the start, and the scorer beside the policy."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from alignzoo.core.errors import UserError
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.data.trees import Trees
from alignzoo.models.adapters import has_adapters
from alignzoo.models.loading import load_policy
from alignzoo.recipe.schema import Recipe
from alignzoo.reference.scores import ReferenceScores, spot_check
from alignzoo.scoring.exactness import Check, SpotCheck
from alignzoo.scoring.scored_batch import NAMED, TokenScores
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.job import Job
from alignzoo.training.policy import cached_scores, check_vocabulary, copy_layout, open_reference, share_layout

MAIN = "reference"
"""The name of the reference of log-ratios, which is the policy's start unless the recipe names another model."""
CACHED = ("sequence", "token")
"""Kinds of reference whose scores are computed once, before training."""


@dataclass(frozen=True, slots=True)
class References:
    """The cached reference scores of all rows, None or left out where nothing needs them."""

    train: ReferenceScores | None
    evaluated: dict[str, ReferenceScores | None]
    """Of each part of `TokenizedDataset.evaluated`."""
    exact: list[Check]
    """The checks of these scores, as the cache has them, against the models' own forwards; empty without one."""
    named_train: dict[str, TokenScores]
    """The scores under each named reference, as `BatchBuilder.recorded` holds them."""
    named_evaluated: dict[str, dict[str, TokenScores]]
    """The same of each part of `TokenizedDataset.evaluated`."""

    @property
    def parts(self) -> list[ReferenceScores | None]:
        """All scores."""
        named = [one for own in (self.named_train, *self.named_evaluated.values()) for one in own.values()]
        return [self.train, *self.evaluated.values(), *(one for one in named if isinstance(one, ReferenceScores))]


def needed_references(recipe: Recipe) -> set[str]:
    """Return the names of the references that the objective or a metric reads.

    The reference of log-ratios is not included.
    """
    return {name for one in (recipe.objective, *recipe.eval.metrics) for name in one.references}


def check_vocabularies(job: Job, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError if a named reference has another tokenizer than the policy.

    It runs before anything is scored.
    """
    for name in job.recipe.references:
        check_vocabulary(job.resolved, name, tokenizer, job.reference_starts.get(name))


def score_references(
    job: Job, scorer: Scorer, tokenizer: PreTrainedTokenizerBase, data: TokenizedDataset
) -> References:
    """Score the splits with the policy before its first step, and with each named reference.

    The held-out rows are scored also where only a metric needs it. A named reference is in memory while it scores.
    """
    job.stopping.doing = "stopped in the reference pass; scores so far are kept, and the same command continues"
    objective, metrics, named = job.recipe.objective, job.recipe.eval.metrics, job.recipe.references
    of_metric = objective.reference == "none" and any(metric.reference in CACHED for metric in metrics)
    drawn, cached = job.recipe.rollout is not None, objective.reference in CACHED
    wanted = {MAIN: (cached and not drawn, (cached and objective.data != "group") or of_metric)}
    for name in named.keys() - {MAIN}:
        of_objective = name in objective.references
        wanted[name] = (of_objective, of_objective or any(name in metric.references for metric in metrics))
    found: dict[str, list[ReferenceScores | None]] = {}
    exact: list[Check] = []
    for name in sorted(wanted, key=lambda name: (name != MAIN, name)):
        of_train, of_evaluated = wanted[name]
        parts = [(data.train, of_train), *((part, of_evaluated) for part in data.evaluated.values())]
        sides = [part if wanted_here and part.trees.answered else None for part, wanted_here in parts]
        trees = [part.trees for part in sides if part is not None]
        model = scorer
        if name in named and trees:
            start = job.reference_starts.get(name)
            model = open_reference(job.resolved, name, tokenizer, start, trees[0], job.ranks)
        spot = None if job.ranks.sharded else SpotCheck(model)
        label = "reference" if name == MAIN else f"reference {name}"
        scores = cached_scores(
            job.resolved, model, trees, job.screen, job.ranks, label=label, spot=spot, source=named.get(name)
        )
        # The check of the cache alone: those of the shards are printed, and a run that finds them there has none.
        exact += spot_check(spot, scores, job.ranks)[-1:]
        left = iter(scores)
        found[name] = [None if part is None else next(left) for part in sides]
    train, *evaluated = found.pop(MAIN)
    named_train, *named_evaluated = (
        {NAMED.format(name): own for name, scores in found.items() if (own := scores[n]) is not None}
        for n in range(1 + len(data.evaluated))
    )
    return References(
        train, dict(zip(data.evaluated, evaluated, strict=True)), exact,
        dict(named_train), {set: dict(own) for set, own in zip(data.evaluated, named_evaluated, strict=True)},
    )  # fmt: skip


def live_reference(job: Job, scorer: Scorer, tokenizer: PreTrainedTokenizerBase, trees: Trees) -> Scorer | None:
    """Return the start as a second scorer, or None if nothing needs one.

    The scorer is unsharded in each process. Objectives with a `live` reference need its distributions, those with a
    `moving` one its weights, and any reference of draws is computed during the run, as is the KL divergence of draws.
    Under adapters the base model is the start, and no copy is made. A recipe that names the reference gets that model.
    """
    recipe = job.recipe
    kind, rollout = recipe.objective.reference, recipe.rollout
    scores_draws = rollout is not None and kind != "none" and rollout.reference == "start"
    if not (scores_draws or kind in ("live", "moving") or (rollout and rollout.kl_rows)):
        return None
    measures = "for the KL divergence alone; rollout.kl_rows=0 does without"
    return _beside(job, scorer, tokenizer, trees, kind if scores_draws or kind in ("live", "moving") else measures)


def reply_reference(
    job: Job, scorer: Scorer, live: Scorer | None, tokenizer: PreTrainedTokenizerBase, trees: Trees
) -> Scorer:
    """Return the reference that sampled replies are compared with along training.

    It is the one that runs beside the policy, unless there is none, or it moves.
    """
    if live is not None and job.recipe.objective.reference != "moving":
        return live
    return _beside(
        job, scorer, tokenizer, trees, "for the KL divergence of replies; eval.replies.every=null does without"
    )


def _beside(job: Job, scorer: Scorer, tokenizer: PreTrainedTokenizerBase, trees: Trees, reason: str) -> Scorer:
    """Return the start, or the recipe's own reference, as a second scorer."""
    recipe = job.recipe
    job.screen.info(f"reference: runs beside the policy ({reason})")
    if MAIN in recipe.references:
        return _named_live(job, scorer, tokenizer, trees)
    if has_adapters(scorer.model):
        live = Scorer(scorer.model, scorer.layout, scorer.precision)
        live.base_alone = True
    else:
        if job.ranks.sharded:
            objective = recipe.objective
            model = load_policy(
                recipe.model, tokenizer, recipe.seed, job.start, objective.policy_head, objective.outputs
            )
        else:
            model = copy.deepcopy(scorer.model)
        live = Scorer(model.requires_grad_(False), scorer.layout, scorer.precision).to(job.ranks.device)
    copy_layout(scorer, live)
    return live


def _named_live(job: Job, scorer: Scorer, tokenizer: PreTrainedTokenizerBase, trees: Trees) -> Scorer:
    """Load the recipe's reference to run beside the policy.

    Both take the slower of their layouts.
    """
    start = job.reference_starts.get(MAIN)
    live = open_reference(job.resolved, MAIN, tokenizer, start, trees, job.ranks, whole=True)
    _check_width(scorer, live)
    share_layout(trees, scorer, live)
    return live


def _check_width(scorer: Scorer, live: Scorer) -> None:
    """Raise UserError when the reference has fewer logits than the policy.

    Further logits are left out.
    """
    own, other = (int(one.model.config.get_text_config().vocab_size) for one in (scorer, live))
    if other < own:
        raise UserError(
            f"it has {other:,} logits, and the policy has {own:,}: their distributions can't be compared",
            where=f"references.{MAIN}", expected="a model with as many logits as the policy, or more",
        )  # fmt: skip
