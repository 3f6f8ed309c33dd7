"""Base class of judges behind a chat endpoint.

Several questions are asked at a time, with retries and a cache of verdicts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import httpx2
from pydantic import Field

from alignzoo.core.concurrency import together
from alignzoo.core.errors import NotWritten
from alignzoo.core.paths import cache_root
from alignzoo.evaluation.judges.endpoint import Endpoint, address_in, from_environment
from alignzoo.evaluation.judges.verdict_cache import Verdict, Verdicts, verdict_key
from alignzoo.interfaces.component import NoEffect
from alignzoo.interfaces.judge import Judge, Prompt
from alignzoo.interfaces.rows import plain_text

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
Question = TypeVar("Question", bound=tuple[str, ...])
"""The texts of the slots of a question, in the order in which they are named."""


class EndpointJudge(Judge):
    """Base class of judges that ask a language model behind an OpenAI-compatible endpoint.

    Verdicts are cached by address, model, question, temperature and the texts in the question.
    """

    model: str = Field(min_length=1, description="the model's name at the endpoint")
    base_url_env: Annotated[str, NoEffect] = Field(
        "OPENAI_BASE_URL", pattern=VARIABLE, description="environment variable with the address; most end in /v1"
    )
    key_env: Annotated[str | None, NoEffect] = Field(
        "OPENAI_API_KEY", pattern=VARIABLE, description="environment variable with the key; null sends none"
    )
    temperature: float | None = Field(0.0, ge=0, le=2, description="sampling temperature; null sends none")
    max_tokens: int | None = Field(256, ge=1, description="limit of an answer; null sends none")
    timeout: Annotated[float, NoEffect] = Field(
        60.0, gt=0, description="seconds without data before an attempt is given up"
    )
    retries: Annotated[int, NoEffect] = Field(
        5, ge=0, le=20, description="further attempts after 429, 5xx, a timeout, a broken connection"
    )
    backoff: Annotated[float, NoEffect] = Field(
        1.0, gt=0, le=60, description="seconds before the first retry, doubled each time"
    )
    parallel: Annotated[int, NoEffect] = Field(8, ge=1, le=64, description="questions asked at a time")

    def address(self) -> str:
        """Return the endpoint's address. Raises UserError where the environment lacks it."""
        return address_in(self.base_url_env)

    def ready(self) -> None:
        """Check that the environment has the address and the key, without a request.

        Raises:
            UserError: A variable is missing or malformed.
        """
        self._endpoint()

    async def ask_all(
        self,
        questions: set[Question],
        slots: tuple[str, ...],
        text: str,
        parse: Callable[[str], Verdict | None],
        again: str,
        scale: tuple[float, ...] = (),
    ) -> dict[Question, Verdict | None]:
        """Return the verdict on each question, None where there is none after asking twice.

        `parallel` questions are asked at a time. The first failure, or an interrupt, cancels the others at once. Known
        verdicts are kept.

        Args:
            questions: The questions, each with a text for every slot.
            slots: The names of the slots.
            text: The question, with `{slot}` for each slot.
            parse: From an answer to the verdict, None where it has none.
            again: What is said after an answer without a verdict.
            scale: The limits of a score. The question need not name them, and an answer is read by them.

        Raises:
            UserError: The environment lacks a variable, or the endpoint rejects a request.
            ConnectionError: The endpoint cannot be reached or gives no answer.
        """
        cache = Verdicts(cache_root() / "verdicts")
        settings = (self.address(), self.model, text, self.temperature, *scale)
        keys = {one: verdict_key(*settings, *one) for one in sorted(questions)}
        found = {one: cache.get(key) for one, key in keys.items()}
        unknown = [one for one, verdict in found.items() if verdict is None]
        if not unknown:
            return found
        endpoint, limit = self._endpoint(), asyncio.Semaphore(self.parallel)

        async def ask(question: Question) -> None:
            filled = dict(zip(slots, question, strict=True))
            own = re.sub("{(" + "|".join(slots) + ")}", lambda slot: filled[slot[1]], text)
            async with limit:
                found[question] = verdict = await self._ask(endpoint, client, own, parse, again)
            if verdict is not None:  # kept at once, so that a later failure does not lose it
                with suppress(NotWritten):  # a full disk costs no verdict; it is asked for again next time
                    cache.put(keys[question], verdict, self.model)

        async with endpoint.client() as client:
            await together(ask(question) for question in unknown)
        return found

    async def _ask(
        self,
        endpoint: Endpoint,
        client: httpx2.AsyncClient,
        text: str,
        parse: Callable[[str], Verdict | None],
        again: str,
    ) -> Verdict | None:
        messages = [{"role": "user", "content": text}]
        limits = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        body |= {name: value for name, value in limits.items() if value is not None}
        answer = await endpoint.answer(client, body)
        verdict = parse(answer)
        if verdict is None:
            if answer.strip():
                messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": again}]
            verdict = parse(await endpoint.answer(client, body))
        return verdict

    def _endpoint(self) -> Endpoint:
        return from_environment(self.base_url_env, self.key_env, self.timeout, self.retries, self.backoff)


def missing_slots(question: str, slots: tuple[str, ...]) -> str:
    """Return a question. Raises ValueError where a slot is missing."""
    missing = [f"{{{slot}}}" for slot in slots if f"{{{slot}}}" not in question]
    if missing:
        raise ValueError(f"lacks {' and '.join(missing)}")
    return question


def with_speakers(prompt: Prompt) -> str:
    """Return a prompt as text, with the speakers of a chat."""
    if isinstance(prompt, str):
        return prompt.strip()
    return "\n\n".join(f"{message['role'].capitalize()}: {plain_text(message)}" for message in prompt)
