"""Compute digests of a model's weights and of the code that came with them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import torch
from torch import nn

from alignzoo.core.digests import cached_file_digest
from alignzoo.core.distributed.gather import full_state_dict, own_class
from alignzoo.models.adapters import scaling_of
from alignzoo.registry.code import code_of_class

HASH_CHUNK_BYTES = 2**25
"""Size of the pieces of a tensor that are copied to the CPU and hashed (32 MiB)."""


def remote_code_digests(model: nn.Module) -> dict[str, str]:
    """Return digests of code that the model runs from outside of the libraries.

    The libraries are transformers, peft, torch and alignzoo.

    Returns:
        File name -> digest for code that came with the weights, package name -> digest for the class of a plugin, empty
        for all other models.
    """
    cls = own_class(model)
    name = cls.__module__
    path = getattr(sys.modules.get(name), "__file__", None)
    if path is None or name.split(".")[0] in ("transformers", "peft", "torch", "alignzoo"):
        return {}
    if name.startswith("transformers_modules"):
        return {file.name: cached_file_digest(file) for file in sorted(Path(path).parent.glob("*.py"))}
    return {name.split(".")[0]: code_of_class(cls)}


def num_trainable_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def weights_fingerprint(model: nn.Module) -> str:
    """Return a digest (32 hex digits) of all parameters and buffers, and of adapter scaling.

    It covers their names, types, shapes and bytes. Tensors on the CPU are hashed in place, those on a GPU are copied in
    pieces of `HASH_CHUNK_BYTES`.
    """

    def digest_of(item: tuple[str, torch.Tensor]) -> bytes:
        name, tensor = item
        raw = tensor.detach().contiguous()
        digest = blake2b(f"{name} {raw.dtype} {tuple(raw.shape)}".encode(), digest_size=16)
        for piece in raw.reshape(-1).view(torch.uint8).split(HASH_CHUNK_BYTES):
            digest.update(piece.cpu().numpy().data)
        return digest.digest()

    with ThreadPoolExecutor() as threads:
        parts = threads.map(digest_of, sorted(full_state_dict(model).items()))
        return blake2b(b"".join(parts) + scaling_of(model).encode(), digest_size=16).hexdigest()
