"""`alignzoo.batches`: the batches of an objective, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from alignzoo.api.progress import screen_of
from alignzoo.api.resolve import Given, is_in_memory, model_in, resolve
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.evaluation.aggregate import Tally
from alignzoo.evaluation.row_metrics import step_metrics
from alignzoo.models.loading import use_gradient_checkpointing
from alignzoo.recipe.resolved import Resolved
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.microbatches import plan_micro_batches
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.adapt import adapt
from alignzoo.training.batch_loss import BatchLoss, States
from alignzoo.training.job import Job
from alignzoo.training.needed_runs import folder_of, open_judges, reference_weights, start_weights
from alignzoo.training.passes import zero_loss
from alignzoo.training.policy import device_of, open_data, open_policy
from alignzoo.training.preflight import check_enough_rows, check_positions, no_router_loss, preflight
from alignzoo.training.references import check_vocabularies, live_reference, score_references
from alignzoo.training.row_filter import filtered
from alignzoo.training.run import run_resolved
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.schedule import rows_of_step, total_steps

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.interfaces.group import Group
    from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Unpaired
    from alignzoo.interfaces.objective import Objective


@dataclass
class Part:
    """Some rows of a batch, scored together: a micro-batch."""

    ids: list[str]
    """The ids of the rows."""
    inputs: list[tuple[Objective, Pair | Scored | Unpaired | Ranked | Group]]
    """What the loss of each term sees. Its log-probs have a gradient, those of the reference have none.

    A term on ranked lists has an input for each length of list. A term without an example in these rows has none."""
    loss: Tensor
    """These rows' share of the batch's loss, a scalar. The shares of a batch add up to its loss."""
    slots: int
    """Token slots computed."""


@dataclass
class Batch:
    """The rows of one optimizer step."""

    step: int
    """The number of the step, from 0."""
    rows: list[int]
    """Their indices in the training rows."""
    batches: Batches = field(repr=False)

    def __post_init__(self) -> None:
        self._tally = Tally()

    @property
    def ids(self) -> list[str]:
        """The ids of the rows."""
        return [self.batches.builder.trees.ids[row] for row in self.rows]

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the rows scored so far, as a run logs them."""
        return self._tally.means()

    def __iter__(self) -> Iterator[Part]:
        """Score the rows, in micro-batches of `train.micro_batch_tokens`.

        Call `backward` on a part's loss before the next part is scored: then one micro-batch at a time is in memory. An
        objective whose loss depends on the whole batch has a single part.
        """
        self._tally = Tally()
        yield from self.batches.parts(self.step, self.rows, self._tally)

    def loss(self) -> Tensor:
        """Return the loss of the whole batch, with the graph of all of its rows in memory."""
        return sum((part.loss for part in self), start=self.batches.zero())

    def backward(self) -> dict[str, float]:
        """Add the gradient of the batch's loss, part by part, and return the metrics."""
        for part in self:
            part.loss.backward()
        return self.metrics


