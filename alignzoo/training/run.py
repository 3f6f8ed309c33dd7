"""Whole run: recipe -> data -> trees -> reference -> steps -> evaluation -> run folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.files import remove
from alignzoo.core.memory import reset_peak_memory, tune_malloc
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.models.compile import compiled_layers, disable_tf32
from alignzoo.models.fingerprint import weights_fingerprint
from alignzoo.models.loading import use_gradient_checkpointing
from alignzoo.recipe.resolved import Resolved
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scorer import Scorer
from alignzoo.training import checkpoint
from alignzoo.training.adapt import adapt, export_policy
from alignzoo.training.announce import announce, ties_line
from alignzoo.training.beginning import read_data, write_recipe
from alignzoo.training.critic import open_critic
from alignzoo.training.draws import draw_data_set
from alignzoo.training.extension import inherit_day, set_back
from alignzoo.training.job import Job
from alignzoo.training.loop import Training, watch_steps
from alignzoo.training.master_weights import memory_words
from alignzoo.training.memory_model import ModelSize, count_weights, static_parts
from alignzoo.training.needed_runs import critic_weights, folder_of, open_judges, reference_weights, start_weights
from alignzoo.training.number_types import static_words
from alignzoo.training.online import Online
from alignzoo.training.optimizers import check_parted, make_optimizer
from alignzoo.training.policy import device_of, open_policy
from alignzoo.training.preflight import check_enough_rows, check_positions, no_router_loss, preflight
from alignzoo.training.records import Line, as_table, read_lines
from alignzoo.training.references import MAIN, References, check_vocabularies, live_reference, score_references
from alignzoo.training.replies import greedy_replies, judge_again, judge_replies
from alignzoo.training.reply_evaluations import ReplyEvaluations
from alignzoo.training.reporting import Reporting
from alignzoo.training.resume import resume
from alignzoo.training.row_filter import filtered
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.schedule import total_steps
from alignzoo.training.selection import validation_rows
from alignzoo.training.step import Engine
from alignzoo.training.summary import FinishedRun, summarize
from alignzoo.training.zero import check_zero, wrap_with_zero


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: its folder, and `summary.json` as a dictionary."""

    folder: Path
    summary: dict[str, Any] = field(repr=False)
    resolved: Resolved | None = field(default=None, repr=False, compare=False)
    """Its recipe, where it was run from Python: with the classes that were in memory."""

    @property
    def policy(self) -> Path:
        """The trained policy and its tokenizer, for `AutoModelForCausalLM.from_pretrained`."""
        return self.folder / "policy"

    @property
    def metrics(self) -> Any:
        """The lines of metrics.jsonl: a DataFrame, or a list of dictionaries without pandas."""
        return as_table(read_lines(RunFolder(self.folder).metrics, Line))


def run_resolved(
    resolved: Resolved, *, fresh: bool = False, wait: bool = False, screen: Screen, resume_from: Path | None = None
) -> RunResult:
    """Run a resolved recipe, after the runs that it needs.

    A finished run is returned, and a stopped one continues. `resume_from` is a checkpoint to go on from.

    Every process of a job calls it; all return the result or raise the same error. With `wait`, a run that another
    job is working on is waited for, as the runs that this one needs always are.
    """
    resolved = resolved.reread()
    ranks = Ranks(device_of(resolved.recipe.train.device))
    with ranks.together():
        return _run(resolved, fresh, wait, screen if ranks.main else Screen(quiet=True), ranks, resume_from)


