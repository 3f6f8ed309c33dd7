"""Parse the values of a JSON text while it is read.

Memory does not grow with the text.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from alignzoo.core.errors import UserError

LONGEST_VALUE = 64_000_000
"""Limit of one line, or one value of an array, in bytes or characters."""
PIECE = 2**20
_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
_NEAR_END = 12
"""Characters at the end of a text where an error may come from a literal, a number or an escape that is cut."""


def too_long(where: str) -> UserError:
    """Return the error for a line or a value over the limit."""
    return UserError(
        f"a line or a value of more than {LONGEST_VALUE // 10**6} MB", where=where,
        expected="JSON lines, one record in each line",
    )  # fmt: skip


class JsonStream:
    """A JSON text that is read in pieces.

    Args:
        file: Its name, for errors.
        raw: The file.
        first: Bytes that were read before.
        line: The number of the line with which the text begins.
    """

    def __init__(self, file: Path, raw: BinaryIO, first: bytes = b"", line: int = 1) -> None:
        self.file, self._raw = file, raw
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._decoded = 0
        self._text, self._at = self._decode(first), 0
        self._line, self._column = line, 0
        """Place of the text's first character: number of the line, and characters before it in that line."""

    def next(self) -> str:
        """Skip white space, and return the next character without taking it, "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def value(self) -> Any:
        """Take one value. Raises UserError with file and line for text that is no JSON."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _NEAR_END
                if not (cut and self._more()):
                    raise self._error(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
                raise UserError(f"invalid JSON: {error}", where=str(self.file)) from None
            else:
                if end < len(self._text) or not self._more():  # a number may go on in the next piece
                    self._at = end
                    return value

    def items(self) -> Iterator[Any]:
        """Take an array, and yield its values."""
        self._at += 1
        if self.next() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self.next() == "]":
                self._at += 1
                return
            if self.next() != ",":
                raise self._error("Expecting ',' delimiter", self._at)
            self._at += 1
            self.next()

    def end(self) -> None:
        """Raise UserError if anything but white space is left."""
        if self.next():
            raise self._error("Extra data", self._at)

    def _error(self, what: str, position: int) -> UserError:
        before = self._text.count("\n", 0, position)
        column = position - self._text.rfind("\n", 0, position) + (0 if before else self._column)
        where = f"{self.file}:{self._line + before}"
        return UserError(f"not JSON: {what} at column {column}", where=where, expected="JSON")

    def _more(self) -> bool:
        """Drop what is taken, and read at least as much as is left; False at the end of the file."""
        taken, rest = self._text[: self._at], self._text[self._at :]
        if len(rest) > LONGEST_VALUE:
            raise too_long(f"{self.file}:{self._line + taken.count(chr(10))}")
        new = self._raw.read(max(PIECE, len(rest)))
        if not new:
            self._decode(b"", final=True)
            return False
        lines = taken.count("\n")
        self._line += lines
        self._column = len(taken) - taken.rfind("\n") - 1 + (0 if lines else self._column)
        self._text, self._at = rest + self._decode(new), 0
        return True

    def _decode(self, raw: bytes, final: bool = False) -> str:
        try:
            text = self._decoder.decode(raw, final)
        except UnicodeDecodeError as error:
            raise UserError(f"byte {self._decoded + error.start} is not UTF-8", where=str(self.file)) from None
        self._decoded += len(raw)
        return text
