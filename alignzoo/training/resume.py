"""Resume a run from its newest intact checkpoint."""

from __future__ import annotations

from pathlib import Path

from alignzoo.core.artifacts import quarantine
from alignzoo.core.door import BadFile
from alignzoo.training import checkpoint
from alignzoo.training.checkpoint import Checkpoint
from alignzoo.training.extension import extend
from alignzoo.training.loop import ON, Training
from alignzoo.training.records import Line, read_lines
from alignzoo.training.selection import Selection

MICRO_BATCH = "train.micro_batch_tokens"
"""The one setting that changes results, by rounding."""


def resume(training: Training) -> None:
    """Restore the newest intact checkpoint, or the start."""
    folder, screen, engine = training.folder, training.screen, training.engine
    if folder.writes and not training.job.fresh:
        extend(training.job.resolved, folder, engine.steps, screen)
    good, unused = training.ranks.broadcast_from_main(lambda: _newest(training))
    for path, problem in unused.items():
        before = f"using the one before it, {good.path.name}" if good else "the run starts again"
        screen.info(f"checkpoint {path} {problem}; {before}")
    if good:
        _check_fits(training, good)
        training.done = good.step
        training.selection.add_all(read_lines(good.path / "metrics.jsonl", Line))
        policy, critic = training.optimizers()
        checkpoint.restore(good, training.model, policy, training.beside, training.critic, critic)
        if training.moving:
            training.moving.round()
        engine.states = good.states or engine.states
        training.changed = _changed(training, good)
        if MICRO_BATCH not in training.changed:
            engine.passes.budget = good.budget or engine.passes.budget
        training.saved, training.last = good.step, good.path
        training.ranks.all_gather()  # wait until every process has read it
        screen.info(f"resuming after step {good.step}")
        if training.changed:
            screen.info(f"changed: {', '.join(f'{key} {words}' for key, words in training.changed.items())}")
        training.stopping.doing = f"stopped after step {good.step}; {ON}"
    if folder.writes:
        checkpoint.sweep(folder.checkpoints)
        for path in unused:
            quarantine(path)
    folder.restore_records(training.last)


def _changed(training: Training, good: Checkpoint) -> dict[str, str]:
    """Return the settings with another value than before, as `512 -> 256`."""
    before, now = good.settings, training.job.resolved.settings
    if not before:  # an older version recorded none
        return {}
    return {key: f"{before.get(key)} -> {now.get(key)}" for key in {**before, **now} if before.get(key) != now.get(key)}


def _newest(training: Training) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the newest checkpoint to continue from, and why those after it can't be used.

    The best checkpoint is exported in the end, and must be intact too. Without it the run goes back to before it.
    """
    folder, run = training.folder.checkpoints, training.job.resolved.fingerprint
    unused: dict[Path, str] = {}
    before: int | None = None
    while True:
        good, damaged = checkpoint.latest(folder, run, before)
        unused |= dict.fromkeys(damaged, "is damaged")
        if good is None:
            return None, unused
        selection = Selection(training.recipe.train)
        selection.add_all(read_lines(good.path / "metrics.jsonl", Line))
        best = selection.best_step
        if best is not None and best != good.step and checkpoint.at(folder, best) is None:
            before, problem = best, f"needs the best one, of step {best}, which is damaged"
        elif good.step < training.engine.steps and not selection.stopped and not checkpoint.has_optimizer(good.path):
            before, problem = good.step, "has no optimizer state, which a finished run has with train.keep_optimizer"
        else:
            return good, unused
        for path in checkpoint.by_step(folder):
            if checkpoint.step_of(path) >= before:
                unused.setdefault(path, problem)


def _check_fits(training: Training, good: Checkpoint) -> None:
    engine = training.engine
    states = [set(state) for state in engine.states]
    if good.step > engine.steps or (good.states and [set(state) for state in good.states] != states):
        raise BadFile(
            "the checkpoint doesn't fit the run: it has other steps or another objective", where=str(good.path),
            hint="start the run again with --fresh",
        )  # fmt: skip
