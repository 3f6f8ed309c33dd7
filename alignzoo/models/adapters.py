"""Low-rank adapters: add, disable for the reference, save and load apart from the weights.

The peft library replaces linear layers inside the transformers model. Scoring, sampling and checkpointing use the model
as before.
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

from alignzoo.core.door import inside, translate
from alignzoo.core.door import tensors as door_tensors
from alignzoo.core.errors import UserError, nearest
from alignzoo.interfaces.model_source import ALL_LINEAR, Lora, ModelSource
from alignzoo.models.saved_adapter import CONFIG, WEIGHTS, peft_config

PREFIX = "base_model.model."
"""Prefix of tensor names in a saved adapter."""
NEW_HEAD = "alignzoo_new_head"
"""Attribute of a reward model whose score head was initialized from the seed, and is trained along with adapters."""


def check_adapters_available(source: ModelSource) -> None:
    """Check that the libraries for a recipe's adapters and quantization are installed.

    Raises:
        UserError: A library is missing; the error gives the install command.
    """
    for key, package, feature in (("lora", "peft", "adapters"), ("quantize", "bitsandbytes", "quantized weights")):
        if getattr(source, key) is not None and find_spec(package) is None:
            extra = "qlora" if key == "quantize" else key
            raise UserError(
                f"{feature} require {package}, which is not installed", where=f"model.{key}",
                hint=f"pip install 'alignzoo[{extra}]'",
            )  # fmt: skip


def add_adapters(
    model: PreTrainedModel, lora: Lora, seed: int | str, base: str | None = None, revision: str | None = None
) -> None:
    """Freeze the model and add LoRA adapters that leave its outputs unchanged (B is 0).

    A is initialized from the seed.

    Adapters are float32 for every type of the model, because small updates are lost in bfloat16. A new score head
    (`NEW_HEAD`) is trained as a whole and saved with the adapters (`modules_to_save` in peft).

    Args:
        model: The model; it is changed in place.
        lora: Rank, scale and target layers.
        seed: Seed of A.
        base: Folder or hub id that a saved adapter names as its base model.
        revision: Hub revision of the base model.

    Raises:
        UserError: A target layer does not exist, or is tied to the embeddings.

    Source: Hu et al. 2021 (arXiv:2106.09685).
    """
    from peft import LoraConfig, TaskType

    alpha: Any = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha  # peft accepts both
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
        warnings.simplefilter("ignore")  # peft warns of the layout of Conv1D, which it detects itself
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".modules_to_save." not in name:  # a new head has the model's type
            parameter.data = parameter.data.float()
    model.eval()


def score_head_note(model: PreTrainedModel) -> str:
    """Say how adapters treat the score head of a reward model; "" for a language model."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Module):
        return ""
    if getattr(model, NEW_HEAD, False):
        return "score head: new, so it is trained as a whole and saved with the adapters"
    if any(parameter.requires_grad for parameter in head.parameters()):
        return "score head: it came with the weights, and is trained through an adapter"
    return "score head: it came with the weights and stays frozen ('score' in model.lora.target_modules adapts it)"


def has_adapters(model: nn.Module) -> bool:
    """Return True if the model has adapters."""
    return bool(getattr(model, "peft_config", None))


@contextmanager
def disabled_adapters(model: nn.Module) -> Iterator[None]:
    """Disable the adapters within the block: the model then equals its base model exactly."""
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
    """Return the tensors to save: those of the adapters if there are any, else the state dict."""
    if not has_adapters(model):
        return model.state_dict()
    from peft import get_peft_model_state_dict

    # Without this argument peft looks up at the hub whether the embeddings were resized.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {PREFIX + name: tensor.contiguous() for name, tensor in state.items()}


