"""Fuzz every kind of file that a user may have from elsewhere, through the real commands.

Run as: python benchmarks/fuzz/fuzz.py [--count 20000] [--first 0] [--seed 0] [--kind NAME ...] [--keep FOLDER]
        [--write] [--add] [--again]

Real models, tokenizers, datasets, caches, run folders and recipes are made once (artifacts.py). Each input changes one to
three of their files, as trees, headers, lines, pages or bytes (mutate.py, cases.py), and runs one command on them in a
child forked from a process that has imported everything (forked.py). The same seed gives the same inputs. An input fails
with a traceback, a signal, more than 10 s of processor time until it is refused (60 s if it is done) or 2 GB from the fork
on, a write outside of its folder, code of the input that runs, or an exit code other than 0 and 2 (1 for commands that
train). A run that belongs to no input is compared byte by byte after each, and resumed after every 500. `--write` writes
benchmarks/results/fuzz.md and .json; `--add` adds to them, so that a series can be run in parts; `--again` runs the inputs in
them that failed once more.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

import forked

os.environ |= forked.SETTINGS  # before torch is imported

import artifacts
import cases

import recipes  # noqa: F401

RESULTS = Path(__file__).parents[1] / "results"
RESUME_EVERY = 500
WARMING = 120
"""Seconds of processor time of a good command that also imports what it needs."""
MENDED = RESULTS / "fuzz_mended.json"
"""Class of failure -> (what caused it, what happens now): kept by hand, shown in the table."""


class Fuzzer:
    """Places of real files, and a process that has imported what their commands import."""

    def __init__(self, root: Path, kinds: Iterable[str]) -> None:
        self.root, self.places = root, root / "places"
        names = dict.fromkeys(cases.KINDS[kind][1] for kind in kinds)
        artifacts.build(self.places, [name for name in names if not (self.places / name).exists()])
        self._warm(list(names))

    def _warm(self, names: list[str]) -> None:
        """Import here what good commands import in a child."""
        modules = self.root / "work" / ".modules"
        for case in cases.GOOD:
            if case.place in names:
                end = forked.run(case.words, self.folder(case), (0,), modules, WARMING)
                assert not end.fault, f"{case.words}: {end.fault}\n{end.said}"
                for name in modules.read_text().split("\n"):
                    try:
                        importlib.import_module(name)
                    except Exception:
                        continue
        from alignzoo.registry.lookup import registry

        registry().find("objective", "dpo")  # the built-ins are found and hashed once
        gc.collect()
        gc.freeze()  # a child's collector would copy the pages of all that this process has

    def folder(self, case: cases.Case) -> Path:
        """A fresh copy of a case's place, with its edits."""
        folder = self.root / "work"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.places / case.place, folder, symlinks=True)
        for edit in case.edits:
            edit.apply(folder)
        return folder

    def outcome(self, case: cases.Case) -> forked.Outcome:
        """Run a case."""
        return forked.run(case.words, self.folder(case), case.allowed)

    def fuzz(
        self, kinds: list[str], numbers: Sequence[int], seed: int, save: Callable[[dict], None], limit: float
    ) -> dict:
        """Run the inputs of these numbers, and pass what was found so far to `save` from time to time."""
        limit += _seconds()
        found: dict = {"by_kind": {kind: Counter() for kind in kinds}, "faults": {}, "slowest": 0.0, "largest": 0.0}
        names = ("alignzoo", "transformers", "tokenizers", "safetensors", "datasets", "pyarrow")
        found["versions"] = {name: version(name) for name in names}
        numbers = [number for number in numbers if _drawn(number, seed)[0] in kinds]
        began = time.perf_counter()
        neighbor = self.neighbor()
        for number in numbers:
            kind, rng = _drawn(number, seed)
            case = cases.KINDS[kind][2](rng, self.places)
            end = self.outcome(case)
            found["by_kind"][kind][str(end.code)] += 1
            found["slowest"], found["largest"] = (
                max(found["slowest"], end.seconds),
                max(found["largest"], end.megabytes),
            )
            fault = end.fault or ("" if self.neighbor() == neighbor else "another run has changed")
            if fault:
                found["by_kind"][kind]["failed"] += 1
                edits = [f"{edit.name} -> {edit.link or (edit.content or b'')[:1500]!r}" for edit in case.edits]
                about = {"kind": kind, "seed": seed, "words": case.words, "edits": edits, "said": end.said[-3000:]}
                found["faults"].setdefault(fault, about | {"numbers": []})["numbers"].append(number)
            over = _seconds() > limit or number == numbers[-1]
            if over or number % RESUME_EVERY == RESUME_EVERY - 1:
                if said := self.resumed():
                    found["faults"]["a good run does not resume"] = {
                        "kind": kind,
                        "said": said,
                        "numbers": [number],
                        "edits": [],
                    }
                found["seconds"] = round(time.perf_counter() - began)
                print(number + 1, found["seconds"], "s", list(found["faults"]), file=sys.stderr, flush=True)
                save(found)
            if over:
                break
        return found

    def neighbor(self) -> str:
        """A digest of the files that no input may touch: all places, with the runs in them."""
        files = sorted(path for path in self.places.rglob("*") if path.is_file())
        status = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        return sha256(json.dumps(status).encode()).hexdigest()

    def resumed(self) -> str:
        """Resume the stopped run of the places; "" if it ends well."""
        if not (self.places / "runs").exists():
            return ""
        end = self.outcome(cases.Case("runs", ("run", "after.yaml"), (), (0,)))
        return f"{end.fault}: {end.said}" if end.fault else ""


