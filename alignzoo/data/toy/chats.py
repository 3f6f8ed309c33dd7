"""Toy data as chats: conversations for SFT, and pairs of conversations that call a tool.

The conversations are the chosen dialogues of the HH-style pairs. In the tool data a function `look_up` has the facts:
the chosen conversation calls it for what was asked and answers with its result. The rejected one calls it for something
else, or repeats another fact in place of the result, so that the two part at the call or after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from alignzoo.data.formats.dialogue import HUMAN, turns
from alignzoo.data.toy import grammar
from alignzoo.data.toy.dialogue import Dice
from alignzoo.data.toy.generate import rows
from alignzoo.data.toy.topics import ASPECTS, TOPICS, Topic

CHATS_VERSION = "1"
"""Version of the records. Raise it with every change that changes one."""
ROWS = {"train": 1200, "test": 120}
LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up a fact about an activity.",
        "parameters": {
            "type": "object",
            "properties": {"activity": {"type": "string"}, "fact": {"type": "string", "enum": list(ASPECTS)}},
            "required": ["activity", "fact"],
        },
    },
}


def conversations(split: str) -> Iterator[dict[str, Any]]:
    """Yield records of `messages`, the same in the same order on every call."""
    for row in rows(split):
        text = f"{row.prompt}{row.completions[0].text}"
        roles = (("user" if turn.startswith(HUMAN) else "assistant", turn) for turn in turns(text))
        yield {"messages": [{"role": role, "content": turn.partition(":")[2].strip()} for role, turn in roles]}


def tool_pairs(split: str) -> Iterator[dict[str, Any]]:
    """Yield records of `prompt`, `chosen`, `rejected` and `tools`.

    They are the same in the same order on every call.
    """
    dice = Dice(f"alignzoo tools {CHATS_VERSION}")
    taken: set[str] = set()
    counts = dict.fromkeys(ROWS, 0)
    while counts[split] < ROWS[split]:
        topic, aspect = dice.pick(TOPICS), dice.pick(ASPECTS)
        question = " ".join(
            filter(None, [dice.pick(grammar.OPENERS), dice.pick(grammar.QUESTIONS[aspect]).format(name=topic.name)])
        )
        side = "test" if dice.unit() < ROWS["test"] / sum(ROWS.values()) else "train"
        chosen, rejected = _chosen(topic, aspect, dice), _rejected(topic, aspect, dice)
        if question in taken or counts[side] >= ROWS[side]:
            continue
        taken.add(question)
        counts[side] += 1
        if side == split:
            prompt = [{"role": "user", "content": question}]
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": [LOOK_UP]}


def _chosen(topic: Topic, aspect: str, dice: Dice) -> list[dict[str, Any]]:
    return [*_call(topic, aspect), _answer(topic, aspect, dice)]


def _rejected(topic: Topic, aspect: str, dice: Dice) -> list[dict[str, Any]]:
    other = dice.pick([one for one in TOPICS if one is not topic])
    kind = dice.pick(("another activity", "another fact", "not the result"))
    if kind == "another activity":
        return [*_call(other, aspect), _answer(other, aspect, dice)]
    if kind == "another fact":
        own = dice.pick([one for one in ASPECTS if one != aspect])
        return [*_call(topic, own), _answer(topic, own, dice)]
    return [*_call(topic, aspect), _answer(other, aspect, dice)]


def _call(topic: Topic, aspect: str) -> list[dict[str, Any]]:
    arguments = {"activity": topic.name, "fact": aspect}
    call = {"type": "function", "function": {"name": "look_up", "arguments": arguments}}
    result = json.dumps({aspect: getattr(topic, aspect)})
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "look_up", "content": result},
    ]


def _answer(topic: Topic, aspect: str, dice: Dice) -> dict[str, Any]:
    fact = dice.pick(grammar.FACTS[aspect]).format(name=topic.name, **{aspect: getattr(topic, aspect)})
    return {"role": "assistant", "content": fact}
