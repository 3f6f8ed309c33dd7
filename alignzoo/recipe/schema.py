"""Schema of a recipe: one pydantic model per section. Unknown keys are errors."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from alignzoo.interfaces.component import NoEffect, Strict
from alignzoo.interfaces.data_source import LONGEST_NAME, PART_NAME, DataSource
from alignzoo.interfaces.judge import Judge
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.reporter import Reporter
from alignzoo.interfaces.rows import check_template_kwargs
from alignzoo.recipe.critic import CriticConfig
from alignzoo.recipe.draw import DrawConfig
from alignzoo.recipe.optimizers import DecayOn, Optimizer
from alignzoo.recipe.rollout import RolloutConfig


class TokensConfig(Strict):
    """Length limits in tokens, thinking in chats, and inputs of the chat template.

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

    tools: tuple[dict[str, Any], ...] = Field(
        (), description="JSON schemas of functions for the chat template, for rows without a column tools"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="variables of the chat template, such as enable_thinking; a row's own column comes first"
    )

    @field_validator("chat_template_kwargs")
    @classmethod
    def _no_reserved_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        return check_template_kwargs(value)

    @model_validator(mode="after")
    def _room_for_a_completion(self) -> TokensConfig:
        if self.max_prompt_length >= self.max_length:
            raise ValueError(f"max_prompt_length must be below max_length ({self.max_length})")
        return self