def _drawn(number: int, seed: int) -> tuple[str, Random]:
    """The kind of an input, and what draws the rest of it."""
    rng = Random(sha256(f"{seed} {number}".encode()).digest())
    return rng.choices(list(cases.KINDS), [share for share, _, _ in cases.KINDS.values()])[0], rng


def _seconds() -> float:
    """Processor time of this process and of its children."""
    return sum(os.times()[:4])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--for", dest="limit", type=float, default=float("inf"), help="seconds of processor time at most"
    )
    parser.add_argument("--kind", nargs="*", choices=list(cases.KINDS), help="only the inputs of these kinds")
    parser.add_argument("--keep", type=Path, help="a folder for the real files, made if it is not there")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/fuzz.md and fuzz.json")
    parser.add_argument("--add", action="store_true", help="add to them")
    parser.add_argument(
        "--again", action="store_true", help="run the inputs in them that failed, and add how many still do"
    )
    given = parser.parse_args()
    path = RESULTS / "fuzz.json"
    before = json.loads(path.read_text()) if given.add or given.again else None
    numbers: Sequence[int] = range(given.first, given.first + given.count)
    if before and given.again:
        numbers = sorted(number for one in before["faults"].values() for number in one["numbers"])

    def save(found: dict) -> None:
        if given.write or before:
            whole = joined(before, found) if before else found
            if before and given.again:
                again = {"inputs": len(numbers), "faults": sum(len(one["numbers"]) for one in found["faults"].values())}
                whole = before | {"again": again}
            path.write_text(json.dumps(whole, indent=1) + "\n")
            (RESULTS / "fuzz.md").write_text(table(whole))

    with tempfile.TemporaryDirectory() as root:
        kinds = given.kind or list(cases.KINDS)
        fuzzer = Fuzzer(given.keep or Path(root), kinds)
        found = fuzzer.fuzz(kinds, numbers, given.seed, save, given.limit)
    for fault, about in found["faults"].items():
        edits = "\n".join(about["edits"])
        print(f"\n=== {fault}\n{about['kind']} {about['numbers']}: {about.get('words')}\n{edits}\n{about['said']}")
    return 1 if found["faults"] else 0


def joined(one: dict, other: dict) -> dict:
    """Two series as one."""
    kinds = dict.fromkeys([*one["by_kind"], *other["by_kind"]])
    counts = {kind: Counter(one["by_kind"].get(kind, {})) + Counter(other["by_kind"].get(kind, {})) for kind in kinds}
    faults = one["faults"] | other["faults"]
    for fault in one["faults"].keys() & other["faults"].keys():
        faults[fault] = one["faults"][fault] | {"numbers": one["faults"][fault]["numbers"] + faults[fault]["numbers"]}
    return other | {
        "by_kind": counts, "faults": faults, "seconds": one["seconds"] + other["seconds"],
        **{name: max(one[name], other[name]) for name in ("slowest", "largest")},
    }  # fmt: skip


def _again(found: dict) -> str:
    if "again" not in found:
        return ""
    return (
        " After the mends, the inputs that had failed ran again (`--again`): {faults} of {inputs} still fail.".format(
            **found["again"]
        )
    )


def table(found: dict) -> str:
    """The results as Markdown."""
    faults = sum(len(one["numbers"]) for one in found["faults"].values())
    inputs = sum(n for codes in found["by_kind"].values() for code, n in codes.items() if code != "failed")
    lines = [
        "# A fuzz of every kind of file from elsewhere", "",
        f"`python benchmarks/fuzz/fuzz.py --write`: {inputs:,} inputs through the real commands, {faults:,} of them with a "
        "traceback, a signal, more than 10 s until it was refused (60 s if it was done), 2 GB, a write outside of their folder, or code of theirs that ran. The slowest "
        f"took {found['slowest']:.1f} s of processor time, the largest {found['largest']:,.0f} MB.{_again(found)}", "",
        "| inputs | number | done (0) | refused in a sentence (2) | a run that could not go on (1) | faults |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for kind, codes in found["by_kind"].items():
        number = sum(n for code, n in codes.items() if code != "failed")
        counts = (codes.get(key, 0) for key in ("0", "2", "1", "failed"))
        lines.append(f"| {kind} | {number:,} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    mended = json.loads(MENDED.read_text()) if MENDED.is_file() else {}
    lines += ["", f"{len(mended)} classes of fault were found while this was written, and mended:", ""]
    lines += ["| what happened | by | now |", "|---|---|---|"]
    lines += [f"| {what} | {by} | {now} |" for what, (by, now) in mended.items()]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return "\n".join(lines) + f"\n\n{versions}; {found['seconds']:,} s\n"


if __name__ == "__main__":
    sys.exit(main())
