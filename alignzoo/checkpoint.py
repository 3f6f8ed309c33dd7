"""Checkpoints: the policy in Hugging Face layout, the optimiser beside it, and digests of both.

A checkpoint is written to a temporary folder, synced and renamed; one whose digests don't fit is passed over for the
one before. Nothing is pickled. There is no random state to keep: dropout is off, and the data order is a function of
the step.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.durable import sync

STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
MOVING = "moving_reference.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose digests were found right."""

    path: Path
    step: int
    states: list[dict[str, float]]
    """Of each term of the objective."""


def save(
    folder: Path, step: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer, keep: int,
    states: Sequence[Mapping[str, float]] = (), moving: nn.Module | None = None,
) -> Path:  # fmt: skip
    """Write `folder/step-000200` and remove all but the last `keep`. `moving`: a reference that follows it."""
    path = folder / f"step-{step:06d}"
    for left_over in folder.glob(".step-*.tmp"):  # of a run that was killed while it wrote
        shutil.rmtree(left_over)
    temporary = folder / f".step-{step:06d}.tmp"
    temporary.mkdir(parents=True)
    export(temporary, model, tokenizer)
    save_file(_flatten(optimizer, model), temporary / OPTIMIZER)
    if moving is not None:
        save_file({name: value.detach().contiguous() for name, value in moving.named_parameters()}, temporary / MOVING)
    digests = {file.name: digest(file) for file in sorted(temporary.iterdir())}
    state = {"step": step, "objective": [dict(one) for one in states], "files": digests}
    (temporary / STATE).write_text(json.dumps(state, indent=2))
    publish(temporary, path)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def export(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The policy and its tokenizer as `from_pretrained` reads them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def publish(temporary: Path, path: Path) -> None:
    """Sync a finished folder to disk and give it its name."""
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)
    sync(path.parent)


def latest(folder: Path) -> tuple[Checkpoint | None, list[Path]]:
    """The last good checkpoint, and the damaged ones that were passed over to find it."""
    damaged: list[Path] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        good = _intact(path)
        if good is not None:
            return good, damaged
        damaged.append(path)
    return None, damaged


def restore(
    checkpoint: Checkpoint, model: PreTrainedModel, optimizer: torch.optim.Optimizer, moving: nn.Module | None = None
) -> None:
    """Put weights and optimiser back exactly as they were saved."""
    saved = type(model).from_pretrained(checkpoint.path, dtype=model.dtype, use_safetensors=True)
    model.load_state_dict(saved.state_dict())
    _unflatten(optimizer, model, load_file(checkpoint.path / OPTIMIZER))
    if moving is not None:
        moving.load_state_dict(load_file(checkpoint.path / MOVING), strict=False)  # buffers and tied names stay


def digest(path: Path) -> str:
    """32 hex digits of a file's bytes."""
    with open(path, "rb") as file:
        return _blake(file)


def _blake(file: Any) -> str:
    total = blake2b(digest_size=16)
    while block := file.read(1 << 20):
        total.update(block)
    return total.hexdigest()


def _intact(path: Path) -> Checkpoint | None:
    try:
        state = json.loads((path / STATE).read_text())
        whole = all(digest(path / name) == wanted for name, wanted in state["files"].items())
        return Checkpoint(path, int(state["step"]), state.get("objective", [])) if whole else None
    except (OSError, ValueError, KeyError):
        return None


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[int, str]:
    """The optimiser's own numbering of parameters -> their names in the model."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {i: name_of[id(parameter)] for i, parameter in enumerate(parameters)}


def _flatten(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    names = _names(optimizer, model)
    return {
        f"{names[i]}::{key}": torch.as_tensor(value).contiguous()
        for i, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


def _unflatten(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    number = {name: i for i, name in _names(optimizer, model).items()}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, key = full_name.split("::")
        state.setdefault(number[name], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
