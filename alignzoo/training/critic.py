"""The critic of a run: its start, its scorer beside the policy's, and its optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.errors import UserError
from alignzoo.data.trees import Trees
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.models.adapters import NEW_HEAD, add_adapters, named_base_of, read_adapter, set_named_base
from alignzoo.models.fingerprint import num_trainable_parameters
from alignzoo.models.loading import load_policy
from alignzoo.models.value_models import value_model
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
    key = _key_of_run(resolved)
    return None if key is None else resolved.needs[key]


def _key_of_run(resolved: Resolved) -> str | None:
    """Return the dotted key that names `critic_run`."""
    recipe = resolved.recipe
    if recipe.objective.head != "value" or (recipe.critic and recipe.critic.model):
        return CRITIC if CRITIC in resolved.needs else None
    for n, reward in enumerate(recipe.rollout.rewards if recipe.rollout else ()):
        for field in reward.judge.needs_runs if reward.weight else ():
            run = resolved.needs.get(key := f"rollout.rewards.{n}.{field}")
            if run and run.recipe.objective.head == "scalar" and len(run.recipe.objective.outputs) < 2:
                return key
    return None


def critic_adapter_run(resolved: Resolved) -> Resolved | None:
    """Return the recipe whose run's adapter the critic's starts from; None for a new one.

    Raises:
        UserError: The critic's start has other weights than the policy's below its adapter, or no adapter.
    """
    recipe, run, key = resolved.recipe, critic_run(resolved), _key_of_run(resolved)
    source = recipe.critic.model if recipe.critic else None
    if run is None:
        if source is None or _weights(source, recipe.seed) == _weights(recipe.model, recipe.seed):
            return None
        key, why = "critic", "is another model than the policy's start"
    elif resolved.start is not None and run.fingerprint == resolved.start.fingerprint:
        return None
    elif run.recipe.objective.head != "scalar" or len(run.recipe.objective.outputs) > 1:
        why = "trained no reward model of one output"
    elif run.recipe.model.lora is None:
        why = "trained all weights"
    elif _base(run) != _base(resolved):
        why = "trained an adapter on other weights than the policy's start"
    elif recipe.critic and recipe.critic.lora:
        raise UserError(
            f"the critic starts from the adapter of the run of {run.recipe.name} ({key}), which has a rank and layers",
            where="critic.lora", expected="no critic.lora",
        )  # fmt: skip
    else:
        return run
    what = f"the run of {run.recipe.name} {why}" if run else f"{source} {why}"
    raise UserError(
        f"beside model.lora the critic is an adapter on the policy's start, and {what}", where=str(key),
        expected="a reward model trained with model.lora on the policy's start",
        hint="a critic with the start of `model` (critic.from or critic.path) begins with a new adapter and head",
    )  # fmt: skip


def _weights(source: ModelSource, seed: int) -> Any:
    """Return what identifies a source's weights, whatever type they are loaded in."""
    return source.origin or (source.fingerprint(), seed)


def _base(run: Resolved) -> Any:
    """Return what identifies the weights below a run's adapter."""
    model = run.recipe.model
    start = run.start.fingerprint if run.start else _weights(model, run.recipe.seed)
    return start, model.dtype, model.quantize


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
    config = recipe.critic or CriticConfig()
    make = _load_whole if recipe.model.lora is None else _add_to_policy
    model, whose = make(job, config, tokenizer, policy.model)
    check(model)
    critic = Scorer(model, precision=recipe.train.precision).to(job.ranks.device)
    choose_layout(critic, trees, recipe.train.layout)
    share_layout(trees, policy, critic, *([live] if live else []))
    rate = config.learning_rate or recipe.train.optimizer.learning_rate
    optimizer = recipe.train.optimizer.model_copy(update={"learning_rate": rate})
    size = num_trainable_parameters(model)
    job.screen.info(f"critic: starts from {whose} ({size / 1e6:.3g} M parameters are trained), learning rate {rate:g}")
    made = make_optimizer(optimizer, model, recipe.train.master_weights, recipe.train.weight_decay_on)
    return Learner(critic, made, rate, config.max_grad_norm)


def _load_whole(
    job: Job, config: CriticConfig, tokenizer: PreTrainedTokenizerBase, policy: PreTrainedModel
) -> tuple[PreTrainedModel, str]:
    """Load a critic with weights of its own, and say what it starts from."""
    recipe, run = job.recipe, critic_run(job.resolved)
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
    whose = "the policy's start" if config.model is None else str(config.model)
    whose = f"the run of {run.recipe.name}" if run else whose
    return model, f"{whose}{', with a new head' if getattr(model, NEW_HEAD, False) else ''}"


def _add_to_policy(
    job: Job, config: CriticConfig, tokenizer: PreTrainedTokenizerBase, policy: PreTrainedModel
) -> tuple[PreTrainedModel, str]:
    """Put a critic's adapter and head on the policy's weights, and say what it starts from."""
    recipe, run = job.recipe, critic_adapter_run(job.resolved)
    model = value_model(policy, tokenizer, recipe.seed, recipe.model.runs_code)
    base, revision = named_base_of(policy)
    if run is None:
        lora = config.lora or recipe.model.lora
        assert lora is not None
        add_adapters(model, lora, f"critic {recipe.seed}", base, revision)
        return model, "the policy's start, with a new adapter and head on its weights"
    assert job.critic_start is not None
    check_same_tokenizer(job.resolved, recipe.model, "critic", tokenizer, job.critic_start)
    read_adapter(model, job.critic_start)
    set_named_base(model, base, revision)
    return model, f"the adapter of the run of {run.recipe.name}, on the policy's weights"
