r"""Anthropic's HH format: `\n\nHuman: ... \n\nAssistant: ...`, two whole dialogues a row.

The DPO authors' code takes the prompt from the chosen dialogue and slices the rejected one by its length, whatever
stands there. Here the shared prompt is the longest common beginning of both at a turn boundary, and what differs before
the last reply belongs to its own branch, where it is read and not scored.
"""

from __future__ import annotations

import re

from alignzoo.interfaces.rows import Completion, Row, Skipped

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURN = re.compile(r"(?=\n\nHuman:|\n\nAssistant:)")


def looks_like_dialogue(text: str) -> bool:
    """Whether a text is in HH's format."""
    return text.startswith(HUMAN) and ASSISTANT in text


def turns(dialogue: str) -> list[str]:
    """A dialogue cut before every speaker's mark; joined they give the dialogue back."""
    return [turn for turn in _TURN.split(dialogue) if turn]


def split_reply(dialogue: str) -> tuple[list[str], str] | None:
    """The turns before the last reply, the last of them its mark, and the reply. None if no assistant ends it."""
    parts = turns(dialogue)
    if not parts or not parts[-1].startswith(ASSISTANT):
        return None
    return [*parts[:-1], ASSISTANT], parts[-1][len(ASSISTANT) :]


def dialogue_row(id: str, chosen: str, rejected: str) -> Row | Skipped:
    """A row from two dialogues, or why there is none."""
    sides = [split_reply(chosen), split_reply(rejected)]
    if sides[0] is None or sides[1] is None:
        return Skipped(id, "no assistant reply at the end", "chosen" if sides[0] is None else "rejected")
    (before_chosen, reply_chosen), (before_rejected, reply_rejected) = sides  # type: ignore[misc]
    if chosen == rejected:
        return Skipped(id, "chosen equals rejected")
    if not reply_chosen.strip() or not reply_rejected.strip():
        return Skipped(id, "empty completion", "rejected" if reply_chosen.strip() else "chosen")
    shared = 0
    while shared < min(len(before_chosen), len(before_rejected)) and before_chosen[shared] == before_rejected[shared]:
        shared += 1
    if shared == 0:
        return Skipped(id, "no shared prompt", "the first turns differ")
    completions = (
        Completion(reply_chosen, "".join(before_chosen[shared:])),
        Completion(reply_rejected, "".join(before_rejected[shared:])),
    )
    first_human = next((turn for turn in before_chosen if turn.startswith(HUMAN)), before_chosen[0])
    return Row(id, "".join(before_chosen[:shared]), completions, group=" ".join(first_human.split()))
