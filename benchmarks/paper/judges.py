"""Measure length, the likelihood of SFT, a reward model and DPO's implicit reward as judges of published preferences.

Run as: python benchmarks/paper/judges.py [--data FOLDER] [--only SET ...] [--limit ROWS] [--set KEY=VALUE ...] [--write]

The sets are the four HH test files and the TL;DR pairs that GPT-4 judged. Of each, half of the prompt groups is for fitting and
half for measuring: `held_out_fraction: 0.5`, the split of every run on these data. On the first half a model of recipes/scale/small is
trained from scratch: SFT on the chosen replies with a tokenizer of its own, then a reward model and DPO, both from the SFT policy. On
the other half `alignzoo judge` measures all of them. Runs are content-addressed: the same command goes on where it was stopped, and
finished runs are not repeated. The expected time is printed first, from timed steps of the runs that are missing.

`--write` writes benchmarks/results/paper/judges.md. --limit uses the first rows alone, for a look, and writes nothing.
plugins/alignzoo-zoo need not be installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from league import INSTALLED, ZOO  # noqa: E402

import alignzoo  # noqa: E402
from alignzoo.cli.data import tokenizer_of  # noqa: E402
from alignzoo.compare.judge_report import Figure, JudgeReport, SetResult  # noqa: E402
from alignzoo.core.console import Screen  # noqa: E402
from alignzoo.core.paths import runs_root  # noqa: E402
from alignzoo.data.dataset import tokenized_dataset  # noqa: E402
from alignzoo.data.row_reader import RowReader  # noqa: E402
from alignzoo.recipe.resolved import Resolved  # noqa: E402
from alignzoo.report.comparison.markdown import grid  # noqa: E402
from alignzoo.report.judges import headline, remarks, tables  # noqa: E402
from alignzoo.training.needed_runs import folder_of  # noqa: E402
from alignzoo.training.timed_step import time_run  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "paper" / "judges.md"
SETS = {
    "hh_helpful_base": {"name": "hh", "path": "hh_helpful_base_test.jsonl.gz"},
    "hh_helpful_online": {"name": "hh", "path": "hh_helpful_online_test.jsonl.gz"},
    "hh_helpful_rejection_sampled": {"name": "hh", "path": "hh_helpful_rejection_sampled_test.jsonl.gz"},
    "hh_harmless_base": {"name": "hh", "path": "hh_harmless_base_test.jsonl.gz"},
    "tldr": {"name": "files", "path": "tldr_gpt_judged_pairs.jsonl.gz"},
}  # fmt: skip
RUNS = ("sft", "reward_model", "dpo")
"""In this order: the others start from SFT."""
JUDGES = {
    "length": "length", "sft": "likelihood of SFT", "reward_model": "reward model", "dpo": "implicit reward of DPO",
    "dpo likelihood": "likelihood of DPO",
}  # fmt: skip
LENGTH = {"name": "length", "unit": "characters"}


def recipes(name: str, data: dict[str, Any], folder: Path, limit: int | None) -> dict[str, Path]:
    """Write the recipes of a set, and return them by name."""
    parts: dict[str, dict[str, Any]] = {
        "sft": {"extends": [str(ROOT / "recipes" / "sft_hh.yaml"), str(ROOT / "recipes" / "scale" / "small.yaml")]},
        "reward_model": {"extends": str(ROOT / "recipes" / "bases" / "hh_preference.yaml"), "objective": "bradley_terry"},
        "dpo": {"extends": str(ROOT / "recipes" / "bases" / "hh_preference.yaml"),
                "objective": {"name": "dpo", "beta": 0.1}},
    }  # fmt: skip
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    for key, recipe in parts.items():
        own = {"data": data, "eval": {"every": None, "replies": {"num_prompts": 0}}, "reporters": []}
        if key != "sft":
            own["model"] = {"from": "sft.yaml"}
        if limit is not None:
            own["train"] = {"batch_size": 4, "max_steps": 2, "schedule": {"warmup_steps": 0}}
        (place / f"{key}.yaml").write_text(yaml.safe_dump(recipe | own, sort_keys=False))
    return {key: place / f"{key}.yaml" for key in parts}


def expected(loaded: list[Resolved], screen: Screen) -> str:
    """Return the expected time of the runs that are missing, from timed steps of each."""
    missing = [one for one in loaded if folder_of(one).summary() is None]
    if not missing:
        return f"{len(loaded)} runs, all finished"
    seconds, unknown = 0.0, 0
    for one in missing:
        reader = RowReader(one.recipe.data)
        tokenizer = tokenizer_of(one, reader)
        taken = time_run(one, tokenizer, tokenized_dataset(one, tokenizer, screen.info, reader=reader), screen)
        seconds += taken.get("seconds", 0.0)
        unknown += "unavailable" in taken
    more = f", and {unknown} of unknown time" if unknown else ""
    return f"{len(loaded)} runs, {len(missing)} to do: about {seconds / 60:.0f} min{more}, and the measuring"


def measured(name: str, data: dict[str, Any], folders: list[Path], screen: Screen) -> SetResult:
    """Return the judges of a set on its held-out half."""
    node = yaml.safe_dump(data, default_flow_style=True, width=10_000).strip()
    plain = alignzoo.judge(node, judges=LENGTH, runs=folders, split="held_out", quiet=screen.console.quiet)
    (found,) = JudgeReport.model_validate(plain).sets.values()
    return found


def words(figure: Figure | None) -> str:
    """Return a figure with its interval."""
    if figure is None or figure.mean is None:
        return "—"
    return f"{figure.mean:.3f}" + ("" if figure.low is None else f" [{figure.low:.3f}, {figure.high:.3f}]")


def page(found: dict[str, SetResult], seconds: float) -> str:
    """Return judges.md."""
    lines = [
        "# Judges of published preferences", "",
        f"Command: `python benchmarks/paper/judges.py --write` ({seconds / 60:.0f} min in the last call; alignzoo "
        f"{alignzoo.__version__}, torch {version('torch')}, {platform.machine()} CPU).", "",
        "Each judge is fitted on half of the prompt groups of a set and measured on the other half. The models are those of",
        "`recipes/scale/small`, trained from scratch on that half alone, one seed each. They say how the measurement is made, and not",
        "how good a reward model of a useful size is. Intervals of 95% are clustered by prompt and are of these models. Accuracy counts a",
        "tie one half.", "", "## Accuracy", "",
    ]  # fmt: skip
    rows = [["set", "pairs", *JUDGES.values()]]
    for name, one in found.items():
        cells = [words(one.judges[key].figures.get("accuracy")) if key in one.judges else "—" for key in JUDGES]
        rows.append([name, f"{one.pairs:,}", *cells])
    lines += [*grid(rows), ""]
    for name, one in found.items():
        lines += [f"## {name}", "", f"{headline(name, one)}.", "", *(f"- {line}" for line in remarks(one))]
        for table in tables(one):
            lines += ["", f"{table.title.capitalize()}:", "", *grid([table.head, *table.rows])]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def with_zoo(folder: Path) -> None:
    """Let alignzoo find plugins/alignzoo-zoo where it is not installed."""
    if importlib.util.find_spec("alignzoo_zoo") is None:
        info = folder / "alignzoo_zoo-0.1.0.dist-info"
        info.mkdir()
        for name, text in INSTALLED.items():
            (info / name).write_text(text)
        sys.path[:0] = [str(folder), str(ZOO)]


def main() -> None:
    """Run what is missing, measure, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--set", dest="overrides", nargs="+", default=[])
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    began, screen, found = time.monotonic(), Screen(), {}
    with tempfile.TemporaryDirectory() as name:
        with_zoo(Path(name))
        plans: dict[str, dict[str, Path]] = {}
        sources: dict[str, dict[str, Any]] = {}
        for one in asked.only:
            source = SETS[one] | {"path": str((asked.data / SETS[one]["path"]).resolve()), "held_out_fraction": 0.5}
            if asked.limit is not None:
                source |= {"max_train_rows": asked.limit, "held_out_rows": asked.limit}
            sources[one] = source
            plans[one] = recipes(one, source, runs_root().absolute() / "judges-recipes", asked.limit)
        if asked.limit is None:
            loaded = [alignzoo.load_recipe(path, asked.overrides) for plan in plans.values() for path in plan.values()]
            print(expected(loaded, screen), flush=True)
        for one, plan in plans.items():
            folders = [alignzoo.run(plan[key], asked.overrides, quiet=False).folder for key in RUNS]
            found[one] = measured(one, sources[one], folders, screen)
    text = page(found, time.monotonic() - began)
    print(text)
    if asked.write and asked.limit is None and not asked.overrides and list(asked.only) == list(SETS):
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(text, encoding="utf-8")
    elif asked.write:
        sys.exit("only the whole of it is written: without --limit, --only and --set")


if __name__ == "__main__":
    main()
