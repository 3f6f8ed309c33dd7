"""What torch may do to a model's arithmetic, and what it may not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from alignzoo.core.errors import UserError, first_line


def disable_tf32() -> None:
    """Products of float32 in float32: a GPU's TF32 keeps ten bits of each factor, and who wants speed has `precision:
    bfloat16`. accelerate turns TF32 on where a launcher asks it to compile."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def compiled_layers(model: nn.Module, wanted: bool, device: torch.device) -> Iterator[None]:
    """Within it the model's layers are compiled, one by one: equal layers share what is compiled once.

    Widths are symbols in it, so that a run compiles once and a resumed one runs the same kernels. After it the model is
    what it was, for sampling. Raises UserError where torch has nothing to compile with, or the model no such layers.
    """
    if not wanted:
        yield
        return
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no layers to compile", where="train.compile", expected="false")
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except Exception as error:  # of many kinds: no C++ compiler, no triton
        reason = first_line(error)
        raise UserError(
            f"torch can't compile here: {reason[:160]}", where="train.compile",
            expected="false, or a C++ compiler (on a GPU triton)",
        ) from None  # fmt: skip
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
