"""Fuzz the real entry points: every input ends well or with an error message.

Run as: python benchmarks/faults/fuzz.py [N]        (12,000 inputs by default; about ten minutes)
Inputs are structure-aware mutations of every shipped recipe, overrides, comparisons, plugin files and data files
(tests/fuzz_inputs.py), drawn by hypothesis. One in fifty is a real run of one step. An input passes with exit code 0, or
with 2, a message and no traceback (1 for a run that could not continue). Writes benchmarks/results/fuzz.md and .json.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path

os.environ |= {
    "ALIGNZOO_PLUGINS": "",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
os.environ.pop("ALIGNZOO_TRACEBACK", None)
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
warnings.simplefilter("ignore")

import fuzz_inputs as fuzz  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

SHARES = {"recipe": 0.4, "override": 0.2, "comparison": 0.06, "plugins": 0.02, "data": 0.3, "run": 0.02}
STRATEGIES = {
    "recipe": fuzz.recipes,
    "override": fuzz.overrides,
    "comparison": fuzz.comparisons,
    "plugins": fuzz.plugins,
    "data": fuzz.data,
    "run": fuzz.runs,
}
FOUND = ROOT / "benchmarks/results/fuzz_mended.json"
"""Class of failure -> how it was mended: kept by hand, shown in the table."""


def main(count: int, start: int = 0) -> dict:
    os.environ.update(ALIGNZOO_RUNS="runs", ALIGNZOO_CACHE="cache")
    codes: dict[str, Counter] = {kind: Counter() for kind in SHARES}
    failures: dict[str, dict] = {}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzz.workplace(Path(folder))
        for kind, share in SHARES.items():
            fuzzed(kind, max(1, round(count * share)), start, Path(folder), codes[kind], failures)
            print(
                kind,
                dict(codes[kind]),
                f"{time.perf_counter() - began:.0f} s",
                len(failures),
                "classes",
                file=sys.stderr,
                flush=True,
            )
    return {
        "inputs": sum(sum(n for code, n in one.items() if code != "failed") for one in codes.values()),
        "by_kind": {kind: {str(code): n for code, n in one.items()} for kind, one in codes.items()},
        "failures": failures, "seconds": round(time.perf_counter() - began),
        "versions": {name: version(name) for name in ("alignzoo", "hypothesis", "pyyaml", "pyarrow", "transformers")},
    }  # fmt: skip


def fuzzed(kind: str, count: int, start: int, folder: Path, codes: Counter, failures: dict[str, dict]) -> None:
    """`count` inputs of one kind; what came of them is added to `codes` and `failures`."""

    def one(case):
        found = fuzz.outcome(case, folder)
        codes[found.code] += 1
        if found.error:
            codes["failed"] += 1
            files = [[name, repr(content[:2000])] for name, content in case.files]
            about = {"kind": kind, "words": case.words, "files": files, "trace": found.trace, "times": 0}
            failures.setdefault(found.error, about)["times"] += 1

    how = settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(start)(how(given(STRATEGIES[kind]())(one)))()


def table(found: dict) -> str:
    lines = ["# A fuzz of recipes and data files", "", f"`python benchmarks/faults/fuzz.py`: {found['inputs']:,} inputs through the real entry points, "
             f"{sum(one['times'] for one in found['failures'].values()):,} tracebacks.", "",
             "| inputs | number | done (0) | told in words (2) | a run that could not go on (1) | tracebacks |", "|---|---|---|---|---|---|"]  # fmt: skip
    for kind, codes in found["by_kind"].items():
        number = sum(n for code, n in codes.items() if code != "failed")
        lines.append(
            f"| {kind} | {number:,} | {codes.get('0', 0):,} | {codes.get('2', 0):,} | {codes.get('1', 0):,} | {codes.get('failed', 0):,} |"
        )
    mended = json.loads(FOUND.read_text()) if FOUND.is_file() else {}
    lines += [
        "",
        f"{len(mended)} classes of traceback were found while this was written, and mended:",
        "",
        "| what was raised | by | now |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {by} | {now} |" for what, (by, now) in mended.items()]
    return (
        "\n".join(lines)
        + "\n\n"
        + ", ".join(f"{name} {number}" for name, number in found["versions"].items())
        + f"; {found['seconds']:,} s\n"
    )


if __name__ == "__main__":
    result = main(int(sys.argv[1]) if len(sys.argv) > 1 else 12_000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for name, about in result["failures"].items():
        print(f"\n=== {about['times']} x {name}\n{about['words']}\n{about['files']}\n{about['trace'][-2500:]}")
    if len(sys.argv) < 3:
        results = ROOT / "benchmarks/results"
        (results / "fuzz.json").write_text(json.dumps(result, indent=1) + "\n")
        (results / "fuzz.md").write_text(table(result))
    sys.exit(1 if result["failures"] else 0)
