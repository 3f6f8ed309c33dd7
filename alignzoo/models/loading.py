"""Policies and tokenizers: from another run, from a folder or the hub, or from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging as hf_logging

from alignzoo.core.errors import UserError
from alignzoo.models.adapters import NEW_HEAD, is_adapter, read_adapter
from alignzoo.models.quantization import quantization, settle_quantized

if TYPE_CHECKING:
    from alignzoo.interfaces.model_source import ModelSource
from alignzoo.models.tokenizers import _from_pretrained

hf_logging.disable_progress_bar()  # progress is the Screen's to show


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows that an embedding needs: the highest id and one. Ids may leave gaps, and `len(tokenizer)` counts tokens."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def load_policy(
    source: ModelSource, tokenizer: PreTrainedTokenizerBase, seed: int, start: Path | None = None,
    head: str = "language_model",
) -> PreTrainedModel:  # fmt: skip
    """The model that training starts from, without dropout; `start` is the policy folder of the run it starts from.

    With the head `scalar` it is a reward model (one label, read at the last token); a head that the start lacks is
    drawn from the seed. It stays in eval mode for good: what is trained is exactly what is scored, and no random state
    is needed to resume.
    """
    model = (
        source.load_model(tokenizer, seed, head) if start is None
        else pretrained(str(start), None, seed, head, source.dtype, source.runs_code, source.quantize)
    )  # fmt: skip
    if source.quantize and getattr(model, "hf_quantizer", None) is None:
        raise UserError(
            f"{source.name} makes its weights itself, and quantize is for weights that are read",
            where="model.quantize", expected="model.path or model.from",
        )  # fmt: skip
    if head == "scalar" and not isinstance(getattr(model, "score", None), nn.Linear):
        raise UserError(f"{type(model).__name__} has no linear head `score` to be a reward model with", where="model")
    if head == "scalar":  # what transformers takes for the end of a sequence is the last token that is no padding
        padding = tokenizer.pad_token_id
        model.config.pad_token_id = padding if padding != tokenizer.eos_token_id else None
    needed = vocabulary_size(tokenizer)
    rows = int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    if needed > rows:
        raise UserError(
            f"the tokenizer's ids go up to {needed - 1} and the model has {rows} embeddings", where="model",
            expected="a model and a tokenizer that belong together",
        )  # fmt: skip
    return model.eval()


def load_trained(
    source: ModelSource, tokenizer: PreTrainedTokenizerBase, seed: int, start: Path | None, policy: Path,
    head: str = "language_model",
) -> PreTrainedModel:  # fmt: skip
    """The policy of a finished run, as it was at its last step: its weights, or its adapter on what it started from."""
    if not is_adapter(policy):
        return load_policy(source, tokenizer, seed, policy, head)
    model = load_policy(source, tokenizer, seed, start, head)
    read_adapter(model, policy)
    return model


def pretrained(
    source: str, revision: str | None, seed: int, head: str, dtype: str, trust: bool = False,
    quantize: str | None = None,
) -> PreTrainedModel:  # fmt: skip
    """From a folder or the hub; `trust`: code that comes with it may run; `quantize`: `4bit` or `8bit`, for weights
    that are not trained.

    A head that the weights lack is drawn from the seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if is_adapter(Path(source)):
            raise UserError(
                "this is an adapter, and a policy starts from whole weights", where=f"model.path: {source}",
                hint="model.from names the run that made it; or make it whole: alignzoo export RUN --merge",
            )  # fmt: skip
        options = {"dtype": getattr(torch, dtype)} | _one_label(head)
        options |= quantization(quantize, dtype) if quantize else {}
        told = hf_logging.get_verbosity()
        if head == "scalar":  # that the head is new is what was asked for, and no warning
            hf_logging.set_verbosity_error()
        try:
            model, found = _from_pretrained(
                _auto(head), source, revision, "model", trust, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
        finally:
            hf_logging.set_verbosity(told)
        _complete(source, head, found)
        setattr(model, NEW_HEAD, any(_of_score(name) for name in found["missing_keys"]))
    if quantize:
        settle_quantized(model, source)
    return model


def _complete(source: str, head: str, found: dict[str, Any]) -> None:
    """Raise UserError where loaded weights lack, or do not fit, what the model has. A new score head may be absent."""
    where, hint = f"model.path: {source}", ""
    problem = ""
    if found["mismatched_keys"]:
        name, stored, wanted = min(found["mismatched_keys"])
        problem = f"{name} has shape {tuple(stored)} in these weights, and the model needs {tuple(wanted)}"
        if head == "scalar" and _of_score(name):
            problem = f"these are the weights of a classifier with {stored[0]} labels, and a reward model has one"
            hint = "a language model, or a reward model with one label"
    missing = sorted(name for name in found["missing_keys"] if head != "scalar" or not _of_score(name))
    classifier = head != "scalar" and any(_of_score(name) for name in found["unexpected_keys"])
    if classifier:
        problem = "these are the weights of a reward model or a classifier, which has no language model head"
        hint = "the weights of a language model"
    elif missing and not problem:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        problem = f"these weights lack {missing[0]}{more}, which would be random"
        hint = "the weights of the whole model"
    if problem:
        raise UserError(problem, where=where, expected=hint)


def _of_score(name: str) -> bool:
    return name.split(".")[-2:-1] == ["score"]


def _auto(head: str) -> Any:
    return AutoModelForCausalLM if head == "language_model" else AutoModelForSequenceClassification


def _one_label(head: str) -> dict[str, Any]:
    return {"num_labels": 1} if head == "scalar" else {}


def from_config(
    fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int, head: str, dtype: str
) -> PreTrainedModel:
    """An architecture (`model_type` and its settings) with random weights, a function of the seed."""
    fields = dict(fields) | _one_label(head)
    kind = fields.pop("model_type")
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    fields = {"vocab_size": vocabulary_size(tokenizer), "pad_token_id": tokenizer.pad_token_id} | tokens | fields
    try:
        known = AutoConfig.for_model(kind)
    except ValueError:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        from alignzoo.core.errors import nearest

        close = nearest(kind, CONFIG_MAPPING_NAMES)
        raise UserError(f"transformers knows no model_type '{kind}'", where="model.config", nearest=close) from None
    unknown = [name for name in fields if not hasattr(known, name)]
    if unknown:
        from alignzoo.core.errors import nearest

        close = nearest(unknown[0], known.to_dict())
        raise UserError(f"{kind} has no setting '{unknown[0]}'", where="model.config", nearest=close)
    layers = fields.get("num_hidden_layers")
    if isinstance(layers, int) and layers < 0:  # transformers builds it, and fails later
        raise UserError(f"num_hidden_layers is {layers}", where="model.config", expected="0 or more")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = _auto(head).from_config(AutoConfig.for_model(kind, **fields), dtype=torch.float32)
        except Exception as error:  # transformers checks shapes with all kinds of exceptions
            raise UserError(f"transformers can't build this {kind}: {error}", where="model.config") from error
    setattr(model, NEW_HEAD, head == "scalar")
    return model.to(getattr(torch, dtype))


def use_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Recompute activations in the backward. transformers asks for training mode; only the layers' flag is set, so
    that nothing else leaves eval mode."""
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # of later versions
    enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
