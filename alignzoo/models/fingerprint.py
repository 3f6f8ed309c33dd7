"""Digests of a model's weights and of the code that came with it."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from alignzoo.core.digests import cached_file_digest
from alignzoo.core.distributed.gather import full_state_dict, own_class
from alignzoo.models.adapters import scaling_of
from alignzoo.registry.code import code_of_class

if TYPE_CHECKING:
    pass


HASHED_AT_ONCE = 2**25
"""Bytes of a tensor that a thread copies at a time to hash them: 32 MiB."""


def remote_code_digests(model: nn.Module) -> dict[str, str]:
    """File name -> digest of code that came with the weights and was run to load them; for a class of a plugin, the
    package's name -> digest of its code; empty for all other models."""
    cls = own_class(model)
    name = cls.__module__
    path = getattr(sys.modules.get(name), "__file__", None)
    if path is None or name.split(".")[0] in ("transformers", "peft", "torch", "alignzoo"):
        return {}
    if name.startswith("transformers_modules"):
        return {file.name: cached_file_digest(file) for file in sorted(Path(path).parent.glob("*.py"))}
    return {name.split(".")[0]: code_of_class(cls)}


def num_trainable_parameters(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def weights_fingerprint(model: nn.Module) -> str:
    """32 hex digits of every parameter and buffer: names, types, shapes and bytes; and of an adapter's scaling.

    Weights in memory are read where they are; of those on a GPU only pieces are copied.
    """

    def one(item: tuple[str, torch.Tensor]) -> bytes:
        name, tensor = item
        raw = tensor.detach().contiguous()
        digest = blake2b(f"{name} {raw.dtype} {tuple(raw.shape)}".encode(), digest_size=16)
        for piece in raw.reshape(-1).view(torch.uint8).split(HASHED_AT_ONCE):
            digest.update(piece.cpu().numpy().data)
        return digest.digest()

    with ThreadPoolExecutor() as threads:
        parts = threads.map(one, sorted(full_state_dict(model).items()))
        return blake2b(b"".join(parts) + scaling_of(model).encode(), digest_size=16).hexdigest()
