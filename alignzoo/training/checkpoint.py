"""Checkpoints: policy, critic, optimizers, objective state, records, digests of all files.

The records are those of the run so far. A checkpoint is written to a temporary folder, synced and renamed; one whose
digests do not match is skipped for the one before. Nothing is pickled. There is no random state: dropout is off, and
the data order is a function of the step.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.artifacts import atomic_folder, drop_files, read_verified, write_manifest
from alignzoo.core.distributed.gather import full_state_dict, full_tensor, reshard, shard_like
from alignzoo.core.door import tensors, translate
from alignzoo.core.errors import UserError
from alignzoo.core.files import remove, remove_temporaries
from alignzoo.models.adapters import has_adapters, read_adapter, tensors_of, write_adapter
from alignzoo.training.records import CheckpointManifest

OPTIMIZER = "optimizer.safetensors"


MOVING = "moving_reference.safetensors"
CRITIC, CRITIC_OPTIMIZER = "critic.safetensors", "critic_optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose digests match."""

    path: Path
    step: int
    states: list[dict[str, float]]
    """The state of each term of the objective."""
    budget: int
    """Token slots of a micro-batch: fewer than the recipe's once memory has run out."""
    run: str = ""
    """Fingerprint of the run that wrote it."""
    settings: Mapping[str, Any] | None = None
    """The settings of that run that are no part of the fingerprint; None if they were not recorded."""


def save(
    folder: Path, step: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer | None, keep: int,
    states: Sequence[Mapping[str, float]] = (), moving: Mapping[str, torch.Tensor] = MappingProxyType({}),
    budget: int = 0, records: Iterable[Path] = (), writes: bool = True, run: str = "",
    critic: PreTrainedModel | None = None, critic_optimizer: torch.optim.Optimizer | None = None,
    best: int | None = None, lineage: str = "", settings: Mapping[str, Any] = MappingProxyType({}),
) -> Path:  # fmt: skip
    """Write `folder/step-000200`, and remove checkpoints that are not kept.

    The last `keep` stay, and the best one. Collective with shards or ZeRO.

    Args:
        folder: The folder of checkpoints.
        step: Optimizer steps taken.
        model: The policy.
        tokenizer: Its tokenizer.
        optimizer: Its optimizer; None after the last step, which needs none.
        keep: Checkpoints that stay, this one included.
        states: The state of each term of the objective.
        moving: The weights of the moving reference, if there is one.
        budget: Token slots of a micro-batch.
        records: Files that the run appends to, copied as they are now.
        writes: True in the one process that writes.
        run: Fingerprint of the run, which alone resumes from it.
        critic: The critic, if there is one.
        critic_optimizer: Its optimizer; None after the last step.
        best: The step of the best checkpoint, which stays.
        lineage: Digest of the run that leaves out its length: see `Resolved.lineage`.
        settings: The run's settings that are no part of its fingerprint.

    Raises:
        NotWritten: The disk is full or the like. Earlier checkpoints are unchanged.
    """
    path = folder / _name(step)
    weights, state = weights_of(model), _flatten(optimizer, model) if optimizer is not None else {}
    beside: dict[str, Mapping[str, torch.Tensor]] = {OPTIMIZER: state, MOVING: moving}
    if critic is not None:
        beside[CRITIC] = _own(critic)
        beside[CRITIC_OPTIMIZER] = _flatten(critic_optimizer, critic) if critic_optimizer is not None else {}
    if not writes:
        return path
    sweep(folder)
    tensors = chain(weights.values(), *(part.values() for part in beside.values()))
    with atomic_folder(path, needs=sum(tensor.nbytes for tensor in tensors), over=True) as temporary:
        # The names and shapes of the live model: some architectures export others, which a restore would have to
        # convert. from_pretrained reads both.
        _write(temporary, model, weights, renamed=False)
        tokenizer.save_pretrained(temporary)
        for name, part in beside.items():
            if part or (name == OPTIMIZER and optimizer is not None):
                save_file({key: tensor.contiguous() for key, tensor in part.items()}, temporary / name)
        for record in records:
            shutil.copyfile(record, temporary / record.name)
        about = {"step": step, "objective": [dict(one) for one in states], "budget": budget, "run": run}
        write_manifest(temporary, about | {"lineage": lineage, "settings": dict(settings)})
    for old in by_step(folder)[:-keep]:
        if best is None or old.name != _name(best):
            remove(old)
    return path


