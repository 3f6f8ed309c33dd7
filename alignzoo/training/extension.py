"""Extend a shorter run, or go on from one of its checkpoints.

Runs of one recipe that differ in `train.epochs` and `train.max_steps` alone take the same steps as far as both go, if
the learning rate does not depend on the last one. So the checkpoint of one starts the other, and the result is that of
the longer run from its first step, byte for byte.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from alignzoo.core.artifacts import atomic_folder, write_manifest
from alignzoo.core.console import Screen
from alignzoo.core.door import BadFile, MissingFile, inside, read_checked
from alignzoo.core.errors import UserError
from alignzoo.core.files import remove, write_text
from alignzoo.core.paths import ABOUT, FIRST_DAY
from alignzoo.recipe.resolved import Resolved
from alignzoo.training import checkpoint
from alignzoo.training.evaluations import is_due
from alignzoo.training.records import HELD_OUT, REPLIES, CheckpointManifest, Line, SampledReply, read_lines
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.selection import Selection

NO_STATE = "its optimizer state is gone: a finished run has it with train.keep_optimizer=true"


def of_other_length(resolved: Resolved, folder: RunFolder) -> list[Path]:
    """Return the checkpoints of runs that differ in their length alone, the most steps first."""
    found: list[Path] = []
    for other in folder.path.parent.glob(f"{glob.escape(resolved.recipe.name)}-{'[0-9a-f]' * 8}"):
        if other.name != folder.path.name and not other.is_symlink():
            found += [path for path in checkpoint.by_step(other / "checkpoints") if _lineage(path) == resolved.lineage]
    return sorted(found, key=lambda path: (-checkpoint.step_of(path), path))


def obstacle(resolved: Resolved, checkpoints: Iterable[Path]) -> str:
    """Return why none of these checkpoints can be continued by a run of another length, or ""."""
    recipe = resolved.recipe
    if recipe.rollout is not None:
        return "a run with rollout is not extended"
    schedule = recipe.train.schedule
    ratio = f", warmup_ratio: {schedule.warmup_ratio:g}" if schedule.warmup_ratio else ""
    if schedule.name != "constant" or ratio:
        return (
            f"its learning rate depends on the last step (train.schedule: {schedule.name}{ratio}); only a constant one "
            "without warmup_ratio does not"
        )
    return "" if any(map(checkpoint.has_optimizer, checkpoints)) else NO_STATE


def check_resumable(resolved: Resolved, folder: RunFolder) -> None:
    """Raise UserError, for `--resume`, if there is neither such a run nor one that it extends."""
    if folder.path.exists():
        return
    others = of_other_length(resolved, folder)
    why = obstacle(resolved, others)
    if not others or why:
        extended = f"; {run_of(others[0]).path.name}, of another length, can't be extended: {why}" if others else ""
        raise UserError(f"there is no run to resume{extended}", where=str(folder.path), hint="run without --resume")


def inherit_day(resolved: Resolved, folder: RunFolder) -> None:
    """Give a new run the first day of the run that it extends.

    Chat templates may write it into prompts.
    """
    others = [] if not folder.writes or (folder.path / FIRST_DAY).exists() else of_other_length(resolved, folder)
    others = [path for path in others if checkpoint.has_optimizer(path)]
    if others and not obstacle(resolved, others):
        _take_day(others[0], folder)


def _take_day(path: Path, folder: RunFolder) -> None:
    write_text(folder.path / FIRST_DAY, f"{run_of(path).first_day().isoformat()}\n")


def extend(resolved: Resolved, folder: RunFolder, steps: int, screen: Screen) -> None:
    """Copy the last checkpoint of another length that this run of `steps` can use.

    Nothing is copied if this run has a checkpoint itself.
    """
    others = [] if checkpoint.by_step(folder.checkpoints) else of_other_length(resolved, folder)
    others = [path for path in others if checkpoint.step_of(path) < steps]
    if others and (why := obstacle(resolved, others)):
        name = run_of(others[0]).path.name
        screen.info(f"{name} has the first {checkpoint.step_of(others[0])} steps, and is not extended: {why}")
        return
    for path in filter(checkpoint.has_optimizer, others):
        if run_of(path).first_day() != folder.first_day():  # its prompts may have another date
            continue
        with suppress(BadFile, FileNotFoundError):  # or removed by the process that trains it
            adopt(path, resolved, folder)
            screen.info(f"extending {run_of(path).path.name}, the same run of another length")
            return


def adopt(path: Path, resolved: Resolved, folder: RunFolder) -> None:
    """Copy a checkpoint, and the best one so far, into the folder of another run.

    An evaluation that was only due at the end of the other run is left out. Where it is due in this one, it is made
    again.

    Raises:
        BadFile: One of them is damaged, or gone.
    """
    end, selection = checkpoint.step_of(path), Selection(resolved.recipe.train)
    every = {"eval": resolved.recipe.eval.every, "replies": resolved.recipe.eval.replies.every}
    early = {kind for kind, steps in every.items() if not is_due(end, steps, end + 1)}
    lines = read_lines(path / "metrics.jsonl", Line)
    kept = [line for line in lines if line["kind"] not in early or line["step"] != end]
    selection.add_all(kept)
    best = selection.best_step
    others = [] if best is None or best == end else [checkpoint.path_of(path.parent, best)]
    held_out = others[0] if others and len(kept) < len(lines) else path
    for source in (*others, path):
        if checkpoint.read(source) is None:
            raise BadFile("damaged, or gone", where=str(source))
        about = read_checked(inside(source, ABOUT), CheckpointManifest)
        with atomic_folder(folder.checkpoints / source.name, over=True) as temporary:
            for name in about["files"]:
                _link((held_out if (source, name) == (path, HELD_OUT) else source) / name, temporary / name)
            if source == path:
                _write_lines(temporary / "metrics.jsonl", kept)
            if source == path and "replies" in early and REPLIES in about["files"]:
                drawn = read_lines(path / REPLIES, SampledReply)
                _write_lines(temporary / REPLIES, [line for line in drawn if line["step"] != end])
            more = {key: value for key, value in about.items() if key not in ("files", "digest")}
            write_manifest(temporary, more | {"run": resolved.fingerprint})


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Replace a file, which may be a link to another run's, by JSON lines."""
    path.unlink()
    path.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    """Link a file that is never changed in place, or copy it from another user or file system.

    Raises:
        BadFile: The process that trains the other run has removed it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.stat().st_uid != os.getuid():
            raise PermissionError
        os.link(source, target)
    except FileNotFoundError:
        raise BadFile("gone", where=str(source)) from None
    except OSError:
        shutil.copyfile(source, target)


def set_back(resolved: Resolved, folder: RunFolder, given: Path) -> None:
    """Make `given` the newest checkpoint of a run, which is then not finished.

    Args:
        resolved: The run's recipe.
        folder: Its folder, locked.
        given: A checkpoint, or a run folder for its newest one with optimizer state.

    Raises:
        UserError: It is no checkpoint, is damaged or of another recipe, or can't be continued.
    """
    path = _checkpoint_at(given)
    about = read_checked(inside(path, ABOUT), CheckpointManifest)
    own = about["run"] == resolved.fingerprint
    if not own and about.get("lineage") != resolved.lineage:
        raise UserError(
            f"this checkpoint belongs to run {about['run'][:8]}, whose recipe differs from this one in more than "
            "train.epochs and train.max_steps", where=str(path), expected="a checkpoint of the same recipe",
            hint=f"model.path={path} starts from its weights, with a new optimizer",
        )  # fmt: skip
    if why := "" if own and checkpoint.has_optimizer(path) else obstacle(resolved, [path]):
        raise UserError(f"training can't go on from this checkpoint: {why}", where=str(path))
    here = path.resolve().parent == folder.checkpoints.resolve()
    if not here:
        adopt(path, resolved, folder)
        _take_day(path, folder)
    with suppress(FileNotFoundError):
        remove(folder.path / "summary.json")
    for other in checkpoint.by_step(folder.checkpoints):
        if checkpoint.step_of(other) > checkpoint.step_of(path):
            remove(other)


def _checkpoint_at(given: Path) -> Path:
    """Return the checkpoint that a path names. Raises UserError if there is no intact one."""
    inner = checkpoint.by_step(given / "checkpoints")
    path = next((path for path in reversed(inner) if checkpoint.has_optimizer(path)), inner[-1]) if inner else given
    if not path.is_dir():
        raise UserError("no such checkpoint", where=str(given), expected="RUN/checkpoints/step-000200, or RUN")
    if not (path / ABOUT).exists():
        raise UserError("this is no checkpoint of a run", where=str(path), expected="RUN/checkpoints/step-000200")
    if checkpoint.read(path) is None:
        raise UserError("this checkpoint is damaged, or renamed", where=str(path), expected="an intact step-000200")
    return path


def run_of(path: Path) -> RunFolder:
    """Return the run folder of a checkpoint."""
    return RunFolder(path.parent.parent, writes=False)


def _lineage(path: Path) -> str:
    try:
        about: dict[str, Any] = read_checked(inside(path, ABOUT), CheckpointManifest)
    except (BadFile, MissingFile):
        return ""
    return str(about.get("lineage", ""))
