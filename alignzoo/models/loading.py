"""Load policies from another run, a folder or the hub, or create them with random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

from alignzoo.core.console import warn_once
from alignzoo.core.door import in_child
from alignzoo.core.errors import UserError, nearest
from alignzoo.core.memory import total_memory
from alignzoo.data.token_store import vocabulary_size
from alignzoo.models.adapters import NEW_HEAD, check_whole_weights, is_adapter, read_adapter
from alignzoo.models.embeddings import embedding_rows
from alignzoo.models.from_pretrained import call_from_pretrained
from alignzoo.models.quantization import prepare_quantized, quantization_options

if TYPE_CHECKING:
    from alignzoo.interfaces.model_source import ModelSource

hf_logging.disable_progress_bar()  # the Screen shows progress


def load_policy(
    source: ModelSource, tokenizer: PreTrainedTokenizerBase, seed: int, start: Path | None = None,
    head: str = "language_model", outputs: Sequence[str] = (),
) -> PreTrainedModel:  # fmt: skip
    """Load the model that training starts from.

    The model is in eval mode and stays in it. Without dropout, the trained model is the scored model, and resuming
    needs no random state.

    Args:
        source: The recipe's model source.
        tokenizer: The policy's tokenizer.
        seed: Seed of random weights.
        start: Policy folder of the run that this run starts from.
        head: `language_model`, or `scalar` for a reward model: one label, read at the last token. A head that the
            weights lack is initialized from the seed.
        outputs: Names of a reward model's outputs; () for a single one.

    Raises:
        UserError: The weights can't be loaded, lack a part, or do not fit the tokenizer.
    """
    if start is None:
        model = source.load_model(tokenizer, seed, head)
    else:
        own = (source.dtype, source.runs_code, source.quantize)
        model = pretrained(str(start), None, seed, head, *own, len(outputs) or 1)
    return fit_policy(model, source, tokenizer, seed, head, outputs)


def fit_policy(
    model: PreTrainedModel, source: ModelSource, tokenizer: PreTrainedTokenizerBase, seed: int,
    head: str = "language_model", outputs: Sequence[str] = (),
) -> PreTrainedModel:  # fmt: skip
    """Check a loaded model, and set its head and mode.

    The arguments are those of `load_policy`.

    Raises:
        UserError: It lacks a part, or does not fit the tokenizer.
    """
    if source.quantize and getattr(model, "hf_quantizer", None) is None:
        raise UserError(
            f"quantize needs pretrained weights, and {source.name} creates its weights itself",
            where="model.quantize", expected="model.path or model.from",
        )  # fmt: skip
    if head == "scalar":
        check_score_head(model)
        set_padding(model, tokenizer)
    if outputs:
        _name_outputs(model, outputs, seed)
    check_vocabulary_fits(model, tokenizer)
    return model.eval()


def check_vocabulary_fits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError if the tokenizer has ids beyond the model's embeddings."""
    needed = vocabulary_size(tokenizer)
    rows = embedding_rows(model)
    if needed > rows:
        raise UserError(
            f"the tokenizer's ids go up to {needed - 1} and the model has {rows} embeddings", where="model",
            expected="a model and a tokenizer that belong together",
        )  # fmt: skip


def check_score_head(model: PreTrainedModel) -> None:
    """Raise UserError unless a reward model has a linear head `score`."""
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise UserError(
            f"{type(model).__name__} has no linear head `score`, which a reward model needs", where="model",
            expected="an architecture with a sequence classification model in transformers",
        )  # fmt: skip


