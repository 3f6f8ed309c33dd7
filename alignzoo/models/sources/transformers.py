"""Model source for Hugging Face transformers: a run, a folder, the hub, or random weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from alignzoo.core.digests import content_digest
from alignzoo.interfaces.component import Strict
from alignzoo.interfaces.model_source import ON_TOP, ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.interfaces.rows import Row


class TokenizerConfig(Strict):
    """Settings of a tokenizer trained on the run's training rows, for random weights."""

    train: Literal["bpe", "bytes"] = Field("bpe", description="byte-level BPE, or plain bytes (no training)")
    vocab_size: int = Field(2048, ge=260, description="entries, special tokens included (bpe)")


class Transformers(ModelSource):
    """Another recipe's run (`from`), pretrained (`path`) or random (`config`) weights.

    The default source of a recipe's `model`.
    """

    name = "transformers"
    needs_runs = ("from",)

    from_: str | None = Field(None, alias="from", description="a recipe whose run is trained first, once, and reused")
    path: str | None = Field(None, description="local folder or hub id, as for from_pretrained")
    revision: str | None = Field(None, description="hub revision")
    config: dict[str, Any] | None = Field(
        None, description="architecture with random weights: model_type and its settings"
    )
    tokenizer: str | TokenizerConfig | None = Field(
        None, description="folder, hub id, or {train: bpe}; by default the model's"
    )
    chat_template: str | None = Field(
        None, description="chat template of a tokenizer that has none: chatml, llama3, zephyr, or a jinja file"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with the weights or the tokenizer, with all your permissions"
    )

    @model_validator(mode="after")
    def _one_start(self) -> Transformers:
        given = [name for name, value in (("from", self.from_), ("path", self.path), ("config", self.config)) if value]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of from, path, config (got {', '.join(given) or 'none'})")
        if self.from_ and self.chat_template:
            raise ValueError("chat_template belongs into the recipe that `from` names, whose tokenizer is used")
        if self.config is not None and self.tokenizer is None:
            raise ValueError("a model with random weights needs a tokenizer, for example {train: bpe}")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("config needs a model_type, for example llama")
        if self.config is not None and self.quantize:
            raise ValueError("quantize needs pretrained weights, and config creates random ones")
        if self.config is not None and self.lora:  # frozen noise under the adapters: a run that learns next to nothing
            raise ValueError(
                "lora needs pretrained weights, and config creates random ones, which stay as they are under adapters: "
                "use model.path, or train them whole and name that recipe in model.from"
            )
        return self

    def load_tokenizer(self, train_rows: Iterable[Row]) -> PreTrainedTokenizerBase:
        """Train a tokenizer on the rows, or load it from a folder or the hub."""
        from alignzoo.models import tokenizers
        from alignzoo.models.chat_template_files import use_template

        if isinstance(self.tokenizer, TokenizerConfig):
            tokenizer: PreTrainedTokenizerBase = tokenizers.train_tokenizer(self.tokenizer, train_rows)
        else:
            revision = None if self.tokenizer else self.revision
            tokenizer = tokenizers.pretrained_tokenizer(self.tokenizer or str(self.path), revision, self.runs_code)
        if self.chat_template:
            use_template(tokenizer, self.chat_template)
        return tokenizer

    def load_model(self, tokenizer: PreTrainedTokenizerBase, seed: int, head: str) -> PreTrainedModel:
        """Create a model with random weights, or load it from a folder or the hub."""
        from alignzoo.models import loading
        from alignzoo.models.chat_template_files import make_room

        if self.config is not None:
            return loading.from_config(self.config, tokenizer, seed, head, self.dtype)
        model = loading.pretrained(
            str(self.path), self.revision, seed, head, self.dtype, self.runs_code, self.quantize
        )  # fmt: skip
        if self.chat_template:
            make_room(model, tokenizer, loading.vocabulary_size(tokenizer), seed)
        return model

    @property
    def origin(self) -> tuple[str, str | None] | None:
        """`path` and `revision`, or None without a path."""
        return (self.path, self.revision) if self.path else None

    def fingerprint(self) -> Any:
        """Return the fields, with digests of the contents of local folders.

        A hub id is identified by its revision.
        """
        values = self.model_dump(mode="json", by_alias=True, exclude={"from_", *ON_TOP})
        for key in ("path", "tokenizer"):
            if isinstance(values[key], str) and Path(values[key]).is_dir():
                values[key] = content_digest(Path(values[key]))
        if self.chat_template:
            from alignzoo.models.chat_template_files import read_template

            values["chat_template"] = asdict(read_template(self.chat_template))
        else:
            del values["chat_template"]
        if not self.trust_remote_code:  # False has the same fingerprint as recipes without the key
            del values["trust_remote_code"]
        return values

    @property
    def runs_code(self) -> bool:
        """`trust_remote_code`."""
        return self.trust_remote_code

    def __str__(self) -> str:
        start = self.path or f"a {(self.config or {}).get('model_type')} from scratch"
        if isinstance(self.tokenizer, TokenizerConfig):
            start += f", with a {self.tokenizer.train} tokenizer of its own"
        return start
