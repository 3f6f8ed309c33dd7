"""Faults of the terminal and of the environment: streams that are closed, full, ASCII or unread, signals, launchers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from bench import Bench, Outcome, at_call, fault, line

JUDGE = """
import os, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from alignzoo import Judge, hookimpl


class Silent(Judge):
    "Waits for an answer in threads, as clients of chat endpoints do."

    name = "silent"

    def scores(self, prompts, replies):
        Path("ASKED").touch()
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(self.ask, replies))

    def ask(self, reply):
        if not Path("ANSWERS").exists():
            threading.Event().wait()
        return float(len(reply))


@hookimpl
def register_judges():
    return [Silent]
"""


def no_stream(*handles: int) -> None:
    """In a child: standard handles that were closed by the shell."""
    for handle in handles:
        os.close(handle)
        setattr(sys, ("stdin", "stdout", "stderr")[handle], None)


def stream_to(handle: int, path: str) -> None:
    """In a child: a standard handle on another file."""
    os.dup2(os.open(path, os.O_WRONLY), handle)


def unread(handle: int) -> None:
    """In a child: a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, handle)


def ascii_only() -> None:
    """In a child: what PYTHONIOENCODING=ascii makes of the streams."""
    sys.stdout, sys.stderr = (open(n, "w", encoding="ascii", closefd=False) for n in (1, 2))


STREAMS: dict[str, tuple[Callable[[], None], int]] = {
    "stderr is closed": (lambda: no_stream(2), 0),
    "stdin, stdout and stderr are closed": (lambda: no_stream(0, 1, 2), 0),
    "stderr is full": (lambda: stream_to(2, "/dev/full"), 0),
    "stdout is full": (lambda: stream_to(1, "/dev/full"), 1),
    "nobody reads stderr": (lambda: unread(2), 0),
    "nobody reads stdout (| head)": (lambda: unread(1), 0),
    "the terminal is ASCII": (ascii_only, 0),
}
"""What the table calls it -> the injection, and the exit code."""


def on_stream(inject: Callable[[], None], code: int) -> Callable[[Bench], Outcome]:
    """A whole run on such a stream."""

    def function(bench: Bench) -> Outcome:
        place = bench.place()
        finished = place.run(inject=inject)
        same = finished.code == code and place.artifacts() == bench.want
        told = finished.message if code else "what can be shown"
        return Outcome(told, {
            f"exit code {code}, and the bytes of a run that nothing happened to": same,
            "no traceback": "Traceback" not in finished.err + finished.out,
        })  # fmt: skip

    return function


for name, (inject, code) in STREAMS.items():
    fault(name)(on_stream(inject, code))


def hang_up(ignored: bool) -> Callable[[], None]:
    """In a child: SIGHUP in the third step, ignored from the start as under nohup or not."""

    def inject() -> None:
        from alignzoo.training.step import Engine

        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        at_call(Engine, "step", 3, lambda: os.kill(os.getpid(), signal.SIGHUP))

    return inject


@fault("SIGHUP in a step (the terminal is closed)")
def hangup(bench: Bench) -> Outcome:
    place = bench.place()
    return bench.failed(place, place.run(inject=hang_up(False)), 3, 129)


@fault("SIGHUP under nohup")
def hangup_ignored(bench: Bench) -> Outcome:
    place = bench.place()
    finished = place.run(inject=hang_up(True))
    same = finished.code == 0 and place.artifacts() == bench.want
    return Outcome("nothing", {"the run goes on to the bytes of a run that nothing happened to": same})


@fault("SIGTERM while a judge's threads wait for an answer")
def terminated_judge(bench: Bench) -> Outcome:
    place = bench.place("eval.judges=[silent]")
    asked, answers = place.root / "asked", place.root / "answers"
    plugin, recipe = place.root / "silent.py", place.root / "dpo_hh.yaml"
    plugin.write_text(JUDGE.replace("ASKED", str(asked)).replace("ANSWERS", str(answers)))
    recipe.write_text(f"extends: {os.path.abspath('recipes/dpo_hh.yaml')}\nplugins: [{plugin}]\n")
    place.recipe[0] = str(recipe)
    child = place.start()
    deadline = time.monotonic() + 120
    while not asked.exists() and not child.over() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGTERM)
    began = time.monotonic()
    finished = child.wait()
    seconds = time.monotonic() - began
    answers.touch()
    again = place.run()
    got, want = place.artifacts(), bench.want
    return Outcome(finished.message, {
        "exit code 143 within 10 s": finished.code == 143 and seconds < 10,
        "the policy is there": got["dpo_hh/policy/model.safetensors"] == want["dpo_hh/policy/model.safetensors"],
        "the same command takes no step, and asks the judge":
            again.code == 0 and "resuming after step 6" in again.err and "judge silent" in again.out,
    })  # fmt: skip


@fault("RANK is set by accident")
def accidental_rank(bench: Bench) -> Outcome:
    place = bench.place()
    finished = place.run(inject=lambda: os.environ.update(RANK="1", WORLD_SIZE="2"))
    same = finished.code == 0 and place.artifacts() == bench.want
    return Outcome(line(finished, "RANK"), {"said, and the bytes of a run that nothing happened to": same})
