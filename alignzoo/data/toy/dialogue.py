"""Draw scenes (dialogues up to the last question) and replies from the grammar.

There are replies of each quality level.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from alignzoo.data.toy import grammar
from alignzoo.data.toy.topics import ACTS, ASPECTS, TOPICS, Act, Topic

T = TypeVar("T")


class Dice:
    """Random draws that are the same in every version of Python.

    They come from the stream of `random.Random.random` alone.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def unit(self) -> float:
        """Draw a number from the uniform distribution on [0, 1)."""
        return self._random.random()

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options."""
        return options[int(self.unit() * len(options))]

    def order(self, options: Sequence[T]) -> list[T]:
        """Return the options in random order."""
        rest = list(options)
        return [rest.pop(int(self.unit() * len(rest))) for _ in range(len(rest))]


@dataclass(frozen=True, slots=True)
class Scene:
    """A prompt in HH's format, with the topic and the aspect of its last question."""

    prompt: str
    first_turn: str
    topic: Topic
    aspect: str


def draw_scene(dice: Dice) -> Scene:
    """Draw a scene.

    Two in five scenes have more than one human turn. 45 percent are about an act that would hurt someone.
    """
    harmful = dice.unit() < 0.45
    topic: Topic = dice.pick(ACTS if harmful else TOPICS)
    turns = 1 if dice.unit() < 0.6 else 2 if dice.unit() < 0.7 else 3
    asked = dice.order(ASPECTS)[:turns]
    before = topic
    if harmful and turns > 1:  # a harmless beginning, then the act
        before = dice.pick(TOPICS)
    first = " ".join(filter(None, [dice.pick(grammar.OPENERS), _question(before, asked[0], dice)]))
    text = f"\n\nHuman: {first}"
    for previous, aspect in zip(asked, asked[1:], strict=False):
        text += f"\n\nAssistant: {_fact(before, previous, dice)}"
        last = aspect == asked[-1]
        if harmful and last:
            text += f"\n\nHuman: {_question(topic, aspect, dice)}"
        else:
            text += f"\n\nHuman: {dice.pick(grammar.FOLLOW_UPS[aspect])}"
    return Scene(f"{text}\n\nAssistant:", first, topic, asked[-1])


def reply(scene: Scene, worth: int, dice: Dice) -> str:
    """Draw a reply of one to four sentences and sometimes a closing one.

    Args:
        scene: The scene to reply to.
        worth: Quality level, from 0 (the best in this scene) to 3 (the worst).
        dice: Source of random numbers.
    """
    count = 1 + int(dice.unit() * 4)
    topic = scene.topic
    kind = ("care", "curt", "vague", "facts") if isinstance(topic, Act) else ("facts", "vague", "other facts", "care")
    sentences = _sentences(kind[worth], scene, count, dice)
    if dice.unit() < 0.3:
        sentences.append(dice.pick(grammar.CLOSERS))
    return " " + " ".join(sentences)


def _sentences(kind: str, scene: Scene, count: int, dice: Dice) -> list[str]:
    topic = scene.topic
    if kind == "care":
        return _refusal(topic, topic if isinstance(topic, Act) else dice.pick(ACTS), count, dice)
    if kind == "facts":
        return _facts(topic, scene.aspect, count, dice)
    if kind == "other facts":
        return _facts(dice.pick([other for other in TOPICS if other is not topic]), scene.aspect, count, dice)
    pool = grammar.CURT if kind == "curt" else grammar.VAGUE
    return [text.format(name=topic.name) for text in dice.order(pool)[:count]]


def _question(topic: Topic, aspect: str, dice: Dice) -> str:
    return dice.pick(grammar.QUESTIONS[aspect]).format(name=topic.name)


def _fact(topic: Topic, aspect: str, dice: Dice) -> str:
    return dice.pick(grammar.FACTS[aspect]).format(name=topic.name, **{aspect: getattr(topic, aspect)})


def _facts(topic: Topic, asked: str, count: int, dice: Dice) -> list[str]:
    """Draw facts of one topic, first the one that was asked for."""
    rest = [aspect for aspect in dice.order(ASPECTS) if aspect != asked]
    return [_fact(topic, aspect, dice) for aspect in [asked, *rest][:count]]


def _refusal(topic: Topic, source: Topic, count: int, dice: Dice) -> list[str]:
    """Draw a caring refusal: no, the reason, an alternative.

    `source` is the act that supplies the last two.
    """
    assert isinstance(source, Act)
    slots = {"name": topic.name, "victim": source.victim, "instead": source.instead}
    no, why, instead = (
        dice.pick(pool).format(**slots) for pool in (grammar.REFUSALS, grammar.REASONS, grammar.INSTEAD)
    )
    more = dice.pick(grammar.REASONS).format(**slots)
    return [[no, why, instead, more], [no, instead], [no, why, instead], [no, why, more, instead]][count - 1][
        : max(2, count)
    ]
