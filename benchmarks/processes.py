"""Compare whole runs on 1, 2 and 4 processes, and runs whose number of processes changes.

Run as: python benchmarks/processes.py
Each run is the shipped recipe under recipes/scale/smallest.yaml (a Llama of two layers, 128 rows, 8 steps of 16 rows,
evaluated at steps 0, 4 and 8), SFT first, then the objective. All parts run on that many processes: SFT, tokens, reference
pass, steps, evaluations, checkpoints. KTO looks across the whole batch and comes from plugins/alignzoo-zoo. gloo on the CPU,
one thread a process, float32. ZeRO's rows need DeepSpeed: pip install 'alignzoo[deepspeed]'.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from jobs import FSDP2, ZERO, start  # noqa: E402

from alignzoo.reference.cache import ReferenceCache  # noqa: E402
from alignzoo.training.records import read_lines  # noqa: E402

SMALLEST = ["--with", "recipes/scale/smallest.yaml"]
OBJECTIVES = ("sft", "dpo", "ipo", "cdpo", "kto")
COUNTS = (2, 4)
WAYS = {"shards": FSDP2}
if find_spec("deepspeed"):
    WAYS |= {f"ZeRO {stage}": ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": stage} for stage in ("1", "2")}
FIGURES = ("weights", "losses", "reference", "evaluation")
KTO = """
import sys
sys.path.insert(0, {zoo!r})
from alignzoo import hookimpl
from alignzoo_zoo.unpaired import KTO

@hookimpl
def register_objectives():
    return [KTO]
"""


def run(folder: Path, objective: str, ranks: int, environment: dict[str, str] | None = None) -> None:
    """The run of an objective in `folder`, or what is left of it."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = f"recipes/{objective}_hh.yaml"
    if objective == "kto":
        (folder / "kto.py").write_text(KTO.format(zoo=str(ROOT / "plugins" / "alignzoo-zoo")))
        base = ROOT / "recipes" / "bases" / "hh_preference.yaml"
        recipe = str(folder / "kto_hh.yaml")
        Path(recipe).write_text(f"extends: {base}\nplugins: [./kto.py]\nobjective: {{name: kto}}\n")
    job = start(folder, ["run", recipe, *SMALLEST], ranks, [environment or {}])
    codes = job.wait(300)
    if any(codes):
        raise SystemExit(f"{objective} on {ranks}: {codes}\n" + "\n".join(job.said()))


def folder_of(folder: Path, objective: str) -> Path:
    (found,) = (folder / "runs").glob(f"{objective}_hh-*")
    return found


def apart(got: Path, want: Path, objective: str) -> dict[str, float]:
    """The largest relative differences between two runs of an objective."""
    ours, theirs = (load_file(folder_of(one, objective) / "policy" / "model.safetensors") for one in (got, want))
    found = {"weights": max(float(np.abs(ours[k] - v).max() / np.abs(v).max()) for k, v in theirs.items())}
    lines, others = (read_lines(folder_of(one, objective) / "metrics.jsonl") for one in (got, want))
    for name, kind in (("losses", "train"), ("evaluation", "eval")):
        keys = ("loss",) if kind == "train" else tuple(key for key in others[0] if key not in ("kind", "step"))
        pairs = zip(lines, others, strict=True)
        numbers = [(a[key], b[key]) for a, b in pairs if b["kind"] == kind for key in keys]
        found[name] = max(abs(a - b) / max(abs(b), 1e-2) for a, b in numbers)
    scores, wanted = _scores(got), _scores(want)
    if objective != "sft":  # KTO has scored more rows than others in the same folder
        largest = max(float(np.abs(value).max()) for value in wanted.values())
        both = scores.keys() & wanted.keys()
        assert len(both) >= 320
        found["reference"] = max(float(np.abs(scores[key] - wanted[key]).max()) for key in both) / largest
    return found


def _scores(folder: Path) -> dict[bytes, np.ndarray]:
    """Every sequence's reference log-probs, of all caches of a folder: each folder here has those of one SFT run."""
    found: dict[bytes, np.ndarray] = {}
    for one in (folder / "cache" / "reference").glob("*"):
        for shard in ReferenceCache(one)._shards:
            for i, key in enumerate(shard.keys):
                found[key.tobytes()] = np.array(shard.log_probs[shard.offsets[i] : shard.offsets[i + 1]])
    return found


