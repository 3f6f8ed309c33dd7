"""Token ids of whole texts, and how many of them lie in the beginning of each text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from unicodedata import normalize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]
FORMS: tuple[Literal["NFC", "NFKC"], ...] = ("NFC", "NFKC")
MISSES = 8
"""Tokens after which a longer beginning is given up: a character takes at most so many that decode to none alone."""


class Cut(NamedTuple):
    """The first `tokens` ids lie in a text's beginning entirely; `spans`: the next one lies in it in part."""

    tokens: int
    spans: bool


class Reader:
    """Tokenizes texts as the tokenizer does, a list at a time, and cuts their ids.

    BOS and EOS are the tokenizer's own (`special`) or none, and never double a BOS or EOS that the text has already.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = _untrimmed(tokenizer)
        whole, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        self.added = len(whole) - len(bare)
        """Special tokens around a text; the suffix is what stands behind the text's own."""
        self.opens = bool(self.added) and whole[:1] == [tokenizer.bos_token_id]
        self.closes = bool(self.added) and whole[len(whole) - 1 :] == [tokenizer.eos_token_id]
        front = next((n for n in range(self.added + 1) if whole[n : n + len(bare)] == bare), 0)
        self.suffix = self.added - front

    def read(self, texts: Sequence[str], cuts: Sequence[Sequence[int]], special: bool) -> list[tuple[Ids, list[Cut]]]:
        """The ids of each text, and where they are cut by each number of characters in `cuts`."""
        if not texts:
            return []
        batch = self.tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
        found = []
        for n, (text, ids, places) in enumerate(zip(texts, batch["input_ids"], cuts, strict=True)):
            encoding = batch.encodings[n] if batch.encodings else None
            own = [
                _by_offsets(encoding, len(text), place) if encoding is not None and not _composes(text, place)
                else self._by_decoding(text, ids, place, special)
                for place in places
            ]  # fmt: skip
            ids, dropped = self.once(ids) if special else (ids, 0)
            found.append((ids, [Cut(max(0, cut.tokens - dropped), cut.spans) for cut in own] if dropped else own))
        return found

    def once(self, ids: Ids) -> tuple[Ids, int]:
        """The ids of a text with special tokens, without a doubled BOS or EOS; how many were taken from the front."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        first = int(self.opens and ids[:2] == [bos, bos])
        last = len(ids) - int(self.closes and len(ids) - first > 1 and ids[-2:] == [eos, eos])
        return ids[first:last] if first or last < len(ids) else ids, first

    def _by_decoding(self, text: str, ids: Ids, place: int, special: bool) -> Cut:
        """Cut ids without usable offsets: what both texts begin with, and what decodes to no more than it."""
        alone = self.tokenizer(text[:place], add_special_tokens=special)["input_ids"]
        alone = alone[: len(alone) - self.suffix] if special else alone
        best = common([ids, alone], len(alone))
        if best == len(alone):
            return Cut(best, False)
        target, misses, at = self._decoded(alone), 0, best
        while misses < MISSES and at < len(ids):
            at += 1
            fits = target.startswith(self._decoded(ids[:at]))
            best, misses = (at, 0) if fits else (best, misses + 1)
        return Cut(best, self._decoded(ids[:best]) != target)

    def _decoded(self, ids: Ids) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def common(several: Sequence[Ids], most: int) -> int:
    """With how many equal ids all of them begin, at most so many."""
    first, *others = several
    if all(other[:most] == first[:most] for other in others):
        return min(most, *map(len, several))
    return next(n for n in range(most) if any(other[n : n + 1] != first[n : n + 1] for other in others))


def _by_offsets(encoding: Any, size: int, place: int) -> Cut:
    at = encoding.char_to_token(place) if place < size else None
    if at is not None:
        return Cut(at, encoding.token_to_chars(at)[0] < place)
    # No token holds this character (a tokenizer may drop white space), or the text ends here.
    offsets, own = encoding.offsets, encoding.sequence_ids
    ends = [n for n, (_, end) in enumerate(offsets) if own[n] is not None and end > place]
    if ends:
        return Cut(ends[0], offsets[ends[0]][0] < place)
    return Cut(1 + max((n for n, sequence in enumerate(own) if sequence is not None), default=-1), False)


def _composes(text: str, place: int) -> bool:
    """True where Unicode normalization joins the character here with what is before it: offsets then leave it out."""
    if text[place : place + 1] < "\u0300":  # nothing below composes with a character before it
        return False
    before, after = text[max(0, place - 8) : place], text[place : place + 8]
    return any(normalize(form, before + after) != normalize(form, before) + normalize(form, after) for form in FORMS)


def _untrimmed(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, or a copy of it whose offsets include the white space in a token: the ids are the same."""
    post = tokenizer.backend_tokenizer.post_processor if tokenizer.is_fast else None
    state = b"" if post is None else post.__getstate__()
    if post is None or b'"trim_offsets":true' not in state:
        return tokenizer
    copied, other = copy.deepcopy(tokenizer), copy.deepcopy(post)
    other.__setstate__(state.replace(b'"trim_offsets":true', b'"trim_offsets":false'))
    copied.backend_tokenizer.post_processor = other
    return copied
