"""Schema of a recipe: one pydantic model per section. Unknown keys are errors."""

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
    """Base of every section: frozen, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class TokensConfig(Section):
    """Length limits in tokens, and the handling of thinking in chats.

    Truncation follows the DPO authors: first the prompt, then the completions.
    """

    max_length: int = Field(512, ge=2, description="prompt and completion together")
    max_prompt_length: int = Field(256, ge=1, description="length of a truncated prompt")
    truncate_prompt: Literal["keep_end", "keep_start", "never"] = Field(
        "keep_end", description="the end of a long prompt that is kept; never: skip and count the row"
    )
    thinking: Literal["keep", "template"] = Field(
        "keep",
        description="a reply whose thinking the chat template drops: keep it as given, or follow the template",
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
    """RMSprop with torch's defaults, the optimizer of the DPO paper (appendix B)."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(gt=0)
    alpha: float = Field(0.99, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    momentum: float = Field(0.0, ge=0)
    weight_decay: float = Field(0.0, ge=0)


class SGD(Section):
    """Stochastic gradient descent, with optional momentum."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.0, ge=0)
    weight_decay: float = Field(0.0, ge=0)


Optimizer = Annotated[AdamW | RMSprop | SGD, Field(discriminator="name")]


class Schedule(Section):
    """Learning-rate schedule: warm-up, then constant or decay to zero."""

    name: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")


class TrainConfig(Section):
    """Optimization: batches, optimizer, precision, memory, checkpoints."""

    batch_size: int = Field(64, ge=1, description="rows per optimizer step, summed over processes")
    epochs: float = Field(
        1.0, gt=0, le=1e6, description="passes over the training rows; the last partial batch is dropped"
    )
    shuffle: bool = Field(True, description="a new seeded order each epoch; false: the order of the data")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps")
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    max_grad_norm: float | None = Field(10.0, gt=0, description="limit of the global gradient norm; null: no clipping")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast; weights keep their dtype"
    )
    micro_batch_tokens: int = Field(
        4096, ge=1, description="token slots per micro-batch; changes speed, not the result"
    )
    layout: Literal["auto", "packed", "padded", "plain"] = Field(
        "auto", description="layout of token trees; auto: the fastest one that matches the model's own forward"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, a third more time")
    ignore_router_loss: bool = Field(
        False, description="train a mixture of experts without the auxiliary router loss of its config"
    )
    master_weights: bool = Field(
        True,
        description="update bfloat16 weights through a float32 copy (4 bytes per trained weight); false: directly",
    )
    compile: bool = Field(False, description="compile the model's layers with torch.compile")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every: int = Field(200, ge=1, description="optimizer steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="number of last checkpoints kept")

    def steps(self, rows: int) -> int:
        """Return the optimizer steps over `rows` training rows, at least 1.

        `epochs` is the written decimal: 0.58 of 50 batches are 29, where the float product is just below.
        """
        steps = max(1, int(Fraction(repr(self.epochs)) * (rows // self.batch_size)))
        return min(steps, self.max_steps) if self.max_steps else steps


class RepliesConfig(Section):
    """Greedy replies to held-out prompts."""

    num_prompts: int = Field(6, ge=0, description="prompts answered before and after training")
    max_new_tokens: int = Field(64, ge=1, description="maximum length of a reply, in tokens")


class EvalConfig(Section):
    """Measurements on the held-out rows."""

    every: int | None = Field(None, ge=1, description="optimizer steps between evaluations; null: start and end only")
    replies: RepliesConfig = Field(RepliesConfig(), description="greedy replies to held-out prompts, before and after")
    metrics: tuple[SerializeAsAny[Metric], ...] = Field((), description="further figures of every held-out row")
    judges: tuple[SerializeAsAny[Judge], ...] = Field((), description="judges that score the replies")


class Recipe(Section):
    """A whole run: an objective, a model and data. `load_recipe` reads it from YAML."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=100,
        description="name of the run folder; default: the file's",
    )
    plugins: tuple[str, ...] = Field((), description="plugin files (.py) that are not installed")
    objective: SerializeAsAny[Objective]
    model: SerializeAsAny[ModelSource]
    data: SerializeAsAny[DataSource]
    tokens: TokensConfig = TokensConfig()
    train: TrainConfig
    eval: EvalConfig = EvalConfig()
    reporters: tuple[SerializeAsAny[Reporter], ...] = Field(description="outputs made of the run's records")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the data order and of everything random")
