"""Checkpoints: the policy in Hugging Face layout, beside it the optimizer, the objective's state and the run's records
so far, and digests of all.

A checkpoint is written to a temporary folder, synced and renamed; one whose digests don't fit is passed over for the
one before. Nothing is pickled. There is no random state to keep: dropout is off, and the data order is a function of
the step.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.artifacts import atomic_folder, read_verified, write_manifest
from alignzoo.core.distributed.gather import full_state_dict, full_tensor, reshard, shard_like
from alignzoo.core.errors import UserError
from alignzoo.models.adapters import has_adapters, read_adapter, tensors_of, write_adapter

OPTIMIZER = "optimizer.safetensors"


MOVING = "moving_reference.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose digests were found right."""

    path: Path
    step: int
    states: list[dict[str, float]]
    """Of each term of the objective."""
    budget: int
    """Token slots of a micro-batch: fewer than the recipe says once memory has run out."""


def save(
    folder: Path, step: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer, keep: int,
    states: Sequence[Mapping[str, float]] = (), moving: nn.Module | None = None,
    budget: int = 0, records: Iterable[Path] = (), writes: bool = True,
) -> Path:  # fmt: skip
    """Write `folder/step-000200` and remove all but the last `keep`; of several processes one `writes`.

    `moving`: a reference that follows it. `records`: files that a run goes on writing, kept as they are now. Raises
    NotWritten when the disk refuses; the checkpoints before are then still there.
    """
    path = folder / f"step-{step:06d}"
    weights, state = weights_of(model), _flatten(optimizer, model)
    if not writes:
        return path
    sweep(folder)
    tensors = chain(weights.values(), state.values(), moving.parameters() if moving else ())
    with atomic_folder(path, needs=sum(tensor.nbytes for tensor in tensors), over=True) as temporary:
        # As the model computes with them: some architectures export other names and shapes, which a restore would have
        # to make over. from_pretrained reads both.
        _write(temporary, model, weights, renamed=False)
        tokenizer.save_pretrained(temporary)
        save_file(state, temporary / OPTIMIZER)
        if moving is not None:
            beside = {name: value.detach().contiguous() for name, value in moving.named_parameters()}
            save_file(beside, temporary / MOVING)
        for record in records:
            shutil.copyfile(record, temporary / record.name)
        write_manifest(temporary, {"step": step, "objective": [dict(one) for one in states], "budget": budget})
    for old in _by_step(folder)[:-keep]:
        shutil.rmtree(old.rename(old.with_name(f".{old.name}.old.tmp")), ignore_errors=True)
    return path


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """What is saved of a model: its adapter, or all of it."""
    return tensors_of(model) if has_adapters(model) else full_state_dict(model)


def sweep(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote or removed a checkpoint, and what was set aside."""
    for left_over in folder.glob(".step-*"):
        shutil.rmtree(left_over, ignore_errors=True)


def export(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, weights: dict[str, torch.Tensor]
) -> None:
    """The policy with these `weights_of` it, as `from_pretrained` reads it or peft an adapter, and its tokenizer."""
    _write(folder, model, weights, renamed=True)
    tokenizer.save_pretrained(folder)


def _write(folder: Path, model: PreTrainedModel, weights: dict[str, torch.Tensor], renamed: bool) -> None:
    if has_adapters(model):
        write_adapter(model, folder)
    else:
        model.save_pretrained(folder, state_dict=weights, save_original_format=renamed)


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints of a folder. Their names sort by step up to a million."""
    found = {path: re.fullmatch(r"step-(\d+)", path.name) for path in folder.glob("step-*")}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name[5:]))


def latest(folder: Path) -> tuple[Checkpoint | None, list[Path]]:
    """The last good checkpoint, and the damaged ones that were passed over to find it."""
    damaged: list[Path] = []
    for path in reversed(_by_step(folder)):
        about = read_verified(path)
        if about is not None:
            return Checkpoint(path, about["step"], about["objective"], about["budget"]), damaged
        damaged.append(path)
    return None, damaged


def restore(
    checkpoint: Checkpoint, model: PreTrainedModel, optimizer: torch.optim.Optimizer, moving: nn.Module | None = None
) -> None:
    """Put weights and optimizer back exactly as they were saved."""
    reshard(model)
    (read_adapter if has_adapters(model) else load_into)(model, checkpoint.path)
    _unflatten(optimizer, model, load_file(checkpoint.path / OPTIMIZER))
    if moving is not None:
        moving.load_state_dict(load_file(checkpoint.path / MOVING), strict=False)  # buffers and tied names stay


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[int, str]:
    """The optimizer's own numbering of parameters -> their names in the model."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {i: name_of[id(parameter)] for i, parameter in enumerate(parameters)}


def _flatten(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    names = _names(optimizer, model)
    return {
        f"{names[i]}::{key}": full_tensor(torch.as_tensor(value)).contiguous()
        for i, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


def _unflatten(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    number = {name: i for i, name in _names(optimizer, model).items()}
    parameters = dict(model.named_parameters())
    state: dict[int, dict[str, torch.Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, key = full_name.split("::")
        state.setdefault(number[name], {})[key] = shard_like(parameters[name], tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@torch.no_grad()
def load_into(model: nn.Module, folder: Path) -> None:
    """Copy the folder's shards into the model's own tensors, one at a time: no second model is ever in memory.

    Raises UserError, before anything is changed, when names or shapes are not the model's own.
    """
    ours = model.state_dict(keep_vars=True)
    shards = sorted(folder.glob("model*.safetensors"))
    there: set[int] = set()
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():
                if name not in ours or file.get_slice(name).get_shape() != list(ours[name].shape):
                    raise UserError(
                        f"it has '{name}', which this model has not, or in another shape", where=str(shard),
                        hint="start over with --fresh",
                    )  # fmt: skip
                there.add(_which(ours[name]))
    lacking = [name for name, tensor in ours.items() if _which(tensor) not in there]  # tied weights are saved once
    if lacking:
        raise UserError(f"no weights for '{lacking[0]}'", where=str(folder), hint="start over with --fresh")
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():
                ours[name].copy_(shard_like(ours[name], file.get_tensor(name)))


def _which(tensor: torch.Tensor) -> int:
    """The same for two names of one tensor. A process may have nothing of a tensor that is cut over several."""
    return id(tensor) if isinstance(tensor, DTensor) else tensor.data_ptr()
