"""Measure a finished run: figures of held-out rows, sampled replies and verdicts.

Every held-out row has figures, and every sampled reply the judges' verdicts.

A run's folder gets

    evaluations/<key>/           examples.safetensors, samples.jsonl, about.json: see `alignzoo.compare.results`
    evaluations/replies/<key>/   samples.jsonl, about.json: replies at another temperature, or several to each prompt
    evaluations/verdicts/<key>/  about.json, one folder for each judge: see `alignzoo.compare.verdicts`

Each folder is written once, atomically, under a key of what it depends on: weights, held-out tokens and settings, or
replies, judge and the start's replies. Nothing that is there is computed again, so that a temperature that is added
draws its own replies alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from alignzoo.compare.best_of import BestOf
from alignzoo.compare.exclusive import exclusive
from alignzoo.compare.replies import answered, reply_lines
from alignzoo.compare.results import (
    EXAMPLES,
    REPLIES,
    SAMPLES,
    Drawn,
    EvaluationFolder,
    FiguresManifest,
    RepliesFolder,
    RepliesManifest,
)
from alignzoo.compare.reward_scale import is_own_reference, reward_scale
from alignzoo.compare.spec import Sampling
from alignzoo.compare.verdicts import judge_replies
from alignzoo.core.artifacts import atomic_folder, quarantine, read_verified, write_manifest
from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.door import validated
from alignzoo.core.errors import UserError
from alignzoo.data.row_reader import RowReader
from alignzoo.data.token_store import TokenStore
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.evaluation.figures import for_testing, row_figures
from alignzoo.interfaces.judge import Judge
from alignzoo.models.fingerprint import weights_fingerprint
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.recipe.resolved import Resolved
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import NAMED
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.needed_runs import reference_weights, start_weights
from alignzoo.training.policy import cached_scores, device_of, open_policy, open_reference, open_scorer
from alignzoo.training.records import MeasuredModel
from alignzoo.training.references import needed_references
from alignzoo.training.run_folder import RunFolder

FORMAT = 4
"""Version of the figures: raise it when the meaning of one changes."""


def measure(
    resolved: Resolved,
    folder: Path,
    settings: Sampling,
    judges: Sequence[Judge],
    start: EvaluationFolder | None,
    screen: Screen,
    rows: EvaluationSet | None = None,
    best_of: BestOf | None = None,
    made_by: Mapping[str, str] = MappingProxyType({}),
) -> EvaluationFolder:
    """Return the figures of the finished run in `folder`; compute those that are missing.

    Log-ratios and KL are relative to the weights that the run started from, for every objective, also where the recipe
    names another reference. SFT without `model.from` is the start of others: its reference is itself.

    Args:
        resolved: The run's recipe.
        folder: The run folder.
        settings: How replies are sampled.
        judges: Judges of the replies. One that fails costs its own figures alone.
        start: Figures of the run's start, whose replies the judges compare with.
        screen: Where progress is shown.
        rows: The evaluation set that is measured. None for the run's own rows.
        best_of: The N of best-of-N, and the judge that picks. None for no further draws.
        made_by: Name of a judge -> a digest of the runs that made it, for those that runs made.

    Raises:
        UserError: The run is not finished, or its start has changed since.
    """
    measuring = _Measuring(resolved, folder, settings, screen, rows=rows)
    measured, others, draws = measuring.figures(), dict[float, RepliesFolder](), None
    if resolved.recipe.objective.head != "scalar":  # a reward model writes no replies
        others = {one: measuring.replies(one) for one in settings.temperature if one != settings.main}
        draws = measuring.replies(settings.main, best_of.draws) if best_of else None
    del measuring  # and the policy with it: a judge may be a model too

    def judged(replies: RepliesFolder, before: RepliesFolder | None, **options: Any) -> tuple[Path, ...]:
        of_all = resolved, folder, replies, before, screen
        return tuple(judge_replies(one, *of_all, made_by=made_by.get(one.name, ""), **options) for one in judges)

    verdicts, drawn = judged(measured, start), []
    for temperature, replies in others.items():
        paths = judged(replies, start.at(temperature) if start else None)
        drawn.append(Drawn(temperature, _absolute(replies.path), list(map(_absolute, paths))))
    if best_of is not None and draws is not None:
        scores = best_of.scores(resolved, folder, draws, screen)
        picked = best_of.picked(scores, draws)
        paths = judged(draws, start, best_of=picked) if picked else ()
        drawn.append(Drawn(
            settings.main, _absolute(draws.path), list(map(_absolute, paths)), best_of.draws, best_of.counts,
            best_of.judge.name, _absolute(scores),
        ))  # fmt: skip
    return EvaluationFolder(measured.path, verdicts, tuple(drawn))


def _absolute(path: Path) -> str:
    return str(path.absolute())


class EvaluationSet(NamedTuple):
    """An evaluation set of a recipe."""

    resolved: Resolved
    name: str

    @classmethod
    def measured_of(cls, resolved: Resolved, folder: Path) -> EvaluationSet | None:
        """Return the set that stands for the held-out rows of a finished run, or None.

        It is None where the run has held-out rows, or no summary.

        Raises:
            UserError: The run has neither held-out rows nor an evaluation set.
        """
        summary = RunFolder(folder).summary()
        name = _evaluation_set(summary.get("data", {}), resolved.recipe.eval.data) if summary else None
        return None if name is None else cls(resolved, name)

    def read_by(self, run: Resolved) -> Resolved:
        """Return the recipe of another run with this set as its own."""
        own = run.recipe.eval.model_copy(update={"data": self.resolved.recipe.eval.data})
        recipe, needs = run.recipe.model_copy(update={"eval": own}), self.resolved.needs | run.needs
        return replace(run, recipe=recipe, needs=needs, registry=self.resolved.registry)


@dataclass
class _Measuring:
    """Measurement of one run without judges."""

    resolved: Resolved
    folder: Path
    settings: Sampling
    screen: Screen
    budget: int = 0
    """Token slots of a forward pass, 0 for the recipe's own. It changes no figure."""
    rows: EvaluationSet | None = None
    """The evaluation set that is measured. None for the run's own rows."""
    loaded: Scorer | None = None
    """The trained policy, once it is needed."""

    def __post_init__(self) -> None:
        self.recipe = self.resolved.recipe
        summary = RunFolder(self.folder).summary()
        if summary is None:
            raise UserError("the run is not finished", where=str(self.folder), hint="finish it with `alignzoo run`")
        self.model = validated(summary.get("model", {}), self.folder / "summary.json", MeasuredModel)
        self.ranks = Ranks(device_of(self.recipe.train.device))
        self.budget = self.budget or 2 * self.recipe.train.micro_batch_tokens  # no activations are kept for a backward
        self.tokenizer = pretrained_tokenizer(str(self.folder / "policy"), None, self.recipe.model.runs_code)
        measured = self.rows.name if self.rows else _evaluation_set(summary.get("data", {}), self.recipe.eval.data)
        read = self.rows.read_by(self.resolved) if self.rows else self.resolved
        self.store = TokenStore(read, self.tokenizer, RunFolder(self.folder).first_day(), measured)

    def figures(self) -> EvaluationFolder:
        """Return the folder of figures and replies; compute it if it is missing."""
        about = self._about_figures(self.settings.main)
        RunFolder(self.folder).check_links()
        path = self.folder / "evaluations" / digest(about)
        if read_verified(path, FiguresManifest) is None:
            with exclusive(path, self.screen):
                if read_verified(path, FiguresManifest) is None:
                    self._write(path, about)
        return EvaluationFolder(path)

    def replies(self, temperature: float, draws: int = 1) -> RepliesFolder:
        """Return replies to the test prompts at a temperature; draw them if they are missing.

        Those that were measured with figures, before the temperature became one of several, are used too.
        """
        RunFolder(self.folder).check_links()
        figures = self.folder / "evaluations" / digest(self._about_figures(temperature))
        if draws == 1 and read_verified(figures, FiguresManifest) is not None:
            return EvaluationFolder(figures)
        path, about = self._replies_path(temperature, draws)
        if read_verified(path, RepliesManifest) is None:
            with exclusive(path, self.screen):
                if read_verified(path, RepliesManifest) is None:
                    self._set_aside(path)
                    held_out = self._held_out
                    lines = reply_lines(
                        self._policy(held_out), None, self.tokenizer, held_out, self._test(held_out), self._usable,
                        self._of_test(temperature), self.budget, self.screen, draws,
                    )  # fmt: skip
                    with atomic_folder(path) as temporary:
                        _write_lines(temporary / SAMPLES, lines)
                        write_manifest(temporary, about)
        return RepliesFolder(path)

    def _about_figures(self, temperature: float) -> dict[str, Any]:
        return {
            "format": FORMAT, "weights": self.model.trained_weights, "start": self.model.weights,
            "tokens": self.store.key, "sampling": self.settings.at(temperature).model_dump(),
        }  # fmt: skip

    def _replies_path(self, temperature: float, draws: int) -> tuple[Path, dict[str, Any]]:
        about = {
            "format": FORMAT, "weights": self.model.trained_weights, "tokens": self.store.key,
            "sampling": self._of_test(temperature).model_dump(), "draws": draws,
        }  # fmt: skip
        return self.folder / "evaluations" / REPLIES / digest(about), about

    def _of_test(self, temperature: float) -> Sampling:
        """Return the settings of replies that choose no grid point: of test prompts alone."""
        return self.settings.at(temperature).model_copy(update={"validation_prompts": 0})

    @cached_property
    def _held_out(self) -> TokenizedRows:
        reader = RowReader(self.store.source, evaluation=self.store.evaluation is not None)
        return self.store.get(reader, self.screen.info).held_out

    @cached_property
    def _start(self) -> Path | None:
        return start_weights(self.resolved, self.screen)

    @property
    def _usable(self) -> bool:
        return self.recipe.data.train_on != "all"

    @staticmethod
    def _test(held_out: TokenizedRows) -> NDArray[np.bool_]:
        return for_testing([row.group for row in held_out.rows])

    def _policy(self, held_out: TokenizedRows) -> Scorer:
        """Return the trained policy, which is loaded once."""
        if self.loaded is None:
            trees = answered(held_out, self.settings.tokens, len(self.tokenizer))
            folder = self.folder / "policy"
            self.loaded, _ = open_policy(self.resolved, self.tokenizer, self._start, trees, self.ranks, trained=folder)
        return self.loaded

    def _set_aside(self, path: Path) -> None:
        if path.is_dir():
            self.screen.info(f"{path} is damaged: it is set aside and computed again")
            quarantine(path)

    def _write(self, path: Path, about: dict[str, Any]) -> None:
        self._set_aside(path)
        held_out = self._held_out
        examples, lines = self._computed(held_out)
        with atomic_folder(path) as temporary:
            save_file(examples, temporary / EXAMPLES)
            _write_lines(temporary / SAMPLES, lines)
            groups = [digest(row.group)[:16] for row in held_out.rows]
            more = {"ids": list(held_out.trees.ids), "groups": groups, "reward": reward_scale(self.recipe.objective)}
            write_manifest(temporary, about | more)

    def _computed(self, held_out: TokenizedRows) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        recipe, objective, trees = self.recipe, self.recipe.objective, held_out.trees
        test, budget = self._test(held_out), self.budget
        start, policy = self._start, self._policy(held_out)
        builder = BatchBuilder(objective, trees, None, None, recipe.seed, recipe.eval.metrics)
        if objective.head == "scalar":
            return row_figures(policy, builder, test, budget, self.screen), []
        own = is_own_reference(self.resolved)
        reference = policy if own else self._reference(policy, start)
        settings = self.settings.at(self.settings.main)
        of = policy, reference, self.tokenizer, held_out, test, self._usable, settings, budget, self.screen
        drawn = partial(reply_lines, *of)
        if not trees.answered:  # prompts alone, for which completions are drawn
            return {"test": test.astype(float)}, drawn()
        (builder.reference,) = cached_scores(
            self.resolved, reference, [trees], self.screen, self.ranks, budget=budget
        )  # fmt: skip
        starts, named = reference_weights(self.resolved, self.screen), {}
        for name in sorted(needed_references(recipe)):
            model = open_reference(self.resolved, name, self.tokenizer, starts.get(name), trees, self.ranks)
            (scores,) = cached_scores(
                self.resolved, model, [trees], self.screen, self.ranks, label=f"reference {name}", budget=budget,
                source=recipe.references[name],
            )  # fmt: skip
            named[NAMED.format(name)] = scores
        builder.recorded = named
        builder.live = reference if objective.reference in ("live", "moving") else None
        examples = row_figures(policy, builder, test, budget, self.screen, at_start=own)
        before, _ = self._replies_path(settings.main, 1)
        complete = not settings.validation_prompts and read_verified(before, RepliesManifest) is not None
        if complete:  # of a time when the table was of another temperature
            known = RepliesFolder(before).samples
            return examples, [{key: value for key, value in line.items() if key != "judges"} for line in known]
        return examples, drawn()

    def _reference(self, policy: Scorer, start: Path | None) -> Scorer:
        """Return the policy before its first step.

        Raises:
            UserError: Its weights are not those that the run started from.
        """
        reference = open_scorer(self.resolved, self.tokenizer, start, self.ranks, like=policy)
        if weights_fingerprint(reference.model) != self.model.weights:
            raise UserError(
                "the run's start has other weights than when the run began", where=str(self.folder),
                hint="run it again with --fresh",
            )  # fmt: skip
        return reference


def _evaluation_set(data: Mapping[str, Any], sets: Iterable[str]) -> str | None:
    """Return the evaluation set to measure, or None if the run has held-out rows.

    Raises:
        UserError: There are no rows to measure.
    """
    if data.get("held_out", 1):
        return None
    evaluation = data.get("evaluation")
    measured = next((name for name in sets if isinstance(evaluation, Mapping) and name in evaluation), None)
    if measured is None:
        raise UserError(
            "there is nothing to measure: the run has neither held-out rows nor an evaluation set", where="data",
            expected="held_out_fraction above 0, or eval.data",
        )  # fmt: skip
    return measured


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines in ASCII: some readers end a line at other characters than a newline."""
    path.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines), encoding="utf-8")
