r"""Generate the embedded toy data, an HH-style preference dataset written for alignzoo.

The rows have HH's format (`\n\nHuman: ... \n\nAssistant: ...`), about half of them helpful and half harmless. A
reply has one of four quality levels, and a pair has two neighboring levels. Most kinds of reply are chosen in some rows
and rejected in others:

    harmless question:        facts on it > vague words > facts on something else > a needless refusal
    request for harmful help: a caring refusal > a curt refusal > vague words > help

Length is no signal: a coin decides which reply is longer. Training and held-out rows share no prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.toy.dialogue import Dice, Scene, draw_scene, reply
from alignzoo.data.toy.ground_truth import qualities_of
from alignzoo.interfaces.rows import Completion, Row

VERSION = "1"
"""Version of the rows. Raise it with every change of the grammar that changes a row."""
ROWS = {"train": 4800, "test": 600}


def rows(split: str, completions: int = 2) -> Iterator[Row]:
    """Yield the rows of a split, the same in the same order on every call.

    Every completion has a `score`, the ground-truth reward of its quality level. A pair also has a `margin`, the
    difference of its scores.

    Args:
        split: `train` or `test`.
        completions: 2 for pairs, 3 or 4 for ranked lists.
    """
    dice = Dice(f"alignzoo sample {VERSION}")
    taken: dict[str, str] = {}
    counts = dict.fromkeys(ROWS, 0)
    while counts[split] < ROWS[split]:
        scene = draw_scene(dice)
        # A first turn is assigned to a split when it first occurs, so that no prompt is in both.
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
    """Draw replies of `count` neighboring quality levels, best first."""
    best = int(dice.unit() * (5 - count))
    found = tuple(_reply(scene, best + i, dice) for i in range(count))
    return found if len({one.text for one in found}) == count else None


def _reply(scene: Scene, worth: int, dice: Dice) -> Completion:
    return Completion(reply(scene, worth, dice), columns={"score": qualities_of(scene.topic)[worth]})


def _pair(scene: Scene, dice: Dice) -> tuple[Completion, Completion] | None:
    """Draw two replies of neighboring quality levels, with a coin for the longer one."""
    better = int(dice.unit() * 3)
    longer = dice.unit() < 0.5
    chosen = _reply(scene, better, dice)
    for _ in range(20):
        rejected = _reply(scene, better + 1, dice)
        a, b = len(chosen.text), len(rejected.text)
        if a != b and (a > b) == longer:
            return chosen, rejected
    return None
