"""Schema of the optimizers, the section `train.optimizer` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from alignzoo.interfaces.component import Strict

LearningRate = Annotated[float, Field(gt=0, description="learning rate after the warm-up")]
WeightDecay = Annotated[float, Field(ge=0, description="weight decay")]
Momentum = Annotated[float, Field(ge=0, description="momentum; 0: none")]
Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Decay, Decay], Field(description="decay of the mean gradient and of its square")]
Eps = Annotated[float, Field(gt=0, description="term added to the denominator")]


class AdamW(Strict):
    """AdamW with decoupled weight decay."""

    name: Literal["adamw"] = Field("adamw", description="the optimizer")
    learning_rate: LearningRate
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 0.0


class AdamW8bit(AdamW):
    """AdamW with states of 8 bits, in blocks; needs bitsandbytes.

    Source: Dettmers et al. 2021, arXiv:2110.02861.
    """

    name: Literal["adamw_8bit"] = Field("adamw_8bit", description="the optimizer")  # type: ignore[assignment]


class Lion(Strict):
    """Lion: the sign of an interpolated momentum; needs bitsandbytes.

    Source: Chen et al. 2023, arXiv:2302.06675.
    """

    name: Literal["lion"] = Field("lion", description="the optimizer")
    learning_rate: LearningRate
    betas: tuple[Decay, Decay] = Field((0.9, 0.99), description="weight of the momentum in the update, and its decay")
    weight_decay: WeightDecay = 0.0


class Lion8bit(Lion):
    """Lion with a momentum of 8 bits, in blocks; needs bitsandbytes."""

    name: Literal["lion_8bit"] = Field("lion_8bit", description="the optimizer")  # type: ignore[assignment]


class Muon(Strict):
    """Muon for matrices of hidden layers and AdamW for the rest; needs torch 2.9.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982.
    """

    name: Literal["muon"] = Field("muon", description="the optimizer")
    learning_rate: LearningRate
    momentum: float = Field(0.95, ge=0, lt=1, description="momentum of the matrices")
    nesterov: bool = Field(True, description="Nesterov's momentum for the matrices")
    ns_steps: int = Field(5, ge=1, lt=100, description="Newton-Schulz iterations that orthogonalize an update")
    adjust_learning_rate: Literal["match_rms_adamw", "original"] = Field(
        "match_rms_adamw",
        description="factor of a matrix's learning rate; match_rms_adamw: updates as large as those of AdamW; "
        "original: sqrt(max(1, rows / columns))",
    )
    adamw_learning_rate: float | None = Field(
        None, gt=0, description="learning rate of the parameters that AdamW updates; null: learning_rate"
    )
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 0.0


class RMSprop(Strict):
    """RMSprop with torch's defaults, the optimizer of the DPO paper (appendix B)."""

    name: Literal["rmsprop"] = Field("rmsprop", description="the optimizer")
    learning_rate: LearningRate
    alpha: Decay = Field(0.99, description="decay of the mean squared gradient")
    eps: Eps = 1e-8
    momentum: Momentum = 0.0
    weight_decay: WeightDecay = 0.0


class SGD(Strict):
    """Stochastic gradient descent, with optional momentum."""

    name: Literal["sgd"] = Field("sgd", description="the optimizer")
    learning_rate: LearningRate
    momentum: Momentum = 0.0
    weight_decay: WeightDecay = 0.0


Optimizer = Annotated[AdamW | AdamW8bit | Lion | Lion8bit | Muon | RMSprop | SGD, Field(discriminator="name")]
OPTIMIZERS: dict[str, Any] = {cls.model_fields["name"].default: cls for cls in get_args(get_args(Optimizer)[0])}
"""Name -> schema of every optimizer."""
DecayOn = Literal["all", "matrices"]
