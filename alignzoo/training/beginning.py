"""The first phases of every run: its recipe in the run folder, and its rows as tokens."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from alignzoo.core.errors import UserError
from alignzoo.core.redaction import holds_secret
from alignzoo.data.shown_rows import first_rows
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.training.job import Job
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.policy import open_data


def write_recipe(job: Job) -> None:
    """Write recipe.yaml, which names the recipes of needed runs in their folders.

    Raises:
        UserError: A plugin's field has a secret as its default.
    """
    needs = {key: f"../{folder_of(need).path.name}/recipe.yaml" for key, need in job.resolved.needs.items()}
    text = job.resolved.to_yaml(needs)
    if holds_secret(text):  # the recipe's own text was checked when it was read
        raise UserError(
            "a plugin's field has a secret as its default, which recipe.yaml would keep",
            where=str(job.resolved.path),
            expected="a field that names an environment variable",
        )  # fmt: skip
    job.folder.write_text("recipe.yaml", text)
    job.ranks.need_shared(job.folder.path)


def read_data(job: Job) -> tuple[PreTrainedTokenizerBase, TokenizedDataset]:
    """Load the tokenizer and the rows, and write data.json and rows.jsonl."""
    job.stopping.doing = "stopped while reading and tokenizing the data; the same command begins with that again"
    first_day = job.ranks.broadcast_from_main(job.folder.first_day)
    tokenizer, data = open_data(job.resolved, job.start, first_day, job.screen, job.ranks)
    job.folder.write_json("data.json", data.report)
    if job.folder.writes:
        job.folder.write_lines("rows.jsonl", first_rows(job.resolved, tokenizer, data, first_day))
    return tokenizer, data
