"""Row shapes as people have them: a record, the chat or text that it means, and the objectives that take it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Record = dict[str, Any]
PAIRS, LABELS, LISTS, TEXTS = (
    ("SFT", "DPO", "KTO", "ranked"), ("SFT", "KTO"), ("SFT", "DPO", "KTO", "ranked"),
    ("SFT",),
)  # fmt: skip


class Shape(NamedTuple):
    """One shape."""

    name: str
    works: tuple[str, ...]
    """Objectives that take it."""
    record: Callable[[int], Record]
    """Number of a row -> its record."""
    meant: Callable[[int], list[Record] | tuple[str, str]]
    """Number of a row -> the messages of its best completion, or prompt and completion as texts."""
    names: Mapping[str, Any] = MappingProxyType({})
    """Renamed columns of the format."""

    @property
    def key(self) -> str:
        """The name as part of a file name."""
        return re.sub(r"\W+", "-", self.name)

    @property
    def shown(self) -> str:
        """The columns of a record and the names of the format, as Markdown."""
        names = ", ".join(f"{part}: {column}" for part, column in self.names.items()).replace("'", "")
        line = f"; `format: {{name: records, {names}}}`" if names else ""
        return f"{self.name}: `{'`, `'.join(self.record(0))}`{line}"


def say(role: str, text: str | None, **more: Any) -> Record:
    """A message."""
    return {"role": role, "content": text, **more}


def turn(speaker: str, text: str) -> Record:
    """A turn as ShareGPT has it."""
    return {"from": speaker, "value": text}


def q(n: int) -> str:
    """The question of a row."""
    return f"What is the sea, {n}?"


def good(n: int) -> str:
    """The best answer."""
    return f"The sea is blue. {n}"


def bad(n: int) -> str:
    """Another answer."""
    return f"No, {n}"


def asked(n: int) -> Record:
    """The user's message."""
    return say("user", q(n))


def answered(n: int) -> Record:
    """The best answer as a message."""
    return say("assistant", good(n))


def chat(n: int) -> list[Record]:
    """The question and the best answer."""
    return [asked(n), answered(n)]


def text(n: int) -> tuple[str, str]:
    """The question and the best answer as texts."""
    return q(n), good(n)