def _run(
    resolved: Resolved, fresh: bool, wait: bool, screen: Screen, ranks: Ranks, resume_from: Path | None
) -> RunResult:
    folder, waiting = RunFolder(folder_of(resolved).path, writes=ranks.main), screen.info if wait else None
    if fresh or resume_from or ranks.broadcast_from_main(folder.summary) is None:
        preflight(resolved)
    for need in resolved.needs.values():
        run_resolved(need, wait=True, screen=screen)
    ranks.main_process_first(lambda: open_judges(resolved, screen))
    if fresh and folder.writes:
        with folder.held(waiting, clearing=True):
            clear(folder)
    if resume_from and folder.writes:
        with folder.held(waiting):
            set_back(resolved, folder, resume_from)
    summary = ranks.broadcast_from_main(folder.summary)
    if summary is None:
        with folder.held(waiting):
            summary = ranks.broadcast_from_main(folder.summary)  # of the process that was waited for
            if summary is None:
                start = ranks.main_process_first(lambda: start_weights(resolved, screen))
                others = ranks.main_process_first(lambda: reference_weights(resolved, screen))
                critic = ranks.main_process_first(lambda: critic_weights(resolved, screen))
                return RunResult(
                    folder.path, _train(Job(resolved, folder, start, screen, ranks, others, critic, fresh))
                )
    screen.info(f"{resolved.recipe.name}: already finished, in {folder.path}")
    done = summary
    return RunResult(folder.path, ranks.broadcast_from_main(lambda: _finish_late(resolved, folder, done, screen)))


def _finish_late(resolved: Resolved, folder: RunFolder, summary: dict[str, Any], screen: Screen) -> dict[str, Any]:
    """Do what failed after the last step of a finished run: judges first, then reporters."""
    reporting = Reporting(resolved.recipe.reporters, folder.path, screen)
    summary = judge_again(resolved, folder, summary, reporting, screen)
    folder.report_late(reporting.finish, screen.info)
    return summary


def _train(job: Job) -> dict[str, Any]:
    """Do a run, or the rest of it, and return the summary. Raises Interrupted after a signal."""
    disable_tf32()
    tune_malloc()
    reset_peak_memory(job.ranks.device)
    with _denormals_flushed(), job.stopping:
        return _phases(job) if job.recipe.draw is None else draw_data_set(job)


def _phases(job: Job) -> dict[str, Any]:
    recipe, ranks = job.recipe, job.ranks
    check_parted(recipe.train, ranks)
    if not job.fresh:
        inherit_day(job.resolved, job.folder)
    write_recipe(job)
    tokenizer, data = _tokenize(job)
    check_vocabularies(job, tokenizer)
    online = Online.of(job, data, tokenizer)
    scorer, layout = open_policy(
        job.resolved, tokenizer, job.start, online.probes(tokenizer) if online else data.train.trees, ranks,
        check=lambda model: _check_model(job, model, data, online),
    )  # fmt: skip
    data = filtered(job, scorer, data)
    model = scorer.model
    steps = online.calendar.steps if online else total_steps(recipe.train, len(data.train.trees))
    announce(job, data.report, model, layout, steps)
    if line := ties_line(recipe.objective, data.train.trees):
        job.screen.info(f"data: {line}")
    start_fingerprint = weights_fingerprint(model)
    references = score_references(job, scorer, tokenizer, data)
    before = greedy_replies(job, model, tokenizer, data.answered)
    adapt(job, model, tokenizer)
    training = _prepare(job, scorer, tokenizer, data, references, steps, online)
    with training.saved_on_stop():
        with compiled_layers(model, recipe.train.compile, ranks.device):
            last = training.run()
        training.save_end()
    with training.finishing():
        training.restore_best()
        with job.stopping.uninterruptible():
            export_policy(job, model, tokenizer, training.critic)
        after = greedy_replies(job, model, tokenizer, data.answered)
        if recipe.eval.judges and not training.restored:
            training.save()  # a judge may load a model, and memory run out: nothing may be lost
        judges = judge_replies(job, tokenizer, data.answered, before, after)
        finished = FinishedRun(
            model, start_fingerprint, weights_fingerprint(model), layout, references.parts,
            last, judges, training.done, training.selection.about(), ranks,
        )  # fmt: skip
        summary = ranks.broadcast_from_main(lambda: summarize(job.resolved, job.folder, data.report, finished))
        if job.folder.writes and not recipe.train.keep_optimizer:  # before the end, so that a killed run does it again
            checkpoint.drop_optimizers(job.folder.checkpoints)
        job.folder.finish(summary, job.reporting.finish)
    return summary


