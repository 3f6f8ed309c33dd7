"""Toy data for Step-DPO: word problems with a chosen and a rejected step.

The prompt holds the right steps before both. Each step adds or takes away one amount. The rejected step adds where it
should take away, or the reverse, or has a sum that is wrong by one to three. Nothing before it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.toy.dialogue import Dice

STEPS_VERSION = "1"
"""Version of the records. Raise it with every change that changes one."""
ROWS = {"train": 1200, "test": 120}
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
THINGS = ("apples", "beads", "cards", "coins", "marbles", "nails", "pens", "shells", "stamps", "stones")
PHRASES = {1: ("finds {}", "buys {}", "is given {}"), -1: ("loses {}", "gives away {}", "sells {}")}
"""Sign of an amount -> what happens."""


def step_pairs(split: str) -> Iterator[dict[str, str]]:
    """Yield records of `prompt`, `chosen` and `rejected`.

    They are the same in the same order on every call.
    """
    dice = Dice(f"alignzoo steps {STEPS_VERSION}")
    taken: set[str] = set()
    counts = dict.fromkeys(ROWS, 0)
    while counts[split] < ROWS[split]:
        question, steps, slips = _problem(dice)
        at = int(dice.unit() * len(steps))
        side = "test" if dice.unit() < ROWS["test"] / sum(ROWS.values()) else "train"
        if question in taken or counts[side] >= ROWS[side]:
            continue
        taken.add(question)
        counts[side] += 1
        if side == split:
            before = "".join(f" Step {k}: {step}" for k, step in enumerate(steps[:at], 1))
            number = f" Step {at + 1}: "
            yield {
                "prompt": f"\n\nHuman: {question}\n\nAssistant:{before}",
                "chosen": number + steps[at],
                "rejected": number + slips[at],
            }


def _problem(dice: Dice) -> tuple[str, list[str], list[str]]:
    """Draw a question, its steps and a wrong step in the place of each."""
    name, thing = dice.pick(NAMES), dice.pick(THINGS)
    total = 40 + int(dice.unit() * 40)
    events, steps, slips = [f"{name} has {total} {thing}"], [], []
    for _ in range(2 + int(dice.unit() * 3)):
        amount, sign = 1 + int(dice.unit() * 9), 1 if dice.unit() < 0.5 else -1
        events.append(f"{name} {dice.pick(PHRASES[sign]).format(amount)}")
        steps.append(_step(total, sign, amount, total + sign * amount))
        off = (1 + int(dice.unit() * 3)) * (1 if dice.unit() < 0.5 else -1)
        right = total + sign * amount
        wrong = (-sign, total - sign * amount) if dice.unit() < 0.5 else (sign, right + off)
        slips.append(_step(total, wrong[0], amount, wrong[1]))
        total = right
    return f"{'. '.join(events)}. How many {thing} are there now?", steps, slips


def _step(total: int, sign: int, amount: int, result: int) -> str:
    return f"{total} {'+' if sign > 0 else '-'} {amount} = {result}."
