"""Kill a run with SIGKILL at every moment, repeat the command, and compare every byte.

Run as: python benchmarks/faults/kills.py [KILLS] [--every N] [--first N] [--seed N] [--write] [--add]

Two series on recipes/dpo_hh.yaml at its smallest size, its SFT run included:

- at every operation that changes the disk (a file opened for writing, synced, renamed or removed, a folder made), the kill
  comes just before it; and once more with what a power cut may leave, half of an unsynced file or half of a line.
  `--every 10` takes each tenth of them.
- KILLS (100) at random moments of whole runs from nothing, half of them spread over the time and half over the phases; a
  third of the resumed commands are killed again.

After each kill every file under its final name is checked against its digests, and the finished run against one that was
never killed. `--write` writes benchmarks/results/kills.md and .json; `--add` adds to them, so that a series can be run in
parts. Exits with 1 when a byte differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from crash import PHASES, Operations, Phases, damaged, kill_after, leftovers
from stage import ROOT, SETTINGS, Workplace, warm

RECIPE = ["recipes/dpo_hh.yaml", "--with", "recipes/scale/smallest.yaml"]
SMALL = [
    "data.max_train_rows=32", "data.held_out_rows=8", "train.batch_size=8", "train.max_steps=4", "train.checkpoint_every=1",
    "eval.every=2", "eval.replies.num_prompts=1", "eval.replies.max_new_tokens=4",
]  # fmt: skip
"""For the kills at every operation: as many kinds of operations in less time."""
RUNS = ("sft_hh", "dpo_hh")


@dataclass
class Tally:
    """What a series of kills came to."""

    kills: int = 0
    finished: int = 0
    """Runs that were resumed to their end."""
    identical: int = 0
    """Of these, with every compared file as in the uninterrupted run."""
    damaged: int = 0
    left_over: int = 0
    where: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def look(self, place: Workplace, hit: str) -> None:
        """After a kill."""
        self.kills += 1
        self.where[hit] += 1
        bad = damaged(place)
        self.damaged += len(bad)
        self.wrong += [f"after a kill in {hit}: damaged {path}" for path in bad]

    def compare(self, place: Workplace, want: dict[str, bytes], hit: str, names: tuple[str, ...], code: int) -> None:
        """At the end."""
        self.finished += 1
        try:
            got = {key: value for name in names for key, value in place.artifacts(name).items()}
        except (OSError, ValueError) as error:
            got = {f"exit code {code}, {error}": b""}
        differ = [key for key in got.keys() | {key for key in want if key.split("/")[0] in names}
                  if got.get(key) != want.get(key)]  # fmt: skip
        pages = [name for name in names if code == 0 and not (place.run_folder(name) / "report.html").is_file()]
        self.identical += not differ and not pages
        self.wrong += [f"after a kill in {hit}: {key} differs" for key in [*differ, *pages]]
        left_over = [path for path in leftovers(place) if path.startswith("runs/")]
        self.left_over += len(left_over)
        self.wrong += [f"after a kill in {hit}: left over {path}" for path in left_over]


def every_operation(root: Path, every: int, first: int, say) -> Tally:
    """Kill at each operation of the SFT run, and then of the DPO run beside a finished SFT run."""
    tally = Tally()
    recipe = [*RECIPE, *SMALL]
    whole = Workplace(root / "whole", recipe)
    assert whole.run().code == 0
    want = whole.artifacts("sft_hh") | whole.artifacts("dpo_hh")
    sft = ["recipes/sft_hh.yaml", *recipe[1:]]
    for name, arguments, before in (("sft_hh", _sft(sft), None), ("dpo_hh", recipe, whole)):
        place = Workplace(root / "place", arguments)
        for torn in (False, True):
            _fresh(place, before)
            operations = Operations(place.root)
            finished = place.run(inject=operations)
            assert finished.code == 0, finished.err
            tally.compare(place, want, "nothing", (name,), 0)
            tally.finished -= 1
            tally.identical -= 1
            seen = operations.seen()
            tears = [n for n, line in enumerate(seen, 1) if not torn or line.startswith(("fsync", "append"))]
            say(f"{name}: {len(seen)} operations, {len(tears)} kills{' with torn files' if torn else ''}")
            for n in tears[first - 1 :: every]:
                _fresh(place, before)
                assert place.run(inject=Operations(place.root, n, torn)).code == -9
                hit = f"{name} {seen[n - 1].split()[0]}{' torn' if torn else ''}"
                tally.look(place, hit)
                finished = place.run()
                tally.compare(place, want, f"{hit} ({n}: {seen[n - 1]})", (name,), finished.code)
    return tally


def _sft(arguments: list[str]) -> list[str]:
    """What a DPO recipe's overrides become for the run it starts from: data and evaluation, not training."""
    return [one for one in arguments if not one.startswith(("train.", "eval."))]


