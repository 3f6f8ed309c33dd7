"""Base class of model sources, which load the tokenizer and the model to start from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from alignzoo.interfaces.component import Component, Strict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.interfaces.rows import Row


ALL_LINEAR = "all-linear"
ON_TOP = ("lora", "quantize")
"""Fields on how the loaded model is trained. They are not part of the source's fingerprint."""


class Lora(Strict):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), from the peft library.

    The weights W are frozen, and W x becomes W x + (alpha / r) B A x with A and B trained. Adapters have no dropout, so
    that the policy that is trained is exactly the one that is scored.
    """

    r: int = Field(16, ge=1, description="rank: A is (r, inputs), B is (outputs, r)")
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(0.0, description="must be 0")
    target_modules: tuple[str, ...] = Field(
        (ALL_LINEAR,),
        description="names of linear layers, such as q_proj; all-linear: all except the head, as in QLoRA",
        json_schema_extra=lambda schema: schema.update(type=["array", "string"]),
    )

    @field_validator("dropout")
    @classmethod
    def _none(cls, value: float) -> float:
        if value != 0:
            raise ValueError(
                f"{value:g} is not 0: with dropout, the policy that is trained differs from the one that is scored; "
                "use a smaller r or learning rate to regularize"
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
            raise ValueError(f"expected {ALL_LINEAR}, or a list of names of linear layers")
        return value


class ModelSource(Component):
    """Base class of model sources: a subclass defines `name` and both loaders.

    The hook `register_models` returns the class. A recipe names it under `model`. It loads a Hugging Face model and
    tokenizer, which are checked, scored and exported like any other.
    """

    needs_runs: ClassVar[tuple[str, ...]] = ()
    """Fields that name a recipe, whose run is made first. They are not part of `fingerprint`."""

    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="data type of the weights; that of products is train.precision"
    )
    lora: Lora | None = Field(None, description="train low-rank adapters instead of the weights: {r: 16, alpha: 32}")
    quantize: Literal["4bit", "8bit"] | None = Field(
        None, description="keep the frozen weights in 4 or 8 bits (bitsandbytes) under the adapters: QLoRA"
    )

    @model_validator(mode="after")
    def _nothing_to_train(self) -> ModelSource:
        if self.quantize and self.lora is None:
            raise ValueError("quantized weights can't be trained: quantize needs lora, for example lora: {r: 16}")
        return self

    def load_tokenizer(self, train_rows: Iterable[Row]) -> PreTrainedTokenizerBase:
        """Return the tokenizer.

        Args:
            train_rows: the training rows, for a tokenizer that is trained on them.

        Raises:
            UserError: the tokenizer cannot be loaded.
        """
        raise NotImplementedError(f"{type(self).__name__} has no load_tokenizer")

    def load_model(self, tokenizer: PreTrainedTokenizerBase, seed: int, head: str) -> PreTrainedModel:
        """Return the model, which must depend only on the fields and the seed.

        Args:
            tokenizer: the tokenizer from `load_tokenizer`.
            seed: the seed of weights that are initialized at random.
            head: `language_model`, or `scalar` for a reward model, which has one label and a linear layer `score`.

        Raises:
            UserError: the model cannot be loaded.
        """
        raise NotImplementedError(f"{type(self).__name__} has no load_model")

    def fingerprint(self) -> Any:
        """Return everything that the weights depend on, as plain JSON values.

        The default is the fields without those marked `NoEffect`. A source that reads files must add their contents:
        `alignzoo.content_digest(path)`.
        """
        left_out = self.fields_without_effect() | dict.fromkeys((*ON_TOP, *self.needs_runs), True)
        return {"name": self.name, **self.model_dump(mode="json", exclude=left_out)}

    @property
    def origin(self) -> tuple[str, str | None] | None:
        """The folder or hub id where `from_pretrained` finds the weights, and its revision.

        Adapters name this origin. It is None if the weights were computed; they are then saved beside the adapters.
        """
        return None

    @property
    def runs_code(self) -> bool:
        """True if Python code that comes with the weights may run.

        This holds here and in runs that start from this one.
        """
        return False

    def __str__(self) -> str:
        fields = ", ".join(
            f"{key}={value}" for key, value in self.model_dump(exclude_defaults=True, exclude=set(ON_TOP)).items()
        )
        return f"{self.name}({fields})"
