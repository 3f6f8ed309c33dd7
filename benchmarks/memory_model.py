"""Compare the memory that `alignzoo validate` computes with the peak of runs, each in a child process.

    python benchmarks/memory_model.py

Writes benchmarks/results/memory_model.md. A child computes the memory as `validate` does, trains two steps, and reads its
own peak resident memory, or that of CUDA's allocator with `--device cuda`. The last column leaves out the process itself
(Python, torch, data), which no choice in a recipe changes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml

RESULTS = Path(__file__).parent / "results" / "memory_model.md"
LIMIT = 0.2
"""Largest relative difference that the page calls right."""
DEEP = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 4096}  # fmt: skip
WIDE = DEEP | {"num_hidden_layers": 3, "vocab_size": 32_000, "tie_word_embeddings": False}
NEOX = {"model_type": "gpt_neox", "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6,
        "num_attention_heads": 4, "vocab_size": 8192}  # fmt: skip
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "float32, AdamW": (DEEP, {}, {"micro_batch_tokens": 1100}),
    "bfloat16 with masters, RMSprop, vocabulary of 32,000": (
        WIDE, {"dtype": "bfloat16"},
        {"micro_batch_tokens": 1100, "optimizer": {"name": "rmsprop", "learning_rate": 1e-5}},
    ),
    "float32 under bfloat16 autocast, GPT-NeoX": (NEOX, {}, {"micro_batch_tokens": 1100, "precision": "bfloat16"}),
    "LoRA on float32": (DEEP, {"lora": {"r": 16}}, {"micro_batch_tokens": 1100}),
    "gradient checkpointing, vocabulary of 32,000": (
        DEEP | {"vocab_size": 32_000}, {}, {"micro_batch_tokens": 2100, "gradient_checkpointing": True}
    ),
}  # fmt: skip


def recipe_of(folder: Path, config: dict[str, Any], model: dict[str, Any], train: dict[str, Any], device: str) -> Path:
    """Write rows and a recipe of one shape, and return the recipe's path."""
    from alignzoo.cli.data import tokenizer_of
    from alignzoo.data.row_reader import RowReader
    from alignzoo.models.loading import load_policy
    from alignzoo.recipe.load import load_recipe

    dice = random.Random(0)

    def text(size: int) -> str:
        return "".join(dice.choice("abcdefgh ") for _ in range(size))

    with open(folder / "rows.jsonl", "w") as file:
        for _ in range(4):
            row = {"prompt": text(128), "chosen": text(192), "rejected": text(190)}
            file.write(json.dumps(row) + "\n")
    optimizer = {"name": "adamw", "learning_rate": 1e-5}
    recipe = {
        "name": "shape", "objective": {"name": "dpo", "beta": 0.1},
        "data": {"name": "files", "path": str(folder / "rows.jsonl"), "held_out_rows": 1},
        "model": {"config": config, "tokenizer": {"train": "bytes"}} | model,
        "train": {"batch_size": 3, "max_steps": 2, "epochs": 2, "optimizer": optimizer, "device": device} | train,
        "eval": {"replies": {"num_prompts": 0}}, "reporters": [],
    }  # fmt: skip
    path = folder / "shape.yaml"
    if "lora" in model:  # adapters are for weights that exist
        plain = load_recipe(
            _written(path, recipe | {"model": {k: v for k, v in recipe["model"].items() if k != "lora"}})
        )
        tokenizer = tokenizer_of(plain, RowReader(plain.recipe.data))
        load_policy(plain.recipe.model, tokenizer, 0).save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        recipe["model"] = {"path": str(folder / "model")} | model
    return _written(path, recipe)


def _written(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


def measure(name: str, device: str) -> dict[str, Any]:
    """Compute and measure one shape, in this process."""
    from alignzoo.cli.data import tokenizer_of
    from alignzoo.core.console import Screen
    from alignzoo.data.dataset import tokenized_dataset
    from alignzoo.data.row_reader import RowReader
    from alignzoo.recipe.load import load_recipe
    from alignzoo.training.model_preflight import plan_memory
    from alignzoo.training.run import run_resolved

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"ALIGNZOO_RUNS": f"{folder}/runs", "ALIGNZOO_CACHE": f"{folder}/cache"}
        resolved = load_recipe(recipe_of(Path(folder), *SHAPES[name], device))
        reader = RowReader(resolved.recipe.data)
        tokenizer = tokenizer_of(resolved, reader)
        data = tokenized_dataset(resolved, tokenizer, Screen(quiet=True).info, reader=reader)
        memory = plan_memory(resolved, tokenizer, data)
        assert memory is not None
        summary = run_resolved(resolved, screen=Screen(quiet=True)).summary
    return {"parts": memory.parts, "moments": memory.moments, "peak": memory.peak, "when": memory.moment,
            "measured": summary["peak_memory_bytes"]}  # fmt: skip


def in_child(name: str, device: str) -> dict[str, Any]:
    """Measure one shape in a new Python, whose peak is that of `alignzoo run`."""
    command = [sys.executable, __file__, "--device", device, "--child", name]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def mib(size: int) -> str:
    """Return bytes as MiB."""
    return f"{size / 2**20:,.0f} MiB"


def page(results: dict[str, dict[str, Any]], device: str, seconds: float) -> str:
    """Return the page of all shapes."""
    lines = [
        "# Memory: computed and measured", "",
        f"`python benchmarks/memory_model.py --device {device}`, torch {version('torch')}, {seconds:.0f} s in all.",
        "`alignzoo validate` computes the memory of a run before any weight is loaded. Each shape ran two steps of DPO in a",
        f"child process, whose peak was read at its end. {len(results)} of {len(SHAPES)} shapes were measured.", "",
        "| shape | computed | peak at | measured | computed / measured | without the process |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, one in results.items():
        process = one["parts"].get("process", 0)  # of a GPU's memory it takes nothing
        own = (one["peak"] - process) / max(1, one["measured"] - process)
        lines.append(
            f"| {name} | {mib(one['peak'])} | {one['when']} | {mib(one['measured'])} | "
            f"{one['peak'] / one['measured']:.2f} | {own:.2f} |"
        )
    worst = max(abs(one["peak"] / one["measured"] - 1) for one in results.values())
    verdict = "within" if worst <= LIMIT else "**not within**"
    lines += ["", f"The largest difference is {worst:.0%}, {verdict} {LIMIT:.0%}.", "", "The parts, in MiB:", ""]
    names = list(dict.fromkeys(part for one in results.values() for part in one["parts"]))
    lines += [f"| shape | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, one in results.items():
        sizes = [f"{one['parts'].get(part, 0) / 2**20:,.0f}" for part in names]
        lines.append(f"| {name} | {' | '.join(sizes)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all shapes and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", help="words of a shape's name; nothing is written")
    parser.add_argument("--child", choices=SHAPES, help="measure one shape in this process, and print it as JSON")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.device)))
        return
    began, results = time.time(), {}
    for name in SHAPES:
        if not options.only or options.only in name:
            results[name] = in_child(name, options.device)
            print(name, json.dumps(results[name]), f"{time.time() - began:.0f} s", flush=True)
            if not options.only:
                RESULTS.write_text(page(results, options.device, time.time() - began))
    print(page(results, options.device, time.time() - began))


if __name__ == "__main__":
    main()
