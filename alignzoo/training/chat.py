"""A conversation with the policy of a finished run, one reply at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.data.tokenize import tokenize
from alignzoo.interfaces.rows import Row
from alignzoo.models.ending import Ending
from alignzoo.models.generation import end_tokens, generate_replies
from alignzoo.training.generate import Drawing, dialogue, load_model, open_run

PART = "\ufffd"
"""What the beginning of a character is decoded to, whose other tokens are not there yet."""


@dataclass(frozen=True)
class _Shown(Ending):
    """The end of a single reply, which shows the reply's text after each token."""

    show: Callable[[str], None] = lambda piece: None
    so_far: list[str] = field(default_factory=list)
    """Pieces that were shown."""

    def reached(self, last: NDArray[np.int64], reply: Callable[[int], NDArray[Any]]) -> NDArray[np.bool_]:
        """Show what the last token adds, and return True if it ends the reply."""
        ids = [id for id in reply(0).tolist() if id not in self.tokens]
        self.show_text(str(self.tokenizer.decode(ids, skip_special_tokens=True)).rstrip(PART))
        return super().reached(last, reply)

    def show_text(self, text: str) -> None:
        """Show the part of a text that comes after what was shown."""
        before = "".join(self.so_far)
        if text.startswith(before) and text != before:
            self.so_far.append(text[len(before) :])
            self.show(self.so_far[-1])


class Conversation:
    """A conversation: the turns so far, and the policy that replies.

    Turns are rendered by the chat template of the run's tokenizer. Without one they are a dialogue of `Human:` and
    `Assistant:`, as in HH.

    Args:
        run: The run folder.
        settings: How replies are drawn.
        screen: Receives progress.

    Raises:
        UserError: The run is not finished, or trains a reward model.
    """

    def __init__(self, run: Path, settings: Drawing, screen: Screen) -> None:
        self.folder, self.resolved, self.tokenizer = open_run(run)
        self.settings = settings
        self.turns: list[tuple[str, str]] = []
        """Role and text of each turn."""
        self.model = load_model(self.folder, self.resolved, self.tokenizer, screen)
        if not self.tokenizer.chat_template:
            screen.info("the tokenizer has no chat template: turns are written as `Human:` and `Assistant:`")

    def clear(self) -> None:
        """Forget every turn."""
        self.turns = []

    def reply(self, text: str, show: Callable[[str], None] = lambda piece: None) -> str:
        """Reply to the user's next turn.

        Args:
            text: The turn.
            show: Receives each piece of the reply as soon as its characters are known; the pieces joined are the reply.

        Raises:
            UserError: The turn is not valid Unicode; or the prompt is too long, and the recipe does not cut prompts.
        """
        try:
            text.encode()
        except UnicodeEncodeError:  # of bytes that are not UTF-8, in some locales
            raise UserError("the turn is not valid Unicode", where="stdin", expected="UTF-8 text") from None
        recipe = self.resolved.recipe
        prompt = self._prompt([*self.turns, ("user", text)])
        found = tokenize([Row("chat", prompt, (), group="")], self.tokenizer, recipe.tokens, self.folder.first_day())
        if not len(found.trees):
            raise UserError(f"the conversation can't be continued: {found.skipped[0].reason}", where="tokens")
        ending = _Shown(self.tokenizer, frozenset(end_tokens(self.model, self.tokenizer)), show=show)
        (reply,) = generate_replies(
            self.model, self.tokenizer, [found.trees[0].prompt], **self.settings.arguments(recipe), ending=ending
        )  # fmt: skip
        ending.show_text(reply.text)
        self.turns += [("user", text), ("assistant", reply.text)]
        return reply.text

    def _prompt(self, turns: list[tuple[str, str]]) -> Any:
        if self.tokenizer.chat_template:
            return tuple({"role": role, "content": text} for role, text in turns)
        return dialogue(turns)
