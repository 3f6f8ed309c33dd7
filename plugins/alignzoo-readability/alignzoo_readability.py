"""A judge that scores replies by a readability formula."""

import re
from collections.abc import Sequence

from alignzoo import Judge, hookimpl


class Flesch(Judge):
    """Flesch reading ease: about 100 for very easy text, 0 for very hard text.

    Short sentences of short words score high. Syllables are counted as groups of vowels, minus a silent final e.
    """

    name = "flesch"
    source = "Flesch 1948, 'A new readability yardstick', Journal of Applied Psychology 32"

    def scores(self, prompts: Sequence[object], replies: Sequence[str]) -> list[float]:
        """Return 206.835 - 1.015 words / sentences - 84.6 syllables / words, or NaN without words."""
        return [_reading_ease(reply) for reply in replies]


def _reading_ease(text: str) -> float:
    words = re.findall(r"[A-Za-z']+", text)
    if not words:
        return float("nan")
    sentences = max(1, len(re.findall(r"[.!?]+(?:\s|$)", text)))
    syllables = sum(_syllables(word) for word in words)
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words)


def _syllables(word: str) -> int:
    groups = len(re.findall(r"[aeiouy]+", word.lower()))
    silent = word.lower().endswith("e") and not word.lower().endswith("le") and groups > 1
    return max(1, groups - silent)


@hookimpl
def register_judges():
    return [Flesch]
