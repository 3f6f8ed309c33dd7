"""Time four objectives over one dataset: `alignzoo compare` against four TRL runs in sequence.

Run as: python benchmarks/whole_comparison.py --trl-python PATH_OF_A_PYTHON_WITH_TRL [--shape pythia --precision bfloat16]
[--sides SIDE ...]

64 real HH pairs, one epoch, random weights, AdamW. Each side starts with empty caches, and its time includes imports,
reading, tokenizing, reference passes, steps and saving. TRL runs at its defaults, and at the best settings of
against_trl.py with a dataset cache that its four runs share. Shapes, precisions and sides that are not named keep their
results in the file. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from against_trl import ALLOCATOR, BATCH, BEFORE, BEST, BETA, LONGEST, RATE
from beside_trl import RESULTS, hh_rows, random_model, recipe, run_side, write_pairs

import alignzoo
from alignzoo.models.sources.transformers import TokenizerConfig
from alignzoo.models.tokenizers import train_tokenizer
from alignzoo.training.records import read_lines

PAIRS, HELD_OUT = 64, 16
MODELS = {"llama": "small Llama", "pythia": "Pythia-70M shape"}
RUNS = {
    "dpo": ({"name": "dpo", "beta": BETA}, {"loss_type": "sigmoid"}),
    "ipo": ({"name": "ipo", "beta": BETA, "log_ratio": "mean"}, {"loss_type": "ipo"}),
    "cdpo": ({"name": "cdpo", "beta": BETA, "label_smoothing": 0.1}, {"loss_type": "robust", "label_smoothing": 0.1}),
    "normalized": (
        {"name": "dpo", "beta": BETA, "modifiers": ["length_normalization"]}, {"loss_type": "sigmoid_norm"},
    ),
}  # fmt: skip
"""Ours and TRL's. `robust` is another formula on the same two log-ratios as cDPO, which TRL does not have."""
SIDES = {
    "alignzoo": "`alignzoo compare`",
    "best": "TRL, best settings, shared dataset cache",
    "defaults": "TRL, defaults",
}