def resumed(done: Path, folder: Path, objective: str, ranks: int, environment: dict[str, str] | None = None) -> Path:
    """A finished run with all after its checkpoint of step 4 taken away, and done again."""
    shutil.copytree(done, folder)
    (folder_of(folder, objective) / "summary.json").unlink()
    run(folder, objective, ranks, environment)
    return folder


def table(rows: Sequence[tuple[str, dict[str, float]]], first: str) -> list[str]:
    lines = [f"| {first} | {' | '.join(FIGURES)} |", f"|---|{'---:|' * len(FIGURES)}"]
    cells = [[f"{row[key]:.1e}" if key in row else "" for key in FIGURES] for _, row in rows]
    return lines + [f"| {name} | {' | '.join(cell)} |" for (name, _), cell in zip(rows, cells, strict=True)]


def same_bytes(got: Path, want: Path, objective: str) -> bool:
    names = ("policy/model.safetensors", "metrics.jsonl", "samples.jsonl")
    return all(
        (folder_of(got, objective) / n).read_bytes() == (folder_of(want, objective) / n).read_bytes() for n in names
    )


def main() -> None:
    equal: list[tuple[str, dict[str, float]]] = []
    changes: list[tuple[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for ranks in (1, *COUNTS):
            for objective in OBJECTIVES:
                run(root / str(ranks), objective, ranks)
        for objective in OBJECTIVES:
            for ranks in COUNTS:
                equal.append((f"{objective}, {ranks} processes", apart(root / str(ranks), root / "1", objective)))
        for objective in ("dpo", "kto"):
            for before, after in ((1, 2), (2, 1), (1, 4), (4, 1)):
                went_on = resumed(root / str(before), root / f"{objective} {before} {after}", objective, after)
                changes.append((f"{objective}, {before} then {after}", apart(went_on, root / "1", objective)))
            for way, environment in WAYS.items():
                run(root / way, objective, 2, environment)
                changes.append((f"{objective}, {way} on 2", apart(root / way, root / "1", objective)))
                left = resumed(root / way, root / f"{objective} {way} left", objective, 1)
                changes.append((f"{objective}, {way} on 2 then 1", apart(left, root / "1", objective)))
                taken = resumed(root / "1", root / f"{objective} {way} taken", objective, 2, environment)
                changes.append((f"{objective}, 1 then {way} on 2", apart(taken, root / "1", objective)))
        bytes_equal = {}
        for ranks in (1, *COUNTS):
            run(root / f"again {ranks}", "dpo", ranks)
            bytes_equal[str(ranks)] = same_bytes(root / f"again {ranks}", root / str(ranks), "dpo")
    used = ("torch", "transformers", "accelerate", *(("deepspeed",) if find_spec("deepspeed") else ()), "alignzoo")
    versions = {name: version(name) for name in used}
    same = ", ".join(f"{ranks}: {'yes' if found else 'NO'}" for ranks, found in bytes_equal.items())
    lines = [
        "# Whole runs on several processes", "", "Command: `python benchmarks/processes.py`",
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}; gloo on the CPU, one thread a process, "
        "float32).", "",
        "Every figure is the largest relative difference from the run on one process, SFT run included: of any weight "
        "to the largest of its tensor, of any step's loss, of any token's reference log-prob to the largest, of any "
        "figure of the evaluations (to at least 0.01).", "",
        "## 1, 2 and 4 processes", "", *table(equal, "objective"), "",
        "## Another number of processes after step 4 of 8, shards (FSDP2) and ZeRO (DeepSpeed)", "", *table(changes, "run"), "",
        f"The same run again on as many processes gives the same bytes (weights, metrics, samples). On {same}.",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    output = ROOT / "benchmarks" / "results"
    (output / "processes.md").write_text(text)
    results = {"versions": versions, "equal": dict(equal), "changes": dict(changes), "same_bytes": bytes_equal}
    (output / "processes.json").write_text(json.dumps(results, indent=2) + "\n")
    print(text)


if __name__ == "__main__":
    main()
