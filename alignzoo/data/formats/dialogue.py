r"""Parse Anthropic's HH format: two whole dialogues a row.

A dialogue is `\n\nHuman: ... \n\nAssistant: ...`.

The shared prompt is the longest common beginning of both dialogues that ends at a turn boundary. Turns that differ
before the last reply become context of their own branch, which is read and not scored. (The DPO authors' code takes the
prompt from the chosen dialogue and cuts the rejected one at the same length, even if its text differs.)
"""

from __future__ import annotations

import re

from alignzoo.interfaces.rows import Completion, Row, Skipped

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURN = re.compile(r"(?=\n\nHuman:|\n\nAssistant:)")


def looks_like_dialogue(text: str) -> bool:
    """Return True if the text is in HH's format."""
    return text.startswith(HUMAN) and ASSISTANT in text


def turns(dialogue: str) -> list[str]:
    """Split a dialogue before every speaker mark. The turns joined are the dialogue."""
    return [turn for turn in _TURN.split(dialogue) if turn]


def split_reply(dialogue: str) -> tuple[list[str], str] | None:
    """Split off the last reply of a dialogue.

    Returns:
        The turns before the reply, including its speaker mark, and the reply. None if the last turn is not the
        assistant's.
    """
    parts = turns(dialogue)
    if not parts or not parts[-1].startswith(ASSISTANT):
        return None
    return [*parts[:-1], ASSISTANT], parts[-1][len(ASSISTANT) :]


def dialogue_row(id: str, chosen: str, rejected: str) -> Row | Skipped:
    """Build a row from two dialogues, or return the reason why they are skipped."""
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