def call(place: str) -> Record:
    """A message that calls a function."""
    function = {"name": "sea", "arguments": {"at": place}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


TOOLS = [{"type": "function", "function": {"name": "sea", "description": "a sea", "parameters": {}}}]


def long_chat(n: int) -> list[Record]:
    """A chat of two answers after a system message."""
    return [say("system", "The sea"), say("user", f"Yes {n}?"), say("assistant", f"Yes, {n}"), *chat(n)]


def with_calls(n: int) -> list[Record]:
    """A chat with a call and its result."""
    return [asked(n), call(f"a{n}"), say("tool", "blue"), answered(n)]


SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
SHARED = {"prompt": "question", "completions": ["response_a", "response_b"], "preferred": "winner"}
ARENA = {"completions": ["conversation_a", "conversation_b"], "preferred": "winner"}

SHAPES = [
    Shape("strings", PAIRS, lambda n: {"prompt": q(n), "chosen": good(n), "rejected": bad(n)}, text),
    Shape("HH-RLHF", PAIRS, lambda n: {side: f"\n\nHuman: {q(n)}\n\nAssistant: {answer(n)}" for side, answer in (("chosen", good), ("rejected", bad))},
          lambda n: (f"\n\nHuman: {q(n)}\n\nAssistant:", f" {good(n)}")),
    Shape("messages of a pair", PAIRS, lambda n: {"prompt": [asked(n)], "chosen": [answered(n)], "rejected": [say("assistant", bad(n))]}, chat),
    Shape("UltraFeedback, binarized", PAIRS, lambda n: {"prompt": q(n), "prompt_id": f"{n}", "chosen": chat(n), "rejected": [asked(n), say("assistant", bad(n))],
                                                        "messages": chat(n), "score_chosen": 8.0, "score_rejected": 3.0}, chat),
    Shape("LLaMA-Factory, ShareGPT", PAIRS, lambda n: {"conversations": [turn("human", q(n))], "chosen": turn("gpt", good(n)), "rejected": turn("gpt", bad(n))}, chat),
    Shape("single messages", PAIRS, lambda n: {"messages": [asked(n)], "chosen": answered(n), "rejected": say("assistant", bad(n))}, chat),
    Shape("Alpaca's pair", PAIRS, lambda n: {"instruction": "What is the sea?", "input": f"{n}", "chosen": good(n), "rejected": bad(n)},
          lambda n: [say("user", f"What is the sea?\n\n{n}"), answered(n)]),
    Shape("Orca's pair", PAIRS, lambda n: {"system": "The sea", "question": q(n), "chosen": good(n), "rejected": bad(n)},
          lambda n: [say("system", "The sea"), *chat(n)], {"instruction": "question"}),
    Shape("two responses", PAIRS, lambda n: {"question": q(n), "response_a": bad(n), "response_b": good(n), "winner": "b"}, text, SHARED),
    Shape("an arena's chats", PAIRS, lambda n: {"conversation_a": [asked(n), say("assistant", bad(n))], "conversation_b": chat(n), "winner": "model_b"}, chat, ARENA),
    Shape("calls of a pair", PAIRS, lambda n: {"messages": [asked(n)], "tools": TOOLS, "chosen": with_calls(n)[1:], "rejected": [say("assistant", bad(n))]}, with_calls),
    Shape("labeled strings", LABELS, lambda n: {"prompt": q(n), "completion": good(n), "label": n % 3 == 0}, text),
    Shape("labeled chats", LABELS, lambda n: {"messages": chat(n), "label": n % 3 == 0}, chat),
    Shape("labeled, ShareGPT", LABELS, lambda n: {"conversations": [turn("human", q(n)), turn("gpt", good(n))], "kto_tag": n % 3 == 0}, chat, {"label": "kto_tag"}),
    Shape("labeled, Alpaca", LABELS, lambda n: {"instruction": q(n), "input": "", "output": good(n), "label": n % 3 == 0}, chat),
    Shape("KTO-mix", LABELS, lambda n: {"prompt": [asked(n)], "completion": [answered(n)], "label": n % 3 == 0}, chat),
    Shape("a list with scores", LISTS, lambda n: {"prompt": q(n), "completions": [bad(n), good(n), "Yes"], "scores": [1, 3, 2]}, text),
    Shape("a list with ranks", LISTS, lambda n: {"messages": [asked(n)], "completions": [bad(n), good(n), "Yes"], "ranks": [3, 1, 2]}, chat),
    Shape("UltraFeedback", LISTS, lambda n: {"source": "x", "instruction": q(n), "models": ["a", "b", "c"],
                                             "completions": [{"model": m, "response": r, "overall_score": s} for m, r, s in (("a", bad(n), 2), ("b", good(n), 8.5), ("c", "Yes", 3))]},
          chat, {"completion": "response", "scores": "overall_score"}),
    Shape("messages", TEXTS, lambda n: {"messages": long_chat(n)}, long_chat),
    Shape("ShareGPT", TEXTS, lambda n: {"conversations": [turn(SPEAKERS[m["role"]], m["content"]) for m in long_chat(n)]}, long_chat),
    Shape("calls", TEXTS, lambda n: {"messages": with_calls(n), "tools": TOOLS}, with_calls),
    Shape("a prompt and a completion", TEXTS, lambda n: {"prompt": q(n), "completion": good(n)}, text),
    Shape("messages of a completion", TEXTS, lambda n: {"prompt": [asked(n)], "completion": [answered(n)]}, chat),
    Shape("Alpaca", TEXTS, lambda n: {"instruction": q(n), "input": "", "output": good(n)}, chat),
    Shape("HelpSteer", TEXTS, lambda n: {"prompt": q(n), "response": good(n), "helpfulness": 3, "verbosity": 1}, text, {"completion": "response"}),
    Shape("texts", TEXTS, lambda n: {"text": good(n)}, lambda n: ("", good(n))),
    Shape("a prompt alone", (), lambda n: {"prompt": q(n), "answer": f"{n}"}, text),
    Shape("unknown columns", (), lambda n: {"question": q(n), "answer": good(n)}, text),
]  # fmt: skip
