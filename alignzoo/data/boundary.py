"""Tokenize whole texts and find which token ids belong to the beginning of each text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from unicodedata import normalize

from alignzoo.core.door import translate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]
NORMAL_FORMS: tuple[Literal["NFC", "NFKC"], ...] = ("NFC", "NFKC")
MAX_MISMATCHES = 8
"""Number of tokens in a row that may fail to extend the beginning before the search stops.

One character can take up to this many tokens that decode to nothing on their own."""


class Cut(NamedTuple):
    """Position in a list of ids that corresponds to a position in the text."""

    tokens: int
    """Number of ids that lie entirely before the position."""
    spans: bool
    """True if the next token starts before the position and ends after it."""


class BoundaryTokenizer:
    """Tokenizer for lists of texts that maps character positions to token positions.

    Special tokens are those that the tokenizer adds itself. A BOS or EOS that the text already contains is not doubled.

    Raises:
        BadFile: The tokenizer fails on one letter.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        with translate(place_of(tokenizer), "the tokenizer"):
            self.tokenizer = _without_trimmed_offsets(tokenizer)
            full, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        self.num_special = len(full) - len(plain)
        """Number of special tokens that the tokenizer adds to a text."""
        self.adds_bos = bool(self.num_special) and full[:1] == [tokenizer.bos_token_id]
        self.adds_eos = bool(self.num_special) and full[len(full) - 1 :] == [tokenizer.eos_token_id]
        starts = range(self.num_special + 1)
        self.num_prefix = next((n for n in starts if full[n : n + len(plain)] == plain), 0)
        self.num_suffix = self.num_special - self.num_prefix

    def tokenize(
        self, texts: Sequence[str], positions: Sequence[Sequence[int]], special: bool
    ) -> list[tuple[Ids, list[Cut]]]:
        """Tokenize texts and cut the ids of each at its character positions.

        Args:
            texts: The texts, tokenized as one list.
            positions: For each text, character positions in it.
            special: Whether the tokenizer adds its special tokens.

        Returns:
            For each text its ids and one `Cut` for each position.
        """
        if not texts:
            return []
        batch = self.tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
        results = []
        for n, (text, ids, own) in enumerate(zip(texts, batch["input_ids"], positions, strict=True)):
            encoding = batch.encodings[n] if batch.encodings else None
            cuts = [
                _cut_by_offsets(encoding, len(text), position)
                if encoding is not None and not _composes(text, position)
                else self._cut_by_decoding(text, ids, position, special)
                for position in own
            ]
            ids, removed = self.deduplicate(ids) if special else (ids, 0)
            if removed:
                cuts = [Cut(max(0, cut.tokens - removed), cut.spans) for cut in cuts]
            results.append((ids, cuts))
        return results

    def deduplicate(self, ids: Ids) -> tuple[Ids, int]:
        """Remove the BOS or EOS that both the text and the tokenizer supplied.

        Returns:
            The ids, and the number of ids removed from the front.
        """
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        first = int(self.adds_bos and ids[:2] == [bos, bos])
        last = len(ids) - int(self.adds_eos and len(ids) - first > 1 and ids[-2:] == [eos, eos])
        return ids[first:last] if first or last < len(ids) else ids, first

    def _cut_by_decoding(self, text: str, ids: Ids, position: int, special: bool) -> Cut:
        """Cut by decoding: extend the common prefix while its text stays within the beginning.

        This needs no offsets.
        """
        beginning = self.tokenizer(text[:position], add_special_tokens=special)["input_ids"]
        beginning = beginning[: len(beginning) - self.num_suffix] if special else beginning
        best = common_prefix_length([ids, beginning], len(beginning))
        if best == len(beginning):
            return Cut(best, False)
        target, mismatches, end = self._decode(beginning), 0, best
        while mismatches < MAX_MISMATCHES and end < len(ids):
            end += 1
            fits = target.startswith(self._decode(ids[:end]))
            best, mismatches = (end, 0) if fits else (best, mismatches + 1)
        return Cut(best, self._decode(ids[:best]) != target)

    def _decode(self, ids: Ids) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def common_prefix_length(sequences: Sequence[Ids], limit: int) -> int:
    """Return the number of equal ids at the start of all sequences, at most `limit`."""
    first, *others = sequences
    if all(other[:limit] == first[:limit] for other in others):
        return min(limit, *map(len, sequences))
    return next(n for n in range(limit) if any(other[n : n + 1] != first[n : n + 1] for other in others))


def _cut_by_offsets(encoding: Any, size: int, position: int) -> Cut:
    token = encoding.char_to_token(position) if position < size else None
    if token is not None:
        return Cut(token, encoding.token_to_chars(token)[0] < position)
    # No token holds this character (a tokenizer may drop white space), or the text ends here.
    offsets, sequence_ids = encoding.offsets, encoding.sequence_ids
    later = [n for n, (_, end) in enumerate(offsets) if sequence_ids[n] is not None and end > position]
    if later:
        return Cut(later[0], offsets[later[0]][0] < position)
    return Cut(1 + max((n for n, sequence in enumerate(sequence_ids) if sequence is not None), default=-1), False)


def place_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return where a tokenizer comes from, for errors."""
    return str(getattr(tokenizer, "name_or_path", "") or "tokenizer")


def _composes(text: str, position: int) -> bool:
    """Return True if Unicode normalization merges the character with preceding ones.

    Such a merge breaks offsets.
    """
    if text[position : position + 1] < "\u0300":  # no lower code point composes with a preceding character
        return False
    before, after = text[max(0, position - 8) : position], text[position : position + 8]
    return any(
        normalize(form, before + after) != normalize(form, before) + normalize(form, after) for form in NORMAL_FORMS
    )


def _without_trimmed_offsets(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer, or a copy whose offsets include a token's white space.

    The ids are the same.
    """
    post = tokenizer.backend_tokenizer.post_processor if tokenizer.is_fast else None
    state = b"" if post is None else post.__getstate__()
    if post is None or b'"trim_offsets":true' not in state:
        return tokenizer
    copied, processor = copy.deepcopy(tokenizer), copy.deepcopy(post)
    processor.__setstate__(state.replace(b'"trim_offsets":true', b'"trim_offsets":false'))
    copied.backend_tokenizer.post_processor = processor
    return copied
