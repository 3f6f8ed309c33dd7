"""Held-out loss, preference accuracy, margins, and the metrics of the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.console import Screen, warn_once
from alignzoo.core.distributed.process_group import Ranks, deal_rows
from alignzoo.core.errors import RunFailed, attribute_errors
from alignzoo.evaluation.aggregate import mean, standard_error
from alignzoo.evaluation.area import pseudovalues
from alignzoo.evaluation.row_metrics import count_kinds, row_metrics
from alignzoo.evaluation.row_records import row_records
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.objective import Objective
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.microbatches import in_micro_batches
from alignzoo.scoring.scored_batch import ScoredBatch, concat_scored
from alignzoo.scoring.scorer import Scorer

VALIDATION = "validation_"
"""Prefix of a figure of the validation half of the evaluated rows, which checkpoints are chosen by."""


@torch.no_grad()
def score_all(
    scorer: Scorer, builder: BatchBuilder, budget: int, screen: Screen, label: str, ranks: Ranks | None = None
) -> ScoredBatch:
    """Score every completion of every row; return the scores on the CPU, in the order of rows.

    With several processes each scores a part, and all get the result.

    Args:
        scorer: The policy.
        builder: Trees and reference of the rows.
        budget: Token slots of a forward pass.
        screen: Where progress is shown.
        label: Name of the progress bar.
        ranks: The processes.
    """
    parts: list[ScoredBatch] = []

    def work(part: list[int]) -> ScoredBatch:
        batch, _ = builder.score(scorer, part, everything=True)
        batch.values = {name: value.cpu() for name, value in batch.values.items()}
        return batch

    rows = deal_rows(builder.trees.sizes, *((ranks.index, ranks.count) if ranks else (0, 1)))
    with screen.bar(label, len(rows)) as advance:
        for part, batch in in_micro_batches(builder.trees, rows, budget, scorer.layout, work, screen.info, ranks):
            parts.append(batch)
            advance(len(part), "")
    if ranks is not None:
        parts = [part for some in ranks.all_gather(parts) for part in some]
    batch = concat_scored(parts).in_order(range(len(builder.trees)))
    builder.with_reference(batch, torch.device("cpu"))
    return batch


def evaluate(
    scorer: Scorer, builder: BatchBuilder, budget: int, screen: Screen,
    states: Sequence[Mapping[str, float]] = (), at_start: bool = False, ranks: Ranks | None = None,
    records: list[dict[str, Any]] | None = None,
    half: NDArray[np.bool_] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Return the held-out metrics, as means over all rows for any budget.

    `preference_accuracy` compares the objective's implicit rewards (ties count one half), `likelihood_accuracy` the
    log-probs of whole completions. For unpaired data it is the share of (desirable, undesirable) pairs in which the
    desirable completion has the higher reward, with the standard error of DeLong et al. 1988. Standard errors are
    clustered by prompt.

    Args:
        scorer: The policy.
        builder: Trees and reference of the rows.
        budget: Token slots of a forward pass.
        screen: Where progress is shown.
        states: State of each term of the objective.
        at_start: True before the first step. Where the policy then is the reference, its log-probs are the reference's
            own, so that every pair is an exact tie even if two forward passes round differently.
        ranks: The processes.
        records: Receives a record of each row.
        half: True for the rows of the validation half, shape (rows,). Their figures are added, with `VALIDATION`
            before their names.
    """
    batch = score_all(scorer, builder, budget, screen, "evaluation", ranks)
    if at_start and builder.starts_at_reference and builder.reference is not None:
        batch.values["log_prob"] = batch.values["ref_log_prob"]
    result = _means(builder, batch, screen, states, at_start)
    if half is not None:
        own = _means(builder, batch.in_order(np.flatnonzero(half).tolist()), screen, states, at_start)
        result |= {f"{VALIDATION}{name}": value for name, value in own.items()}
    if records is not None:
        records += row_records(builder, batch, states)
    return result


