"""Add adapters to the policy, and write its trained weights."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.artifacts import atomic_folder
from alignzoo.core.distributed.gather import full_state_dict
from alignzoo.core.errors import UserError
from alignzoo.models.adapters import add_adapters, score_head_note
from alignzoo.models.chat_template_files import NEW_TOKENS
from alignzoo.models.fingerprint import num_trainable_parameters
from alignzoo.training import checkpoint
from alignzoo.training.export import BASE
from alignzoo.training.job import Job


def adapt(job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the adapters of `model.lora`, if the recipe has it, after the reference pass.

    The pass scores the start, which has no adapters. The adapter's config names the base model. A base with random
    weights, a new head or new tokens exists nowhere else, so it is saved in the run folder.

    Raises:
        UserError: The model is sharded.
    """
    recipe, lora = job.recipe, job.recipe.model.lora
    if lora is None:
        return
    if job.ranks.sharded:
        raise UserError(
            "adapters can't be added to a model that FSDP has sharded", where="model.lora",
            expected="whole copies of the model in all processes (no FSDP), or training without adapters",
        )  # fmt: skip
    base, revision = recipe.model.origin or (None, None)
    if job.start is not None:
        base = str(job.start.resolve())
    has_new_tokens = hasattr(model, NEW_TOKENS)
    if has_new_tokens:
        job.screen.info("the embeddings of the chat template's new tokens are frozen under adapters, as all others are")
    if base is None or has_new_tokens or recipe.objective.head == "scalar":
        saved = job.folder.path / BASE
        if job.folder.writes and not saved.is_dir():
            weights = full_state_dict(model)
            with atomic_folder(saved, sum(tensor.nbytes for tensor in weights.values())) as temporary:
                checkpoint.export(temporary, model, tokenizer, weights)
        base, revision = str(saved.resolve()), None
    add_adapters(model, lora, recipe.seed, base, revision)
    size, trained = sum(parameter.numel() for parameter in model.parameters()), num_trainable_parameters(model)
    job.screen.info(f"adapters: rank {lora.r}, {trained / 1e6:.3g} M of {size / 1e6:.3g} M parameters are trained")
    if note := score_head_note(model):
        job.screen.info(note)


def export_policy(
    job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, critic: PreTrainedModel | None = None
) -> None:
    """Write the trained weights or the adapter to `policy/`, and a critic to `critic/`."""
    if critic is not None:
        _export(job, job.folder.critic, critic, tokenizer)
    _export(job, job.folder.policy, model, tokenizer)


def _export(job: Job, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    weights = checkpoint.weights_of(model)
    if job.folder.writes:
        needs = sum(tensor.nbytes for tensor in weights.values())
        with atomic_folder(folder, needs, over=True) as temporary:
            checkpoint.export(temporary, model, tokenizer, weights)
