"""Measure the cost of a comparison beside its runs done one by one: four objectives, three seeds, embedded dataset.

Run as: python benchmarks/compare_cost.py [STEPS]

Both sides do the same twelve runs with STEPS (60) optimizer steps each, SFT run included, in their own processes. One by
one, every run has empty caches and makes its own SFT run, tokens and reference pass, as tools that share nothing do. The
comparison also samples and measures every run, which the twelve do not. Order: one by one, comparison, and again; medians
of both. Run it on an idle machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "benchmarks" / "results"
SEEDS, REPEATS = 3, 2
FOURTH = "extends: dpo_hh\nname: margin_hh\nobjective: {name: dpo, modifiers: [margin]}\n"


def run(folder: Path, *words: str) -> float:
    """Seconds of one command with its own runs and caches in `folder`."""
    environment = os.environ | {"ALIGNZOO_RUNS": str(folder / "runs"), "ALIGNZOO_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "alignzoo", *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - began


def one_by_one(recipes: list[str], overlay: str) -> float:
    total = 0.0
    for recipe in recipes:
        for seed in range(SEEDS):
            with tempfile.TemporaryDirectory() as folder:
                total += run(Path(folder), "run", recipe, f"seed={seed}", "--with", overlay)
    return total


def compared(recipes: list[str], overlay: str) -> tuple[float, dict[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--seeds", str(SEEDS), "--with", overlay]
        seconds = run(Path(folder), "compare", *recipes, *words)
        (results,) = Path(folder).glob("runs/compare-*/results.json")
        return seconds, json.loads(results.read_text())["counts"]


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as folder:
        fourth = Path(folder) / "margin_hh.yaml"
        fourth.write_text(FOURTH)
        overlay = str(Path(folder) / "short.yaml")
        Path(overlay).write_text(f"train: {{max_steps: {steps}}}\n")
        recipes = ["dpo_hh", "ipo_hh", "cdpo_hh", str(fourth)]
        alone, together, counts = [], [], {}
        for _ in range(REPEATS):
            alone.append(one_by_one(recipes, overlay))
            seconds, counts = compared(recipes, overlay)
            together.append(seconds)
            print(f"one by one {alone[-1]:.0f} s, compared {seconds:.0f} s, {counts}", flush=True)
    a, b = statistics.median(alone), statistics.median(together)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "alignzoo"))
    lines = [
        "# What a comparison costs", "",
        f"Command: `python benchmarks/compare_cost.py {steps}` ({versions}; CPU, {os.cpu_count()} cores, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; medians of {REPEATS}).", "",
        f"Four objectives, {SEEDS} seeds, {steps} steps each, on the embedded sample.", "",
        "| | seconds | SFT runs | reference passes | tokenizations |", "|---|---:|---:|---:|---:|",
        f"| twelve runs one by one, empty caches | {a:.0f} ({min(alone):.0f} to {max(alone):.0f}) | 12 | 12 | 12 |",
        f"| `alignzoo compare`, sampling and measuring included | {b:.0f} ({min(together):.0f} to {max(together):.0f}) "
        f"| {counts['sft_runs']} | {counts['reference_passes']} | {counts['tokenizations']} |", "",
        f"The comparison takes {b / a:.2f} of the time: {a / b:.1f} times as fast.",
    ]  # fmt: skip
    (OUTPUT / "compare_cost.md").write_text("\n".join(lines) + "\n")
    about = {"steps": steps, "one_by_one": alone, "compared": together, "counts": counts, "versions": versions}
    (OUTPUT / "compare_cost.json").write_text(json.dumps(about, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
