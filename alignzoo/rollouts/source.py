"""Batches of an online run: the rows of each step are made from its rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.data.trees import Trees
from alignzoo.evaluation.evaluate import VALIDATION
from alignzoo.interfaces.group import Group
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.recipe.schema import Recipe
from alignzoo.rollouts.attempts import Attempt, Attempts, gone, timed
from alignzoo.rollouts.calendar import Calendar
from alignzoo.rollouts.figures import critic_figures, divergence, divergence_figures, figures
from alignzoo.rollouts.folder import PHASES, Arrays, RolloutFolder
from alignzoo.rollouts.forms import Form, all_fit
from alignzoo.rollouts.held_out import HeldOutDraws, ending_of
from alignzoo.rollouts.prompts import Prompts
from alignzoo.rollouts.rewards import Judged, combine
from alignzoo.rollouts.scores import TokenValues, float_type, score_rows, token_cuts
from alignzoo.rollouts.select import Selection, select
from alignzoo.scoring.advantages import advantage_input, advantages, returns
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import OLD, OLD_VALUE, RETURNS, TokenScores
from alignzoo.scoring.scorer import VALUE, Scorer

States = list[dict[str, float]]


@dataclass
class Rollouts:
    """Draws, judges and scores a rollout before its first step, and hands out its rows.

    Every phase is on disk before the next begins. What is there already, of a run that was stopped, is used again.
    """

    recipe: Recipe
    calendar: Calendar
    scorer: Scorer
    reference: Scorer | None
    """The policy before its first step; None where nothing reads it."""
    builder: BatchBuilder
    """Its rows are replaced by those of each rollout."""
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    held_out: Prompts
    folder: RolloutFolder
    screen: Screen
    budget: int
    """Token slots of a micro-batch."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes. Each draws, judges and scores for its share of the prompts, and all hold the whole rollout."""
    line: dict[str, Any] | None = None
    """The figures of a rollout, in its first step."""
    seconds: dict[str, float] = field(default_factory=dict)
    """The time that each phase of the rollout took, in its first step."""

    def __post_init__(self) -> None:
        assert self.recipe.rollout is not None
        self.config: RolloutConfig = self.recipe.rollout
        self.objective = self.recipe.objective
        self.ending = ending_of(self.scorer.model, self.tokenizer, self.config)
        self.builder.max_new_tokens = self.config.max_new_tokens
        self.attempts = Attempts(
            self.recipe, self.calendar, self.scorer, self.reference, self.tokenizer, self.prompts, self.folder,
            self.screen, self.ranks, self.ending,
        )  # fmt: skip
        self._held = -1
        self._rows_of: list[list[int]] = []
        self._known: dict[str, TokenScores] = {}
        self._after: States | None = None
        self._last: dict[str, Any] = {}
        self._times: dict[str, float] = {}
        if self.objective.data == "group":  # draws are scored at the temperature that they were drawn at
            for scorer in filter(None, (self.scorer, self.reference)):
                scorer.temperature = self.config.temperature

    def begin(self, step: int, states: States) -> tuple[list[int], States]:
        """Return a step's rows, as indices of the builder's trees, and the states for its loss.

        Args:
            step: The step, from 0.
            states: The state of each term before the step.

        Raises:
            RunFailed: A judge or the objective's advantage fails, or a rollout that this step continues is not on disk.
        """
        turn = self.calendar.turn(step)
        if turn.rollout != self._held:
            self._open(step, states)
        if turn.update:
            self.line, self.seconds = None, {}
        self.builder.recorded = self._known if turn.update else _without_old(self._known)
        rows = [row for place in self.calendar.minibatch(step) for row in self._rows_of[int(place)]]
        return rows, self._after or states if turn.update == 0 else states

    def _open(self, step: int, states: States) -> None:
        """Make or read the rollout of a step, and give its rows to the builder."""
        turn, when = self.calendar.turn(step), f"step {step + 1}: "
        self.seconds = {}

        def phase(
            attempt: int, name: str, make: Callable[[], Arrays], fits: Callable[[Arrays], bool], texts: Any = None
        ) -> Arrays:  # fmt: skip
            maker = partial(gone, turn.rollout, when) if turn.update else make
            work = partial(self.folder.phase, turn.rollout, name, maker, fits, texts, attempt)
            return timed(self.seconds, name, work)

        made, found = self.attempts.make(turn, when, phase)
        places = np.flatnonzero(found >= 0)
        learnt = Attempt.join(made).take(found[places])
        chosen = self._select(learnt)
        if len(chosen.trees):
            self.builder.hold(chosen.trees, None, {})
        first = self.attempts.own(made[0])
        scored = phase(
            0, "scored", lambda: self._score(chosen, first, found[places], states, when),
            lambda known: self._scored_fits(known, chosen, first, len(places)),
        )  # fmt: skip
        self._hold(chosen, scored)
        if self.objective.data == "group" and len(chosen.trees):
            self._after = self._next_states(chosen, scored, states)
        rows_of: list[list[int]] = [[] for _ in found]
        for place, rows in zip(places.tolist(), chosen.rows_of, strict=True):
            rows_of[place] = rows
        self._held, self._rows_of = turn.rollout, rows_of
        self.line = {"rollout": turn.rollout, "rows": len(chosen.trees)}
        if self.config.max_attempts > 1:
            self.line |= {"attempts": len(made), "prompts_drawn": sum(len(one.places) for one in made)}
        self.line |= figures(first.draws, first.raw, first.judged, self.config.rewards)
        self.line |= self.attempts.others(made[0]) | divergence_figures(scored) | critic_figures(chosen.trees, scored)
        self.line |= {f"state_{name}": value for name, value in states[0].items()} if states else {}
        self._last, self._times = self.line, self.seconds

    def _select(self, learnt: Attempt) -> Selection:
        """Return the rows that are learnt from, with the rewards normalized as the recipe says."""
        ids, tokens = self.prompts.ids(learnt.places), self.attempts.tokens(learnt)
        judged = combine(learnt.raw, learnt.draws.finished, self.config, ids) if ids else learnt.judged
        own = self.prompts.best(learnt.places) if self.config.pairs == "data" else ()
        chosen = select(
            self.objective, self.config, ids, tokens, learnt.draws, judged, self.recipe.tokens.max_length, own
        )
        if learnt.greedy_reward is not None:
            greedy = np.repeat(learnt.greedy_reward, self.config.completions).astype(np.float32)
            chosen.trees.columns["greedy_reward"] = greedy
        return chosen

    def _score(
        self, chosen: Selection, first: Attempt, learnt: NDArray[np.int64], states: States, when: str
    ) -> dict[str, NDArray[Any]]:
        """Return the draws' log-probs, values, advantages and figures before any update."""
        objective, trees = self.objective, chosen.trees
        found: dict[str, NDArray[Any]] = {"learnt": learnt} if self.config.max_attempts > 1 else {}
        group = objective.data == "group"
        if len(trees):
            if self._keeps_old:
                found[OLD] = self._log_probs(self.scorer, trees)
            if objective.reference in ("sequence", "token"):
                if self.config.reference == "start":
                    assert self.reference is not None
                    found["ref_log_prob"] = self._log_probs(self.reference, trees)
                else:
                    found["ref_log_prob"] = found[OLD] if OLD in found else self._log_probs(self.scorer, trees)
            if self.builder.critic is not None:
                found[OLD_VALUE] = self._token_values(self.builder.critic, trees, VALUE)
            if group:
                input_, names = self._advantage_input(chosen, found, states), self.builder.names(range(len(trees)))
                found["advantage"] = advantages(objective, input_, names, when).numpy()
                if self.builder.critic is not None:
                    found[RETURNS] = returns(objective, input_, names, when).double().numpy()
        return found | divergence(
            self.scorer, self.reference, self.attempts.tokens(first), first.draws, self.config.kl_rows,
            self.config.temperature, self.budget, self.screen, self.ranks,
        )  # fmt: skip

    @property
    def _keeps_old(self) -> bool:
        """True if a later update, or `advantage`, reads log-probs at the time of drawing."""
        reads = self.calendar.updates > 1 or self.objective.advantage_reads_log_probs
        return self.objective.data == "group" and reads

    def _log_probs(self, scorer: Scorer, trees: Trees) -> NDArray[Any]:
        return self._token_values(scorer, trees, "log_prob")

    def _token_values(self, scorer: Scorer, trees: Trees, name: str) -> NDArray[Any]:
        asked = () if name == "log_prob" else (name,)
        return score_rows(scorer, trees, self.budget, self.screen.info, asked, ranks=self.ranks)[name]

    def _scored_fits(self, found: Arrays, chosen: Selection, first: Attempt, learnt: int) -> bool:
        """Return True for arrays that `_score` could have returned."""
        objective, config, group = self.objective, self.config, self.objective.data == "group"
        forms = {"learnt": Form(np.int64, (learnt,))} if config.max_attempts > 1 else {}
        if len(chosen.trees):
            shape = (int(token_cuts(chosen.trees)[-1]),)
            if self._keeps_old:
                forms[OLD] = Form(float_type(self.scorer), shape)
            if objective.reference in ("sequence", "token"):
                start = self.reference if config.reference == "start" else None
                forms["ref_log_prob"] = Form(float_type(start or self.scorer), shape)
            if (critic := self.builder.critic) is not None:
                forms |= {OLD_VALUE: Form(float_type(critic), shape), RETURNS: Form(np.float64, shape)}
            if group and (advantage := found.get("advantage")) is not None:
                each = (len(chosen.trees), config.completions)
                forms["advantage"] = Form(advantage.dtype, each if advantage.ndim == 2 else shape)
        if self.reference is not None and config.kl_rows:
            names = ("kl", "kl_sampled", "entropy", *(("mismatch",) if config.temperature == 1 else ()))
            measured = (min(config.kl_rows, len(first.draws)),)
            forms |= dict.fromkeys(names, Form(np.float64, measured)) | {"prompt": Form(np.int64, measured)}
        return all_fit(found, forms) and ("advantage" in found) == (group and len(chosen.trees) > 0)

    def _advantage_input(self, chosen: Selection, scored: Arrays, states: States) -> Group:
        """Return the whole rollout as `advantage` sees it, in float64."""
        batch = self.builder.empty(range(len(chosen.trees)))
        names = (OLD, "ref_log_prob", OLD_VALUE)
        batch.values = {name: torch.from_numpy(scored[name]).double() for name in names if name in scored}
        return advantage_input(self.builder, batch, self.objective, states[0])

    def _next_states(self, chosen: Selection, scored: Arrays, states: States) -> States:
        if not states[0]:
            return states
        after = self.objective.next_state(self._advantage_input(chosen, scored, states))
        return [{key: float(value) for key, value in after.items()}]

    def _hold(self, chosen: Selection, scored: Arrays) -> None:
        """Give the rows to the builder, with what was computed of them before."""
        trees = chosen.trees
        self._known = {}
        if not len(trees):
            return
        advantage = scored.get("advantage")
        if advantage is not None and advantage.ndim == 2:
            trees.columns["advantage"] = advantage.reshape(-1).astype(np.float32)
        known: dict[str, TokenScores] = {OLD: TokenValues(trees, scored[OLD])} if OLD in scored else {}
        if advantage is not None and advantage.ndim == 1:
            known["token_advantage"] = TokenValues(trees, advantage.astype(float_type(self.scorer)))
        for name in (OLD_VALUE, RETURNS):
            if name in scored:
                known[name] = TokenValues(trees, scored[name].astype(scored[OLD_VALUE].dtype))
        reference = TokenValues(trees, scored["ref_log_prob"]) if "ref_log_prob" in scored else None
        self._known = known
        self.builder.hold(trees, reference, known)

    def words(self, seconds: float) -> list[str]:
        """Return progress bar figures: the last rollout's reward, KL divergence, length and times.

        Args:
            seconds: The time that the step took; scoring the draws counts as learning too.
        """
        line, names = self._last, {"reward": ".3f", "kl": ".2f", "length": ".0f"}
        found = [f"{name} {line[name]:{form}}" for name, form in names.items() if name in line]
        drawn, judged, scored = (self._times.get(name, 0.0) for name in PHASES)
        return [*found, f"drawn {drawn:.1f}", f"judged {judged:.1f}", f"learnt {scored + seconds:.1f} s"]

    def evaluate(self, half: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Return figures of one draw for each of some held-out prompts: rewards, KL, lengths.

        `half` marks the held-out rows of the validation half. Figures of its prompts are added, with `VALIDATION`
        before their names.
        """
        places = self.held_out.spaced(self.config.held_out_prompts)
        if not len(places):
            return {}
        own_draws = HeldOutDraws(
            self.scorer, self.reference, self.tokenizer, self.held_out, places, self.config, self.recipe.seed,
            self.ending, self.budget, self.screen, self.ranks,
        )  # fmt: skip
        draws, ids, when = own_draws.draw(), self.held_out.ids(places), "held-out draws: "
        raw = self.attempts.scores(self.held_out, places, draws, draws.texts(self.ending), when)
        config = self.config  # a judge that compares says nothing of a single draw
        if any(reward.judge.only_compares for reward in config.rewards):
            config = config.model_copy(update={"missing": "drop"})
        judged = combine(raw, draws.finished, config, ids, when, normalize=False)
        values = own_draws.divergence(draws)
        rewards = self.config.rewards
        found = {"drawn": float(len(draws))} | figures(draws, raw, judged, rewards) | divergence_figures(values)
        if half is not None and (own := half[self.held_out.rows[places]]).any():
            at, measured = np.flatnonzero(own), {name: value[own] for name, value in values.items()}
            kept = Judged(judged.reward[at], judged.kept[at])
            chosen = figures(draws.take(at), raw[:, at], kept, rewards) | divergence_figures(measured)
            found |= {f"{VALIDATION}{name}": value for name, value in chosen.items()}
        return found


def _without_old(known: dict[str, TokenScores]) -> dict[str, TokenScores]:
    """Leave out the log-probs at the time of drawing.

    In the first update they are the forward's own, so that no rounding clips a ratio.
    """
    return {name: values for name, values in known.items() if name != OLD}
