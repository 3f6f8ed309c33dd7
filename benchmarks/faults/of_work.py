"""Faults of inputs and code: data, losses, plugins, other processes, clocks, signals, checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bench import Bench, Outcome, at_call, fault, flipped, line, stop_in_step
from stage import Finished, Workplace

LINES = 90_000
PLUGIN = """
from alignzoo import Pair, Objective, hookimpl
from pathlib import Path

class Weighted(Objective):
    "DPO with a number from a file."
    name = "weighted"
    scope = "batch"

    def initial_state(self):
        return {"batches": 0}

    def next_state(self, pair):
        return {"batches": pair.state["batches"] + 1}

    def loss(self, pair: Pair):
        weight = float(Path(WEIGHT).read_text()) if pair.state["batches"] > 2 else 1.0
        return -weight * (0.1 * pair.margin).sigmoid().log()

@hookimpl
def register_objectives():
    return [Weighted]
"""


@fault("line 90,000 of the data is malformed")
def malformed_row(bench: Bench) -> Outcome:
    file = bench.root / "rows.jsonl"
    row = {"prompt": "Say {}.", "chosen": "Yes, {}.", "rejected": "No, {}."}
    good = [json.dumps({key: text.format(n) for key, text in row.items()}) for n in range(LINES + 10)]
    lines = [*good[: LINES - 1], good[LINES - 1][:-9], *good[LINES:]]
    file.write_text("\n".join(lines))
    data = f"data={{name: files, path: {file}, max_train_rows: 32, held_out_rows: 8}}"
    place = Workplace(bench.root / "malformed", ["recipes/sft_hh.yaml", *bench.whole.recipe[1:3], data])
    finished = place.run()
    checks = {"exit code 2, no traceback": finished.code == 2 and "Traceback" not in finished.err}
    file.write_text("\n".join(good))
    checks["with the line mended the same command ends well"] = place.run().code == 0
    return Outcome(finished.message, checks)


@fault("a loss is not a number")
def not_a_number(bench: Bench) -> Outcome:
    place = bench.place()

    def inject() -> None:
        import torch

        from alignzoo.objectives.builtin.dpo import DPO

        loss, calls = DPO.loss, []

        def flaky(self, pair):
            calls.append(1)
            found = loss(self, pair)
            return torch.where(torch.arange(len(found)) == 1, torch.nan, found) if len(calls) == 7 else found

        DPO.loss = flaky

    finished = place.run(inject=inject)
    return bench.failed(place, finished, _steps_done(finished))


def _steps_done(finished: Finished) -> int:
    return int(finished.message.partition("the steps up to ")[2].split()[0])


@fault("a plugin raises in the middle, for want of a file")
def plugin_raises(bench: Bench) -> Outcome:
    place, whole, weight = _with_plugin(bench)
    weight.unlink()
    finished = place.run()
    weight.write_text("2.0")
    outcome = Outcome(finished.message, {
        "exit code 1, no traceback": finished.code == 1 and "Traceback" not in finished.err,
        "the steps before it are kept in a checkpoint": _steps_done(finished) == 2,
    })  # fmt: skip
    again = place.run()
    same = again.code == 0 and place.artifacts() == whole
    resumed = "resuming after step 2" in again.err
    outcome.checks["with the file there the same command goes on after these steps, to the same bytes"] = (
        same and resumed
    )
    return outcome


@fault("a plugin raises in the middle, and its code is mended")
def plugin_mended(bench: Bench) -> Outcome:
    place, whole, _ = _with_plugin(bench)
    plugin = place.root / "weighted.py"
    right = plugin.read_text()
    plugin.write_text(right.replace("weight = float(", "weight = flaot("))
    finished = place.run()
    plugin.write_text(right)
    again = place.run()
    folders = len(list(place.runs.glob("dpo_hh-*")))
    for folder in place.runs.glob("dpo_hh-*"):
        if not (folder / "summary.json").exists():
            shutil.rmtree(folder)
    return Outcome(finished.message, {
        "exit code 1, no traceback": finished.code == 1 and "Traceback" not in finished.err,
        "other code is another run, in a folder of its own": folders == 2,
        "of tokens and reference nothing is done again":
            "from the store" in again.err and "32 of 32 rows cached" in again.err,
        "it ends with the bytes of a run that nothing happened to": again.code == 0 and place.artifacts() == whole,
    })  # fmt: skip


def _with_plugin(bench: Bench) -> tuple[Workplace, dict[str, bytes], Path]:
    """A workplace of a recipe with a plugin file, what it makes when nothing happens, and the file that it reads."""
    place = bench.place()
    weight = place.root / "weight.txt"
    weight.write_text("2.0")
    (place.root / "weighted.py").write_text(PLUGIN.replace("WEIGHT", repr(str(weight))))
    recipe = place.root / "dpo_hh.yaml"
    base = "extends: dpo_hh.yaml\nplugins: [./weighted.py]\nobjective: {name: weighted}\n"
    recipe.write_text(base.replace("dpo_hh.yaml", str(Path("recipes/dpo_hh.yaml").absolute())))
    place.recipe[0] = str(recipe)
    assert place.run().code == 0
    whole = place.artifacts()
    shutil.rmtree(place.run_folder())
    return place, whole, weight


@fault("two processes on one run")
def two_on_one_run(bench: Bench) -> Outcome:
    place = bench.place()

    def slow() -> None:
        from alignzoo.training.step import Engine

        at_call(Engine, "step", 2, lambda: _wait(lambda: (place.root / "go").exists()))

    first = place.start(inject=slow)
    _wait(lambda: any(place.runs.glob("dpo_hh-*/metrics.jsonl")))
    second = Workplace(place.root, place.recipe)
    second_child = second.start("--json")
    refused = second_child.wait()
    (place.root / "go").touch()
    ended = first.wait()
    same = ended.code == 0 and place.artifacts() == bench.want
    return Outcome(refused.message, {
        "the second: exit code 2, no traceback": refused.code == 2 and "Traceback" not in refused.err,
        "the first ends with the bytes of a run alone": same,
    })  # fmt: skip


@fault("two processes on one cache")
def two_on_one_cache(bench: Bench) -> Outcome:
    place = bench.place()
    other = Workplace(place.root, [*place.recipe, "objective.beta=0.5", "name=other"])
    alone = bench.place()
    alone.recipe += ["objective.beta=0.5", "name=other"]
    assert alone.run().code == 0
    both = [one.start() for one in (place, other)]
    ended = [child.wait() for child in both]
    same = place.artifacts() == bench.want and other.artifacts("other") == alone.artifacts("other")
    return Outcome("nothing", {
        "both end well": all(one.code == 0 for one in ended),
        "each with the bytes of a run alone": same,
    })  # fmt: skip


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@fault("the clock jumps back thirty years, twice")
def clock_jumps_back(bench: Bench) -> Outcome:
    place = bench.place()

    def jump_back() -> None:
        real, real_ns = time.time, time.time_ns
        time.time = lambda: real() - 1e9
        time.time_ns = lambda: real_ns() - 10**18

    def inject() -> None:
        from alignzoo.training.step import Engine

        jump_back()
        at_call(Engine, "step", 2, jump_back)
        at_call(Engine, "step", 4, lambda: os.kill(os.getpid(), signal.SIGKILL))

    place.run(inject=inject)
    for n, path in enumerate(sorted(place.root.rglob("*"))):  # and file times say the opposite of the truth
        os.utime(path, (2e9 - 1e6 * n, 2e9 - 1e6 * n))
    finished = place.run(inject=jump_back)
    same = finished.code == 0 and place.artifacts() == bench.want
    return Outcome(line(finished, "resuming"), {
        "a run that was killed in between goes on from the newest checkpoint, to the same bytes":
            same and "resuming after step 2" in finished.err,
    })  # fmt: skip


# --- signals


def signaled(bench: Bench, number: int, where: Callable[[], tuple[object, str, int]], step: int) -> Outcome:
    place = bench.place()

    def inject() -> None:
        owner, name, call = where()
        at_call(owner, name, call, lambda: os.kill(os.getpid(), number))

    return bench.failed(place, place.run(inject=inject), step, 128 + number)


def _step() -> tuple[object, str, int]:
    from alignzoo.training.step import Engine

    return Engine, "step", 3


def _evaluation() -> tuple[object, str, int]:
    from alignzoo.training import evaluations

    return evaluations, "evaluate", 2


def _reference() -> tuple[object, str, int]:
    from alignzoo.reference.cache import ReferenceCache

    return ReferenceCache, "add", 9


def _tokenization() -> tuple[object, str, int]:
    from alignzoo.data.token_store import TokenStore

    return TokenStore, "_make", 1


def _export() -> tuple[object, str, int]:
    from alignzoo.training import checkpoint

    return checkpoint, "export", 1


@fault("Ctrl-C in a step")
def interrupted_step(bench: Bench) -> Outcome:
    return signaled(bench, signal.SIGINT, _step, 3)


@fault("SIGTERM in a step (a preempted job)")
def terminated_step(bench: Bench) -> Outcome:
    return signaled(bench, signal.SIGTERM, _step, 3)


@fault("SIGTERM in an evaluation")
def terminated_evaluation(bench: Bench) -> Outcome:
    return signaled(bench, signal.SIGTERM, _evaluation, 3)


@fault("SIGTERM in the reference pass")
def terminated_reference(bench: Bench) -> Outcome:
    return signaled(bench, signal.SIGTERM, _reference, 0)


@fault("SIGTERM while tokenizing")
def terminated_tokenization(bench: Bench) -> Outcome:
    return signaled(bench, signal.SIGTERM, _tokenization, 0)


@fault("SIGTERM when the policy is exported")
def terminated_export(bench: Bench) -> Outcome:
    return signaled(bench, signal.SIGTERM, _export, 6)


@fault("Ctrl-C twice in a step")
def interrupted_twice(bench: Bench) -> Outcome:
    place = bench.place()

    def inject() -> None:
        owner, name, call = _step()
        at_call(owner, name, call, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])

    return bench.failed(place, place.run(inject=inject), 2, 130)


# --- checkpoints


def damaged_checkpoint(bench: Bench, name: str, damage: Callable[[bytes], bytes]) -> Outcome:
    place = bench.place()
    place.run(inject=stop_in_step(6, signal.SIGKILL))
    file = place.run_folder() / "checkpoints" / "step-000004" / name
    file.write_bytes(damage(file.read_bytes()))
    finished = place.run()
    same = finished.code == 0 and place.artifacts() == bench.want
    return Outcome(line(finished, "is damaged"), {
        "the one before it is used, to the same bytes": same and "resuming after step 2" in finished.err,
    })  # fmt: skip


@fault("the last checkpoint's weights have a flipped bit")
def checkpoint_flipped(bench: Bench) -> Outcome:
    return damaged_checkpoint(bench, "model.safetensors", flipped)


@fault("the last checkpoint's optimizer is cut short")
def checkpoint_truncated(bench: Bench) -> Outcome:
    return damaged_checkpoint(bench, "optimizer.safetensors", lambda raw: raw[: len(raw) // 2])


@fault("the last checkpoint's step number is changed")
def checkpoint_edited(bench: Bench) -> Outcome:
    return damaged_checkpoint(bench, "about.json", lambda raw: raw.replace(b'"step": 4', b'"step": 5'))
