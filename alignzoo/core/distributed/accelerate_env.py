"""FSDP2 and ZeRO, read from the environment variables that `accelerate launch` sets."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from alignzoo.core.errors import UserError

OLDEST = "0.19.8"
"""Minimum version of DeepSpeed: earlier ones average gradients over processes and micro-batches in any case."""
FSDP2 = "FSDP version 2, which shards all of it and the weights (recipes/accelerate/fsdp2.yaml)"


def shards_asked() -> bool:
    """Return True if FSDP2 is requested. Raises UserError for settings that are not supported."""
    if _on("ACCELERATE_USE_MEGATRON_LM"):
        raise UserError(
            "Megatron-LM is not supported: alignzoo needs the unscaled sum of all gradients", expected=FSDP2
        )
    if not _on("ACCELERATE_USE_FSDP"):
        return False
    if _setting("FSDP_VERSION") != "2":
        raise UserError("FSDP version 1 is not supported", where="fsdp_config.fsdp_version", expected="2")
    if _on("FSDP_OFFLOAD_PARAMS"):
        raise UserError("offloading is not supported", where="fsdp_config.fsdp_offload_params", expected="false")
    return True


def stage_asked() -> int:
    """Return the stage of ZeRO that `accelerate launch` requests, 0 for none.

    Raises:
        UserError: A setting is not supported, or DeepSpeed is missing or too old.
    """
    if not _on("ACCELERATE_USE_DEEPSPEED"):
        return 0
    if _setting("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        raise UserError(
            "DeepSpeed's own settings are not read", where="deepspeed_config.deepspeed_config_file",
            expected="zero_stage alone (recipes/accelerate/zero.yaml)",
        )  # fmt: skip
    for variable, key, harmless, expected in _LEFT_ALONE:
        if _setting(variable) not in ("", *harmless):
            what = "offloading is not supported" if "offload" in key else "the recipe decides that"
            raise UserError(what, where=f"deepspeed_config.{key}", expected=expected)
    stage = _setting("ACCELERATE_DEEPSPEED_ZERO_STAGE") or "2"
    if stage not in ("1", "2"):
        raise UserError(
            f"ZeRO stage {stage} is not supported", where="deepspeed_config.zero_stage", expected=f"1, 2, or {FSDP2}"
        )
    try:
        found = version("deepspeed")
    except PackageNotFoundError:
        found = ""
    if not found or Version(found) < Version(OLDEST):
        raise UserError(
            f"DeepSpeed {found} is too old" if found else "this launch requests DeepSpeed, which is not installed",
            expected=f"{OLDEST} or later" if found else "", hint="pip install 'alignzoo[deepspeed]'",
        )  # fmt: skip
    return int(stage)


_LEFT_ALONE = (
    ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "offload_optimizer_device", ("none",), "none"),
    ("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "offload_param_device", ("none",), "none"),
    ("ACCELERATE_GRADIENT_CLIPPING", "gradient_clipping", ("none",), "train.max_grad_norm in the recipe"),
    ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "gradient_accumulation_steps", ("1",), "train.batch_size in the recipe"),
)
"""Settings that are accepted only with a value that changes nothing: variable, key, values, expected."""


def _on(variable: str) -> bool:
    return _setting(variable) == "true"


def _setting(variable: str) -> str:
    return os.environ.get(variable, "").lower()
