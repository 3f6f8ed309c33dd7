"""Faults after the last step: the policy is kept, and the next command does what is missing."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable

from bench import Bench, Outcome, at_call, fault, line


def wrong(*_: object) -> None:
    """Fail as code does that nobody has tested."""
    raise ValueError("nobody has thought of this")


def fails(bench: Bench, inject: Callable[[], None]) -> Outcome:
    """A command that fails after the last step, and is repeated."""
    place = bench.place()
    finished = place.run(inject=inject)
    again = place.run()
    same = again.code == 0 and place.artifacts() == bench.want
    return Outcome(finished.message, {
        "exit code 1, no traceback": finished.code == 1 and "Traceback" not in finished.err,
        "all steps are kept": "the steps up to 6 are kept in" in finished.err,
        "the same command takes no step, and ends with the bytes of a run that nothing happened to":
            same and "resuming after step 6" in again.err,
    })  # fmt: skip


@fault("the replies after training can't be drawn")
def replies_fail(bench: Bench) -> Outcome:
    def inject() -> None:
        from alignzoo.training import run

        at_call(run, "greedy_replies", 2, wrong)

    return fails(bench, inject)


@fault("the policy can't be exported")
def export_fails(bench: Bench) -> Outcome:
    def inject() -> None:
        from alignzoo.training import run

        at_call(run, "export_policy", 1, wrong)

    return fails(bench, inject)


@fault("the summary can't be computed")
def summary_fails(bench: Bench) -> Outcome:
    def inject() -> None:
        from alignzoo.training import run

        at_call(run, "summarize", 1, wrong)

    return fails(bench, inject)


@fault("the report can't be drawn")
def report_fails(bench: Bench) -> Outcome:
    def inject() -> None:
        from alignzoo.report import run_page

        at_call(run_page, "write_report", 1, wrong)

    place = bench.place("reporters=html")
    finished = place.run(inject=inject)
    page = place.run_folder() / "report.html"
    missing, again = not page.exists(), place.run()
    return Outcome(line(finished, "reporter html failed"), {
        "exit code 0, and the bytes of a run that nothing happened to":
            finished.code == 0 and place.artifacts() == bench.want,
        "the same command draws it": missing and again.code == 0 and page.exists(),
    })  # fmt: skip


@fault("a judge fails, and the next time it does not")
def judge_fails(bench: Bench) -> Outcome:
    def inject() -> None:
        from alignzoo.evaluation.judges.toy import ToyJudge

        at_call(ToyJudge, "scores", 1, wrong)

    place = bench.place("eval.judges=[toy]")
    finished = place.run(inject=inject)
    before, again = figures(place)["judges"]["toy"], place.run()
    after = figures(place)["judges"]["toy"]
    return Outcome(line(finished, "judge toy failed"), {
        "exit code 0, and its figures are missing": finished.code == 0 and list(before) == ["problem"],
        "the same command asks it again, and takes no step":
            again.code == 0 and "reward" in after and "already finished" in again.err,
    })  # fmt: skip


@fault("a judge, a metric and a reward give inf once")
def infinite(bench: Bench) -> Outcome:
    def inject() -> None:
        import torch

        from alignzoo.evaluation.judges.toy import ToyJudge
        from alignzoo.evaluation.metrics.entropy import Entropy
        from alignzoo.objectives.builtin.dpo import DPO

        def once(owner: type, name: str) -> None:
            function = getattr(owner, name)

            def first(*arguments: object) -> object:
                found = function(*arguments)
                if isinstance(found, list):
                    return [float("inf"), *found[1:]]
                return torch.where(torch.arange(len(found)) == 0, torch.inf, found)

            setattr(owner, name, first)

        once(ToyJudge, "scores")
        once(Entropy, "values")
        once(DPO, "implicit_reward")

    place = bench.place("eval.judges=[toy]", "eval.metrics=[entropy]", "reporters=html")
    finished = place.run(inject=inject)
    found = figures(place)
    return Outcome(line(finished, "left out"), {
        "exit code 0, no traceback": finished.code == 0 and "Traceback" not in finished.err,
        "the figures are those of the other values":
            math.isfinite(found["eval"]["margin"]) and math.isfinite(found["eval"]["loss"])
            and found["judges"]["toy"]["reward_n"] == 0,
        "each is named": all(word in finished.err for word in ("judge toy", "metric entropy", "implicit reward of dpo")),
    })  # fmt: skip


@fault("a metric fails after the first evaluation")
def metric_fails(bench: Bench) -> Outcome:
    def inject() -> None:
        from alignzoo.evaluation.metrics.entropy import Entropy

        at_call(Entropy, "values", 2, wrong)

    place = bench.place("eval.metrics=[entropy]")
    finished = place.run(inject=inject)
    lines = [json.loads(text) for text in (place.run_folder() / "metrics.jsonl").read_text().splitlines()]
    has = ["entropy" in one for one in lines if one["kind"] == "eval"]
    return Outcome(line(finished, "the metric entropy raised"), {
        "exit code 0, and its figure of that evaluation alone is missing":
            finished.code == 0 and has == [True, False, True],
    })  # fmt: skip


@fault("the checkpoint of another run lies in the folder")
def foreign_checkpoint(bench: Bench) -> Outcome:
    other = bench.place("objective.beta=0.5")
    assert other.run().code == 0
    place = bench.place()
    assert place.run(inject=lambda: at_checkpoint(2)).code == 1
    theirs, ours = (one.run_folder() / "checkpoints" for one in (other, place))
    shutil.copytree(theirs / "step-000006", ours / "step-000006")
    finished = place.run()
    shutil.rmtree(ours / "step-000006")
    return Outcome(finished.message, {
        "exit code 2, no traceback": finished.code == 2 and "Traceback" not in finished.err,
    } | bench.goes_on(place))  # fmt: skip


def at_checkpoint(number: int) -> None:
    """In a child: fail when a checkpoint is written for so many times."""
    from alignzoo.core.errors import RunFailed
    from alignzoo.training import checkpoint

    def stop() -> None:
        raise RunFailed("stopped here")

    at_call(checkpoint, "save", number, stop, after=True)


def figures(place) -> dict:  # type: ignore[no-untyped-def]
    """The run's summary.json."""
    return json.loads((place.run_folder() / "summary.json").read_text())
