"""Each fault of the table: the message is right, what was saved is good, and the run goes on (benchmarks/faults/table.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks" / "faults"))

import of_end
import of_machine
import of_terminal
import of_work
from bench import FAULTS, Impossible

WORDS = {
    "memory runs out in the reference pass, the evaluations": r"memory ran out in step 1: it was repeated in micro-batches of \d+ token slots",
    "memory runs out for": r"error: memory ran out for row sample-train:\d+ alone, of \d+ token slots; .* needs less$",
    "when a checkpoint": r"step-000004 could not be written: no space left on device \(0\.\d MB are needed and 0\.1 MB were "
    r"free\); the steps up to 2 are kept in .*step-000002$",
    "full when the policy is exported": r"/policy could not be written: no space left on device .*; the steps up to 6 are kept in ",
    "reference is scored": r"cache/reference/.*safetensors could not be written: no space left on device ",
    "tokens are stored": r"tokens: .* no space left on device \(0\.0 MB were free\); the next run makes them again$",
    "ulimit": r"step-000004 could not be written: file too large; the steps up to 2 are kept in ",
    "runs is read-only": r"error: .*/runs/dpo_hh-\w+ could not be written: read-only file system; set ALIGNZOO_RUNS",
    "checkpoints' folder": r"step-000004 could not be written: read-only file system; the steps up to 2 are kept in ",
    "cache is read-only": r"cache/reference/.* could not be written: read-only file system; set ALIGNZOO_CACHE to put the cache elsewhere$",
    "while a run works": "nothing",
    "while a run is stopped": "0 of 32 rows cached, 32 to score; resuming after step 2",
    "cut short": "is damaged",
    "flipped": "is damaged",
    "line 90,000": r"rows\.jsonl:90000: not JSON: Unterminated string .*; expected JSON$",
    "not a number": r"step 4: the loss of dpo is not finite for rows sample-train:\d+; the steps up to 3 are kept in ",
    "want of a file": r"step 3: the loss of weighted raised FileNotFoundError: .*weight\.txt' \(.*weighted\.py:17\), for rows ",
    "code is mended": r"step 3: the loss of weighted raised NameError: name 'flaot' is not defined \(.*weighted\.py:17\)",
    "on one run": r"this run is trained by process \d+ on \S+$",
    "on one cache": "nothing",
    "clock": "resuming after step 2",
    "Ctrl-C in": "^stopped after step 3; the same command continues from there$",
    "SIGTERM in a step": "^stopped after step 3; the same command continues from there$",
    "in an evaluation": "^stopped in the evaluation after step 3; the same command continues from there$",
    "SIGTERM in the reference pass": "^stopped in the reference pass; scores so far are kept, and the same command continues$",
    "while tokenizing": "^stopped while reading and tokenizing the data; the same command begins with that again$",
    "SIGTERM when the policy is": "^stopped after the last step; the same command continues from there$",
    "twice in a step": "^stopped at once; the same command continues from the last checkpoint$",
    "stdout is full": "^error: the output could not be written: no space left on device$",
    "SIGHUP in a step": "^stopped after step 3; the same command continues from there$",
    "SIGHUP under": "nothing",
    "threads wait": "^stopped after the last step; the same command continues from there$",
    "RANK": "^note: RANK is set without MASTER_ADDR and MASTER_PORT, so no launcher set it",
    "replies after": r"error: after the last step: ValueError: nobody has thought of this .*; the steps up to 6 are kept in ",
    "policy can't": r"error: after the last step: ValueError: nobody has thought of this .*; the steps up to 6 are kept in ",
    "summary can't": r"error: after the last step: ValueError: nobody has thought of this .*; the steps up to 6 are kept in ",
    "report can't": "reporter html failed .ValueError: nobody has thought of this.; the run continues",
    "a judge fails": "judge toy failed .ValueError: nobody has thought of this.; its figures are left out",
    "give inf": "left out$",
    "a metric fails": "the metric entropy raised ValueError: nobody has thought of this .*; its figure is left out",
    "another run": r"step-000006: this checkpoint belongs to run \w{8}, and this is run \w{8}; expected ",
    **dict.fromkeys(("stderr", "stdin", "ASCII", "reads stdout"), "what can be shown"),
    "step number is changed": r"step-000004 is damaged; using the one before it, step-000002$",
}
"""Some words of a fault's name -> what the user reads."""


def expected(name: str) -> str:
    """Of the longest words that the name holds."""
    return WORDS[max((key for key in WORDS if key in name), key=len)]


def test_every_fault_has_its_words():
    assert all((of_end, of_machine, of_terminal, of_work))
    assert all(expected(name) for name in FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_run_survives(bench, name):
    import re

    try:
        outcome = FAULTS[name](bench)
    except Impossible as error:
        pytest.skip(str(error))
    assert re.search(expected(name), outcome.told), outcome.told
    assert outcome.checks
    assert all(outcome.checks.values()), outcome
