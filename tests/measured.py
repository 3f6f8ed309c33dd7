"""Made-up runs that look measured: what `alignzoo compare` would leave behind, without any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from alignzoo.compare.results import RunRecord
from alignzoo.core.artifacts import write_manifest

ROWS, VALIDATION, REPLIES = 300, 100, 40
SAMPLING = {"prompts": REPLIES, "tokens": 64, "temperature": 1.0, "seed": 0}
DATA, START = "da7a" * 8, "57a7" * 8


def measure(
    folder: Path,
    seed: int,
    *,
    accuracy: float = 0.8,
    validation: float | None = None,
    kl: float = 5.0,
    reward: float | None = 0.5,
    problem: str = "",
    metrics: dict[str, float] | None = None,
    reply: str = " a reply",
    rows: int = ROWS,
    first_id: int = 0,
    sampling: dict[str, Any] | None = None,
    tokens: str = "",
    version: str = "v1",
) -> tuple[str, list[str]]:
    """Write one run's figures and verdicts; return their folders. Rows are equally hard for every run."""
    folder.mkdir(parents=True)
    hard = np.random.default_rng(0).random(rows)
    noise = np.random.default_rng(1000 + seed)
    test = (np.arange(rows) >= VALIDATION).astype(np.float64)
    level = np.where(test > 0, accuracy, accuracy if validation is None else validation)
    right = (hard + 0.02 * noise.standard_normal(rows) < level).astype(np.float64)
    arrays = {
        "preference_accuracy": right,
        "likelihood_accuracy": (hard < level - 0.1).astype(np.float64),
        "length_normalized_accuracy": np.full(rows, np.nan),
        "margin": 2 * right - hard,
        "chosen_log_ratio": -hard,
        "rejected_log_ratio": -3 * hard,
        "test": test,
    }
    arrays |= {name: np.full(rows, value) + 0.1 * hard for name, value in (metrics or {}).items()}
    save_file(arrays, folder / "examples.safetensors")
    ids = [f"row {first_id + n}" for n in range(rows)]
    lines, verdicts = [], []
    for n in range(REPLIES):
        if reward is not None and not problem:
            worth = reward + 0.5 * (hard[n] - 0.5) + 0.05 * float(noise.standard_normal())
            verdicts.append({"reward": worth, "over_chosen": float(worth > 0.5), "over_start": float(worth > 0.2)})
        lines.append({
            "id": ids[VALIDATION + n], "test": True, "prompt": f"\n\nHuman: question {n}?\n\nAssistant:",
            "reply": f"{reply} {n}", "chosen": f" the best reply {n}", "length": 20 + n % 7, "entropy": 1.5, "distinct_2": 0.9,
            "kl": kl * (1 + 0.1 * hard[n]), "log_ratio": kl,
        })  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(folder, {"ids": ids, "sampling": sampling or SAMPLING, "tokens": tokens,
                  "reward": [["log_ratio", 0.1]]})  # fmt: skip
    return str(folder), [] if reward is None else [judge(folder, verdicts, problem, version)]


def judge(evaluation: Path, verdicts: list[dict[str, float]], problem: str, version: str) -> str:
    """Write the verdicts of the judge `gold`."""
    folder = evaluation.parent / "verdicts" / f"{evaluation.name}-gold-{version}"
    folder.mkdir(parents=True)
    write_manifest(folder, {"evaluation": evaluation.name, "judge": "gold", "version": version, "fields": {},
                            "over_start": True, "problem": problem, "verdicts": verdicts})  # fmt: skip
    return str(folder)


class Runs:
    """Entries of a comparison, one call a run."""

    def __init__(self, root: Path) -> None:
        self.root, self.entries = root, []

    def add(self, label: str, seed: int = 0, point: dict[str, Any] | None = None, **options: Any) -> Runs:
        """A run that is done. Options of `measure`, and `start`, `data`, `fingerprint`, `steps`, `seconds`, `objective`."""
        fingerprint = options.pop("fingerprint", f"{len(self.entries):032x}")
        place = {key: options.pop(key, default) for key, default in (("data", DATA), ("start", START))}
        objective = options.pop("objective", label.split("_")[0])
        run = {"steps": options.pop("steps", 600), "rows": 16, "seconds": options.pop("seconds", 60.0) + seed,
               "pairs_per_second": 150.0 - seed, "peak_memory_bytes": 700 * 2**20, **options.pop("run", {})}  # fmt: skip
        folder = self.root / f"run-{len(self.entries)}"
        measured, verdicts = measure(folder / "evaluations" / "key", seed, **options)
        self.entries.append(RunRecord(
            label, objective, point or {}, seed, fingerprint, str(folder), **place, state="done",
            measured=measured, verdicts=verdicts, run=run,
        ))  # fmt: skip
        return self

    def fail(
        self, label: str, seed: int = 0, point: dict[str, Any] | None = None, reason: str = "no memory left"
    ) -> Runs:
        """A run that failed."""
        fingerprint = f"{len(self.entries):032x}"
        objective = label.split("_")[0]
        self.entries.append(
            RunRecord(label, objective, point or {}, seed, fingerprint, "", DATA, START, "failed", reason)
        )
        return self


def about(**more: Any) -> dict[str, Any]:
    """What results.json says besides the runs."""
    return {
        "name": "losses", "command": "alignzoo compare dpo_hh ipo_hh --seeds 3", "baseline": "dpo_hh", "seeds": 3,
        "grid": {}, "judges": ["gold"], "samples": SAMPLING,
        "allow_different_data": False, "versions": {"alignzoo": "0.1.0", "torch": "2.13.0"}, "machine": "x86_64 CPU, 2 cores",
        "seconds": 1234.5, "counts": {"runs": 14, "runs_done_before": 0, "sft_runs": 1},
    } | more  # fmt: skip


def comparison(root: Path) -> Runs:
    """SFT, which the others start from; DPO and IPO over three betas and three seeds; cDPO as written."""
    runs = Runs(root).add("sft_hh", accuracy=0.55, kl=0.0, reward=0.1, fingerprint=START, start=None, seconds=200.0)
    for label, base in (("dpo_hh", 0.80), ("ipo_hh", 0.70)):
        for beta, more in ((0.05, -0.05), (0.1, 0.05), (0.5, 0.0)):
            for seed in range(3):
                accuracy = base + more + 0.004 * seed
                runs.add(label, seed, {"objective.beta": beta}, accuracy=accuracy, kl=1 / beta, reward=accuracy - 0.3)
    for seed in range(3):
        runs.add("cdpo_hh", seed, accuracy=0.853 + 0.004 * seed, kl=8.0, reward=0.54)
    return runs
