"""Rows as the model sees them: the role of every token, and which tokens are scored.

The roles of a chat are those of its messages. A token that the chat template writes around a message has the role of
that message, and what it writes before the first message is the system's. In plain text in the form of HH the
turns of `Human` and `Assistant` are the user's and the assistant's; in any other text, prompt and completion are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from alignzoo.core.door import in_child
from alignzoo.core.errors import UserError
from alignzoo.data.boundary import place_of
from alignzoo.data.chat_template import PLACEHOLDER, Inputs, answer_message, common_start, inputs_of, is_chat
from alignzoo.data.convert import convert_rows
from alignzoo.data.row_reader import RowReader
from alignzoo.data.tokenize import Encoder, TokenizedRows
from alignzoo.interfaces.rows import Message, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.data.token_store import TokenizedDataset
    from alignzoo.recipe.resolved import Resolved
    from alignzoo.recipe.schema import Recipe

ROLES = ("system", "user", "assistant", "tool", "text")
"""Roles that are told apart. `developer` is the system; a role of any other name is `text`."""
SYNONYMS = {"developer": "system", "function": "tool", "ipython": "tool", "human": "user"}
SPEAKER = re.compile(r"\n\n(Human|Assistant):")
SECONDS = 30.0
"""Processor time to render, tokenize and decode the rows that are shown."""
MOST_TOKENS, MOST_COMPLETIONS = 1_200, 64
"""Tokens of a prompt or a completion, and completions of a row, that are shown."""
MOST_MESSAGES = 2_000
"""Messages of a row with all of its completions for which roles are found: the template renders each beginning."""
Ends = list[tuple[int, str]]
"""(position behind its last character, role) of each part of a text, in order."""


def show_rows(
    resolved: Resolved, tokenizer: PreTrainedTokenizerBase, dataset: TokenizedDataset,
    wanted: Sequence[tuple[str, int, Row]], today: date | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return rows with their tokens. Tokenizer and chat template run in a child with limits.

    Args:
        resolved: The recipe.
        tokenizer: The policy's tokenizer.
        dataset: The recipe's rows.
        wanted: One of `dataset.splits`, a tree of it, and the row that it is made of (`find_rows`).
        today: Date that a chat template may format. None means the current date.

    Returns:
        Of each row `id`, `split`, the number of tokens that are `cut`, and `parts`: the prompt and each completion, as
        name, number of tokens and of scored tokens, and `pieces` of [role, is scored, texts of the tokens].
    """

    def show() -> list[dict[str, Any]]:
        shown = []
        for split, index, row in wanted:
            source = resolved.source(split if split in dataset.evaluation else None)
            encoder = Encoder(tokenizer, resolved.recipe.tokens, today, source.train_on)
            shown.append(_ShownRow(encoder, dataset.part(split), index, row).show() | {"split": split})
        return shown

    found: list[dict[str, Any]] = in_child(
        place_of(tokenizer), show, what="the tokenizer", doing="showing rows", seconds=SECONDS
    )
    return found


class _ShownRow:
    def __init__(self, encoder: Encoder, rows: TokenizedRows, index: int, row: Row) -> None:
        self.encoder, self.row, self.rows, self.index = encoder, row, rows, index
        self.tree = rows.trees[index]

    def show(self) -> dict[str, Any]:
        row, rows = self.row, self.rows
        prompt = self.tree.prompt
        names = rows.trees.names(self.index)[: min(len(row.completions), MOST_COMPLETIONS)]
        ends = self._ends(row)
        parts: list[dict[str, Any]] = []
        for b, branch in enumerate(self.tree.branches[: len(names)] or (None,)):  # none: a prompt alone
            own = prompt[:0] if branch is None else branch.tokens
            unknown = ["text"] * (len(prompt) + len(own))
            roles = self._roles(prompt.tolist(), own.tolist(), *ends[b]) if ends else unknown
            if not parts:
                parts.append(self._part("prompt", prompt, roles, np.zeros(len(prompt), np.bool_)))
            if branch is not None:
                scored = np.zeros(len(own), np.bool_)
                for start, stop in branch.spans.tolist():
                    scored[start:stop] = True
                parts.append(self._part(names[b], own, roles[len(prompt) :], scored))
        return {"id": row.id, "cut": int(rows.cut[self.index]) if len(rows.cut) else 0, "parts": parts}

    def _part(self, name: str, tokens: Any, roles: Sequence[str], scored: Any) -> dict[str, Any]:
        pieces: list[list[Any]] = []
        shown = zip(tokens[:MOST_TOKENS].tolist(), roles, scored.tolist(), strict=False)
        for token, role, is_scored in shown:
            if not pieces or pieces[-1][:2] != [role, is_scored]:
                pieces.append([role, is_scored, []])
            pieces[-1][2].append(str(self.encoder.tokenizer.decode([token])))
        return {"name": name, "tokens": len(tokens), "scored": int(scored.sum()), "pieces": pieces}

    def _ends(self, row: Row) -> list[tuple[str, Ends]]:
        """Return the text of the prompt with each completion, and the ends of its parts.

        A part is the text of one role. A prompt alone has one text. The list is empty where the template can't render
        the beginnings of a chat, or there are too many.
        """
        if is_chat(row) and sum(len(row.prompt) + len(one.context) for one in row.completions) > MOST_MESSAGES:
            return []
        try:
            texts = self.encoder.texts(row)
            return [(text, self._ends_of(row, b, text)) for b, text in enumerate(texts)]
        except UserError:
            return []

    def _ends_of(self, row: Row, b: int, text: str) -> Ends:
        completion = row.completions[b] if row.completions else None
        if not is_chat(row):
            assert isinstance(row.prompt, str)
            turns = list(SPEAKER.finditer(text))
            if turns:
                starts = [*(turn.start() for turn in turns), len(text)]
                names = ["text", *("user" if turn[1] == "Human" else "assistant" for turn in turns)]
                return list(zip(starts, names, strict=True))
            first = "text" if completion is not None and completion.text == text else "user"
            return [(len(row.prompt), first), (len(text), "assistant" if first == "user" else "text")]
        template = self.encoder.template
        assert template is not None
        messages: list[Message] = [*row.prompt]
        if completion is not None:
            messages += [*completion.context, answer_message(completion.text)]
        inputs = inputs_of(row)
        with template.naming(row):
            ends: Ends = [(self._before(messages, inputs), "system")]
            for n, message in enumerate(messages, 1):
                whole = template.render(messages[:n], inputs) if n < len(messages) or completion is None else text
                ends.append((max(common_start(whole, text), ends[-1][0]), _role(message["role"])))
        return [*ends, (len(text), "assistant")]  # behind a prompt alone: where the reply begins

    def _before(self, messages: Sequence[Message], inputs: Inputs) -> int:
        """Return the number of characters that the template writes before the first message.

        Tools or a default system message are such text. The first message is written once more, behind an answer: the
        text that it adds there is its own.
        """
        template = self.encoder.template
        assert template is not None
        first = messages[0]
        if first["role"] != "user":
            return 0
        chats = [first, answer_message(PLACEHOLDER)], [first, answer_message(PLACEHOLDER), first]
        end, again = (template.render(chat, inputs).rpartition(PLACEHOLDER)[2] for chat in chats)
        own, alone = again[common_start(end, again) :], template.render([first], inputs)
        return len(alone) - len(own) if own and alone.endswith(own) else 0

    def _roles(self, prompt: list[int], own: list[int], text: str, ends: Ends) -> list[str]:
        """Return the role of each token of prompt and branch.

        All roles are `text` where the tokens are not those of the text.
        """
        positions = [min(end, len(text)) for end, _ in ends]
        ((ids, cuts),) = self.encoder.boundary.tokenize([text], [positions], special=not is_chat(self.row))
        roles: list[str] = []
        for (_, role), cut in zip(ends, cuts, strict=True):
            roles += [role] * (cut.tokens + cut.spans - len(roles))
        return _placed(prompt, own, ids, roles or ["text"])


