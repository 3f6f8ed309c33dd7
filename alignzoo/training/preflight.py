"""Checks of a run before it costs time.

`preflight` comes before all else, the others once rows and model are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from transformers import PreTrainedModel

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.convert import convert_side
from alignzoo.data.statistics import NO_HELD_OUT
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.interfaces.rows import Row
from alignzoo.models.adapters import check_adapters_available, check_whole_weights
from alignzoo.models.from_pretrained import check_start
from alignzoo.models.positions import max_tokens
from alignzoo.models.sources.transformers import Transformers
from alignzoo.models.tokenizers import load_tokenizer
from alignzoo.recipe.resolved import Resolved
from alignzoo.recipe.schema import Recipe, TrainConfig
from alignzoo.training.critic import critic_adapter_run
from alignzoo.training.log_lines import log_interval
from alignzoo.training.optimizers import check_optimizer

FIRST_ROWS = 20
"""Rows that are read before a run to see which columns there are."""


def preflight(resolved: Resolved, in_memory: bool = False) -> None:
    """Check everything about one run that needs neither all of its rows nor its weights.

    `alignzoo run` calls it before the runs that this one needs, and `alignzoo validate` for every run of the plan.

    Args:
        resolved: The recipe.
        in_memory: The policy is in memory, and its files are not looked for.

    Raises:
        UserError: A package, a key or a model folder is missing, or the objective can't take the first row.
    """
    recipe = resolved.recipe
    log_interval(1)  # raises for a bad variable
    for reporter in recipe.reporters:
        reporter.ready()
    for judge in recipe.eval.judges:
        judge.ready()
    section = "draw" if recipe.draw else "rollout"
    for n, reward in enumerate(recipe.drawing.rewards if recipe.drawing else ()):
        with _at("eval.judges", f"{section}.rewards.{n}"):
            reward.judge.ready()
    check_adapters_available(recipe.model)
    for where, model in _models(recipe):
        if not (in_memory and where == "model"):
            _check_model(model, where)
    check_optimizer(recipe.train.optimizer)
    if recipe.model.lora is not None:
        critic_adapter_run(resolved)
    _check_first_row(resolved)


@contextmanager
def _at(usual: str, key: str) -> Iterator[None]:
    """Name another key in errors than the usual one of a component."""
    try:
        yield
    except UserError as error:
        raise type(error)(replace(one, where=one.where.replace(usual, key)) for one in error.problems) from error


def _models(recipe: Recipe) -> Iterator[tuple[str, ModelSource]]:
    """Yield (key, source) of every model that is loaded from a folder or the hub."""
    yield "model", recipe.model
    yield from ((f"references.{name}", model) for name, model in recipe.references.items())
    if recipe.critic and recipe.critic.model:
        yield "critic", recipe.critic.model


def _check_model(model: ModelSource, where: str) -> None:
    """Raise UserError when a folder or hub id lacks a model, weights or a tokenizer."""
    path, revision = model.origin or (None, None)
    if isinstance(model, Transformers) and path and Path(path).is_absolute():
        if not any((Path(path) / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise UserError("no model there", where=f"{where}.path: {path}", expected="a folder with config.json")
    if path:
        check_whole_weights(path)
        check_start(path, revision, where)
    if where != "model" and path:  # the policy's own is loaded at once, before any run
        load_tokenizer(model, ())


def _check_first_row(resolved: Resolved) -> None:
    """Raise UserError if the objective can't take the first row.

    There is no such check where reading the rows is the first thing to do. A reward that reads a column of the data
    needs it in one of the first rows.
    """
    if resolved.needs and not any(key.startswith("data.") for key in resolved.needs):
        recipe, data = resolved.recipe, resolved.recipe.data
        rows = (row for row in data.read(data.splits()[0]) if isinstance(row, Row))
        first = list(islice(rows, FIRST_ROWS if recipe.drawing else 1))
        convert_side(first[:1], recipe, data)
        check_reward_columns(recipe, first)


def check_reward_columns(recipe: Recipe, rows: Iterable[Row]) -> None:
    """Raise UserError if a reward reads a data column that none of the first rows has.

    The rows of a mixture differ, and are not checked.
    """
    first = list(islice(rows, FIRST_ROWS)) if recipe.drawing and len(recipe.data.parts) == 1 else []
    known = {name for row in first for name in row.all_columns}
    for n, reward in enumerate(recipe.drawing.rewards if recipe.drawing and first else ()):
        for column in reward.judge.columns_read():
            if column not in known:
                raise UserError(
                    f"{reward.judge.name} reads the column '{column}', which the data lacks",
                    where=f"{'draw' if recipe.draw else 'rollout'}.rewards.{n}", nearest=nearest(column, known),
                    expected=f"one of {', '.join(sorted(known))}" if known else "data with columns besides texts",
                )  # fmt: skip


def check_enough_rows(data: TokenizedDataset, batch_size: int) -> None:
    """Raise UserError if there are too few usable rows for a step or an evaluation.

    A step needs one batch. An evaluation that the recipe requests needs one row.
    """
    train = data.train
    if not len(data.held_out.trees) and data.report["held_out_is"] != NO_HELD_OUT:
        raise UserError("no held-out row is usable; data.json in the run folder has the reasons", where="data")
    empty = next((name for name, rows in data.evaluation.items() if not len(rows.trees)), None)
    if empty is not None:
        raise UserError("no row of this evaluation set is usable", where=f"eval.data.{empty}")
    if len(train.trees) < batch_size:
        raise UserError(
            f"{len(train.trees)} training rows are usable, fewer than one batch",
            where="train.batch_size", expected=f"at most {len(train.trees)} (got {batch_size})",
        )  # fmt: skip


def no_router_loss(model: PreTrainedModel, ignore: bool) -> None:
    """Raise UserError if a mixture of experts has an auxiliary loss, unless `ignore` is set.

    The model's config turns that loss on. The loss is a product of two means over the tokens of a batch, so
    micro-batches would change it.
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
    """Raise UserError when a row has more tokens than the model has positions."""
    limit = max_tokens(model)
    longest = max(part.trees.longest() for part in parts)
    if limit is not None and longest > limit:
        raise UserError(
            f"a row has {longest} tokens, and the model has {limit} positions",
            where="tokens.max_length", expected=f"at most {limit}",
        )  # fmt: skip


def check_length(model: PreTrainedModel, prompt: int, new_tokens: int, section: str = "rollout") -> None:
    """Raise UserError when a prompt with a completion exceeds the model's positions.

    `prompt` is the number of tokens of the longest prompt, and `new_tokens` is the section's `max_new_tokens`.
    """
    limit, longest = max_tokens(model), prompt + new_tokens
    if limit is not None and longest > limit:
        raise UserError(
            f"a prompt with {new_tokens} new tokens has {longest}, and the model has {limit} positions",
            where=f"{section}.max_new_tokens", expected=f"at most {limit - prompt}",
        )  # fmt: skip


def warm_up_note(train: TrainConfig, steps: int) -> str:
    """Return a warning if the learning rate never gets near its peak, else ""."""
    warm = train.schedule.warmup(steps)
    if steps > warm:
        return ""
    return (
        f"the warm-up of {warm:,} steps is not over after the {steps:,} of this run: the learning rate gets to "
        f"{steps / (warm + 1):.0%} of {train.optimizer.learning_rate:g} (train.schedule)"
    )
