"""Memory that a process of a run takes at its peak, computed before the run.

Static parts follow from the counts of weights. Activations are counted on a model without weights
(`alignzoo.models.meta`). The logits of a micro-batch exist in slices. `benchmarks/memory_model.py` compares the sum
with measured peaks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from alignzoo.data.trees import Trees
from alignzoo.recipe.optimizers import Optimizer
from alignzoo.recipe.schema import Recipe, TrainConfig
from alignzoo.scoring.lm_head import CHUNK_BYTES, KEPT_BYTES
from alignzoo.training.master_weights import narrow_type
from alignzoo.training.schedule import rows_of_step

WIDTH = {"float32": 4, "bfloat16": 2}
"""Bytes of a number."""
QUANTIZED = {"4bit": 0.516, "8bit": 1.0}
"""Bytes of a quantized weight: 4 bits, and the constants of blocks of 64, themselves quantized."""
STATES = {"adamw": 2, "adamw_8bit": 2, "rmsprop": 1, "sgd": 0}
"""Numbers that an optimizer keeps for each weight, without momentum."""
MOST_STEPS = 2_000
"""Steps whose rows are looked at for the largest micro-batch."""


@dataclass(frozen=True)
class MicroBatch:
    """The largest micro-batch of a run."""

    slots: int
    """Token slots that the model computes."""
    scored: int
    """Scored tokens, whose logits are computed."""
    width: int
    """Tokens of the longest sequence."""
    several: bool
    """True if a step has more than one, so that gradients exist during a forward."""


@dataclass(frozen=True)
class ModelSize:
    """Counts of one model, and of what its forward keeps."""

    weights: int
    """Bytes of parameters and buffers."""
    parameters: int
    trained: int
    """Number of trained parameters."""
    narrow: int
    """Number of trained parameters in 16 bits."""
    hidden: int
    vocabulary: int
    layers: int
    trained_head: bool
    saved: int | None = None
    """Bytes of activations kept for the backward; None if they can't be counted."""

    def on_shared_weights(self) -> ModelSize:
        """Return the size of a model whose adapters are on the weights of another one."""
        return replace(self, weights=4 * self.trained)