def _placed(prompt: list[int], own: list[int], ids: list[int], roles: list[str]) -> list[str]:
    """Return the roles of a tree's tokens, which are those of the whole text after truncation.

    A prompt may have lost its beginning, but not its first token, or its end. A token behind the text ends a turn.
    """
    size = len(prompt)
    whole = [*ids, *own[-1:]]  # the end-of-sequence token that plain text gets
    padded = [*roles, *roles[-1:] * (len(whole) - len(roles))]
    for start in range(size, len(whole) - len(own) + 1):
        if whole[start : start + len(own)] != own:
            continue
        if prompt[1:] == whole[start - size + 1 : start]:
            first = 0 if prompt[0] == whole[0] and prompt[0] != whole[start - size] else start - size
            return [padded[first], *padded[start - size + 1 : start + len(own)]]
        if prompt == whole[:size]:
            return [*padded[:size], *padded[start : start + len(own)]]
    if prompt[1:] == [] and whole[: len(own)] == own:  # a first token that the text doesn't have
        return [padded[0], *padded[: len(own)]]
    return ["text"] * (size + len(own))


def _role(name: str) -> str:
    role = SYNONYMS.get(name.lower(), name.lower())
    return role if role in ROLES else "text"


def find_rows(
    resolved: Resolved, dataset: TokenizedDataset, places: Sequence[tuple[str, int]], reader: RowReader | None = None
) -> list[Row]:
    """Return the rows that trees are made of, in the objective's shape.

    The store has the texts of all rows but the training rows behind the first; for those the source is read once more.

    Args:
        resolved: The recipe.
        dataset: Its rows.
        places: One of `dataset.splits`, and a tree of it.
        reader: Reader of the recipe's data.

    Raises:
        UserError: A row is not in the data any more.
    """
    parts = {split: dataset.part(split) for split, _ in places}
    far = {parts[split].trees.ids[index] for split, index in places if index >= len(parts[split].rows)}
    found = _read_again(resolved.recipe, far, reader)
    if len(found) < len(far):
        raise UserError(f"the row {min(far - set(found))} is not in the data any more", where="data")
    return [
        rows.rows[index] if index < len(rows.rows) else found[rows.trees.ids[index]]
        for split, index in places
        for rows in [parts[split]]
    ]


def _read_again(recipe: Recipe, wanted: Set[str], reader: RowReader | None) -> dict[str, Row]:
    """Return the training rows with these ids that are in the data."""
    found: dict[str, Row] = {}
    near = wanted | {id.rpartition("/")[0] for id in wanted}  # a pair of a list has the list's id and its places
    rows = iter(reader or RowReader(recipe.data))
    while len(found) < len(wanted) and (row := next(rows, None)):
        if row.id in near:
            converted, _ = convert_rows([row], recipe.objective, recipe.data.pairs, recipe.data.train_on)
            found |= {one.id: one for one in converted if one.id in wanted}
    return found


def first_rows(
    resolved: Resolved, tokenizer: PreTrainedTokenizerBase, dataset: TokenizedDataset, today: date | None = None,
    count: int = 3,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the first training rows, and the first row of each evaluated part.

    The result is that of `show_rows`.
    """
    counts = {"train": count} | dict.fromkeys(dataset.splits[1:], 1)
    wanted = [
        (split, index, row)
        for split, most in counts.items()
        for index, row in enumerate(dataset.part(split).rows[:most])
    ]
    return show_rows(resolved, tokenizer, dataset, wanted, today)