class Schedule(Strict):
    """Learning-rate schedule: warm-up, then constant or decay to zero."""

    name: Literal["constant", "linear", "cosine"] = Field("constant", description="course after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    warmup_ratio: float = Field(
        0.0, ge=0, le=1, description="linear warm-up as a share of all steps, rounded up; in place of warmup_steps"
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> Schedule:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("warmup_steps and warmup_ratio both set the warm-up: expected 0 for one of them")
        return self

    def warmup(self, total: int) -> int:
        """Return the warm-up of a run of `total` steps, in steps.

        The ratio is the written decimal.
        """
        return self.warmup_steps or ceil(Fraction(repr(self.warmup_ratio)) * total)


class EarlyStopping(Strict):
    """Early stopping, after `patience` evaluations in a row without an improvement."""

    metric: str | None = Field(None, description="the figure, such as loss; null: that of train.keep_best")
    patience: int = Field(3, ge=1, description="evaluations in a row without an improvement")
    min_delta: float = Field(0.0, ge=0, description="an improvement is larger than this")


class TrainConfig(Strict):
    """Optimization: batches, optimizer, precision, memory, checkpoints."""

    batch_size: int = Field(64, ge=1, description="rows per optimizer step, summed over processes")
    epochs: float = Field(
        1.0, gt=0, le=1e6, description="passes over the training rows; the last partial batch is dropped"
    )
    shuffle: bool = Field(True, description="a new seeded order each epoch; false: the order of the data")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps")
    optimizer: Optimizer = Field(description="optimizer and its settings")
    weight_decay_on: DecayOn = Field("all", description="weights that decay; matrices: no biases, norms and embeddings")
    schedule: Schedule = Field(Schedule(), description="course of the learning rate")
    max_grad_norm: float | None = Field(10.0, gt=0, description="limit of the global gradient norm; null: no clipping")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: autocast, for products; the weights' type is model.dtype"
    )
    micro_batch_tokens: Annotated[int, NoEffect] = Field(
        4096, ge=1, description="token slots per micro-batch; changes speed, and the result by rounding alone"
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
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a CUDA GPU if available, else the CPU, on a Mac too"
    )
    checkpoint_every: Annotated[int, NoEffect] = Field(200, ge=1, description="optimizer steps between checkpoints")
    keep_checkpoints: Annotated[int, NoEffect] = Field(2, ge=1, description="number of last checkpoints kept")
    keep_optimizer: Annotated[bool, NoEffect] = Field(
        False, description="keep the optimizer state of a finished run, so that it can be extended"
    )
    keep_best: str | None = Field(
        None,
        description="keep and export the checkpoint with the best figure of an evaluation, such as "
        "preference_accuracy, over the validation half of the held-out rows; null: the last",
    )
    early_stopping: EarlyStopping | None = Field(None, description="stop before the last step; null: never")
    greater_is_better: bool | None = Field(
        None, description="direction of that figure; null: lower is better for names ending in loss, kl or perplexity"
    )

    @property
    def best_metric(self) -> str | None:
        """The figure that the exported checkpoint is chosen by, or None for the last checkpoint."""
        return self.keep_best or self.stopping_metric

    @property
    def stopping_metric(self) -> str | None:
        """The figure that training is stopped by, or None."""
        return (self.early_stopping.metric or self.keep_best) if self.early_stopping else None

    @field_validator("device", mode="before")
    @classmethod
    def _no_mps(cls, value: Any) -> Any:
        if value == "mps":
            raise ValueError(
                "Apple's GPUs (mps) have no float64, in which losses, metrics and draws are summed; "
                "use cpu, which auto takes on a Mac"
            )
        return value

    def steps(self, rows: int) -> int:
        """Return the optimizer steps over `rows` training rows, at least 1.

        `epochs` is the written decimal: 0.58 of 50 batches are 29, where the float product is just below.
        """
        steps = max(1, int(Fraction(repr(self.epochs)) * (rows // self.batch_size)))
        return min(steps, self.max_steps) if self.max_steps else steps


class RepliesConfig(Strict):
    """Replies to held-out prompts: greedy before and after training, sampled along it."""

    every: Annotated[int | None, NoEffect] = Field(
        None,
        ge=1,
        description="optimizer steps between sampled replies, whose rewards, length and KL are recorded; null: none",
    )
    num_prompts: int = Field(6, ge=0, description="prompts answered before and after training, and along it")
    max_new_tokens: int = Field(64, ge=1, description="maximum length of a reply, in tokens")


SetName = Annotated[str, Field(pattern=PART_NAME, max_length=LONGEST_NAME)]


class EvalConfig(Strict):
    """Measurements on the held-out rows, and on further evaluation sets."""

    data: dict[SetName, SerializeAsAny[DataSource]] = Field(
        {}, description="further evaluation sets by name, each a data source: its test split, or all of its rows"
    )
    allow_overlap: bool = Field(False, description="say nothing of rows that are both trained on and evaluated")

    every: int | None = Field(None, ge=1, description="optimizer steps between evaluations; null: start and end only")
    replies: RepliesConfig = Field(RepliesConfig(), description="greedy replies to held-out prompts, before and after")
    metrics: tuple[SerializeAsAny[Metric], ...] = Field((), description="further figures of every held-out row")
    judges: tuple[SerializeAsAny[Judge], ...] = Field((), description="judges that score the replies")


class FilterConfig(Strict):
    """Use the training rows with the lowest or highest values of a metric.

    The metric is that of the policy before its first step.
    """

    metric: SerializeAsAny[Metric] = Field(description="the metric, such as ches; rows without a value are kept")
    keep: float = Field(gt=0, lt=1, description="share of the rows with a value that is used")
    side: Literal["lowest", "highest"] = Field("lowest", description="which values are kept")


class Recipe(Strict):
    """A whole run: an objective, a model and data. `load_recipe` reads it from YAML."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=100,
        description="name of the run folder; default: the file's",
    )
    plugins: tuple[str, ...] = Field((), description="plugin files (.py) that are not installed")
    objective: SerializeAsAny[Objective] = Field(description="the loss, with its hyper-parameters and modifiers")
    model: SerializeAsAny[ModelSource] = Field(description="the policy before its first step, also the reference")
    data: SerializeAsAny[DataSource] = Field(description="rows of preferences, and how they are split")
    references: dict[str, SerializeAsAny[ModelSource]] = Field(
        {},
        description="further frozen models by name, each written as `model` or as the recipe of a run; the name "
        "reference replaces the policy's start",
    )
    filter: FilterConfig | None = Field(None, description="choice of training rows by a metric of the start")
    tokens: TokensConfig = Field(TokensConfig(), description="limits of length, and thinking in chats")
    train: TrainConfig = Field(description="optimization: batches, optimizer, precision, memory, checkpoints")
    rollout: RolloutConfig | None = Field(
        None, description="train on draws from the policy in place of the data's completions; null: on the data"
    )
    draw: DrawConfig | None = Field(
        None, description="make a data set of completions in place of training; then there is no objective"
    )
    critic: CriticConfig | None = Field(
        None, description="start and learning rate of the critic, for objectives that train one; null: the defaults"
    )
    eval: EvalConfig = Field(EvalConfig(), description="measurements on held-out rows")
    reporters: tuple[SerializeAsAny[Reporter], ...] = Field(description="outputs made of the run's records")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the data order and of everything random")

    @property
    def drawing(self) -> DrawConfig | None:
        """The section that completions are drawn by, `draw` or `rollout`, or None."""
        return self.draw or self.rollout
