"""Load tokenizers from a folder or the hub, or train them on the recipe's rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

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
    """Load the policy's tokenizer.

    Args:
        source: The recipe's model source.
        train_rows: Training rows, for a tokenizer that is trained.
        start: Policy folder of the run that this run starts from.

    Raises:
        UserError: The tokenizer can't be loaded, or has no end-of-sequence token.
    """
    tokenizer = (
        source.load_tokenizer(train_rows) if start is None else pretrained_tokenizer(str(start), None, source.runs_code)
    )
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of '{start or source}' has no end-of-sequence token", where="model.tokenizer",
            expected="a tokenizer with eos_token",
        )  # fmt: skip
    return tokenizer


def pretrained_tokenizer(source: str, revision: str | None = None, trust: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the hub. `trust` allows running Python code that comes with it."""
    return call_from_pretrained(AutoTokenizer, source, revision, "tokenizer", trust)


def train_tokenizer(config: TokenizerConfig, rows: Iterable[Row]) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer. The same rows in the same order give the same tokenizer."""
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


def call_from_pretrained(
    auto: Any, source: str | None, revision: str | None, kind: str, trust: bool, **options: Any
) -> Any:
    """Call `from_pretrained` of a transformers class. Errors become UserError; `kind` names the object in them."""
    if trust:
        warn_once(f"model.trust_remote_code is true: Python code that comes with '{source}' will be run")
    try:
        return auto.from_pretrained(source, revision=revision, trust_remote_code=trust, **options)
    except (OSError, ValueError) as error:
        raise loading_error(kind, str(source), "model", error) from error


def loading_error(kind: str, source: str, where: str, error: Exception) -> UserError:
    """Return a UserError that explains why from_pretrained failed and how to fix it."""
    text = str(error)
    if "trust_remote_code" in text:
        return UserError(
            f"'{source}' can't be loaded without running Python code that comes with it", where=where,
            hint="read that code, then set model.trust_remote_code: true, which runs it with all your permissions",
        )  # fmt: skip
    pickled = pickled_weights(Path(source))
    if pickled or "safetensors" in text:
        return UserError(
            f"'{source}' has no weights in safetensors{f', only {pickled}' if pickled else ''}", where=where,
            expected="model.safetensors, because loading a pickled file can run any code",
            hint="if you trust the file, convert it once: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )  # fmt: skip
    return UserError(
        f"no {kind} could be loaded from '{source}': {first_line(text)}", where=where,
        expected="a local folder in Hugging Face layout, or a hub id with the hub reachable",
    )  # fmt: skip


def pickled_weights(folder: Path) -> str:
    """Return the name of a pickled weights file in a folder without safetensors, or ""."""
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return ""
    found = sorted(path.name for end in ("bin", "pt", "pth", "ckpt", "pkl") for path in folder.glob(f"*.{end}"))
    return found[0] if found else ""
