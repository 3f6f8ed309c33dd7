"""Load tokenizers from a folder or the hub, or train them on the recipe's rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alignzoo.core.door import in_child
from alignzoo.core.errors import UserError
from alignzoo.data.boundary import place_of
from alignzoo.data.trees import TokenIds
from alignzoo.interfaces.rows import Row, words
from alignzoo.models.from_pretrained import call_from_pretrained

if TYPE_CHECKING:
    from alignzoo.interfaces.model_source import ModelSource
    from alignzoo.models.sources.transformers import TokenizerConfig

SECONDS, TOKENS_A_SECOND = 8.0, 5_000
"""Processor time to decode: so much, and more for more tokens."""
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
    """Load a tokenizer from a folder or the hub.

    `trust` allows running Python code that comes with it.
    """
    return call_from_pretrained(AutoTokenizer, source, revision, "tokenizer", trust)


def decode(
    tokenizer: PreTrainedTokenizerBase, sequences: Iterable[Sequence[int] | TokenIds], skip_special_tokens: bool = False
) -> list[str]:
    """Return the text of each list of ids.

    A decoder can expand a few ids to a huge text, so it runs in a child process with limits.

    Raises:
        BadFile: It fails, or takes too long or too much memory.
    """
    lists = [list(map(int, ids)) for ids in sequences]

    def texts() -> list[str]:
        return [str(tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)) for ids in lists]

    seconds = SECONDS + sum(map(len, lists)) / TOKENS_A_SECOND
    found: list[str] = in_child(
        place_of(tokenizer), texts, what="the tokenizer", doing="decoding tokens", seconds=seconds
    )
    return found


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
