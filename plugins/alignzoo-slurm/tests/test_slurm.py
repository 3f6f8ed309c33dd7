import os
import sys

import pytest
from alignzoo_slurm import Slurm

from alignzoo import UserError, WorkerLost
from alignzoo.interfaces.executor import Slot

SRUN = """#!/bin/sh
echo "srun: job 7 queued" >&2
while case "$1" in --*) true;; *) false;; esac; do echo "$1" >> "$0.options"; shift; done
exec "$@"
"""
WORKER = """
from alignzoo.core.worker_channel import WorkerChannel
channel = WorkerChannel()
for task in channel.tasks():
    channel.send({"state": "working"})
    channel.answer({"twice": 2 * task["number"]})
"""


class Small(Slurm):
    """Workers that double a number."""

    def command(self, worker, slot):
        return super().command([sys.executable, "-c", WORKER], slot)


@pytest.fixture
def srun(tmp_path, monkeypatch):
    path = tmp_path / "srun"
    path.write_text(SRUN)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return path


def test_a_worker_is_a_step_with_the_options(srun):
    executor, messages = Small(options=("--partition=gpu", "--gpus=1")), []
    slot = Slot(3, 4)
    assert [executor.run({"number": n}, slot, messages.append) for n in (4, 5)] == [{"twice": 8}, {"twice": 10}]
    executor.close()
    assert messages == [{"state": "working"}] * 2
    options = (srun.parent / "srun.options").read_text().split()
    assert options == ["--ntasks=1", "--job-name=alignzoo-3", "--partition=gpu", "--gpus=1"]
    with pytest.raises(WorkerLost, match="was stopped"):
        executor.run({"number": 4}, slot, messages.append)


def test_without_srun_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun: a worker can't be started"):
        Slurm().start(Slot(0, 1))