def set_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the padding token of a reward model, unless it is the end token.

    The score is read at the last token that is not padding.
    """
    padding = tokenizer.pad_token_id
    model.config.pad_token_id = padding if padding != tokenizer.eos_token_id else None


def load_trained(
    source: ModelSource, tokenizer: PreTrainedTokenizerBase, seed: int, start: Path | None, policy: Path,
    head: str = "language_model", outputs: Sequence[str] = (),
) -> PreTrainedModel:  # fmt: skip
    """Load the policy of a finished run: its weights, or its adapter on the initial weights.

    `policy` is the run's policy folder; the other arguments and the errors are those of `load_policy`.
    """
    if not is_adapter(policy):
        return load_policy(source, tokenizer, seed, policy, head, outputs)
    model = load_policy(source, tokenizer, seed, start, head, outputs)
    read_adapter(model, policy)
    return model


def pretrained(
    source: str, revision: str | None, seed: int, head: str, dtype: str, trust: bool = False,
    quantize: str | None = None, outputs: int = 1,
) -> PreTrainedModel:  # fmt: skip
    """Load a model from a folder or the hub.

    Args:
        source: Local folder or hub id.
        revision: Hub revision.
        seed: Seed of a score head that the weights lack.
        head: `language_model`, or `scalar` for a reward model.
        dtype: Type of the weights (`float32`, `bfloat16`).
        trust: Allow running Python code that comes with the weights.
        quantize: `4bit` or `8bit`, for weights that are not trained.
        outputs: Number of a reward model's outputs.

    Raises:
        UserError: The weights can't be loaded, or lack a part of the model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        check_whole_weights(source)
        options = {"dtype": getattr(torch, dtype)} | _labels(head, outputs)
        options |= quantization_options(quantize, dtype) if quantize else {}
        model, info = call_from_pretrained(
            auto_class(head), source, revision, "model", trust, use_safetensors=True, output_loading_info=True,
            ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
        _check_complete(source, head, info)
        setattr(model, NEW_HEAD, any(_is_score_head(name) for name in info["missing_keys"]))
    if quantize:
        prepare_quantized(model, source)
    return model


def _check_complete(source: str, head: str, info: dict[str, Any]) -> None:
    """Check that no weights are missing or have wrong shapes.

    The score head of a reward model may be missing.

    Raises:
        UserError: The weights do not fit the model.
    """
    where, hint = f"model.path: {source}", ""
    problem = ""
    if info["mismatched_keys"]:
        name, stored, needed = min(info["mismatched_keys"])
        problem = f"{name} has shape {tuple(stored)} in these weights, and the model needs {tuple(needed)}"
        if head == "scalar" and _is_score_head(name):
            wanted = "one" if needed[0] == 1 else str(needed[0])
            problem = f"these are the weights of a classifier with {stored[0]} labels, and a reward model has {wanted}"
            hint = f"a language model, or a reward model with {wanted} label{'s' if needed[0] > 1 else ''}"
    missing = sorted(name for name in info["missing_keys"] if head != "scalar" or not _is_score_head(name))
    classifier = head != "scalar" and any(_is_score_head(name) for name in info["unexpected_keys"])
    if classifier:
        problem = "these are the weights of a reward model or a classifier, which has no language model head"
        hint = "the weights of a language model"
    elif missing and not problem:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        problem = f"these weights lack {missing[0]}{more}, which would be initialized at random"
        hint = "the weights of the whole model"
    if problem:
        raise UserError(problem, where=where, expected=hint)
    if head != "scalar" and (unread := sorted(info["unexpected_keys"])):
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        warn_once(f"{where}: the model has no place for {unread[0]}{more} of these weights, which are left out")


def _is_score_head(name: str) -> bool:
    return name.split(".")[-2:-1] == ["score"]


def auto_class(head: str) -> Any:
    """Return the transformers class that loads a model with this head."""
    return AutoModelForCausalLM if head == "language_model" else AutoModelForSequenceClassification


def _labels(head: str, outputs: int = 1) -> dict[str, Any]:
    return {"num_labels": outputs} if head == "scalar" else {}


def _name_outputs(model: PreTrainedModel, outputs: Sequence[str], seed: int) -> None:
    """Set the outputs of a reward model, in place, with their names as labels.

    The head is new unless it has as many outputs.
    """
    score = model.score
    assert isinstance(score, nn.Linear)
    if score.out_features != len(outputs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            new = nn.Linear(score.in_features, len(outputs), bias=score.bias is not None)
            nn.init.normal_(new.weight, std=getattr(model.config, "initializer_range", 0.02))
        model.score = new.to(score.weight)
        setattr(model, NEW_HEAD, True)
    model.config.num_labels = len(outputs)
    model.num_labels = len(outputs)  # type: ignore[assignment]
    model.config.id2label = dict(enumerate(outputs))
    model.config.label2id = {name: n for n, name in enumerate(outputs)}


def from_config(
    fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int, head: str, dtype: str
) -> PreTrainedModel:
    """Create a model with random weights.

    Args:
        fields: `model_type` and settings of the architecture.
        tokenizer: Tokenizer that supplies the vocabulary size and the special tokens.
        seed: Seed of the weights.
        head: `language_model`, or `scalar` for a reward model.
        dtype: Type of the weights. They are drawn in float32.

    Raises:
        UserError: transformers does not know the architecture or a setting, or can't build the model.
    """

    def build() -> PreTrainedModel:
        config = config_from_fields(fields, tokenizer, head)
        try:
            model: PreTrainedModel = auto_class(head).from_config(config, dtype=torch.float32)
        except Exception as error:  # transformers raises many types for inconsistent settings
            raise _not_built(config.model_type, error) from error
        return model

    _check_size(build)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    setattr(model, NEW_HEAD, head == "scalar")
    return model.to(getattr(torch, dtype))


def config_from_fields(fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase, head: str) -> Any:
    """Return the transformers config of `model.config`, with the tokenizer's vocabulary.

    The arguments are those of `from_config`.

    Raises:
        UserError: transformers does not know the architecture or a setting.
    """
    fields = dict(fields) | _labels(head)
    kind = fields.pop("model_type")
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    fields = {"vocab_size": vocabulary_size(tokenizer), "pad_token_id": tokenizer.pad_token_id} | tokens | fields
    try:
        known = AutoConfig.for_model(kind)
    except ValueError:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        close = nearest(kind, CONFIG_MAPPING_NAMES)
        raise UserError(f"transformers has no model_type '{kind}'", where="model.config", nearest=close) from None
    unknown = [name for name in fields if not hasattr(known, name)]
    if unknown:
        close = nearest(unknown[0], known.to_dict())
        raise UserError(f"{kind} has no setting '{unknown[0]}'", where="model.config", nearest=close)
    layers = fields.get("num_hidden_layers")
    if isinstance(layers, int) and layers < 0:  # transformers builds such a model, which fails later
        raise UserError(f"num_hidden_layers is {layers}", where="model.config", expected="0 or more")
    try:
        return AutoConfig.for_model(kind, **fields)
    except Exception as error:
        raise _not_built(kind, error) from error


def _not_built(kind: str, error: Exception) -> UserError:
    return UserError(f"transformers can't build this {kind}: {error}", where="model.config")


def _check_size(build: Callable[[], PreTrainedModel]) -> None:
    """Build a model in a child, without memory for its weights.

    Raises:
        UserError: It can't be built, takes too long, or its weights don't fit into this machine's memory.
    """

    def parameters() -> int:
        torch.set_num_threads(1)  # the threads of the parent are not in its child
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build().parameters())

    count = in_child("model.config", parameters, doing="building this model")
    there = total_memory()
    if 4 * count > there:
        raise UserError(
            f"a model of {count:,} parameters takes {4 * count / 1e9:,.0f} GB, and this machine has {there / 1e9:,.0f}",
            where="model.config", expected="a smaller model",
        )  # fmt: skip


def use_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass.

    transformers requires training mode for this. Only the flag of the layers is set, so that all other modules stay in
    eval mode.
    """
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # later versions
    enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
