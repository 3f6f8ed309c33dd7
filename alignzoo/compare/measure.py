"""Measure a finished run: every held-out row's figures, sampled replies, and what judges say of them.

A run's folder gets

    evaluations/<key>/             examples.safetensors, samples.jsonl, about.json: see `alignzoo.compare.results`
    evaluations/verdicts/<key>.json what one judge says of these replies

Every folder is written once, all at once, under a key of what it depends on: weights, held-out tokens, settings; with
judges the same figures stand in another folder, under a key of the judges too. So what is there is not computed again,
a judge that fails costs its own figures alone, and comparisons at once, with other judges or settings, don't meet.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from alignzoo.compare.replies import reply_lines
from alignzoo.compare.results import EXAMPLES, SAMPLES, EvaluationFolder
from alignzoo.compare.spec import Sampling
from alignzoo.core.artifacts import atomic_folder, quarantine, read_verified, write_manifest
from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError, first_line
from alignzoo.core.files import write_json
from alignzoo.core.redaction import redact
from alignzoo.data.row_reader import RowReader
from alignzoo.data.token_store import TokenStore
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.evaluation.figures import for_testing, row_figures
from alignzoo.evaluation.judging import Verdict, ask, judge_key
from alignzoo.interfaces.judge import Judge
from alignzoo.interfaces.modifier import Modifier
from alignzoo.interfaces.objective import Objective
from alignzoo.models.fingerprint import weights_fingerprint
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.objectives.composition import Modified
from alignzoo.recipe.resolved import Resolved
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.policy import cached_scores, device_of, open_policy, open_scorer
from alignzoo.training.run import start_weights
from alignzoo.training.run_folder import RunFolder

FORMAT = 2
"""Of the figures: a change of what one of them means changes this."""
Outcome = list[Verdict] | str
"""What a judge says of each reply, or why it says nothing."""


def measure(
    resolved: Resolved,
    folder: Path,
    settings: Sampling,
    judges: Sequence[Judge],
    start: EvaluationFolder | None,
    screen: Screen,
) -> EvaluationFolder:
    """The figures of the finished run in `folder`, computed where they are not there already.

    Log-ratios and KL are to the run's start, whatever the objective's reference (a moving one as it was at first);
    `start` is what was measured of that run, whose replies judges compare with. A run of supervised fine-tuning that
    starts from no other run is the start of others: its own is itself. Raises UserError for an unfinished run.
    """
    whole = _Measuring(resolved, folder, settings, screen).figures()
    if not judges:
        return whole
    answered = {judge.name: _asked(judge, resolved, whole, start, screen) for judge in judges}
    return _with_verdicts(whole, [judge_key(judge, resolved.registry) for judge in judges], answered)


@dataclass
class _Measuring:
    """What is measured without a judge."""

    resolved: Resolved
    folder: Path
    settings: Sampling
    screen: Screen
    budget: int = 0
    """Token slots of a forward, 0 for what the recipe's evaluation takes; it changes no figure."""

    def __post_init__(self) -> None:
        self.recipe = self.resolved.recipe
        summary = RunFolder(self.folder).summary()
        if summary is None:
            raise UserError("the run is not finished: there is nothing to measure", where=str(self.folder))
        self.model = summary["model"]
        self.ranks = Ranks(device_of(self.recipe.train.device))
        self.budget = self.budget or 2 * self.recipe.train.micro_batch_tokens  # no activations are kept for a backward
        self.tokenizer = pretrained_tokenizer(str(self.folder / "policy"), None, self.recipe.model.runs_code)
        self.store = TokenStore(self.resolved, self.tokenizer, RunFolder(self.folder).first_day())

    def figures(self) -> EvaluationFolder:
        """Of the rows and of the replies."""
        about = {
            "format": FORMAT, "weights": self.model["trained_weights"], "start": self.model["weights"],
            "tokens": self.store.key, "sampling": self.settings.model_dump(),
        }  # fmt: skip
        place = self.folder / "evaluations" / digest(about)
        if read_verified(place) is None:
            with _alone(place, self.screen):
                if read_verified(place) is None:
                    self._write(place, about)
        return EvaluationFolder(place)

    def _write(self, place: Path, about: dict[str, Any]) -> None:
        if place.is_dir():
            self.screen.info(f"{place} is damaged; set aside, its figures are computed again")
            quarantine(place)
        held_out = self.store.get(RowReader(self.recipe.data), self.screen.info).held_out
        examples, lines = self._computed(held_out)
        with atomic_folder(place) as temporary:
            save_file(examples, temporary / EXAMPLES)
            _write_lines(temporary / SAMPLES, lines)
            groups = [digest(row.group)[:16] for row in held_out.rows]
            more = {"ids": list(held_out.trees.ids), "groups": groups, "reward": reward_scale(self.recipe.objective)}
            write_manifest(temporary, about | more | {"judges": {}})

    def _computed(self, held_out: TokenizedRows) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        recipe, objective, trees = self.recipe, self.recipe.objective, held_out.trees
        test, budget = for_testing([row.group for row in held_out.rows]), self.budget
        start = start_weights(self.resolved, self.screen)
        opened = self.resolved, self.tokenizer, start
        policy, _ = open_policy(*opened, trees, self.ranks, trained=self.folder / "policy")
        supply = BatchBuilder(objective, trees, None, None, recipe.seed, recipe.eval.metrics)
        if objective.head == "scalar":
            return row_figures(policy, supply, test, budget, self.screen), []
        own = starts_itself(self.resolved)
        reference = policy if own else self._reference(policy, start)
        (supply.reference,) = cached_scores(self.resolved, reference, [trees], self.screen, self.ranks, budget=budget)
        supply.live = reference if objective.reference in ("live", "moving") else None
        examples = row_figures(policy, supply, test, budget, self.screen, at_start=own)
        lines = reply_lines(
            policy, reference, self.tokenizer, held_out, test, self.settings, budget, self.screen
        )  # fmt: skip
        return examples, lines

    def _reference(self, policy: Scorer, start: Path | None) -> Scorer:
        """The policy before its first step. Raises UserError when it is not what the run started from any more."""
        reference = open_scorer(self.resolved, self.tokenizer, start, self.ranks, like=policy)
        if weights_fingerprint(reference.model) != self.model["weights"]:
            raise UserError(
                "the run's start has other weights than when the run began", where=str(self.folder),
                hint="do the run again with --fresh",
            )  # fmt: skip
        return reference


