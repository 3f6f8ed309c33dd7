"""Float32 masters of bfloat16 weights, in which small updates accumulate.

A bfloat16 weight has 8 bits of mantissa. AdamW at 1e-6 moves a weight of 0.02 by 1/60 of the distance to the next
number, so almost every update would be rounded away. The optimizer steps a float32 copy, and the model computes with
the rounded copy.

Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

MASTER = "master"
"""Key of the master in a parameter's optimizer state."""


class MasterWeights(torch.optim.Optimizer):
    """An optimizer over float32 copies of parameters, with the interface of one over the parameters.

    Parameters may be full tensors or shards (DTensor); a copy is sharded as its parameter is.
    """

    def __init__(self, parameters: Sequence[Tensor], make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> None:
        self.parameters = list(parameters)
        self.masters = [_copy(parameter) for parameter in self.parameters]
        self.inner = make(self.masters)
        super().__init__(self.parameters, self.inner.defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step the copies by the parameters' gradients, and round them into the parameters."""
        for own, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner["lr"] = own["lr"]
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.to(master.dtype)
        self.inner.step()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)
            master.grad = None

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
    """Return the optimizer of `make`, over float32 copies if they are wanted and a parameter is narrower."""
    narrow = any(narrow_type(parameter) for parameter in parameters)
    return MasterWeights(parameters, make) if wanted and narrow else make(list(parameters))


def narrow_type(tensor: Tensor) -> bool:
    """Return True for bfloat16 and float16."""
    return tensor.dtype in (torch.bfloat16, torch.float16)


def memory_words(parameters: Sequence[Tensor], wanted: bool) -> str:
    """Return a line on the memory of masters, or on training without; "" if no weight is narrow."""
    count = sum(parameter.numel() for parameter in parameters if narrow_type(parameter))
    if not count:
        return ""
    if not wanted:
        return "weights: bfloat16, stepped directly: an update below 1/256 of a weight is rounded away"
    return (
        f"weights: bfloat16, with float32 masters that the optimizer steps: {4 * count / 2**30:.2f} GiB more, and its "
        "states in float32 (train.master_weights=false steps bfloat16 itself)"
    )


def _copy(parameter: Tensor) -> Tensor:
    wide = torch.float32 if narrow_type(parameter) else parameter.dtype
    return parameter.detach().to(wide, copy=True).requires_grad_()
