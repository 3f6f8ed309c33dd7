"""Fit a critic on draws of the frozen start, and report how much of their returns' variance it explains.

Run as: python benchmarks/ppo_critic.py [--seeds 0 1 2] [--steps 160] [--set KEY=VALUE]... [--write]

The run is recipes/online/ppo_hh.yaml with a policy that does not move: its learning rate is 1e-30, below the rounding of every
weight. With gae_lambda = 1 and gamma = 1 the target of each token is the draw's reward itself. Each prompt is drawn for once, and a
rollout's values are computed before any step on it, so that every figure is of held-out draws of held-out prompts. The run and its
SFT run stand in ALIGNZOO_RUNS, and the same command continues them. Exits with 1 if a seed explains half or less of the variance in
the last quarter of its rollouts. --write writes benchmarks/results/ppo_critic.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors.numpy import load_file

import alignzoo

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "ppo_critic.md"
RECIPE = ROOT / "recipes" / "online" / "ppo_hh.yaml"
ONLINE = "import sys\nsys.path.insert(0, {path!r})\nfrom alignzoo_online import register_objectives\n"
FROZEN = (
    "train.optimizer={name: adamw, learning_rate: 1e-30}", "objective.gae_lambda=1", "objective.gamma=1",
    "rollout.kl_rows=0", "rollout.held_out_prompts=0", "eval.every=1000000",
)  # fmt: skip
"""A policy that stays the start, and targets that are rewards."""
REQUIRED, GAE_LAMBDA = 0.5, 0.95


def explained(value: NDArray[Any], target: NDArray[Any]) -> float:
    """Return 1 - Var(target - value) / Var(target)."""
    return float(1 - (target - value).var() / target.var())


def draws_of(run: Path, number: int) -> dict[str, NDArray[Any]]:
    """Return the draws' old values and targets, (N,), where each draw starts, and how far each token is in its draw."""
    folder = run / "rollouts" / f"{number:06d}"
    scored = load_file(folder / "scored" / "scores.safetensors")
    cuts = load_file(folder / "drawn" / "draws.safetensors")["cuts"]
    lengths = np.diff(cuts)
    position = np.concatenate([np.arange(length) for length in lengths])
    return {
        "value": scored["old_value"].astype(float), "target": scored["returns"],
        "first": position == 0, "last": position == np.repeat(lengths, lengths) - 1,
    }  # fmt: skip


def gae_returns(value: NDArray[Any], reward: NDArray[Any], last: NDArray[Any], lam: float) -> NDArray[np.float64]:
    """Return A + V of GAE with gamma = 1 and a reward at the last token of each draw: the targets of a PPO run."""
    found, advantage, after = np.zeros(len(value)), 0.0, 0.0
    for n in reversed(range(len(value))):
        if last[n]:
            advantage = reward[n] - value[n]
        else:
            advantage = after - value[n] + lam * advantage
        found[n], after = advantage + value[n], value[n]
    return found


def between_prompts(first: NDArray[np.float64], each: int) -> float:
    """Return the share of the variance of rewards that lies between prompts: what the prompt alone can explain."""
    groups = first.reshape(-1, each)
    within = groups.var(1, ddof=1).mean()
    return float(1 - within / (within + max(0.0, groups.mean(1).var(ddof=1) - within / each)))


def fit(
    seed: int, steps: int, plugins: Sequence[str], further: Sequence[str] = (), overlays: Sequence[str] = ()
) -> Path:
    """Run the recipe with a frozen policy, and return the run folder."""
    words = [*FROZEN, f"seed={seed}", f"train.max_steps={steps}", f"plugins={json.dumps(list(plugins))}", *further]
    return alignzoo.run(RECIPE, words, overlays, quiet=False).folder


