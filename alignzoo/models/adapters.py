"""Low-rank adapters on a model's linear layers: attached for training, switched off for the reference, saved alone.

The peft library puts its layers into the model itself, which stays the transformers model that it was: whatever scores,
samples or checkpoints it need not know of them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from alignzoo.core.errors import UserError, nearest
from alignzoo.interfaces.model_source import ALL_LINEAR, Lora, ModelSource

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of a saved adapter."""


NEW_HEAD = "alignzoo_new_head"
"""Attribute of a reward model whose score head was drawn from the seed. Such a head is trained beside any adapters."""


def check_adapters_available(source: ModelSource) -> None:
    """Raise UserError, with the command that helps, when a library that the recipe needs is not installed."""
    for key, package, what in (("lora", "peft", "adapters"), ("quantize", "bitsandbytes", "quantized weights")):
        if getattr(source, key) is not None and find_spec(package) is None:
            extra = "qlora" if key == "quantize" else key
            raise UserError(
                f"{what} are made by {package}, which is not installed", where=f"model.{key}",
                hint=f"pip install 'alignzoo[{extra}]'",
            )  # fmt: skip


def add_adapters(
    model: PreTrainedModel, lora: Lora, seed: int, base: str | None = None, revision: str | None = None
) -> None:
    """Freeze the model and put adapters into it that change nothing yet (B is 0). A is drawn from the seed.

    They are float32 whatever the model is: updates by a small learning rate would be lost in bfloat16. A score head
    without trained weights (`NEW_HEAD`) is trained whole and saved with the adapters (peft's `modules_to_save`). `base`
    and `revision` are what a saved adapter names as its base. Raises UserError for a target that the model has not.
    """
    from peft import LoraConfig, TaskType

    alpha: Any = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha  # peft divides it, whatever it is
    config = LoraConfig(
        r=lora.r, lora_alpha=alpha,
        lora_dropout=0.0, target_modules=_targets(model, lora.target_modules),
        modules_to_save=["score"] if getattr(model, NEW_HEAD, False) else None,
        task_type=None if model.get_output_embeddings() is None else TaskType.CAUSAL_LM,
        base_model_name_or_path=base, revision=revision,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )  # fmt: skip
    _inject(model, config, int.from_bytes(blake2b(f"lora {seed}".encode(), digest_size=7).digest(), "little"))


def _inject(model: PreTrainedModel, config: Any, seed: int) -> None:
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a Conv1D's layout, which peft finds out by itself
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".modules_to_save." not in name:  # a whole head computes in the model's type
            parameter.data = parameter.data.float()
    model.eval()


def has_adapters(model: nn.Module) -> bool:
    """Whether it has adapters."""
    return bool(getattr(model, "peft_config", None))


@contextmanager
def disabled_adapters(model: nn.Module) -> Iterator[None]:
    """Within the block the model is its base, to the bit."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    heads = (module for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper))
    layers = [*_layers(model), *heads]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """What is to be saved of a model: its adapters, or all of it."""
    if not has_adapters(model):
        return model.state_dict()
    from peft import get_peft_model_state_dict

    # Whether embeddings were resized is looked up at the hub unless it is said that they were not.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {PREFIX + name: tensor.contiguous() for name, tensor in state.items()}


def write_adapter(model: PreTrainedModel, folder: Path) -> None:
    """As peft reads it; the same adapter always gives the same bytes."""
    save_file(tensors_of(model), folder / WEIGHTS, metadata={"format": "pt"})
    config: Any = model.peft_config["default"]
    config.save_pretrained(str(folder))
    values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for key in ("target_modules", "target_parameters"):  # sets: their order is another in every process
        values[key] = sorted(values[key]) if values[key] else values[key]
    values["inference_mode"] = True  # as peft's own saving has it
    (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put a saved adapter in: into the one that the model has, or on a model that has none."""
    from peft import LoraConfig, set_peft_model_state_dict

    if not has_adapters(model):
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = False  # which would freeze it
        _inject(model, config, 0)
    tensors, ours = load_file(folder / WEIGHTS), tensors_of(model)
    if {name: x.shape for name, x in tensors.items()} != {name: x.shape for name, x in ours.items()}:
        raise UserError("the adapter is of another model, or another rank", where=str(folder))
    set_peft_model_state_dict(model, {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()})


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than whole weights."""
    return (folder / CONFIG).is_file()


def scaling_of(model: nn.Module) -> str:
    """What an adapter does beyond its tensors: "" for a model without one."""
    return " ".join(f"{layer.scaling['default']:g}" for layer in _layers(model))


def _layers(model: nn.Module) -> Iterator[Any]:
    if has_adapters(model):
        from peft.tuners.tuners_utils import BaseTunerLayer

        yield from (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def _targets(model: PreTrainedModel, asked: tuple[str, ...]) -> str | list[str]:
    """The layers, as peft is told of them."""
    if asked == (ALL_LINEAR,):
        return ALL_LINEAR
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    known = dict.fromkeys(name.rpartition(".")[2] for name, _ in model.named_modules() if name in linear)
    for name in asked:
        if not any(_fits(layer, name) for layer in linear):
            close = nearest(name, known)
            raise UserError(
                f"{type(model).__name__} has no linear layer '{name}'",
                where="model.lora.target_modules", nearest=close,
                expected="" if close else f"{ALL_LINEAR}, or some of {', '.join(known)}",
            )  # fmt: skip
    _not_the_embeddings(model, asked)
    return list(asked)


def _fits(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _not_the_embeddings(model: PreTrainedModel, asked: Iterable[str]) -> None:
    """An adapter on a head that shares its weights with the embeddings could not be merged into it."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return
    name = next(name for name, module in model.named_modules() if module is head)
    if any(_fits(name, one) for one in asked):
        raise UserError(
            f"'{name}' of this model shares its weights with the embeddings", where="model.lora.target_modules",
            expected="other layers",
        )  # fmt: skip
