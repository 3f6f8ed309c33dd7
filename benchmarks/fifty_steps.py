"""Train every known objective for fifty steps on the embedded dataset and compare its held-out loss before and after.

Run as: python benchmarks/fifty_steps.py [OBJECTIVE ...]

With plugins/alignzoo-zoo installed it trains the whole zoo, in a quarter of an hour on one core. Policy and settings are
those of recipes/dpo_hh.yaml under recipes/zoo/fifty_steps.yaml with another objective; ranked lists come from
recipes/zoo/ranked_hh.yaml. Objectives in OWN differ from that, and are also trained without the difference. Runs that are
in ALIGNZOO_RUNS are read and not repeated. With names, only these are trained and nothing is written. Exits with 1 when a
loss did not fall.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import alignzoo
from alignzoo.registry.lookup import registry
from alignzoo.training.records import read_lines

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "benchmarks" / "results"
STEPS = 50
RATE = "train.optimizer.learning_rate"
OWN = {
    "bradley_terry": ({RATE: 3e-4}, "the head is new, drawn from the seed"),
    "bradley_terry_margin": ({RATE: 3e-4}, "the head is new, drawn from the seed"),
    "cal_dpo": ({"objective.beta": 0.1}, "the paper's 1e-3 wants log-ratios of +-500; 0.1 wants +-5"),
    "discopop": (
        {RATE: 1e-3},
        "its slope at a margin of 0 is positive: smaller steps end in a local minimum at -2.37 (0.786), with a local "
        "maximum at 1.44 (0.878) on the way out",
    ),
    "dpop": (
        {"objective.penalty": 5.0},
        "with the paper's 50 a held-out chosen reply that falls by a tenth of a nat costs what a margin of 5 earns",
    ),
    "sppo_hard": ({"objective.beta": 0.1}, "the paper's 1e-3 wants log-ratios of +-500; 0.1 wants +-5"),
    "tr_dpo": ({"objective.every": 20}, "with the paper's 512 the reference would not move within fifty steps"),
}
"""Objective -> overrides of its own, and why."""
NOTES = """
What is its own was chosen with this table in sight: the table says whether each one descends, not which is better.

The means are over all held-out rows (pairs: one example each, unpaired: two, lists: one), the whole set as one batch
for the objectives that look across the batch. Accuracy before is 0.5 where the reward is a log-ratio: the policy still
is the reference, and every pair a tie. For lists accuracy is the share of a list's pairs in the right order.

What else there is to know:

- `kto` is `apo_zero_unpaired` here: the log-ratio of mismatched completions falls from the first batches on, so that
  its estimate of the KL is held at 0, as the paper has it.
- `tr_dpo` measures its loss against a reference that has gone most of the way to the policy at steps 20 and 40.
- `wpo` and `lipo_lambda` hold weights constant that depend on the policy: their loss also falls because the weights do.
  Before training all rewards of a list are tied, and `lipo_lambda` takes the list's order for the ranking.
- `unlikelihood` has no bound from below: the rejected likelihood falls without end, and takes the chosen one along.
- `sft`, `preferred_ft`, `cpo` and `orpo` are mostly the likelihood that SFT has learned already.
"""


def train(name: str, objective: type, own: dict) -> dict:
    recipe = "zoo/ranked_hh" if objective.data == "ranked" else "dpo_hh"
    overrides = {"objective": name, "name": f"fifty_{name}", "train.max_steps": STEPS, "train.device": "cpu"}
    result = alignzoo.run(recipe, overrides | own, ["zoo/fifty_steps"])
    before, after = (line for line in read_lines(result.folder / "metrics.jsonl") if line["kind"] == "eval")
    package = registry().origin(objective).package
    return {
        "family": objective.family or package, "package": package, "recipe": recipe, "own": own,
        "objective": result.summary["objective"], "before": before, "after": after,
        "lowered": after["loss"] < before["loss"], "seconds": result.summary["train"]["seconds"],
    }  # fmt: skip


def row(name: str, one: dict) -> str:
    before, after = one["before"], one["after"]
    own = ", ".join(f"{key.split('.')[-1]} {value:g}" for key, value in one["own"].items())
    loss = f"{before['loss']:.4f} → {after['loss']:.4f}{'' if one['lowered'] else ' **not lower**'}"
    reward, likelihood = (
        f"{before[key]:.3f} → {after[key]:.3f}" if key in after else "no likelihood"
        for key in ("preference_accuracy", "likelihood_accuracy")
    )
    reward += f" ± {after['preference_accuracy_se']:.3f}"
    return f"| {name} | {one['family']} | {own} | {loss} | {reward} | {likelihood} | {one['seconds']:.1f} |"


HEAD = [
    "| objective | family | of its own | held-out loss | accuracy by its reward (± SE) | by plain likelihood | s |",
    "|---|---|---|---:|---:|---:|---:|",
]


def main() -> None:
    known = registry().known("objective")
    results, shared = {}, {}
    print("\n".join(HEAD), flush=True)
    for name in sys.argv[1:] or sorted(known):
        own, _ = OWN.get(name, ({}, ""))
        results[name] = train(name, known[name], own)
        print(row(name, results[name]), flush=True)
        if own:
            shared[name] = train(name, known[name], {})
            print(row(f"{name} with the shared settings", shared[name]), flush=True)
    lowered = sum(one["lowered"] for one in results.values())
    print(f"{lowered} of {len(results)} lower their own held-out loss")
    if not sys.argv[1:]:
        write(results, shared)
    sys.exit(lowered < len(results))


def write(results: dict, shared: dict) -> None:
    packages = dict.fromkeys(one["package"] for one in results.values())
    versions = {name: version(name) for name in ("torch", "transformers", *sorted(packages))}
    train = alignzoo.load_recipe("dpo_hh", overlays=["zoo/fifty_steps"]).recipe.train
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    lowered, plain = (sum(one["lowered"] for one in some.values()) for some in (results, results | shared))
    held_out = {one["recipe"]: f"{one['after']['n']} held-out rows of {one['recipe']}" for one in results.values()}
    setting = f"{train.optimizer.name} {train.optimizer.learning_rate:g}, warm-up {train.schedule.warmup_steps}"
    lines = [
        f"# {STEPS} steps with each of {len(results)} objectives", "", "Command: `python benchmarks/fifty_steps.py`",
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}; CPU, float32, OMP_NUM_THREADS {threads}).",
        "The recipes' small Llama after two epochs of SFT on the chosen replies of the embedded sample;",
        f"{STEPS} steps of {train.batch_size} rows, {setting}, then linear to 0; its own defaults unless said;",
        f"{' and '.join(held_out.values())}. s: the seconds of the {STEPS} steps.",
        "", f"**{lowered} of {len(results)} lower their own held-out loss** ({plain} with the shared settings).", "",
        *HEAD, *(row(name, one) for name, one in results.items()), "",
        "With the shared settings, those that have something of their own:", "",
        *HEAD, *(row(name, one) for name, one in shared.items()), "",
        *(f"- `{name}`: {why}." for name, (_, why) in OWN.items()), NOTES,
    ]  # fmt: skip
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "fifty_steps.md").write_text("\n".join(lines))
    both = {"versions": versions, "steps": STEPS, "results": results, "shared_settings": shared}
    (OUTPUT / "fifty_steps.json").write_text(json.dumps(both, indent=1))


if __name__ == "__main__":
    main()
