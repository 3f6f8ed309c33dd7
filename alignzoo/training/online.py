"""Prompts, calendar and source of batches of a run with `rollout`."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.errors import UserError, nearest
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.data.trees import Trees
from alignzoo.recipe.draw import DrawConfig
from alignzoo.rollouts.calendar import Calendar
from alignzoo.rollouts.folder import RolloutFolder
from alignzoo.rollouts.prompts import Prompts, longest_prompt
from alignzoo.rollouts.source import Rollouts
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.job import Job
from alignzoo.training.preflight import check_length, check_reward_columns


@dataclass(frozen=True)
class Online:
    """The prompts of a run with `rollout`, and the order in which they are drawn for."""

    calendar: Calendar
    train: Prompts
    held_out: Prompts

    @classmethod
    def of(cls, job: Job, data: TokenizedDataset, tokenizer: PreTrainedTokenizerBase) -> Online | None:
        """Return the parts of a run with `rollout`, None for another run.

        Raises:
            UserError: The model or its optimizer is sharded, there are fewer prompts than a rollout has, an end token
                or a column of a reward is missing, or a stop string has a special token.
        """
        recipe, config = job.recipe, job.recipe.rollout
        if config is None:
            return None
        if job.ranks.parted:
            raise UserError(
                "completions are drawn by processes that each hold the whole model and its optimizer",
                where="rollout", expected="a launch without FSDP2 and ZeRO",
            )  # fmt: skip
        check_endings(config, tokenizer, "rollout")
        check_reward_columns(recipe, iter(data.train.rows))
        limits = (recipe.tokens.max_length, config.max_new_tokens, job.screen.info)
        train, held_out = (Prompts.of(part, *limits) for part in (data.train, data.answered))
        calendar = Calendar(recipe.train, config, len(train), recipe.seed)
        if len(train) < calendar.prompts:
            raise UserError(
                f"{len(train)} prompts can be drawn from, fewer than a rollout has",
                where="rollout.prompts" if config.prompts else "train.batch_size",
                expected=f"at most {len(train)} (got {calendar.prompts})",
            )  # fmt: skip
        return cls(calendar, train, held_out)

    def probes(self, tokenizer: PreTrainedTokenizerBase) -> Trees:
        """Return rows that stand for those to be drawn, for the choice of a layout."""
        config = self.calendar.rollout
        return self.train.probes(config.completions, config.max_new_tokens, len(tokenizer))

    def check_positions(self, model: PreTrainedModel) -> None:
        """Raise UserError if a prompt with a completion exceeds the model's positions.

        Lengths are in tokens, that of a completion is `rollout.max_new_tokens`.
        """
        check_length(model, longest_prompt([self.train, self.held_out]), self.calendar.rollout.max_new_tokens)

    def source(
        self, job: Job, scorer: Scorer, reference: Scorer | None, builder: BatchBuilder,
        tokenizer: PreTrainedTokenizerBase,
    ) -> Rollouts:  # fmt: skip
        """Return the source of the run's batches."""
        folder = RolloutFolder(job.folder.path / "rollouts", job.resolved.fingerprint, job.ranks)
        budget = 2 * job.recipe.train.micro_batch_tokens  # no activations are kept
        return Rollouts(
            job.recipe, self.calendar, scorer, reference, builder, tokenizer, self.train, self.held_out, folder,
            job.screen, budget, job.ranks,
        )  # fmt: skip


def check_endings(config: DrawConfig, tokenizer: PreTrainedTokenizerBase, section: str) -> None:
    """Raise UserError if an end token is missing, or a stop string has a special token.

    `section` is that of the recipe, `rollout` or `draw`.
    """
    for token in config.end_tokens:
        if token not in (known := tokenizer.get_vocab()):
            raise UserError(
                f"'{token}' is no token of the policy's tokenizer", where=f"{section}.end_tokens",
                nearest=nearest(token, known), hint=f"`{section}.stop` ends a completion at any text",
            )  # fmt: skip
    special = sorted(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    for stop, token in ((stop, token) for stop in config.stop for token in special if token in stop):
        raise UserError(
            f"{stop!r} is never found: '{token}' is a special token of the policy's tokenizer, and no text has it",
            where=f"{section}.stop", expected="strings of text", hint=f"{section}.end_tokens=['{token}'] ends at it",
        )  # fmt: skip
