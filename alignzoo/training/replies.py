"""Greedy replies to held-out prompts before and after training, and judges' verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.console import Screen
from alignzoo.data.dataset import tokenized_dataset
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.evaluation.judging import run_judge
from alignzoo.evaluation.samples import choose_reply_rows, reply_records
from alignzoo.interfaces.judge import Prompt
from alignzoo.models.generation import Reply, generate_replies
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.job import Job
from alignzoo.training.records import Sample, read_lines
from alignzoo.training.reporting import Reporting
from alignzoo.training.run_folder import RunFolder


def greedy_replies(
    job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: TokenizedRows
) -> list[Reply]:
    """Generate greedy replies to `eval.replies.num_prompts` held-out prompts.

    There are none with a reward model, and where all tokens are scored, so that no prompt ends where a reply begins.
    """
    if job.recipe.objective.head == "scalar" or job.recipe.data.train_on == "all":
        return []
    replies = job.recipe.eval.replies
    prompts = [held_out.trees[i].prompt for i in choose_reply_rows(held_out, replies.num_prompts)]

    def generate() -> list[Reply]:
        return generate_replies(model, tokenizer, prompts, temperature=0, max_new_tokens=replies.max_new_tokens, seed=0)

    return job.ranks.alike(generate)


def judge_replies(
    job: Job,
    tokenizer: PreTrainedTokenizerBase,
    held_out: TokenizedRows,
    before: Sequence[Reply],
    after: Sequence[Reply],
) -> dict[str, Any]:
    """Write samples.jsonl, and return each judge's figures under its name."""
    if not after:
        return {}
    count = job.recipe.eval.replies.num_prompts
    lines = reply_records(held_out, count, tokenizer, before, after)
    job.folder.write_lines("samples.jsonl", lines)
    rows = [held_out.rows[i] for i in choose_reply_rows(held_out, count)]
    prompts, columns = [row.prompt for row in rows], [row.all_columns for row in rows]
    judges = job.recipe.eval.judges
    return job.ranks.broadcast_from_main(
        lambda: {judge.name: run_judge(judge, prompts, lines, job.screen, columns) for judge in judges}
    )


def held_out_rows(resolved: Resolved, run: RunFolder, screen: Screen) -> dict[str, tuple[Prompt, dict[str, Any]]]:
    """Return id -> (prompt, other columns) of a finished run's evaluated rows."""
    tokenizer = pretrained_tokenizer(str(run.policy), None, resolved.recipe.model.runs_code)
    dataset = tokenized_dataset(resolved, tokenizer, screen.info, run.first_day())
    return {row.id: (row.prompt, row.all_columns) for row in dataset.answered.rows}


def judge_again(
    resolved: Resolved, folder: RunFolder, summary: dict[str, Any], reporting: Reporting, screen: Screen
) -> dict[str, Any]:
    """Run the judges again that failed on a finished run.

    Returns the summary with their figures.
    """
    before = summary.get("judges", {})
    failed = [judge for judge in resolved.recipe.eval.judges if "problem" in before.get(judge.name, {})]
    lines = read_lines(folder.path / "samples.jsonl", Sample) if failed and folder.writes else []
    if not lines:
        return summary
    with folder.held(screen.info):
        known = held_out_rows(resolved, folder, screen)
        rows = [known[line["id"]] for line in lines]
        prompts, columns = [prompt for prompt, _ in rows], [own for _, own in rows]
        screen.info(f"asked again, after a failure: {', '.join(judge.name for judge in failed)}")
        figures = {judge.name: run_judge(judge, prompts, lines, screen, columns) for judge in failed}
        if any("problem" not in found for found in figures.values()):
            summary = summary | {"judges": before | figures}
            folder.finish(summary, reporting.finish)
    return summary
