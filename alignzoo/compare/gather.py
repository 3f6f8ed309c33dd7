"""Collect the records of comparisons and of single measured runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.compare.evaluations import shared_evaluation
from alignzoo.compare.plan import compared_data, flat, start_of
from alignzoo.compare.results import RunRecord, read_results
from alignzoo.core.artifacts import read_verified
from alignzoo.core.errors import UserError, nearest
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.runs import load_finished

ALIKE = ("versions", "machine", "samples")
"""Keys of the description that are kept if all comparisons agree."""
PACKAGES = ("alignzoo", "python", "torch", "transformers", "numpy")


@dataclass(frozen=True)
class _Source:
    """A comparison's folder, or all run folders together."""

    name: str
    about: Mapping[str, Any]
    records: list[RunRecord]


def gather(folders: Sequence[Path], evaluation: Sequence[str] = ()) -> tuple[dict[str, Any], list[RunRecord]]:
    """Return the common description of the folders and their records, each run once.

    A label with different meanings in two comparisons gets the folder's name appended. Run folders may have several
    evaluations: see `shared_evaluation`.

    Args:
        folders: Folders of comparisons or of runs.
        evaluation: Names of the evaluations of run folders.

    Raises:
        UserError: A folder is neither, or figures are missing or damaged.
    """
    known = {folder: _kind(folder) for folder in folders}
    sources = [_comparison(folder) for folder, kind in known.items() if kind == "comparison"]
    runs = [folder for folder, kind in known.items() if kind == "run"]
    if runs:
        sources.append(_runs(runs, evaluation))
    records = _merged(sources)
    for record in records:
        _check_measured(record)
    return _about(sources, folders), records


def _kind(folder: Path) -> str:
    """`comparison` or `run`."""
    if (folder / "results.json").is_file():
        return "comparison"
    if (folder / "recipe.yaml").is_file():
        return "run"
    siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    raise UserError(
        "neither a comparison nor a run folder" if folder.is_dir() else "no such folder", where=str(folder),
        nearest=nearest(folder.name, [name for name in siblings if name != folder.name]),
        expected="" if folder.is_dir() else "a folder written by `alignzoo compare` or `alignzoo run`",
    )  # fmt: skip


def _comparison(folder: Path) -> _Source:
    about, records = read_results(folder)
    return _Source(folder.resolve().name, about, records)


def _runs(folders: Sequence[Path], evaluation: Sequence[str]) -> _Source:
    """Return run folders as a source: one row a name, with its recipes' differences as grid."""
    found = [(folder, *_finished(folder)) for folder in folders]
    measured = shared_evaluation(folders, evaluation)
    plain = [flat(resolved) for _, resolved, _ in found]
    records = []
    for (folder, resolved, summary), own in zip(found, plain, strict=True):
        name = resolved.recipe.name
        others = [flat_ for flat_, (_, other, _) in zip(plain, found, strict=True) if other.recipe.name == name]
        point = {key: value for key, value in own.items() if _varies(key, value, others)}
        records.append(RunRecord(
            name, resolved.recipe.objective.name, point, resolved.recipe.seed, summary["fingerprint"],
            str(folder.absolute()), compared_data(resolved), start_of(resolved), "done",
            measured=str(measured[folder].path.absolute()),
            verdicts=[str(path.absolute()) for path in measured[folder].verdict_paths], run=run_figures(summary),
        ))  # fmt: skip
    begun, named = {record.start for record in records}, [record.label for record in records]
    records.sort(key=lambda record: (record.fingerprint not in begun, named.index(record.label), *_order(record)))
    about = {"name": "runs", "samples": measured[folders[0]].about.get("sampling")}
    return _Source("runs", about | _versions([summary for _, _, summary in found]), records)