@dataclass
class Memory:
    """Bytes of one process by what holds them, and sums at moments that may be the peak."""

    parts: dict[str, int] = field(default_factory=dict)
    moments: dict[str, int] = field(default_factory=dict)
    uncounted: bool = False
    """True if activations are left out, so that the peak is higher."""
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The largest of the moments."""
        return max(self.moments.values())

    @property
    def moment(self) -> str:
        """The name of the moment with the peak."""
        return max(self.moments, key=lambda name: self.moments[name])


def largest_micro_batch(trees: Trees, train: TrainConfig, seed: int, steps: int) -> MicroBatch:
    """Return the largest micro-batch of a run, from the sizes of its rows.

    Args:
        trees: The training rows, or rows that stand for those to be drawn.
        train: Batch size, token budget and order.
        seed: Seed of the order.
        steps: Optimizer steps of the run.
    """
    sizes, batch = trees.sizes, min(train.batch_size, len(trees))
    if len(trees) < train.batch_size:  # rows that stand for others
        totals = [math.ceil(float(sizes.mean()) * train.batch_size)]
    else:
        some = range(0, steps, max(1, steps // MOST_STEPS))
        totals = [int(sizes[rows_of_step(step, len(trees), train, seed)].sum()) for step in some]
    most, longest = max(totals), int(sizes.max())
    slots = max(longest, min(most, train.micro_batch_tokens))
    cut = trees.subset(np.arange(min(len(trees), max(batch, 256))))
    share = float(cut.scored.sum()) / max(1, int(cut.sizes.sum()))
    return MicroBatch(slots, math.ceil(slots * share), trees.longest(), most > slots)


def count_weights(model: PreTrainedModel, quantize: str | None = None) -> dict[str, Any]:
    """Return the fields of `ModelSize` that need no forward, as JSON values.

    Args:
        model: A model on the meta device, adapters included.
        quantize: `4bit` or `8bit` for frozen weights.
    """
    head = model.get_output_embeddings()
    linear = {
        id(module.weight) for module in model.modules()
        if quantize and isinstance(module, nn.Linear) and module is not head and not module.weight.requires_grad
    }  # fmt: skip
    tensors = {id(one): one for one in (*model.parameters(), *model.buffers())}
    weights = sum(
        math.ceil(one.numel() * QUANTIZED[quantize]) if quantize and id(one) in linear else one.nbytes
        for one in tensors.values()
    )
    trained = [one for one in model.parameters() if one.requires_grad]
    config = model.config.get_text_config()
    return {
        "weights": weights, "parameters": sum(one.numel() for one in model.parameters()),
        "trained": sum(one.numel() for one in trained),
        "narrow": sum(one.numel() for one in trained if narrow_type(one)),
        "hidden": int(getattr(config, "hidden_size", 0)),
        "vocabulary": 0 if head is None else int(head.weight.shape[0]),
        "layers": int(getattr(config, "num_hidden_layers", 1)),
        "trained_head": head is not None and bool(head.weight.requires_grad),
    }  # fmt: skip


def memory_of(
    recipe: Recipe, policy: ModelSize, batch: MicroBatch, device: str, *,
    critic: ModelSize | None = None, beside: ModelSize | None = None, process: int = 0,
) -> Memory:  # fmt: skip
    """Compute the memory of a run's parts and moments.

    Args:
        recipe: The recipe.
        policy: The policy, with its adapters.
        batch: The largest micro-batch.
        device: `cpu` or `cuda`.
        critic: The critic, if one is trained.
        beside: A reference that runs beside the policy, if that takes memory of its own.
        process: Bytes of the process itself, before any model.
    """
    train, memory = recipe.train, Memory()
    parts, notes = memory.parts, memory.notes
    learners = [policy, *([critic] if critic else [])]
    own = static_parts(recipe, learners)
    if process:
        parts["process"], notes["process"] = process, "Python, libraries and data"
    parts["weights"], notes["weights"] = policy.weights, f"{policy.parameters / 1e6:,.1f} M, model.dtype"
    if critic:
        parts["critic"], notes["critic"] = critic.weights, f"weights of the critic, {critic.parameters / 1e6:,.1f} M"
    if beside:
        parts["reference"], notes["reference"] = beside.weights, "beside the policy"
        if recipe.objective.reference == "moving":
            copies = (2 if recipe.objective.reference_correction(1) else 0) + (recipe.model.dtype == "bfloat16")
            parts["reference"] += copies * 4 * beside.parameters
    elif recipe.objective.reference != "none":
        notes["reference"] = "its scores are computed before training, or the base under the adapters"
    parts |= {name: size for name, size in own.items() if size and name != "weights"}
    trained, states = sum(one.trained for one in learners), optimizer_states(train.optimizer)
    notes["master weights"] = "float32 copies that the optimizer steps, train.master_weights"
    notes["optimizer"] = f"{train.optimizer.name}, {states} numbers for each trained weight"
    notes["gradients"] = f"of {trained / 1e6:,.2f} M trained weights"
    gradients = own["gradients"]
    static = sum(parts.values()) - gradients
    kept = [_activations(one, batch, recipe) for one in learners]
    memory.uncounted = any(one.saved is None for one in learners)
    parts["activations"] = max(kept)
    notes["activations"] = f"{batch.slots:,} token slots" + (
        ", recomputed layer by layer" if train.gradient_checkpointing else ""
    )
    parts["logits"] = _head(policy, batch, recipe, beside)
    notes["logits"] = f"slices of {batch.scored:,} x {policy.vocabulary:,}"
    wide = WIDTH["bfloat16" if policy.narrow and not train.master_weights else "float32"]
    # Gradients of earlier micro-batches are there in a forward; in the first one only that of the head is.
    early = gradients if batch.several else wide * policy.hidden * policy.vocabulary * policy.trained_head
    memory.moments["forward and backward"] = static + early + parts["activations"] + parts["logits"]
    memory.moments["optimizer step"] = static + gradients + _step_temporaries(train.optimizer, trained, device)
    if recipe.model.dtype == "bfloat16" and recipe.model.quantize is None:
        base = policy.weights - (4 * policy.trained if recipe.model.lora else 0)
        memory.moments["layout check, in float32"] = process + 3 * base
    return memory


def static_parts(recipe: Recipe, models: Sequence[ModelSize]) -> dict[str, int]:
    """Return the bytes of weights, gradients, optimizer states and master weights."""
    trained, narrow = sum(one.trained for one in models), sum(one.narrow for one in models)
    masters = recipe.train.master_weights
    size = 4 * trained if masters else 4 * (trained - narrow) + 2 * narrow
    optimizer = recipe.train.optimizer
    states = optimizer_states(optimizer) * (trained if optimizer.name.endswith("_8bit") else size)
    return {
        "weights": sum(one.weights for one in models), "gradients": size,
        "optimizer": states, "master weights": 4 * narrow * masters,
    }  # fmt: skip


def optimizer_states(config: Optimizer) -> int:
    """Return how many numbers an optimizer keeps for each weight."""
    return STATES.get(config.name, 1) + (config.name in ("rmsprop", "sgd") and getattr(config, "momentum", 0) > 0)


def _step_temporaries(config: Optimizer, trained: int, device: str) -> int:
    """Return the bytes of a step's temporaries.

    torch's RMSprop takes the roots of all states at once on a GPU.
    """
    return 4 * trained if config.name == "rmsprop" and device != "cpu" else 0


def _activations(size: ModelSize, batch: MicroBatch, recipe: Recipe) -> int:
    """Return the bytes kept for a backward.

    With checkpointing these are the layers' inputs, and all of one layer.
    """
    if size.saved is None or not recipe.train.gradient_checkpointing:
        return size.saved or 0
    layers = max(1, size.layers)
    return layers * batch.slots * size.hidden * WIDTH[recipe.model.dtype] + size.saved // layers


def _head(size: ModelSize, batch: MicroBatch, recipe: Recipe, beside: ModelSize | None) -> int:
    """Return the bytes of the head.

    These are slices of logits that are kept, one at work, and the gradient of its weights.
    """
    if not size.vocabulary:
        return 0
    train = recipe.train
    wide = WIDTH["bfloat16" if train.precision == "bfloat16" else recipe.model.dtype]
    full = batch.scored * size.vocabulary * wide
    models = 1 if beside is None or recipe.objective.reference != "live" else 2
    kept = min(models * full, KEPT_BYTES)
    at_work = min(full, CHUNK_BYTES)
    weights = size.vocabulary * size.hidden
    copies = weights * 2 if train.precision == "bfloat16" and recipe.model.dtype == "float32" else 0
    gradient = weights * (wide + 4 if full > CHUNK_BYTES else wide) if size.trained_head else 0
    return kept + at_work + copies + gradient + batch.scored * size.hidden * wide
