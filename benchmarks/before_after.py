"""Time the steps of two checkouts in turn: a step of one, a step of the other, on the same rows and weights.

Run as: python benchmarks/before_after.py CHECKOUT [CHECKOUT ...] [--steps 20] [--batch 16] [--clock cpu]

Each checkout is compared with this one. A child for each side imports its own `workload`, builds the model, takes two
steps to warm up and then one step whenever it is asked, so that a busy machine slows both alike. Prints, for each shape
and precision, the median seconds of a step on either side, the median of the ratios of neighboring steps with its 95%
interval (of the median, by order statistics), and the largest difference between the losses. On a machine that is busy
all the time, `--clock cpu` measures processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HH_FILES = [str(path) for path in sorted((ROOT.parent / "shared" / "data").glob("hh_*_test.jsonl.gz"))]
SIDE = """
import json, sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/benchmarks"]
import torch, workload
torch.set_num_threads(int(sys.argv[5]))
workload.HH_FILES = [workload.Path(name) for name in json.loads(sys.argv[6])]
trees, _ = workload.hh_trees(int(sys.argv[4]))
bench = workload.Bench(sys.argv[2], trees, int(sys.argv[7]), sys.argv[3])
for _ in range(2):
    bench.step()
print("ready", flush=True)
for _ in sys.stdin:
    began = time.process_time()
    seconds = bench.step()
    if sys.argv[8] == "cpu":
        seconds = time.process_time() - began
    print(json.dumps([seconds, bench.losses[-1]]), flush=True)
"""


class Side:
    """A process that takes steps with the code of one checkout."""

    def __init__(self, checkout: Path, shape: str, precision: str, rows: int, asked: argparse.Namespace) -> None:
        words = [checkout, shape, precision, rows, asked.threads, json.dumps(HH_FILES), asked.batch, asked.clock]
        command = [sys.executable, "-c", SIDE, *map(str, words)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout)
        self._line()

    def step(self) -> tuple[float, float]:
        """Take one step; return its seconds and its loss."""
        self.process.stdin.write("\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        seconds, loss = json.loads(self._line())
        return seconds, loss

    def _line(self) -> str:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            sys.exit(f"a side ended with {self.process.wait()}")
        return line

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate()


def compare(before: Path, shape: str, precision: str, asked: argparse.Namespace) -> str:
    """Return one line of the table."""
    steps = asked.steps
    sides = [Side(checkout, shape, precision, asked.batch * (steps + 2), asked) for checkout in (before, ROOT)]
    taken, losses = [], []
    for n in range(steps):
        order = (0, 1) if n % 2 else (1, 0)  # whoever is first finds the caches cold
        found = {k: sides[k].step() for k in order}
        taken.append((found[0][0], found[1][0]))
        losses.append(abs(found[0][1] - found[1][1]))
    for side in sides:
        side.end()
    ratios = sorted(new / old for old, new in taken)
    low = max(0, int((steps - 1.96 * math.sqrt(steps)) / 2))
    old, new = (statistics.median(column) for column in zip(*taken, strict=True))
    interval = f"{ratios[low]:.3f} to {ratios[-1 - low]:.3f}"
    return (
        f"| {shape} | {precision} | {old:.3f} | {new:.3f} | {statistics.median(ratios):.3f} ({interval}) | "
        f"{max(losses):.1e} |"
    )


def main() -> None:
    """Print a table for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16, help="pairs in a step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time, of all threads")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--shapes", nargs="+", default=["Pythia-70M", "Llama 4x256"])
    asked = parser.parse_args()
    for checkout in asked.checkout:
        print("| shape | precision | before, s | now, s | now / before | losses differ by |\n|---|---|---|---|---|---|")
        for shape in asked.shapes:
            for precision in asked.precisions:
                print(compare(checkout.resolve(), shape, precision, asked), flush=True)


if __name__ == "__main__":
    main()
