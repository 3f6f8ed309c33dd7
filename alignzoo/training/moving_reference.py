"""Moving reference: an exponential moving average of the policy, or copies of it.

The reference moves towards the policy during training. A step of an average by 1% is far below the distance between two
bfloat16 numbers, so it would be rounded away. The average of 16-bit weights is therefore kept in float32, and the
reference computes with a rounded copy. It follows the policy's float32 masters where the optimizer has them.

An average lags behind the policy. A correction adds a share of the policy's distance from its start. The average and
the start are then kept as well: twice the memory of the exact weights.
"""

from __future__ import annotations

import torch
from torch import nn

from alignzoo.core.distributed.gather import full_tensor
from alignzoo.training.master_weights import MasterWeights, narrow_type

AVERAGE, START = "average", "start"


class MovingReference:
    """The weights of a moving reference.

    Args:
        reference: The module that computes the reference's scores. Its weights are changed in place.
        policy: The module that is trained, with the same parameters, which may be shards.
        optimizer: The policy's optimizer.
        corrected: Whether moves have a correction.
    """

    def __init__(
        self, reference: nn.Module, policy: nn.Module, optimizer: torch.optim.Optimizer, corrected: bool = False
    ) -> None:
        self.reference, self.policy, self.optimizer, self.corrected = reference, policy, optimizer, corrected
        own = {name: parameter.detach() for name, parameter in reference.named_parameters()}
        self.tensors = {name: one.float() if narrow_type(one) else one for name, one in own.items()}
        """The exact weights by name: float32 copies of 16-bit ones, and the reference's own others.

        With a correction, the average and the start of each as well, under its name and `::average` or `::start`.
        """
        self._names = list(own)
        if corrected:
            self.tensors |= {f"{name}::{part}": self.tensors[name].clone() for name in own for part in (AVERAGE, START)}

    @torch.no_grad()
    def move(self, fraction: float, correction: float = 0.0) -> None:
        """Move the reference this fraction of the way to the policy; 1 copies the policy.

        With a correction it is the average, moved so, plus the correction times the policy's distance from its start.

        Collective with shards.
        """
        followed = self.optimizer.master_of if isinstance(self.optimizer, MasterWeights) else {}
        for name, policy in zip(self._names, self.policy.parameters(), strict=True):
            exact = self.tensors[name]
            now = full_tensor(followed.get(id(policy), policy).detach()).to(exact)
            if self.corrected:
                average, start = (self.tensors[f"{name}::{part}"] for part in (AVERAGE, START))
                exact.copy_(average.lerp_(now, fraction) + correction * (now - start))
            else:
                exact.lerp_(now, fraction)
        self.round()

    @torch.no_grad()
    def round(self) -> None:
        """Copy the exact weights into the reference."""
        for name, own in zip(self._names, self.reference.parameters(), strict=True):
            if self.tensors[name].dtype != own.dtype:
                own.copy_(self.tensors[name])

    def memory_words(self) -> str:
        """Return a line on the memory of the reference's copies; "" if there are none.

        These are the copies beside its own weights.
        """
        narrow = any(narrow_type(one) for one in self.reference.parameters())
        parts = ["moves in float32, beside the bfloat16 weights that it computes with"] if narrow else []
        parts += ["keeps its average and its start"] if self.corrected else []
        own = {one.data_ptr() for one in self.reference.parameters()}
        size = sum(one.nbytes for one in self.tensors.values() if one.data_ptr() not in own)
        return f"reference: {', '.join(parts)}: {size / 2**30:.2f} GiB more" if parts else ""
