"""Checks of a run's models and their memory before any weight is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.door import in_child
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.core.memory import total_memory
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.data.trees import Trees
from alignzoo.interfaces.model_source import Lora, ModelSource
from alignzoo.models.loading import check_score_head, check_vocabulary_fits
from alignzoo.models.meta import meta_model, read_config, room_for, saved_bytes
from alignzoo.recipe.resolved import REFERENCE, Resolved
from alignzoo.rollouts.calendar import Calendar
from alignzoo.rollouts.prompts import Prompts, longest_prompt
from alignzoo.scoring.scorer import language_head
from alignzoo.training.critic import critic_run
from alignzoo.training.memory_model import (
    Memory,
    ModelSize,
    count_weights,
    largest_micro_batch,
    memory_of,
)
from alignzoo.training.policy import check_same_tokenizer, device_of
from alignzoo.training.preflight import check_length, check_positions, no_router_loss
from alignzoo.training.references import MAIN

Check = Callable[[PreTrainedModel], None]
SECONDS = 60.0
"""Processor time to build a model without weights, or to count its activations."""
PROCESS = 480 * 2**20
"""Bytes of a process before any model, on a CPU: Python, torch, transformers and the code of kernels, as measured."""
SPARE = 0.02
"""Share of a GPU's memory that its context and the allocator take."""


def plan_memory(
    resolved: Resolved, tokenizer: PreTrainedTokenizerBase, data: TokenizedDataset, device: str | None = None
) -> Memory | None:
    """Check the models of a recipe, and compute the memory of a run.

    The weights are those of the first run of a chain: a run keeps shapes.

    Args:
        resolved: The recipe.
        tokenizer: The policy's tokenizer.
        data: Its tokenized rows.
        device: `cpu` or `cuda`; by default that of `train.device`.

    Returns:
        The memory; None for a model source that does not show its config.

    Raises:
        UserError: The run could not use the model: its head, positions, vocabulary or adapters.
    """
    recipe, objective = resolved.recipe, resolved.recipe.objective
    device = device or device_of(recipe.train.device)
    trees, steps, check = _rows(resolved, tokenizer, data)
    batch = largest_micro_batch(trees, recipe.train, recipe.seed, steps)

    def policy_checks(model: PreTrainedModel) -> None:
        check(model)
        if objective.language_head:
            language_head(model)

    def size(
        source: ModelSource, run: Resolved | None, head: str, lora: Lora | None, check: Check = lambda model: None
    ) -> ModelSize | None:
        """Measure a model, whose weights are those of a source or of the first run of a chain."""
        shown = run.first.recipe.model if run else source
        outputs = len(objective.outputs) or 1 if head == "scalar" else 1
        fields = getattr(shown, "config", None)
        config = None if fields else read_config(shown, tokenizer, head)
        if not fields and config is None:
            return None

        def build() -> PreTrainedModel:
            torch.set_num_threads(1)  # the threads of the parent are not in its child
            own = config or read_config(shown, tokenizer, head)  # settings may be such that they never end
            return meta_model(own, source.dtype, head, outputs, shown.runs_code, room_for(shown, tokenizer), lora)

        def counted() -> dict[str, Any]:
            model = build()
            if head == "scalar":
                check_score_head(model)
            check_vocabulary_fits(model, tokenizer)
            check(model)
            return count_weights(model, source.quantize)

        def saved() -> int:
            return saved_bytes(build(), batch.slots, batch.width, recipe.train.precision == "bfloat16", device)

        where = shown.origin[0] if shown.origin else "model.config"
        found = in_child(where, counted, what="the model", seconds=SECONDS)
        try:
            kept = in_child(where, saved, doing="counting activations", seconds=SECONDS)
        except (UserError, RunFailed):  # a forward that reads values, as routers of experts do, or one in a long loop
            kept = None
        return ModelSize(**found, saved=kept)

    policy = size(recipe.model, resolved.start, objective.policy_head, recipe.model.lora, policy_checks)
    if policy is None:
        return None
    critic = beside = None
    if objective.head == "value":
        source = recipe.critic.model if recipe.critic and recipe.critic.model else None
        run = critic_run(resolved) or (resolved.start if source is None else None)
        lora = recipe.model.lora and ((recipe.critic.lora if recipe.critic else None) or recipe.model.lora)
        critic = size(source or recipe.model, resolved.start if lora else run, "scalar", lora, check)
        if lora and critic:
            critic = critic.on_shared_weights()
    if _runs_beside(resolved):
        named, run = recipe.references.get(MAIN), resolved.needs.get(REFERENCE.format(MAIN))
        if named is not None:
            beside = size(named, run, objective.policy_head, None)
        elif recipe.model.lora is None:
            beside = policy
    process = PROCESS if device == "cpu" else 0
    return memory_of(recipe, policy, batch, device, critic=critic, beside=beside, process=process)


def check_tokenizers(resolved: Resolved, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError if a reference's or the critic's tokenizer is not the policy's."""
    recipe = resolved.recipe
    models = {f"references.{name}": source for name, source in recipe.references.items()}
    if recipe.critic and recipe.critic.model:
        models["critic"] = recipe.critic.model
    for where, source in models.items():
        if source.origin:
            check_same_tokenizer(resolved, source, where, tokenizer, None)


def memory_there(device: str) -> tuple[int, str]:
    """Return the bytes that a device has for a run, and the words for it."""
    if device == "cuda":
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return int(total * (1 - SPARE)), f"{torch.cuda.get_device_name()} has {total / 2**30:,.1f} GiB"
    return total_memory(), f"this machine has {total_memory() / 2**30:,.1f} GiB"


def _rows(resolved: Resolved, tokenizer: PreTrainedTokenizerBase, data: TokenizedDataset) -> tuple[Trees, int, Check]:
    """Return the rows that are trained on, the steps, and the check of a model."""
    recipe, rollout = resolved.recipe, resolved.recipe.rollout
    prompts: list[Prompts] = []
    trees, steps = data.train.trees, recipe.train.steps(len(data.train.trees))
    if rollout is not None:
        prompts = [
            Prompts.of(part, recipe.tokens.max_length, rollout.max_new_tokens, lambda words: None)
            for part in (data.train, data.answered)
        ]
        trees = prompts[0].probes(rollout.completions, rollout.max_new_tokens, len(tokenizer))
        steps = Calendar(recipe.train, rollout, len(prompts[0]), recipe.seed).steps

    def check(model: PreTrainedModel) -> None:
        check_positions(model, data.train, *data.evaluated.values())
        if rollout is not None:
            check_length(model, longest_prompt(prompts), rollout.max_new_tokens)
        no_router_loss(model, recipe.train.ignore_router_loss)

    return trees, steps, check


def _runs_beside(resolved: Resolved) -> bool:
    """Return True if a reference is scored during training, as `live_reference` decides."""
    kind, rollout = resolved.recipe.objective.reference, resolved.recipe.rollout
    scores_draws = rollout is not None and kind != "none" and rollout.reference == "start"
    return bool(scores_draws or kind in ("live", "moving") or (rollout and rollout.kl_rows))
