"""Break alignzoo one place at a time: the tests named for each break must fail.

    python benchmarks/mutants.py [--new] [WORD ...]
    python benchmarks/mutants.py --stale

Runs the mutants of benchmarks/mutants.yaml whose head, fault, name or file contains one of the words; all of them
without a word. With `--new` those that the results list as killed are left out. An entry has `name`, `file`, `old`
(occurs exactly once in the file, or the entry is stale), `new`, and `fails`, the tests that must fail; an entry under
`faults` also has `fault`, a number. The tree is copied. One entry is applied, its tests run, and the copy is restored.
The cases that failed then run on the restored copy: a case that fails there too proves nothing. Results are kept in
benchmarks/results/mutants.json and mutants.md. An entry that was not run keeps its last result, or is marked as not run
when its text has changed. `--stale` runs nothing and lists stale entries.
Exits with 1 when a mutant that was run is not killed, or an entry is stale.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

ROOT = Path(__file__).parent.parent
ENTRIES = Path(__file__).parent / "mutants.yaml"
RESULTS = Path(__file__).parent / "results" / "mutants.json"
SECONDS = 900
"""Limit for the tests of one mutant. A mutant that makes them hang counts as killed."""
CHUNK = 8
"""Mutants whose failed cases run together on the restored copy before the results are written."""
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "pytest", "hypothesis", "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto",
    "transformers.generation.utils", "matplotlib.figure", "accelerate", "pydantic", "click",
])  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One entry of the list."""

    name: str
    file: str
    old: str
    new: str
    fails: tuple[str, ...]
    fault: str = ""

    @property
    def words(self) -> str:
        """Return the text in which the words of the command are looked for."""
        return f"{f'faults {self.fault}' if self.fault else 'engine'} {self.name} {self.file}"

    @property
    def key(self) -> str:
        """Return 16 hex digits of all that decides the result except the code around the mutant."""
        text = {name: value for name, value in asdict(self).items() if name != "fault"}
        return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16]


class Watch:
    """Pytest plugin: record the first failed case of each named test, and skip its other cases."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.failed = names, dict[str, str]()

    def of(self, nodeid: str) -> str | None:
        return next((name for name in (nodeid, nodeid.partition("[")[0]) if name in self.names), None)

    def pytest_runtest_setup(self, item: Any) -> None:
        import pytest

        if self.of(item.nodeid) in self.failed:
            pytest.skip("this test has failed already")

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = self.of(report.nodeid)
        if report.failed and report.when != "teardown" and name is not None:
            self.failed.setdefault(name, report.nodeid)


def _child(copy: str, names: list[str], output: str) -> None:
    """Run tests of a copy in this process, which has not imported alignzoo yet."""
    file = os.open(f"{output}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(copy)
    roots = [copy, f"{copy}/plugins/alignzoo-zoo"]
    os.environ |= {"PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1"}
    sys.path[:0] = roots
    sys.dont_write_bytecode = True  # a mutant may have the size and the second of the file before
    import pytest

    import alignzoo

    assert Path(alignzoo.__file__).is_relative_to(copy), alignzoo.__file__
    watch = Watch(names)
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", *names], plugins=[watch])
    Path(output).write_text(json.dumps({"code": int(code), "failed": watch.failed}))


def run_tests(copy: Path, names: list[str], output: Path) -> tuple[int, dict[str, str]]:
    """Return pytest's exit code (-1 at the time limit), and the first failed case of each named test that failed."""
    output.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_child, args=(str(copy), names, str(output)))
    process.start()
    process.join(SECONDS)
    late = process.is_alive()
    process.kill()
    process.join()
    if output.exists():
        found = json.loads(output.read_text())
        return found["code"], found["failed"]
    return (-1, dict.fromkeys(names, "")) if late else (3, {})


def stale(mutant: Mutant, root: Path) -> str:
    """Return why an entry no longer fits the code or the tests, or ""."""
    path = root / mutant.file
    count = path.read_text().count(mutant.old) if path.is_file() else 0
    if count != 1:
        return f"stale: the old text occurs {count} times in {mutant.file}"
    for test in mutant.fails:
        file, _, name = test.partition("::")
        if f"def {name.partition('[')[0]}(" not in ((root / file).read_text() if (root / file).is_file() else ""):
            return f"stale: there is no test {test}"
    return ""


