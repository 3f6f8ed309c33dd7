"""Checks that rows, batches and model fit together, before a run has cost time."""

from __future__ import annotations

from itertools import islice

from transformers import PreTrainedModel

from alignzoo.core.errors import UserError
from alignzoo.data.convert import convert_rows
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.interfaces.rows import Row
from alignzoo.recipe.resolved import Resolved


def check_first_row(resolved: Resolved) -> None:
    """Raise UserError if the objective can't use the first row, before the runs that this one needs."""
    if resolved.needs and not any(key.startswith("data.") for key in resolved.needs):
        data = resolved.recipe.data
        rows = (row for row in data.read(data.splits()[0]) if isinstance(row, Row))
        convert_rows(list(islice(rows, 1)), resolved.recipe.objective, data.pairs)


def check_enough_rows(train: TokenizedRows, held_out: TokenizedRows, batch_size: int) -> None:
    """Raise UserError if too few rows are usable for a step and an evaluation."""
    if not len(held_out.trees):
        raise UserError("no held-out row is usable; data.json in the run folder has the reasons", where="data")
    if len(train.trees) < batch_size:
        raise UserError(
            f"{len(train.trees)} training rows are usable, fewer than one batch",
            where="train.batch_size", expected=f"at most {len(train.trees)} (got {batch_size})",
        )  # fmt: skip


def no_router_loss(model: PreTrainedModel, ignore: bool) -> None:
    """Raise UserError for a mixture of experts whose config requests an auxiliary loss, unless `ignore` is set.

    That loss is a product of two means over the tokens of a batch, so micro-batches would change it.
    """
    config = model.config.get_text_config()
    parts = (config, getattr(config, "ffn_config", None))  # DBRX keeps it in the latter
    names = ("router_aux_loss_coef", "router_z_loss_coef", "moe_loss_weight")
    asked = {name: weight for part in parts for name in names if (weight := getattr(part, name, 0))}
    if ignore or not getattr(config, "output_router_logits", False) or not asked:
        return
    name, weight = next(iter(asked.items()))
    raise UserError(
        f"the model's config requests an auxiliary router loss (output_router_logits: true, {name}: {weight:g}), "
        "which is not computed", where="model", expected="output_router_logits: false in the model's config",
        hint="train.ignore_router_loss=true trains without that loss",
    )  # fmt: skip


def check_positions(model: PreTrainedModel, *parts: TokenizedRows) -> None:
    """Raise UserError if a row has more tokens than the model has positions."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(part.trees.longest() for part in parts)
    if limit is not None and longest > limit:
        raise UserError(
            f"a row has {longest} tokens, and the model has {limit} positions",
            where="tokens.max_length", expected=f"at most {limit}",
        )  # fmt: skip
