"""Draws and scores of a rollout's prompts, and replacements for prompts without spread.

With `rollout.max_attempts` above 1, prompts whose draws all have the same reward are left out, and as many others are
drawn for, which each attempt chooses by a seed of its own (dynamic sampling, Yu et al. 2025, arXiv:2503.14476, section
3.2). Every attempt is on disk, so that a resumed run makes the same choices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.core.console import Advance, Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import RunFailed
from alignzoo.data.trees import TokenIds
from alignzoo.models.embeddings import embedding_rows
from alignzoo.models.ending import Ending
from alignzoo.models.tokenizers import decode
from alignzoo.recipe.draw import DrawConfig
from alignzoo.recipe.schema import Recipe
from alignzoo.rollouts.calendar import Calendar, Turn
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.drawn_by import POLICY, columns_of, draw_all, drawers
from alignzoo.rollouts.folder import Arrays, RolloutFolder
from alignzoo.rollouts.forms import Form, all_fit, draws_fit
from alignzoo.rollouts.held_out import draw_in_shares, make_in_shares
from alignzoo.rollouts.prompts import Prompts
from alignzoo.rollouts.rewards import Judged, combine, score
from alignzoo.rollouts.shares import in_shares
from alignzoo.scoring.scorer import Scorer

GREEDY = "greedy "
"""Prefix of the arrays of greedy draws."""


@dataclass(frozen=True)
class Attempt:
    """Some prompts, with their draws and the scores of these."""

    places: NDArray[np.int64]
    """(B,) places of the prompts among all that can be drawn for."""
    draws: Draws
    """B G draws."""
    judged: Judged
    """Their rewards, before any normalization."""
    raw: NDArray[np.float64]
    """(R, B G) scores of each judge."""
    greedy_reward: NDArray[np.float64] | None = None
    """(B,) rewards of the likeliest completions."""

    @classmethod
    def join(cls, parts: Sequence[Attempt]) -> Attempt:
        """Return the prompts of all attempts, one attempt after the other."""
        greedy = [part.greedy_reward for part in parts if part.greedy_reward is not None]
        return cls(
            np.concatenate([part.places for part in parts]), Draws.concat([part.draws for part in parts]),
            Judged(*(np.concatenate([getattr(part.judged, name) for part in parts]) for name in ("reward", "kept"))),
            np.concatenate([part.raw for part in parts], axis=1), np.concatenate(greedy) if greedy else None,
        )  # fmt: skip

    def take(self, prompts: NDArray[np.int64]) -> Attempt:
        """Return some prompts, in this order."""
        each = self.judged.kept.shape[1]
        own = (prompts[:, None] * each + np.arange(each)).reshape(-1)
        return Attempt(
            self.places[prompts], self.draws.take(own), Judged(self.judged.reward[prompts], self.judged.kept[prompts]),
            self.raw[:, own], None if self.greedy_reward is None else self.greedy_reward[prompts],
        )  # fmt: skip

    def only(self, columns: NDArray[np.int64]) -> Attempt:
        """Return some draws of each prompt."""
        own = (np.arange(len(self.places))[:, None] * self.judged.kept.shape[1] + columns).reshape(-1)
        return Attempt(self.places, self.draws.take(own), self.judged.only(columns), self.raw[:, own])


@dataclass
class Attempts:
    """Draws for prompts and has the draws judged; what is on disk already is used again."""

    recipe: Recipe
    calendar: Calendar | None
    """None where no rollouts follow each other."""
    policy: Scorer
    reference: Scorer | None
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    folder: RolloutFolder
    screen: Screen
    ranks: Ranks
    ending: Ending
    """What ends a completion."""

    @property
    def config(self) -> DrawConfig:
        """The section `rollout` or `draw`."""
        assert self.recipe.drawing is not None
        return self.recipe.drawing

    def make(self, turn: Turn, when: str, phase: Callable[..., Arrays]) -> tuple[list[Attempt], NDArray[np.int64]]:
        """Return the attempts of a rollout, and what is learnt from.

        Args:
            turn: The place of the step.
            when: The step, for a message.
            phase: Called with attempt, name, maker of the arrays, a test of their form, and a maker of lines of text;
                reads or makes them.

        Returns:
            The attempts, and for each of the rollout's prompts the place of the one that is learnt from among those of
            all attempts, -1 where none is left: (prompts,).
        """
        made: list[Attempt] = []
        rollout = self.recipe.rollout
        assert self.calendar is not None
        assert rollout is not None
        found = np.full(self.calendar.prompts, -1)
        places = self.calendar.prompts_of(turn.rollout)
        for attempt in range(rollout.max_attempts):
            if attempt:
                used = np.concatenate([one.places for one in made])
                places = self.calendar.replacements(turn.rollout, attempt, used, int((found < 0).sum()))
            if not len(places):
                break
            one = self.attempt(turn.rollout, attempt, places, when, phase)
            before = sum(len(other.places) for other in made)
            good = np.flatnonzero(one.judged.has_spread | (rollout.max_attempts == 1))
            if attempt:
                found[np.flatnonzero(found < 0)[: len(good)]] = before + good
            else:
                found[good] = good
            made.append(one)
        return made, found

    def attempt(
        self, rollout: int, attempt: int, places: NDArray[np.int64], when: str, phase: Callable[..., Arrays]
    ) -> Attempt:
        """Return the draws and scores of some prompts, from the disk where they are there.

        Args:
            rollout: The number of the rollout, of which the random numbers are a function.
            attempt: The number of the attempt, which `phase` receives.
            places: The places of the prompts among all that can be drawn for.
            when: The step or part, for a message.
            phase: As of `make`.
        """
        each = {"": self.config.completions} | ({GREEDY: 1} if self.recipe.objective.greedy_baseline else {})
        counts = {prefix: len(places) * count for prefix, count in each.items()}
        vocabulary = embedding_rows(self.policy.model)
        drawn = phase(
            attempt, "drawn", lambda: self._draw(rollout, places),
            lambda found: draws_fit(found, counts, self.config.max_new_tokens, vocabulary),
        )  # fmt: skip
        draws = Draws.from_arrays(drawn)
        texts = cache(lambda: draws.texts(self.ending))
        judged = phase(
            attempt, "judged", lambda: self._judge(drawn, draws, texts(), places, when),
            lambda found: all_fit(found, {
                f"{prefix}raw": Form(np.float64, (len(self.config.rewards), count), infinite=False)
                for prefix, count in counts.items()
            }),
            lambda found: self._lines(draws, texts(), places, found["raw"]),
        )  # fmt: skip
        rewards, greedy = self._combined(judged, drawn, places, when)
        return Attempt(places, draws, rewards, judged["raw"], greedy)

    def _combined(
        self, judged: Arrays, drawn: Arrays, places: NDArray[np.int64], when: str
    ) -> tuple[Judged, NDArray[np.float64] | None]:
        """Return the rewards of draws, and those of greedy ones if there are any.

        Raises:
            RunFailed: No reward applies to a draw, and the recipe has `missing: stop`.
        """
        ids, config = self.prompts.ids(places), self.config
        rewards = combine(judged["raw"], drawn["finished"].astype(np.bool_), config, ids, when, normalize=False)
        if f"{GREEDY}raw" not in judged:
            return rewards, None
        if config.unfinished == "drop":  # a baseline that is cut still is one
            config = config.model_copy(update={"unfinished": "keep"})
        finished = drawn[f"{GREEDY}finished"].astype(np.bool_)
        return rewards, combine(judged[f"{GREEDY}raw"], finished, config, ids, when).reward[:, 0]

    def _draw(self, rollout: int, places: NDArray[np.int64]) -> Arrays:
        tokens, rows = self.prompts.tokens(places), self.prompts.rows[places]
        found = self.draws(rollout, tokens, rows).arrays()
        if self.recipe.objective.greedy_baseline:
            greedy = self.draws(rollout, tokens, rows, greedy=True)
            found |= {GREEDY + name: values for name, values in greedy.arrays().items()}
        return found

    def draws(self, rollout: int, tokens: list[TokenIds], rows: NDArray[np.int64], **options: Any) -> Draws:
        """Return draws of some prompts; each process draws for its share of them.

        Args:
            rollout: The number of the rollout.
            tokens: Token ids of the prompts.
            rows: The row of the data of each prompt.
            options: Those of `draw`, for draws of the policy alone. Without any the objective says what draws.
        """
        seed = self.recipe.seed
        if options:
            return draw_in_shares(
                self.policy, self.tokenizer, tokens, rows, self.config, seed=seed, rollout=rollout,
                ending=self.ending, screen=self.screen, ranks=self.ranks, **options,
            )  # fmt: skip

        def make(prompts: list[TokenIds], own: list[int], advance: Advance) -> Draws:
            return draw_all(
                self.policy, self.reference, self.recipe.objective, self.tokenizer, prompts, own, self.config,
                seed=seed, rollout=rollout, progress=advance, ending=self.ending,
            )  # fmt: skip

        return make_in_shares(make, tokens, rows, self.config, self.config.completions, self.screen, self.ranks)

    def _judge(
        self, drawn: Arrays, draws: Draws, texts: list[str], places: NDArray[np.int64], when: str
    ) -> dict[str, NDArray[Any]]:
        found = {"raw": self.scores(self.prompts, places, draws, texts, when)}
        if f"{GREEDY}tokens" in drawn:
            greedy = Draws.from_arrays(drawn, GREEDY)
            found[f"{GREEDY}raw"] = self.scores(self.prompts, places, greedy, greedy.texts(self.ending), when)
        self._combined(found, drawn, places, when)  # what lacks a score is judged again, and so not kept
        return found

    def scores(
        self, prompts: Prompts, places: NDArray[np.int64], draws: Draws, texts: list[str], when: str
    ) -> NDArray[np.float64]:
        """Return every judge's scores (R, B G) of draws for some prompts.

        Each process judges its share of them.
        """
        parts, each = draws.by_prompt(len(places)), len(draws) // len(places)

        def work(mine: list[int]) -> list[NDArray[np.float64]]:
            own = Draws.concat([parts[i] for i in mine])
            said = [text for i in mine for text in texts[i * each : (i + 1) * each]]
            found = score(self.config.rewards, prompts.asked(places[mine], said, own), when, each)
            return np.split(found, len(mine), axis=1)

        return np.concatenate(in_shares(self.ranks, [len(part.tokens) for part in parts], work), axis=1)

    def _lines(
        self, draws: Draws, texts: list[str], places: NDArray[np.int64], raw: NDArray[np.float64]
    ) -> list[dict[str, Any]]:
        """Return one line a draw, for a reader; the first of a prompt has the prompt too."""
        each, by = len(draws) // len(places), drawers(self.recipe.objective, self.config)
        lenient = self.config.model_copy(update={"missing": "drop"})  # raw scores are kept whatever becomes of them
        known = combine(raw, draws.finished, lenient, self.prompts.ids(places), normalize=False)
        rewards = np.where(known.kept & bool(self.config.rewards), known.reward, np.nan).reshape(-1)
        ids, prompts = self.prompts.ids(places), decode(self.tokenizer, self.prompts.tokens(places))
        return [
            {"row": ids[n // each], "number": n % each, "reply": text, "finished": bool(draws.finished[n]),
             "reward": _or_none(rewards[n]), "scores": [_or_none(value) for value in raw[:, n]]}
            | ({} if by[n % each] == POLICY else {"drawn_by": by[n % each]})
            | ({} if n % each else {"prompt": prompts[n // each]})
            for n, text in enumerate(texts)
        ]  # fmt: skip

    def own(self, attempt: Attempt) -> Attempt:
        """Return the draws of the policy alone."""
        return attempt.only(columns_of(POLICY, self.recipe.objective, self.config))

    def others(self, attempt: Attempt) -> dict[str, float]:
        """Return the mean reward of each drawer but the policy; if there is any, also `no_spread`."""
        names = dict.fromkeys(drawers(self.recipe.objective, self.config))
        found = {
            who: attempt.judged.only(columns_of(who, self.recipe.objective, self.config))
            for who in names if who != POLICY
        }  # fmt: skip
        means = {f"reward_of_{who}": float(one.reward.sum() / max(1, one.kept.sum())) for who, one in found.items()}
        return means | ({"no_spread": float(1 - attempt.judged.has_spread.mean())} if found else {})

    def tokens(self, attempt: Attempt) -> list[TokenIds]:
        """Return the token ids of an attempt's prompts."""
        return self.prompts.tokens(attempt.places)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def timed(seconds: dict[str, float], name: str, work: Callable[[], Arrays]) -> Arrays:
    """Do the work, and add its time to that of its name."""
    began = time.perf_counter()
    found = work()
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
    return found


def gone(rollout: int, when: str) -> Arrays:
    """Raise RunFailed: the rollout can't be made again."""
    raise RunFailed(
        f"{when}its rollout, {rollout}, is not on disk, and the policy that drew it is gone; "
        "--fresh starts the run again"
    )
