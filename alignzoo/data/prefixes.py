"""Prompts that are the first tokens of a text (`data.prefix_tokens`).

The number of tokens depends on the row's id and on a seed, so that it is the same in every recipe that reads the data.
The group of a row stays that of the whole text: splits and ranges keep a text and its prefix together.
"""

from __future__ import annotations

from dataclasses import replace

from alignzoo.core.errors import UserError
from alignzoo.data.hashing import uniform_hash
from alignzoo.interfaces.data_source import PrefixTokens
from alignzoo.interfaces.rows import Row


def as_prefix(row: Row, config: PrefixTokens) -> Row:
    """Return the prompt alone of a row, marked to be cut to its first tokens.

    Of a text for SFT, which has no prompt, it is the text. The row's completions are left out: none of them answers a
    beginning of the prompt.

    Raises:
        UserError: The row is a chat.
    """
    text = row.prompt
    if text == "" and row.is_training_text:
        text = row.completions[0].text
    if not isinstance(text, str):
        raise UserError(
            f"row {row.id} is a chat, and a prefix is of a text", where="data.prefix_tokens",
            expected="rows with a text or a prompt as text",
        )  # fmt: skip
    return replace(row, prompt=text, completions=(), prefix_tokens=number_of_tokens(row.id, config))


def number_of_tokens(id: str, config: PrefixTokens) -> int:
    """Return the number of a row's tokens, from `least` to `most`, each equally likely."""
    return config.least + int(uniform_hash(f"prefix {config.seed} {id}") * (config.most - config.least + 1))
