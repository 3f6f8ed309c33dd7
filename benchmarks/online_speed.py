"""Measure drawing completions beside transformers' `generate`, and against the machine's limit.

Run as: python benchmarks/online_speed.py [--only llama/40] [--repeats 3] [--threads 2] [--write]

16 random prompts with 8 completions of 32 tokens each, of a model with random weights that never ends a completion. Each
cell of the table is measured in a process of its own, in which both sides and the limit take turns. `generate` samples
from the whole distribution; its batch is the fastest of several, and in bfloat16 its model has bfloat16 weights or runs
under autocast, whichever is faster. The limit is the time of the products that drawing needs, each alone at its shape:
every linear layer on the prompts' tokens once and then on each step's, the head where a token is drawn, and for attention
the reading of the keys and values at the rate of a sum over memory. `--write` writes online_speed.md and .json, with
cells that were measured before where `--only` leaves them out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import transformers
from roofline import machine
from torch import nn
from workload import ROOT, build

import alignzoo
from alignzoo.core.memory import peak_memory, reset_peak_memory, tune_malloc
from alignzoo.models.continuous_batching import PREFILL
from alignzoo.models.generation import generate_replies

PROMPTS, EACH, NEW = 16, 8, 32
ROWS = PROMPTS * EACH
BATCHES = (16, 32, 64, 128)
CELLS = [
    f"{shape}/{length}/{precision}"
    for shape in ("llama", "pythia") for length in (40, 400) for precision in ("float32", "bfloat16")
]  # fmt: skip
NAMES = {"llama": "Llama 4x256", "pythia": "Pythia-70M"}
JSON = ROOT / "benchmarks" / "results" / "online_speed.json"


class Endless:
    """The least of a tokenizer that the sampler reads; no token ends a completion."""

    eos_token_id = -1
    name_or_path = "endless"
    added_tokens_decoder = MappingProxyType({})


def prompts_of(length: int) -> list[np.ndarray]:
    """Return the prompts."""
    dice = np.random.default_rng(0)
    return [dice.integers(2, 8000, length).astype(np.int32) for _ in range(PROMPTS)]


def ours(model: Any, length: int, precision: str, seed: int) -> None:
    """Draw all completions."""
    repeated = [prompt for prompt in prompts_of(length) for _ in range(EACH)]
    keys = [(0, n // EACH, n % EACH) for n in range(ROWS)]
    found = generate_replies(
        model, Endless(), repeated, temperature=1.0, max_new_tokens=NEW, seed=seed, keys=keys, texts=False,
        entropy=False, precision=precision,
    )  # fmt: skip
    assert sum(len(reply.tokens) for reply in found) == ROWS * NEW


def theirs(model: Any, length: int, autocast: bool, batch: int) -> None:
    """Let `generate` draw them in batches of so many rows."""
    ids = torch.from_numpy(np.repeat(prompts_of(length), EACH, axis=0).astype(np.int64))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for some in ids.split(batch):
            found = model.generate(
                some, attention_mask=torch.ones_like(some), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=NEW, min_new_tokens=NEW, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
            assert found.shape[1] == length + NEW


def seconds(work: Callable[[], Any], repeats: int = 1) -> float:
    """Return the median time of some work."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def limit(model: Any, length: int, precision: str) -> dict[str, float]:
    """Return the seconds that the products of drawing take alone, and the reading of keys and values."""
    dtype = getattr(torch, precision)
    head = model.get_output_embeddings()
    layers: dict[tuple[int, int], int] = defaultdict(int)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            layers[module.in_features, module.out_features] += 1
    shapes: dict[tuple[int, int, int], int] = defaultdict(int)  # rows, width, out -> how often
    together = max(1, PREFILL // length)  # prompts of a forward
    parts = [min(together, PROMPTS - start) * length for start in range(0, PROMPTS, together)]
    for (width, out), count in layers.items():
        for tokens in parts:
            shapes[tokens, width, out] += count
        shapes[ROWS, width, out] += count * (NEW - 1)
    shapes[PROMPTS, head.in_features, head.out_features] += 1
    shapes[ROWS, head.in_features, head.out_features] += NEW - 1
    products = 0.0
    for (rows, width, out), count in shapes.items():
        x, weight = torch.randn(rows, width).to(dtype), torch.randn(out, width).to(dtype)
        with torch.no_grad():
            nn.functional.linear(x, weight)
            products += count * seconds(lambda x=x, weight=weight: nn.functional.linear(x, weight), 5)
    big = torch.randn(2**26)
    big.sum()
    rate = big.numel() * 4 / seconds(lambda: big.sum(), 5)
    config = model.config
    token = 2 * 4 * config.hidden_size * config.num_hidden_layers  # bytes: keys and values are float32
    keys = PROMPTS * length * (NEW - 1) + ROWS * NEW * (NEW - 1) / 2
    return {"products": products, "attention": token * keys / rate, "bytes_per_second": rate}


def measure(cell: str, repeats: int, threads: int) -> dict[str, Any]:
    """Return the figures of one cell."""
    name, size, precision = cell.split("/")
    length = int(size)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    tune_malloc()
    model = build(NAMES[name])
    narrow = build(NAMES[name]).bfloat16() if precision == "bfloat16" else None
    ways = {f"{batch} rows": (model, False, batch) for batch in BATCHES}
    if narrow is not None:
        ways = {f"{batch} rows, autocast": (model, True, batch) for batch in BATCHES[1::2]}
        ways |= {f"{batch} rows, bfloat16 weights": (narrow, False, batch) for batch in BATCHES}
    trials = {}
    for label, (used, autocast, batch) in ways.items():
        trials[label] = seconds(lambda a=(used, length, autocast, batch): theirs(*a))
    best = min(trials, key=lambda label: trials[label])
    used, autocast, batch = ways[best]
    ours(model, length, precision, 0)
    found: dict[str, list[float]] = {"alignzoo": [], "generate": [], "limit": []}
    parts: dict[str, float] = {}
    for repeat in range(repeats):
        found["alignzoo"].append(seconds(lambda n=repeat: ours(model, length, precision, n)))
        found["generate"].append(seconds(lambda: theirs(used, length, autocast, batch)))
        parts = limit(model, length, precision)
        found["limit"].append(parts["products"] + parts["attention"])
    return {"seconds": found, "trials": trials, "best": best, "limit": parts}


def memory(cell: str, side: str, best: str, threads: int) -> int:
    """Return the peak memory of a side over that of the process with its model, in bytes."""
    name, size, precision = cell.split("/")
    torch.set_num_threads(threads)
    narrow = side == "generate" and "bfloat16" in best
    model = build(NAMES[name])
    model = model.bfloat16() if narrow else model
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory(device)
    if side == "alignzoo":
        ours(model, int(size), precision, 0)
    else:
        theirs(model, int(size), "autocast" in best, int(best.split()[0]))
    return peak_memory(device) - before


def child(*arguments: str, asked: argparse.Namespace) -> Any:
    """Return what this script prints as JSON in a fresh process."""
    command = [sys.executable, __file__, "--threads", str(asked.threads), "--repeats", str(asked.repeats), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def ratios(cell: dict[str, Any], over: str, under: str) -> list[float]:
    """Return the ratios of the same repeats."""
    return [a / b for a, b in zip(cell["seconds"][over], cell["seconds"][under], strict=True)]


def spread(values: list[float]) -> str:
    """median (least to most)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def write(found: dict[str, Any], path: Path) -> str:
    """Write the page and return it."""
    lines = [
        "# Speed of drawing", "",
        f"Command: `python benchmarks/online_speed.py --write` (alignzoo {alignzoo.__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; {machine()}, 2 threads, nothing else running).", "",
        f"{PROMPTS} prompts of random tokens, {EACH} completions of {NEW} tokens each, at temperature 1 from the whole "
        "distribution; random weights, no end of sequence. Both sides and the limit take turns in one process. "
        "`generate` has the fastest of the batches below. Medians, with the range over repeats; a ratio is of the same repeat.",
        "",
        "The limit is the time of the products that drawing needs, alone at their shapes: linear layers on every prompt once "
        "and on each step's rows, the head where a token is drawn; and of reading the keys and values, at the rate of a sum "
        "over memory. Memory is the peak over that of the process with its model.", "",
        "| model | prompt | precision | tokens/s | times `generate` | share of the limit | peak MB | of `generate`'s |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, cell in found.items():
        shape, length, precision = name.split("/")
        speed = ROWS * NEW / statistics.median(cell["seconds"]["alignzoo"])
        used, other = cell["memory"]["alignzoo"], cell["memory"]["generate"]
        lines.append(
            f"| {NAMES[shape]} | {length} | {precision} | {speed:,.0f} | {spread(ratios(cell, 'generate', 'alignzoo'))} "
            f"| {spread(ratios(cell, 'limit', 'alignzoo'))} | {used / 1e6:,.0f} | {used / other:.2f} |"
        )
    lines += ["", "## What was tried for `generate`", "", "Seconds of one run each.", ""]
    for name, cell in found.items():
        tried = ", ".join(f"{label}: {taken:.2f}" for label, taken in cell["trials"].items())
        lines.append(f"- {name}: {tried}. Used: {cell['best']}.")
    text = "\n".join(lines) + "\n"
    path.write_text(text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cells whose name begins so")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cell and asked.memory:
        print(json.dumps(memory(asked.cell, *asked.memory, asked.threads)))
        return
    if asked.cell:
        print(json.dumps(measure(asked.cell, asked.repeats, asked.threads)))
        return
    known: dict[str, Any] = json.loads(JSON.read_text()) if JSON.exists() else {}
    for cell in CELLS:
        if not cell.startswith(asked.only):
            continue
        figures = child("--cell", cell, asked=asked)
        figures["memory"] = {
            side: child("--cell", cell, "--memory", side, figures["best"], asked=asked)
            for side in ("alignzoo", "generate")
        }
        known[cell] = figures
        print(cell, {side: spread(ratios(figures, side, "alignzoo")) for side in ("generate", "limit")}, flush=True)
        if asked.write:
            JSON.write_text(json.dumps(known, indent=1) + "\n")
    if asked.write:
        print(write({cell: known[cell] for cell in CELLS if cell in known}, JSON.with_suffix(".md")))


if __name__ == "__main__":
    main()
