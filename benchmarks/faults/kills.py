"""Kill commands with SIGKILL, and fill their disk, at every moment; repeat them, and compare every byte.

Run as: python benchmarks/faults/kills.py [--kills N] [--every N] [--others N] [--only SCENARIO ...] [--write] [--add]

Over six scenarios (SFT, DPO, LoRA, the reference pass, online DPO, a comparison), at the smallest size:

- at every operation that changes the disk (a file opened for writing, synced, renamed or removed, a folder made), a kill
  just before it (`--every 10` takes each tenth); at each third of them (`--others`) once more with what a power cut may
  leave, half of an unsynced file or half of a line, and once more with a disk that is full from there on.
- N kills (300) at random moments over all scenarios, half of them spread over the time and half over the phases of a run; a third of the
  resumed commands are killed again.
- disks of random sizes, too small for the command, where mounting is allowed.

After each fault every file under its final name is checked against its digests, and the finished command against one that
nothing happened to. A full disk must also end in one sentence, and change no file that was there. Every command is a fork
of one warmed process. `--write` writes benchmarks/results/kills.md and .json; with `--add`, beside the series of other
scenarios that are there. Exits with 1 when a byte differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from crash import FULL, GROWING, KILL, OF_ROLLOUTS, PHASES, TORN, Operations, Phases, damaged, kill_after, leftovers
from of_machine import small_disk
from scenarios import DATA, SCENARIOS, SIZE, Scenario, prepared
from stage import ROOT, SETTINGS, Finished, Workplace, warm

Say = Callable[[str], None]
Keep = Callable[[dict[str, "Tally"]], None]
HOWS = {KILL: "killed", TORN: "killed, with torn files", FULL: "the disk full from there on"}
RANDOM, SMALL = "killed at random moments", "disks too small"


@dataclass
class Tally:
    """The outcome of a series of faults."""

    faults: int = 0
    finished: int = 0
    """Commands that were repeated to their end."""
    identical: int = 0
    """Of these, with every compared file as in the uninterrupted one."""
    damaged: int = 0
    left_over: int = 0
    where: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def look(self, place: Workplace, hit: str, wrong: Sequence[str] = ()) -> None:
        """Count a fault, and check every file after it."""
        self.faults += 1
        self.where[hit] += 1
        bad = [f"damaged {path}" for path in damaged(place)] + list(wrong)
        self.damaged += len(bad)
        self.wrong += [f"{hit}: {one}" for one in bad]

    def compare(self, scenario: Scenario, place: Workplace, finished: Finished, hit: str) -> None:
        """Compare a repeated command with the uninterrupted one."""
        self.finished += 1
        got, want = scenario.result(place), scenario.want
        differ = [key for key in got.keys() | want.keys() if got.get(key) != want.get(key)]
        if finished.code:
            differ.append(f"exit code {finished.code}, {finished.message}; the rest")
        left_over = [path for path in leftovers(place) if path.startswith("runs/")]
        self.identical += not differ
        self.left_over += len(left_over)
        self.wrong += [f"{hit}: {key} differs" for key in differ] + [f"{hit}: left over {path}" for path in left_over]

    def words(self) -> str:
        """The figures in a line, and a line for each thing that is wrong."""
        line = f"{self.faults} faults, {self.finished} repeated, {self.identical} identical"
        return "\n  ".join([line, *self.wrong])


def told(finished: Finished) -> list[str]:
    """What is wrong with the end of a command whose disk was full: it ends well, or with one sentence."""
    errors = [line for line in finished.err.splitlines() if line.startswith("error: ")]
    if "Traceback" in finished.err or finished.code not in (0, 1) or len(errors) != finished.code:
        return [f"exit code {finished.code}: {finished.err[-2000:]}"]
    return []


def fault_at(scenario: Scenario, place: Workplace, n: int, how: str, what: str, tally: Tally) -> None:
    """Inject one fault at the n-th operation, look, repeat, compare."""
    hit = f"{scenario.name}, {what}"
    scenario.start_of(place, scenario.trained)
    operations = Operations(place.root, n, how, scenario.under)
    finished = scenario.run(place, operations)
    wrong = [f"lost {path}" for path in operations.lost()] + (told(finished) if how == FULL else [])
    if how != FULL and finished.code != -9:
        wrong.append(f"not killed: exit code {finished.code}")
    tally.look(place, hit, wrong)
    tally.compare(scenario, place, scenario.run(place), f"{hit} ({n})")


def operations_of(scenario: Scenario, place: Workplace) -> list[str]:
    """The operations of an uninterrupted command, in order."""
    scenario.start_of(place, scenario.trained)
    counting = Operations(place.root, under=scenario.under)
    finished = scenario.run(place, counting)
    assert finished.code == 0, finished.err
    assert scenario.result(place) == scenario.want, "two uninterrupted commands differ"
    return [line.split()[0] for line in counting.seen()]


def eligible(seen: Sequence[str], how: str) -> list[int]:
    """The numbers of the operations at which a fault of this kind can come."""
    kinds = {TORN: ("fsync", "append"), FULL: GROWING}.get(how)
    return [n for n, what in enumerate(seen, 1) if kinds is None or what in kinds]


def every_operation(scenario: Scenario, root: Path, every: dict[str, int], say: Say, keep: Keep) -> None:
    """Inject each kind of fault at each so-many-th operation of a scenario."""
    place = scenario.place(root / "place")
    seen = operations_of(scenario, place)
    for how, words in HOWS.items():
        tally = Tally()
        began = time.perf_counter()
        for n in eligible(seen, how)[:: every[how]]:
            fault_at(scenario, place, n, how, seen[n - 1], tally)
        seconds = time.perf_counter() - began
        each = f"{seconds / max(1, tally.faults):.2f} s each"
        say(f"{scenario.name}, {words}: {len(seen)} operations, {each}, {tally.words()}")
        keep({f"{scenario.name}: {words}": tally})


def random_moments(scenario: Scenario, root: Path, kills: int, seed: int, say: Say) -> Tally:
    """Kill a scenario's command at random until there were so many kills."""
    tally, dice = Tally(), random.Random(seed)
    place = scenario.place(root / "place")
    scenario.start_of(place)
    began = time.perf_counter()
    assert scenario.run(place).code == 0
    seconds = time.perf_counter() - began
    online = scenario.name == "online"
    phases_of = [phase for phase in PHASES[1:] if phase != "reference pass" or not online]
    phases_of = [phase for phase in phases_of if phase not in OF_ROLLOUTS or online]
    while tally.faults < kills:
        scenario.start_of(place)
        hits: list[str] = []
        while True:
            phases = Phases()
            child = place.start(inject=scenario.with_own(phases), command=scenario.command)
            hit = ""
            if not hits or dice.random() < 1 / 3:
                if dice.random() < 0.5:
                    hit = kill_after(child, phases, dice.uniform(0, seconds))
                else:
                    phase = dice.choice(phases_of)
                    hit = kill_after(child, phases, dice.uniform(0, 0.02), phase, dice.randint(1, 3))
            finished = child.wait()
            if not hit:
                break
            hits.append(hit)
            tally.look(place, hit)
        if hits:
            tally.compare(scenario, place, finished, f"{scenario.name}, {', '.join(hits)}")
    say(f"{scenario.name}, {RANDOM}: {tally.words()}")
    return tally


