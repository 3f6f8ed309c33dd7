"""A recipe whose run takes a fraction of a second: DPO on 24 pairs of bytes, from random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from byte_tokenizer import byte_tokenizer

import alignzoo
from alignzoo.training.records import read_lines
from alignzoo.training.run import RunResult

CONFIG = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
          "num_attention_heads": 2, "max_position_embeddings": 256}  # fmt: skip


def tiny_recipe(folder: Path, name: str = "tiny", rows: int = 24, prompts: int = 12, **sections: Any) -> Path:
    """Write data, tokenizer and recipe into a folder; `sections` are merged over the recipe's, one level deep."""
    if not (folder / "tokenizer").exists():
        byte_tokenizer().save_pretrained(folder / "tokenizer")
        texts = [
            (f" good {i}", f" bad {i * i}")[:: 1 if i % 5 < 3 else -1] for i in range(rows)
        ]  # some labels are wrong
        lines = [
            {"prompt": f"p {i % prompts}", "chosen": one, "rejected": other} for i, (one, other) in enumerate(texts)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    node: dict[str, Any] = {
        "objective": "dpo", "reporters": [],
        "data": {"name": "files", "path": str(folder / "rows.jsonl"), "held_out_fraction": 0.4},
        "model": {"config": CONFIG, "tokenizer": str(folder / "tokenizer")},
        "train": {"batch_size": 4, "max_steps": 6, "epochs": 50, "checkpoint_every": 2,
                  "optimizer": {"name": "adamw", "learning_rate": 0.02}},
        "eval": {"replies": {"num_prompts": 1, "max_new_tokens": 2}},
    }  # fmt: skip
    for key, value in sections.items():
        node[key] = node.get(key, {}) | value if isinstance(value, dict) else value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(node))
    return path


def tiny(folder: Path, *overrides: str, **options: Any) -> RunResult:
    """Run it."""
    return alignzoo.run(tiny_recipe(folder), overrides, **options)


def evaluations(result: RunResult) -> list[dict[str, Any]]:
    """Return the evaluations of a run."""
    return [line for line in read_lines(result.folder / "metrics.jsonl") if line["kind"] == "eval"]
