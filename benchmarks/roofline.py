"""Compare a training step with the machine's rate of matrix products, and profile the rest of its time.

Run as: python benchmarks/roofline.py [--steps 5] [--threads 2]

The limit is the time of the step's own products, one by one, in the same process and at the same shapes: forward, gradient
of the input and gradient of the weight of every linear layer on the step's token slots (the prompt once), and of the head
on the positions that predict a scored token. Attention's products are not included. Writes roofline.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import nn
from torch.profiler import ProfilerActivity, profile
from workload import ROOT, Bench, hh_trees, spread

import alignzoo
from alignzoo.core.memory import tune_malloc

KINDS = {
    "matrix products of linear layers and head": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::linear",
        "aten::addmm_",
    ),
    "attention": ("attention",),
    "optimizer and clipping": ("adamw", "linalg_vector_norm", "_foreach", "Optimizer"),
    "norms, activations, rotary": ("layer_norm", "gelu", "silu", "rsqrt", "aten::pow", "aten::mean", "aten::neg"),
    "softmax over the vocabulary": ("exp", "amax", "logsumexp", "gather", "scatter"),
    "casts and copies": ("copy_", "aten::cat", "aten::to"),
    "zeros and sums": ("fill_", "zero_", "aten::add", "aten::sum", "aten::mul", "aten::sub", "aten::div", "embedding"),
}


def rate_of(
    step: Bench, slots: int, scored: int, dtype: torch.dtype, repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:  # fmt: skip
    """Seconds by this clock that the step's products take alone, and their FLOPs."""
    seconds = flops = 0.0
    head = step.model.get_output_embeddings()
    counted: dict[tuple[int, int, int], int] = defaultdict(int)
    for module in step.model.modules():
        if isinstance(module, nn.Linear):
            counted[scored if module is head else slots, module.in_features, module.out_features] += 1
    for (rows, width, out), count in counted.items():
        x, weight, y = (torch.randn(shape).to(dtype) for shape in ((rows, width), (out, width), (rows, out)))
        for left, right in ((x, weight.t()), (y, weight), (y.t(), x)):
            left @ right
            times = []
            for _ in range(repeats):
                began = clock()
                left @ right
                times.append(clock() - began)
            seconds += count * statistics.median(times)
            flops += count * 2 * rows * width * out
    return seconds, flops


def where_time_goes(bench: Bench, steps: int) -> dict[str, float]:
    """Share of the time by kind of operation; what no operation accounts for is Python, data and dispatch."""
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            bench.step()
    wall = time.perf_counter() - began
    shares: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(n in event.key for n in names)), "other operations")
        shares[kind] += event.self_cpu_time_total / 1e6
    parts = {kind: seconds / steps for kind, seconds in sorted(shares.items(), key=lambda item: -item[1])}
    return parts | {"the profiled step": wall / steps}


def measure(shape: str, trees: list, batch: int, precision: str, steps: int) -> dict:
    """One row of the table."""
    dtype = getattr(torch, precision)
    bench = Bench(shape, trees, batch, precision)
    for _ in range(2):
        bench.step()
    seconds, shares, rates = [], [], []
    for step in range(2, 2 + steps):
        rows = bench.rows(step)
        slots = sum(tree.slots for tree in rows)
        scored = sum(branch.scored for tree in rows for branch in tree.branches)
        parts = max(1, -(-slots // bench.budget))  # products are made on a micro-batch's rows
        ideal, flops = rate_of(bench, slots // parts, scored // parts, dtype, repeats=3)
        taken = bench.step()
        seconds.append(taken)
        shares.append(parts * ideal / taken)
        rates.append(flops / ideal / 1e9)
    data = _data_seconds(bench, steps)
    parts = where_time_goes(bench, 2)
    return {
        "shape": shape, "batch": batch, "precision": precision, "seconds": seconds, "share": shares, "rate": rates,
        "pairs_per_second": [batch / taken for taken in seconds], "parts": parts, "data": data,
    }  # fmt: skip


def _data_seconds(bench: Bench, steps: int) -> float:
    """Seconds a step that planning and laying the forest take."""
    from alignzoo.scoring.forest import lay_out
    from alignzoo.scoring.microbatches import plan_micro_batches

    began = time.perf_counter()
    for step in range(steps):
        rows = bench.rows(step)
        for part in plan_micro_batches(rows, bench.budget, bench.layout):
            lay_out([rows[i] for i in part], bench.layout)
    return (time.perf_counter() - began) / steps


def write(results: list[dict], source: str, asked: argparse.Namespace) -> None:
    lines = [
        "# A training step against the machine's matrix products", "",
        f"Command: `python benchmarks/roofline.py --steps {asked.steps} --threads {asked.threads}`",
        f"(alignzoo {alignzoo.__version__}, torch {torch.__version__}, transformers {transformers.__version__}; "
        f"{platform.machine()}, {asked.threads} threads; {asked.machine}).",
        f"DPO with AdamW on {source}. The limit is the time of the step's own products alone, at their shapes, in the same",
        "process: three of each linear layer on the step's token slots and of the head on the scored positions. Medians",
        f"(least to most) of {asked.steps} steps.", "",
        "| model | pairs a step | precision | pairs/s | products alone, GFLOP/s | share of the limit |",
        "|---|---:|---|---:|---:|---:|",
    ]  # fmt: skip
    lines += [
        f"| {row['shape']} | {row['batch']} | {row['precision']} | {spread(row['pairs_per_second'])} "
        f"| {statistics.median(row['rate']):,.0f} | {spread(row['share'])} |"
        for row in results
    ]
    kinds = list(dict.fromkeys(kind for row in results for kind in row["parts"]))
    lines += ["", "Where a profiled step's time goes, in ms (profiling slows it a little):", ""]
    names = [f"{row['shape']}, {row['batch']}, {row['precision']}" for row in results]
    lines += ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(results)]
    for kind in kinds:
        cells = [f"{1e3 * row['parts'].get(kind, 0):,.0f}" for row in results]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    cells = [f"{1e3 * row['data']:,.1f}" for row in results]
    lines.append("| of it planning and laying the forest | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    folder = ROOT / "benchmarks" / "results"
    (folder / "roofline.md").write_text(text)
    (folder / "roofline.json").write_text(json.dumps(results, indent=1))
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the small model alone")
    asked = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(asked.threads)
    tune_malloc()
    asked.machine = machine()
    trees, source = hh_trees(1024)
    cases = [("Llama 4x256", 4), ("Llama 4x256", 32)] + ([] if asked.quick else [("Pythia-70M", 8), ("Pythia-70M", 32)])
    results = [
        measure(shape, trees, batch, precision, asked.steps)
        for shape, batch in cases
        for precision in ("float32", "bfloat16")
    ]
    write(results, source, asked)


def machine() -> str:
    """The processor."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    flags = Path("/proc/cpuinfo").read_text()
    return names[0].split(":")[1].strip() + (" with AMX" if "amx_bf16" in flags else "")


if __name__ == "__main__":
    main()
