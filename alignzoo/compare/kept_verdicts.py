"""Values that a judge has given, kept on disk so that it is never asked again.

The folder `judged/<key>/` of the cache has a file for each portion of questions: JSON of question -> value. The key is
that of the judge's fields, address and code.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from alignzoo.core.digests import digest
from alignzoo.core.door import BadFile, read_json
from alignzoo.core.errors import NotWritten
from alignzoo.core.files import write_json
from alignzoo.core.paths import cache_root


class KeptVerdicts:
    """The values of one judge by question, which can be deleted at the cost of asking again.

    Args:
        key: Digest of everything about the judge that a value depends on.
    """

    def __init__(self, key: str) -> None:
        self._folder = cache_root() / "judged" / key
        self._values: dict[str, float] = {}
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            with suppress(BadFile):  # a damaged file costs its own questions
                self._values |= read_json(path, dict[str, float])

    @staticmethod
    def question(*parts: Any) -> str:
        """Return the key of a question: 32 hex digits of its JSON values."""
        return digest(list(parts))

    def get(self, question: str) -> float | None:
        """Return a value, or None where there is none yet."""
        return self._values.get(question)

    def add(self, values: Mapping[str, float | None]) -> None:
        """Keep the values of a portion at once.

        A question without a verdict is asked again next time.
        """
        known = {question: value for question, value in values.items() if value is not None}
        if known:
            self._values |= known
            with suppress(NotWritten):  # a full disk costs no verdict now
                write_json(self._folder / f"{digest(sorted(known))}.json", known)