def small_disks(scenario: Scenario, root: Path, count: int, seed: int, say: Say) -> Tally:
    """Run a scenario on disks of random sizes, then on the same disk with room enough."""
    tally, dice = Tally(), random.Random(seed)
    place = scenario.place(root / "place")
    scenario.start_of(place)
    start = _kilobytes(place.root)
    assert scenario.run(place).code == 0
    size = _kilobytes(place.root)
    for _ in range(count):
        scenario.start_of(place)
        kilobytes = dice.randint(start + 200, size)
        with small_disk(place.root, f"{kilobytes}k"):
            finished = scenario.run(place)
            tally.look(place, f"{scenario.name} on a small disk", told(finished))
            subprocess.run(["mount", "-o", "remount,size=100m", place.root], check=True)
            tally.compare(scenario, place, scenario.run(place), f"{scenario.name} on a disk of {kilobytes} kB")
    say(f"{scenario.name}, {SMALL}: {tally.words()}")
    return tally


def _kilobytes(folder: Path) -> int:
    return sum(path.stat().st_blocks for path in folder.rglob("*")) // 2


def write(results: Path, series: dict[str, Tally]) -> None:
    """Write kills.md and kills.json."""
    (results / "kills.md").write_text(table(series))
    plain = {name: {**vars(one), "where": dict(one.where)} for name, one in series.items()}
    (results / "kills.json").write_text(json.dumps(plain, indent=1))


