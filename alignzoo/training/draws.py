"""A run that makes a data set: prompts, completions of a model, and their scores.

    parts/train/000012/drawn, judged    sealed folders, as those of a rollout; a stopped run uses them again
    draws/train.jsonl, test.jsonl       the data set, written once all parts are there; then the parts are removed

A completion is a function of weights, seed, row and number. Parts and batches do not change it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.artifacts import atomic_folder, quarantine, read_verified, write_manifest
from alignzoo.core.errors import UserError
from alignzoo.core.files import remove, translate_os_errors
from alignzoo.core.memory import peak_memory
from alignzoo.data.drawn_rows import FILES, FOLDER, DrawsManifest
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.data.tokenize import vocabulary_digest
from alignzoo.interfaces.data_source import Split
from alignzoo.models.fingerprint import weights_fingerprint
from alignzoo.recipe.draw import DrawConfig
from alignzoo.rollouts.attempts import Attempt, Attempts
from alignzoo.rollouts.data_set import data_set_figures, drawn_rows, final_rewards, reward_columns
from alignzoo.rollouts.folder import Arrays, RolloutFolder
from alignzoo.rollouts.held_out import HELD_OUT, ending_of
from alignzoo.rollouts.prompts import Prompts, longest_prompt
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.beginning import read_data, write_recipe
from alignzoo.training.job import Job
from alignzoo.training.online import check_endings
from alignzoo.training.policy import open_scorer
from alignzoo.training.preflight import check_length, check_reward_columns
from alignzoo.training.summary import code_of, data_counts, versions

PARTS = "parts"
PROMPTS_OF_A_PART = 256
"""Prompts that are drawn for and judged at once. A run that is killed loses one part."""
STREAMS: dict[Split, int] = {"train": 0, "test": HELD_OUT}
"""Side -> the number of a rollout whose random numbers its draws have."""


@dataclass(frozen=True)
class _Side:
    """The prompts of one side of the split, and what draws for them."""

    name: Split
    prompts: Prompts
    attempts: Attempts
    folder: RolloutFolder

    def parts(self) -> list[Any]:
        """Return the places of the prompts of each part."""
        starts = range(0, len(self.prompts), PROMPTS_OF_A_PART)
        return [np.arange(start, min(start + PROMPTS_OF_A_PART, len(self.prompts))) for start in starts]

    def draw(self, number: int, places: Any) -> Attempt:
        """Return the draws of a part, from the disk where they are there."""

        def phase(
            attempt: int, name: str, make: Callable[[], Arrays], fits: Callable[[Arrays], bool], texts: Any = None
        ) -> Arrays:  # fmt: skip
            return self.folder.phase(number, name, make, fits, texts)

        when = f"prompts {places[0] + 1:,} to {places[-1] + 1:,} of {FILES[self.name]}: "
        return self.attempts.attempt(STREAMS[self.name], 0, places, when, phase)


def draw_data_set(job: Job) -> dict[str, Any]:
    """Make the data set of a recipe with `draw`, or the rest of it, and return the summary.

    Raises:
        UserError: No prompt is usable, or a key doesn't fit the tokenizer or the model.
        RunFailed: A judge fails.
        Interrupted: A signal came; the parts that are there are kept.
    """
    config = job.recipe.draw
    assert config is not None
    write_recipe(job)
    if job.ranks.parted:
        raise UserError("completions are drawn by processes that each hold the whole model", where="draw",
                        expected="a launch without FSDP2 and ZeRO")  # fmt: skip
    tokenizer, data = read_data(job)
    check_endings(config, tokenizer, "draw")
    check_reward_columns(job.recipe, iter(data.train.rows))
    prompts = _prompts(job, data, config)
    began = time.perf_counter()
    scorer = open_scorer(
        job.resolved, tokenizer, job.start, job.ranks,
        check=lambda model: check_length(model, longest_prompt(list(prompts.values())), config.max_new_tokens, "draw"),
    )  # fmt: skip
    _announce(job, config, data, prompts, scorer.model)
    about: dict[str, Any] | None = job.ranks.broadcast_from_main(lambda: _known(job))
    if about is None:
        made = _draw(job, config, prompts, scorer, tokenizer)
        about = job.ranks.broadcast_from_main(lambda: _write(job, config, prompts, made, scorer, tokenizer))
    figures, seconds = about["figures"], time.perf_counter() - began
    summary = job.ranks.broadcast_from_main(lambda: _summary(job, data, scorer.model, figures, seconds))
    with job.stopping.uninterruptible():
        if job.folder.writes:
            remove(job.folder.path / PARTS)
        job.folder.finish(summary, job.reporting.finish)
    return summary


def _prompts(job: Job, data: TokenizedDataset, config: DrawConfig) -> dict[Split, Prompts]:
    limits = (job.recipe.tokens.max_length, config.max_new_tokens, job.screen.info, "draw")
    found: dict[Split, Prompts] = {"train": Prompts.of(data.train, *limits)}
    if not len(found["train"]):
        raise UserError("no prompt is usable; data.json in the run folder has the reasons", where="data")
    if len(data.held_out.trees):
        found["test"] = Prompts.of(data.held_out, *limits)
    return found


def _announce(
    job: Job, config: DrawConfig, data: TokenizedDataset, prompts: dict[Split, Prompts], model: PreTrainedModel
) -> None:
    start = f"the policy of {job.resolved.start.recipe.name}" if job.resolved.start else str(job.recipe.model)
    size = sum(parameter.numel() for parameter in model.parameters())
    held_out = f" and {len(prompts['test']):,} held-out" if "test" in prompts else ""
    job.screen.info(f"{job.recipe.name}: draws from {start} ({size / 1e6:.2f} M parameters), on {job.ranks.device}")
    job.screen.info(
        f"data: {len(prompts['train']):,}{held_out} prompts of {data.report['read']:,} rows read, "
        f"{config.completions} draws each"
    )


def _draw(
    job: Job, config: DrawConfig, prompts: dict[Split, Prompts], scorer: Scorer, tokenizer: PreTrainedTokenizerBase
) -> dict[Split, Attempt]:
    """Return the draws and scores of all prompts, made a part at a time."""
    ending, total, done = ending_of(scorer.model, tokenizer, config), sum(map(len, prompts.values())), 0
    made: dict[Split, Attempt] = {}
    with job.screen.bar("drawing", total) as advance:
        for name, own in prompts.items():
            folder = RolloutFolder(job.folder.path / PARTS / name, job.resolved.fingerprint, job.ranks)
            attempts = Attempts(job.recipe, None, scorer, None, tokenizer, own, folder, job.screen, job.ranks, ending)
            side, parts = _Side(name, own, attempts, folder), []
            for number, places in enumerate(side.parts()):
                job.stopping.doing = (
                    f"stopped after drawing for {done:,} of {total:,} prompts; they are kept, and the same command "
                    "continues"
                )
                parts.append(side.draw(number, places))
                done += len(places)
                reward = float(parts[-1].judged.reward.sum() / max(1, parts[-1].judged.kept.sum()))
                advance(len(places), f"reward {reward:.3f}" if config.rewards else "")
                if job.screen.logs:
                    job.screen.event(f"drawn for {done:,} of {total:,} prompts, reward {reward:.3f}")
            made[name] = Attempt.join(parts)
    return made


def _known(job: Job) -> dict[str, Any] | None:
    """Return about.json of the data set if it is written; one that is damaged is set aside."""
    folder = job.folder.path / FOLDER
    about = read_verified(folder, DrawsManifest)
    if about is not None and about["run"] == job.resolved.fingerprint:
        return about
    if folder.exists() and job.folder.writes:
        quarantine(folder)
    return None


def _write(
    job: Job, config: DrawConfig, prompts: dict[Split, Prompts], made: dict[Split, Attempt], scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:  # fmt: skip
    """Write the data set, and return what its about.json has."""
    ending = ending_of(scorer.model, tokenizer, config)
    about: dict[str, Any] = {
        "run": job.resolved.fingerprint, "vocabulary": vocabulary_digest(tokenizer), "rewards": reward_columns(config),
        "figures": {},
    }  # fmt: skip
    with atomic_folder(job.folder.path / FOLDER) as temporary:
        for name, draws in made.items():
            judged = final_rewards(config, prompts[name], draws)
            file = temporary / FILES[name]
            with translate_os_errors(file), open(file, "w", encoding="utf-8", errors="replace") as lines:
                for row in drawn_rows(config, prompts[name], draws, judged, ending):
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            about["figures"][name] = data_set_figures(config, draws, judged)
        write_manifest(temporary, about)
    return about


def _summary(
    job: Job, data: TokenizedDataset, model: PreTrainedModel, figures: dict[str, Any], seconds: float
) -> dict[str, Any]:
    resolved, recipe = job.resolved, job.recipe
    return {
        "name": recipe.name,
        "fingerprint": resolved.fingerprint,
        "finished": True,
        "objective": {"name": recipe.objective.name},
        "draws": figures,
        "model": {
            "start": f"the run of {resolved.start.recipe.name}" if resolved.start else str(recipe.model),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "weights": weights_fingerprint(model),
        },
        "data": data_counts(data.report),
        "train": {"steps": 0, "pairs": 0, "seconds": seconds, "pairs_per_second": 0.0},
        "processes": job.ranks.count,
        "peak_memory_bytes": peak_memory(job.ranks.device),
        "versions": versions(),
        "plugins": code_of(resolved),
    }
