"""What a model source is: it obtains a tokenizer and the model that training starts from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.interfaces.rows import Row


ALL_LINEAR = "all-linear"
ON_TOP = ("lora", "quantize")
"""Fields that say how a run trains what a source loads. They are no part of what the source is."""


class Lora(BaseModel):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): the weights stay as they are, and W x becomes
    W x + (alpha / r) B A x with A and B trained. Made by the peft library.

    There is no dropout on them: the policy that is trained is then exactly the one that is scored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    r: int = Field(16, ge=1, description="rank: A is (r, inputs), B is (outputs, r)")
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(0.0, description="0, and nothing else")
    target_modules: tuple[str, ...] = Field(
        (ALL_LINEAR,),
        description="names of linear layers, as q_proj; all-linear: every one but the head (QLoRA's advice)",
    )

    @field_validator("dropout")
    @classmethod
    def _none(cls, value: float) -> float:
        if value != 0:
            raise ValueError(
                f"{value:g} is not 0: a policy is trained without dropout, so that what is trained is exactly what is "
                "scored, and a run can be repeated to the byte; a smaller r or learning rate regularizes too"
            )
        return value

    @field_validator("target_modules", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("target_modules")
    @classmethod
    def _all_or_some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or (ALL_LINEAR in value and len(value) > 1):
            raise ValueError(f"expected {ALL_LINEAR} alone, or names of layers")
        return value


class ModelSource(BaseModel):
    """Base class: subclass it, give it a `name` and the two loaders, and return it from `register_models`.

    A recipe names it under `model`. What it loads is a Hugging Face model and tokenizer: they are checked, scored and
    exported like any other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    name: ClassVar[str]
    needs_runs: ClassVar[tuple[str, ...]] = ()
    """Keys of fields that name a recipe: its run is made first. They are no part of `fingerprint`."""

    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the weights")
    lora: Lora | None = Field(None, description="train low-rank adapters in place of the weights: {r: 16, alpha: 32}")
    quantize: Literal["4bit", "8bit"] | None = Field(
        None, description="keep the frozen weights in 4 or 8 bits (bitsandbytes) under the adapters: QLoRA"
    )

    @model_validator(mode="after")
    def _nothing_to_train(self) -> ModelSource:
        if self.quantize and self.lora is None:
            raise ValueError("quantized weights can't be trained: quantize needs lora, for example lora: {r: 16}")
        return self

    def load_tokenizer(self, train_rows: Iterable[Row]) -> PreTrainedTokenizerBase:
        """The tokenizer; `train_rows` are there for one that is trained. Raises UserError when it can't be had."""
        raise NotImplementedError(f"{type(self).__name__} has no load_tokenizer")

    def load_model(self, tokenizer: PreTrainedTokenizerBase, seed: int, head: str) -> PreTrainedModel:
        """The model, a function of the fields and the seed alone; `head` is `language_model`, or `scalar` for a reward
        model: one label, a linear `score`. Raises UserError when it can't be had."""
        raise NotImplementedError(f"{type(self).__name__} has no load_model")

    def fingerprint(self) -> Any:
        """Everything that the weights depend on, as plain JSON values: the fields, and the contents of what they name.

        `alignzoo.content_digest(path)` digests the files of a folder.
        """
        return {"name": self.name, **self.model_dump(mode="json", exclude={*ON_TOP, *self.needs_runs})}

    @property
    def origin(self) -> tuple[str, str | None] | None:
        """Where from_pretrained finds these very weights, for what is trained on top of them to name: a folder or a hub
        id, and its revision. None where they are made: they are then saved beside the adapters."""
        return None

    @property
    def runs_code(self) -> bool:
        """Whether Python code that comes with the weights may be run, by this run and by those that start from it."""
        return False

    def __str__(self) -> str:
        fields = ", ".join(
            f"{key}={value}" for key, value in self.model_dump(exclude_defaults=True, exclude=set(ON_TOP)).items()
        )
        return f"{self.name}({fields})"