def run_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return a record's figures of training from a summary.json.

    Evaluations that choose the checkpoint are a cost of training, as steps are.
    """
    train, chosen = summary["train"], summary.get("selection", {})
    selecting = train.get("evaluation_seconds", 0.0) if chosen else 0.0
    return {
        "steps": train["steps"], "rows": train["pairs"] // max(1, train["steps"]),
        "seconds": train["seconds"] + selecting, "selecting_seconds": selecting,
        "selecting_evaluations": chosen.get("evaluations", 0),
        "pairs_per_second": train["pairs_per_second"], "peak_memory_bytes": summary["peak_memory_bytes"],
    }  # fmt: skip


def _versions(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the versions of the packages, if all runs have the same."""
    found = [{k: summary["versions"][k] for k in PACKAGES if k in summary["versions"]} for summary in summaries]
    return {"versions": found[0]} if all(one == found[0] for one in found) else {}


def _order(record: RunRecord) -> tuple[list[tuple[bool, float, str]], int]:
    """Return a sort key by grid point, with numbers as numbers, and seed."""
    given = [(value if isinstance(value, int | float) else None, str(value)) for value in record.point.values()]
    return [(number is None, number or 0, text) for number, text in given], record.seed


def _varies(key: str, value: Any, others: Sequence[Mapping[str, Any]]) -> bool:
    outside = key in ("seed", "name") or key.startswith(("model.from", "reporters"))
    return not outside and any(other.get(key) != value for other in others)


def _finished(folder: Path) -> tuple[Resolved, dict[str, Any]]:
    summary = RunFolder(folder).summary()
    if summary is None:
        raise UserError("this run has not finished", where=str(folder))
    return load_finished(folder), summary


def _merged(sources: Sequence[_Source]) -> list[RunRecord]:
    """Return all records under unambiguous labels; a run that several folders name comes once."""
    meanings: dict[str, dict[tuple[str, int], str]] = {}
    places: dict[str, set[tuple[str, str | None]]] = {}
    clash: set[str] = set()
    for source in sources:
        for record in source.records:
            run = (repr(sorted(record.point.items())), record.seed)
            if meanings.setdefault(record.label, {}).setdefault(run, record.fingerprint) != record.fingerprint:
                clash.add(record.label)
            places.setdefault(record.label, set()).add((record.data, record.start))
    clash |= {label for label, found in places.items() if len(found) > 1 and len(sources) > 1}
    out: dict[tuple[str, str], RunRecord] = {}
    for source in sources:
        for record in source.records:
            label = f"{record.label} ({source.name})" if record.label in clash and len(sources) > 1 else record.label
            before = out.get((label, record.fingerprint))
            if before is None or before.state != "done":
                out[label, record.fingerprint] = replace(record, label=label)
    return list(out.values())


def _check_measured(record: RunRecord) -> None:
    more = [path for one in record.drawn for path in (one.replies, *one.verdicts, *filter(None, [one.scores]))]
    for path in (record.measured, *record.verdicts, *more) if record.state == "done" else ():
        if read_verified(Path(path)) is None:
            raise UserError(
                f"the figures of {record.label}, seed {record.seed}, are gone or damaged", where=path,
                hint="run the `alignzoo compare` command that made them again",
            )  # fmt: skip


def _about(sources: Sequence[_Source], folders: Sequence[Path]) -> dict[str, Any]:
    """Return a single comparison's description, or the parts that several have in common."""
    if len(sources) == 1 and "command" in sources[0].about:
        return dict(sources[0].about)
    about: dict[str, Any] = {
        "name": " and ".join(dict.fromkeys(str(source.about.get("name", source.name)) for source in sources)),
        "command": shlex.join(["alignzoo", "table", *map(str, folders)]),
    }
    for key in ALIKE:
        values = [source.about[key] for source in sources if source.about.get(key)]
        if values and all(value == values[0] for value in values):
            about[key] = values[0]
    labels = {record.label for record in _merged(sources)}
    for key in ("baseline", "select"):
        values = [source.about[key] for source in sources if source.about.get(key)]
        if values and (key == "select" or values[0] in labels):
            about[key] = values[0]
    return about
