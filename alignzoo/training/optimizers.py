"""Optimizers of a recipe, over the parameters of a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alignzoo.core.distributed.gather import reshard
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.recipe.optimizers import AdamW, DecayOn, Muon, Optimizer
from alignzoo.recipe.schema import TrainConfig
from alignzoo.training.master_weights import with_masters

TORCH: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "lion": "Lion", "lion_8bit": "Lion8bit"}
"""Name of an optimizer -> its class in bitsandbytes.optim."""
RATE_FACTOR = "rate_factor"
"""Key of a group of parameters: the multiple of the recipe's learning rate that it has."""


class Group(NamedTuple):
    """Parameters that are updated alike."""

    parameters: list[Tensor]
    weight_decay: float
    hidden: bool
    """True for matrices of hidden layers, which Muon updates."""

    @property
    def options(self) -> dict[str, Any]:
        """The group as a torch optimizer takes it."""
        return {"params": self.parameters, "weight_decay": self.weight_decay}


def check_optimizer(config: Optimizer) -> None:
    """Check that the library of a recipe's optimizer is installed.

    Raises:
        UserError: It is not, or it is too old; the error has the command that installs it.
    """
    where = "train.optimizer.name"
    if config.name in BITSANDBYTES and find_spec("bitsandbytes") is None:
        raise UserError(
            f"{config.name} requires bitsandbytes, which is not installed", where=where,
            hint="pip install 'alignzoo[bitsandbytes]'",
        )  # fmt: skip
    if isinstance(config, Muon) and not hasattr(torch.optim, "Muon"):
        raise UserError(f"muon requires torch 2.9, and this is {torch.__version__}", where=where,
                        hint="pip install --upgrade torch")  # fmt: skip


def check_parted(config: TrainConfig, ranks: Ranks) -> None:
    """Check that the optimizer can be partitioned as the launch requests.

    Muon and the optimizers of bitsandbytes need whole matrices, and ZeRO keeps all weights in one group.

    Raises:
        UserError: It can't.
    """
    if ranks.parted and (config.optimizer.name in BITSANDBYTES or isinstance(config.optimizer, Muon)):
        raise UserError(
            f"{config.optimizer.name} needs whole matrices, and this launch divides weights or optimizer states",
            where="train.optimizer.name", expected="adamw, rmsprop or sgd, or a launch without FSDP and ZeRO",
        )  # fmt: skip
    if ranks.zero and config.weight_decay_on != "all":
        raise UserError(
            "ZeRO decays all weights alike", where="train.weight_decay_on",
            expected="all, or recipes/accelerate/fsdp2.yaml",
        )  # fmt: skip


def make_optimizer(
    config: Optimizer, model: nn.Module, masters: bool = True, decay_on: DecayOn = "all"
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over the trainable parameters.

    Args:
        config: The section `train.optimizer`.
        model: The model. Its parameters may be shards.
        masters: Optimize float32 copies of parameters that are narrower.
        decay_on: `matrices` leaves biases, norms and embeddings without weight decay.

    Raises:
        UserError: The optimizer is Muon, and the model has no matrix for it.
    """
    reshard(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hidden = _hidden_matrices(model, parameters) if isinstance(config, Muon) else set()
    if isinstance(config, Muon) and not hidden:
        raise UserError(
            "this model trains no matrix of a hidden layer", where="train.optimizer.name", expected="adamw",
        )  # fmt: skip
    decayed = {id(one) for one in parameters} if decay_on == "all" else _matrices(model, parameters)
    kinds = [(id(one) in hidden, id(one) in decayed) for one in parameters]
    order = [kind for kind in product((True, False), repeat=2) if kind in kinds]
    ordered = [one for wanted in order for one, kind in zip(parameters, kinds, strict=True) if kind == wanted]

    def make(tensors: list[Tensor]) -> torch.optim.Optimizer:
        left = iter(tensors)
        return _make(config, [
            Group(list(islice(left, kinds.count(kind))), config.weight_decay if kind[1] else 0.0, kind[0])
            for kind in order
        ])  # fmt: skip

    return with_masters(ordered, make, masters)


def _make(config: Optimizer, groups: Sequence[Group]) -> torch.optim.Optimizer:
    if isinstance(config, Muon):
        return MuonWithAdamW(config, groups)
    options: dict[str, Any] = config.model_dump(exclude={"name", "learning_rate"}) | {"lr": config.learning_rate}
    if config.name in BITSANDBYTES:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        kind = getattr(import_module("bitsandbytes.optim"), BITSANDBYTES[config.name])
    else:
        kind = TORCH[config.name]
        options |= {"fused": True} if isinstance(config, AdamW) else {}
    made: torch.optim.Optimizer = kind([group.options for group in groups], **options)
    return made


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for hidden matrices and AdamW for the rest, with one state and list of groups."""

    def __init__(self, config: Muon, groups: Sequence[Group]) -> None:
        hidden, rest = ([one.options for one in groups if one.hidden == kind] for kind in (True, False))
        rate = config.adamw_learning_rate or config.learning_rate
        self.parts: list[torch.optim.Optimizer] = [torch.optim.Muon(
            hidden, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov,
            ns_steps=config.ns_steps, adjust_lr_fn=config.adjust_learning_rate,
        )]  # fmt: skip
        if rest:
            factor = {RATE_FACTOR: rate / config.learning_rate}
            made = torch.optim.AdamW([one | factor for one in rest], rate, config.betas, config.eps, fused=True)
            self.parts.append(made)
        super().__init__([group for part in self.parts for group in part.param_groups], {"lr": config.learning_rate})
        self._share()

    def _share(self) -> None:
        """Give both optimizers this one's state and groups, which are saved and restored."""
        left = iter(self.param_groups)
        for part in self.parts:
            part.state, part.param_groups = self.state, list(islice(left, len(part.param_groups)))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step both by the gradients."""
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both."""
        super().load_state_dict(state_dict)
        self._share()


def _matrices(model: nn.Module, parameters: Sequence[Tensor]) -> set[int]:
    """Return the ids of the matrices among parameters: biases, norms and embeddings are none."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {id(one) for one in parameters if one.ndim >= 2 and id(one) not in tables}


def _hidden_matrices(model: nn.Module, parameters: Sequence[Tensor]) -> set[int]:
    """Return the ids of the matrices of hidden layers: below the head, of two dimensions."""
    inside = {id(one) for one in getattr(model, "base_model", model).parameters()}
    return {id(one) for one in parameters if one.ndim == 2 and id(one) in inside} & _matrices(model, parameters)
