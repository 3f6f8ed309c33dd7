"""What a log file and a terminal have of a run's steps and evaluations."""

from __future__ import annotations

import re
from io import StringIO
from types import SimpleNamespace

import pytest

from alignzoo.compare.live_table import DONE, FAILED, LiveTable
from alignzoo.core.console import Console, Screen
from alignzoo.core.errors import UserError
from alignzoo.training import log_lines
from alignzoo.training.log_lines import EVERY, StepLog, evaluation_words, log_interval

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
EVALUATION = {
    "kind": "eval", "step": 40, "n": 1200, "loss": 0.61234, "preference_accuracy": 0.5625,
    "preference_accuracy_se": 0.0143, "likelihood_accuracy": 0.5, "margin": 0.125, "mine/n": 10, "mine/loss": 0.5,
}  # fmt: skip


def screen(terminal: bool) -> Screen:
    found = Screen()
    found.console = Console(file=StringIO(), width=200, force_terminal=terminal, _environ={})
    return found


def lines(found: Screen) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found.console.file.getvalue()).splitlines()


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = SimpleNamespace(now=100.0)
    monkeypatch.setattr(log_lines.time, "monotonic", lambda: now.now)
    return now


def take_steps(log: StepLog, clock, first: int, last: int) -> None:
    for done in range(first, last + 1):
        clock.now += 3  # a second of it is an evaluation's
        log.step(done, {"loss": done / 10, "accuracy": 0.5, "learning_rate": 5e-7}, 2.0, 1000)


def test_a_log_file_has_a_line_every_few_steps_with_means_over_them(monkeypatch, clock):
    monkeypatch.setenv(EVERY, "4")
    found = screen(terminal=False)
    take_steps(StepLog(found, "dpo", 10, 16), clock, 1, 10)
    first, second, last = lines(found)
    assert re.fullmatch(
        f"{TIME}dpo 4/10: loss 0.2500  accuracy 0.5000  lr 5e-07  8 rows/s  500 tokens/s  eta 0:00:16", first
    )  # 11 s for 4 steps, from the beginning of the first: 16.5 s for 6
    assert "dpo 8/10: loss 0.6500" in second
    assert "dpo 10/10: loss 0.9500" in last  # the last step has a line, whatever the interval
    assert "eta 0:00:00" in last


def test_a_resumed_run_reckons_from_its_own_steps(monkeypatch, clock):
    monkeypatch.setenv(EVERY, "2")
    found = screen(terminal=False)
    take_steps(StepLog(found, "dpo", 104, 16), clock, 101, 102)
    assert "dpo 102/104" in lines(found)[0]
    assert "eta 0:00:05" in lines(found)[0]


def test_a_terminal_has_no_line_of_a_step_and_each_evaluation_without_a_time(clock):
    found = screen(terminal=True)
    log = StepLog(found, "dpo", 10, 16)
    take_steps(log, clock, 1, 10)
    log.evaluation(EVALUATION)
    assert lines(found) == [evaluation_words(EVALUATION)]


def test_an_evaluation_is_printed_above_a_bar():
    found = screen(terminal=True)
    with found.bar("dpo", 10) as advance:
        advance(4, "loss 0.1")
        StepLog(found, "dpo", 10, 16).evaluation(EVALUATION)
        advance(6, "loss 0.1")
    shown = lines(found)
    at = shown.index(next(line for line in shown if "evaluation after step 40" in line))
    assert "10/10" in shown[-1]
    assert at < len(shown) - 1


def test_a_quiet_screen_has_nothing(clock):
    found = Screen(quiet=True)
    found.console.file = StringIO()
    log = StepLog(found, "dpo", 1, 1)
    take_steps(log, clock, 1, 1)
    log.evaluation(EVALUATION)
    assert found.console.file.getvalue() == ""


def test_the_words_of_an_evaluation():
    assert evaluation_words(EVALUATION) == (
        "evaluation after step 40: accuracy 0.5625 ± 0.014, likelihood accuracy 0.5, loss 0.6123, margin 0.125 "
        "(n 1,200); on mine: loss 0.5 (n 10)"
    )


def test_the_interval(monkeypatch):
    monkeypatch.delenv(EVERY, raising=False)
    assert [log_interval(steps) for steps in (1, 100, 101, 10_000)] == [1, 1, 2, 100]
    for wrong in ("0", "-1", "x", "1.5"):
        monkeypatch.setenv(EVERY, wrong)
        with pytest.raises(UserError, match=f"{EVERY}: '{wrong}' is no number of steps"):
            log_interval(10)
    monkeypatch.setenv(EVERY, "9" * 5000)  # more digits than Python converts
    with pytest.raises(UserError, match=f"{EVERY}: '9{{40}}' is no number of steps"):
        log_interval(10)


def test_a_comparison_logs_its_runs_with_their_names_and_its_eta(monkeypatch):
    now = SimpleNamespace(now=0.0)
    monkeypatch.setattr("alignzoo.compare.live_table.time.monotonic", lambda: now.now)
    jobs = [SimpleNamespace(label=label, key=("", "1")) for label in ("sft", "dpo", "ipo", "kto")]
    finished = {"sft"}
    found = screen(terminal=False)
    with LiveTable(jobs, 0, found, lambda job: job.label not in finished).shown() as table:
        table.start(0)
        table.put(0, "done", DONE)  # it was there before: its time says nothing of the others
        table.start(1)
        now.now += 90
        table.cell(1).event("evaluation after step 1: loss 1")
        assert table.cell(1).logs
        finished.add("dpo")
        table.put(1, "done", DONE)
    assert [re.sub(f"^{TIME}", "", line) for line in lines(found)] == [
        "[1 of 4] sft seed 1: done", "dpo seed 1: evaluation after step 1: loss 1", "[2 of 4] dpo seed 1: done; eta 0:03:00",
    ]  # fmt: skip


def test_a_comparisons_eta_on_a_terminal_falls_while_a_run_goes_on(monkeypatch):
    now = SimpleNamespace(now=0.0)
    monkeypatch.setattr("alignzoo.compare.live_table.time.monotonic", lambda: now.now)
    jobs = [SimpleNamespace(label=label, key=("", "1")) for label in ("dpo", "ipo", "kto")]
    found = screen(terminal=True)
    with LiveTable(jobs, 0, found).shown() as table:
        table.start(0)
        assert table.caption == ""  # nothing was measured yet
        now.now += 60
        table.put(0, "done", DONE)
        assert table.caption == "eta 0:02:00"
        table.start(1)
        now.now += 45
        table.cell(1).event("evaluation after step 1: loss 1")
        with table.cell(1).bar("ipo", 10) as advance:
            advance(5, "")
        assert table.caption == "eta 0:01:15"
        now.now += 600  # longer than the first: the rest of it is unknown, and the third is still whole
        table.put(1, "measuring")
        assert table.caption == "eta 0:01:00"
        table.put(1, "failed", FAILED)
        assert table.caption == "eta 0:01:00"
    shown = "\n".join(lines(found))
    assert "ipo seed 1: evaluation after step 1: loss 1" in shown
    assert "eta 0:01:15" in shown or "eta 0:01:00" in shown
