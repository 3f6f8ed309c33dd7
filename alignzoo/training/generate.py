"""Replies of a finished run's policy to the prompts of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.data.convert import to_prompts
from alignzoo.data.formats.dialogue import ASSISTANT, HUMAN
from alignzoo.data.row_reader import RowReader
from alignzoo.data.sources.files import Files
from alignzoo.data.tokenize import TokenizedRows, tokenize
from alignzoo.interfaces.rows import Row, plain_text, words
from alignzoo.models.adapters import is_adapter
from alignzoo.models.generation import Reply, generate_replies
from alignzoo.models.tokenizers import decode, pretrained_tokenizer
from alignzoo.recipe.resolved import Resolved
from alignzoo.recipe.schema import Recipe
from alignzoo.training.needed_runs import start_weights
from alignzoo.training.policy import device_of, open_scorer
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.runs import load_finished


@dataclass(frozen=True, slots=True)
class Drawing:
    """Settings of replies, as an evaluation has them."""

    temperature: float = 0.0
    """Temperature of the draws; 0 takes the likeliest token."""
    top_p: float = 1.0
    """Draws are from the likeliest tokens with this share of the mass."""
    max_new_tokens: int | None = None
    """Limit of a reply in tokens; None for the recipe's `eval.replies.max_new_tokens`."""
    seed: int = 0
    """Seed of the random streams, one for each reply."""
    samples: int = 1
    """Replies to each prompt."""

    def arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Return the arguments of `generate_replies` that these settings and a run's recipe give."""
        limit = self.max_new_tokens or recipe.eval.replies.max_new_tokens
        return {"temperature": self.temperature, "top_p": self.top_p, "max_new_tokens": limit, "seed": self.seed}


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt of a file, and a reply to it."""

    row: Row
    asked: str
    """The last message of the prompt, or a prompt that is a string, as the file has it."""
    prompt: str
    """The prompt as the model reads it."""
    reply: Reply


def reply_to_file(
    run: Path, prompts: Path, settings: Drawing, screen: Screen, recipe: Resolved | None = None
) -> list[dict[str, Any]]:
    """Reply to every prompt of a file, as an evaluation does with the same settings.

    The prompts are read as a dataset's are, and rendered and cut as in the run. Completions beside them are left out.

    Args:
        run: The run folder.
        prompts: Records with a prompt: JSONL, JSON, CSV, TSV or Parquet.
        settings: How replies are drawn.
        screen: Receives progress.
        recipe: The run's recipe; by default the one in its folder.

    Returns:
        For each reply, in the file's order: `id`, `prompt` as the model reads it, `reply`, `finished`, `tokens` and
        `log_prob`, the sum over the reply's tokens in nats.

    Raises:
        UserError: The run is not finished or trains a reward model, or the file has no prompt.
    """
    return [
        {"id": one.row.id, "prompt": one.prompt, "reply": one.reply.text, "finished": one.reply.finished,
         "tokens": len(one.reply.tokens), "log_prob": one.reply.log_prob}
        for one in draw(run, Files(path=str(prompts)), settings, screen, recipe=recipe)
    ]  # fmt: skip


def draw(
    run: Path,
    source: Files,
    settings: Drawing,
    screen: Screen,
    as_dialogue: bool = False,
    recipe: Resolved | None = None,
) -> list[Answered]:
    """Draw replies to the prompts of a source, in its order.

    With `as_dialogue` a chat becomes a dialogue where the run's tokenizer has no chat template, as in `alignzoo chat`.

    Raises:
        UserError: As `reply_to_file`.
    """
    folder, resolved, tokenizer = open_run(run, recipe)
    found, asked = _read(resolved, source, tokenizer, folder, screen, as_dialogue)
    model = load_model(folder, resolved, tokenizer, screen)
    rows = [row for row in range(len(found.trees)) for _ in range(settings.samples)]
    ids = [found.trees[row].prompt for row in rows]
    with screen.bar("replies", len(rows)) as advance:
        replies = generate_replies(
            model, tokenizer, ids, **settings.arguments(resolved.recipe), progress=advance
        )  # fmt: skip
    prompts = decode(tokenizer, ids)
    answered = ((found.rows[row], prompt, reply) for row, prompt, reply in zip(rows, prompts, replies, strict=True))
    return [Answered(row, asked[row.id], prompt, reply) for row, prompt, reply in answered]


def dialogue(turns: Sequence[tuple[str, str]]) -> str:
    """Return turns of (role, text) as a dialogue that the assistant continues, as HH has it."""
    marks = {"user": f"{HUMAN} ", "assistant": ASSISTANT}  # a reply begins with its own space
    return "".join(marks[role] + text for role, text in turns) + ASSISTANT


def open_run(run: Path, recipe: Resolved | None = None) -> tuple[RunFolder, Resolved, PreTrainedTokenizerBase]:
    """Return the folder, the recipe and the tokenizer of a run whose policy can reply.

    `recipe` is the run's, by default the one in its folder.

    Raises:
        UserError: The run is not finished, or trains a reward model.
    """
    folder, resolved = RunFolder(run), recipe or load_finished(run)
    if resolved.recipe.objective.head == "scalar":
        raise UserError("a reward model writes no replies", where=str(run), expected="a run of a language model")
    return folder, resolved, pretrained_tokenizer(str(folder.policy), None, resolved.recipe.model.runs_code)


def _as_dialogue(row: Row) -> Row:
    if isinstance(row.prompt, str):
        return row
    if odd := next((one["role"] for one in row.prompt if one["role"] not in ("user", "assistant")), ""):
        raise UserError(f"row {row.id} has a message of the role '{odd}', and the tokenizer has no chat template",
                        where="data", expected="messages of user and assistant")  # fmt: skip
    return replace(row, prompt=dialogue([(one["role"], words(one)) for one in row.prompt]))


def load_model(
    folder: RunFolder, resolved: Resolved, tokenizer: PreTrainedTokenizerBase, screen: Screen
) -> PreTrainedModel:
    """Load a finished run's policy onto its device."""
    start = start_weights(resolved, screen) if is_adapter(folder.policy) else None
    ranks = Ranks(device_of(resolved.recipe.train.device))
    return open_scorer(resolved, tokenizer, start, ranks, trained=folder.policy).model


