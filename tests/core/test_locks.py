"""A process that waits says for whom, and waits for nobody who has ended."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import threading

import pytest

from alignzoo.core import locks
from alignzoo.core.errors import UserError
from alignzoo.core.locks import locked, locked_if_possible

ME = f"process {os.getpid()} on {platform.node()}"


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(locks, "LOOK_SECONDS", 0.05)
    return tmp_path / ".lock"


@pytest.fixture
def no_kernel_locks(monkeypatch):
    """A file system as NFS without lockd."""

    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def in_a_child(path) -> int:
    """The number of a process that has taken the lock and ended without a word."""
    child = os.fork()
    if not child:
        with locked(path):
            os._exit(0)
    os.waitpid(child, 0)
    return child


def test_the_holder_is_named_and_nobody_waits_unasked(path):
    with locked(path) as waited:
        assert not waited
        with pytest.raises(UserError, match=f"the run is trained by {ME}"), locked(path, what="the run is trained"):
            pytest.fail("two have the lock")
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_who_waits_says_for_whom_and_goes_on(path):
    release, said = threading.Event(), []

    def hold():
        with locked(path):
            taken.set()
            release.wait()

    def say(line):
        said.append(line)
        release.set()

    taken = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    with locked(path, say, "it is trained") as waited:
        assert waited
    holder.join()
    assert said == [f"it is trained by {ME}; waiting for it"]


def test_the_lock_of_a_process_that_has_ended_is_free(path):
    child = in_a_child(path)
    assert json.loads(path.with_name(".lock.holder").read_text()) == {"pid": child, "host": platform.node()}
    with locked(path) as waited:
        assert not waited


def test_without_kernel_locks_that_of_an_ended_process_is_taken_over(path, no_kernel_locks):
    in_a_child(path)
    (marker,) = (one for one in path.parent.iterdir() if one.name.endswith(".soft"))
    assert marker.exists()
    said: list[str] = []
    with locked(path, said.append, "it is trained"):
        with pytest.raises(UserError, match=f"this is in use by {ME}"), locked(path):
            pytest.fail("two have the lock")
    assert not marker.exists()


def test_that_of_another_host_is_waited_for(path, no_kernel_locks):
    """Whether its process lives can't be told from here."""
    child = in_a_child(path)
    marker = path.with_name(".lock.soft")
    marker.write_text(marker.read_text().replace(platform.node(), "elsewhere"))
    path.with_name(".lock.holder").write_text(json.dumps({"pid": child, "host": "elsewhere"}))
    said = []

    def say(line):
        said.append(line)
        marker.unlink()  # the other host has finished

    with locked(path, say, "it is trained") as waited:
        assert waited
    assert said == [f"it is trained by process {child} on elsewhere; waiting for it"]


def test_work_that_may_be_done_twice_needs_no_lock(tmp_path):
    (tmp_path / "file").write_text("")
    with locked_if_possible(tmp_path / "file" / "folder" / ".lock", print, "it is made") as waited:
        assert not waited


def test_a_damaged_note_on_the_holder_changes_nothing(path):
    with locked(path):
        path.with_name(".lock.holder").write_text("[")
        with pytest.raises(UserError, match="this is in use by another process"), locked(path):
            pytest.fail("two have the lock")
