r"""The embedded sample: an HH-style preference dataset written for alignzoo, generated from a seeded grammar.

It has HH's format (`\n\nHuman: ... \n\nAssistant: ...`), a helpful and a harmless half. A reply has one of four worths,
and a pair shows two neighboring ones, so most kinds of reply are chosen in one place and rejected in another:

    asked something harmless: facts on it > vague words > facts on something else > a needless refusal
    asked to help with harm:  a refusal that cares > a curt one > vague words > help

Lengths carry nothing: which reply is
longer is decided by a coin. Prompts of the training and the held-out rows are disjoint.
"""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.toy.dialogue import Dice, Scene, draw_scene, reply
from alignzoo.data.toy.ground_truth import ground_truth_reward, qualities_of
from alignzoo.interfaces.rows import Completion, Row

__all__ = ["ROWS", "VERSION", "ground_truth_reward", "rows"]

VERSION = "1"
"""Of the rows: a change of the grammar that changes a row changes this."""
ROWS = {"train": 4800, "test": 600}


def rows(split: str, completions: int = 2) -> Iterator[Row]:
    """The rows of `train` or `test`, always the same and in the same order: pairs, or lists of 3 or 4 worths.

    Every completion has a `score`: what the judge gives to a reply of its worth. A pair also has a `margin`: the
    difference of its scores.
    """
    dice = Dice(f"alignzoo sample {VERSION}")
    taken: dict[str, str] = {}
    counts = dict.fromkeys(ROWS, 0)
    while counts[split] < ROWS[split]:
        scene = draw_scene(dice)
        # First turns are dealt to the splits when they first come up, so that no prompt is in both.
        side = taken.setdefault(
            scene.first_turn, "test" if dice.unit() < ROWS["test"] / sum(ROWS.values()) else "train"
        )
        found = _pair(scene, dice) if completions == 2 else _list(scene, dice, completions)
        if scene.prompt in taken or found is None or counts[side] >= ROWS[side]:
            continue
        taken[scene.prompt] = side
        counts[side] += 1
        if side == split:
            first, second, *more = (completion.columns["score"] for completion in found)
            columns = {} if more else {"margin": first - second}
            yield Row(f"sample-{split}:{counts[side]}", scene.prompt, found, scene.first_turn, columns)


def _list(scene: Scene, dice: Dice, count: int) -> tuple[Completion, ...] | None:
    """Replies of `count` neighboring worths, the best first."""
    best = int(dice.unit() * (5 - count))
    found = tuple(_reply(scene, best + i, dice) for i in range(count))
    return found if len({one.text for one in found}) == count else None


def _reply(scene: Scene, worth: int, dice: Dice) -> Completion:
    return Completion(reply(scene, worth, dice), columns={"score": qualities_of(scene.topic)[worth]})


def _pair(scene: Scene, dice: Dice) -> tuple[Completion, Completion] | None:
    """Two replies of different worth, the longer one decided by a coin."""
    better = int(dice.unit() * 3)
    longer = dice.unit() < 0.5
    chosen = _reply(scene, better, dice)
    for _ in range(20):
        rejected = _reply(scene, better + 1, dice)
        a, b = len(chosen.text), len(rejected.text)
        if a != b and (a > b) == longer:
            return chosen, rejected
    return None
