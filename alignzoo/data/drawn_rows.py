"""Rows of a drawn data set: a prompt, its completions, and their scores, as JSON lines.

A run with `draw` writes them (`alignzoo.rollouts.data_set`), and `data: {from: RECIPE}` reads them. The folder has
train.jsonl, test.jsonl of the held-out prompts if there are any, and about.json with the digests of both. Lists of one
value for each completion are in the order in which completions were drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat

from alignzoo.core.artifacts import Manifest, read_verified
from alignzoo.core.door import BadFile, validated
from alignzoo.interfaces.data_source import Split

FOLDER = "draws"
"""Name of the data set's folder in the run folder."""
FILES: dict[Split, str] = {"train": "train.jsonl", "test": "test.jsonl"}
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
OWN = ("id", "prompt", "completions", "scores", "finished", "group", "columns", "tools", "chat_template_kwargs",
       "prompt_ids", "completion_ids")  # fmt: skip
"""Keys of a row besides those of rewards, in the order in which they are written."""


class DrawnRow(BaseModel, extra="allow"):
    """A line: a prompt with its completions. Other keys are rewards, each with its raw scores."""

    id: str
    prompt: str | list[dict[str, Any]]
    completions: Annotated[list[str], Field(min_length=1)]
    scores: list[FiniteFloat | None] | None = None
    """The weighted sums of the rewards; null for a completion that is left out. No list without rewards."""
    finished: list[bool]
    """False where the limit of new tokens has cut a completion."""
    group: str
    """Prompts of the same group stay on the same side of a split."""
    columns: dict[str, Any] = {}
    """The other columns of the prompt's row."""
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    prompt_ids: Annotated[list[TokenId], Field(min_length=1)]
    completion_ids: list[Annotated[list[TokenId], Field(min_length=1)]]
    """Token ids as they were drawn, with the token that ended a completion."""


class DrawsManifest(Manifest):
    """The about.json of a drawn data set."""

    run: str
    """Fingerprint of the run."""
    vocabulary: str
    """Digest of the vocabulary of the token ids."""
    rewards: list[str]
    """Names of the rewards, which are keys of the rows."""
    figures: dict[str, Any]
    """Figures of the draws, by side."""


def read_about(folder: Path, hint: str) -> dict[str, Any]:
    """Return about.json of a drawn data set, whose files are all checked.

    Raises:
        BadFile: The folder is absent or damaged. `hint` says how to make it again.
    """
    about = read_verified(folder, DrawsManifest)
    if about is None:
        raise BadFile("the drawn data are damaged, or not there", where=str(folder), hint=hint)
    return about


def checked_row(value: dict[str, Any], where: str, rewards: list[str]) -> DrawnRow:
    """Return a line as a row.

    Raises:
        BadFile: It is none, or a list has not one value for each completion.
    """
    row: DrawnRow = validated(value, where, DrawnRow)
    lists: dict[str, Any] = {"finished": row.finished, "completion_ids": row.completion_ids}
    lists |= {} if row.scores is None else {"scores": row.scores}
    lists |= {name: (row.model_extra or {}).get(name) for name in rewards}
    for name, values in lists.items():
        if not isinstance(values, list) or len(values) != len(row.completions):
            raise BadFile(
                f"{name} is not a list of {len(row.completions)}", where=where, expected="a value for each completion"
            )
        if name in rewards and not all(one is None or type(one) in (int, float) for one in values):
            raise BadFile(f"{name} has a value that is no number", where=where, expected="numbers, or null")
    return row
