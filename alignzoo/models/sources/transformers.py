"""Models of the Hugging Face library: a run's, a folder's, the hub's, or one from nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alignzoo.core.digests import content_digest
from alignzoo.interfaces.model_source import ON_TOP, ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.interfaces.rows import Row


class TokenizerConfig(BaseModel):
    """A tokenizer trained on the run's own training rows: for models that start from nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Literal["bpe", "bytes"] = Field("bpe", description="byte-level BPE, or plain bytes (no training)")
    vocab_size: int = Field(2048, ge=260, description="entries, special tokens included (bpe)")


class Transformers(ModelSource):
    """Another recipe's run (`from`), pretrained weights (`path`), or an architecture with random weights (`config`).

    What a recipe's `model` is when it names no source.
    """

    name = "transformers"
    needs_runs = ("from",)

    from_: str | None = Field(None, alias="from", description="a recipe; its run is made first, once, and reused")
    path: str | None = Field(None, description="a local folder or a hub id, as for from_pretrained")
    revision: str | None = Field(None, description="hub revision")
    config: dict[str, Any] | None = Field(None, description="architecture from scratch: model_type and its fields")
    tokenizer: str | TokenizerConfig | None = Field(
        None, description="folder, hub id, or {train: bpe}; else the model's"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with the weights or the tokenizer, with all your rights"
    )

    @model_validator(mode="after")
    def _one_start(self) -> Transformers:
        given = [name for name, value in (("from", self.from_), ("path", self.path), ("config", self.config)) if value]
        if len(given) != 1:
            raise ValueError(f"say exactly one of from, path, config (got {', '.join(given) or 'none'})")
        if self.config is not None and self.tokenizer is None:
            raise ValueError("a model from scratch needs a tokenizer, for example {train: bpe}")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("config needs a model_type, for example llama")
        if self.config is not None and self.quantize:
            raise ValueError("quantize is for weights that are read, and a config makes random ones")
        return self

    def load_tokenizer(self, train_rows: Iterable[Row]) -> PreTrainedTokenizerBase:
        """Trained on the rows, or from a folder or the hub."""
        from alignzoo.models import tokenizers

        if isinstance(self.tokenizer, TokenizerConfig):
            return tokenizers.train_tokenizer(self.tokenizer, train_rows)
        revision = None if self.tokenizer else self.revision
        return tokenizers.pretrained_tokenizer(self.tokenizer or str(self.path), revision, self.runs_code)

    def load_model(self, tokenizer: PreTrainedTokenizerBase, seed: int, head: str) -> PreTrainedModel:
        """With random weights, or from a folder or the hub."""
        from alignzoo.models import loading

        if self.config is not None:
            return loading.from_config(self.config, tokenizer, seed, head, self.dtype)
        return loading.pretrained(str(self.path), self.revision, seed, head, self.dtype, self.runs_code, self.quantize)

    @property
    def origin(self) -> tuple[str, str | None] | None:
        """`path` and `revision`."""
        return (self.path, self.revision) if self.path else None

    def fingerprint(self) -> Any:
        """The fields, with the contents of local folders; a hub id stands for itself (the revision says which)."""
        values = self.model_dump(mode="json", by_alias=True, exclude={"from_", *ON_TOP})
        for key in ("path", "tokenizer"):
            if isinstance(values[key], str) and Path(values[key]).is_dir():
                values[key] = content_digest(Path(values[key]))
        if not self.trust_remote_code:  # it changes what is loaded only where it is on
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