def attack(mutant: Mutant, copy: Path, output: Path) -> tuple[str, list[str]]:
    """Return `killed` or another result in words, and the cases that failed."""
    path = copy / mutant.file
    if problem := stale(mutant, copy):
        return problem, []
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        code, failed = run_tests(copy, list(mutant.fails), output)
    finally:
        path.write_text(text)
    if code not in (-1, 0, 1):
        return f"broken: pytest ended with {code}, as when a module can't be imported or a test is not there", []
    alive = [name for name in mutant.fails if name not in failed]
    cases = [case for case in failed.values() if case]
    return ("killed" if not alive else f"survived: {', '.join(alive)}"), cases


def read_entries() -> list[Mutant]:
    """Return all entries in the order of the file."""
    heads = yaml.safe_load(ENTRIES.read_text())
    found = [Mutant(**node | {"fails": tuple(node["fails"])}) for nodes in heads.values() for node in nodes]
    names = [one.name for one in found]
    assert len(set(names)) == len(names), "two mutants have one name"
    return found


def copied(folder: Path) -> Path:
    """Copy the files that git tracks or does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def table(entries: list[Mutant], results: dict[str, dict[str, str]]) -> str:
    """Return the results in Markdown."""
    rows = [(one, results.get(one.key, {}).get("result", "not run")) for one in entries]
    killed = sum(result == "killed" for _, result in rows)
    lines = [
        "# Mutants", "",
        f"{killed} of {len(rows)} killed. Each changes one place in the code, and each of its tests must fail for it;",
        "`python benchmarks/mutants.py` applies them one at a time. The objectives' mutants are tests/kit_mutants.py.",
    ]  # fmt: skip
    for title, faults in (("Engine", False), ("Fixes of faults", True)):
        lines += ["", f"## {title}", "", "| mutant | file | tests | result |", "|---|---|---|---|"]
        for one, result in rows:
            if bool(one.fault) == faults:
                tests = "<br>".join(name.removeprefix("tests/") for name in one.fails)
                name = f"{one.fault}: {one.name}" if faults else one.name
                lines.append(f"| {name} | {one.file.removeprefix('alignzoo/')} | {tests} | {result} |")
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    entries = read_entries()
    if words == ["--stale"]:
        problems = [f"{one.name}: {problem}" for one in entries if (problem := stale(one, ROOT))]
        print("\n".join(problems) or f"none of {len(entries)} entries is stale")
        return int(bool(problems))
    wanted = [word for word in words if word != "--new"]
    chosen = [one for one in entries if not wanted or any(word in one.words for word in wanted)]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {one.key: results[one.key] for one in entries if one.key in results}
    if "--new" in words:
        chosen = [one for one in chosen if results.get(one.key, {}).get("result") != "killed"]
    alive = 0
    with (
        FileLock(Path(tempfile.gettempdir()) / "alignzoo-mutants.lock", timeout=0),
        tempfile.TemporaryDirectory() as folder,
    ):
        copy, output = copied(Path(folder) / "copy"), Path(folder) / "found"
        for start in range(0, len(chosen), CHUNK):
            chunk = chosen[start : start + CHUNK]
            found = {}
            for one in chunk:
                began = time.monotonic()
                found[one] = attack(one, copy, output)
                print(f"{one.name}: {found[one][0]} ({time.monotonic() - began:.0f} s)", flush=True)
            cases = sorted({case for _, failed in found.values() for case in failed})
            code, again = run_tests(copy, cases, output) if cases else (0, {})
            unsound = set(again.values()) if code in (0, 1) else set(cases)
            for one, (result, failed) in found.items():
                if unsound.intersection(failed):
                    result = f"no proof: fails without the mutant too: {', '.join(unsound.intersection(failed))}"
                    print(f"{one.name}: {result}", flush=True)
                alive += result != "killed"
                results[one.key] = {"name": one.name, "result": result}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            RESULTS.with_suffix(".md").write_text(table(entries, results))
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
