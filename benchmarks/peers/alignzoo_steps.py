"""alignzoo's side: a recipe run by `alignzoo.run` in its own process, with the time of its steps and reference pass.

Run as: python alignzoo_steps.py WORKLOAD.json OUT.json
"""

import json
import sys
import time
from pathlib import Path

import torch
from process import Clock

import alignzoo
from alignzoo.training import policy
from alignzoo.training.loop import Training
from alignzoo.training.records import read_lines
from alignzoo.training.step import Engine


def main(asked: dict, out: Path) -> None:
    torch.set_num_threads(asked["threads"])
    clock = Clock(asked["launched"])
    step, score = Engine.step, policy.score_reference
    passes = []

    def timed_step(engine: Engine, number: int):
        clock.begin()
        found = step(engine, number)
        clock.end()
        return found

    def timed_pass(*args, **kwargs):
        began = time.perf_counter()
        reference = score(*args, **kwargs)
        passes.append((time.perf_counter() - began, reference.rows_scored))
        return reference

    def whole_step(training: Training):
        clock.begin()
        found = training_step(training)
        clock.end()
        return found

    training_step = Training._step
    if asked.get("whole_step"):  # with what is drawn for it
        Training._step = whole_step
    else:
        Engine.step = timed_step
    policy.score_reference = timed_pass
    result = alignzoo.run(asked["recipe"])
    losses = [line["loss"] for line in read_lines(result.folder / "metrics.jsonl") if line["kind"] == "train"]
    seconds, rows = max(passes, key=lambda found: found[1], default=(0.0, 0))  # of the training rows
    versions = result.summary["versions"]
    out.write_text(json.dumps(clock.figures() | {
        "losses": losses, "reference_seconds": seconds, "reference_pairs": rows,
        "references_seconds": sum(one for one, _ in passes), "layout": result.summary["layout"],
        "timings": read_lines(result.folder / "timings.jsonl"),
        "tokens": [line["tokens"] for line in read_lines(result.folder / "timings.jsonl")], "versions": versions,
    }))  # fmt: skip


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
