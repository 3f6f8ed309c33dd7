"""The batches of an online run: each step's rows are made of the rollout that it belongs to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import RunFailed
from alignzoo.data.trees import TokenIds
from alignzoo.interfaces.group import Group
from alignzoo.models.ending import Ending
from alignzoo.models.generation import end_tokens
from alignzoo.models.tokenizers import decode
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.recipe.schema import Recipe
from alignzoo.rollouts.calendar import Calendar
from alignzoo.rollouts.draw import Draws, draw
from alignzoo.rollouts.figures import divergence, divergence_figures, figures
from alignzoo.rollouts.folder import PHASES, Arrays, RolloutFolder
from alignzoo.rollouts.forms import Form, all_fit, draws_fit
from alignzoo.rollouts.prompts import Prompts
from alignzoo.rollouts.rewards import Judged, combine, score
from alignzoo.rollouts.scores import TokenValues, score_rows, token_cuts
from alignzoo.rollouts.select import Selection, select
from alignzoo.rollouts.shares import in_shares
from alignzoo.scoring.advantages import advantage_input, advantages
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import TokenScores
from alignzoo.scoring.scorer import Scorer

States = list[dict[str, float]]
GREEDY = "greedy "
"""Prefix of the arrays of greedy draws."""
OLD = "old_log_prob"
"""The log-probs of the policy that drew."""
HELD_OUT = -1
"""The number of a rollout that held-out draws have, so that every evaluation uses the same random numbers."""


@dataclass
class Rollouts:
    """Draws, judges and scores a rollout before its first step, and hands out its rows.

    Every phase is on disk before the next begins. What is there already, of a run that was stopped, is used again.
    """

    recipe: Recipe
    calendar: Calendar
    scorer: Scorer
    reference: Scorer | None
    """The policy before its first step; None for an objective without a reference."""
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
        self._each = {"": self.config.completions} | ({GREEDY: 1} if self.objective.greedy_baseline else {})
        own = {self.tokenizer.get_vocab()[token] for token in self.config.end_tokens}
        ends = frozenset(own | end_tokens(self.scorer.model, self.tokenizer))
        self.ending = Ending(self.tokenizer, ends, self.config.stop)
        self.builder.max_new_tokens = self.config.max_new_tokens
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
        """Return the rows of a step, as numbers of the builder's trees, and the states that its loss sees.

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
        places = self.calendar.prompts_of(turn.rollout)
        ids, tokens = self.prompts.ids(places), self.prompts.tokens(places)
        self.seconds = {}

        def gone() -> Arrays:
            raise RunFailed(
                f"{when}its rollout, {turn.rollout}, is not on disk, and the policy that drew it is gone; "
                "--fresh starts the run again"
            )

        def phase(
            name: str, make: Callable[[], Arrays], fits: Callable[[Arrays], bool], texts: Any = None
        ) -> Arrays:  # fmt: skip
            began = time.perf_counter()
            found = self.folder.phase(turn.rollout, name, gone if turn.update else make, fits, texts)
            self.seconds[name] = time.perf_counter() - began
            return found

        counts = {prefix: len(tokens) * each for prefix, each in self._each.items()}
        vocabulary = int(self.scorer.model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
        drawn = phase(
            "drawn", lambda: self._draw(turn.rollout, places, tokens),
            lambda found: draws_fit(found, counts, self.config.max_new_tokens, vocabulary),
        )  # fmt: skip
        draws = Draws.from_arrays(drawn)
        texts = cache(lambda: draws.texts(self.ending))
        judged = phase(
            "judged", lambda: self._judge(drawn, draws, texts(), places, when),
            lambda found: all_fit(found, {
                f"{prefix}raw": Form(np.float64, (len(self.config.rewards), count), infinite=False)
                for prefix, count in counts.items()
            }),
            lambda one: self._lines(draws, texts(), places, one),
        )  # fmt: skip
        found = combine(judged["raw"], draws.finished, self.config, ids, when)
        chosen = select(self.objective, self.config, ids, tokens, draws, found, self.recipe.tokens.max_length)
        if f"{GREEDY}raw" in judged:
            self._add_greedy(chosen, drawn, judged, ids, when)
        if len(chosen.trees):
            self.builder.hold(chosen.trees, None, {})
        scored = phase(
            "scored", lambda: self._score(chosen, draws, tokens, states, when),
            lambda found: self._scored_fits(found, chosen, draws),
        )  # fmt: skip
        self._hold(chosen, scored)
        if self.objective.data == "group":
            self._after = self._next_states(chosen, scored, states)
        self._held, self._rows_of = turn.rollout, chosen.rows_of
        self.line = {"rollout": turn.rollout, "rows": len(chosen.trees)}
        plain = combine(judged["raw"], draws.finished, self.config, ids, when, normalize=False)
        self.line |= figures(draws, judged["raw"], plain, self.config.rewards) | divergence_figures(scored)
        self._last, self._times = self.line, self.seconds

    def _draw(self, rollout: int, places: NDArray[np.int64], tokens: list[TokenIds]) -> Arrays:
        found: dict[str, NDArray[Any]] = {}
        for prefix in self._each:
            draws = self._draws(rollout, tokens, self.prompts.rows[places], greedy=prefix == GREEDY)
            found |= {prefix + name: values for name, values in draws.arrays().items()}
        return found

    def _draws(self, rollout: int, tokens: list[TokenIds], rows: NDArray[np.int64], **options: Any) -> Draws:
        """Return draws of some prompts; each process draws for its share of them."""
        sizes = [len(prompt) + self.config.max_new_tokens * self.config.completions for prompt in tokens]

        def work(mine: list[int]) -> list[Draws]:
            each = 1 if options.get("greedy") else options.get("completions", self.config.completions)
            with self.screen.without_bars().bar("drawing", len(mine) * each) as advance:
                return draw(
                    self.scorer.model, self.tokenizer, [tokens[i] for i in mine], rows[mine].tolist(), self.config,
                    seed=self.recipe.seed, rollout=rollout, progress=advance, precision=self.scorer.precision,
                    ending=self.ending, **options,
                ).by_prompt(len(mine))  # fmt: skip

        return Draws.concat(in_shares(self.ranks, sizes, work))

    def _judge(
        self, drawn: Arrays, draws: Draws, texts: list[str], places: NDArray[np.int64], when: str
    ) -> dict[str, NDArray[Any]]:
        found = {"raw": self._scores(self.prompts, places, draws, texts, when)}
        if f"{GREEDY}tokens" in drawn:
            greedy = Draws.from_arrays(drawn, GREEDY)
            found[f"{GREEDY}raw"] = self._scores(self.prompts, places, greedy, greedy.texts(self.ending), when)
        return found

    def _scores(
        self, prompts: Prompts, places: NDArray[np.int64], draws: Draws, texts: list[str], when: str
    ) -> NDArray[np.float64]:
        """Return every judge's scores of draws for some prompts; each process asks for its share of them."""
        parts, each = draws.by_prompt(len(places)), len(draws) // len(places)

        def work(mine: list[int]) -> list[NDArray[np.float64]]:
            own = Draws.concat([parts[i] for i in mine])
            said = [text for i in mine for text in texts[i * each : (i + 1) * each]]
            found = score(self.config.rewards, prompts.asked(places[mine], said, own), when)
            return np.split(found, len(mine), axis=1)

        return np.concatenate(in_shares(self.ranks, [len(part.tokens) for part in parts], work), axis=1)

    def _lines(self, draws: Draws, texts: list[str], places: NDArray[np.int64], judged: Arrays) -> list[dict[str, Any]]:
        """Return one line a draw, for a reader; the first of a prompt has the prompt too."""
        each, raw = len(draws) // len(places), judged["raw"]
        lenient = self.config.model_copy(update={"missing": "drop"})  # raw scores are kept whatever becomes of them
        known = combine(raw, draws.finished, lenient, self.prompts.ids(places), normalize=False)
        rewards = np.where(known.kept, known.reward, np.nan).reshape(-1)
        ids, prompts = self.prompts.ids(places), decode(self.tokenizer, self.prompts.tokens(places))
        return [
            {"row": ids[n // each], "number": n % each, "reply": text, "finished": bool(draws.finished[n]),
             "reward": _or_none(rewards[n]), "scores": [_or_none(value) for value in raw[:, n]]}
            | ({} if n % each else {"prompt": prompts[n // each]})
            for n, text in enumerate(texts)
        ]  # fmt: skip

    def _add_greedy(self, chosen: Selection, drawn: Arrays, judged: Arrays, ids: list[str], when: str) -> None:
        config = self.config
        if config.unfinished == "drop":  # a baseline that is cut still is one
            config = config.model_copy(update={"unfinished": "keep"})
        finished = drawn[f"{GREEDY}finished"].astype(np.bool_)
        reward = combine(judged[f"{GREEDY}raw"], finished, config, ids, when).reward
        chosen.trees.columns["greedy_reward"] = np.repeat(reward, self.config.completions).astype(np.float32)

    def _score(
        self, chosen: Selection, draws: Draws, tokens: list[TokenIds], states: States, when: str
    ) -> dict[str, NDArray[Any]]:
        """Return what has to be known of the drawn rows before the first update: log-probs, advantages, figures."""
        objective, trees, say = self.objective, chosen.trees, self.screen.info
        found: dict[str, NDArray[Any]] = {}
        group = objective.data == "group"
        if group and (self.calendar.updates > 1 or objective.advantage_reads_log_probs):
            found[OLD] = score_rows(self.scorer, trees, self.budget, say, ranks=self.ranks)["log_prob"]
        reads = objective.reference in ("sequence", "token") or objective.advantage_reads_log_probs
        if self.reference is not None and reads and len(trees):
            found["ref_log_prob"] = score_rows(self.reference, trees, self.budget, say, ranks=self.ranks)["log_prob"]
        if group:
            input_ = self._advantage_input(chosen, found, states)
            found["advantage"] = advantages(objective, input_, self.builder.names(range(len(trees))), when).numpy()
        return found | divergence(
            self.scorer, self.reference, tokens, draws, self.config.kl_rows, self.config.temperature, self.budget,
            self.screen, self.ranks,
        )  # fmt: skip

    def _scored_fits(self, found: Arrays, chosen: Selection, draws: Draws) -> bool:
        """Return True for arrays that `_score` could have returned."""
        objective, config, group = self.objective, self.config, self.objective.data == "group"
        tokens = Form(np.float32, (int(token_cuts(chosen.trees)[-1]),))
        forms: dict[str, Form] = {}
        if group and (self.calendar.updates > 1 or objective.advantage_reads_log_probs):
            forms[OLD] = tokens
        reads = objective.reference in ("sequence", "token") or objective.advantage_reads_log_probs
        if self.reference is not None and reads and len(chosen.trees):
            forms["ref_log_prob"] = tokens
        if self.reference is not None and config.kl_rows:
            names = ("kl", "kl_sampled", "entropy", *(("mismatch",) if config.temperature == 1 else ()))
            forms |= dict.fromkeys(names, Form(np.float64, (min(config.kl_rows, len(draws)),)))
        if group and (advantage := found.get("advantage")) is not None:
            each = (len(chosen.trees), config.completions)
            forms["advantage"] = Form(advantage.dtype, each if advantage.ndim == 2 else tokens.shape)
        return all_fit(found, forms) and ("advantage" in found) == group

    def _advantage_input(self, chosen: Selection, scored: Arrays, states: States) -> Group:
        """Return the whole rollout as `advantage` sees it, in float64."""
        batch = self.builder.empty(range(len(chosen.trees)))
        names = (OLD, "ref_log_prob")
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
            known["token_advantage"] = TokenValues(trees, advantage.astype(np.float32))
        reference = TokenValues(trees, scored["ref_log_prob"]) if "ref_log_prob" in scored else None
        self._known = known
        self.builder.hold(trees, reference, known)

    def words(self, seconds: float) -> list[str]:
        """Return figures for the progress bar: the last rollout's reward, KL divergence and length, and times.

        Args:
            seconds: The time that the step took; scoring the draws counts as learning too.
        """
        line, names = self._last, {"reward": ".3f", "kl": ".2f", "length": ".0f"}
        found = [f"{name} {line[name]:{form}}" for name, form in names.items() if name in line]
        drawn, judged, scored = (self._times.get(name, 0.0) for name in PHASES)
        return [*found, f"drawn {drawn:.1f}", f"judged {judged:.1f}", f"learnt {scored + seconds:.1f} s"]

    def evaluate(self) -> dict[str, float]:
        """Return the figures of one draw for each of some held-out prompts: rewards, KL divergence, lengths."""
        places = self.held_out.spaced(self.config.held_out_prompts)
        if not len(places):
            return {}
        tokens, ids = self.held_out.tokens(places), self.held_out.ids(places)
        draws = self._draws(HELD_OUT, tokens, self.held_out.rows[places], completions=1)
        when = "held-out draws: "
        raw = self._scores(self.held_out, places, draws, draws.texts(self.ending), when)
        judged: Judged = combine(raw, draws.finished, self.config, ids, when, normalize=False)
        values = divergence(
            self.scorer, self.reference, tokens, draws, len(draws), self.config.temperature, self.budget, self.screen,
            self.ranks,
        )  # fmt: skip
        found = figures(draws, raw, judged, self.config.rewards) | divergence_figures(values)
        return {"drawn": float(len(draws))} | found


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _without_old(known: dict[str, TokenScores]) -> dict[str, TokenScores]:
    """Leave out the log-probs at the time of drawing.

    In the first update they are the forward's own, so that no rounding clips a ratio.
    """
    return {name: values for name, values in known.items() if name != OLD}
