"""The verdicts of one judge on the sampled replies of one evaluation, in a folder of their own.

`evaluations/verdicts/<key>/about.json` of a run folder holds

    evaluation    name of the folder with the figures and replies
    judge         name of the judge
    version       digest of the judge's fields and code
    fields        the judge's fields
    over_start    true if the replies were also compared with those of the run's start
    problem       reason of a failure, else ""
    verdicts      one for each reply, in the order of samples.jsonl; none after a failure

The key covers everything above the problem, and the start's replies. A judge that failed is asked again next time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignzoo.compare.exclusive import exclusive
from alignzoo.compare.results import EvaluationFolder
from alignzoo.core.artifacts import atomic_folder, read_verified, write_manifest
from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.errors import first_line
from alignzoo.data.row_reader import RowReader
from alignzoo.data.token_store import TokenStore
from alignzoo.evaluation.judging import ask, judge_key
from alignzoo.interfaces.judge import Judge
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.run_folder import RunFolder

FOLDER = "verdicts"
JudgeVersion = tuple[str, str]
"""(name, version) of a judge."""


def judge_replies(
    judge: Judge, resolved: Resolved, measured: EvaluationFolder, start: EvaluationFolder | None, screen: Screen
) -> Path:
    """Return the folder with the judge's verdicts on the replies in `measured`; ask the judge if there is none.

    Args:
        judge: The judge.
        resolved: Recipe of the measured run, whose data has the prompts.
        measured: Replies of the run.
        start: Replies of the run's start to the same prompts, for `over_start`.
        screen: Where a failure of the judge is reported.
    """
    lines = measured.samples
    replies_before = {line["id"]: line["reply"] for line in start.samples} if start else {}
    before = [replies_before.get(line["id"]) for line in lines] if start else None
    version = judge_key(judge, resolved.registry)
    about: dict[str, Any] = {
        "evaluation": measured.path.name, "judge": judge.name, "version": version, "over_start": start is not None,
    }  # fmt: skip
    path = measured.path.parent / FOLDER / digest([about, before])
    with exclusive(path, screen):
        kept = read_verified(path)
        if kept is not None and not kept["problem"]:
            return path
        about |= {"fields": judge.model_dump(mode="json"), "problem": "", "verdicts": []}
        prompts = _prompts(resolved, measured.path.parent.parent, screen) if lines else {}
        try:
            if lines:
                about["verdicts"] = ask(
                    judge, [prompts[line["id"]] for line in lines], [line["reply"] for line in lines],
                    [line["chosen"] for line in lines], before,
                )  # fmt: skip
        except Exception as error:  # a judge may fail in any way; only its own figures are missing then
            about["problem"] = f"{type(error).__name__}: {first_line(error)}"
            screen.info(f"judge {judge.name} failed ({about['problem']}); its figures are left out")
        with atomic_folder(path, over=True) as temporary:
            write_manifest(temporary, about)
    return path


def _prompts(resolved: Resolved, run: Path, screen: Screen) -> dict[str, Any]:
    tokenizer = pretrained_tokenizer(str(run / "policy"), None, resolved.recipe.model.runs_code)
    store = TokenStore(resolved, tokenizer, RunFolder(run).first_day())
    return {row.id: row.prompt for row in store.get(RowReader(resolved.recipe.data), screen.info).held_out.rows}


def verdict_folders(evaluation: Path) -> dict[JudgeVersion, Path]:
    """Return the folders of intact verdicts on an evaluation's replies, one for each judge and version.

    Verdicts come before a failure, and those with `over_start` before those without.
    """
    found: dict[JudgeVersion, tuple[bool, bool, str, Path]] = {}
    parent = evaluation.parent / FOLDER
    for path in sorted(parent.iterdir()) if parent.is_dir() else ():
        about = read_verified(path) if path.is_dir() and not path.name.startswith(".") else None
        if about is not None and about["evaluation"] == evaluation.name:
            judge = (about["judge"], about["version"])
            rank = (about["problem"] != "", not about["over_start"], path.name, path)
            found[judge] = min(rank, found.get(judge, rank))
    return {judge: rank[-1] for judge, rank in sorted(found.items())}
