"""Measure whole online steps beside TRL's trainers: GRPO and online DPO, drawing and learning.

Run as: python benchmarks/online_step.py --trl-python PATH_OF_A_PYTHON_WITH_TRL [--only grpo/llama/40] [--steps 3] [--write]

Both sides have the same random-weight model, tokenizer and prompts of exactly that many tokens, 16 prompts a step, 32 new
tokens, AdamW, and the same reward of a completion's text. GRPO has 8 completions a prompt; TRL's online DPO draws two, so
alignzoo's does too. TRL runs at its defaults and at the settings listed here; its best is the fastest of all. A step is
whole: drawing, rewards, log-probs, the update. The first step is left out. Each figure comes from its own process.
`--write` writes online_step.md and .json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from beside_trl import RESULTS, SideFailed, hh_rows, random_model, run_side, words_of
from roofline import machine

import alignzoo
from alignzoo.models.sources.transformers import TokenizerConfig
from alignzoo.models.tokenizers import train_tokenizer

PROMPTS, NEW = 16, 32
NAMES = {"llama": "Llama 4x256", "pythia": "Pythia-70M"}
EACH = {"grpo": 8, "online_dpo": 2}
CELLS = [
    f"{kind}/{shape}/{length}/{precision}"
    for kind in EACH for shape in NAMES for length in (40, 400) for precision in ("float32", "bfloat16")
]  # fmt: skip
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"}
JUDGE = '''
"""A judge that likes vowels."""
from alignzoo import Judge, hookimpl


class Vowels(Judge):
    """Share of vowels of a reply."""

    name = "vowels"

    def scores(self, prompts, replies):
        return [sum(c in "aeiou" for c in reply) / max(1, len(reply)) for reply in replies]


@hookimpl
def register_judges():
    return [Vowels]
'''
ROOT = Path(__file__).parent.parent
ONLINE = """import sys
sys.path.insert(0, {path!r})
from alignzoo_online import register_objectives
"""


def trl_settings(kind: str, length: int, precision: str) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Return the settings that TRL is tried at. Each takes steps of the same completions."""
    each = EACH[kind]
    rows = PROMPTS * each if kind == "grpo" else PROMPTS
    common = {"bf16": precision == "bfloat16"}
    common |= {"num_generations": each, "max_completion_length": NEW} if kind == "grpo" else {"max_new_tokens": NEW}
    if kind == "online_dpo":
        common["max_length"] = length + NEW
    fast = common | {"gradient_checkpointing": False}

    def parts(size: int) -> dict[str, Any]:
        return {"per_device_train_batch_size": size, "gradient_accumulation_steps": rows // size}

    return {
        "defaults": (common | parts(8), {}),
        "gradient_checkpointing=False, 8 rows a micro-batch, glibc keeps freed memory": (fast | parts(8), ALLOCATOR),
        "gradient_checkpointing=False, 16 rows, glibc keeps freed memory": (fast | parts(16), ALLOCATOR),
    } | ({"gradient_checkpointing=False, 32 rows, glibc keeps freed memory": (fast | parts(32), ALLOCATOR)}
         if kind == "grpo" else {})  # fmt: skip


def prompts_of(length: int, count: int, tokenizer: Any, words: list[str]) -> list[str]:
    """Return texts of exactly so many tokens."""
    draw, found = random.Random(length), []
    sizes = {word: len(tokenizer(f" {word}")["input_ids"]) for word in words}
    short = [word for word in words if sizes[word] == 1]
    while len(found) < count:
        taken, left = [], length
        while left:
            word = draw.choice(short if left < 4 else words)
            if sizes[word] <= left:
                taken.append(word)
                left -= sizes[word]
        text = " " + " ".join(taken)
        if len(tokenizer(text)["input_ids"]) == length:
            found.append(text)
    return found


def ours(folder: Path, cell: str, prompts: list[str], steps: int, threads: int) -> dict[str, Any]:
    """Return alignzoo's steps."""
    kind, _, length, precision = cell.split("/")
    (folder / "vowels.py").write_text(JUDGE)
    (folder / "online.py").write_text(ONLINE.format(path=str(ROOT / "plugins" / "alignzoo-online")))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    longest = int(length) + NEW
    path = folder / f"{kind}.yaml"
    path.write_text(json.dumps({
        "plugins": ["./vowels.py", "./online.py"],
        "objective": {"name": "grpo", "beta": 0.0} if kind == "grpo" else {"name": "dpo", "beta": 0.1},
        "model": {"path": str(folder / "model")},
        "data": {"name": "files", "path": str(folder / "prompts.jsonl"), "held_out_fraction": 1 / (steps + 1)},
        "tokens": {"max_length": longest, "max_prompt_length": longest - 1},
        "rollout": {
            "completions": EACH[kind], "max_new_tokens": NEW, "rewards": ["vowels"], "kl_rows": 0, "held_out_prompts": 0,
        },
        "train": {
            "shuffle": False, "device": "cpu", "batch_size": PROMPTS, "max_steps": steps, "precision": precision,
            "optimizer": {"name": "adamw", "learning_rate": 1e-6},
        },
        "eval": {"replies": {"num_prompts": 0}},
    }))  # fmt: skip
    asked = {"recipe": str(path), "threads": threads, "whole_step": True}
    return run_side(sys.executable, "alignzoo_steps.py", folder / "alignzoo", asked)


def measure(cell: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one cell."""
    kind, shape, length, precision = cell.split("/")
    _, rows = hh_rows("hh_helpful_base_test.jsonl.gz")
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=8192), rows)
    count = PROMPTS * (asked.steps + 1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_model(folder / "model", shape, tokenizer)
        prompts = prompts_of(int(length), count, tokenizer, words_of(rows))
        found["alignzoo"] = ours(folder, cell, prompts, asked.steps, asked.threads)
        for number, (label, (settings, environment)) in enumerate(trl_settings(kind, int(length), precision).items()):
            if asked.tries and number >= asked.tries:
                break
            about = {
                "model": str(folder / "model"), "prompts": prompts, "steps": asked.steps, "threads": asked.threads,
                "trainer": kind, "settings": settings,
            }  # fmt: skip
            try:
                found[label] = run_side(
                    asked.trl_python, "trl_online_steps.py", folder / str(number), about, environment
                )
            except SideFailed as error:
                found[label] = {"error": str(error)}
            print(cell, label, found[label].get("seconds", found[label].get("error")), flush=True)
    print(cell, "alignzoo", found["alignzoo"]["seconds"], flush=True)
    return found


def median(side: dict[str, Any]) -> float:
    """Return the median of the steps after the first."""
    return statistics.median(side["seconds"][1:])


def peak(side: dict[str, Any]) -> float:
    """Return the peak memory over that after the imports, in MB."""
    return (side["peak_bytes"] - side["import_bytes"]) / 1e6


def write(known: dict[str, Any]) -> None:
    """Write online_step.md and .json."""
    (RESULTS / "online_step.json").write_text(json.dumps(known, indent=1) + "\n")
    versions = next(
        side["versions"] for sides in known.values() for label, side in sides.items() if label == "defaults"
    )
    lines = [
        "# Whole online steps beside TRL", "",
        "Command: `python benchmarks/online_step.py --trl-python PYTHON --write` "
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}, alignzoo {alignzoo.__version__}; {machine()}, "
        "2 threads).", "",
        f"{PROMPTS} prompts a step, {NEW} new tokens, the same random-weight model, prompts and reward on both sides. GRPO draws "
        "8 completions a prompt; online DPO two, as TRL's does. A step is whole: drawing, rewards, log-probs, update. Medians "
        "without the first step.", "",
        "| objective | model | prompt | precision | seconds | of it drawn | times TRL's defaults | times TRL's best | peak memory of TRL's defaults |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    tried = ["", "## What was tried for TRL", "", "Seconds of a step.", ""]
    for cell in (one for one in CELLS if one in known):
        kind, shape, length, precision = cell.split("/")
        sides = known[cell]
        mine, default = sides["alignzoo"], sides["defaults"]
        done = {label: median(side) for label, side in sides.items() if label != "alignzoo" and "seconds" in side}
        drawn = statistics.median(line["drawn_seconds"] for line in mine["timings"][1:])
        own = median(mine)
        lines.append(
            f"| {kind} | {NAMES[shape]} | {length} | {precision} | {own:.2f} | {drawn:.2f} | {done['defaults'] / own:.1f} "
            f"| {min(done.values()) / own:.1f} | {peak(mine) / peak(default):.2f} |"
        )
        tried.append(f"- {cell}: " + "; ".join(f"{label}: {value:.2f}" for label, value in done.items()))
        tried += [f"  - {label} fails: {side['error']}" for label, side in sides.items() if "error" in side]
    (RESULTS / "online_step.md").write_text("\n".join(lines + tried) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", required=True)
    parser.add_argument("--only", default="", help="cells whose name begins so")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tries", type=int, default=0, help="so many of TRL's settings; 0: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    path = RESULTS / "online_step.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for cell in CELLS:
        if cell.startswith(asked.only):
            known[cell] = measure(cell, asked)
            if asked.write:
                write(known)


if __name__ == "__main__":
    main()
