"""Client of an OpenAI-compatible chat endpoint: one question, one answer.

Requests are retried where that may help. The key is read from the environment and sent in one header. It is in no
error, no representation and no file.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx2

from alignzoo.core.door import BadFile, parse_json
from alignzoo.core.errors import UserError
from alignzoo.core.redaction import register_secret

LONGEST_WAIT = 120.0
"""Longest pause in seconds that an endpoint may ask for; after a longer one the question is given up."""
LONGEST_ANSWER = 10_000_000
"""Size limit of an answer, in bytes."""
PATIENCE = 10
"""Longest time of an attempt as a multiple of `timeout`, which is that without data: an answer may come in drops."""
TRANSIENT = (408, 409, 425, 429)
"""Status codes that are tried again, like 500 and above."""
BROKEN = (httpx2.NetworkError, httpx2.RemoteProtocolError)
"""A connection that ended before the answer did."""
_jitter = random.Random()  # its own generator: pauses must not advance other random streams


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address, key and retry policy of a chat endpoint."""

    url: str
    key: str | None = field(repr=False)
    base_url_env: str
    key_env: str | None
    timeout: float
    retries: int
    backoff: float
    """Seconds before the second attempt; doubled for each one after that."""

    @property
    def host(self) -> str:
        """Scheme, host and port, for messages."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def client(self) -> httpx2.AsyncClient:
        """Return an HTTP client that sends the key and follows no redirects.

        A redirect would take the key to another host. Answers are not compressed, so that the size limit holds for the
        bytes that arrive.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "alignzoo", "Accept-Encoding": "identity"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        return httpx2.AsyncClient(headers=headers, timeout=self.timeout, follow_redirects=False, verify=_certificates())

    async def answer(self, client: httpx2.AsyncClient, body: Mapping[str, Any]) -> str:
        """Return the text of the answer to a chat completion request.

        Raises:
            ConnectionError: There is no answer after all attempts.
            UserError: The endpoint rejects the request.
        """
        attempt = 0
        while True:
            try:
                return self._content(await self._post(client, json.dumps(body).encode()))
            except _Transient as failure:
                attempt += 1
                pause = min(self.backoff * 2 ** (attempt - 1), LONGEST_WAIT) * _jitter.uniform(0.8, 1.2)
                if attempt > self.retries or failure.wait > LONGEST_WAIT:
                    attempts = f"{attempt} attempt{'' if attempt == 1 else 's'}"
                    raise ConnectionError(f"the judge at {self.host} {failure} ({attempts})") from None
                await asyncio.sleep(max(failure.wait, pause))

    async def _post(self, client: httpx2.AsyncClient, data: bytes) -> bytes:
        try:
            async with (
                asyncio.timeout(PATIENCE * self.timeout),
                client.stream("POST", self.url, content=data) as response,
            ):
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > LONGEST_ANSWER:
                        raise ConnectionError(f"the judge at {self.host} sent more than {LONGEST_ANSWER:,} bytes")
        except TimeoutError:
            raise _Transient(f"did not end its answer within {PATIENCE * self.timeout:g} s") from None
        except httpx2.TimeoutException:
            raise _Transient(f"did not answer within {self.timeout:g} s") from None
        except httpx2.ConnectError as error:
            raise self._unreachable(error) from None
        except BROKEN as error:
            raise _Transient(f"closed the connection ({type(error).__name__})") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise self._rejection(response, answer.decode(errors="replace")) from None
        return bytes(answer)

    def _unreachable(self, error: BaseException) -> ConnectionError:
        """Return an error that gives the operating system's reason if there is one.

        httpx only says that all attempts failed.
        """
        reason, cause = error, error.__cause__ or error.__context__
        while cause is not None:
            reason = cause if isinstance(cause, OSError) else reason
            cause = cause.__cause__ or cause.__context__
        return ConnectionError(f"the judge at {self.host} cannot be reached: {self._line(str(reason))}")

    def _rejection(self, response: httpx2.Response, text: str) -> Exception:
        code = response.status_code
        status = f"{code} {response.reason_phrase}"
        if code in TRANSIENT or code >= 500:
            return _Transient(f"answered {self._line(status)}", _seconds(response.headers.get("Retry-After")))
        hint = ""
        if code in (401, 403):
            hint = f"the key is read from {self.key_env}" if self.key_env else "set `key_env`: no key was sent"
        elif code in (301, 302, 303, 307, 308, 404, 405):
            hint = f"set {self.base_url_env} to the address before /chat/completions; most end in /v1"
        return UserError(f"the judge at {self.host} rejected the request: {self._line(f'{status} {_message(text)}')}",
                         hint=hint)  # fmt: skip

    def _content(self, answer: bytes) -> str:
        try:
            content = parse_json(answer, self.host)["choices"][0]["message"]["content"]
        except (BadFile, LookupError, TypeError):
            content = answer
        if content is None:  # a reasoning model that ran out of tokens before its answer
            return ""
        if not isinstance(content, str):
            text = self._line(answer.decode(errors="replace")) or "nothing"
            raise ConnectionError(f"the judge at {self.host} sent no chat completion: {text}")
        return content

    def _line(self, text: str) -> str:
        """Return a server's text as one short line, without the key if the server sent it back."""
        text = text.replace(self.key, "***") if self.key else text
        line = " ".join(text.split())
        return line if len(line) <= 200 else line[:200] + "..."


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Load the trusted certificates once.

    Loading takes longer than a question to a local endpoint.
    """
    return httpx2.create_ssl_context()


def from_environment(base_url_env: str, key_env: str | None, timeout: float, retries: int, backoff: float) -> Endpoint:
    """Return the endpoint whose base address and key are in these environment variables.

    Raises:
        UserError: A variable is missing or malformed. The message names it and never shows its value, because the two
            are easily mixed up.
    """
    url = address_in(base_url_env)
    key = None
    if key_env is not None:
        key = _variable(key_env, "the endpoint's key (any word if it needs none), or `key_env: null`")
        if not key.isascii() or not key.isprintable():
            raise UserError(f"{key_env} has characters that a key cannot have", expected="one line of plain ASCII")
    if key is not None:
        register_secret(key)
    return Endpoint(url, key, base_url_env, key_env, timeout, retries, backoff)


def address_in(base_url_env: str) -> str:
    """Return the address of requests, below the base address in an environment variable.

    Raises:
        UserError: The variable is missing or malformed.
    """
    base = _variable(base_url_env, "the endpoint's address, like http://localhost:8000/v1 or https://api.openai.com/v1")
    try:
        parts = urlsplit(base)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and parts.username is None
    except ValueError:
        good = False
    if not good or not base.isascii() or not base.isprintable() or " " in base:
        raise UserError(f"{base_url_env} is not an address", expected="http or https, a host, and no user name in it")
    return parts._replace(path=parts.path.rstrip("/") + "/chat/completions", fragment="").geturl()


def _variable(name: str, expected: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise UserError(f"the environment variable {name} is not set", expected=expected)
    return value


class _Transient(Exception):
    """A failure that may pass; `wait` is the pause in seconds that the endpoint asks for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def _seconds(header: str | None) -> float:
    """Return the seconds of a Retry-After header, which holds a number or a date."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _message(text: str) -> str:
    """Return the `error.message` of OpenAI's protocol, or else the whole text."""
    try:
        error = parse_json(text, "")["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (BadFile, LookupError, TypeError):
        return text
