"""Secrets are in no file that we write and in nothing that we print: everything goes through `redact` on its way out.

Three things are secret: the value of every environment variable whose name says token, key, secret or password; what
was handed to `register_secret`; and whatever looks like one (a token of a well-known service, a password in an address,
an authorization header). The module imports the standard library alone, so that every error can be redacted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

STARS = "***"
SHORTEST = 8
"""Characters. What is shorter (`EMPTY`, `none`) stands where no key is needed, and is a word of other texts too."""
_CALLED = re.compile(r"(^|_)(TOKEN|(API|ACCESS|SECRET|PRIVATE|AUTH)?_?KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE)$", re.I)
_LOOKS = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20,}|sk-(?=[\w-]*\d)[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{30,}|"
    r"github_pat_\w{30,}|xox[abprs]-[\w-]{20,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|glpat-[\w-]{20,})"
)
_ADDRESS = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@:'\"]*:[^\s/@'\"]+@")
_HEADER = re.compile(
    r"""(?i)\b((?:proxy-)?authorization['"]?\s*[:=]\s*['"]?(?:(?:bearer|basic|token)\s+)?)[^\s'",}]+"""
)
_remembered: set[str] = set()


def register_secret(secret: str) -> None:
    """Hide this value too, wherever it was read from."""
    _remembered.add(secret)


def redact(text: str) -> str:
    """The text with three stars for every secret."""
    for secret in _values():
        if secret in text:
            text = text.replace(secret, STARS)
    text = _ADDRESS.sub(rf"\1{STARS}@", _LOOKS.sub(STARS, text))
    return _HEADER.sub(rf"\1{STARS}", text)


def holds_secret(text: str) -> bool:
    """Whether `redact` would change it."""
    return redact(text) != text


def printable(text: str) -> str:
    """What a terminal would obey (colors, titles, the cursor's moves) as text; lines and tabs stay."""
    return "".join(c if c in "\n\t" or c.isprintable() or (c.isspace() and c > "\x7f") else _shown(c) for c in text)


def _shown(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _values() -> list[str]:
    """The longest first, each as it is, as in JSON and as in an address."""
    found = {value for name, value in os.environ.items() if _CALLED.search(name)} | _remembered
    secrets = {value for value in map(str.strip, found) if len(value) >= SHORTEST and not os.path.exists(value)}
    forms = {form for value in secrets for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    return sorted(forms, key=len, reverse=True)


class RedactingStream:
    """A text stream with everything hidden that must not be read: what goes to the terminal or to a log goes
    through it, the words of libraries and tracebacks included.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it, without secrets."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)
