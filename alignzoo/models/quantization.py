"""Quantize frozen weights under trained adapters to 4 or 8 bits with bitsandbytes.

Source: Dettmers et al. 2023 (arXiv:2305.14314), QLoRA.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from alignzoo.core.errors import UserError


def quantization_options(bits: str, dtype: str) -> dict[str, Any]:
    """Return from_pretrained's options: double-quantized NF4 (`4bit`) or LLM.int8() (`8bit`)."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it logs every cast
    if bits == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )  # fmt: skip
    return {"quantization_config": nf4}


def prepare_quantized(model: PreTrainedModel, source: str) -> None:
    """Make every forward pass of quantized layers compute the same values.

    Raises:
        UserError: The model has layers that can't be dequantized.
    """
    for module in model.modules():
        # On a CPU with bfloat16 instructions, a forward pass without gradient rounds the quantization constants in
        # place. The policy would then differ from its own reference.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010
    with torch.device("meta"):
        plain = type(model)(type(model.config)(**_without_quantization(model)))
    if any(isinstance(module, Conv1D) for module in plain.modules()):
        raise UserError(
            f"the layers of {type(model).__name__} (Conv1D) lose their layout when they are quantized",
            where="model.quantize", expected=f"lora alone, for '{source}'",
        )  # fmt: skip


def _without_quantization(model: PreTrainedModel) -> dict[str, Any]:
    return {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
