"""Redaction of secrets in everything that is printed or written.

Secrets are the values of environment variables named like a token, key, secret or password; the values passed to
`register_secret`; and strings that look like one (tokens of well-known services, passwords in URLs, authorization
headers). The module imports only the standard library, so that every error can be redacted.
"""

from __future__ import annotations

import json
import os
import re
from urllib.parse import quote

STARS = "***"
SHORTEST = 8
"""Characters of a secret. Shorter values (`EMPTY`, `none`) are placeholders and occur as words elsewhere."""
_CALLED = re.compile(r"(^|_)(TOKEN|(API|ACCESS|SECRET|PRIVATE|AUTH)?_?KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE)$", re.I)
# The time of each pattern is linear in the text, whatever the text: what may repeat is either bounded, or taken whole.
_LOOKS = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{30,}|"
    r"github_pat_\w{30,}|xox[abprs]-[\w-]{20,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|glpat-[\w-]{20,})"
)
_DIGIT = re.compile(r"\d")
_ADDRESS = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s/@:'\"]{0,500}:[^\s/@'\"]{1,500}@")
_HEADER = re.compile(
    r"""(?i)\b((?:proxy-)?authorization['"]?\s{0,9}[:=]\s{0,9}['"]?(?:(?:bearer|basic|token)\s{1,9})?)[^\s'",}]+"""
)
_WORDS = re.compile(r"[A-Za-z]{1,15}(?:[ _-][A-Za-z]{1,15})*")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_registered: set[str] = set()


def register_secret(secret: str) -> None:
    """Redact this value too, wherever it occurs."""
    _registered.add(secret)


def redact(text: str, words: bool = True) -> str:
    """Replace every secret in a text by three stars. The time is linear in the text's length.

    Text that a program reads again is never redacted: it would be another text. It is kept free of secrets where it is
    made, as `first_line` does with the messages of errors.

    Args:
        text: The text, for people to read.
        words: Replace the secrets too that are plain words. Without them, a variable such as SORT_KEY=reference does
            not change what a program may read.
    """
    for secret in _values(words):
        if secret in text:
            text = text.replace(secret, STARS)
    text = _ADDRESS.sub(rf"\1{STARS}@", _LOOKS.sub(_stars, text))
    return _HEADER.sub(rf"\1{STARS}", text)


def _stars(found: re.Match[str]) -> str:
    """`sk-` begins words too (`sk-learn-some-more-words`): a key has a digit."""
    return found[0] if found[0].startswith("sk-") and not _DIGIT.search(found[0]) else STARS


def holds_secret(text: str) -> bool:
    """Return True if a text contains a secret that is more than plain words."""
    return redact(text, words=False) != text


def printable(text: str) -> str:
    """Escape control characters and those that reorder text, except line feeds and tabs.

    A terminal would obey them. The escapes are those of JSON, so that JSON that is printed stays valid.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _values(words: bool) -> list[str]:
    """The secrets, longest first: verbatim, escaped as in JSON, and quoted as in a URL."""
    found = {value for name, value in os.environ.items() if _CALLED.search(name)} | _registered
    secrets = {value for value in map(str.strip, found) if len(value) >= SHORTEST and not os.path.exists(value)}
    if not words:
        secrets = {value for value in secrets if not _WORDS.fullmatch(value)}
    forms = {form for value in secrets for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    return sorted(forms, key=len, reverse=True)