def write_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapter in peft's format. Equal adapters give equal bytes."""
    save_file(tensors_of(model), folder / WEIGHTS, metadata={"format": "pt"})
    config: Any = model.peft_config["default"]
    config.save_pretrained(str(folder))
    values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for key in ("target_modules", "target_parameters"):  # sets, whose order differs between processes
        values[key] = sorted(values[key]) if values[key] else values[key]
    values["inference_mode"] = True  # as in peft's own save
    (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Load a saved adapter into the model's adapter, or add it to a model without one.

    Raises:
        BadFile: Its configuration is none that alignzoo writes.
        UserError: The shapes of the saved adapter differ from those of the model.
    """
    from peft import set_peft_model_state_dict

    if not has_adapters(model):
        config = peft_config(folder)
        with translate(folder, "the adapter"):
            _inject(model, config, 0)
    ours = tensors_of(model)
    found = {name: tensor.shape for name, tensor in door_tensors(inside(folder, WEIGHTS)).items()}
    if found != {name: tuple(x.shape) for name, x in ours.items()}:
        raise UserError(
            "the adapter does not fit this model", where=str(folder),
            expected="an adapter of the same base model, rank and target layers",
        )  # fmt: skip
    with translate(folder / WEIGHTS, "the adapter"):
        tensors = load_file(folder / WEIGHTS)
        set_peft_model_state_dict(model, {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()})


def is_adapter(folder: Path) -> bool:
    """Return True if the folder contains an adapter and not whole weights."""
    return (folder / CONFIG).is_file()


def check_whole_weights(source: str) -> None:
    """Raise UserError for a folder with an adapter in place of a model's weights."""
    if is_adapter(Path(source)):
        raise UserError(
            "the folder contains an adapter, and a policy starts from whole weights", where=f"model.path: {source}",
            hint="name the run that trained it in model.from, or merge it: alignzoo export RUN --merge",
        )  # fmt: skip


def scaling_of(model: nn.Module) -> str:
    """Return the scaling factors of the adapter layers as text, "" without adapters."""
    return " ".join(f"{layer.scaling['default']:g}" for layer in _layers(model))


def base_layers(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Yield each adapter layer of a part of a model, and the layer that it was put around."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    yield from ((layer, layer.get_base_layer()) for layer in module.modules() if isinstance(layer, BaseTunerLayer))


def named_base_of(model: Any) -> tuple[str | None, str | None]:
    """Return the base that the model's adapter names, a folder or hub id, and its revision."""
    config = model.peft_config["default"]
    return config.base_model_name_or_path, config.revision


def set_named_base(model: Any, base: str | None, revision: str | None) -> None:
    """Set what `named_base_of` returns."""
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision


def _layers(model: nn.Module) -> Iterator[Any]:
    if has_adapters(model):
        from peft.tuners.tuners_utils import BaseTunerLayer

        yield from (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def _targets(model: PreTrainedModel, names: tuple[str, ...]) -> str | list[str]:
    """Return the target layers in peft's notation.

    Raises:
        UserError: A layer does not exist, or is tied to the embeddings.
    """
    if names == (ALL_LINEAR,):
        return ALL_LINEAR
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    known = dict.fromkeys(name.rpartition(".")[2] for name, _ in model.named_modules() if name in linear)
    for name in names:
        if not any(_fits(layer, name) for layer in linear):
            close = nearest(name, known)
            raise UserError(
                f"{type(model).__name__} has no linear layer '{name}'",
                where="model.lora.target_modules", nearest=close,
                expected="" if close else f"{ALL_LINEAR}, or names from {', '.join(known)}",
            )  # fmt: skip
    _check_not_tied(model, names)
    return list(names)


def _fits(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _check_not_tied(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Raise UserError for the head if its weights are tied: its adapter could not be merged."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return
    head_name = next(name for name, module in model.named_modules() if module is head)
    if any(_fits(head_name, name) for name in names):
        raise UserError(
            f"'{head_name}' of this model shares its weights with the embeddings", where="model.lora.target_modules",
            expected="layers other than the head",
        )  # fmt: skip
