"""From the scores of a forest's sequences to what an objective sees.

A `ScoredBatch` holds the values of some rows' sequences, one after the other and without padding. A `BatchBuilder` cuts
it into the examples that each term of an objective declares, with the declared fields and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.arrays import concat_ranges
from alignzoo.core.errors import RunFailed
from alignzoo.data.trees import Tree, Trees
from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Tokens, Unpaired
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.objective import Objective
from alignzoo.models.logits import per_sequence
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.scorer import Scorer


class TokenScores(Protocol):
    """Log-probs of the scored tokens of some trees, such as `alignzoo.reference.ReferenceScores`."""

    def tokens(self, tree: int, branch: int) -> NDArray[np.float32]:
        """Return the log-probs of one branch, (n,), in nats."""


Term = Objective | Metric
"""Who is given examples."""

PER_SEQUENCE = ("scalar",)
"""Values that a sequence has one of; every other value belongs to a token."""


@dataclass
class ScoredBatch:
    """Rows (indices of trees), how many sequences each has, and the values of their scored tokens."""

    rows: list[int]
    counts: list[int]
    lengths: NDArray[np.int64]
    """(S,) scored tokens of each sequence."""
    values: dict[str, Tensor]
    """name -> (N,), or (S,) for those in PER_SEQUENCE."""

    def __post_init__(self) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.first = np.concatenate([[0], np.cumsum(self.counts)])

    @property
    def like(self) -> Tensor:
        """Some value of it: for the type and the device that all have."""
        return next(iter(self.values.values()))

    def sum(self, name: str) -> Tensor:
        """(S,) sums over each sequence's tokens."""
        return self._sum(self.values[name])

    def log_ratio(self) -> Tensor:
        """(S,) log pi - log pi_ref: sums of the tokens' differences, which are exactly 0 where the two agree."""
        return self._sum(self.values["log_prob"] - self.values["ref_log_prob"])

    def _sum(self, values: Tensor) -> Tensor:
        return per_sequence(values, torch.from_numpy(self.offsets).to(values.device))

    def tokens_of(self, sequences: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of the tokens of some sequences, in their order."""
        return concat_ranges(self.offsets[:-1][sequences], self.lengths[sequences])

    def in_order(self, rows: Sequence[int]) -> ScoredBatch:
        """The same, with the rows in this order."""
        place = {row: i for i, row in enumerate(self.rows)}
        order = [place[row] for row in rows]
        sequences = concat_ranges(self.first[:-1][order], np.diff(self.first)[order])
        index = {True: torch.from_numpy(sequences), False: torch.from_numpy(self.tokens_of(sequences))}
        values = {name: value[index[name in PER_SEQUENCE].to(value.device)] for name, value in self.values.items()}
        return ScoredBatch(list(rows), [self.counts[i] for i in order], self.lengths[sequences], values)


def concat_scored(parts: Sequence[ScoredBatch]) -> ScoredBatch:
    """Several as one."""
    return ScoredBatch(
        [row for part in parts for row in part.rows],
        [count for part in parts for count in part.counts],
        np.concatenate([part.lengths for part in parts]),
        {name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values},
    )


@dataclass(frozen=True, slots=True)
class LossInput:
    """A batch of examples for one term, and for each example the place of its row in the flat."""

    example: Pair | Scored | Unpaired | Ranked
    owners: NDArray[np.int64]


@dataclass
class BatchBuilder:
    """What an objective is given on some trees: scores, reference, columns, random numbers."""

    objective: Objective
    trees: Trees
    reference: TokenScores | None = None
    live: Scorer | None = None
    seed: int = 0
    metrics: Sequence[Metric] = ()
    """What else the scores are for."""

    def __post_init__(self) -> None:
        terms: list[Term] = [*(term for _, term in self.objective.terms), *self.metrics]
        self.statistics = tuple(dict.fromkeys(name for term in terms for name in term.statistics))
        self.with_gradient = ("log_prob", "scalar", *self.statistics)
        """Values that depend on the policy's weights."""
        self.compared = bool((np.diff(self.trees.trees) > (3 if self.trees.mismatched else 2)).all())
        """Whether every row has several completions, to be compared within the row."""
        self.only_chosen = all(term.data == "chosen" for term in terms)

    def names(self, rows: Sequence[int], most: int = 8) -> str:
        """The ids of some rows, for a message."""
        names = ", ".join(self.trees.ids[row] for row in rows[:most])
        return names + (f" and {len(rows) - most} more" if len(rows) > most else "")

    def check_losses(self, when: str, name: str, losses: Tensor, given: LossInput, flat: ScoredBatch) -> None:
        """Raises RunFailed, with the rows, unless there is one finite loss an example."""
        examples = len(given.owners)
        if losses.shape != (examples,):
            what = f"has shape {tuple(losses.shape)}; expected one loss an example, ({examples},)"
            raise RunFailed(f"the loss of {name} {what}")
        if not bool(losses.isfinite().all()):
            bad = [flat.rows[given.owners[i]] for i in (~losses.isfinite()).nonzero()[:, 0].tolist()]
            raise RunFailed(f"{when}the loss of {name} is not finite for rows {self.names(bad)}")

    def tree(self, row: int, everything: bool = False) -> Tree:
        """A row's tree, with the branches that the objective reads (all of them for metrics: `everything`)."""
        tree = self.trees[row]
        return Tree(tree.id, tree.prompt, tree.branches[:1]) if self.only_chosen and not everything else tree

    def score(self, scorer: Scorer, rows: Sequence[int], everything: bool = False) -> tuple[ScoredBatch, int]:
        """Run the model on these rows: what it says of their sequences, and the token slots computed."""
        trees = [self.tree(row, everything) for row in rows]
        device = next(scorer.parameters()).device
        forest = lay_out(trees, scorer.layout).to(device)
        flat = self.empty(rows, everything)
        flat.values = scorer(forest, self.statistics, self.live)
        self.with_reference(flat, device)
        return flat, forest.slots

    def empty(self, rows: Sequence[int], everything: bool = False) -> ScoredBatch:
        """Rows, counts and lengths, without any value."""
        trees = [self.tree(row, everything) for row in rows]
        lengths = [branch.scored for tree in trees for branch in tree.branches]
        return ScoredBatch(list(rows), [len(tree.branches) for tree in trees], np.array(lengths, dtype=np.int64), {})

    def with_reference(self, flat: ScoredBatch, device: torch.device) -> None:
        """Add the cached reference's token log-probs."""
        if self.reference is None:
            return
        places = [(row, b) for row, count in zip(flat.rows, flat.counts, strict=True) for b in range(count)]
        tokens = torch.from_numpy(np.concatenate([self.reference.tokens(row, b) for row, b in places]))
        flat.values["ref_log_prob"] = tokens.to(device)

    def zeros(self, rows: Sequence[int]) -> ScoredBatch:
        """Rows with zeros for scores: lengths and columns are true, which is all that a weight may depend on."""
        flat = self.empty(rows)
        zeros = torch.zeros(int(flat.lengths.sum()))
        names = ("log_prob", "ref_log_prob", *self.statistics)
        flat.values = dict.fromkeys(names, zeros) | {"scalar": torch.zeros(len(flat.lengths))}
        return flat

    def examples(
        self, flat: ScoredBatch, term: Term, state: Mapping[str, float] | None = None, step: int = 0
    ) -> Iterator[LossInput]:
        """The examples of one term: one batch, or for ranked data one for every length of list; none where no row has
        what it takes (an undesirable completion alone is nobody's chosen one).
        """
        first, n = flat.first[:-1], np.arange(len(flat.rows))
        own = {"_state": state or {}}
        if term.data == "chosen":
            if "desirable" in self.trees.columns:
                n = n[self.column(flat, "desirable")[first] > 0.5]
            if len(n):
                yield LossInput(self.scored(flat, term, first[n], step), n)
        elif term.data == "pair":
            worst = first + self.real(flat) - 1
            chosen, rejected = (self.scored(flat, term, index, step) for index in (first, worst))
            yield LossInput(Pair(chosen, rejected, **own, _uniform=self._uniform(flat, term, n, step)), n)
        elif term.data == "unpaired":
            real = self.real(flat)
            owners = np.repeat(n, real)
            index = concat_ranges(first, real)
            completion = self.scored(flat, term, index, step)
            other = self.scored(flat, term, index + np.repeat(real, real), step) if term.mismatched else None
            desirable = torch.from_numpy(self.column(flat, "desirable")[index] > 0.5).to(completion.length.device)
            uniform = self._uniform(flat, term, owners, step)
            yield LossInput(Unpaired(completion, desirable, other, **own, _uniform=uniform), owners)
        else:
            real = self.real(flat)
            for k in np.unique(real):
                owners = n[real == k]
                index = first[owners][:, None] + np.arange(k)
                uniform = self._uniform(flat, term, owners, step)
                places = torch.from_numpy(self.places(flat)[index]).to(flat.like.device)
                yield LossInput(Ranked(self.scored(flat, term, index, step), places, **own, _uniform=uniform), owners)

    def real(self, flat: ScoredBatch) -> NDArray[np.int64]:
        """(rows,) how many completions of its own each row has."""
        counts = np.array(flat.counts, dtype=np.int64)
        return counts // 2 if self.trees.mismatched else counts

    def places(self, flat: ScoredBatch) -> NDArray[np.int64]:
        """(S,) rank of each sequence in its row by the data, from 0 for the best: equal scores of a ranked list share
        one. Completions of other data stand in order.
        """
        starts = np.repeat(flat.first[:-1], flat.counts)
        if "score" not in self.trees.columns or not any(term.data == "ranked" for _, term in self.objective.terms):
            return np.arange(len(starts)) - starts
        score = self.column(flat, "score")
        falls = np.concatenate([[True], ~(score[1:] == score[:-1])]).cumsum()
        return falls - falls[starts]

    def scored(self, flat: ScoredBatch, term: Term, index: NDArray[np.int64], step: int = 0) -> Scored:
        """Some sequences of the flat, in the shape of `index`, with what the term declares."""
        sequences = index.reshape(-1)
        at = torch.from_numpy(index).to(flat.like.device)
        columns = {name: torch.from_numpy(self.column(flat, name)[index]).to(flat.like) for name in term.columns}
        length = torch.from_numpy(flat.lengths[index]).to(flat.like)
        if term.head == "scalar":
            return Scored(None, length, _columns=columns, _scalar=flat.values["scalar"][at])
        ref, log_ratio = None, None
        if term.reference != "none":
            ref, log_ratio = flat.sum("ref_log_prob")[at], flat.log_ratio()[at]
        tokens = self._tokens(flat, term, sequences, index.shape, step) if term.tokens else None
        return Scored(flat.sum("log_prob")[at], length, ref, tokens, columns, None, log_ratio)

    def _tokens(
        self, flat: ScoredBatch, term: Term, sequences: NDArray[np.int64], shape: tuple[int, ...], step: int
    ) -> Tokens:
        log_prob = flat.values["log_prob"]
        at = torch.from_numpy(flat.tokens_of(sequences)).to(log_prob.device)
        lengths = flat.lengths[sequences]
        ends = np.cumsum(lengths)
        position = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        uniform = np.concatenate([self._token_draws(flat, s, step) for s in sequences]) if term.needs_uniform else None
        return Tokens(
            log_prob[at],
            torch.from_numpy(np.repeat(np.arange(len(sequences)), lengths)).to(log_prob.device),
            torch.from_numpy(position).to(log_prob.device),
            shape,
            flat.values["ref_log_prob"][at] if term.reference in ("token", "live", "moving") else None,
            {name: flat.values[name][at] for name in term.statistics},
            None if uniform is None else torch.from_numpy(uniform).to(log_prob),
        )

    def column(self, flat: ScoredBatch, name: str) -> NDArray[np.float32]:
        """(S,) of a column."""
        values = self.trees.columns[name]
        starts = [self.trees.branches(row)[0] for row in flat.rows]
        return np.concatenate([values[a : a + n] for a, n in zip(starts, flat.counts, strict=True)])

    def _uniform(self, flat: ScoredBatch, term: Term, owners: NDArray[np.int64], step: int) -> Tensor | None:
        if not term.needs_uniform:
            return None
        seen: dict[int, int] = {}
        draws = []
        for owner in owners.tolist():  # a row that gives several examples gives each its own number
            nth = seen[owner] = seen.get(owner, -1) + 1
            draws.append(self._dice(flat.rows[owner], step, nth).random(dtype=np.float32))
        return torch.tensor(np.array(draws)).to(flat.like)

    def _token_draws(self, flat: ScoredBatch, sequence: int, step: int) -> NDArray[np.float32]:
        owner = int(np.searchsorted(flat.first, sequence, side="right")) - 1
        branch = sequence - int(flat.first[owner])
        # In float32 from the start: a float64 just below 1 would be rounded up to it.
        return self._dice(flat.rows[owner], step, 1000 + branch).random(int(flat.lengths[sequence]), np.float32)

    def _dice(self, row: int, step: int, nth: int) -> np.random.Generator:
        """A generator that depends on run, step and row alone."""
        name = int.from_bytes(blake2b(self.trees.ids[row].encode(), digest_size=8).digest(), "big")
        return np.random.default_rng([self.seed, step, name, nth])
