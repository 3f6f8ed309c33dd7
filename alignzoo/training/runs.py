"""The runs in a folder of runs: which there are, where one is, and the removal of one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.core.door import inside, read_yaml
from alignzoo.core.dotted import dotted_items
from alignzoo.core.errors import UserError, first_line, nearest
from alignzoo.core.files import remove
from alignzoo.core.paths import runs_root
from alignzoo.recipe.find import find_recipe
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.records import Line, read_lines
from alignzoo.training.run import clear
from alignzoo.training.run_folder import RunFolder

RECIPE = "recipe.yaml"
NAME = re.compile(r"(?P<name>.+)-[0-9a-f]{8}")
"""Pattern of the name of a run folder: the recipe's name and the beginning of its fingerprint."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a listing has of a run."""

    folder: Path
    name: str
    state: str
    """`finished`, `step N`, `drawing`, or `damaged: ` and why."""
    objective: str
    data: str
    accuracy: float | None
    """By implicit rewards on held-out rows, in the last evaluation."""
    when: float
    """Seconds since the epoch of the last record."""


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs directly below a folder, by name. Links are left out."""
    try:
        return sorted(path for path in root.iterdir() if _is_run(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        raise UserError(
            "the folder of runs can't be read", where=str(root), expected="a folder that you may read"
        ) from None


def _is_run(path: Path) -> bool:
    """Return True for the folder of a run. A folder that this user can't read counts as none."""
    recipe = path / RECIPE
    return os.path.isdir(path) and not path.is_symlink() and os.path.isfile(recipe) and not recipe.is_symlink()


def find_run(given: str | Path) -> Path:
    """Return the folder of a run.

    Args:
        given: The folder, its name in the folder of runs, or a recipe as on the command line.

    Raises:
        UserError: There is no such run, or the recipe was never run.
    """
    folder = folder_named(Path(given))
    if os.path.isfile(folder / RECIPE):
        return folder
    known = [path.name for path in (*run_folders(runs_root()), *run_folders(folder.parent))]
    raise UserError(
        "not a run folder" if os.path.isdir(folder) else "no such run", where=str(given),
        nearest=nearest(folder.name, known), expected="a run folder, its name, or a recipe",
        hint="alignzoo runs lists them",
    )  # fmt: skip


def folder_named(given: Path) -> Path:
    """Return the folder that a run's name or a recipe means; any other path as it is.

    Raises:
        UserError: The recipe has a mistake, or was never run.
    """
    if os.path.isdir(given):
        return given
    named = runs_root() / given
    if os.path.isdir(named):
        return named
    try:
        find_recipe(given)
    except UserError:
        return given
    folder: Path = folder_of(load_recipe(given)).path
    if not os.path.isfile(folder / RECIPE):
        raise UserError("this recipe has no run yet", where=str(given), hint=f"alignzoo run {given}")
    return folder


def load_finished(folder: Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Resolved:
    """Load the recipe of a finished run, which stays where it is.

    Its data and the runs that it needs may have changed, moved or been removed since. Such a run is missing in `needs`.

    Raises:
        UserError: The run is not finished.
    """
    if RunFolder(folder).summary() is None:
        raise UserError("the run is not finished", where=str(folder), hint="finish it with `alignzoo run`")
    return replace(_in_place(_with_policy(load_recipe(folder, overrides, allow_missing=True))), folder=folder)


def _with_policy(resolved: Resolved) -> Resolved:
    """Return a recipe that trains a policy. Raises UserError for one with `draw`."""
    if resolved.recipe.draw is not None:
        raise UserError(
            f"{resolved.recipe.name} makes a data set and no policy", where=str(resolved.path),
            expected="a recipe with an objective", hint="data: {from: RECIPE} reads it",
        )  # fmt: skip
    return resolved


def _in_place(resolved: Resolved) -> Resolved:
    """Return a recipe whose finished runs stay in the folders that hold their recipes."""
    needs = {key: _in_place(need) for key, need in resolved.needs.items()}
    folder = resolved.path.parent if _is_finished(resolved.path) else None
    return replace(resolved, needs=needs, folder=folder)


def _is_finished(recipe: Path) -> bool:
    return recipe.name == RECIPE and RunFolder(recipe.parent).summary() is not None


def load_recipe_or_run(given: str, overrides: Sequence[str] = (), overlays: Sequence[str] = ()) -> Resolved:
    """Load a recipe, or that of a finished run without changes as `load_finished` does."""
    path = find_recipe(given)
    if not (overrides or overlays) and _is_finished(path):
        return load_finished(path.parent)
    return _with_policy(load_recipe(given, overrides, overlays))


def describe_run(folder: Path) -> RunInfo:
    """Describe a run from its files. A damaged one is described as such."""
    state, objective, data, accuracy = "", "", "", None
    try:
        recipe = read_recipe(folder)
        objective, data = _objective(recipe.get("objective")), _data(recipe.get("data"))
        objective = "draw" if "draw" in recipe and not objective else objective
        run = RunFolder(folder)
        summary, lines = run.summary(), read_lines(run.metrics, Line)
        steps = max((line["step"] for line in lines if line["kind"] == "train"), default=0)
        state = "finished" if summary else "drawing" if objective == "draw" else f"step {steps:,}"
        last: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "eval"), {})
        found = (summary or {}).get("eval", last).get("preference_accuracy")
        accuracy = float(found) if isinstance(found, float) or found in (0, 1) else None
    except UserError as error:
        state = f"damaged: {first_line(error)}"
    return RunInfo(folder, folder.name, state, objective, data, accuracy, _last_written(folder))


