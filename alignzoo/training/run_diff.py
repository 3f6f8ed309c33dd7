"""The difference of two runs: recipe, data, figures, and the first other record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.core.door import MissingFile, read_json
from alignzoo.core.dotted import dotted_items
from alignzoo.training.records import Line, read_lines
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.runs import read_recipe

ABSENT = "-"
"""In place of a value that only the other run has."""
NOT_DATA = ("skipped_rows", "lengths")
"""Keys of data.json that are too long for a table."""
Row = tuple[str, Any, Any]


def diff_runs(a: Path, b: Path) -> dict[str, Any]:
    """Compare the files of two run folders.

    Returns:
        `recipe`, `data` and `curves`: lists of (key, value of A, value of B) that differ; curves are the figures of the
        last step and of every evaluation that both have. `first`: the first record of metrics.jsonl that differs, as
        its step, its kind and such a list, or None. `steps`: the last step of each.

    Raises:
        UserError: A file is damaged.
    """
    lines = [_by_step(read_lines(RunFolder(folder).metrics, Line)) for folder in (a, b)]
    return {
        "recipe": _differences(*(_flat(read_recipe(folder)) for folder in (a, b))),
        "data": _differences(*(_flat(_data(folder)) for folder in (a, b))),
        "curves": _curves(*lines),
        "first": _first(*lines),
        "steps": [max((step for step, _ in some), default=0) for some in lines],
    }


Records = dict[tuple[int, str], dict[str, Any]]


def _by_step(lines: list[dict[str, Any]]) -> Records:
    return {(line["step"], line["kind"]): {k: v for k, v in line.items() if k not in ("kind", "step")}
            for line in lines}  # fmt: skip


def _data(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(folder / "data.json", dict[str, Any])
    except MissingFile:  # of a run that has not read its data yet
        return {}
    return {key: value for key, value in found.items() if key not in NOT_DATA}


def _flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    return dict(dotted_items(plain))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Row]:
    keys = dict.fromkeys((*a, *b))
    pairs = [(key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in keys]
    return [(key, x, y) for key, x, y in pairs if json.dumps(x) != json.dumps(y)]


def _curves(a: Records, b: Records) -> list[Row]:
    """Return the figures of evaluations and of the last common step in which both runs differ."""
    both = sorted(key for key in a if key in b)
    last = max((step for step, kind in both if kind == "train"), default=None)
    shown = [key for key in both if key[1] == "eval" or key == (last, "train")]
    return [
        (f"{kind} {step}: {name}", x, y)
        for step, kind in shown for name, x, y in _differences(a[step, kind], b[step, kind])
    ]  # fmt: skip


def _first(a: Records, b: Records) -> dict[str, Any] | None:
    """Return the first record that differs, up to the last step of the shorter run."""
    ends = min(max((step for step, _ in some), default=0) for some in (a, b))
    for step, kind in sorted({*a, *b}):
        found = _differences(a.get((step, kind), {}), b.get((step, kind), {}))
        if found and step <= ends:
            return {"step": step, "kind": kind, "figures": found}
    return None
