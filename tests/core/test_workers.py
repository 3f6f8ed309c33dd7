"""Worker processes: a task and its messages, every way to end, and no process that stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs import PATIENCE

from alignzoo.core.errors import UserError
from alignzoo.core.signals import exit_words
from alignzoo.core.workers import WorkerLost, WorkerProcess

WORKER = """
import os, signal, sys, time
from alignzoo.core.signals import GracefulShutdown
from alignzoo.core.worker_channel import WorkerChannel

channel = WorkerChannel()
with GracefulShutdown():
    try:
        for task in channel.tasks():
            print("a library prints")
            print("and warns", file=sys.stderr, flush=True)
            channel.send({"pid": os.getpid(), "stdin": sys.stdin.read()})
            if "file" in task:
                while True:
                    time.sleep(0.01)
            if "code" in task:
                exec(task["code"])
            channel.answer({"n": task["n"] + 1})
    except KeyboardInterrupt:
        open(task["file"], "w").write("saved")
"""


def worker(**environment: str) -> WorkerProcess:
    return WorkerProcess([sys.executable, "-c", WORKER], environment)


def gone(pid: int) -> bool:
    """Wait until a process has ended, or is a zombie that its parent has yet to look at."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_tasks_are_answered_one_after_another_whatever_is_printed(capfd):
    one, messages = worker(), []
    assert [one.ask({"n": n}, messages.append) for n in (1, 2)] == [{"n": 2}, {"n": 3}]
    assert [message["stdin"] for message in messages] == ["", ""]  # a library that asks gets no task
    assert len({message["pid"] for message in messages}) == 1
    one.stop()
    one.wait()
    assert gone(messages[0]["pid"])
    error = capfd.readouterr().err
    assert error.count("and warns") == 1  # once for all workers, as a warning of one process


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL; the system does this when memory runs out"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os._exit(3)", "ended with exit code 3"),
        ("sys.stderr.close() or 1 / 0", "ended with exit code 1"),
        ("import no_such_module", "ended with exit code 1: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_worker_that_ends_says_how(code, words):
    with pytest.raises(WorkerLost, match=f"^{words}"):
        worker().ask({"n": 1, "code": code}, lambda message: None)


def test_the_words_of_an_exit():
    assert exit_words(0) == "ended with exit code 0"
    assert exit_words(-signal.SIGSEGV) == "was ended by SIGSEGV"
    assert exit_words(-200) == "was ended by signal 200"  # of another system


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_worker_at_work_saves_and_ends_when_it_is_stopped_and_not_when_it_is_killed(way, tmp_path):
    one, file, pids = worker(), tmp_path / "file", []

    def end(message):
        pids.append(message["pid"])
        getattr(one, way)()

    with pytest.raises(WorkerLost):
        one.ask({"file": str(file)}, end)
    assert file.exists() == (way == "stop")
    assert gone(pids[0])


def test_a_worker_saves_and_ends_when_its_parent_is_killed(tmp_path):
    file = tmp_path / "file"
    code = (
        "import os, signal, sys\nfrom alignzoo.core.workers import WorkerProcess\n"
        f"one = WorkerProcess([sys.executable, '-c', {WORKER!r}], {{}})\n"
        "def end(message):\n    print(message['pid'], flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"one.ask({{'file': {str(file)!r}}}, end)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    assert gone(int(done.stdout))
    assert file.read_text() == "saved"


def test_a_worker_has_the_variables_and_a_session_of_its_own(monkeypatch):
    monkeypatch.setenv("HERE", "1")
    one, found = worker(THERE="2"), []
    code = "channel.send({'pid': 0, 'is': [os.environ['HERE'], os.environ['THERE'], os.getsid(0) == os.getpid()]})"
    one.ask({"n": 1, "code": code}, found.append)
    one.kill()
    assert found[-1]["is"] == ["1", "2", True]
    assert os.getsid(0) != found[0]["pid"]


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"^/no/such/program: a worker can't be started: No such file or directory$"):
        WorkerProcess(["/no/such/program"], {})
