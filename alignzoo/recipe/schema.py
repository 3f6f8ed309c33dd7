"""What a recipe may say: one pydantic model a section, nothing else accepted."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.judge import Judge
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.reporter import Reporter


class Section(BaseModel):
    """A part of a recipe: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class TokensConfig(Section):
    """Length limits in tokens, applied as the DPO authors do: first to the prompt, then to the completions.

    And how thoughts in the answers of chats are read.
    """

    max_length: int = Field(512, ge=2, description="prompt and completion together")
    max_prompt_length: int = Field(256, ge=1, description="what a prompt is cut to when the whole is too long")
    truncate_prompt: Literal["keep_end", "keep_start", "never"] = Field(
        "keep_end", description="which end of a long prompt is kept; never: the row is skipped, and counted"
    )
    thinking: Literal["keep", "template"] = Field(
        "keep",
        description="an answer whose thinking the chat template drops: as given, or as the template has it",
    )

    @model_validator(mode="after")
    def _room_for_a_completion(self) -> TokensConfig:
        if self.max_prompt_length >= self.max_length:
            raise ValueError(f"max_prompt_length must be below max_length ({self.max_length})")
        return self


class AdamW(Section):
    """AdamW with decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class RMSprop(Section):
    """The DPO paper's optimizer (appendix B), with torch's defaults."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(gt=0)
    alpha: float = Field(0.99, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    momentum: float = Field(0.0, ge=0)
    weight_decay: float = Field(0.0, ge=0)


class SGD(Section):
    """Plain stochastic gradient descent, with momentum if wanted."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.0, ge=0)
    weight_decay: float = Field(0.0, ge=0)


Optimizer = Annotated[AdamW | RMSprop | SGD, Field(discriminator="name")]


class Schedule(Section):
    """The learning rate over the steps: warm-up, then constant or falling to zero."""

    name: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="the rate rises linearly over these steps")


class TrainConfig(Section):
    """The optimization loop."""

    batch_size: int = Field(64, ge=1, description="rows per optimizer step, over all processes")
    epochs: float = Field(
        1.0, gt=0, le=1e6, description="passes over the training rows; the last partial batch is dropped"
    )
    shuffle: bool = Field(True, description="a new seeded order each epoch; false: the order of the data")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps")
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    max_grad_norm: float | None = Field(10.0, gt=0, description="clip the global gradient norm; null: never")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: autocast; weights keep theirs")
    micro_batch_tokens: int = Field(
        4096, ge=1, description="token slots per micro-batch; changes speed, not the result"
    )
    layout: Literal["auto", "packed", "padded", "plain"] = Field(
        "auto", description="of token trees; auto: the fastest that the model agrees with"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, a third more time")
    ignore_router_loss: bool = Field(
        False, description="train a mixture of experts without the auxiliary router loss that its config asks for"
    )
    master_weights: bool = Field(
        True,
        description="of bfloat16 weights: step a float32 copy, 4 bytes a trained weight; false: step them directly",
    )
    compile: bool = Field(False, description="compile the model's layers with torch.compile, once at the start")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every: int = Field(200, ge=1, description="optimizer steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="how many of the last checkpoints stay")

    def steps(self, rows: int) -> int:
        """Optimizer steps over `rows` training rows, at least 1.

        `epochs` counts as the decimal that was written: 0.58 of 50 batches is 29, where the float product is below it.
        """
        steps = max(1, int(Fraction(repr(self.epochs)) * (rows // self.batch_size)))
        return min(steps, self.max_steps) if self.max_steps else steps


class RepliesConfig(Section):
    """Greedy replies to held-out prompts."""

    num_prompts: int = Field(6, ge=0, description="prompts that are answered before and after training")
    max_new_tokens: int = Field(64, ge=1, description="limit of a reply, in tokens")


class EvalConfig(Section):
    """What is measured on the held-out rows, and when."""

    every: int | None = Field(None, ge=1, description="optimizer steps between evaluations; null: start and end only")
    replies: RepliesConfig = Field(RepliesConfig(), description="greedy replies to held-out prompts, before and after")
    metrics: tuple[SerializeAsAny[Metric], ...] = Field((), description="more figures of every held-out row")
    judges: tuple[SerializeAsAny[Judge], ...] = Field((), description="who reads the samples and scores them")


class Recipe(Section):
    """A whole run: an objective, a model and data. `load_recipe` reads it from YAML."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100, description="of the run folder; by default the file's"
    )
    plugins: tuple[str, ...] = Field((), description="unpackaged plugins, .py files beside the recipe")
    objective: SerializeAsAny[Objective]
    model: SerializeAsAny[ModelSource]
    data: SerializeAsAny[DataSource]
    tokens: TokensConfig = TokensConfig()
    train: TrainConfig
    eval: EvalConfig = EvalConfig()
    reporters: tuple[SerializeAsAny[Reporter], ...] = Field(description="what is made of the run's records")
    seed: int = Field(0, ge=0, lt=2**63, description="of the data order and of everything random")
