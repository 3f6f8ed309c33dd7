"""Held-out loss, preference accuracy, margins, and the metrics that a recipe names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.console import Screen, warn_once
from alignzoo.core.distributed.process_group import Ranks, deal_rows
from alignzoo.core.errors import attribute_errors
from alignzoo.evaluation.aggregate import mean, standard_error
from alignzoo.evaluation.row_metrics import desirable_rows, row_metrics
from alignzoo.interfaces.metric import Metric
from alignzoo.scoring.batches import BatchBuilder, ScoredBatch, concat_scored
from alignzoo.scoring.microbatches import in_micro_batches
from alignzoo.scoring.scorer import Scorer


@torch.no_grad()
def score_all(
    scorer: Scorer, supply: BatchBuilder, budget: int, screen: Screen, what: str, ranks: Ranks | None = None
) -> ScoredBatch:
    """Every completion of every row, scored: on the CPU, in the order of the rows. Of several processes each scores its
    part, and all get the whole."""
    parts: list[ScoredBatch] = []

    def work(part: list[int]) -> ScoredBatch:
        flat, _ = supply.score(scorer, part, everything=True)
        flat.values = {name: value.cpu() for name, value in flat.values.items()}
        return flat

    rows = deal_rows(supply.trees.sizes, *((ranks.index, ranks.count) if ranks else (0, 1)))
    with screen.bar(what, len(rows)) as advance:
        for part, flat in in_micro_batches(supply.trees, rows, budget, scorer.layout, work, screen.info, ranks):
            parts.append(flat)
            advance(len(part), "")
    if ranks is not None:
        parts = [part for some in ranks.all_gather(parts) for part in some]
    flat = concat_scored(parts).in_order(range(len(supply.trees)))
    supply.with_reference(flat, torch.device("cpu"))
    return flat


def evaluate(
    scorer: Scorer, supply: BatchBuilder, budget: int, screen: Screen,
    states: Sequence[Mapping[str, float]] = (), at_start: bool = False, ranks: Ranks | None = None,
) -> dict[str, float]:  # fmt: skip
    """The held-out metrics, means over all rows whatever the budget.

    `preference_accuracy` is by the objective's implicit reward (ties count one half), `likelihood_accuracy` by the
    plain log-prob of the whole completion. Of unpaired data it is the share of all (desirable, undesirable) couples in
    which the desirable one has the higher reward, with the standard error of DeLong et al. 1988. `at_start` says that
    the policy still is the reference: its log-probs are then the reference's own, so that every pair is the tie that
    it is by definition, whatever two forwards round to.
    """
    objective = supply.objective
    flat = score_all(scorer, supply, budget, screen, "evaluation", ranks)
    if at_start and supply.reference is not None:
        flat.values["log_prob"] = flat.values["ref_log_prob"]
    result = {"n": len(supply.trees), "loss": 0.0}
    for n, (share, term) in enumerate(objective.terms):
        loss = weight = 0.0
        for given in supply.examples(flat, term, states[n] if states else term.initial_state()):
            with attribute_errors(f"the loss of {term.name} on held-out rows", term):
                losses = term.loss(given.example)
                supply.check_losses("held-out rows: ", term.name, losses, given, flat)
                loss += float(losses.double().sum())
                weight += float(term.weight(given.example).double().sum())
        result["loss"] += share * loss / weight if weight else 0.0  # no held-out row has what the term takes
    for metric in supply.metrics:
        with attribute_errors(f"the metric {metric.name}", metric):
            result |= _measure(metric, supply, flat)
    return result | _figures(supply, flat)


def _figures(supply: BatchBuilder, flat: ScoredBatch) -> dict[str, float]:
    """Means of the rows' figures, and the standard error of the accuracy. What no row has is left out."""
    values = row_metrics(supply, flat, ("preference_accuracy", "likelihood_accuracy"), pooled=True)
    found = {name: mean(value) for name, value in values.items() if not value.isnan().all()}
    good = desirable_rows(supply, flat)
    if good is not None and not all(bool(own.any()) for own in good):
        kind = "desirable" if bool(good[0].any()) else "undesirable"
        warn_once(f"every held-out completion is {kind}: no margin and no accuracy can be measured")
    if "preference_accuracy" in found:
        kinds = [values["preference_accuracy"]] if good is None else [values["preference_accuracy"][k] for k in good]
        found["preference_accuracy_se"] = math.hypot(*map(standard_error, kinds))
    return found


def by_example(metric: Metric, supply: BatchBuilder, flat: ScoredBatch) -> tuple[Tensor, NDArray[np.int64]]:
    """A metric's number of every example, float64, and the place in the flat of the row that each example is of.

    Not-a-number is left out.
    """
    given = list(supply.examples(flat, metric))
    values = [metric.values(one.example, supply.objective.terms[0][1]).double().cpu() for one in given]
    if not values:
        return torch.zeros(0, dtype=torch.float64), np.zeros(0, dtype=np.int64)
    whole, owners = torch.cat(values), np.concatenate([one.owners for one in given])
    known = ~whole.isnan()
    return whole[known], owners[known.numpy()]


def _measure(metric: Metric, supply: BatchBuilder, flat: ScoredBatch) -> dict[str, float]:
    """Mean and standard error of a metric over the examples that have a number; nothing when none has."""
    values, _ = by_example(metric, supply, flat)
    if not len(values):
        return {}
    return {metric.name: float(values.mean()), f"{metric.name}_se": standard_error(values)}
