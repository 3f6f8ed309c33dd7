"""summary.json: the figures of a finished run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from transformers import PreTrainedModel

import alignzoo
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.memory import peak_memory
from alignzoo.models.fingerprint import num_trainable_parameters, remote_code_digests
from alignzoo.recipe.resolved import Resolved
from alignzoo.reference.scores import ReferenceScores
from alignzoo.scoring.layout import Layout
from alignzoo.training.headline import accuracy_of, with_start
from alignzoo.training.records import EvaluationTime, Line, Timing, read_lines
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.step import ZERO_WEIGHT

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "pydantic", "pluggy")


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The state of a run after its last step."""

    model: PreTrainedModel
    start_weights: str
    trained_weights: str
    layout: Layout
    references: Sequence[ReferenceScores | None]
    last_evaluation: dict[str, Any]
    judges: dict[str, Any]
    """Each judge's figures of the sampled replies, under its name."""
    steps: int
    selection: dict[str, Any]
    """What the exported checkpoint was chosen by; {} for the last one."""
    ranks: Ranks


def summarize(resolved: Resolved, folder: RunFolder, data: dict[str, Any], trained: FinishedRun) -> dict[str, Any]:
    """Return the summary, from the state of a finished run and the records in its folder."""
    recipe, lines, timings = resolved.recipe, read_lines(folder.metrics, Line), read_lines(folder.timings, Timing)
    evaluations = [line for line in lines if line["kind"] == "eval"][:1]  # none without rows to evaluate
    seconds = sum(line["seconds"] for line in timings)
    start = f"the run of {resolved.start.recipe.name}" if resolved.start else str(recipe.model)
    node = recipe.objective.to_recipe()
    return {
        "name": recipe.name,
        "fingerprint": resolved.fingerprint,
        "finished": True,
        "objective": node if isinstance(node, dict) else {"name": recipe.objective.name, "terms": node},
        "model": {
            "start": start,
            "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
            **({"trained_parameters": num_trainable_parameters(trained.model)} if recipe.model.lora else {}),
            "weights": trained.start_weights,
            "trained_weights": trained.trained_weights,
        }
        | ({"code": code} if (code := remote_code_digests(trained.model)) else {}),
        "data": data_counts(data),
        "eval": with_start([*evaluations, trained.last_evaluation]),
        "accuracy_of": accuracy_of(recipe.objective, data.get("lengths", {})),
        **({"selection": trained.selection} if trained.selection else {}),
        "judges": trained.judges,
        "train": {
            "steps": trained.steps,
            "pairs": trained.steps * recipe.train.batch_size,
            "seconds": seconds,
            "evaluation_seconds": sum(line["seconds"] for line in read_lines(folder.evaluation_times, EvaluationTime)),
            "pairs_per_second": sum(line["pairs"] for line in timings) / seconds,
            "tokens_per_second": sum(line["tokens"] for line in timings) / seconds,
            **({"zero_weight_steps": idle} if (idle := sum(ZERO_WEIGHT in line for line in lines)) else {}),
            "final_loss": next(
                (line["loss"] for line in reversed(lines) if line["kind"] == "train" and "loss" in line), None
            ),
        },
        "reference": {
            "kind": recipe.objective.reference,
            **({"named": sorted(recipe.references)} if recipe.references else {}),
            "rows_scored": sum(part.rows_scored for part in trained.references if part),
            "rows_cached": sum(part.rows_cached for part in trained.references if part),
        },
        "exactness": exactness(lines, timings),
        "processes": trained.ranks.count,
        "layout": {"used": trained.layout.used, "reason": trained.layout.reason},
        "peak_memory_bytes": peak_memory(trained.ranks.device),
        "versions": versions(),
        "plugins": code_of(resolved),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run depends on."""
    own = {"alignzoo": alignzoo.__version__, "python": sys.version.split()[0]}
    return own | {package: version(package) for package in PACKAGES}


def data_counts(data: dict[str, Any]) -> dict[str, Any]:
    """Return data.json without lists of rows and lengths.

    Those of the evaluation sets are left out too.
    """
    counts = {key: value for key, value in data.items() if key not in ("skipped_rows", "lengths")}
    if "evaluation" in counts:
        counts["evaluation"] = {name: data_counts(own) for name, own in counts["evaluation"].items()}
    return counts


def exactness(lines: Sequence[dict[str, Any]], timings: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the counts and the worst difference, in nats, of a run's spot checks.

    The worst is the largest relative to its limit. Without a check the reason is given.
    """
    found = [line for line in lines if line["kind"] == "exactness"]
    checked = [line for line in found if "difference" in line]
    why = {key: line[key] for line in found for key in ("unavailable",) if key in line}
    if not checked:
        return {"checks": 0} | why
    worst = max(checked, key=lambda line: line["difference"] / line["limit"])
    figures = {key: worst[key] for key in ("difference", "limit")}
    over = sum(not line["difference"] <= line["limit"] for line in checked)
    seconds = sum(line.get("exactness_seconds", 0.0) for line in timings)
    tokens = sum(line["tokens"] for line in checked)
    return {"checks": len(checked), "tokens": tokens, "over": over, "seconds": seconds} | figures | why


def code_of(resolved: Resolved) -> list[dict[str, Any]]:
    """Packages of the plugins used: name, version, and a digest of the code of each component."""
    packages: dict[str, dict[str, Any]] = {}
    for part in (*resolved.components, *resolved.recipe.reporters):
        origin = resolved.registry.origin(type(part))
        about = {"package": origin.package, "version": origin.version, "code": {}}
        packages.setdefault(origin.package, about)["code"][part.name] = origin.code
    return [packages[name] for name in sorted(packages)]
