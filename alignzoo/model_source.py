"""What a model source is: it obtains a tokenizer and the model that training starts from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.data.rows import Row


class ModelSource(BaseModel):
    """Base class: subclass it, give it a `name` and the two loaders, and return it from `register_models`.

    A recipe names it under `model`. What it loads is a Hugging Face model and tokenizer: they are checked, scored and
    exported like any other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    name: ClassVar[str]

    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the weights")

    def load_tokenizer(self, train_rows: Iterable[Row]) -> PreTrainedTokenizerBase:
        """The tokenizer; `train_rows` are there for one that is trained. Raises UserError when it can't be had."""
        raise NotImplementedError(f"{type(self).__name__} has no load_tokenizer")

    def load_model(self, tokenizer: PreTrainedTokenizerBase, seed: int, head: str) -> PreTrainedModel:
        """The model, a function of the fields and the seed alone; `head` is `language_model`, or `scalar` for a reward
        model: one label, a linear `score`. Raises UserError when it can't be had."""
        raise NotImplementedError(f"{type(self).__name__} has no load_model")

    def fingerprint(self) -> Any:
        """Everything that the weights depend on, as plain JSON values: the fields, and the contents of what they name.

        `alignzoo.content_of(path)` digests the files of a folder.
        """
        return {"name": self.name, **self.model_dump(mode="json")}

    @property
    def runs_code(self) -> bool:
        """Whether Python code that comes with the weights may be run, by this run and by those that start from it."""
        return False

    @property
    def start(self) -> str | None:
        """The recipe whose run the policy starts from, when it is not a source of its own."""
        return None

    def __str__(self) -> str:
        fields = ", ".join(f"{key}={value}" for key, value in self.model_dump(exclude_defaults=True).items())
        return f"{self.name}({fields})"
