"""A chat endpoint that speaks OpenAI's protocol: one question, one answer, asked again where that may help.

The key is read from the environment and goes into one header. It is in no error, no representation and no file.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from alignzoo.core.errors import UserError
from alignzoo.core.redaction import register_secret

LONGEST_WAIT = 120.0
"""Seconds. An endpoint that asks for a longer pause is as good as one that does not answer."""
LONGEST_ANSWER = 10_000_000
"""Bytes."""
PASSING = (408, 409, 425, 429)
"""What another attempt may change; so may whatever is 500 or more."""
_chance = random.Random()  # for pauses alone: nobody else's random numbers move


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask, and how patiently."""

    url: str
    key: str | None = field(repr=False)
    base_url_env: str
    key_env: str | None
    timeout: float
    retries: int
    backoff: float
    """Seconds before the second attempt, twice as many before each one after that."""

    @property
    def place(self) -> str:
        """Scheme, host and port, for people."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def answer(self, body: Mapping[str, Any], stop: threading.Event) -> str:
        """The text of the answer to a chat completion request; `stop` ends a pause between attempts.

        Raises ConnectionError when there is no answer in the end, UserError when the endpoint refuses the request.
        """
        attempt = 0
        while True:
            try:
                return self._content(self._post(json.dumps(body).encode()))
            except _Again as again:
                attempt += 1
                wait = max(again.wait, min(self.backoff * 2 ** (attempt - 1), LONGEST_WAIT) * _chance.uniform(0.8, 1.2))
                if attempt > self.retries or again.wait > LONGEST_WAIT or stop.wait(wait):
                    times = "once" if attempt == 1 else f"{attempt} times"
                    raise ConnectionError(f"the judge at {self.place} {again}; it was asked {times}") from None

    def _post(self, data: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "alignzoo"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url, data, headers, method="POST")
        try:
            with _opener.open(request, timeout=self.timeout) as response:
                return bytes(response.read(LONGEST_ANSWER))
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except urllib.error.URLError as error:
            cause = error.reason if isinstance(error.reason, BaseException) else error
        except (OSError, http.client.HTTPException) as error:
            cause = error
        if isinstance(cause, TimeoutError):
            raise _Again(f"does not answer within {self.timeout:g} s")
        if isinstance(
            cause, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.HTTPException)
        ):
            raise _Again(f"breaks the connection off ({type(cause).__name__})")
        raise ConnectionError(f"the judge at {self.place} can't be reached: {self._line(str(cause))}")

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        try:
            said = error.read(LONGEST_ANSWER).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            said = ""
        status = f"{error.code} {error.reason}"
        if error.code in PASSING or error.code >= 500:
            return _Again(f"answers {self._line(status)}", _seconds(error.headers.get("Retry-After")))
        hint = ""
        if error.code in (401, 403):
            hint = f"the key is read from {self.key_env}" if self.key_env else "no key is sent: key_env is null"
        elif error.code in (301, 302, 303, 307, 308, 404, 405):
            hint = f"the address in {self.base_url_env} is the one that /chat/completions follows; most end in /v1"
        what = f"the judge at {self.place} refuses the question: {self._line(f'{status} {_message(said)}')}"
        return UserError(what, hint=hint)

    def _content(self, answer: bytes) -> str:
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = answer
        if content is None:  # a model that thought until its tokens were used up
            return ""
        if not isinstance(content, str):
            said = self._line(answer.decode(errors="replace")) or "nothing"
            raise ConnectionError(f"the judge at {self.place} answers with no chat completion: {said}")
        return content

    def _line(self, text: str) -> str:
        """What a server says, for an error: one short line without the key, should it have been sent back."""
        text = text.replace(self.key, "***") if self.key else text
        line = " ".join(text.split())
        return line if len(line) <= 200 else line[:200] + "..."


def from_environment(base_url_env: str, key_env: str | None, timeout: float, retries: int, backoff: float) -> Endpoint:
    """The endpoint whose base address and key these environment variables have. Raises UserError naming the variable,
    and never its value: people mix up the two."""
    base = _variable(base_url_env, "the endpoint's address, like http://localhost:8000/v1 or https://api.openai.com/v1")
    try:
        parts = urlsplit(base)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and parts.username is None
    except ValueError:
        good = False
    if not good or not base.isascii() or not base.isprintable() or " " in base:
        raise UserError(f"{base_url_env} is no address", expected="http or https, a host, and no user name in it")
    key = None
    if key_env is not None:
        key = _variable(key_env, "the endpoint's key (any word where it needs none; or key_env: null)")
        if not key.isascii() or not key.isprintable():
            raise UserError(f"{key_env} has characters that no key has", expected="one line of plain ASCII")
    if key is not None:
        register_secret(key)
    url = parts._replace(path=parts.path.rstrip("/") + "/chat/completions", fragment="").geturl()
    return Endpoint(url, key, base_url_env, key_env, timeout, retries, backoff)


def _variable(name: str, expected: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise UserError(f"the environment variable {name} is not set", expected=expected)
    return value


class _Again(Exception):
    """What went wrong may pass; `wait`: seconds that the endpoint asks for."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would follow with a GET, and take the key to another host."""

    def redirect_request(self, *about: Any) -> None:
        """Never."""


_opener = urllib.request.build_opener(_NoRedirect)


def _seconds(header: str | None) -> float:
    """Of a Retry-After: a number of seconds, or a date."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def _message(said: str) -> str:
    """The `error.message` of OpenAI's protocol, or all of it."""
    try:
        error = json.loads(said)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        return said
