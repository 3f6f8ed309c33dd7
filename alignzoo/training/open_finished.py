"""A finished run's policy and references, opened to score rows that training has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.door import validated
from alignzoo.core.errors import UserError
from alignzoo.data.trees import Trees
from alignzoo.interfaces.metric import Metric
from alignzoo.models.adapters import is_adapter
from alignzoo.models.fingerprint import weights_fingerprint
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.recipe.resolved import Resolved
from alignzoo.reference.scores import ReferenceScores
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.layout import choose_layout
from alignzoo.scoring.scored_batch import NAMED
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.needed_runs import reference_weights, start_weights
from alignzoo.training.policy import (
    cached_scores,
    copy_layout,
    device_of,
    open_reference,
    open_scorer,
    share_layout,
)
from alignzoo.training.records import MeasuredModel
from alignzoo.training.references import MAIN, needed_references
from alignzoo.training.run_folder import RunFolder


class FinishedPolicy:
    """The policy of a finished run, and what its objective and metrics compare it with.

    Models are loaded when they are first needed. A reference that nothing reads is not.

    Args:
        resolved: The run's recipe, as `load_finished` gives it.
        folder: The run folder.
        screen: Shows progress.

    Raises:
        UserError: The run is not finished.
    """

    def __init__(self, resolved: Resolved, folder: Path, screen: Screen) -> None:
        self.resolved, self.folder, self.screen = resolved, RunFolder(folder), screen
        self.recipe = resolved.recipe
        self.summary = self.folder.summary() or {}
        self.first_day = self.folder.first_day()
        self.tokenizer = pretrained_tokenizer(str(self.folder.policy), None, self.recipe.model.runs_code)
        self.ranks = Ranks(device_of(self.recipe.train.device))
        self.budget = 2 * self.recipe.train.micro_batch_tokens  # no activations are kept for a backward

    @cached_property
    def scorer(self) -> Scorer:
        """The trained policy."""
        start = self._start if is_adapter(self.folder.policy) else None
        return open_scorer(self.resolved, self.tokenizer, start, self.ranks, trained=self.folder.policy)

    @cached_property
    def _start(self) -> Path | None:
        return start_weights(self.resolved, self.screen)

    @cached_property
    def _starts(self) -> dict[str, Path]:
        return reference_weights(self.resolved, self.screen)

    def builder(self, trees: Trees, metrics: Sequence[Metric] = ()) -> BatchBuilder:
        """Return the builder of rows' examples, with the scores of every reference that is read.

        Args:
            trees: The rows.
            metrics: Metrics that are computed.

        Raises:
            UserError: The weights of a reference are gone, or have changed.
        """
        objective = self.recipe.objective
        choose_layout(self.scorer, trees, self.recipe.train.layout)
        builder = BatchBuilder(objective, trees, None, None, self.recipe.seed, metrics)
        if objective.head == "scalar":
            return builder
        recorded = {
            NAMED.format(name): self._scores(self._named(name, trees), trees, name)
            for name in sorted(needed_references(self.recipe) - {MAIN})
        }
        reference, live = None, None
        if any(one.reference != "none" for one in (objective, *metrics)):
            scorer = self._named(MAIN, trees) if MAIN in self.recipe.references else self._start_scorer
            if MAIN not in self.recipe.references:
                copy_layout(self.scorer, scorer)
            if objective.reference in ("live", "moving"):
                live = scorer
                share_layout(trees, self.scorer, live)
            reference = self._scores(scorer, trees, MAIN)
        builder.hold(trees, reference, recorded)
        builder.live = live
        return builder

    def _named(self, name: str, trees: Trees) -> Scorer:
        return open_reference(self.resolved, name, self.tokenizer, self._starts.get(name), trees, self.ranks)

    @cached_property
    def _start_scorer(self) -> Scorer:
        """Return the policy before its first step."""
        reference = open_scorer(self.resolved, self.tokenizer, self._start, self.ranks, like=self.scorer)
        known = validated(self.summary.get("model", {}), self.folder.path / "summary.json", MeasuredModel)
        if weights_fingerprint(reference.model) != known.weights:
            raise UserError(
                "the run's start has other weights than when the run began", where=str(self.folder.path),
                hint="run it again with --fresh",
            )  # fmt: skip
        return reference

    def _scores(self, scorer: Scorer, trees: Trees, name: str) -> ReferenceScores:
        label = "reference" if name == MAIN else f"reference {name}"
        source = self.recipe.references.get(name)
        (scores,) = cached_scores(
            self.resolved, scorer, [trees], self.screen, self.ranks, label=label, budget=self.budget, source=source
        )
        return scores
