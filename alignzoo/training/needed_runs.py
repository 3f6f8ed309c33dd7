"""The run folder of a recipe, and what a run takes from the runs that it needs."""

from __future__ import annotations

from pathlib import Path

from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.needs import judges_of, runs_named
from alignzoo.recipe.resolved import REFERENCE, START, Resolved
from alignzoo.training.critic import critic_adapter_run, critic_run
from alignzoo.training.export import full_weights_policy
from alignzoo.training.run_folder import RunFolder


def folder_of(resolved: Resolved) -> RunFolder:
    """Return the run folder of a recipe, named by the recipe and its fingerprint."""
    return RunFolder(resolved.run_path)


def start_weights(resolved: Resolved, screen: Screen) -> Path | None:
    """Return the policy folder, with full weights, of the run that a recipe starts from.

    It is None if there is no such run.

    Raises:
        UserError: The run was removed.
    """
    run = _needed(resolved, START)
    return full_weights_policy(folder_of(run), screen) if run else None


def reference_weights(resolved: Resolved, screen: Screen) -> dict[str, Path]:
    """Return the policy folder, with full weights, of every named reference that is a run."""
    runs = {name: _needed(resolved, REFERENCE.format(name)) for name in resolved.recipe.references}
    return {name: full_weights_policy(folder_of(run), screen) for name, run in runs.items() if run}


def _needed(resolved: Resolved, key: str) -> Resolved | None:
    """Return the run at a key. Raises UserError if it was removed, or is not finished."""
    named, need = runs_named(resolved.recipe).get(key), resolved.needs.get(key)
    if named and need is None:
        raise UserError(
            f"{key}: the run was removed, and its weights are needed", where=named,
            hint="run its recipe again; it comes back under the same name",
        )  # fmt: skip
    if need is not None and folder_of(need).summary() is None:
        raise UserError(f"{key}: the run of {need.recipe.name} is not finished", where=named or "",
                        hint=f"alignzoo run {need.path} makes it")  # fmt: skip
    return need


def critic_weights(resolved: Resolved, screen: Screen) -> Path | None:
    """Return the folder of weights that the critic starts from, if they are a run's.

    It is that of an adapter where the policy has one, else that of full weights.
    """
    if resolved.recipe.model.lora is not None:
        run = critic_adapter_run(resolved)
        return folder_of(run).policy if run else None
    run = critic_run(resolved)
    return full_weights_policy(folder_of(run), screen) if run else None


def undrawn_data(resolved: Resolved) -> list[str]:
    """Return the names of recipes that draw this one's rows and have not finished."""
    found = [
        need.recipe.name for key, need in resolved.needs.items()
        if need.recipe.draw is not None and key in runs_named(resolved.recipe) and folder_of(need).summary() is None
    ]  # fmt: skip
    return list(dict.fromkeys(found))


def open_judges(resolved: Resolved, screen: Screen, below: str = "") -> None:
    """Give the judges of a recipe, or of a section of it, the finished runs that they need."""
    for at, judge in judges_of(resolved.recipe).items():
        for key in judge.needs_runs if at.startswith(below) else ():
            if (run := _needed(resolved, f"{at}.{key}")) is not None:
                judge.open_run(full_weights_policy(folder_of(run), screen))
