r"""The embedded sample: an HH-style preference dataset written for alignzoo, generated from a seeded grammar.

It has HH's format (`\n\nHuman: ... \n\nAssistant: ...`), a helpful and a harmless half. A reply has one of four worths,
and a pair shows two neighbouring ones, so most kinds of reply are chosen in one place and rejected in another:

    asked something harmless: facts on it > vague words > facts on something else > a needless refusal
    asked to help with harm:  a refusal that cares > a curt one > vague words > help

Lengths carry nothing: which reply is
longer is decided by a coin. Prompts of the training and the held-out rows are disjoint.
"""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.rows import Completion, Row
from alignzoo.data.sample.dialogue import Dice, Scene, draw_scene, reply
from alignzoo.data.sample.judge import flavour

__all__ = ["ROWS", "VERSION", "flavour", "rows"]

VERSION = "1"
"""Of the rows: a change of the grammar that changes a row changes this."""
ROWS = {"train": 4800, "test": 600}


def rows(split: str) -> Iterator[Row]:
    """The rows of `train` or `test`, always the same and in the same order."""
    dice = Dice(f"alignzoo sample {VERSION}")
    taken: dict[str, str] = {}
    counts = dict.fromkeys(ROWS, 0)
    while counts[split] < ROWS[split]:
        scene = draw_scene(dice)
        # First turns are dealt to the splits when they first come up, so that no prompt is in both.
        side = taken.setdefault(
            scene.first_turn, "test" if dice.unit() < ROWS["test"] / sum(ROWS.values()) else "train"
        )
        pair = _pair(scene, dice)
        if scene.prompt in taken or pair is None or counts[side] >= ROWS[side]:
            continue
        taken[scene.prompt] = side
        counts[side] += 1
        if side == split:
            chosen, rejected = pair
            identity = f"sample-{split}:{counts[side]}"
            yield Row(identity, scene.prompt, (Completion(chosen), Completion(rejected)), group=scene.first_turn)


def _pair(scene: Scene, dice: Dice) -> tuple[str, str] | None:
    """Two replies of different worth, the longer one decided by a coin."""
    better = int(dice.unit() * 3)
    longer = dice.unit() < 0.5
    chosen = reply(scene, better, dice)
    for _ in range(20):
        rejected = reply(scene, better + 1, dice)
        if len(chosen) != len(rejected) and (len(chosen) > len(rejected)) == longer:
            return chosen, rejected
    return None
