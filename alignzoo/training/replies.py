"""Greedy replies to held-out prompts, before and after training, and the judges' verdicts on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.data.tokenize import TokenizedRows
from alignzoo.evaluation.judging import run_judge
from alignzoo.evaluation.samples import choose_reply_rows, reply_records
from alignzoo.models.generation import generate_replies
from alignzoo.training.job import Job


def greedy_replies(
    job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: TokenizedRows
) -> list[str]:
    """Generate greedy replies to `eval.replies.num_prompts` held-out prompts.

    There are none with a reward model, and where all tokens are scored, so that no prompt ends where a reply begins.
    """
    if job.recipe.objective.head == "scalar" or job.recipe.data.train_on == "all":
        return []
    replies = job.recipe.eval.replies
    prompts = [held_out.trees[i].prompt for i in choose_reply_rows(held_out, replies.num_prompts)]

    def generate() -> list[str]:
        found = generate_replies(
            model, tokenizer, prompts, temperature=0, max_new_tokens=replies.max_new_tokens, seed=0
        )
        return [reply.text for reply in found]

    return job.ranks.alike(generate)


def judge_replies(
    job: Job,
    tokenizer: PreTrainedTokenizerBase,
    held_out: TokenizedRows,
    before: Sequence[str],
    after: Sequence[str],
) -> dict[str, Any]:
    """Write samples.jsonl, and return each judge's figures under its name."""
    if not after:
        return {}
    count = job.recipe.eval.replies.num_prompts
    lines = reply_records(held_out, count, tokenizer, before, after)
    job.folder.write_lines("samples.jsonl", lines)
    rows = [held_out.rows[i] for i in choose_reply_rows(held_out, count)]
    judges = job.recipe.eval.judges
    return job.ranks.broadcast_from_main(
        lambda: {judge.name: run_judge(judge, rows, lines, job.screen) for judge in judges}
    )
