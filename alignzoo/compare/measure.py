"""Measure a finished run: figures of held-out rows, sampled replies and verdicts.

Every held-out row has figures, and every sampled reply the judges' verdicts.

A run's folder gets

    evaluations/<key>/           examples.safetensors, samples.jsonl, about.json: see `alignzoo.compare.results`
    evaluations/verdicts/<key>/  about.json, one folder for each judge: see `alignzoo.compare.verdicts`

Each folder is written once, atomically, under a key of what it depends on: weights, held-out tokens and settings, or
replies, judge and the start's replies. Nothing that is there is computed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.numpy import save_file

from alignzoo.compare.exclusive import exclusive
from alignzoo.compare.replies import reply_lines
from alignzoo.compare.results import EXAMPLES, SAMPLES, EvaluationFolder, FiguresManifest
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
from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Objective
from alignzoo.models.fingerprint import weights_fingerprint
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.objectives.composition import Modified
from alignzoo.recipe.resolved import Resolved
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import NAMED
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.needed_runs import reference_weights, start_weights
from alignzoo.training.policy import cached_scores, device_of, open_policy, open_reference, open_scorer
from alignzoo.training.records import MeasuredModel
from alignzoo.training.references import needed_references
from alignzoo.training.run_folder import RunFolder

FORMAT = 3
"""Version of the figures: raise it when the meaning of one changes."""


def measure(
    resolved: Resolved,
    folder: Path,
    settings: Sampling,
    judges: Sequence[Judge],
    start: EvaluationFolder | None,
    screen: Screen,
    rows: EvaluationSet | None = None,
) -> EvaluationFolder:
    """Return the figures of the finished run in `folder`; compute those that are missing.

    Log-ratios and KL are relative to the weights that the run started from, for every objective, also where the recipe
    names another model as the reference. A run of supervised
    fine-tuning without `model.from` is the start of others: its reference is itself.

    Args:
        resolved: The run's recipe.
        folder: The run folder.
        settings: How replies are sampled.
        judges: Judges of the replies. One that fails costs its own figures alone.
        start: Figures of the run's start, whose replies the judges compare with.
        screen: Where progress is shown.
        rows: The evaluation set that is measured. None for the run's own rows.

    Raises:
        UserError: The run is not finished, or its start has changed since.
    """
    measured = _Measuring(resolved, folder, settings, screen, rows=rows).figures()
    verdicts = [judge_replies(judge, resolved, measured, start, screen) for judge in judges]
    return EvaluationFolder(measured.path, tuple(verdicts))


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
        about = {
            "format": FORMAT, "weights": self.model.trained_weights, "start": self.model.weights,
            "tokens": self.store.key, "sampling": self.settings.model_dump(),
        }  # fmt: skip
        RunFolder(self.folder).check_links()
        path = self.folder / "evaluations" / digest(about)
        if read_verified(path, FiguresManifest) is None:
            with exclusive(path, self.screen):
                if read_verified(path, FiguresManifest) is None:
                    self._write(path, about)
        return EvaluationFolder(path)

    def _write(self, path: Path, about: dict[str, Any]) -> None:
        if path.is_dir():
            self.screen.info(f"{path} is damaged: it is set aside and computed again")
            quarantine(path)
        reader = RowReader(self.store.source, evaluation=self.store.evaluation is not None)
        held_out = self.store.get(reader, self.screen.info).held_out
        examples, lines = self._computed(held_out)
        with atomic_folder(path) as temporary:
            save_file(examples, temporary / EXAMPLES)
            _write_lines(temporary / SAMPLES, lines)
            groups = [digest(row.group)[:16] for row in held_out.rows]
            more = {"ids": list(held_out.trees.ids), "groups": groups, "reward": reward_scale(self.recipe.objective)}
            write_manifest(temporary, about | more)

    def _computed(self, held_out: TokenizedRows) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        recipe, objective, trees = self.recipe, self.recipe.objective, held_out.trees
        test, budget = for_testing([row.group for row in held_out.rows]), self.budget
        start = start_weights(self.resolved, self.screen)
        policy, _ = open_policy(
            self.resolved, self.tokenizer, start, trees, self.ranks, trained=self.folder / "policy"
        )  # fmt: skip
        builder = BatchBuilder(objective, trees, None, None, recipe.seed, recipe.eval.metrics)
        if objective.head == "scalar":
            return row_figures(policy, builder, test, budget, self.screen), []
        own = is_own_reference(self.resolved)
        reference = policy if own else self._reference(policy, start)
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
        lines = reply_lines(
            policy, reference, self.tokenizer, held_out, test, recipe.data.train_on != "all", self.settings, budget,
            self.screen,
        )  # fmt: skip
        return examples, lines

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


def reward_scale(objective: Objective) -> list[Any]:
    """Return the definition of the implicit reward; margins with the same one share a unit.

    The default reward is beta times the log-ratio, or the log-prob without a reference. A reward of the objective's own
    may depend on any of its fields. Modifiers count if they change the log-ratio of a completion.
    """
    term = objective.terms[0][1]
    inner, modifiers = (term.inner, term.modifiers) if isinstance(term, Modified) else (term, ())
    around = [one for one in modifiers if type(one).scored is not Modifier.scored]
    if type(inner).implicit_reward is Objective.implicit_reward and inner.head != "scalar":
        own: Any = ["log_prob" if inner.reference == "none" else "log_ratio", getattr(inner, "beta", 1.0)]
    else:
        own = inner.to_recipe()
    return [own, *({"name": one.name, **one.model_dump(mode="json")} for one in around)]


def is_own_reference(resolved: Resolved) -> bool:
    """Return True for supervised fine-tuning without `model.from`, the start of other runs."""
    terms = [term for _, term in resolved.recipe.objective.terms]
    return resolved.start is None and all(term.data == "chosen" and term.reference == "none" for term in terms)


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines in ASCII: some readers end a line at other characters than a newline."""
    path.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines), encoding="utf-8")
