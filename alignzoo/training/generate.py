"""Replies of a finished run's policy to the prompts of a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.data.convert import to_prompts
from alignzoo.data.row_reader import RowReader
from alignzoo.data.sources.files import Files
from alignzoo.data.tokenize import TokenizedRows, tokenize
from alignzoo.models.adapters import is_adapter
from alignzoo.models.generation import generate_replies
from alignzoo.models.tokenizers import decode, pretrained_tokenizer
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.resolved import Resolved
from alignzoo.recipe.schema import Recipe
from alignzoo.training.policy import device_of, open_scorer
from alignzoo.training.run import start_weights
from alignzoo.training.run_folder import RunFolder


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
    folder, resolved, tokenizer = open_run(run, recipe)
    found = _read(resolved, prompts, tokenizer, folder, screen)
    model = load_model(folder, resolved, tokenizer, screen)
    rows = [row for row in range(len(found.trees)) for _ in range(settings.samples)]
    ids = [found.trees[row].prompt for row in rows]
    with screen.bar("replies", len(rows)) as advance:
        replies = generate_replies(
            model, tokenizer, ids, **settings.arguments(resolved.recipe), progress=advance
        )  # fmt: skip
    return [
        {"id": found.trees.ids[row], "prompt": prompt, "reply": reply.text, "finished": reply.finished,
         "tokens": len(reply.tokens), "log_prob": reply.log_prob}
        for row, prompt, reply in zip(rows, decode(tokenizer, ids), replies, strict=True)
    ]  # fmt: skip


def open_run(run: Path, recipe: Resolved | None = None) -> tuple[RunFolder, Resolved, PreTrainedTokenizerBase]:
    """Return the folder, the recipe and the tokenizer of a run whose policy can reply.

    `recipe` is the run's, by default the one in its folder.

    Raises:
        UserError: The run is not finished, or trains a reward model.
    """
    folder, resolved = RunFolder(run), recipe or load_recipe(run)
    if folder.summary() is None:
        raise UserError("the run is not finished", where=str(run), hint="finish it with `alignzoo run`")
    if resolved.recipe.objective.head == "scalar":
        raise UserError("a reward model writes no replies", where=str(run), expected="a run of a language model")
    return folder, resolved, pretrained_tokenizer(str(folder.policy), None, resolved.recipe.model.runs_code)


def load_model(
    folder: RunFolder, resolved: Resolved, tokenizer: PreTrainedTokenizerBase, screen: Screen
) -> PreTrainedModel:
    """Load a finished run's policy onto its device."""
    start = start_weights(resolved, screen) if is_adapter(folder.policy) else None
    ranks = Ranks(device_of(resolved.recipe.train.device))
    return open_scorer(resolved, tokenizer, start, ranks, trained=folder.policy).model


def _read(
    resolved: Resolved, path: Path, tokenizer: PreTrainedTokenizerBase, folder: RunFolder, screen: Screen
) -> TokenizedRows:
    """Return the prompts of a file in the run's tokens, and report what was skipped."""
    recipe = resolved.recipe
    reader = RowReader(Files(path=str(path)), evaluation=True)
    try:
        rows, skipped = to_prompts([row for _, row in reader.used()])
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
    return found
