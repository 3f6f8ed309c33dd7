"""Standard output and error, with secrets redacted and control characters escaped.

They raise no error when nobody reads them. Text goes through `SafeStream`, whoever prints it: click, a warning, a
library, a traceback. rich writes its colors through `SafeStream.rich_proxied_file`; `alignzoo.core.console.Console`
escapes the texts first.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from alignzoo.core.redaction import printable, redact

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)
"""Errors of a stream whose reader or terminal is gone. Nobody waits for the output, so it is no failure."""
_BAR = re.compile(r"\r|\n*(\x1b\[A)+\Z")
"""What a library's progress bar writes: a return to the start of the line, and moves to the bars above."""


class SafeStream:
    """A text stream whose writes always succeed.

    Text that can't be encoded is escaped, and text that can't be written is dropped. `words` is as in `redact`.
    """

    def __init__(self, stream: Any, words: bool = True) -> None:
        self._stream, self.words = stream, words
        self.error: OSError | None = None
        """The first error other than a reader that has left."""

    def write(self, text: str) -> int:
        """Write a text, redacted and escaped, apart from what a progress bar starts with."""
        bar = _BAR.match(text)
        start = bar[0] if bar else ""
        self.put(start + printable(redact(text[len(start) :], self.words)))
        return len(text)

    def put(self, text: str) -> None:
        """Write a text as it is, or drop it."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._lose(error)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, redacted and escaped."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, or drop what can't be written."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        if self.error is None and isinstance(error, OSError) and error.errno not in GONE:
            self.error = error

    @property
    def rich_proxied_file(self) -> _Styled:
        """The stream for a rich console, which writes escape sequences of its own."""
        return _Styled(self)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "detach"):  # click would write there, past redaction, where the encoding is ASCII
            raise AttributeError(name)
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


class _Styled:
    """A stream that keeps escape sequences, for texts escaped before they were styled."""

    def __init__(self, stream: SafeStream) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.put(redact(text, self._stream.words))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def styled(stream: Any) -> Any:
    """Return the stream for a rich console on any text stream."""
    if isinstance(stream, _Styled):
        return stream
    return (stream if isinstance(stream, SafeStream) else SafeStream(stream)).rich_proxied_file


def install_streams() -> None:
    """Replace sys.stdout and sys.stderr by safe streams.

    Closed standard handles are replaced by the null device. A closed handle would become the next file that is opened,
    and receive what libraries print.
    """
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free handle, which is this one
    # Python has None for a handle that was closed when it started.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    nothing = open(os.devnull, "w", encoding="utf-8")
    # Programs read stdout.
    sys.stdout, sys.stderr = SafeStream(sys.stdout or nothing, words=False), SafeStream(sys.stderr or nothing)


def close_streams(code: int) -> int:
    """Flush the streams and return the exit code.

    It is 1 in place of 0 when results could not be written.
    """
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is not None:
        print(f"error: the output could not be written: {os.strerror(error.errno).lower()}", file=sys.stderr)
    sys.stderr.flush()
    return code or int(error is not None)
