"""Float32 masters of bfloat16 weights, in which small updates and gradients accumulate.

A bfloat16 weight has 8 bits of mantissa. AdamW at 1e-6 moves a weight of 0.02 by 1/60 of the distance to the next
number, so almost every update would be rounded away. The optimizer steps a float32 copy, and the model computes with
the rounded copy. For the same reason the gradients of micro-batches are summed in float32.

Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

MASTER = "master"
"""Key of the master in a parameter's optimizer state."""


class MasterWeights(torch.optim.Optimizer):
    """Optimizer over float32 copies of parameters (master weights).

    Its interface is that of an optimizer over the parameters, in the same groups. Each backward adds a parameter's
    gradient to that of its copy and frees it, so `masters` have the gradients. Parameters may be full tensors or shards
    (DTensor); a copy is sharded as its parameter is.
    """

    def __init__(self, parameters: Sequence[Tensor], make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> None:
        self.parameters = list(parameters)
        self.masters = [_copy(parameter) for parameter in self.parameters]
        self.master_of = {id(one): master for one, master in zip(self.parameters, self.masters, strict=True)}
        """Parameter's id -> its master."""
        self.inner = make(self.masters)
        left = iter(self.parameters)
        groups = [group | {"params": list(islice(left, len(group["params"])))} for group in self.inner.param_groups]
        super().__init__(groups, self.inner.defaults)
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.register_post_accumulate_grad_hook(partial(_move_gradient, master))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step the copies by their gradients, and round them into the parameters."""
        for own, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner["lr"] = own["lr"]
        self.inner.step()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the copies and of the parameters."""
        super().zero_grad(set_to_none)
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state, with the float32 copy of each parameter added."""
        found = self.inner.state_dict()
        state = {i: dict(found["state"].get(i, {})) | {MASTER: one} for i, one in enumerate(self.masters)}
        return {"state": state, "param_groups": found["param_groups"]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both. A parameter without a saved copy, as of a run without masters, is copied."""
        states = {int(i): dict(state) for i, state in state_dict["state"].items()}
        for i, (parameter, master) in enumerate(zip(self.parameters, self.masters, strict=True)):
            master.copy_(states.get(i, {}).pop(MASTER, parameter))
        known = {i: state for i, state in states.items() if state}
        self.inner.load_state_dict({"state": known, "param_groups": state_dict["param_groups"]})


def with_masters(
    parameters: Sequence[Tensor], make: Callable[[list[Tensor]], torch.optim.Optimizer], wanted: bool
) -> torch.optim.Optimizer:
    """Return the optimizer of `make`, over float32 master weights where they are used.

    They are used if `wanted`, and if a parameter is narrower.
    """
    narrow = any(narrow_type(parameter) for parameter in parameters)
    return MasterWeights(parameters, make) if wanted and narrow else make(list(parameters))


def holders_of_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the tensors whose `grad` is the sum over micro-batches.

    These are the masters, or else the parameters.
    """
    if isinstance(optimizer, MasterWeights):
        return optimizer.masters
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def narrow_type(tensor: Tensor) -> bool:
    """Return True for bfloat16 and float16."""
    return tensor.dtype in (torch.bfloat16, torch.float16)


def memory_words(parameters: Sequence[Tensor], wanted: bool) -> str:
    """Return a line on the memory of master weights, or on training without them.

    It is "" if no weight is narrow.
    """
    count = sum(parameter.numel() for parameter in parameters if narrow_type(parameter))
    if not count:
        return ""
    if not wanted:
        return (
            "weights: bfloat16, stepped directly: an update below 1/256 of a weight is rounded away, and the gradients "
            "of micro-batches are summed in bfloat16"
        )
    return (
        f"weights: bfloat16, with float32 masters that the optimizer steps: {4 * count / 2**30:.2f} GiB more, and its "
        "states and gradients in float32 (train.master_weights=false steps bfloat16 itself)"
    )


@torch.no_grad()
def _move_gradient(master: Tensor, parameter: Tensor) -> None:
    """Add a parameter's gradient to its master's, and free it."""
    if parameter.grad is not None:
        gradient = parameter.grad.to(master.dtype)
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)
        parameter.grad = None


def _copy(parameter: Tensor) -> Tensor:
    wide = torch.float32 if narrow_type(parameter) else parameter.dtype
    return parameter.detach().to(wide, copy=True).requires_grad_()
