"""A model's weights as safetensors shards, read into the model itself."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor

from alignzoo.errors import UserError
from alignzoo.sharding import cut_like


@torch.no_grad()
def read_into(model: nn.Module, folder: Path) -> None:
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
                ours[name].copy_(cut_like(ours[name], file.get_tensor(name)))


def _which(tensor: torch.Tensor) -> int:
    """The same for two names of one tensor. A process may have nothing of a tensor that is cut over several."""
    return id(tensor) if isinstance(tensor, DTensor) else tensor.data_ptr()