def reward_scale(objective: Objective) -> list[Any]:
    """Return what the implicit reward is made of: two margins are in the same unit where this is the same.

    The default reward is beta times the log-ratio, or the log-prob without a reference; a reward of its own depends on
    any of the objective's fields. Modifiers count where they change each completion's log-ratio.
    """
    term = objective.terms[0][1]
    inner, modifiers = (term.inner, term.modifiers) if isinstance(term, Modified) else (term, ())
    around = [one for one in modifiers if type(one).scored is not Modifier.scored]
    if type(inner).implicit_reward is Objective.implicit_reward and inner.head == "language_model":
        own: Any = ["log_prob" if inner.reference == "none" else "log_ratio", getattr(inner, "beta", 1.0)]
    else:
        own = inner.to_recipe()
    return [own, *({"name": one.name, **one.model_dump(mode="json")} for one in around)]


def starts_itself(resolved: Resolved) -> bool:
    """Whether a run is supervised fine-tuning that starts from no other run: the reference of what follows it."""
    terms = [term for _, term in resolved.recipe.objective.terms]
    return resolved.start is None and all(term.data == "chosen" and term.reference == "none" for term in terms)


def _asked(
    judge: Judge, resolved: Resolved, whole: EvaluationFolder, start: EvaluationFolder | None, screen: Screen
) -> Outcome:
    """A judge's verdicts, kept from before or given now."""
    lines = whole.samples
    if not lines:
        return []
    replies_before = {line["id"]: line["reply"] for line in start.samples} if start else {}
    before = [replies_before.get(line["id"]) for line in lines] if start else None
    place = (
        whole.path.parent
        / "verdicts"
        / f"{digest([whole.path.name, judge_key(judge, resolved.registry), before])}.json"
    )
    with _alone(place, screen):
        try:
            kept: list[Verdict] = json.loads(place.read_text(encoding="utf-8"))["verdicts"]
            return kept
        except (OSError, ValueError, KeyError):
            pass
        folder, trust = whole.path.parent.parent / "policy", resolved.recipe.model.runs_code
        tokenizer: PreTrainedTokenizerBase = pretrained_tokenizer(str(folder), None, trust)
        today = RunFolder(folder.parent).first_day()
        rows = TokenStore(resolved, tokenizer, today).get(RowReader(resolved.recipe.data), screen.info).held_out.rows
        prompts = {row.id: row.prompt for row in rows}
        try:
            verdicts = ask(
                judge, [prompts[line["id"]] for line in lines], [line["reply"] for line in lines],
                [line["chosen"] for line in lines], before,
            )  # fmt: skip
        except Exception as error:  # any judge may fail in its own way; the reason is kept, and it is asked again
            what = f"{type(error).__name__}: {first_line(error)}"
            screen.info(f"judge {judge.name} failed ({what}); its figures are left out")
            return what
        write_json(place, {"judge": judge.name, "fields": judge.model_dump(mode="json"), "verdicts": verdicts})
        return verdicts


def _with_verdicts(whole: EvaluationFolder, keys: Sequence[str], answered: dict[str, Outcome]) -> EvaluationFolder:
    """The same figures with what the judges say."""
    problems = {name: {"problem": said} if isinstance(said, str) else {} for name, said in answered.items()}
    about = whole.about | {"judges": problems}
    for key in ("files", "digest"):
        about.pop(key)
    failed = [name for name, problem in problems.items() if problem]
    place = whole.path.with_name(f"{whole.path.name}-{digest([sorted(keys), failed])[:8]}")
    found = read_verified(place)
    if found is None:
        said = {name: verdicts for name, verdicts in answered.items() if isinstance(verdicts, list)}
        lines = [
            line | {"judges": {name: verdicts[n] for name, verdicts in said.items()}}
            for n, line in enumerate(whole.samples)
        ]
        if place.is_dir():
            quarantine(place)
        with atomic_folder(place) as temporary:
            shutil.copyfile(whole.path / EXAMPLES, temporary / EXAMPLES)
            _write_lines(temporary / SAMPLES, lines)
            write_manifest(temporary, about)
    elif found["judges"] != problems:  # it failed again, for another reason
        write_manifest(place, about)
    return EvaluationFolder(place)


@contextmanager
def _alone(place: Path, screen: Screen) -> Iterator[None]:
    """Keep other processes from computing the same; what they are computing is waited for."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        screen.info(f"another process is measuring {place.parent.parent}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """JSON lines in ASCII: a text may hold what some readers take for the end of a line."""
    path.write_text(redact("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)), encoding="utf-8")