def _read(
    resolved: Resolved, source: Files, tokenizer: PreTrainedTokenizerBase, folder: RunFolder, screen: Screen,
    as_dialogue: bool,
) -> tuple[TokenizedRows, dict[str, str]]:  # fmt: skip
    """Return the prompts of a file in the run's tokens, and id -> last message.

    What was skipped is reported.
    """
    recipe, path = resolved.recipe, source.path
    reader = RowReader(source, evaluation=True)
    try:
        rows, skipped = to_prompts([row for _, row in reader.used()])
        asked = {row.id: plain_text(row.prompt if isinstance(row.prompt, str) else row.prompt[-1]) for row in rows}
        if as_dialogue and not tokenizer.chat_template:
            rows = list(map(_as_dialogue, rows))
        if not tokenizer.chat_template and any(not isinstance(row.prompt, str) for row in rows):
            raise UserError("a prompt is chat messages, and the tokenizer of this run has no chat template",
                            where=str(path), expected="prompts that are strings")  # fmt: skip
        found = tokenize(rows, tokenizer, recipe.tokens, folder.first_day())
    except UserError as error:  # this is not the data of the recipe
        moved = [replace(one, where=str(path)) if one.where == "data" else one for one in error.problems]
        raise type(error)(moved) from None
    reasons = Counter(one.reason for one in (*reader.plan.rows.skipped, *skipped, *found.skipped))
    for reason, count in reasons.items():
        screen.info(f"{count:,} skipped: {reason}")
    if found.truncated_prompts:
        screen.info(f"{found.truncated_prompts:,} prompts were cut to {recipe.tokens.max_prompt_length} tokens")
    if not len(found.trees):
        raise UserError("the file has no prompt", where=str(path), expected='records such as {"prompt": "..."}')
    return found, asked