def measure(run: Path) -> dict[str, Any]:
    """Return the figures of a finished run.

    Raises:
        SystemExit: The policy has moved, or a prompt was drawn for twice.
    """
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    replies = sorted(run.glob("rollouts/*/judged/replies.jsonl"))
    prompts = [{json.loads(line)["row"] for line in path.open()} for path in replies]
    count = len(replies)
    if len(set().union(*prompts)) < sum(map(len, prompts)):
        raise SystemExit(f"{run}: a prompt was drawn for twice; fewer --steps, or more rows of data")
    start = load_file((run / recipe["model"]["from"]).parent / "policy" / "model.safetensors")
    trained = load_file(run / "policy" / "model.safetensors")
    moved = max(float(np.abs(trained[name] - tensor).max()) for name, tensor in start.items())
    if moved > 1e-20:
        raise SystemExit(f"{run}: the policy has moved by {moved:g}")
    by_rollout = [draws_of(run, number) for number in range(count)]
    late = {
        name: np.concatenate([one[name] for one in by_rollout[count - max(1, count // 4) :]]) for name in by_rollout[0]
    }
    rewards = late["target"][late["first"]]
    return {
        "seed": recipe["seed"], "rollouts": count, "prompts": sum(map(len, prompts)), "draws": len(rewards),
        "steps": recipe["train"]["max_steps"], "critic": recipe["critic"],
        "before": explained(by_rollout[0]["value"], by_rollout[0]["target"]),
        "after": explained(late["value"], late["target"]),
        "by_rollout": [explained(one["value"], one["target"]) for one in by_rollout],
        **{f"after_{at}": explained(late["value"][late[at]], late["target"][late[at]]) for at in ("first", "last")},
        "after_gae": explained(late["value"], gae_returns(late["value"], late["target"], late["last"], GAE_LAMBDA)),
        "between": between_prompts(rewards, recipe["rollout"]["completions"]),
    }  # fmt: skip


def page(found: Sequence[dict[str, Any]], command: str) -> str:
    """Return ppo_critic.md."""
    one = found[0]
    quarters = [
        [f"{row['by_rollout'][min(n * row['rollouts'] // 8, row['rollouts'] - 1)]:.3f}" for n in range(8)]
        for row in found
    ]
    lines = [
        "# A critic fitted on draws of the frozen start", "",
        f"Command: `{command}` (torch {version('torch')}, transformers {version('transformers')}, {platform.machine()}).", "",
        f"[ppo_hh](../../recipes/online/ppo_hh.yaml) with a policy that does not move: {one['steps']} steps of the critic on",
        f"{one['rollouts']} rollouts, {one['prompts']:,} prompts, each drawn for once. The target of each token is the draw's reward.",
        f"Values are from before any step on their rollout. Critic: learning rate {one['critic']['learning_rate']:g}.", "",
        "Explained variance, 1 - Var(G - V) / Var(G):", "",
        "| seed | first rollout | last quarter, all tokens | at the first token | at the last token | between prompts "
        f"| of GAE's returns, lambda {GAE_LAMBDA:g} |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    lines += [
        f"| {row['seed']} | {row['before']:.3f} | **{row['after']:.3f}** | {row['after_first']:.3f} | {row['after_last']:.3f} "
        f"| {row['between']:.3f} | {row['after_gae']:.3f} |"
        for row in found
    ]  # fmt: skip
    lines += [
        "", "*Between prompts* is the share of the rewards' variance that a prompt's mean has, which bounds what a value can",
        "explain at the first token, before anything is drawn. *Of GAE's returns* has the same values beside the targets that",
        "PPO fits its critic to, and that a run records: these contain the critic's own later values.", "",
        "Explained variance of every eighth part of a run:", "",
        "| seed | " + " | ".join(f"{n}/8" for n in range(8)) + " |", "|---:|" + "---:|" * 8,
    ]  # fmt: skip
    lines += [f"| {row['seed']} | {' | '.join(some)} |" for row, some in zip(found, quarters, strict=True)]
    least = min(row["after"] for row in found)
    word = "passes" if least > REQUIRED else "fails"
    lines += ["", f"Least over {len(found)} seeds {least:.3f}, mean {statistics.mean(row['after'] for row in found):.3f}: "
              f"above {REQUIRED} is required, so that it {word}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    """Fit, print the page, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="further overrides of the recipe"
    )
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/ppo_critic.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder) / "online.py"
        plugin.write_text(ONLINE.format(path=str(ROOT / "plugins" / "alignzoo-online")))
        found = [measure(fit(seed, asked.steps, [str(plugin)], asked.set)) for seed in asked.seeds]
    text = page(found, " ".join(["python benchmarks/ppo_critic.py", *sys.argv[1:]]))
    print(text)
    if asked.write:
        RESULTS.write_text(text)
    return 0 if all(row["after"] > REQUIRED for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