def read_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe of a run folder as plain values. Raises UserError if it is damaged."""
    node = read_yaml(inside(folder, RECIPE))
    plain = node.plain() if node is not None else None
    if not isinstance(plain, dict):
        raise UserError("no recipe", where=str(folder / RECIPE), expected="a mapping of sections")
    return plain


def _objective(node: Any) -> str:
    if isinstance(node, list):
        return " + ".join(map(_objective, node))
    if not isinstance(node, dict):
        return str(node or "")
    modifiers = node.get("modifiers") or []
    modifiers = modifiers if isinstance(modifiers, list) else [modifiers]
    words = [str(one.get("name")) if isinstance(one, dict) else str(one) for one in modifiers]
    return " with ".join([str(node.get("name", "")), *words])


def _data(node: Any) -> str:
    if not isinstance(node, dict):
        return str(node or "")
    if isinstance(node.get("of"), list):
        return " + ".join(map(_data, node["of"]))
    return ":".join(str(node[key]) for key in ("name", "path", "from") if node.get(key))


def _last_written(folder: Path) -> float:
    times = [0.0]
    for name in (RECIPE, "metrics.jsonl", "summary.json"):
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:  # not there yet, or removed meanwhile
            continue
    return max(times)


def needed_by(folder: Path) -> list[str]:
    """Return the names of the runs beside a run whose recipes name a file or folder of it."""
    whole = Path(os.path.abspath(folder))

    def below(value: object, start: Path) -> bool:
        return isinstance(value, str) and Path(os.path.abspath(start / value)).is_relative_to(whole)

    return [
        other.name for other in run_folders(folder.parent)
        if other != folder and any(below(value, other) or below(value, Path()) for value in _texts(other))
    ]  # fmt: skip


def _texts(folder: Path) -> Iterator[Any]:
    try:
        yield from (value for _, value in dotted_items(read_recipe(folder), _children))
    except UserError:  # a damaged recipe names nothing
        return


def _children(value: Any) -> list[tuple[str, Any]] | None:
    if isinstance(value, list):
        return [(str(n), item) for n, item in enumerate(value)]
    return list(value.items()) if isinstance(value, dict) else None


def check_ours(folder: Path) -> None:
    """Check that a folder is a run of ours, before it is removed.

    Its name ends with a fingerprint and begins with the name in its recipe, and neither it nor its recipe is a link.

    Raises:
        UserError: It is another folder.
    """
    found, why = NAME.fullmatch(folder.name), ""
    if folder.is_symlink() or not _is_run(folder):
        why = "a link, or a folder without a recipe"
    elif not found:
        why = "its name has no fingerprint at the end"
    elif (name := read_recipe(folder).get("name")) != found["name"]:
        why = f"its recipe has the name '{name}'"
    if why:
        raise UserError(f"this is no run folder of ours: {why}", where=str(folder), hint="nothing was removed")


def remove_run(folder: Path) -> None:
    """Remove the folder of a run.

    Raises:
        UserError: It is no run of ours, or a process works on it.
    """
    check_ours(folder)
    run = RunFolder(folder)
    with run.held(clearing=True):
        clear(run)
        remove(folder)