def drop_optimizers(folder: Path) -> None:
    """Remove the optimizer states of all checkpoints of a folder, after a kill too."""
    for path in by_step(folder):
        remove_temporaries(path)
        drop_files(path, (OPTIMIZER, CRITIC_OPTIMIZER))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a model that are saved: its adapter, or all.

    Collective with shards.
    """
    return tensors_of(model) if has_adapters(model) else full_state_dict(model)


def sweep(folder: Path) -> None:
    """Remove partial checkpoints of a killed process, and damaged ones."""
    for left_over in folder.glob(".step-*"):
        remove(left_over)


def export(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, weights: dict[str, torch.Tensor]
) -> None:
    """Write a policy, or its adapter, and the tokenizer in Hugging Face layout.

    `weights` are those of `weights_of`.
    """
    _write(folder, model, weights, renamed=True)
    tokenizer.save_pretrained(folder)


def _write(folder: Path, model: PreTrainedModel, weights: dict[str, torch.Tensor], renamed: bool) -> None:
    if has_adapters(model):
        write_adapter(model, folder)
    else:
        model.save_pretrained(folder, state_dict=weights, save_original_format=renamed)


def by_step(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, by step."""
    found = {path: re.fullmatch(r"step-(\d+)", path.name) for path in folder.glob("step-*")}
    return sorted((path for path, match in found.items() if match), key=step_of)


def step_of(path: Path) -> int:
    """Return the step of a checkpoint's folder."""
    return int(path.name[5:])


def latest(folder: Path, run: str = "", before: int | None = None) -> tuple[Checkpoint | None, list[Path]]:
    """Return the newest intact checkpoint, and the damaged ones after it.

    Args:
        folder: The folder of checkpoints.
        run: Fingerprint of the run, if it is to be compared.
        before: Look only at checkpoints before this step.

    Raises:
        UserError: It belongs to another run than the one with the fingerprint `run`, if that is given.
        UnreadableFile: This user can't read it.
    """
    damaged: list[Path] = []
    for path in reversed(by_step(folder)):
        if before is not None and step_of(path) >= before:
            continue
        found = read(path)
        if found is not None:
            if run and found.run != run:
                raise UserError(
                    f"this checkpoint belongs to {f'run {found.run[:8]}' if found.run else 'no known run'}, and this "
                    f"is run {run[:8]}", where=str(path), expected="the checkpoints that the run itself wrote",
                    hint="move it elsewhere, or start the run again with --fresh",
                )  # fmt: skip
            return found, damaged
        damaged.append(path)
    return None, damaged


def has_optimizer(path: Path) -> bool:
    """Return True if training can continue from a checkpoint."""
    return (path / OPTIMIZER).is_file()


