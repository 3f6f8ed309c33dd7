"""Compare a step's gradients for micro-batches and processes with one whole batch, for every objective.

Run as: python benchmarks/micro_batches.py
Models, rows and objectives are those of the tests (tests/training/engine/steps.py): a random Llama of two layers, 32 ragged rows a
step, a reference that differs from the policy. Everything runs on one thread of the CPU, in float32.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "training" / "engine")]

from ranks import TRAIN, of_two  # noqa: E402
from steps import BATCH, UNLIMITED, Steps, build, difference, every, take  # noqa: E402

from alignzoo.interfaces.objective import Objective  # noqa: E402
from alignzoo.scoring.microbatches import plan_micro_batches  # noqa: E402
from alignzoo.training.schedule import rows_of_step  # noqa: E402

BUDGETS = (1024, 256)
COLUMNS = {"1024": "1,024 slots", "256": "256 slots", "two": "two processes", "float64": "float64"}


def measure(objective: Objective, cache: Path, two: Steps) -> dict[str, float]:
    """The largest relative difference of the gradient from that of one micro-batch in one process."""
    whole = take(build(objective, cache, micro_batch_tokens=UNLIMITED)).gradients[0]
    cut = {str(budget): take(build(objective, cache, micro_batch_tokens=budget)).gradients[0] for budget in BUDGETS}
    exact = take(build(objective, cache, micro_batch_tokens=UNLIMITED, dtype=torch.float64)).gradients[0]
    one = take(build(objective, cache, **TRAIN)).gradients[0]
    found = {name: difference(gradient, whole) for name, gradient in cut.items()}
    return found | {"two": difference(two.gradients[0], one), "float64": difference(whole, exact)}


def shape_of_a_step() -> tuple[int, list[int]]:
    """Token slots of a step over pairs, and how many micro-batches it has under each budget."""
    engine = build(every()["simpo"], Path())  # without a reference, so without a cache
    trees = [engine.builder.tree(row) for row in rows_of_step(0, len(engine.builder.trees), engine.config, 0).tolist()]
    return sum(tree.slots for tree in trees), [len(plan_micro_batches(trees, budget)) for budget in BUDGETS]


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"| objective | {' | '.join(COLUMNS.values())} |", f"|---|{'---:|' * len(COLUMNS)}"]
    return lines + [f"| {name} | {' | '.join(f'{row[key]:.1e}' for key in COLUMNS)} |" for name, row in rows.items()]


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        two = of_two(cache, timeout=600)[0]
        results = {name: measure(objective, cache, two[name]) for name, objective in every().items()}
    scopes = {name: objective.scope for name, objective in every().items()}
    versions = {name: version(name) for name in ("torch", "transformers", "accelerate", "alignzoo")}
    slots, (few, many) = shape_of_a_step()
    worst = {key: max(row[key] for row in results.values()) for key in COLUMNS}
    lines = [
        "# Micro-batches and processes against one whole batch", "", "Command: `python benchmarks/micro_batches.py`",
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}; CPU, one thread, float32).", "",
        f"The gradient of one step over {BATCH} ragged rows ({slots:,} token slots if they are pairs). The figure is "
        "the largest difference of any element, relative to the largest element of the same parameter's gradient.",
        f"`1,024 slots` and `256 slots` are budgets of a micro-batch ({few} and {many} of them "
        "a step over pairs), against one micro-batch of everything. `two processes` (gloo) are against one, at 256 "
        "slots. `float64` is one micro-batch of everything in float32 against the same in float64: what rounding does "
        "by itself.", "",
        f"Worst of all: {', '.join(f'{COLUMNS[key]} {value:.1e}' for key, value in worst.items())}.", "",
        "## Objectives that look across the batch", "",
        *table({name: row for name, row in results.items() if scopes[name] == "batch"}), "",
        "## Objectives of one example at a time", "",
        *table({name: row for name, row in results.items() if scopes[name] == "example"}),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    output = ROOT / "benchmarks" / "results"
    output.mkdir(parents=True, exist_ok=True)
    (output / "micro_batches.md").write_text(text)
    record = {"versions": versions, "worst": worst, "scopes": scopes, "results": results}
    (output / "micro_batches.json").write_text(json.dumps(record, indent=1))
    print(text)


if __name__ == "__main__":
    main()
