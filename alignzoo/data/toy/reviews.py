"""Toy data for the DPO paper's sentiment experiment: film reviews with a label.

A review has 5 to 9 sentences. Most judge one side of the film, and nine of ten of these agree with the label. The
others only tell what the film is about. So the first words rarely give the label away, and a whole review does.
"""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.toy.dialogue import Dice

REVIEWS_VERSION = "1"
"""Version of the records. Raise it with every change that changes one."""
ROWS = {"train": 6000, "test": 600}
FAITHFUL, NEUTRAL = 0.9, 0.3
"""Share of the judging sentences that agree with the label, and of all sentences that judge nothing."""
SIDES = ("acting", "plot", "music", "ending", "script", "camera work", "pace", "dialogue", "cast", "first hour")
KINDS = ("comedy", "thriller", "drama", "western", "musical", "mystery", "war film", "love story")
HEROES = ("a nurse", "two brothers", "a young lawyer", "an old sailor", "a lost child", "a tired detective")
PLACES = ("in a small town", "on an island", "in the desert", "on a train", "in a hospital", "at a school")
ADJECTIVES = {
    1: ("wonderful", "superb", "moving", "brilliant", "delightful", "clever", "charming", "excellent", "fresh"),
    0: ("awful", "dull", "terrible", "boring", "clumsy", "lazy", "painful", "weak", "stale"),
}
PHRASES = {
    1: ("I loved the {}", "I enjoyed every minute of the {}", "I would watch it again for the {}"),
    0: ("I hated the {}", "I was tired of the {} very soon", "I wanted to leave because of the {}"),
}
DEGREES = ("", "really ", "quite ", "simply ", "always ")


def labeled_reviews(split: str) -> Iterator[dict[str, str | int]]:
    """Yield records of `text` and `label` (1 positive, 0 negative).

    They are the same in the same order on every call, and no text comes twice.
    """
    taken: set[str] = set()
    for side, count in ROWS.items():
        dice = Dice(f"alignzoo reviews {REVIEWS_VERSION} {side}")
        made = 0
        while made < count:
            label = int(dice.unit() < 0.5)
            text = " ".join(_sentence(dice, label) for _ in range(5 + int(dice.unit() * 5)))
            if text in taken:
                continue
            taken.add(text)
            made += 1
            if side == split:
                yield {"text": text, "label": label}
        if side == split:
            return


def _sentence(dice: Dice, label: int) -> str:
    if dice.unit() < NEUTRAL:
        if dice.unit() < 0.5:
            return f"This {dice.pick(KINDS)} is about {dice.pick(HEROES)} {dice.pick(PLACES)}."
        return f"The story begins {dice.pick(PLACES)} and follows {dice.pick(HEROES)}."
    tone = label if dice.unit() < FAITHFUL else 1 - label
    if dice.unit() < 0.3:
        return f"{dice.pick(PHRASES[tone]).format(dice.pick(SIDES))}."
    verb, degree = "is" if dice.unit() < 0.6 else "was", dice.pick(DEGREES)
    start = f"The {dice.pick(SIDES)} {verb} {degree}{dice.pick(ADJECTIVES[tone])}"
    if dice.unit() < 0.3:
        start += f" and the {dice.pick(SIDES)} is {dice.pick(ADJECTIVES[tone])}"
    return f"{start}."
