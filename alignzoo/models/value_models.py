"""Value models: one on a policy's frozen weights, and one as a token classifier."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignzoo.core.errors import UserError
from alignzoo.models.adapters import NEW_HEAD, base_layers
from alignzoo.models.loading import check_score_head, set_padding


def value_model(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, trust: bool) -> PreTrainedModel:
    """Return a model of one output on the weights of the policy's base, without its adapters.

    Every weight is shared. Its modules are its own, and so are adapters that are added to it: training them leaves the
    policy as it is. Its head is new (`NEW_HEAD`), with the weights that `load_policy` gives a new head for this seed.

    Args:
        policy: A causal language model with adapters.
        tokenizer: Its tokenizer.
        seed: Seed of the head.
        trust: Allow running Python code that comes with the weights.

    Raises:
        UserError: transformers has no sequence classification model of this architecture, or one of other parts.
    """
    memo: dict[int, Any] = {}
    config = deepcopy(policy.config, memo)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(
                deepcopy(config), trust_remote_code=trust
            )
    except ValueError as error:  # transformers lists all architectures that it has
        raise UserError(
            f"transformers has no sequence classification model for {type(policy).__name__}, which a critic is",
            where="model", expected="another architecture, or an objective without a critic",
        ) from error  # fmt: skip
    check_score_head(model)
    base: Any = policy.base_model
    if type(model.base_model) is not type(base):
        raise UserError(
            f"the critic of {type(policy).__name__} would be a {type(model).__name__}, whose parts differ: they can't "
            "share their weights", where="model.lora", expected="training of all weights",
        )  # fmt: skip
    setattr(model, model.base_model_prefix, _sharing_copy(base, memo))
    model.config = config
    head: Any = model.score
    model.score = _new_head(head, policy, seed)
    set_padding(model, tokenizer)
    setattr(model, NEW_HEAD, True)
    return model.eval()


def _sharing_copy(base: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy the tree of modules without its adapters.

    Weights, and the layers that hold them, are shared.
    """
    memo |= {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    for module in base.modules():  # a layer has its quantization states beside its weights
        if not any(module.children()) and any(True for _ in module.parameters()) and not hasattr(module, "config"):
            memo[id(module)] = module
    memo |= {id(layer): inner for layer, inner in base_layers(base)}
    return deepcopy(base, memo)


def _new_head(head: nn.Linear, policy: PreTrainedModel, seed: int) -> nn.Linear:
    embeddings: Any = policy.get_input_embeddings()
    new = nn.Linear(head.in_features, 1, bias=head.bias is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nn.init.normal_(new.weight, std=getattr(policy.config.get_text_config(), "initializer_range", 0.02))
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new.to(embeddings.weight)


def token_classifier(model: PreTrainedModel) -> PreTrainedModel | None:
    """Return a sequence classifier of one output as a token classifier, with its weights.

    Its logits, (B, T, 1), are the values: at slot t that of the text up to token t, before token t + 1 is known. It is
    None where transformers has no token classifier of this architecture.
    """
    config = deepcopy(model.config)
    head: Any = model.score
    config.classifier_dropout, config.token_classification_bias = 0.0, head.bias is not None
    try:
        with torch.device("meta"):
            found: PreTrainedModel = AutoModelForTokenClassification.from_config(deepcopy(config))
    except ValueError:
        return None
    names = [name for name in ("score", "classifier") if isinstance(getattr(found, name, None), nn.Linear)]
    if type(found.base_model) is not type(model.base_model) or not names:
        return None
    setattr(found, found.base_model_prefix, model.base_model)
    old: Any = getattr(found, names[0])
    new = nn.Linear(head.in_features, 1, bias=old.bias is not None, device=head.weight.device, dtype=head.weight.dtype)
    with torch.no_grad():
        new.weight.copy_(head.weight)
        if new.bias is not None:
            new.bias.copy_(torch.zeros_like(new.bias) if head.bias is None else head.bias)
    setattr(found, names[0], new)
    found.config = config
    return found.eval()
