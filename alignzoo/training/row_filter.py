"""Choice of training rows by a metric of the policy before its first step, such as CHES."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.core.distributed.process_group import deal_rows
from alignzoo.core.errors import UserError
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.evaluation.evaluate import by_example
from alignzoo.interfaces.metric import Metric
from alignzoo.recipe.schema import FilterConfig
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.microbatches import in_micro_batches
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.job import Job


def filtered(job: Job, scorer: Scorer, data: TokenizedDataset) -> TokenizedDataset:
    """Return the dataset with the training rows that `filter` keeps.

    They stay in their order. Without a filter all are kept.

    Raises:
        UserError: Fewer rows than one batch are left.
    """
    wanted = job.recipe.filter
    if wanted is None:
        return data
    job.stopping.doing = "stopped while filtering the rows; the same command begins with that again"
    values = row_values(job, scorer, data, wanted.metric)
    kept = kept_rows(values, wanted)
    left_out = len(values) - len(kept)
    job.screen.info(
        f"filter: {len(kept):,} training rows with the {wanted.side} {wanted.metric.name}, {left_out:,} left out"
    )
    if len(kept) < job.recipe.train.batch_size:
        raise UserError(
            f"{len(kept)} training rows are left, fewer than one batch", where="filter.keep",
            expected=f"a larger share, or train.batch_size of at most {len(kept)}",
        )  # fmt: skip
    train = replace(data.train, trees=data.train.trees.subset(kept))
    report = data.report | {"train": len(kept), "filtered": left_out}
    job.folder.write_json("data.json", report)
    return replace(data, train=train, report=report)


def kept_rows(values: NDArray[np.float64], wanted: FilterConfig) -> NDArray[np.int64]:
    """Return the indices of the rows to keep, in increasing order.

    These are the wanted share of the rows with a value, and all others.
    """
    known = np.flatnonzero(~np.isnan(values))
    sign = 1 if wanted.side == "lowest" else -1
    order = known[np.argsort(sign * values[known], kind="stable")]
    dropped = order[max(1, round(wanted.keep * len(order))) :]
    return np.setdiff1d(np.arange(len(values)), dropped)


@torch.no_grad()
def row_values(job: Job, scorer: Scorer, data: TokenizedDataset, metric: Metric) -> NDArray[np.float64]:
    """Return the metric's value of each training row, the mean over the row's examples.

    It is nan for a row without a value.
    """
    trees, ranks = data.train.trees, job.ranks
    builder = BatchBuilder(job.recipe.objective, trees, seed=job.recipe.seed)
    builder.ask([metric])
    found: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []

    def work(rows: list[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        batch, _ = builder.score(scorer, rows, everything=True)
        values, owners = by_example(metric, builder, batch, job.screen, strict=True)
        return np.array(rows, dtype=np.int64)[owners], values.numpy()

    mine = deal_rows(trees.sizes, ranks.index, ranks.count)
    budget = 2 * job.recipe.train.micro_batch_tokens
    with job.screen.bar("filter", len(mine)) as advance:
        for rows, part in in_micro_batches(trees, mine, budget, scorer.layout, work, job.screen.info, ranks):
            found.append(part)
            advance(len(rows), "")
    sums, counts = np.zeros(len(trees)), np.zeros(len(trees))
    for owners, values in (part for some in ranks.all_gather(found) for part in some):
        np.add.at(sums, owners, values)
        np.add.at(counts, owners, 1)
    return np.divide(sums, counts, out=np.full(len(trees), np.nan), where=counts > 0)
