"""The critic of a run: its start, its scorer beside the policy's, and its optimizer."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.errors import UserError
from alignzoo.data.trees import Trees
from alignzoo.models.adapters import NEW_HEAD
from alignzoo.models.loading import load_policy
from alignzoo.recipe.critic import CriticConfig
from alignzoo.recipe.resolved import CRITIC, Resolved
from alignzoo.scoring.layout import choose_layout
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.job import Job
from alignzoo.training.learner import Learner
from alignzoo.training.optimizers import make_optimizer
from alignzoo.training.policy import check_same_tokenizer, share_layout


def critic_run(resolved: Resolved) -> Resolved | None:
    """Return the recipe whose run the critic starts from; None where it starts from a model.

    It is the one at `critic.from`, or else that of the first reward model that counts among the rewards, if it has a
    single output.
    """
    recipe = resolved.recipe
    if recipe.objective.head != "value" or (recipe.critic and recipe.critic.model):
        return resolved.needs.get(CRITIC)
    for n, reward in enumerate(recipe.rollout.rewards if recipe.rollout else ()):
        for field in reward.judge.needs_runs if reward.weight else ():
            run = resolved.needs.get(f"rollout.rewards.{n}.{field}")
            if run and run.recipe.objective.head == "scalar" and len(run.recipe.objective.outputs) < 2:
                return run
    return None


def open_critic(
    job: Job, policy: Scorer, live: Scorer | None, tokenizer: PreTrainedTokenizerBase, trees: Trees,
    check: Callable[[PreTrainedModel], None],
) -> Learner | None:  # fmt: skip
    """Load the critic and its optimizer, or return None for an objective without one.

    Args:
        job: The run.
        policy: The policy's scorer, whose layout the critic shares.
        live: The reference that runs beside the policy, if there is one; it shares the layout too.
        tokenizer: The policy's tokenizer.
        trees: Rows that layouts are checked on.
        check: Called with the loaded model; raises UserError for one that can't be used.

    Raises:
        UserError: The model can't be loaded, gives other token ids, or has no scalar head.
    """
    recipe = job.recipe
    if recipe.objective.head != "value":
        return None
    config, run = recipe.critic or CriticConfig(), critic_run(job.resolved)
    source, start = config.model or recipe.model, job.critic_start
    if config.model is not None or run is not None:
        check_same_tokenizer(job.resolved, source, "critic", tokenizer, start)
    else:
        start = job.start
    model = load_policy(source, tokenizer, recipe.seed, start, "scalar")
    head = model.score
    assert isinstance(head, nn.Linear)
    if head.out_features != 1:
        raise UserError(
            f"this model has {head.out_features} outputs", where="critic", expected="one, the value of a token"
        )
    check(model)
    critic = Scorer(model, precision=recipe.train.precision).to(job.ranks.device)
    choose_layout(critic, trees, recipe.train.layout)
    share_layout(trees, policy, critic, *([live] if live else []))
    rate = config.learning_rate or recipe.train.optimizer.learning_rate
    optimizer = recipe.train.optimizer.model_copy(update={"learning_rate": rate})
    whose = "the policy's start" if config.model is None else str(config.model)
    whose = f"the run of {run.recipe.name}" if run else whose
    new = ", with a new head" if getattr(model, NEW_HEAD, False) else ""
    size = sum(parameter.numel() for parameter in model.parameters())
    job.screen.info(f"critic: starts from {whose}{new} ({size / 1e6:.2f} M parameters), learning rate {rate:g}")
    made = make_optimizer(optimizer, model, recipe.train.master_weights, recipe.train.weight_decay_on)
    return Learner(critic, made, rate, config.max_grad_norm)
