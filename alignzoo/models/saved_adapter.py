"""The configuration of a saved adapter, of which only what alignzoo writes is used.

peft's configuration can name modules to import, regular expressions over the names of layers, and initial values that
take hours. None of that reaches peft from a file.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, FiniteFloat

from alignzoo.core.door import BadFile, inside, read_json, tensors, validated

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
IGNORED = ("auto_mapping", "inference_mode", "peft_version")
"""Settings of peft without effect here."""


class SavedAdapter(BaseModel):
    """The settings that alignzoo gives an adapter."""

    peft_type: Literal["LORA"]
    r: int = Field(ge=1)
    lora_alpha: FiniteFloat = Field(gt=0)
    target_modules: list[str]
    modules_to_save: list[Literal["score"]] | None = None
    task_type: Literal["CAUSAL_LM"] | None = None
    fan_in_fan_out: bool = False
    base_model_name_or_path: str | None = None
    revision: str | None = None


def saved_adapter(folder: Path) -> SavedAdapter:
    """Return the settings of an adapter in a folder.

    Raises:
        BadFile: A setting that alignzoo does not use is not peft's default, or a value is damaged or does not fit the
            weights.
    """
    from peft import LoraConfig

    path = inside(folder, CONFIG)
    values: dict[str, Any] = read_json(path, dict[str, Any])
    usual = LoraConfig().to_dict()
    known = {field.name for field in fields(LoraConfig)} - {*SavedAdapter.model_fields, *IGNORED}
    other = next((key for key in values if key in known and values[key] != usual[key]), None)
    if other is not None:
        raise BadFile(
            f"{other} is {values[other]!r:.40}", where=str(path),
            expected=f"{usual[other]!r}, as in the adapters that alignzoo writes",
        )  # fmt: skip
    found: SavedAdapter = validated(
        {k: v for k, v in values.items() if k in SavedAdapter.model_fields}, path, SavedAdapter
    )
    layers = {
        name: tensor for name, tensor in tensors(inside(folder, WEIGHTS)).items() if name.endswith("lora_A.weight")
    }
    if len(found.target_modules) > len(layers):  # peft compares each with each layer
        raise BadFile(
            f"target_modules has {len(found.target_modules):,} names", where=str(path),
            expected=f"at most {len(layers):,}, the layers in {WEIGHTS}",
        )  # fmt: skip
    for name, tensor in layers.items():
        if tensor.shape[:1] != (found.r,):
            raise BadFile(f"r is {found.r}", where=str(path), expected=f"the first size of {name:.200}, {tensor.shape}")
    return found


def named_base(folder: Path) -> str:
    """Return the folder or hub id of the base model that an adapter names.

    Raises:
        BadFile: It names none, or as of `saved_adapter`.
    """
    base = saved_adapter(folder).base_model_name_or_path
    if base is None:
        raise BadFile("base_model_name_or_path is missing", where=str(folder / CONFIG), expected="a folder or a hub id")
    return base


def peft_config(folder: Path) -> Any:
    """Return peft's configuration of an adapter in a folder.

    Raises:
        BadFile: As `saved_adapter` does.
    """
    from peft import LoraConfig

    values = saved_adapter(folder).model_dump()
    if values["lora_alpha"] == int(values["lora_alpha"]):
        values["lora_alpha"] = int(values["lora_alpha"])
    return LoraConfig(**values)
