"""All rows of a recipe as token trees: its data, and its evaluation sets."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from alignzoo.data.row_reader import RowReader, of_set
from alignzoo.data.token_store import Log, TokenizedDataset, TokenStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.resolved import Resolved

OF_A_SET = (
    "source", "read", "further_pairs", "used", "duplicates", "deduplicated", "skipped", "left_out", "skipped_by_reason",
    "truncated_prompts", "truncated_completions", "lengths", "skipped_rows", "sources",
)  # fmt: skip
"""What data.json has of an evaluation set, as of the data themselves."""


def tokenized_dataset(
    resolved: Resolved, tokenizer: PreTrainedTokenizerBase, log: Log, today: date | None = None,
    reader: RowReader | None = None,
) -> TokenizedDataset:  # fmt: skip
    """Return the rows of a recipe and of its evaluation sets from the token store.

    Rows that the store lacks are tokenized and stored.

    Args:
        resolved: The recipe.
        tokenizer: The policy's tokenizer.
        log: Shows one line to the user.
        today: Date that a chat template may format: that of the run's first start. None means the current date.
        reader: Reader of the recipe's data, where one has read it already.

    Raises:
        UserError: The rows can't be read or tokenized, or the data changed since their fingerprint was computed.
    """
    dataset = TokenStore(resolved, tokenizer, today).get(reader or RowReader(resolved.recipe.data), log)
    reports: dict[str, dict[str, Any]] = {}
    for name, source in resolved.recipe.eval.data.items():
        with of_set(name):
            found = TokenStore(resolved, tokenizer, today, name).get(RowReader(source, evaluation=True), log)
        dataset.evaluation[name] = found.held_out
        overlap = found.content.also_in(dataset.content)
        reports[name] = {key: found.report[key] for key in OF_A_SET if key in found.report} | {"overlap": overlap}
    dataset.report |= {"evaluation": reports} if reports else {}
    return dataset
