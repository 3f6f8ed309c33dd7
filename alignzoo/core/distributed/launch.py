"""Whether this process is one of several that a launcher started, by the variables that all launchers set."""

from __future__ import annotations

import os
import threading

SPAWNED = "ALIGNZOO_SPAWNED"
"""Set in the processes of `alignzoo run --processes`."""
LOST = 75
"""The exit code of a process that ended because another one of its job did."""


def launched() -> bool:
    """Whether there are other processes in this job (torchrun, accelerate, `--processes`, or started by hand)."""
    return "RANK" in os.environ and size() > 1


def rank() -> int:
    """This process's number in its job: 0 is the main one."""
    return int(os.environ["RANK"]) if launched() else 0


def size() -> int:
    """How many processes the job has."""
    try:
        return int(os.environ.get("WORLD_SIZE", 1))
    except ValueError:
        return 1


def end_with_parent() -> None:
    """Of a process that `alignzoo run --processes` started: end as soon as that one is gone, whatever ended it."""
    if SPAWNED not in os.environ:
        return

    def watch() -> None:
        os.read(0, 1)  # a pipe that nobody writes to
        os._exit(LOST)

    threading.Thread(target=watch, daemon=True).start()


def mark_reported_by_main(error: BaseException) -> None:
    """Have the main process alone tell of an error that all processes have."""
    error.__dict__["told"] = rank() > 0


def reported_elsewhere(error: BaseException) -> bool:
    """Whether another process of the job tells the user of this error."""
    return bool(error.__dict__.get("told"))


def lost_peer(error: BaseException) -> bool:
    """Whether it is no more than the end of another process, seen by one that `alignzoo run --processes` started."""
    return SPAWNED in os.environ and bool(error.__dict__.get("lost"))


def by_hand() -> bool:
    """Whether no launcher watches over the processes, which then have to tell by themselves that one was killed."""
    return SPAWNED not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
