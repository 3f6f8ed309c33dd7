"""The configuration of a saved adapter, of which only what alignzoo writes is used.

peft's configuration can name modules to import, regular expressions over the names of layers, and initial values that
take hours. None of that reaches peft from a file.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat

from alignzoo.core.door import BadFile, inside, read_json, tensors, validated

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
IGNORED = ("auto_mapping", "inference_mode", "peft_version")
"""Settings of peft without effect here."""
Pattern = Annotated[str, Field(pattern=r"^\.\*\\\.\w{1,100}$")]
"""`.*\\.NAME`, the only expression that peft itself makes: for fused weights of experts."""


class SavedAdapter(BaseModel):
    """The settings that alignzoo gives an adapter."""

    peft_type: Literal["LORA"]
    r: int = Field(ge=1)
    lora_alpha: FiniteFloat = Field(gt=0)
    target_modules: list[str]
    target_parameters: list[str] | None = None
    rank_pattern: dict[Pattern, Annotated[int, Field(ge=1)]] = {}
    alpha_pattern: dict[Pattern, Annotated[FiniteFloat, Field(gt=0)]] = {}
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
    most = len(layers) + len(found.modules_to_save or ())
    names = len(found.target_modules) + len(found.target_parameters or ())
    if max(names, len(found.rank_pattern), len(found.alpha_pattern)) > most:  # peft compares each with each layer
        raise BadFile(
            f"target_modules has {names:,} names",
            where=str(path),
            expected=f"at most {most:,}, the layers in {WEIGHTS}",
        )
    largest = max((tensor.shape[0] for tensor in layers.values()), default=0)
    for rank in (found.r, *found.rank_pattern.values()):  # experts have their ranks in one matrix
        if rank > largest:
            raise BadFile(f"r is {rank}", where=str(path), expected=f"at most {largest}, the largest rank in {WEIGHTS}")
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


def own_base(policy: Path) -> str:
    """Return the folder of the adapter's base model, or "" if it has a hub id.

    Others find such a base by its id too.
    """
    base = named_base(policy)
    return base if Path(base).is_absolute() else ""
