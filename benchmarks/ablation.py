"""Measure what each idea is worth, from one padded sequence a row to trees in one row.

Run as: python benchmarks/ablation.py [--steps 5] [--threads 2] [--shape "Pythia-70M"]

Each row of the table adds one idea to the row above it and takes the same DPO steps on the same pairs. The losses of all
rows are compared. Writes ablation.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from roofline import machine
from workload import ROOT, Bench, hh_trees, spread

import alignzoo
from alignzoo.core.memory import peak_memory, reset_peak_memory, tune_malloc

WHOLE = 10**9
"""A budget that one micro-batch of everything stays within."""


def stages(shape: str, trees: list, batch: int, precision: str) -> dict[str, Callable[[], Bench]]:
    """name -> what makes the engine of that row."""

    def made(layout: str, budget: int, whole_head: bool = False, plain_head: bool = True) -> Bench:
        bench = Bench(shape, trees, batch, precision, layout, budget)
        bench.scorer.whole_head = whole_head
        if not plain_head:  # the head by autograd, in chunks that are computed again in the backward
            bench.scorer._plain_head = lambda: None  # type: ignore[method-assign]
        return bench

    return {
        "one padded sequence a row, logits of every position": lambda: made("plain", WHOLE, True, False),
        "the head at scored positions": lambda: made("plain", WHOLE, False, False),
        "micro-batches sorted by length": lambda: made("plain", 4096, False, False),
        "the prompt once (the forest and its mask)": lambda: made("padded", 4096, False, False),
        "one row, tree by tree (packed)": lambda: made("packed", 4096, False, False),
        "the head's gradient in one array": lambda: made("packed", 4096),
        "freed memory kept": lambda: made("packed", 4096),
    }


def measure(name: str, make: Callable[[], Bench], steps: int) -> dict:
    """Pairs per second, peak memory over the start, and the losses."""
    if name == "freed memory kept":
        tune_malloc()
    bench, cpu = make(), torch.device("cpu")
    bench.step()
    reset_peak_memory(cpu)
    seconds, losses = [], []
    for _ in range(steps):
        seconds.append(bench.step())
        losses.append(bench.losses[-1])
    return {
        "name": name, "pairs_per_second": [bench.batch / taken for taken in seconds], "losses": losses,
        "peak": peak_memory(cpu),
    }  # fmt: skip


def shared_beginnings(trees: list) -> float:
    """Share of the slots that completions of one prompt begin alike: what a deeper tree would save."""
    saved = 0
    for tree in trees:
        first, second = (branch.tokens for branch in tree.branches)
        n = min(len(first), len(second))
        same = first[:n] == second[:n]
        saved += n if same.all() else int(np.argmin(same))
    return saved / sum(tree.slots for tree in trees)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shape", default="Pythia-70M")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="float32")
    asked = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(asked.threads)
    trees, source = hh_trees(256)
    results = [
        measure(name, make, asked.steps)
        for name, make in stages(asked.shape, trees, asked.batch, asked.precision).items()
    ]
    worst = max(abs(a / b - 1) for row in results for a, b in zip(row["losses"], results[0]["losses"], strict=True))
    lines = [
        "# What each idea is worth", "",
        f"Command: `python benchmarks/ablation.py --steps {asked.steps} --threads {asked.threads}`",
        f"(alignzoo {alignzoo.__version__}, torch {torch.__version__}; {platform.machine()}, {asked.threads} threads; "
        f"{machine()}).",
        f"DPO on {asked.shape}'s shape, {asked.batch} pairs a step, {asked.precision}, AdamW; {source}.",
        "Each row adds one idea to the row above. The reference's log-probs come from the cache in all of them. Medians",
        f"(least to most) of {asked.steps} steps; the losses of all rows differ by at most {worst:.0e} relative.", "",
        "| | pairs/s | of the first row | peak memory, MiB |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    base = statistics.median(results[0]["pairs_per_second"])
    for row in results:
        ratio = statistics.median(row["pairs_per_second"]) / base
        lines.append(
            f"| {row['name']} | {spread(row['pairs_per_second'])} | {ratio:.1f} | {row['peak'] / 2**20:,.0f} |"
        )
    lines += [
        "", "Sharing what chosen and rejected begin with alike would save "
        f"{shared_beginnings(trees):.1%} of these rows' slots: not built.",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    folder = Path(ROOT) / "benchmarks" / "results"
    (folder / "ablation.md").write_text(text)
    (folder / "ablation.json").write_text(json.dumps(results, indent=1))
    print(text)


if __name__ == "__main__":
    main()