def _fresh(place: Workplace, before: Workplace | None) -> None:
    shutil.rmtree(place.root, ignore_errors=True)
    if before is not None:  # the SFT run is done, and nothing of the DPO run: neither tokens nor reference
        place.runs.mkdir(parents=True)
        shutil.copytree(before.run_folder("sft_hh"), place.runs / before.run_folder("sft_hh").name)


def random_moments(root: Path, kills: int, seed: int, say) -> Tally:
    """Kill whole runs from nothing until there were so many kills."""
    tally, dice = Tally(), random.Random(seed)
    whole = Workplace(root / "whole at random", RECIPE)
    began = time.perf_counter()
    assert whole.run().code == 0
    seconds = time.perf_counter() - began
    want = {key: value for name in RUNS for key, value in whole.artifacts(name).items()}
    say(f"an uninterrupted run takes {seconds:.1f} s")
    while tally.kills < kills:
        place = Workplace(root / "place", RECIPE)
        shutil.rmtree(place.root, ignore_errors=True)
        hits: list[str] = []
        while True:
            phases = Phases()
            child = place.start(inject=phases)
            hit = ""
            if not hits or dice.random() < 1 / 3:
                if dice.random() < 0.5:
                    hit = kill_after(child, phases, dice.uniform(0, seconds))
                else:
                    phase = dice.choice(PHASES[1:])
                    hit = kill_after(child, phases, dice.uniform(0, 0.02), phase, dice.randint(1, 3))
            code = child.wait().code
            if not hit:
                break
            hits.append(hit)
            tally.look(place, hit)
        if hits:
            tally.compare(place, want, ", ".join(hits), RUNS, code)
        say(f"{tally.kills} kills, {tally.finished} runs resumed, {tally.identical} identical", end="\r")
    return tally


def added(before: dict[str, dict], series: dict[str, Tally]) -> dict[str, Tally]:
    """What was done before, and this."""
    whole = {name: Tally(**{**one, "where": Counter(one["where"])}) for name, one in before.items()}
    for name, one in series.items():
        sofar = vars(whole.setdefault(name, Tally()))
        sofar |= {key: sofar[key] + value for key, value in vars(one).items()}
    return whole


def table(series: dict[str, Tally]) -> str:
    """kills.md."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    lines = [
        "# Kills", "", f"Command: `python benchmarks/faults/kills.py 100 --write`, or in parts with `--add` ({packages}; CPU, one",
        "thread).", "",
        "| series | kills | runs resumed to their end | byte-identical | damaged artifacts | left-over temporary files |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {name} | {one.kills} | {one.finished} | {one.identical} | {one.damaged} | {one.left_over} |"
          for name, one in series.items()), "",
        "Compared are the policy's weights and configuration, metrics.jsonl, samples.jsonl and data.json of the run, in the",
        "random series of the SFT run before it too. Looked at after every kill: checkpoints, token store, reference shards",
        "and JSON under their final names. Left-overs are those in the run folders of finished runs; the cache's are",
        "`alignzoo cache prune`'s.", "",
    ]  # fmt: skip
    for name, one in series.items():
        lines += [f'Where the kills of the series "{name}" came:', "", "| where | kills |", "|---|---:|"]
        lines += [
            f"| {where} | {count} |" for where, count in sorted(one.where.items(), key=lambda item: _order(*item))
        ]
        lines += [""]
    wrong = [line for one in series.values() for line in one.wrong]
    return "\n".join([*lines, *(f"- {line}" for line in wrong)]).rstrip() + "\n"


def _order(where: str, count: int) -> tuple[int, str]:
    return (PHASES.index(where) if where in PHASES else len(PHASES), where)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    os.environ |= SETTINGS
    root = Path(tempfile.mkdtemp(prefix="kills-"))

    def say(text: str, end: str = "\n") -> None:
        print(text, end=end, file=sys.stderr, flush=True)

    try:
        finished = warm(Workplace(root / "warm", RECIPE))
        assert finished.code == 0, finished.err
        series = {}
        if asked.kills:
            series["at random moments"] = random_moments(root, asked.kills, asked.seed, say)
        if asked.every:
            series["at every operation on the disk"] = every_operation(root, asked.every, asked.first, say)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    results = ROOT / "benchmarks" / "results"
    if asked.add:
        series = added(json.loads((results / "kills.json").read_text()), series)
    text = table(series)
    print(text)
    if asked.write or asked.add:
        (results / "kills.md").write_text(text)
        plain = {name: {**vars(one), "where": dict(one.where)} for name, one in series.items()}
        (results / "kills.json").write_text(json.dumps(plain, indent=1))
    sys.exit(any(one.wrong or one.identical < one.finished for one in series.values()))


if __name__ == "__main__":
    main()
