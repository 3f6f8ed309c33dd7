"""The configuration of a saved adapter: what alignzoo writes is read, and nothing else reaches peft."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignzoo.core.door import BadFile
from alignzoo.models.saved_adapter import CONFIG, WEIGHTS, named_base, peft_config

peft = pytest.importorskip("peft", reason="adapters are peft's: pip install 'alignzoo[lora]'")
OURS = {
    "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["score"], "fan_in_fan_out": True,
    "task_type": "CAUSAL_LM", "base_model_name_or_path": "someone/model", "revision": "main",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """An adapter as peft saves it."""
    peft.LoraConfig(**OURS, inference_mode=True).save_pretrained(str(tmp_path))
    save_file({"base_model.model.q_proj.lora_A.weight": np.zeros((4, 2), np.float32)}, tmp_path / WEIGHTS)
    return tmp_path


def alter(folder, **values):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_alignzoo_gives_an_adapter_is_read(folder):
    assert peft_config(folder).to_dict() == peft.LoraConfig(**OURS).to_dict()
    assert named_base(folder) == "someone/model"
    alter(
        folder, auto_mapping={"base_model_class": "Popen", "parent_library": "subprocess"}, setting_of_another_version=1
    )
    assert peft_config(folder).auto_mapping is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("megatron_config", {"a": 1}, r"megatron_config is {'a': 1}; expected None"),
        ("megatron_core", "antigravity", "megatron_core is 'antigravity'; expected 'megatron.core'"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa'; expected True"),
        ("rank_pattern", {"(x+)+": 1}, "rank_pattern"),
        ("rank_pattern", {r".*\.up": 10**9}, "r is 1000000000; expected at most 4, the largest rank in"),
        ("target_modules", "([a-z._0-9]+)+!", "target_modules: input should be a valid"),
        ("task_type", "SEQ_CLS", "task_type: input should be 'CAUSAL_LM'"),
        ("modules_to_save", ["lm_head"], "modules_to_save.0: input should be 'score'"),
        ("peft_type", "PREFIX_TUNING", "peft_type: input should be 'LORA'"),
        ("r", 10**9, "r is 1000000000; expected at most 4, the largest rank in"),
        (
            "target_modules",
            ["q_proj", "k_proj", "v_proj"],
            "target_modules has 3 names; expected at most 2, the layers",
        ),
        ("r", 0, "r: input should be greater than or equal to 1"),
        ("lora_alpha", "8", "lora_alpha: input should be a valid number"),
    ],
)
def test_what_it_does_not_is_refused(folder, key, value, said):
    """peft would import a module that it names, match an expression for hours, or fill the memory."""
    alter(folder, **{key: value})
    with pytest.raises(BadFile, match=said):
        peft_config(folder)


def test_an_adapter_of_no_base(folder):
    alter(folder, base_model_name_or_path=None)
    with pytest.raises(BadFile, match="base_model_name_or_path is missing"):
        named_base(folder)
