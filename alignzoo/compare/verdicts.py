"""Verdicts of one judge on the sampled replies of one evaluation, in their own folder.

`evaluations/verdicts/<key>/about.json` of a run folder holds

    evaluation    name of the folder with the figures and replies
    judge         name of the judge
    version       digest of the judge's fields and code
    fields        the judge's fields
    over_start    true if the replies were also compared with those of the run's start
    first         of several draws: true if only the best of the first N, for each N, were judged
    picks         true for the scores by which best-of-N picks
    problem       reason of a failure, else ""
    verdicts      one for each reply, in the order of samples.jsonl; none after a failure

The key covers everything above the problem, and the start's replies. A judge that failed is asked again next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignzoo.compare.exclusive import exclusive
from alignzoo.compare.results import RepliesFolder, VerdictsManifest
from alignzoo.core.artifacts import atomic_folder, read_verified, write_manifest
from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.door import UnreadableFile
from alignzoo.evaluation.judging import Verdict, ask, failure, judge_key
from alignzoo.interfaces.judge import Asked, Judge
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.replies import held_out_rows
from alignzoo.training.run_folder import RunFolder

FOLDER = "verdicts"
JudgeVersion = tuple[str, str]
"""(name, version) of a judge."""


def judge_replies(
    judge: Judge, resolved: Resolved, run: Path, measured: RepliesFolder, start: RepliesFolder | None, screen: Screen,
    *, best_of: Sequence[int] | None = None, made_by: str = "", picks: bool = False,
) -> Path:  # fmt: skip
    """Return the folder with the judge's verdicts on the replies in `measured`.

    The judge is run if there are none.

    Args:
        judge: The judge.
        resolved: Recipe of the measured run, whose data has the prompts.
        run: The run folder.
        measured: Replies of the run.
        start: Replies of the run's start to the same prompts, for `over_start`.
        screen: Where a failure of the judge is reported.
        best_of: Of several draws, the places of those that are the best of the first N for some N. A judge with an
            address, whose answers may have a price, sees these alone.
        made_by: Digest of the runs that made the judge, which belongs to its version.
        picks: True for the judge that picks among several draws. It gives scores, and compares with nothing.
    """
    lines = measured.samples
    replies_before = {line["id"]: line["reply"] for line in start.samples} if start else {}
    before = [replies_before.get(line["id"]) for line in lines] if start else None
    version = judge_key(judge, resolved.registry)
    version = digest([version, made_by]) if made_by else version
    about: dict[str, Any] = {
        "evaluation": measured.path.name, "judge": judge.name, "version": version, "over_start": start is not None,
    }  # fmt: skip
    first = best_of is not None and judge.address() != ""
    if first:
        about |= {"first": True, "places": digest(best_of)}
    if picks:
        about |= {"picks": True}
    path = run / "evaluations" / FOLDER / digest([about, before])
    with exclusive(path, screen):
        kept = read_verified(path, VerdictsManifest)
        if kept is not None and not kept["problem"]:
            return path
        about |= {"fields": judge.model_dump(mode="json"), "problem": "", "verdicts": []}
        rows = held_out_rows(resolved, RunFolder(run), screen) if lines else {}
        chosen = [lines[n - line.get("number", 0)]["chosen"] for n, line in enumerate(lines)]  # the first draw has it
        seen = list(best_of) if first and best_of is not None else list(range(len(lines)))
        try:
            if lines:
                own = [lines[n] for n in seen]
                found = [rows[line["id"]] for line in own]
                prompts, columns = [prompt for prompt, _ in found], [row for _, row in found]
                asked = Asked(prompts, [line["reply"] for line in own], columns, [line["finished"] for line in own])
                beside = [None if picks else chosen[n] for n in seen]
                given = ask(judge, asked, beside, before and [before[n] for n in seen], screen.info)
                verdicts: list[Verdict] = [{} for _ in lines]
                for n, verdict in zip(seen, given, strict=True):
                    verdicts[n] = verdict
                about["verdicts"] = verdicts
        except (Exception, SystemExit) as error:  # a judge may fail in any way; only its own figures are missing then
            about["problem"] = failure(error)
            screen.info(f"judge {judge.name} failed ({about['problem']}); its figures are left out")
        with atomic_folder(path, over=True) as temporary:
            write_manifest(temporary, about)
    return path


def _intact(path: Path) -> dict[str, Any] | None:
    try:
        return read_verified(path, VerdictsManifest)
    except UnreadableFile:  # of another user
        return None


def verdict_folders(evaluation: Path) -> dict[JudgeVersion, Path]:
    """Return (judge, version) -> folder of intact verdicts on an evaluation's replies.

    Verdicts come before a failure, and those with `over_start` before those without.
    """
    found: dict[JudgeVersion, tuple[bool, bool, str, Path]] = {}
    parent = evaluation.parent / FOLDER
    for path in sorted(parent.iterdir()) if parent.is_dir() else ():
        about = _intact(path) if path.is_dir() and not path.name.startswith(".") else None
        if about is not None and about["evaluation"] == evaluation.name:
            judge = (about["judge"], about["version"])
            rank = (about["problem"] != "", not about["over_start"], path.name, path)
            found[judge] = min(rank, found.get(judge, rank))
    return {judge: rank[-1] for judge, rank in sorted(found.items())}
