"""Lines printed before training: model, data, layout and number of steps."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from alignzoo.data.statistics import data_lines, tokenization_notes
from alignzoo.data.trees import Trees
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import TIE
from alignzoo.scoring.layout import Layout
from alignzoo.training.job import Job
from alignzoo.training.number_types import type_words


def announce(job: Job, report: dict[str, Any], model: PreTrainedModel, layout: Layout, steps: int) -> None:
    """Print the size of the model, the counts of rows, the layout and the number of steps.

    `report` is data.json, which has the counts.
    """
    recipe, resolved, info = job.recipe, job.resolved, job.screen.info
    start = f"the policy of {resolved.start.recipe.name}" if resolved.start else "its own start"
    size = sum(parameter.numel() for parameter in model.parameters())
    info(f"{recipe.name}: {recipe.objective} from {start} ({size / 1e6:.2f} M parameters), on {job.ranks.device}")
    info(f"numbers: {type_words(recipe)}")
    skipped = ", ".join(f"{count} {reason}" for reason, count in report["skipped_by_reason"].items())
    info(
        f"data: {report['train']:,} training and {report['held_out']:,} held-out rows of {report['read']:,} read"
        + (f"; skipped: {skipped}" if skipped else "")
    )
    for line in data_lines(report, recipe):
        info(f"data: {line}")
    for line in tokenization_notes(report, recipe.tokens.thinking):
        info(f"data: {line}")
    if "toy" in [getattr(part, "path", part.name) for part in recipe.data.parts.values()]:
        info(
            "data: this is the embedded toy set; for real HH set data.path=FILE_OR_FOLDER, "
            "or add --with scale/pythia-2.8b.yaml"
        )
    info(f"layout: {layout.used} ({layout.reason}); {steps:,} steps of {recipe.train.batch_size} rows")


def ties_line(objective: Objective, trees: Trees) -> str:
    """Count the ties among training rows for an objective that takes some, or return "".

    A column of another name than `tie` marks none, which no other figure shows.
    """
    if not objective.ties or TIE not in trees.columns or not trees.answered:
        return ""
    ties = int((trees.columns[TIE][trees.first[:-1]] > 0.5).sum())
    hint = "" if ties else "; a row is one if its column 'tie' is 1, or its completions have equal scores"
    return f"{ties:,} of {len(trees):,} training rows are ties, which {objective.name} takes{hint}"