def ours(folder: Path, shape: str, precision: str, threads: int) -> list[dict]:
    """One command for all."""
    train = {
        "batch_size": BATCH[shape], "epochs": 1, "shuffle": True, "max_grad_norm": 1.0, "precision": precision,
        "optimizer": {"name": "adamw", "learning_rate": RATE},
    }  # fmt: skip
    place = folder / "recipes"
    paths = [recipe(place, name, objective, folder / "model", folder / "data", train, LONGEST)
             for name, (objective, _) in RUNS.items()]  # fmt: skip
    variables = os.environ | {
        "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
        "ALIGNZOO_RUNS": str(folder / "runs"), "ALIGNZOO_CACHE": str(folder / "cache"),
    }  # fmt: skip
    command = [sys.executable, "-m", "alignzoo", "compare", *map(str, paths), "--seeds", "1", "--samples", "0"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    training = [sum(line["seconds"] for line in read_lines(path)) for path in folder.glob("runs/*/timings.jsonl")]
    (results,) = folder.glob("runs/compare-*/results.json")
    counts = json.loads(results.read_text())["counts"]
    return [{"wall": seconds, "training": sum(training), "runs": len(training), "counts": counts}]


def theirs(python: str, folder: Path, side: str, shape: str, precision: str, threads: int) -> list[dict]:
    """One process a run."""
    found = []
    for name, (_, loss) in RUNS.items():
        settings = {"learning_rate": RATE, "beta": BETA, "bf16": precision == "bfloat16", "num_train_epochs": 1} | loss
        parts = 1
        environment = {"HF_DATASETS_CACHE": str(folder / f"datasets-{side}")}
        if side == "best":
            settings |= BEST[shape] | BEFORE
            parts = BEST[shape]["gradient_accumulation_steps"]
            environment |= ALLOCATOR
        asked = {
            "settings": settings | {"per_device_train_batch_size": BATCH[shape] // parts}, "threads": threads,
            "model": str(folder / "model"), "data": str(folder / "data" / "train.jsonl"),
        }  # fmt: skip
        began = time.perf_counter()
        run = run_side(python, "trl_user.py", folder / side / name, asked, environment)
        wall = time.perf_counter() - began
        one = {"name": name, "wall": wall, "training": sum(run["seconds"]), "reference": run["references_seconds"],
               "startup": run["startup_seconds"], "steps": len(run["seconds"]), "versions": run["versions"]}  # fmt: skip
        found.append(one)
        print(side, one, flush=True)
    return found


def write(output: Path, results: dict) -> None:
    """whole_comparison.md and .json."""
    about, cells = results["about"], results["cells"]
    versions = next((run["versions"] for sides in cells.values() for run in sides.get("defaults", ())), {})
    lines = [
        "# A whole comparison against TRL", "",
        "Command: `python benchmarks/whole_comparison.py --trl-python PYTHON`, and with `--shape` and `--precision` "
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}, alignzoo {about['alignzoo']}; "
        f"{about['machine']}, {about['cores']} cores, {about['threads']} threads, nothing else running).", "",
        f"Four objectives (DPO, IPO, a smoothed DPO, length-normalized DPO), one epoch over {PAIRS} real HH pairs, random "
        "weights: a Llama (4 layers of 256, vocabulary 8,192) that takes 4 pairs a step, and the Pythia-70M shape (vocabulary "
        "50,304), 8. Everything from the start of the processes with empty caches. alignzoo's side also evaluates every run "
        f"on {HELD_OUT} held-out pairs before and after, measures them for the comparison, and draws the table, plots and "
        "reports; TRL's does not evaluate. TRL's runs share their cache of datasets; a reference pass that found the one "
        "before would take no time.", "",
        "| model | precision | | seconds | in steps | in reference passes | rest | times alignzoo's |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for cell, sides in sorted(cells.items()):
        shape, precision = cell.split("/")
        totals = {side: sum(run["wall"] for run in runs) for side, runs in sides.items()}
        for side, name in SIDES.items():
            if side not in sides:
                continue
            steps, passes = (sum(run.get(key, 0) for run in sides[side]) for key in ("training", "reference"))
            shown = "in the rest" if side == "alignzoo" else "in the steps" if side == "defaults" else f"{passes:.1f}"
            times = f"**{totals[side] / totals['alignzoo']:.1f}**" if "alignzoo" in totals else ""
            lines.append(f"| {MODELS[shape]} | {precision} | {name} | {totals[side]:.1f} | {steps:.1f} | {shown} "
                         f"| {totals[side] - steps - passes:.1f} | {times} |")  # fmt: skip
    lines += ["", "Of TRL's runs:", "", "| model | precision | | run | seconds | start-up to first step | reference pass | steps |",
              "|---|---|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for cell, sides in sorted(cells.items()):
        shape, precision = cell.split("/")
        for side in ("best", "defaults"):
            for run in sides.get(side, ()):
                numbers = " | ".join(f"{run[key]:.1f}" for key in ("wall", "startup", "reference", "training"))
                loss = RUNS[run["name"]][1]["loss_type"]
                lines.append(f"| {MODELS[shape]} | {precision} | {SIDES[side]} | {loss} | {numbers} |")
    output.mkdir(parents=True, exist_ok=True)
    (output / "whole_comparison.md").write_text("\n".join(lines) + "\n")
    (output / "whole_comparison.json").write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", required=True)
    parser.add_argument("--shape", default="llama", choices=MODELS)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    kept = asked.output / "whole_comparison.json"
    results = json.loads(kept.read_text()) if kept.exists() else {"cells": {}}
    results["about"] = {
        "machine": platform.machine(), "cores": os.cpu_count(), "threads": asked.threads, "alignzoo": alignzoo.__version__
    }  # fmt: skip
    sides = results["cells"].setdefault(f"{asked.shape}/{asked.precision}", {})
    about = (asked.shape, asked.precision, asked.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, rows = hh_rows()
        tokenizer = train_tokenizer(TokenizerConfig(vocab_size=8192), rows[:4000])
        random_model(folder / "model", asked.shape, tokenizer)
        spread = rows[:: len(rows) // (3 * PAIRS)]
        write_pairs(folder / "data", spread, tokenizer, PAIRS, LONGEST, HELD_OUT)
        for side in asked.sides:
            sides[side] = ours(folder, *about) if side == "alignzoo" else theirs(asked.trl_python, folder, side, *about)
            write(asked.output, results)
    print((asked.output / "whole_comparison.md").read_text())


if __name__ == "__main__":
    main()
