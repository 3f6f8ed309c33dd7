"""Rank the objectives on pairs: run recipes/compare/league.yaml in two processes, then write the table and the picture.

Run as: python benchmarks/league.py [--minutes 100] [--processes 2] [--only NAME ...] [--with OVERLAY] [--set KEY=VALUE]
        [--samples N] [--table FOLDER]

The rows are dealt to processes of one thread each, which share the SFT run and the reference pass. Each searches and runs its
rows to the end, so that `alignzoo compare recipes/compare/league.yaml` then finds every run. After --minutes the processes are
stopped, and the same command goes on. With --only the rows named (and the baseline) are run and ranked; with this or another
option that makes it another league, nothing is written to benchmarks/results. --table draws a finished comparison again.
plugins/alignzoo-zoo need not be installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from matplotlib import rc_context
from ranked_table import draw, markdown, ranked_rows

from alignzoo.compare.results import read_results
from alignzoo.compare.table import build
from alignzoo.core.paths import runs_root
from alignzoo.report.svg import STYLE, svg_document

ROOT = Path(__file__).parent.parent
LEAGUE = ROOT / "recipes" / "compare" / "league.yaml"
RESULTS = ROOT / "benchmarks" / "results"
ZOO = ROOT / "plugins" / "alignzoo-zoo"
KEY = "objective"
INSTALLED = {
    "METADATA": "Metadata-Version: 2.1\nName: alignzoo-zoo\nVersion: 0.1.0\n",
    "entry_points.txt": "[alignzoo]\nzoo = alignzoo_zoo\n",
}
"""What makes a folder on the path an installed alignzoo-zoo."""


def league(asked: argparse.Namespace) -> dict:
    """Return the comparison, with absolute paths and the named rows alone; the baseline is always among them."""
    only = asked.only
    about = yaml.safe_load(LEAGUE.read_text(encoding="utf-8"))
    for key in ("recipes", "with"):
        about[key] = [str((LEAGUE.parent / path).resolve()) for path in about[key]]
    rows = about["rows"][KEY]
    if unknown := sorted(set(only) - set(rows)):
        sys.exit(f"no row of {LEAGUE.name} is called {', '.join(unknown)}")
    first = about["baseline"].partition("=")[2]
    about["with"] += [str(Path(path).resolve()) for path in asked.overlays]
    about["set"] = [*(f"{key}={value}" for key, value in about["set"].items()), *asked.overrides]
    about["samples"]["prompts"] = about["samples"]["prompts"] if asked.samples is None else asked.samples
    return about | {"rows": {KEY: {name: grid for name, grid in rows.items() if not only or name in {first, *only}}}}


def dealt(about: dict, parts: int) -> list[dict]:
    """Deal the rows to comparisons of their own, in turn; a row's runs and figures do not depend on the others."""
    rows = list(about["rows"][KEY].items())
    hands = [dict(rows[n::parts]) for n in range(parts)]
    return [
        {key: value for key, value in about.items() if key != "baseline"} | {"rows": {KEY: hand}, "name": f"league-part-{n}"}
        for n, hand in enumerate(hands)
        if hand
    ]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """Return variables for processes of one thread that find alignzoo-zoo, installed or not."""
    variables = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    info = folder / "alignzoo_zoo-0.1.0.dist-info"
    info.mkdir(exist_ok=True)
    for name, text in INSTALLED.items():
        (info / name).write_text(text)
    return variables | {"PYTHONPATH": os.pathsep.join([str(folder), str(ZOO), os.environ.get("PYTHONPATH", "")])}


def compare(path: Path, variables: dict[str, str], log: Path) -> subprocess.Popen:
    """Start `alignzoo compare` with its output in a file."""
    with open(log, "a", encoding="utf-8") as out:
        command = [sys.executable, "-m", "alignzoo", "compare", str(path)]
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=variables)


def run(about: dict, processes: int, minutes: float) -> Path:
    """Run what is missing and return the folder of the comparison. Exits with 1 if time ends or a process fails."""
    ends = time.monotonic() + 60 * minutes
    logs = runs_root() / "league-logs"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variables = environment(folder)
        for stage in ([*dealt(about, processes)], [about]):
            started = []
            for part in stage:
                path = folder / f"{part.get('name', 'league')}.yaml"
                path.write_text(yaml.safe_dump(part, sort_keys=False), encoding="utf-8")
                log = logs / f"{path.stem}.log"
                print(f"{path.stem}: {len(part['rows'][KEY])} rows, {log}", flush=True)
                started.append((compare(path, variables, log), log))
            for process, log in started:
                try:
                    code = process.wait(max(1.0, ends - time.monotonic()))
                except subprocess.TimeoutExpired:
                    for other, _ in started:
                        other.terminate()  # the run in progress writes a checkpoint
                    for other, _ in started:
                        other.wait()
                    sys.exit(f"stopped after {minutes:g} minutes; the same command goes on")
                if code:
                    sys.exit(f"failed with {code}: see {log}")
        found = log.read_text(encoding="utf-8").rpartition("table, plots and report: ")[2]
        return Path("".join(found.split("\n")).strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=100.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--with", dest="overlays", nargs="+", default=[])
    parser.add_argument("--set", dest="overrides", nargs="+", default=[])
    parser.add_argument("--samples", type=int)
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    began = time.monotonic()
    folder = asked.table or run(league(asked), asked.processes, asked.minutes)
    about, records = read_results(folder)
    table = build(about, records)
    rows = ranked_rows(table)
    text = markdown(table, rows, records)
    print(text)
    if asked.only or asked.overlays or asked.overrides or asked.samples is not None:
        print(f"{time.monotonic() - began:.0f} s")
        return
    with rc_context(STYLE):
        picture = svg_document(draw(rows))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "league.md").write_text(text, encoding="utf-8")
    (RESULTS / "league.svg").write_text(picture, encoding="utf-8")
    (RESULTS / "league.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
