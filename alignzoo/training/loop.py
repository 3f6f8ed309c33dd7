"""A run's training: steps, evaluations and checkpoints, from wherever an earlier process stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.core.artifacts import quarantine
from alignzoo.core.errors import NotWritten, RunFailed
from alignzoo.core.signals import Interrupted
from alignzoo.evaluation.evaluate import evaluate
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.exactness import Check, SpotCheck, no_oracle
from alignzoo.training import checkpoint
from alignzoo.training.job import Job
from alignzoo.training.run_folder import read_lines
from alignzoo.training.schedule import rows_of_step
from alignzoo.training.spot_checks import Watch, interval
from alignzoo.training.step import Engine

ON = "the same command goes on from there"


@dataclass
class Training:
    """What steps are taken, and what is recorded of them. Everything that is done is done once: what was recorded
    before a stop stands as it is."""

    job: Job
    engine: Engine
    held_out: BatchBuilder
    tokenizer: PreTrainedTokenizerBase
    exact: Check | None = None
    """How far the reference's scores are from the model's own forward."""

    def __post_init__(self) -> None:
        job = self.job
        self.recipe, self.folder, self.ranks, self.screen = job.recipe, job.folder, job.ranks, job.screen
        self.stopping, self.reporting = job.stopping, job.reporting
        self.model, live = self.engine.scorer.model, self.engine.supply.live
        self.moving = live.model if live and self.recipe.objective.reference == "moving" else None
        self.done = 0
        """Optimizer steps taken."""
        self.last: Path | None = None
        """The newest checkpoint, which holds the first `saved` steps."""
        self.saved = 0

    def resume(self) -> None:
        """Go back to the newest checkpoint that is intact, or to the start."""
        good, damaged = self.ranks.broadcast_from_main(lambda: checkpoint.latest(self.folder.checkpoints))
        for path in damaged:
            before = f"the one before it, {good.path.name}, is used" if good else "the run begins again"
            self.screen.info(f"checkpoint {path} is damaged; {before}")
        if good:
            checkpoint.restore(good, self.model, self.engine.optimizer, self.moving)
            self.engine.states = good.states or self.engine.states
            self.engine.budget = good.budget or self.engine.budget
            self.done = self.saved = good.step
            self.last = good.path
            self.ranks.all_gather()  # has read it
            self.screen.info(f"resuming after step {good.step}")
            self.stopping.doing = f"stopped after step {good.step}; {ON}"
        if self.folder.writes:
            checkpoint.sweep(self.folder.checkpoints)
            for path in damaged:
                quarantine(path)
        self.folder.put_back(self.last)

    def whole(self) -> dict[str, Any]:
        """Take the steps that are left, and return the last evaluation.

        One process leaves an evaluation at once when a signal comes; several finish it first, to stop as one.
        """
        with self.stopping.uninterruptible() if self.ranks.count > 1 else nullcontext():
            return self._whole()

    def _whole(self) -> dict[str, Any]:
        train, steps = self.recipe.train, self.engine.steps
        lines = self.ranks.broadcast_from_main(lambda: read_lines(self.folder.metrics))
        evaluations = {line["step"]: line for line in lines if line["kind"] == "eval"}
        last = evaluations.get(self.done) or self._measure()
        if self.done == 0:
            self._record_start()
        if self.engine.watch:
            found = (line for line in lines if line["kind"] == "exactness" and line["step"])
            self.engine.watch.history = [not line["difference"] <= line["limit"] for line in found]
        with self.screen.bar(self.recipe.objective.name, steps, self.done) as advance:
            while self.done < steps:
                advance(1, _note(self._step()))
                last = self._measure() or last
                if self.done % train.checkpoint_every == 0 and self.done < steps:
                    with self.stopping.uninterruptible():
                        self.keep()
                        self.stopping.doing = f"stopped after step {self.done}; {ON}"
        self.stopping.doing = f"stopped after the last step; {ON}"
        return last

    def keep(self, beside: int = 0) -> None:
        """Write a checkpoint of the steps taken, if the last one is not of them already. `beside`: how many more than
        the recipe says stay beside it."""
        if self.done > self.saved:
            self.last = checkpoint.save(
                self.folder.checkpoints, self.done, self.model, self.tokenizer, self.engine.optimizer,
                self.recipe.train.keep_checkpoints + beside, self.engine.states, self.moving,
                self.engine.budget, self.folder.records, self.folder.writes,
            )  # fmt: skip
            self.saved = self.done

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A stop within the block leaves a checkpoint; when the disk refuses, what was saved before is told.

        Processes that each hold a part can save it together alone: they stop at what all have done.
        """
        try:
            with self.stopping.uninterruptible() if self.ranks.parted else nullcontext():
                yield
        except Interrupted as stop:
            if not stop.at_once:
                with self.stopping.uninterruptible(agreed=False):
                    self.keep()
            raise
        except NotWritten as error:
            raise error.more(self._told_of_last()) from error

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """A step or an evaluation that fails changes nothing: the steps before it are kept."""
        try:
            yield
        except NotWritten:
            raise
        except RunFailed as error:
            if not self.ranks.broken(error):
                self.keep(beside=1)  # after a NaN somebody may want the weights from before it began
            raise error.more(self._told_of_last()) from error

    def _told_of_last(self) -> str:
        if self.last is None:
            return "there is no checkpoint yet"
        return f"the steps up to {self.saved} are kept in {self.last}"

    def _step(self) -> dict[str, float]:
        step, budget = self.done, self.engine.budget
        self.stopping.doing = f"stopped after step {step + 1}; {ON}"
        with self.stopping.uninterruptible():
            began = time.perf_counter()
            with self._blamed(), self.ranks.together():
                metrics, slots = self.engine.step(step)
                slots = sum(self.ranks.all_gather(slots))
            seconds = time.perf_counter() - began
            self._record({"kind": "train", "step": step + 1} | metrics)
            timing = {"step": step + 1, "seconds": seconds, "pairs": self.recipe.train.batch_size, "tokens": slots}
            watch = self.engine.watch
            if watch and watch.last:
                self._record(watch.last.line(step + 1))
                timing["exactness_seconds"] = watch.seconds
            self.folder.append(self.folder.timings, timing)
            self.done = step + 1
        if self.engine.budget < budget:
            self.screen.info(
                f"memory ran out in step {self.done}: it was done again in micro-batches of {self.engine.budget} token "
                "slots, as the steps after it will be (train.micro_batch_tokens)"
            )
        return metrics

    def _measure(self) -> dict[str, Any]:
        """The held-out figures where they are due, or nothing."""
        step, every = self.done, self.recipe.eval.every
        if 0 < step < self.engine.steps and (not every or step % every):
            return {}
        self.stopping.doing = f"stopped in the evaluation after step {step}; {ON}"
        with self._blamed(), self.ranks.together():
            hidden = self.screen.without_bars()  # a bar within the training's bar would fight it for the line
            budget, states = 2 * self.engine.budget, self.engine.states
            scores = evaluate(
                self.engine.scorer, self.held_out, budget, hidden, states, at_start=step == 0, ranks=self.ranks
            )
        line = {"kind": "eval", "step": step} | scores
        with self.stopping.uninterruptible():
            self._record(line)
        return line

    def _record_start(self) -> None:
        """The reference's exactness, or why scores can't be held to the model's own forward."""
        why = "" if self.engine.watch else no_oracle(self.ranks.sharded, self.recipe.train.compile)
        line = self.exact.line(0) if self.exact else {"kind": "exactness", "step": 0}
        if self.exact or why:
            with self.stopping.uninterruptible():
                self._record(line | ({"unavailable": why} if why else {}))

    def _record(self, line: dict[str, Any]) -> None:
        self.folder.append(self.folder.metrics, line)
        self.reporting.line(line)


def watch_steps(engine: Engine) -> Watch | None:
    """What holds scores of the engine's steps to the model's own forward; None where there is none to be had."""
    supply, config = engine.supply, engine.config
    if no_oracle(engine.ranks.sharded, config.compile):
        return None

    def rows_of(step: int) -> NDArray[np.int64]:
        return rows_of_step(step, len(supply.trees), config, engine.seed)

    every = interval(supply.trees.sizes, config.batch_size)
    return Watch(SpotCheck(engine.scorer), supply, rows_of, engine.ranks, every)


def _note(metrics: dict[str, float]) -> str:
    words = [f"loss {metrics['loss']:.4f}"]
    if "accuracy" in metrics:
        words += [f"accuracy {metrics['accuracy']:.3f}", f"margin {metrics['margin']:.3f}"]
    return "  ".join(words)
