"""A reference that moves towards the policy during training, as an exponential moving average or by copies.

A step of an average by 1% is far below the distance between two bfloat16 numbers, so it would be rounded away. The
average of 16-bit weights is therefore kept in float32, and the reference computes with a rounded copy. It follows the
policy's float32 masters where the optimizer has them.
"""

from __future__ import annotations

import torch
from torch import nn

from alignzoo.core.distributed.gather import full_tensor
from alignzoo.training.master_weights import MasterWeights, narrow_type


class MovingReference:
    """The weights of a moving reference.

    Args:
        reference: The module that computes the reference's scores. Its weights are changed in place.
        policy: The module that is trained, with the same parameters, which may be shards.
        optimizer: The policy's optimizer.
    """

    def __init__(self, reference: nn.Module, policy: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.reference, self.policy, self.optimizer = reference, policy, optimizer
        own = {name: parameter.detach() for name, parameter in reference.named_parameters()}
        self.tensors = {name: one.float() if narrow_type(one) else one for name, one in own.items()}
        """The exact weights by name: float32 copies of 16-bit ones, and the reference's own others."""

    @torch.no_grad()
    def move(self, fraction: float) -> None:
        """Move the reference this fraction of the way to the policy; 1 copies the policy. Collective with shards."""
        followed = self.optimizer.master_of if isinstance(self.optimizer, MasterWeights) else {}
        for exact, policy in zip(self.tensors.values(), self.policy.parameters(), strict=True):
            exact.lerp_(full_tensor(followed.get(id(policy), policy).detach()).to(exact), fraction)
        self.round()

    @torch.no_grad()
    def round(self) -> None:
        """Copy the exact weights into the reference."""
        for exact, own in zip(self.tensors.values(), self.reference.parameters(), strict=True):
            if exact.dtype != own.dtype:
                own.copy_(exact)

    def memory_words(self) -> str:
        """Return a line on the memory of the float32 copies; "" if there are none."""
        size = 4 * sum(one.numel() for one in self.reference.parameters() if narrow_type(one))
        more = f"{size / 2**30:.2f} GiB more"
        return f"reference: moves in float32, beside the bfloat16 weights that it computes with: {more}" if size else ""