@dataclass(repr=False)
class Batches:
    """The batches of a recipe, in the order of its run: take a step after each.

    The optimizer, its schedule and the clipping of gradients are the loop's own.
    """

    resolved: Resolved
    model: PreTrainedModel
    """The policy, in eval mode: without dropout, the model that is trained is the one that is scored."""
    tokenizer: PreTrainedTokenizerBase
    data: TokenizedDataset
    builder: BatchBuilder
    scorer: Scorer

    def __post_init__(self) -> None:
        self._loss = BatchLoss(self.builder)
        self._states: States = self._loss.initial_states()
        self._whole = self.builder.objective.scope == "batch"

    def __len__(self) -> int:
        """Return the number of steps, by `train.epochs` and `train.max_steps`."""
        return total_steps(self.resolved.recipe.train, len(self.builder.trees))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batch of each step."""
        config, seed = self.resolved.recipe.train, self.resolved.recipe.seed
        self._states = self._loss.initial_states()
        for step in range(len(self)):
            yield Batch(step, rows_of_step(step, len(self.builder.trees), config, seed).tolist(), self)

    def parts(self, step: int, rows: list[int], tally: Tally) -> Iterator[Part]:
        """Score the rows of a step in micro-batches, and add their metrics to `tally`."""
        trees = [self.builder.tree(row) for row in rows]
        budget = self.resolved.recipe.train.micro_batch_tokens
        cut = [[*range(len(rows))]] if self._whole else plan_micro_batches(trees, budget, self.scorer.layout)
        totals = self._loss.total_weights(rows, step)
        for part in cut:
            yield self._part(step, [rows[i] for i in part], totals, tally)

    def _part(self, step: int, rows: list[int], totals: list[float], tally: Tally) -> Part:
        scored, slots = self.builder.score(self.scorer, rows)
        if self._whole:
            self._states = self._loss.next_states(scored, self._states, step)
        loss = self._loss.loss(step, scored, self._states, None if self._whole else totals, tally)
        tally.add(step_metrics(self.builder, scored))
        inputs = [
            (term, one.example)
            for n, (_, term) in enumerate(self._loss.terms)
            for one in self.builder.examples(scored, term, self._states[n], step)
        ]
        ids = [self.builder.trees.ids[row] for row in rows]
        return Part(ids, inputs, loss if loss.requires_grad else loss + zero_loss(scored), slots)

    def zero(self) -> Tensor:
        """Return a loss of zero without a gradient."""
        return next(self.model.parameters()).new_zeros((), requires_grad=False).float()


def batches(
    recipe: Given,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
    *,
    data: Any = None,
    model: PreTrainedModel | str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    objective: Objective | str | Mapping[str, Any] | Sequence[Any] | None = None,
    quiet: bool | None = None,
) -> Batches:
    """Return an objective's batches, for a training loop of your own.

    The rows are read, tokenized and scored by the reference as in a run. A model in memory is used as it is, on its
    device: it is the one that the loop trains, and its weights now are the reference.

    Args:
        recipe: As for `run`. Of its section `train`, the batches, the precision, the layout and the seed count.
        overrides: As for `run`.
        overlays: As for `run`.
        data: As for `run`.
        model: The policy, which the loop trains; or a folder or hub id.
        tokenizer: As for `run`.
        objective: As for `run`.
        quiet: As for `run`.

    Raises:
        UserError: As for `run`; or the recipe draws completions from the policy, moves its reference, or there are
            several processes.
    """
    resolved = resolve(
        recipe, overrides, overlays, data=data, model=model, tokenizer=tokenizer, objective=objective, in_place=True
    )  # fmt: skip
    given = model_in(recipe) if model is None else model
    own = cast("PreTrainedModel", given) if is_in_memory(given) else None
    _check(resolved, own is not None)
    screen = screen_of(quiet)
    for need in resolved.needs.values():
        run_resolved(need, screen=screen)
    open_judges(resolved, screen)
    device = own.device.type if own is not None else device_of(resolved.recipe.train.device)
    ranks = Ranks(device)
    if ranks.count > 1:
        raise UserError(f"batches are for one process, and this is one of {ranks.count}", expected="alignzoo.run")
    folder = RunFolder(folder_of(resolved).path, writes=False)
    job = Job(
        resolved, folder, start_weights(resolved, screen), screen, ranks, reference_weights(resolved, screen)
    )  # fmt: skip
    tokens, dataset = open_data(resolved, job.start, None, screen, ranks)
    check_enough_rows(dataset, resolved.recipe.train.batch_size)
    check_vocabularies(job, tokens)

    def check(one: PreTrainedModel) -> None:
        check_positions(one, dataset.train, *dataset.evaluated.values())
        no_router_loss(one, resolved.recipe.train.ignore_router_loss)

    trees = dataset.train.trees
    scorer, _ = open_policy(resolved, tokens, job.start, trees, ranks, check=check, model=own)
    dataset = filtered(job, scorer, dataset)
    references = score_references(job, scorer, tokens, dataset)
    adapt(job, scorer.model, tokens)
    live = live_reference(job, scorer, tokens, dataset.train.trees)
    builder = BatchBuilder(
        resolved.recipe.objective, dataset.train.trees, references.train, live, resolved.recipe.seed,
        recorded=references.named_train,
    )  # fmt: skip
    if resolved.recipe.train.gradient_checkpointing:
        use_gradient_checkpointing(scorer.model)
    return Batches(resolved, scorer.model, tokens, dataset, builder, scorer)


def _check(resolved: Resolved, in_memory: bool) -> None:
    """Raise UserError for a recipe whose steps need more than the batches of a data set."""
    recipe = resolved.recipe
    preflight(resolved, in_memory)
    if recipe.rollout is not None:
        raise UserError("batches are made of the data, and the recipe draws completions", where="rollout",
                        expected="a recipe without rollout, or alignzoo.run")  # fmt: skip
    if recipe.objective.head == "value" or recipe.objective.reference == "moving":
        what = "trains a critic" if recipe.objective.head == "value" else "moves its reference"
        raise UserError(f"{recipe.objective.name} {what}, which batches alone can't", where="objective",
                        expected="another objective, or alignzoo.run")  # fmt: skip
