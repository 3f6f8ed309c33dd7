"""Load a tokenizer from a folder or the hub, or train one on the recipe's rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from alignzoo.core.console import warn_once
from alignzoo.core.errors import UserError, first_line
from alignzoo.interfaces.rows import Row, words

if TYPE_CHECKING:
    from alignzoo.interfaces.model_source import ModelSource
    from alignzoo.models.sources.transformers import TokenizerConfig

END, PAD = "<|endoftext|>", "<|pad|>"


def load_tokenizer(
    source: ModelSource, train_rows: Iterable[Row], start: Path | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a recipe's model node; `start` is the policy folder of the run it starts from."""
    tokenizer = (
        source.load_tokenizer(train_rows) if start is None else pretrained_tokenizer(str(start), None, source.runs_code)
    )
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of '{start or source}' has no end-of-sequence token", where="model.tokenizer")
    return tokenizer


def pretrained_tokenizer(source: str, revision: str | None = None, trust: bool = False) -> PreTrainedTokenizerBase:
    """From a folder or the hub; `trust`: code that comes with it may run."""
    return _from_pretrained(AutoTokenizer, source, revision, "tokenizer", trust)


def train_tokenizer(config: TokenizerConfig, rows: Iterable[Row]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer for a model from scratch. The same rows in the same order give the same tokenizer."""
    size = config.vocab_size if config.train == "bpe" else 256 + 2
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END, PAD], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(_texts(rows), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, bos_token=END)


def _texts(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        for text in (row.prompt, *(completion.text for completion in row.completions)):
            if isinstance(text, str):
                yield text
            else:
                yield from map(words, text)


def _from_pretrained(
    auto: Any, source: str | None, revision: str | None, what: str, trust: bool, **options: Any
) -> Any:
    if trust:
        warn_once(f"Python code that comes with '{source}' is run, should it have any: model.trust_remote_code is true")
    try:
        return auto.from_pretrained(source, revision=revision, trust_remote_code=trust, **options)
    except (OSError, ValueError) as error:
        raise not_loaded(what, str(source), "model", error) from error


def not_loaded(what: str, source: str, where: str, error: Exception) -> UserError:
    """Why from_pretrained has failed, in words that help."""
    text = str(error)
    if "trust_remote_code" in text:
        return UserError(
            f"'{source}' can't be loaded without Python code that comes with it", where=where,
            hint="read that code first; model.trust_remote_code: true in the recipe then runs it with all your rights",
        )  # fmt: skip
    pickled = pickled_weights(Path(source))
    if pickled or "safetensors" in text:
        return UserError(
            f"'{source}' has no weights in safetensors{f', only {pickled}' if pickled else ''}", where=where,
            expected="model.safetensors: opening a pickled file can run any code",
            hint="where you trust the file, convert it once: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )  # fmt: skip
    return UserError(
        f"no {what} could be loaded from '{source}': {first_line(error)}", where=where,
        expected="a local folder in Hugging Face layout, or a hub id with the hub in reach",
    )  # fmt: skip


def pickled_weights(folder: Path) -> str:
    """The name of a pickled file of weights in a folder that has none in safetensors, or ""."""
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return ""
    found = sorted(path.name for end in ("bin", "pt", "pth", "ckpt", "pkl") for path in folder.glob(f"*.{end}"))
    return found[0] if found else ""
