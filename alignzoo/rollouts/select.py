"""Training rows from draws and rewards: groups, pairs, labels, lists, or the best of N."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignzoo.data.convert import PairRule, pair_places
from alignzoo.data.mismatched import with_mismatched
from alignzoo.data.trees import Branch, TokenIds, Tree, Trees
from alignzoo.interfaces.objective import Objective
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.drawn_by import flags
from alignzoo.rollouts.rewards import Judged

OWN = -1
"""The number of the data's own completion among the draws of a prompt."""


class Choice(NamedTuple):
    """One training row: the numbers of its draws, best first."""

    draws: tuple[int, ...]
    desirable: float = 1.0
    """The label of the first draw; the others are undesirable."""


Rule = Callable[[NDArray[np.int64], NDArray[np.float64]], Iterator[Choice]]
"""From a prompt's draws that are kept, by falling reward, and the rewards of all, to training rows."""


@dataclass(frozen=True)
class Selection:
    """The training rows of a rollout."""

    trees: Trees
    rows_of: list[list[int]]
    """The training rows of each prompt."""


def select(
    objective: Objective, config: RolloutConfig, ids: Sequence[str], prompts: Sequence[TokenIds], draws: Draws,
    judged: Judged, max_length: int, own: Sequence[Branch] = (),
) -> Selection:  # fmt: skip
    """Make the training rows that an objective takes of the draws.

    A row's columns are `score`, the reward, and `desirable`; those of a group are `reward`, `kept` and `finished`. Both
    have those of `flags`.
    Draws with the same tokens form no pair, and a list has each once. Each of them has a label: how often the policy
    says something counts.

    Args:
        objective: The objective, or a sum of several.
        config: The rules for pairs and labels.
        ids: The ids of the prompts.
        prompts: Their token ids.
        draws: All completions.
        judged: Their rewards.
        max_length: Limit on prompt and completion, in tokens, for mismatched completions.
        own: The data's own completion of each prompt, which is preferred to every draw with `pairs: data`.
    """
    if objective.data == "group":
        return _groups(objective, ids, prompts, draws, judged)
    rule = _rule(objective, config)
    compares = any(term.data in ("pair", "ranked") for _, term in objective.terms)
    reward, kept = judged.reward, judged.kept
    trees: list[Tree] = []
    score: list[float] = []
    desirable: list[float] = []
    numbers: list[int] = []
    rows_of: list[list[int]] = []
    for b, (id, prompt) in enumerate(zip(ids, prompts, strict=True)):
        first = b * kept.shape[1]
        usable = np.flatnonzero(kept[b])
        order = usable[np.argsort(-reward[b, usable], kind="stable")]
        if own:
            choices = [Choice((OWN, g)) for g in usable.tolist() if not np.array_equal(draws[first + g], own[b].tokens)]
        elif len(order):
            choices = list(rule(_distinct(order, draws, first) if compares else order, reward[b]))
        else:
            choices = []
        rows_of.append(list(range(len(trees), len(trees) + len(choices))))
        for n, choice in enumerate(choices):
            branches = tuple(own[b] if g == OWN else Branch(draws[first + g]) for g in choice.draws)
            trees.append(Tree(id if len(choices) == 1 else f"{id}/{n}", prompt, branches))
            numbers += [first + g for g in choice.draws]
            score += [float(reward[b, g]) if g != OWN else math.nan for g in choice.draws]
            desirable += [choice.desirable] + [0.0] * (len(choice.draws) - 1)
    columns = {"score": np.array(score, np.float32)}
    columns |= {name: flag[numbers].astype(np.float32) for name, flag in flags(objective, len(ids)).items()}
    if any(term.data == "unpaired" for _, term in objective.terms):
        columns["desirable"] = np.array(desirable, np.float32)
    if objective.mismatched and len({tree.prompt.tobytes() for tree in trees}) < 2:
        return Selection(Trees.build([]), [[] for _ in ids])  # no completion of another prompt
    built = Trees.build(trees, columns)
    return Selection(with_mismatched(built, max_length) if objective.mismatched else built, rows_of)


def _groups(
    objective: Objective, ids: Sequence[str], prompts: Sequence[TokenIds], draws: Draws, judged: Judged
) -> Selection:
    count = judged.kept.shape[1]
    trees = Trees.build(
        Tree(id, prompt, tuple(Branch(draws[b * count + g]) for g in range(count)))
        for b, (id, prompt) in enumerate(zip(ids, prompts, strict=True))
    )
    found = {"reward": judged.reward, "kept": judged.kept, "finished": draws.finished}
    found |= flags(objective, len(ids))
    trees.columns = {name: values.reshape(-1).astype(np.float32) for name, values in found.items()}
    return Selection(trees, [[b] for b in range(len(ids))])


def _distinct(order: NDArray[np.int64], draws: Draws, first: int) -> NDArray[np.int64]:
    """Keep the first of draws with the same tokens."""
    seen = {draws[first + int(g)].tobytes(): int(g) for g in order[::-1]}
    kept = set(seen.values())
    return np.array([g for g in order if int(g) in kept], dtype=np.int64)


def _rule(objective: Objective, config: RolloutConfig) -> Rule:
    kinds = {term.data for _, term in objective.terms}
    if "ranked" in kinds:
        return _ranked
    if "pair" in kinds:
        rule: PairRule = "extremes" if config.pairs is None or config.pairs == "data" else config.pairs
        return lambda order, reward: _pairs(order, reward, rule)
    if "unpaired" in kinds:
        limit = config.labels if isinstance(config.labels, float) else None
        return lambda order, reward: _labels(order, reward, limit)
    return lambda order, reward: iter([Choice((int(order[0]),))])  # the best of N


def _ranked(order: NDArray[np.int64], reward: NDArray[np.float64]) -> Iterator[Choice]:
    if len(order) > 1 and reward[order[0]] > reward[order[-1]]:
        yield Choice(tuple(order.tolist()))


def _pairs(order: NDArray[np.int64], reward: NDArray[np.float64], rule: PairRule) -> Iterator[Choice]:
    for i, j in pair_places(rule, len(order)):
        if reward[order[i]] > reward[order[j]]:
            yield Choice((int(order[i]), int(order[j])))


def _labels(order: NDArray[np.int64], reward: NDArray[np.float64], limit: float | None) -> Iterator[Choice]:
    """Label each draw by a limit, or by the prompt's mean reward unless all are equal."""
    if limit is None and reward[order[0]] == reward[order[-1]]:
        return
    limit = float(reward[order].mean()) if limit is None else limit
    for g in order.tolist():
        yield Choice((g,), float(reward[g] > limit))
