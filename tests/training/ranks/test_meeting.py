"""The variables of a launcher, and the first meeting of a job's processes."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress

import pytest
from jobs import DPO, start

from alignzoo.core.distributed import launch, spawn
from alignzoo.core.errors import UserError

COMPLETE = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def variables(monkeypatch):
    """Set these variables of a launcher and no others."""

    def given(**values: str) -> None:
        for name in (*launch.PLACE, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return given


@pytest.mark.parametrize("missing", [("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"), ("MASTER_ADDR", "MASTER_PORT"), ("WORLD_SIZE",)])  # fmt: skip
def test_rank_without_the_rest_is_named_and_means_nothing(variables, missing):
    variables(**{name: value for name, value in COMPLETE.items() if name not in missing}, LOCAL_RANK="1")
    note = launch.check_place()
    assert all(name in note for name in missing)
    assert (launch.launched(), launch.rank()) == (False, 0)
    assert launch.check_place() == ""  # no library sees it either


def test_a_rank_that_is_empty_is_none(variables):
    variables(**COMPLETE | {"RANK": ""})
    assert launch.check_place() == ""
    assert (launch.launched(), launch.rank()) == (False, 0)


@pytest.mark.parametrize(
    ("name", "value"), [("RANK", "x"), ("RANK", "2"), ("WORLD_SIZE", "two"), ("MASTER_PORT", "-1")]
)
def test_a_launcher_with_wrong_numbers_is_an_error(variables, name, value):
    variables(**COMPLETE | {name: value})
    with pytest.raises(UserError, match=f"{name} is '?{value}"):
        launch.check_place()


def test_a_complete_launch_is_one(variables):
    variables(**COMPLETE)
    assert launch.check_place() == ""
    assert (launch.launched(), launch.rank(), launch.size()) == (True, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_ends_before_the_meeting_ends_the_others(tmp_path, lost):
    job = start(tmp_path, DPO, 2, [{"ALIGNZOO_JOIN_SECONDS": "6"}])
    job.processes[lost].kill()
    job.outputs[lost].touch()
    began = time.monotonic()
    codes = job.wait()
    assert codes[1 - lost] in (1, 2), job.said()
    assert time.monotonic() - began < 60
    (line,) = job.errors()
    assert "could not connect" in line or "has ended" in line


def test_the_port_of_spawned_processes_is_held_from_its_choice_on(monkeypatch):
    """Until process 0 listens on it, no other program can bind it; once that process has ended, nobody holds it."""
    seen = []

    class Started:
        """A process that holds what it was passed until it ends, at once."""

        returncode = 0

        def __init__(self, words, *, env, pass_fds, **options):
            port = int(env["MASTER_PORT"])
            with socket.socket() as other:
                free = 0
                with suppress(OSError):
                    other.bind(("127.0.0.1", port))
                    free = 1
            held = [os.dup(one) for one in pass_fds]
            seen.append((env["RANK"], free, [socket.socket(fileno=one).getsockname()[1] for one in held], port, env))

        def poll(self):
            return 0

        kill = wait = send_signal = poll

    monkeypatch.setattr(spawn.subprocess, "Popen", Started)
    monkeypatch.setattr(sys, "argv", ["alignzoo"])
    assert spawn.run_on(2) == 0
    (rank, free, held, port, env), (other, _, nothing, same, others) = seen
    assert (rank, other, free, held, nothing, same) == ("0", "1", 0, [port], [], port)
    assert launch.LISTENER in env
    assert launch.LISTENER not in others
    with socket.socket() as after:
        after.bind(("127.0.0.1", port))
