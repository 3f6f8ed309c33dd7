"""Compile layers and control the precision of matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from alignzoo.core.errors import UserError, first_line


def disable_tf32() -> None:
    """Compute products of float32 in full precision.

    TF32 on a GPU keeps 10 bits of each factor. accelerate enables it when a launcher compiles the model. The option for
    speed is `precision: bfloat16`.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def compiled_layers(model: nn.Module, wanted: bool, device: torch.device) -> Iterator[None]:
    """Compile the model's layers inside the block. Equal layers share one compilation.

    Sequence lengths are dynamic, so that a run compiles once and a resumed run uses the same kernels. After the block
    the layers are not compiled.

    Args:
        model: The model.
        wanted: Compile; with False the block runs unchanged.
        device: Device of the model.

    Raises:
        UserError: torch can't compile on this machine, or the model has no layers that can be compiled.
    """
    if not wanted:
        yield
        return
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"{type(model).__name__} has no layers that can be compiled", where="train.compile", expected="false"
        )
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except Exception as error:  # of many types: no C++ compiler, no triton
        reason = first_line(error)
        raise UserError(
            f"torch can't compile on this machine: {reason[:160]}", where="train.compile",
            expected="false, or a machine with a C++ compiler (on a GPU also triton)",
        ) from None  # fmt: skip
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
