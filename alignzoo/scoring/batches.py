"""Batches of scored sequences, and the examples that an objective is given from them.

A `ScoredBatch` holds the values of some rows' sequences, one after the other and without padding. A `BatchBuilder`
makes of it the examples for each term of an objective, with the fields that the term declares and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.arrays import concat_ranges
from alignzoo.core.errors import RunFailed
from alignzoo.data.trees import Tree, Trees
from alignzoo.interfaces.group import Group
from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Unpaired
from alignzoo.interfaces.metric import Metric
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import CONSTANT, OWN
from alignzoo.interfaces.rows import TIE
from alignzoo.interfaces.tokens import Tokens
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.scored_batch import NAMED, OLD, OLD_VALUE, RETURNS, ScoredBatch, TokenScores
from alignzoo.scoring.scorer import HIDDEN_SUM, LOG_PROB, VALUE, Scorer

Term = Objective | Metric
"""An objective or a metric: both are given examples."""


@dataclass(frozen=True, slots=True)
class LossInput:
    """Examples for one term, and for each example the index of its row in the batch."""

    example: Pair | Scored | Unpaired | Ranked | Group
    owners: NDArray[np.int64]


@dataclass
class BatchBuilder:
    """Builder of loss inputs from trees: scores, reference, columns and random numbers."""

    objective: Objective
    trees: Trees
    reference: TokenScores | None = None
    live: Scorer | None = None
    seed: int = 0
    metrics: Sequence[Metric] = ()
    """Metrics that read the same scores."""
    recorded: Mapping[str, TokenScores] = field(default_factory=dict)
    """Further values of tokens that were computed before: `old_log_prob`, `old_value`, `returns`, `token_advantage`,
    and `NAMED` of the recipe's named references."""
    max_new_tokens: int = 0
    """The limit of new tokens of draws."""
    starts_at_reference: bool = True
    """False if the reference is another model than the policy before its first step."""
    critic: Scorer | None = None
    """Gives the values of tokens, for an objective with `head = "value"`. Its layout is that of the policy's scorer."""
    prompts: NDArray[np.int64] | None = None
    """A number of each row, equal where rows share a prompt, shape (rows,); None: every row has its own."""

    def __post_init__(self) -> None:
        terms: list[Term] = [*(term for _, term in self.objective.terms), *self.metrics]
        self.ask(terms)
        self.with_gradient = ("log_prob", "scalar", VALUE, *(name for name in self.statistics if name not in CONSTANT))
        """Names of the values that depend on trained weights."""
        self.only_chosen = all(term.data == "chosen" for term in terms)
        self.groups = any(term.data == "group" for term in terms)
        """True if the rows are groups of draws."""
        self.hold(self.trees, self.reference, self.recorded)

    def ask(self, terms: Sequence[Term]) -> None:
        """Compute what these terms need with the log-probs, and nothing else."""
        self.statistics = tuple(dict.fromkeys(name for term in terms for name in term.statistics))
        self.own = {name: one for term in terms for name, one in term.own_statistics.items()}
        further = {HIDDEN_SUM: "hidden_sum", LOG_PROB: "language_head"}
        self.asked = self.statistics + tuple(
            name for name, declared in further.items() if any(getattr(term, declared, False) for term in terms)
        )

    def hold(self, trees: Trees, reference: TokenScores | None, recorded: Mapping[str, TokenScores]) -> None:
        """Go on with other rows."""
        self.trees, self.reference, self.recorded = trees, reference, recorded
        self.compared = bool((np.diff(self.trees.trees) > (3 if self.trees.mismatched else 2)).all())
        """True if every row has several completions, to be compared within the row."""

    def names(self, rows: Sequence[int], limit: int = 8) -> str:
        """Join the ids of some rows, for a message."""
        names = ", ".join(self.trees.ids[row] for row in rows[:limit])
        return names + (f" and {len(rows) - limit} more" if len(rows) > limit else "")

    def prompts_of(self, batch: ScoredBatch) -> NDArray[np.int64]:
        """Return the number of each row's prompt, shape (rows of the batch,)."""
        rows = np.asarray(batch.rows, dtype=np.int64)
        return rows if self.prompts is None else self.prompts[rows]

    def check_losses(self, when: str, name: str, losses: Tensor, loss_input: LossInput, batch: ScoredBatch) -> None:
        """Raise RunFailed, with the rows, unless there is one finite loss for each example."""
        examples = len(loss_input.owners)
        if losses.shape != (examples,):
            problem = f"has shape {tuple(losses.shape)}; expected one loss an example, ({examples},)"
            raise RunFailed(f"the loss of {name} {problem}")
        if not bool(losses.isfinite().all()):
            bad = [batch.rows[loss_input.owners[i]] for i in (~losses.isfinite()).nonzero()[:, 0].tolist()]
            raise RunFailed(f"{when}the loss of {name} is not finite for rows {self.names(bad)}")

    def tree(self, row: int, everything: bool = False) -> Tree:
        """Return a row's tree with the branches that the objective reads, or all (`everything`)."""
        tree = self.trees[row]
        return Tree(tree.id, tree.prompt, tree.branches[:1]) if self.only_chosen and not everything else tree

    def score(self, scorer: Scorer, rows: Sequence[int], everything: bool = False) -> tuple[ScoredBatch, int]:
        """Score rows with the model; return the batch and the number of token slots computed."""
        trees = [self.tree(row, everything) for row in rows]
        device = next(scorer.parameters()).device
        forest = lay_out(trees, scorer.layout).to(device)
        batch = self.empty(rows, everything)
        batch.values = scorer(forest, self.asked, self.live, self.own)
        if self.critic is not None:
            batch.values |= self.critic(forest, (VALUE,))
        self.with_reference(batch, device)
        if self.groups and OLD not in batch.values:  # the first update since the draws: the same policy
            batch.values[OLD] = batch.values["log_prob"].detach()
        return batch, forest.slots

    def empty(self, rows: Sequence[int], everything: bool = False) -> ScoredBatch:
        """Return a batch of rows, counts and lengths without values."""
        trees = [self.tree(row, everything) for row in rows]
        lengths = [branch.scored for tree in trees for branch in tree.branches]
        return ScoredBatch(list(rows), [len(tree.branches) for tree in trees], np.array(lengths, dtype=np.int64), {})

    def with_reference(self, batch: ScoredBatch, device: torch.device) -> None:
        """Add the reference's token log-probs, as `ref_log_prob`, and `recorded` scores, in place."""
        known = dict(self.recorded) | ({} if self.reference is None else {"ref_log_prob": self.reference})
        places = [(row, b) for row, count in zip(batch.rows, batch.counts, strict=True) for b in range(count)]
        for name, scores in known.items():
            tokens = torch.from_numpy(np.concatenate([scores.tokens(row, b) for row, b in places]))
            batch.values[name] = tokens.to(device)

    def zeros(self, rows: Sequence[int]) -> ScoredBatch:
        """Return a batch with zeros for scores.

        Weights are computed from it: they may depend on lengths and columns alone.
        """
        batch = self.empty(rows)
        zeros = torch.zeros(int(batch.lengths.sum()))
        terms = [term for _, term in self.objective.terms]
        named = [NAMED.format(name) for term in terms for name in term.references]
        tokens = ("log_prob", "ref_log_prob", OLD, "token_advantage", VALUE, OLD_VALUE, RETURNS)
        names = (*tokens, *self.statistics, *named)
        several = (len(self.objective.outputs),) if self.objective.outputs else ()
        per_sequence = {"scalar": torch.zeros(len(batch.lengths), *several)}
        per_sequence |= {HIDDEN_SUM: torch.zeros(len(batch.lengths), 1)} if HIDDEN_SUM in self.asked else {}
        batch.values = dict.fromkeys(names, zeros) | per_sequence
        return batch

    def examples(
        self, batch: ScoredBatch, term: Term, state: Mapping[str, float] | None = None, step: int = 0
    ) -> Iterator[LossInput]:
        """Yield the inputs of one term: one, or for ranked data one for each length of list.

        Nothing is yielded where no row fits the term, such as undesirable completions alone for `data = "chosen"`.
        """
        first, n = batch.first[:-1], np.arange(len(batch.rows))
        own = {"_state": state or {}}
        if term.data == "chosen":
            if "desirable" in self.trees.columns:
                n = n[self.column(batch, "desirable")[first] > 0.5]
            if len(n):
                yield LossInput(self.scored(batch, term, first[n], step), n)
        elif term.data == "pair":
            worst = first + self.real(batch) - 1
            sides = (first, worst)
            tied = self.tied(batch) if term.ties or TIE in self.trees.columns else None
            if tied is not None and not term.ties:
                n = n[~tied]
                sides = (first[n], worst[n])
            if len(n):
                chosen, rejected = (self.scored(batch, term, index, step) for index in sides)
                flags = None if tied is None or not term.ties else torch.from_numpy(tied).to(batch.like.device)
                uniform = self._uniform(batch, term, n, step)
                yield LossInput(Pair(chosen, rejected, flags, **own, _uniform=uniform), n)
        elif term.data == "unpaired":
            real = self.real(batch)
            owners = np.repeat(n, real)
            index = concat_ranges(first, real)
            completion = self.scored(batch, term, index, step)
            other = self.scored(batch, term, index + np.repeat(real, real), step) if term.mismatched else None
            desirable = torch.from_numpy(self.column(batch, "desirable")[index] > 0.5).to(completion.length.device)
            uniform = self._uniform(batch, term, owners, step)
            yield LossInput(Unpaired(completion, desirable, other, **own, _uniform=uniform), owners)
        elif term.data == "group":
            yield LossInput(self._group(batch, term, first, own, step), n)
        else:
            real = self.real(batch)
            for k in np.unique(real):
                owners = n[real == k]
                index = first[owners][:, None] + np.arange(k)
                uniform = self._uniform(batch, term, owners, step)
                places = torch.from_numpy(self.places(batch)[index]).to(batch.like.device)
                yield LossInput(Ranked(self.scored(batch, term, index, step), places, **own, _uniform=uniform), owners)

    def _group(
        self, batch: ScoredBatch, term: Term, first: NDArray[np.int64], own: Mapping[str, Any], step: int
    ) -> Group:
        index = first[:, None] + np.arange(batch.counts[0])
        columns = {
            name: torch.from_numpy(self.column(batch, name)[index]).to(batch.like)
            for name in ("reward", "kept", "finished", "advantage", "greedy_reward")
            if name in self.trees.columns
        }
        advantage, greedy = columns.get("advantage"), columns.get("greedy_reward")
        by_token = "token_advantage" in batch.values and advantage is None
        fitted = term.head == VALUE and RETURNS in batch.values
        if by_token or fitted:
            at = torch.from_numpy(batch.tokens_of(index.reshape(-1))).to(batch.like.device)
        if by_token:
            advantage = batch.values["token_advantage"][at]
        returns = batch.values[RETURNS][at] if fitted else None
        return Group(
            self.scored(batch, term, index, step), columns["reward"], columns["kept"] > 0.5, columns["finished"] > 0.5,
            self.max_new_tokens, advantage, None if greedy is None else greedy[:, 0], returns, **own,
            _uniform=self._uniform(batch, term, np.arange(len(batch.rows)), step),
        )  # fmt: skip

    def real(self, batch: ScoredBatch) -> NDArray[np.int64]:
        """Count each row's own completions, without mismatched ones: (rows,)."""
        counts = np.array(batch.counts, dtype=np.int64)
        return counts // 2 if self.trees.mismatched else counts

    def tied(self, batch: ScoredBatch) -> NDArray[np.bool_]:
        """Return True for rows in which no completion is better: (rows,)."""
        if TIE not in self.trees.columns:
            return np.zeros(len(batch.rows), dtype=np.bool_)
        return self.column(batch, TIE)[batch.first[:-1]] > 0.5

    def places(self, batch: ScoredBatch) -> NDArray[np.int64]:
        """Rank each sequence in its row by the data, from 0 for the best: (S,).

        Equal scores of a ranked list share a rank. Completions of other data rank in the order of the row.
        """
        starts = np.repeat(batch.first[:-1], batch.counts)
        if "score" not in self.trees.columns or not any(term.data == "ranked" for _, term in self.objective.terms):
            return np.arange(len(starts)) - starts
        score = self.column(batch, "score")
        falls = np.concatenate([[True], ~(score[1:] == score[:-1])]).cumsum()
        return falls - falls[starts]

    def scored(self, batch: ScoredBatch, term: Term, index: NDArray[np.int64], step: int = 0) -> Scored:
        """Return some sequences in the shape of `index`, with the fields that the term declares."""
        sequences = index.reshape(-1)
        at = torch.from_numpy(index).to(batch.like.device)
        columns = {name: torch.from_numpy(self.column(batch, name)[index]).to(batch.like) for name in term.columns}
        length = torch.from_numpy(batch.lengths[index]).to(batch.like)
        if term.head == "scalar":
            scalar = batch.values["scalar"][at]
            several = scalar if scalar.dim() > at.dim() else scalar[..., None]
            outputs = {name: several[..., self.objective.outputs.index(name)] for name in getattr(term, "outputs", ())}
            scalar = scalar if several is not scalar else scalar.mean(-1)
            log_prob = batch.sum(LOG_PROB)[at] if getattr(term, "language_head", False) else None
            return Scored(log_prob, length, _columns=columns, _scalar=scalar, _outputs=outputs)
        ref, log_ratio = None, None
        if term.reference != "none" and "ref_log_prob" in batch.values:
            ref, log_ratio = batch.sum("ref_log_prob")[at], batch.log_ratio()[at]
        refs = {name: batch.sum(NAMED.format(name))[at] for name in term.references}
        tokens = self._tokens(batch, term, sequences, index.shape, step) if term.tokens else None
        hidden = batch.values[HIDDEN_SUM][at] if term.hidden_sum else None
        old = batch.sum(OLD)[at] if term.data == "group" and OLD in batch.values else None
        log_prob = batch.sum("log_prob")[at] if "log_prob" in batch.values else None
        drawn = {who: self._drawn_by(batch, who)[at] for who in dict.fromkeys(getattr(term, "drawn_by", ()))}
        return Scored(
            log_prob, length, ref, tokens, columns, None, log_ratio, old, refs, _hidden_sum=hidden, _drawn_by=drawn
        )

    def _drawn_by(self, batch: ScoredBatch, who: str) -> Tensor:
        """Return True for the draws of one drawer, (S,); False for completions of the data."""
        name = f"by_{who}"
        known = name in self.trees.columns
        values = self.column(batch, name) > 0.5 if known else np.zeros(len(batch.lengths), np.bool_)
        return torch.from_numpy(values).to(batch.like.device)

    def _tokens(
        self, batch: ScoredBatch, term: Term, sequences: NDArray[np.int64], shape: tuple[int, ...], step: int
    ) -> Tokens:
        log_prob = batch.values["log_prob"]
        at = torch.from_numpy(batch.tokens_of(sequences)).to(log_prob.device)
        lengths = batch.lengths[sequences]
        ends = np.cumsum(lengths)
        position = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        uniform = np.concatenate([self._token_draws(batch, s, step) for s in sequences]) if term.needs_uniform else None
        return Tokens(
            log_prob[at],
            torch.from_numpy(np.repeat(np.arange(len(sequences)), lengths)).to(log_prob.device),
            torch.from_numpy(position).to(log_prob.device),
            shape,
            batch.values["ref_log_prob"][at] if term.reference in ("token", "live", "moving") else None,
            {name.partition(OWN)[0]: batch.values[name][at] for name in term.statistics},
            None if uniform is None else torch.from_numpy(uniform).to(log_prob),
            batch.values[OLD][at] if term.data == "group" and OLD in batch.values else None,
            {name: batch.values[NAMED.format(name)][at] for name in term.references},
            *(
                batch.values[name][at] if term.head == VALUE and name in batch.values else None
                for name in (VALUE, OLD_VALUE)
            ),
        )

    def column(self, batch: ScoredBatch, name: str) -> NDArray[np.float32]:
        """Return a column's value for each sequence: (S,)."""
        values = self.trees.columns[name]
        starts = [self.trees.branches(row)[0] for row in batch.rows]
        return np.concatenate([values[a : a + n] for a, n in zip(starts, batch.counts, strict=True)])

    def _uniform(self, batch: ScoredBatch, term: Term, owners: NDArray[np.int64], step: int) -> Tensor | None:
        if not term.needs_uniform:
            return None
        seen: dict[int, int] = {}
        draws = []
        for owner in owners.tolist():  # each example of a row has a number of its own
            nth = seen[owner] = seen.get(owner, -1) + 1
            draws.append(self._dice(batch.rows[owner], step, nth).random(dtype=np.float32))
        return torch.tensor(np.array(draws)).to(batch.like)

    def _token_draws(self, batch: ScoredBatch, sequence: int, step: int) -> NDArray[np.float32]:
        owner = int(np.searchsorted(batch.first, sequence, side="right")) - 1
        branch = sequence - int(batch.first[owner])
        # In float32 from the start: a float64 just below 1 would be rounded up to it.
        return self._dice(batch.rows[owner], step, 1000 + branch).random(int(batch.lengths[sequence]), np.float32)

    def _dice(self, row: int, step: int, nth: int) -> np.random.Generator:
        """Make a generator that depends on seed, step and row alone."""
        name = int.from_bytes(blake2b(self.trees.ids[row].encode(), digest_size=8).digest(), "big")
        return np.random.default_rng([self.seed, step, name, nth])
