"""The training loop: steps, evaluations and checkpoints, from the newest checkpoint on."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.core.errors import NotWritten, RunFailed, first_line
from alignzoo.core.signals import Interrupted
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.exactness import Check, SpotCheck, no_oracle
from alignzoo.training import checkpoint
from alignzoo.training.evaluations import Evaluations, is_due
from alignzoo.training.job import Job
from alignzoo.training.log_lines import StepLog
from alignzoo.training.records import HELD_OUT, SETTINGS, Line, read_lines
from alignzoo.training.reply_evaluations import KIND, ReplyEvaluations
from alignzoo.training.schedule import rows_of_step
from alignzoo.training.selection import Selection, ValidationRows
from alignzoo.training.spot_checks import Watch, interval
from alignzoo.training.step import Engine

ON = "the same command continues from there"


@dataclass
class Training:
    """Training loop that takes the steps of a run and records them.

    Records made before a stop are kept as they are.
    """

    job: Job
    engine: Engine
    evaluated: Mapping[str, BatchBuilder]
    """Rows to evaluate: the held-out ones under an empty name, and each evaluation set."""
    tokenizer: PreTrainedTokenizerBase
    exact: Sequence[Check] = ()
    """The largest difference between the reference's scores and the model's own forward."""
    validation: ValidationRows = field(default_factory=dict)
    """The validation half of the parts that checkpoints are chosen by."""
    replies: ReplyEvaluations | None = None
    """Sampled replies along training; None where the recipe asks for none."""

    def __post_init__(self) -> None:
        job = self.job
        self.recipe, self.folder, self.ranks, self.screen = job.recipe, job.folder, job.ranks, job.screen
        self.stopping, self.reporting = job.stopping, job.reporting
        self.model, self.moving = self.engine.scorer.model, self.engine.moving
        self.critic = self.engine.critic.scorer.model if self.engine.critic else None
        self.log = StepLog(self.screen, job.recipe.objective.name, self.engine.steps, job.recipe.train.batch_size)
        self.beside = self.moving.tensors if self.moving else {}
        """The weights of a moving reference, which checkpoints hold beside the policy's."""
        self.selection = Selection(job.recipe.train)
        self._evaluations = Evaluations(
            self.engine, self.evaluated, self.validation, self.selection, self.ranks, self.screen
        )  # fmt: skip
        self.done = 0
        """Optimizer steps taken."""
        self._learnt = 0.0
        """Seconds that the last step took."""
        self.last: Path | None = None
        """The newest checkpoint, which holds the first `saved` steps."""
        self.saved = 0
        self.restored = False
        """True once the model has the weights of the best checkpoint, which are not those of the last step."""
        self.changed: dict[str, str] = {}
        """Settings that are no part of the run's identity and have changed since that checkpoint."""

    def run(self) -> dict[str, Any]:
        """Take the remaining steps, and return the last evaluation.

        A signal interrupts an evaluation of one process at once; several processes finish it first, to stop together.
        """
        with self.stopping.uninterruptible() if self.ranks.count > 1 else nullcontext():
            return self._run()

    def _run(self) -> dict[str, Any]:
        train, steps = self.recipe.train, self.engine.steps
        lines = self.ranks.broadcast_from_main(lambda: read_lines(self.folder.metrics, Line))
        evaluations = {line["step"]: line for line in lines if line["kind"] == "eval"}
        if self.changed:
            self.record({"kind": SETTINGS, "step": self.done} | self.changed)
        last = evaluations.get(self.done) or self._measure()
        if not any(line["kind"] == KIND and line["step"] == self.done for line in lines):
            self._measure_replies()
        if self.done == 0:
            lines = [*lines, *self._record_start()]
        if self.engine.watch:
            found = (line for line in lines if line["kind"] == "exactness" and "difference" in line)
            self.engine.watch.history = [not line["difference"] <= line["limit"] for line in found]
        with self.screen.bar(self.recipe.objective.name, steps, self.done) as advance:
            while not self.ended:
                advance(1, self._note(self._step()))
                best = self.selection.best
                last = self._measure() or last
                self._measure_replies()
                due = self.done % train.checkpoint_every == 0 or self.selection.best is not best
                if due and not self.ended:
                    with self.stopping.uninterruptible():
                        self.save()
                        self.stopping.doing = f"stopped after step {self.done}; {ON}"
        if self.done < steps:
            self.screen.info(f"early stopping after step {self.done:,} of {steps:,}")
        self.stopping.doing = f"stopped after the last step; {ON}"
        return self.selection.best or last

    def save(self, extra: int = 0) -> None:
        """Write a checkpoint of the steps taken, unless the last one has them all.

        Args:
            extra: Checkpoints kept beyond the recipe's `train.keep_checkpoints`.
        """
        if self.done > self.saved:
            policy, critic = self.optimizers(saving=True)
            held_out = [self.folder.path / HELD_OUT]  # that of the best checkpoint; without one, it is written again
            records = [*self.folder.records, *(path for path in held_out if self.selection.best and path.is_file())]
            records += [self.folder.replies] if self.folder.replies.is_file() else []
            self.last = checkpoint.save(
                self.folder.checkpoints, self.done, self.model, self.tokenizer, policy,
                self.recipe.train.keep_checkpoints + extra, self.engine.states, self.beside,
                self.engine.passes.budget, records, self.folder.writes, self.job.resolved.fingerprint,
                self.critic, critic, self.selection.best_step, self.job.resolved.lineage, self.job.resolved.settings,
            )  # fmt: skip
            self.saved = self.done

    def save_end(self) -> None:
        """Keep the last step, so that nothing after it costs one.

        A disk that is too full for the checkpoint may still have room for the policy.
        """
        with self.stopping.uninterruptible():
            try:
                self.save()
            except NotWritten as error:
                self.screen.info(f"{error}; the policy is written without it")

    @property
    def ended(self) -> bool:
        """True after the last step, which early stopping may choose."""
        return self.done >= self.engine.steps or self.selection.stopped

    def restore_best(self) -> None:
        """Load the weights of the best checkpoint, if the recipe chooses one.

        Raises:
            RunFailed: It is damaged.
        """
        best = self.selection.best_step
        if best is None:
            return
        self.screen.info(self.selection.words())
        if best != self.done:
            found = self.ranks.broadcast_from_main(lambda: checkpoint.at(self.folder.checkpoints, best))
            if found is None:
                raise RunFailed(f"the best checkpoint, of step {best}, is damaged")
            checkpoint.restore(found, self.model, None, critic=self.critic)
            self.restored = True

    def optimizers(self, saving: bool = False) -> tuple[torch.optim.Optimizer | None, torch.optim.Optimizer | None]:
        """Return those of the policy and of the critic.

        They are None after the last step, if they are not kept.
        """
        if self.ended and not (saving and self.recipe.train.keep_optimizer):
            return None, None
        return self.engine.optimizer, self.engine.critic.optimizer if self.engine.critic else None

    @contextmanager
    def saved_on_stop(self) -> Iterator[None]:
        """Write a checkpoint when the block is interrupted; name the last if a write fails.

        Processes that each hold a part of the model or optimizer save it together, after the same step.
        """
        try:
            with self.stopping.uninterruptible() if self.ranks.parted else nullcontext():
                yield
        except Interrupted as stop:
            if not stop.at_once:
                with self.stopping.uninterruptible(agreed=False):
                    self.save()
            raise
        except NotWritten as error:
            raise error.more(self._last_checkpoint()) from error

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Name the last checkpoint when the work after the last step fails.

        The next command does that work again.

        Raises:
            RunFailed: The block raised an exception.
        """
        try:
            yield
        except RunFailed as error:
            raise error.more(self._last_checkpoint()) from error
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {first_line(error)} ({at.filename}:{at.lineno})"
            raise RunFailed(
                f"after the last step: {what}; {self._last_checkpoint()}; the same command does the rest"
            ) from error

    @contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """Save the steps before a step or an evaluation that fails."""
        try:
            yield
        except NotWritten:
            raise
        except RunFailed as error:
            if not self.ranks.broken(error):
                self.save(extra=1)  # a user may want the weights from before a NaN
            raise error.more(self._last_checkpoint()) from error

    def _last_checkpoint(self) -> str:
        if self.last is None:
            return "there is no checkpoint yet"
        return f"the steps up to {self.saved} are kept in {self.last}"

    def _step(self) -> dict[str, float]:
        step, budget, batches = self.done, self.engine.passes.budget, self.engine.batches
        self.stopping.doing = f"stopped before step {step + 1}; what was drawn for it is kept, and {ON}"
        with self._saved_on_failure(), self.ranks.together():
            batches.begin(step, self.engine.states)
        self.stopping.doing = f"stopped after step {step + 1}; {ON}"
        with self.stopping.uninterruptible():
            began = time.perf_counter()
            with self._saved_on_failure(), self.ranks.together():
                metrics, slots = self.engine.step(step)
                slots = sum(self.ranks.all_gather(slots))
            self._learnt = seconds = time.perf_counter() - began
            if batches.line:
                self.record({"kind": "rollout", "step": step + 1} | batches.line)
            self.record({"kind": "train", "step": step + 1} | metrics)
            timing = {"step": step + 1, "seconds": seconds, "pairs": self.recipe.train.batch_size, "tokens": slots}
            watch = self.engine.watch
            if watch and watch.last:
                self.record(watch.last.line(step + 1))
                timing["exactness_seconds"] = watch.seconds
            timing |= {f"{name}_seconds": value for name, value in batches.seconds.items()}
            self.folder.append(self.folder.timings, timing)
            self.done = step + 1
        if self.engine.passes.budget < budget:
            self.screen.info(
                f"memory ran out in step {self.done}: it was repeated in micro-batches of {self.engine.passes.budget} "
                "token slots, which the steps after it use too (train.micro_batch_tokens)"
            )
        self.log.step(self.done, metrics, seconds, slots)
        return metrics

    def _measure(self) -> dict[str, Any]:
        """Evaluate the rows and record their figures if an evaluation is due.

        Returns {} if none is due, and without rows.
        """
        step = self.done
        if not is_due(step, self.recipe.eval.every, self.engine.steps):
            return {}
        self.stopping.doing = f"stopped in the evaluation after step {step}; {ON}"
        began = time.perf_counter()
        records: list[dict[str, Any]] = []
        with self._saved_on_failure(), self.ranks.together():
            scores = self._evaluations.figures(step, records)
        if not scores:
            return {}
        with self.stopping.uninterruptible():
            line = self.record({"kind": "eval", "step": step} | scores)
            self.folder.append(self.folder.evaluation_times, {"step": step, "seconds": time.perf_counter() - began})
            best = self.selection.add(line)
            if records and (best or self.selection.best is None):
                self.folder.write_lines(HELD_OUT, records)
            self.log.evaluation(line)
            return line

    def _measure_replies(self) -> None:
        """Draw replies to held-out prompts, and record them with their figures, if they are due."""
        step = self.done
        if self.replies is None or not is_due(step, self.recipe.eval.replies.every, self.engine.steps):
            return
        self.stopping.doing = f"stopped while replies were drawn after step {step}; {ON}"
        with self._saved_on_failure(), self.ranks.together():
            figures, records = self.replies.figures(step)
        with self.stopping.uninterruptible():
            for record in records:
                self.folder.append(self.folder.replies, record)
            self.log.evaluation(self.record({"kind": KIND, "step": step} | figures))

    def _record_start(self) -> list[dict[str, Any]]:
        """Record the checks of the reference, or the reason why its scores can't be checked."""
        why = "" if self.engine.watch else no_oracle(self.ranks.sharded, self.recipe.train.compile)
        found = [check.line(0) for check in self.exact] or ([{"kind": "exactness", "step": 0}] if why else [])
        lines = [line | ({"unavailable": why} if why else {}) for line in found]
        with self.stopping.uninterruptible():
            for line in lines:
                self.record(line)
        return lines

    def record(self, line: dict[str, Any]) -> dict[str, Any]:
        """Append a line without the figures that are not finite, and return it.

        JSON can't hold those figures.
        """
        bad = [key for key, value in line.items() if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            what = ", ".join(f"{key} is {line[key]}" for key in bad)
            self.screen.info(f"{line['kind']} line of step {line['step']}: {what}; left out")
        line = {key: value for key, value in line.items() if key not in bad}
        self.folder.append(self.folder.metrics, line)
        self.reporting.line(line)
        return line

    def _note(self, metrics: dict[str, float]) -> str:
        """Return the figures of a step beside the progress bar."""
        words = [f"loss {metrics['loss']:.4f}"] if "loss" in metrics else ["no rows"]
        if "accuracy" in metrics:
            words += [f"accuracy {metrics['accuracy']:.3f}", f"margin {metrics['margin']:.3f}"]
        return "  ".join([*words, *self.engine.batches.words(self._learnt)])


def watch_steps(engine: Engine) -> Watch | None:
    """Return the spot checks of an engine's steps.

    It is None if the model's own forward can't be run.
    """
    builder, config = engine.builder, engine.config
    if no_oracle(engine.ranks.sharded, config.compile):
        return None

    def rows_of(step: int) -> NDArray[np.int64]:
        return rows_of_step(step, len(builder.trees), config, engine.seed)

    every = interval(builder.trees.sizes, config.batch_size)
    return Watch(SpotCheck(engine.scorer), builder, None if engine.source else rows_of, engine.ranks, every)
