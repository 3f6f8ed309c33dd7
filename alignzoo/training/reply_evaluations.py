"""Sampled replies to held-out prompts along training: judges' scores against KL.

`eval.replies.every` asks for them. They are drawn at temperature 1 with the same random numbers at every step, so that
the policies of two steps differ by their weights alone. No step reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alignzoo.core.digests import digest
from alignzoo.core.errors import UserError
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.trees import Trees
from alignzoo.evaluation.aggregate import standard_error
from alignzoo.evaluation.judging import Verdict, ask, failure
from alignzoo.evaluation.samples import best_and_worst, choose_reply_rows
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.figures import divergence_figures
from alignzoo.rollouts.held_out import HeldOutDraws, ending_of
from alignzoo.rollouts.prompts import Prompts
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.job import Job
from alignzoo.training.references import reply_reference

KIND = "replies"
"""Kind of the lines of metrics.jsonl with their figures."""


@dataclass(frozen=True)
class ReplyEvaluations:
    """Draws replies to held-out prompts, has them judged, and measures their KL divergence."""

    job: Job
    draws: HeldOutDraws

    @classmethod
    def of(
        cls, job: Job, scorer: Scorer, live: Scorer | None, tokenizer: PreTrainedTokenizerBase,
        held_out: TokenizedRows, trees: Trees,
    ) -> ReplyEvaluations | None:  # fmt: skip
        """Return the evaluations of a run, None where none is asked for or no prompt is there.

        Args:
            job: The run.
            scorer: The policy, with the weights of its start.
            live: The reference that runs beside it, if there is one.
            tokenizer: Their tokenizer.
            held_out: The rows whose prompts are answered, as in samples.jsonl.
            trees: Rows that stand for those to be scored, for the choice of a layout.

        Raises:
            UserError: The model is sharded.
        """
        recipe = job.recipe
        replies = recipe.eval.replies
        if replies.every is None or recipe.objective.head == "scalar" or recipe.data.train_on == "all":
            return None
        rows = np.array(choose_reply_rows(held_out, replies.num_prompts), np.int64)
        if not len(rows):
            return None
        if job.ranks.sharded:
            raise UserError(
                "replies are drawn by processes that each hold the whole model", where="eval.replies.every",
                expected="a launch without FSDP2, or null",
            )  # fmt: skip
        config = (recipe.rollout or RolloutConfig()).model_copy(
            update={"completions": 1, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": replies.max_new_tokens}
        )
        reference = reply_reference(job, scorer, live, tokenizer, trees)
        draws = HeldOutDraws(
            scorer, reference, tokenizer, Prompts(held_out, rows), np.arange(len(rows)), config, recipe.seed,
            ending_of(scorer.model, tokenizer, config), 2 * recipe.train.micro_batch_tokens, job.screen, job.ranks,
        )  # fmt: skip
        return cls(job, draws)

    def figures(self, step: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Return the figures after a step, and a record of each reply.

        `reward_NAME` and `win_rate_over_chosen_NAME` are those of a judge, with standard errors clustered by prompt;
        `reward` is that of the first judge with scores. `kl` sums the exact KL divergence of each token along the
        draws, and `kl_sampled` is the mean log-ratio of the same draws.
        """
        own, places = self.draws, self.draws.places
        draws = own.draw()
        data = own.prompts.data
        rows = [data.rows[int(row)] for row in own.prompts.rows[places]]
        groups = np.unique([str(row.group) for row in rows], return_inverse=True)[1]
        values = dict(own.divergence(draws)) | {"prompt": groups}
        texts = draws.texts(own.ending)
        asked = own.prompts.asked(places, texts, draws)
        chosen = [best_and_worst(row)["chosen"].strip() or None for row in rows]
        judges = self.job.recipe.eval.judges
        verdicts = own.ranks.broadcast_from_main(lambda: [self._verdicts(judge, asked, chosen) for judge in judges])
        judged = {judge.name: found for judge, found in zip(judges, verdicts, strict=True) if found}
        found = {"drawn": float(len(draws))} | judge_figures(judged, groups)
        found |= {"length": float(draws.lengths.mean()), "finished": float(draws.finished.mean())}
        about = {"id": asked.rows, "prompt": [digest(ids.tolist()) for ids in own.tokens]}
        return found | divergence_figures(values), _records(step, about, texts, draws, values, judged)

    def _verdicts(self, judge: Judge, asked: Any, chosen: Sequence[str | None]) -> list[Verdict]:
        """Return a judge's verdicts, none if it fails: training goes on."""
        try:
            return ask(judge, asked, chosen, None, self.job.screen.info)
        except (Exception, SystemExit) as error:  # a judge may fail in any way
            self.job.screen.info(f"judge {judge.name} failed ({failure(error)}); its figures are left out")
            return []


def judge_figures(judged: Mapping[str, Sequence[Verdict]], groups: NDArray[np.int64]) -> dict[str, float]:
    """Return mean and standard error of each judge's rewards and wins over the chosen.

    Args:
        judged: Judge's name -> a verdict for each of B replies.
        groups: (B,) number of each reply's prompt.
    """
    found: dict[str, float] = {}
    for name, verdicts in judged.items():
        for key, words in (("reward", "reward"), ("over_chosen", "win_rate_over_chosen")):
            given = [verdict.get(key) for verdict in verdicts]
            known = np.array([value is not None for value in given])
            if not known.any():
                continue
            values = np.array([value for value in given if value is not None])
            figures = {"": float(values.mean()), "_se": standard_error(values, groups[known])}
            for end, value in figures.items():
                if math.isfinite(value):
                    found[f"{words}_{name}{end}"] = value
                    if key == "reward":
                        found.setdefault(f"reward{end}", value)
    return found


def _records(
    step: int, about: Mapping[str, Sequence[str]], texts: Sequence[str], draws: Draws,
    values: Mapping[str, NDArray[Any]], judged: Mapping[str, Sequence[Verdict]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return lines of replies.jsonl."""
    return [
        {"step": step, **{key: own[n] for key, own in about.items()}, "reply": text}
        | {"length": int(draws.lengths[n]), "finished": bool(draws.finished[n])}
        | {key: float(values[name][n]) for key, name in (("kl", "kl"), ("log_ratio", "kl_sampled")) if name in values}
        | {"judges": {name: verdicts[n] for name, verdicts in judged.items()}}
        for n, text in enumerate(texts)
    ]
