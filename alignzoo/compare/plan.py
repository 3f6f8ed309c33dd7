"""What a comparison will run: every recipe at every grid point and seed, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import Any

from alignzoo.compare.spec import Comparison
from alignzoo.core.dotted import dotted_items
from alignzoo.core.errors import UserError, nearest
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.resolved import Resolved


@dataclass(frozen=True)
class Job:
    """One run: a recipe with the values of a grid point and a seed."""

    label: str
    point: dict[str, Any]
    resolved: Resolved

    @property
    def seed(self) -> int:
        """The run's."""
        return self.resolved.recipe.seed

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the others of its row: `beta=0.1`, and the seed."""
        point = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.point.items())
        return point, str(self.seed)


@dataclass(frozen=True)
class Plan:
    """The jobs in the order in which they are run: first what others start from."""

    comparison: Comparison
    jobs: tuple[Job, ...]
    starts: tuple[Resolved, ...]
    """The runs that jobs start from and that are no jobs themselves."""

    @property
    def fingerprint(self) -> str:
        """32 hex digits of every run and of how they are measured and shown."""
        about = self.comparison.model_dump_json(exclude={"recipes", "overlays", "overrides"})
        text = "\n".join([about, *(f"{job.label} {job.resolved.fingerprint}" for job in self.jobs)])
        return blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def labels(self) -> list[str]:
        """The rows of the table."""
        return list(dict.fromkeys(job.label for job in self.jobs))

    def reference_passes(self) -> int:
        """How many different references score different rows: what starts alike, on the same data, shares one."""
        runs = {resolved.fingerprint: resolved for resolved in (*(job.resolved for job in self.jobs), *self.starts)}
        found = set()
        for resolved in runs.values():
            recipe = resolved.recipe
            if recipe.objective.reference in ("sequence", "token"):
                made = None if recipe.model.origin else recipe.seed  # weights that are drawn
                first = start_of(resolved) or f"{recipe.model.fingerprint()} {made}"
                found.add((first, resolved.data_fingerprint, recipe.tokens.model_dump_json()))
        return len(found)

    def sources(self) -> dict[str, list[str]]:
        """What rows are trained on and start from: a word for each kind of difference -> the labels that share it."""
        found: dict[str, list[str]] = {}
        begun = {start for job in self.jobs if (start := start_of(job.resolved))}
        for job in self.jobs:
            start = start_of(job.resolved)
            own = job.resolved.fingerprint
            first = own if own in begun else start or f"model {job.resolved.recipe.model.fingerprint()}"
            labels = found.setdefault(f"{job.resolved.data_fingerprint} {first}", [])
            if job.label not in labels:
                labels.append(job.label)
        return found


def start_of(resolved: Resolved) -> str | None:
    """Fingerprint of the run that it starts from."""
    return resolved.start.fingerprint if resolved.start else None


def make_plan(comparison: Comparison) -> Plan:
    """Read the recipes, and lay out the runs.

    Raises UserError for what is wrong with a recipe, for a grid over a key that no recipe has, and for recipes on
    different data or from different starts, unless that is allowed.
    """
    rows = [(_label(path, varied), path, varied) for path in comparison.recipes for varied in points(comparison.rows)]
    twice = [label for label, _, _ in rows if [other for other, _, _ in rows].count(label) > 1]
    if twice:
        raise UserError(f"two recipes are called {twice[0]}", where="recipes", expected="a name of its own for each")
    plain = {label: _load(comparison, path, varied) for label, path, varied in rows}
    _keys_exist(comparison, plain)
    begun = {ancestor.path: ancestor for resolved in plain.values() for ancestor in _ancestors(resolved)}
    jobs: list[Job] = []
    for label, path, varied in rows:
        resolved = plain[label]
        if resolved.path in begun:  # what the others start from is one run, whatever they are tried with
            jobs.insert(0, Job(label, {}, begun[resolved.path]))
            continue
        grid = {key: values for key, values in comparison.grid.items() if key in flat(resolved)}
        for point in points(grid):
            for n in range(comparison.seeds):
                seed = {"seed": resolved.recipe.seed + n}
                jobs.append(Job(label, point, _load(comparison, path, varied | point | seed)))
    own = {job.resolved.fingerprint for job in jobs}
    starts = {a.fingerprint: a for job in jobs for a in reversed(list(_ancestors(job.resolved)))}
    plan = Plan(comparison, tuple(jobs), tuple(start for key, start in starts.items() if key not in own))
    _comparable(plan)
    return plan


def points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values; one empty point for an empty grid."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def flat(resolved: Resolved) -> dict[str, Any]:
    """Dotted key -> value of everything in a recipe."""
    return dict(dotted_items(resolved.plain))


def _label(path: str, varied: Mapping[str, Any]) -> str:
    values = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in varied.items())
    return f"{Path(path).stem} ({values})" if values else Path(path).stem


def _load(comparison: Comparison, path: str, values: Mapping[str, Any]) -> Resolved:
    words = [*comparison.overrides, *(f"{key}={_scalar(value)}" for key, value in values.items())]
    return load_recipe(path, words, comparison.overlays)


def _scalar(value: Any) -> str:
    import json

    return json.dumps(value)  # which YAML reads as it is


def _ancestors(resolved: Resolved) -> Iterator[Resolved]:
    """The runs that it needs, each before what that one needs itself."""
    for need in resolved.needs.values():
        yield need
        yield from _ancestors(need)


def _keys_exist(comparison: Comparison, recipes: Mapping[str, Resolved]) -> None:
    known = sorted({key for resolved in recipes.values() for key in flat(resolved)})
    for where, keys in (("grid", comparison.grid), ("rows", comparison.rows)):
        for key in keys:
            if key not in known:
                close = nearest(key, known)
                raise UserError(
                    f"no recipe has the key '{key}'", where=where, nearest=close,
                    expected="" if close else "a key that `alignzoo show RECIPE` prints, such as objective.beta",
                )  # fmt: skip


def _comparable(plan: Plan) -> None:
    found = plan.sources()
    if len(found) > 1 and not plan.comparison.allow_different_data:
        groups = "; ".join(", ".join(labels) for labels in found.values())
        raise UserError(
            f"these differ in their data or in what they start from: {groups}", where="recipes",
            expected="the same for all rows of a table",
            hint="--allow-different-data puts them in one table all the same, and its caption says so",
        )  # fmt: skip
