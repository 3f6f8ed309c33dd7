"""IMDb reviews as labeled completions: the first words are the prompt, the rest is the completion."""

from collections.abc import Mapping
from typing import Any

from alignzoo import Completion, Field, Format, Row, Skipped, UserError, hookimpl


class IMDb(Format):
    """Movie reviews, `text` with a `label` (1 positive, 0 negative), as unpaired data.

    Source: Maas et al. 2011, "Learning word vectors for sentiment analysis". Prompts are the beginnings of reviews, as
    in the DPO paper (Rafailov et al. 2023, arXiv:2305.18290, section 6: prefixes of 2 to 8 tokens).
    """

    name = "imdb"

    prompt_words: int = Field(4, ge=1, description="number of words in the prompt")
    words: int = Field(64, ge=2, description="maximum number of words in a review, including the prompt")

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """Return the row of one review, with spaces for its line breaks (`<br />` in the files)."""
        if not isinstance(record.get("text"), str):
            raise UserError("no text field 'text'", where=where, expected="text and label")
        if record.get("label") not in (0, 1):
            raise UserError(f"label is {record.get('label')!r}", where=where, expected="1 (positive) or 0 (negative)")
        words = record["text"].replace("<br />", " ").split()[: self.words]
        prompt, rest = " ".join(words[: self.prompt_words]), " ".join(words[self.prompt_words :])
        if not rest:
            return Skipped(id, "empty completion")
        liked = Completion(f" {rest}", columns={"desirable": float(record["label"])})
        return Row(id, prompt, (liked,), group=prompt)


@hookimpl
def register_formats():
    return [IMDb]