def path_of(folder: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return folder / _name(step)


def at(folder: Path, step: int) -> Checkpoint | None:
    """Return the checkpoint of a step, or None if there is no intact one."""
    return read(path_of(folder, step))


def read(path: Path) -> Checkpoint | None:
    """Return a checkpoint after comparing its digests; None if it is absent or damaged."""
    about = read_verified(path, CheckpointManifest)
    if about is None or path.name != _name(about["step"]):
        return None
    return Checkpoint(path, about["step"], about["objective"], about["budget"], about["run"], about.get("settings"))


def _name(step: int) -> str:
    return f"step-{step:06d}"


def restore(
    checkpoint: Checkpoint, model: PreTrainedModel, optimizer: torch.optim.Optimizer | None,
    moving: Mapping[str, torch.Tensor] = MappingProxyType({}),
    critic: PreTrainedModel | None = None, critic_optimizer: torch.optim.Optimizer | None = None,
) -> None:  # fmt: skip
    """Restore policy and critic with their optimizers, and the moving reference, to the bit.

    An optimizer is None where it is not needed. Collective with shards.

    Raises:
        BadFile: The checkpoint is that of another model or optimizer.
    """
    reshard(model)
    with translate(checkpoint.path, "the checkpoint", "start the run again with --fresh"):
        for path in checkpoint.path.glob("*.safetensors"):
            tensors(path)
        (read_adapter if has_adapters(model) else load_into)(model, checkpoint.path)
        if optimizer is not None:
            _unflatten(optimizer, model, load_file(checkpoint.path / OPTIMIZER))
        _copy(checkpoint.path / MOVING, moving)
        if critic is not None:
            _copy(checkpoint.path / CRITIC, _own(critic))
        if critic is not None and critic_optimizer is not None:
            _unflatten(critic_optimizer, critic, load_file(checkpoint.path / CRITIC_OPTIMIZER))


def _own(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a critic, or of its adapter if it has one.

    Each is there once: tied ones have several names.
    """
    if has_adapters(model):
        return tensors_of(model)
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        found.setdefault(_identity(tensor), (name, tensor))
    return dict(found.values())


@torch.no_grad()
def _copy(path: Path, into: Mapping[str, torch.Tensor]) -> None:
    """Copy the tensors of a file, by name, into those of `into`, if there are any."""
    saved = load_file(path) if into else {}
    for name, tensor in into.items():
        tensor.copy_(saved[name])


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[int, str]:
    """The optimizer's parameter numbers, and their names in the model."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {i: name_of[id(parameter)] for i, parameter in enumerate(parameters)}


def _flatten(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    names, seen = _names(optimizer, model), set[int]()
    found: dict[str, torch.Tensor] = {}
    for i, state in optimizer.state_dict()["state"].items():
        for key, value in _leaves(state):
            if value is not None:
                tensor = full_tensor(torch.as_tensor(value)).contiguous()
                # A file has each tensor once, and bitsandbytes shares one map from bits to numbers among parameters.
                found[f"{names[i]}::{key}"] = tensor.clone() if tensor.data_ptr() in seen else tensor
                seen.add(tensor.data_ptr())
    return found


def _leaves(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values of a parameter's state.

    bitsandbytes keeps those of its blocks one level deeper.
    """
    for key, value in state.items():
        yield from _leaves(value) if isinstance(value, Mapping) else [(key, value)]


def _unflatten(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    number = {name: i for i, name in _names(optimizer, model).items()}
    parameters = dict(model.named_parameters())
    state: dict[int, dict[str, torch.Tensor | int]] = {}
    for full_name, tensor in tensors.items():
        name, key = full_name.split("::")
        value = shard_like(parameters[name], tensor)
        counted = tensor.dtype == torch.int64 and not tensor.ndim  # bitsandbytes counts steps with a plain number
        state.setdefault(number[name], {})[key] = int(value) if counted else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@torch.no_grad()
def load_into(model: nn.Module, folder: Path) -> None:
    """Copy the safetensors files of a folder into a model, one tensor at a time.

    There is never a second model in memory.

    Raises:
        UserError: Names or shapes differ from the model's; nothing has changed.
    """
    ours = model.state_dict(keep_vars=True)
    shards = sorted(folder.glob("model*.safetensors"))
    there: set[int] = set()
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():
                if name not in ours or file.get_slice(name).get_shape() != list(ours[name].shape):
                    raise UserError(
                        f"'{name}' is not in this model, or has another shape", where=str(shard),
                        hint="start the run again with --fresh",
                    )  # fmt: skip
                there.add(_identity(ours[name]))
    lacking = [name for name, tensor in ours.items() if _identity(tensor) not in there]  # tied weights are saved once
    if lacking:
        raise UserError(f"no weights for '{lacking[0]}'", where=str(folder), hint="start the run again with --fresh")
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():
                ours[name].copy_(shard_like(ours[name], file.get_tensor(name)))


def _identity(tensor: torch.Tensor) -> int:
    """Equal for two names of one tensor. A shard may be empty, without an address of its own."""
    return id(tensor) if isinstance(tensor, DTensor) else tensor.data_ptr()
