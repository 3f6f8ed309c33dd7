"""Float32 masters of bfloat16 weights: small updates add up where bfloat16 would round each of them away.

A bfloat16 weight has 8 bits of mantissa. AdamW at 1e-6 moves a weight of 0.02 by 1/60 of the distance to the next
number, so nearly no weight would ever move. The optimizer steps a float32 copy, and the model computes with the copy
rounded (Micikevicius et al. 2018, arXiv:1710.03740, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

MASTER = "master"
"""Of the state that a parameter has in a checkpoint."""


class MasterWeights(torch.optim.Optimizer):
    """An optimizer over float32 copies of parameters, which appears to be one over the parameters themselves.

    Parameters may be whole or shards (DTensor): a copy is cut as its parameter is.
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
        """The inner optimizer's, with the copy of each parameter as one more of its states."""
        found = self.inner.state_dict()
        state = {i: dict(found["state"].get(i, {})) | {MASTER: one} for i, one in enumerate(self.masters)}
        return {"state": state, "param_groups": found["param_groups"]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both back. A parameter without a copy there, as of a run without masters, has its own value."""
        states = {int(i): dict(state) for i, state in state_dict["state"].items()}
        for i, (parameter, master) in enumerate(zip(self.parameters, self.masters, strict=True)):
            master.copy_(states.get(i, {}).pop(MASTER, parameter))
        known = {i: state for i, state in states.items() if state}
        self.inner.load_state_dict({"state": known, "param_groups": state_dict["param_groups"]})


def with_masters(
    parameters: Sequence[Tensor], make: Callable[[list[Tensor]], torch.optim.Optimizer], wanted: bool
) -> torch.optim.Optimizer:
    """The optimizer that `make` gives, over float32 copies if they are wanted and some parameter is narrower."""
    narrow = any(narrow_type(parameter) for parameter in parameters)
    return MasterWeights(parameters, make) if wanted and narrow else make(list(parameters))


def narrow_type(tensor: Tensor) -> bool:
    """Whether a type has fewer bits than float32."""
    return tensor.dtype in (torch.bfloat16, torch.float16)


def memory_words(parameters: Sequence[Tensor], wanted: bool) -> str:
    """A line on what masters cost, or on what their absence means; "" where no weight is narrow."""
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
