"""Tasks of EleutherAI's lm-evaluation-harness on a finished run, through its own package."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError, first_line
from alignzoo.evaluation.aggregate import Z
from alignzoo.training.generate import load_model, open_run


def run_tasks(run: Path, tasks: Sequence[str], options: Mapping[str, Any], screen: Screen) -> dict[str, Any]:
    """Return what `lm_eval.simple_evaluate` reports of a run on tasks, without samples.

    Args:
        run: The run folder.
        tasks: Names of tasks or groups.
        options: Further arguments of `simple_evaluate`, such as `num_fewshot`, `limit` or `batch_size`, and
            `include_path`, a folder with task files.
        screen: Shows progress.

    Raises:
        UserError: lm_eval is not installed, knows no such task or option, or the run is not finished or trains a reward
            model.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UserError(
            f"it needs the package lm_eval ({first_line(error)})", where="--lm-eval",
            hint="pip install 'alignzoo[lm-eval]'",
        ) from None  # fmt: skip
    folder, resolved, tokenizer = open_run(run)
    model = load_model(folder, resolved, tokenizer, screen)
    options = dict(options)
    if "include_path" in options:
        from lm_eval.tasks import TaskManager

        options["task_manager"] = TaskManager(include_path=options.pop("include_path"))
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=options.pop("batch_size", 1))
    try:
        found = lm_eval.simple_evaluate(model=harness, tasks=list(tasks), log_samples=False, **options)
    except (KeyError, TypeError, ValueError) as error:  # of unknown tasks and options
        raise UserError(f"lm_eval: {type(error).__name__}: {first_line(error)}", where="--lm-eval") from error
    plain: dict[str, Any] = json.loads(json.dumps(found or {}, default=str), parse_constant=lambda _: None)
    return {key: plain[key] for key in ("results", "groups", "versions", "n-shot", "n-samples") if key in plain}


def task_figures(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each metric of each task with the interval of its standard error: mean ± 1.96 se."""
    figures: dict[str, dict[str, Any]] = {}
    for task, values in report.get("results", {}).items():
        for key, value in values.items():
            metric, _, how = key.partition(",")
            if metric.endswith("_stderr") or not how or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{how}")
            error = float(error) if isinstance(error, int | float) and math.isfinite(error) else None
            half = None if error is None else Z * error
            figures[f"{task} {metric}" + ("" if how == "none" else f" ({how})")] = {
                "mean": float(value), "se": error,
                "low": None if half is None else value - half, "high": None if half is None else value + half,
            }  # fmt: skip
    return figures
