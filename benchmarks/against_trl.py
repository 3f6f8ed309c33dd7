"""Measure speed and memory against TRL's DPOTrainer with the same model, token ids, order, optimizer and steps.

Run as: python benchmarks/against_trl.py --trl-python PATH_OF_A_PYTHON_WITH_TRL [--only WORD ...] [--quick]

Weights are random. Each figure comes from its own process, and the sides alternate within a repeat. TRL runs at its
defaults and at the best settings of the trials here, with the reference forward in the step and computed before. With
--only (words of a cell's name, or `trials`) the other results in the file are kept. Exits with 1 when float32 losses differ
by more than 1e-4. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from beside_trl import (
    RESULTS,
    SideFailed,
    hh_rows,
    long_prompts,
    random_model,
    recipe,
    run_side,
    words_of,
    write_pairs,
)  # fmt: skip
from trl_tables import differences, write_results

import alignzoo
from alignzoo.models.sources.transformers import TokenizerConfig
from alignzoo.models.tokenizers import train_tokenizer

BATCH = {"pythia": 8, "llama": 4}
TIMED = {"pythia": 2, "llama": 6}
FEW = {"pythia": 2, "llama": 3}
"""Timed steps of TRL at its defaults, on long prompts, and of the trials: as many as patience allows."""
WARM_UP = 1
LONGEST = 1024  # of a sequence; TRL's own default limit
RATE, BETA = 1e-4, 0.1
LIMIT = 1e-4
SIDES = ("alignzoo", "defaults", "best", "before")
"""Of which three are TRL: at its defaults, at its best with the reference in the step, and with it computed before."""
KEY = "real/{}/float32"
"""The cells that are repeated."""
CELLS = [f"{data}/{shape}/{precision}" for data in ("real", "long") for shape in BATCH
         for precision in ("float32", "bfloat16")]  # fmt: skip

ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"}
NO_CHECKPOINTS = {"gradient_checkpointing": False}
BEFORE = {"precompute_ref_log_probs": True}


def in_micro_batches(parts: int) -> dict:
    """A step of `parts` micro-batches: the fewer pairs in one, the less of it is padding."""
    return {"gradient_accumulation_steps": parts}


BEST = {"pythia": NO_CHECKPOINTS | in_micro_batches(8), "llama": NO_CHECKPOINTS | in_micro_batches(4)}
"""The fastest of the trials below; run with the tunables of glibc too."""

TRIALS = {
    "defaults": {},
    "gradient_checkpointing=False": NO_CHECKPOINTS,
    "  and 2 micro-batches a step": NO_CHECKPOINTS | in_micro_batches(2),
    "  and 4 micro-batches a step": NO_CHECKPOINTS | in_micro_batches(4),
    "  and 8 micro-batches a step": NO_CHECKPOINTS | in_micro_batches(8),
    "  and one pair a micro-batch, glibc keeps freed memory": "best",
    "  and one pair a micro-batch, optim=adamw_torch": "unfused",
    "  and train_sampling_strategy=group_by_length (other pairs in a step)": NO_CHECKPOINTS
    | {"train_sampling_strategy": "group_by_length"},
    "  and padding_free=True": NO_CHECKPOINTS | {"padding_free": True},
    "  and use_liger_kernel=True": NO_CHECKPOINTS | {"use_liger_kernel": True},
    "  and torch_compile=True": NO_CHECKPOINTS | {"torch_compile": True},
    "  and attn_implementation=eager": NO_CHECKPOINTS,
    "  and attn_implementation=flash_attention_2": NO_CHECKPOINTS,
    "  and use_kernels=True": NO_CHECKPOINTS,
}
ONCE = ("liger", "padding_free", "flash", "use_kernels", "torch_compile", "eager", "adamw_torch", "group_by_length")
"""Tried on the Llama shape alone."""


class Bench:
    """Workloads made once in a folder, and both sides run on them."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked, self.count = folder, asked, 0
        self.source, self.rows = hh_rows()
        self.tokenizer = train_tokenizer(TokenizerConfig(vocab_size=8192), self.rows[:4000])
        self.pairs: dict[str, list] = {}

    def steps(self, shape: str) -> int:
        """Of a whole run; TRL takes the first of them only where one takes half a minute."""
        return WARM_UP + (1 if self.asked.quick else TIMED[shape])

    def workload(self, data: str, shape: str) -> tuple[Path, Path, list]:
        """The model's folder, the data's, and the pairs as token ids."""
        model, place = self.folder / shape, self.folder / f"{data}-{shape}"
        if not model.exists():
            random_model(model, shape, self.tokenizer)
        if not place.exists():
            count = self.steps(shape) * BATCH[shape]
            spread = self.rows[:: len(self.rows) // (3 * count)]  # of every file
            rows = spread if data == "real" else long_prompts(count, self.tokenizer, words_of(spread))
            self.pairs[place.name] = write_pairs(place, rows, self.tokenizer, count, LONGEST, held_out=2)
        return model, place, self.pairs[place.name]

    def ours(self, cell: str) -> dict:
        data, shape, precision = cell.split("/")
        model, place, _ = self.workload(data, shape)
        self.count += 1
        folder = self.folder / f"run{self.count}"
        train = {
            "batch_size": BATCH[shape], "max_steps": self.steps(shape), "max_grad_norm": 1.0, "precision": precision,
            "optimizer": {"name": "adamw", "learning_rate": RATE},
        }  # fmt: skip
        path = recipe(folder, "dpo", {"name": "dpo", "beta": BETA}, model, place, train, LONGEST)
        asked = {"recipe": str(path), "threads": self.asked.threads}
        return run_side(sys.executable, "alignzoo_steps.py", folder, asked)

    def theirs(self, cell: str, settings: dict, model_settings: dict | None = None, environment: dict | None = None,
               own_order: bool = False, steps: int = 99, limit: float = 1500) -> dict:  # fmt: skip
        data, shape, precision = cell.split("/")
        model, _, pairs = self.workload(data, shape)
        self.count += 1
        parts = settings.get("gradient_accumulation_steps", 1)
        same = {"learning_rate": RATE, "beta": BETA, "bf16": precision == "bfloat16"}
        asked = {
            "model": str(model), "pairs": pairs, "steps": min(steps, self.steps(shape)), "batch_size": BATCH[shape] // parts,
            "threads": self.asked.threads, "settings": same | settings, "model_settings": model_settings or {},
            "own_order": own_order,
        }  # fmt: skip
        return run_side(
            self.asked.trl_python, "trl_steps.py", self.folder / f"run{self.count}", asked, environment, limit
        )

    def side(self, cell: str, side: str) -> dict:
        """One side once."""
        shape = cell.split("/")[1]
        best = BEST[shape]
        few = WARM_UP + (FEW[shape] if side == "defaults" or "long" in cell else TIMED[shape])
        if side == "alignzoo":
            found = self.ours(cell)
        elif side == "defaults":
            found = self.theirs(cell, {}, steps=few)
        else:
            found = self.theirs(cell, best | (BEFORE if side == "before" else {}), environment=ALLOCATOR, steps=few)
        return {key: value for key, value in found.items() if key != "stderr"}

    def trial(self, cell: str, name: str) -> dict:
        """One setting of TRL, or the error that it ends with."""
        shape = cell.split("/")[1]
        settings, environment = TRIALS[name], None
        if settings in ("best", "unfused"):
            environment = ALLOCATOR if settings == "best" else None
            settings = BEST[shape] | ({} if settings == "best" else {"optim": "adamw_torch"})
        words = name.split("=")
        loading = {key: words[1] for key in ("attn_implementation",) if key in name}
        loading |= {"use_kernels": True} if "use_kernels" in name else {}
        try:
            found = self.theirs(
                cell, settings | BEFORE, loading, environment, "group_by_length" in name, WARM_UP + FEW[shape], 150
            )
        except SideFailed as error:
            return {"error": str(error)[:300]}
        warned = [line for line in found.pop("stderr").splitlines() if "padding_free" in line]
        return found | ({"warning": warned[0][:300]} if warned else {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", required=True)
    parser.add_argument("--only", nargs="+", default=[], help="words of cells, or trials")
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--repeats", type=int, default=3, help="of real rows in float32; the others have one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one timed step, one repeat: to see that it works")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    kept = asked.output / "against_trl.json"
    results = json.loads(kept.read_text()) if asked.only and kept.exists() else {"cells": {}, "trials": {}}
    cells = [cell for cell in CELLS if any(word in cell for word in asked.only or ("",))]
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), asked)
        results["about"] = {
            "source": bench.source, "machine": platform.machine(), "cores": os.cpu_count(), "threads": asked.threads,
            "alignzoo": alignzoo.__version__, "warm_up": WARM_UP, "batch": BATCH, "best": BEST, "allocator": ALLOCATOR,
        }  # fmt: skip
        for shape in BATCH:
            if not any(word in f"trials/{shape}" for word in asked.only or ("",)):
                continue
            results["trials"][shape] = {}
            for trial in TRIALS:
                if (shape == "pythia" and any(word in trial for word in ONCE)) or (shape == "llama" and "8 m" in trial):
                    continue
                results["trials"][shape][trial] = found = bench.trial(KEY.format(shape), trial)
                write_results(asked.output, results)
                print(shape, trial, found.get("error", found.get("seconds")), flush=True)
        for cell in cells:
            repeats = 1 if asked.quick or "real" not in cell or "bf" in cell else asked.repeats
            found = {side: [] for side in asked.sides}
            for repeat in range(repeats):
                for side in asked.sides:
                    if side != "defaults" or "llama" in cell or repeat == 0:  # a minute each
                        found[side].append(bench.side(cell, side))
            results["cells"][cell] = results["cells"].get(cell, {}) | found
            write_results(asked.output, results)
            print(cell, {side: one["seconds"] for side, runs in found.items() for one in runs}, flush=True)
    print((asked.output / "against_trl.md").read_text())
    return int(any(worst > LIMIT for cell, worst in differences(results).items() if "float32" in cell))


if __name__ == "__main__":
    sys.exit(main())