def earlier(path: Path) -> dict[str, Tally]:
    """The series of kills.json."""
    found = json.loads(path.read_text())
    return {name: Tally(**{**one, "where": Counter(one["where"])}) for name, one in found.items()}


def table(series: dict[str, Tally]) -> str:
    """kills.md."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    kills = sum(one.faults for name, one in series.items() if "killed" in name)
    faults = sum(one.faults for one in series.values())
    lines = [
        "# Kills and full disks", "",
        f"Command: `python benchmarks/faults/kills.py --write` ({packages}; CPU, one",
        "thread), in parts with `--only` and `--add`.", "",
        f"{kills:,} kills and {faults - kills:,} full disks, {sum(one.finished for one in series.values()):,} repeated "
        f"commands, {sum(one.identical for one in series.values()):,} of them with the same bytes.", "",
        "| series | faults | repeated to the end | byte-identical | damaged or lost | left-over temporary files |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, one in series.items():
        figures = (one.faults, one.finished, one.identical, one.damaged, one.left_over)
        lines.append(f"| {name} | {' | '.join(map(str, figures))} |")
    lines += [
        "", "Compared are all files of the runs and evaluations but times, drawings and checkpoints, the reference's scores and",
        "the comparison's table without its costs. After every fault, checkpoints, token store, reference shards and JSON",
        "under their final names are checked. With a full disk, the command must end with one sentence and exit code 1, or",
        "go on without what it could not store, and no file under its final name may change. Left-overs are those in the",
        "folders of runs; `alignzoo cache prune` removes the cache's.", "", "Where the random kills came:", "",
        "| where | kills |", "|---|---:|",
    ]  # fmt: skip
    where = sum((one.where for name, one in series.items() if RANDOM in name), Counter())
    lines += [f"| {phase} | {where[phase]} |" for phase in PHASES if where[phase]]
    wrong = [line for one in series.values() for line in one.wrong]
    return "\n".join([*lines, *([""] if wrong else []), *(f"- {line}" for line in wrong)]).rstrip() + "\n"


def main() -> None:
    """Run the series, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=300, help="at random moments, over all scenarios")
    parser.add_argument("--disks", type=int, default=100, help="too small, over all scenarios")
    parser.add_argument("--every", type=int, default=1, help="0 for no kills at operations")
    parser.add_argument("--others", type=int, default=3, help="for torn files and full disks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--add", action="store_true")
    asked = parser.parse_args()
    os.environ |= SETTINGS
    os.chdir(ROOT)
    root = Path(tempfile.mkdtemp(prefix="kills-"))

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    series: dict[str, Tally] = {}
    results = ROOT / "benchmarks" / "results"
    before = earlier(results / "kills.json") if asked.add else {}

    def keep(found: dict[str, Tally]) -> None:
        """Write what is known so far: a long run that is stopped has lost nothing."""
        series.update(found)
        if asked.write:
            write(results, before | series)

    try:
        warmed = warm(Workplace(root / "warm", ["recipes/dpo_hh.yaml", *SIZE, *DATA]))
        assert warmed.code == 0, warmed.err
        for one in prepared(asked.only, root):
            share = len(SCENARIOS)
            if asked.every:
                every = {KILL: asked.every, TORN: asked.others, FULL: asked.others}
                every_operation(one, root, every, say, keep)
            if asked.kills:
                keep({f"{one.name}: {RANDOM}": random_moments(one, root, asked.kills // share, asked.seed, say)})
            if asked.disks:
                keep({f"{one.name}: {SMALL}": small_disks(one, root, asked.disks // share, asked.seed, say)})
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(table(before | series))
    sys.exit(any(one.wrong or one.identical < one.finished for one in series.values()))


if __name__ == "__main__":
    main()
