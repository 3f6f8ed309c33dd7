"""Sequence classifiers and reward models of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from alignzoo.core.errors import UserError, nearest
from alignzoo.core.packing import cut_by_width
from alignzoo.interfaces.component import NoEffect
from alignzoo.interfaces.judge import Judge, Prompt
from alignzoo.interfaces.rows import strings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

WHERE = "eval.judges"


class Classifier(Judge):
    """Score replies with a sequence classifier or a reward model.

    A single output is the score. Of several labels one is named, and the score is its log-odds against all others. For
    regression and multi-label problems the named output is the score. `probability` takes the sigmoid of the score.
    """

    name = "classifier"
    source = "reward models: Ouyang et al. 2022 (arXiv:2203.02155), section 3.5"

    path: str = Field(description="folder or hub id, as for from_pretrained; its remote code is never run")
    revision: str | None = Field(None, description="hub revision")
    label: int | str | None = Field(
        None, description="label whose output is the score, by name or index; null: the only one"
    )
    probability: bool = Field(False, description="the score is the label's probability in place of its log-odds")
    prompt: bool = Field(True, description="false: read the reply without its prompt")
    pair: bool = Field(False, description="give prompt and reply as a text pair, as cross-encoders take them")
    eos: bool | None = Field(
        None, description="end plain texts with the end-of-sequence token; null: if the model reads the last token"
    )
    after_turn: bool = Field(
        False, description="keep what the chat template writes after the end of a turn, as TRL's models do"
    )
    max_length: int | None = Field(None, ge=1, description="most tokens of a text, its last ones; null: what fits")
    micro_batch_tokens: Annotated[int, NoEffect] = Field(
        8192, ge=1, description="token slots per batch; changes speed, not scores"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="precision of weights and arithmetic")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if available")

    _loaded: Any = PrivateAttr(None)

    def ready(self) -> None:
        """Check that there is a model with the label, without reading its weights.

        Raises:
            UserError: There is none.
        """
        self._column(self._from_pretrained("AutoConfig"))

    def scores(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> list[float]:
        """Return the output, or the label's log-odds, of each reply, whatever the batches."""
        import torch

        from alignzoo.evaluation.judges.texts import Text, as_text, outputs, read

        model, tokenizer = self._model()
        column = self._column(model.config)
        end = hasattr(model, "score") if self.eos is None else self.eos  # decoders call their head so
        how = {"pair": self.pair, "end": end, "after_turn": self.after_turn}

        def texts() -> list[Text]:
            return [
                as_text(prompt if self.prompt else None, reply, tokenizer, **how)
                for prompt, reply in zip(prompts, replies, strict=True)
            ]

        size = sum(map(len, strings([*prompts, *replies])))
        encoded = read(texts, tokenizer, self._limit(model, tokenizer), size)
        found = [0.0] * len(encoded)
        with torch.no_grad():
            for rows in cut_by_width([len(one["input_ids"]) for one in encoded], self.micro_batch_tokens):
                values = _score(outputs([encoded[row] for row in rows], model), column, model.config)
                values = values.sigmoid() if self.probability else values
                for row, value in zip(rows, values.tolist(), strict=True):
                    found[row] = value
        return found

    def _limit(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
        from alignzoo.models.positions import max_tokens

        known = (self.max_length, max_tokens(model), tokenizer.model_max_length)
        return min(limit for limit in known if limit is not None)

    def _model(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return model and tokenizer, loaded when first needed."""
        if self._loaded is None:
            import torch

            if self.device == "cuda" and not torch.cuda.is_available():
                raise UserError("there is no GPU", where=f"{WHERE}: device", expected="cpu or auto")
            device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
            self.ready()
            options = {"dtype": getattr(torch, self.dtype), "output_loading_info": True}
            model, info = self._from_pretrained("AutoModelForSequenceClassification", **options)
            missing = sorted(info["missing_keys"])
            if missing:  # transformers would initialize them at random and go on
                raise UserError(
                    f"'{self.path}' is not a classifier: its weights lack {', '.join(missing)}", where=f"{WHERE}: path",
                    expected="a sequence classifier or a reward model",
                )  # fmt: skip
            self._loaded = model.to(device).eval(), self._from_pretrained("AutoTokenizer")
        return self._loaded

    def _from_pretrained(self, auto: str, **options: Any) -> Any:
        import transformers

        from alignzoo.models.from_pretrained import call_from_pretrained

        path = Path(self.path).expanduser()
        if not path.is_dir() and (path.is_absolute() or self.path.startswith(".")):
            siblings = [one.name for one in path.parent.iterdir() if one.is_dir()] if path.parent.is_dir() else []
            close = nearest(path.name, siblings)
            raise UserError(f"no such folder: {self.path}", where=f"{WHERE}: path", nearest=close)
        source = str(path) if path.is_dir() else self.path
        if "Model" in auto:
            options["use_safetensors"] = True
        kind = {"AutoConfig": "config", "AutoTokenizer": "tokenizer"}.get(auto, "model")
        return call_from_pretrained(
            getattr(transformers, auto), source, self.revision, kind, False, f"{WHERE}: path", **options
        )

    def _column(self, config: PreTrainedConfig) -> int:
        """Return the index of the label's output."""
        names = {int(place): str(name) for place, name in (config.id2label or {}).items()}
        known = f"one of {', '.join(names.values())}, or an index from 0 to {len(names) - 1}"
        if self.label is None and len(names) == 1:
            return 0
        if self.label is None:
            raise UserError(
                f"'{self.path}' has {len(names)} labels; name the one that is the score", where=f"{WHERE}: label",
                expected=known,
            )  # fmt: skip
        for place, name in names.items():
            if self.label in (place, name):
                return place
        raise UserError(
            f"'{self.path}' has no label {self.label!r}", where=f"{WHERE}: label", expected=known,
            nearest=nearest(str(self.label), names.values()),
        )  # fmt: skip


def _score(outputs: Tensor, column: int, config: PreTrainedConfig) -> Tensor:
    """Return scores (B,) from outputs (B, labels)."""
    independent = config.problem_type in ("regression", "multi_label_classification")
    if outputs.shape[1] == 1 or independent:
        return outputs[:, column]
    others = [place for place in range(outputs.shape[1]) if place != column]
    return outputs[:, column] - outputs[:, others].logsumexp(1)