def _tokenize(job: Job) -> tuple[PreTrainedTokenizerBase, TokenizedDataset]:
    tokenizer, data = read_data(job)
    check_enough_rows(data, job.recipe.train.batch_size)
    validation_rows(job.recipe.train, data)  # raises where there are none
    return tokenizer, data


def _check_model(job: Job, model: PreTrainedModel, data: TokenizedDataset, online: Online | None) -> None:
    check_positions(model, data.train, *data.evaluated.values())
    if online:
        online.check_positions(model)
    no_router_loss(model, job.recipe.train.ignore_router_loss)
    check_zero(model, job.ranks)


def _prepare(
    job: Job,
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    data: TokenizedDataset,
    references: References,
    steps: int,
    online: Online | None,
) -> Training:
    """Build the optimizer, the engine and the loop, and restore the newest checkpoint."""
    recipe, model = job.recipe, scorer.model
    trees = online.probes(tokenizer) if online else data.train.trees
    live = live_reference(job, scorer, tokenizer, trees)
    critic = open_critic(job, scorer, live, tokenizer, trees, lambda model: _check_model(job, model, data, online))
    beside = live if recipe.objective.reference in ("live", "moving") else None
    train = BatchBuilder(
        recipe.objective, trees, references.train, beside, recipe.seed, recorded=references.named_train,
        critic=critic.scorer if critic else None,
    )  # fmt: skip
    evaluated = {
        name: BatchBuilder(
            recipe.objective, part.trees, references.evaluated[name], beside, recipe.seed, recipe.eval.metrics,
            references.named_evaluated[name], starts_at_reference=MAIN not in recipe.references,
            prompts=part.prompts,
        )
        for name, part in data.evaluated.items()
    }  # fmt: skip
    job.stopping.doing = "stopped before the first step; the same command continues"
    optimizer = make_optimizer(
        recipe.train.optimizer, model, recipe.train.master_weights, recipe.train.weight_decay_on
    )  # fmt: skip
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = [ModelSize(**count_weights(one)) for one in (model, *([critic.scorer.model] if critic else []))]
    if critic and recipe.model.lora:
        sizes[1] = sizes[1].on_shared_weights()
    where = " (over all processes)" if job.ranks.parted else ""
    job.screen.info(f"memory: {static_words(static_parts(recipe, sizes))}{where}")
    if words := memory_words(trainable, recipe.train.master_weights):
        job.screen.info(words)
    optimizer = wrap_with_zero(optimizer, scorer, job.ranks, recipe.train.max_grad_norm, job.screen.info)
    source = online.source(job, scorer, live, train, tokenizer) if online else None
    engine = Engine(
        train, recipe.train, job.ranks, scorer, optimizer, steps, recipe.seed, source, critic=critic
    )  # fmt: skip
    engine.watch = watch_steps(engine)
    if engine.moving and (words := engine.moving.memory_words()):
        job.screen.info(words)
    validation = validation_rows(recipe.train, data)
    replies = ReplyEvaluations.of(job, scorer, live, tokenizer, data.answered, trees)
    training = Training(job, engine, evaluated, tokenizer, references.exact, validation, replies)
    resume(training)
    for learner in engine.learners if recipe.train.gradient_checkpointing else ():
        use_gradient_checkpointing(learner.scorer.model)
    job.reporting.start(job.resolved.plain, training.done)
    return training


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to zero in the block.

    Gradients of learned pairs are that small, and ten times slower on a CPU.
    """
    before = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def clear(folder: RunFolder) -> None:
    """Remove a run, its summary and checkpoints first.

    These would make the rest of it count, should this process be killed in the middle.
    """
    order = {"summary.json": 0, "checkpoints": 1}
    for path in sorted(folder.path.iterdir(), key=lambda path: order.get(path.name, 2)):
        if not path.name.startswith(".lock"):
            remove(path)