def _means(
    builder: BatchBuilder, batch: ScoredBatch, screen: Screen, states: Sequence[Mapping[str, float]], at_start: bool
) -> dict[str, float]:
    """Return the means of a batch's rows: loss, metrics and figures."""
    objective = builder.objective
    result = {"n": len(batch.rows), "loss": 0.0}
    for n, (share, term) in enumerate(objective.terms):
        loss = weight = 0.0
        for _, losses, weights in term_losses(builder, batch, term, states[n] if states else term.initial_state()):
            loss += float(losses.sum())
            weight += float(weights.sum())
        result["loss"] += share * loss / weight if weight else 0.0  # no held-out row has data for the term
    prompts = builder.prompts_of(batch)
    for metric in builder.metrics:
        values, owners = by_example(metric, builder, batch, screen, strict=at_start)
        if len(values):
            result |= {
                metric.name: float(values.mean()),
                f"{metric.name}_se": standard_error(values.numpy(), prompts[owners]),
            }
    return result | _figures(builder, batch)


def term_losses(
    builder: BatchBuilder, batch: ScoredBatch, term: Objective, state: Mapping[str, float]
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Yield the row, the loss and the weight of each example of a term, in float64.

    The loss of the term is the sum of the losses over the sum of the weights.
    """
    for loss_input in builder.examples(batch, term, state):
        with attribute_errors(f"the loss of {term.name} on held-out rows", term):
            losses = term.loss(loss_input.example)
            builder.check_losses("held-out rows: ", term.name, losses, loss_input, batch)
            yield loss_input.owners, losses.double(), term.weight(loss_input.example).double()


@torch.no_grad()
def row_losses(builder: BatchBuilder, batch: ScoredBatch) -> NDArray[np.float64]:
    """Return values of each row whose mean is the loss of `evaluate`, shape (rows,).

    A loss is a ratio of sums over rows: their values linearize it, so that their variance is that of the loss.
    """
    total = np.zeros(len(builder.trees))
    for share, term in builder.objective.terms:
        sums, weights = np.zeros((2, len(total)))
        for owners, losses, own in term_losses(builder, batch, term, term.initial_state()):
            np.add.at(sums, owners, losses.numpy())
            np.add.at(weights, owners, own.numpy())
        if weights.any():
            loss = sums.sum() / weights.sum()
            total += share * (loss + (sums - loss * weights) / weights.mean())
    return total


def _figures(builder: BatchBuilder, batch: ScoredBatch) -> dict[str, float]:
    """Return means of rows and the standard error of the accuracy, clustered by prompt."""
    values = row_metrics(builder, batch, ("preference_accuracy", "likelihood_accuracy"), pooled=True)
    found = {name: mean(value) for name, value in values.items() if not value.isnan().all()}
    kinds = count_kinds(builder, batch)
    if kinds is not None and not all(kind.any() for kind in kinds):
        kind = "desirable" if kinds[0].any() else "undesirable"
        warn_once(f"every held-out completion is {kind}, so there is no margin and no accuracy")
    if "preference_accuracy" in found:
        accuracy = values["preference_accuracy"]
        if kinds is not None:
            accuracy = torch.from_numpy(pseudovalues(accuracy.double().cpu().numpy(), *kinds)[0])
            found["preference_accuracy"] = mean(accuracy)
        found["preference_accuracy_se"] = standard_error(accuracy.double().cpu().numpy(), builder.prompts_of(batch))
    return found


@torch.no_grad()
def by_example(
    metric: Metric, builder: BatchBuilder, batch: ScoredBatch, screen: Screen, strict: bool = False
) -> tuple[Tensor, NDArray[np.int64]]:
    """Return a metric's float64 value of each example, and the row of each example.

    Examples whose value is nan or infinite are left out. A metric that fails has no values.

    Args:
        metric: The metric.
        builder: Trees of the rows.
        batch: Scores of the rows.
        screen: Where a failure and infinite values are reported.
        strict: Raise RunFailed when the metric fails, as before the first step, when nothing can be lost.
    """
    nothing = torch.zeros(0, dtype=torch.float64), np.zeros(0, dtype=np.int64)
    loss_input = list(builder.examples(batch, metric))
    try:
        with attribute_errors(f"the metric {metric.name}", metric):
            values = [metric.values(one.example, builder.objective.terms[0][1]).double().cpu() for one in loss_input]
            if not values:
                return nothing
            joined, owners = torch.cat(values), np.concatenate([one.owners for one in loss_input])
            known = joined.isfinite()
            found = joined[known], owners[known.numpy()]
    except RunFailed as error:
        if strict:
            raise
        screen.info(f"{error}; its figure is left out")
        return nothing
    if infinite := int(joined.isinf().sum()):
        screen.info(f"the metric {metric.name} is infinite for {infinite:,} of {len(joined):,} examples; left out")
    return found
