"""Launchers: the variables that give a process its job, and which process reports errors."""

from __future__ import annotations

import os
import threading

from alignzoo.core.errors import UserError, propagation

SPAWNED = "ALIGNZOO_SPAWNED"
"""Environment variable set in the processes of `alignzoo run --processes`."""
LISTENER = "ALIGNZOO_LISTENER"
"""Environment variable with the number of the open socket, bound to MASTER_PORT, on which process 0 is to listen. The
process that has started the job holds the port from choosing it on, so that no other program can take it."""
LOST = 75
"""Exit code of a process that ended because another process of its job did."""


PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that every launcher sets."""


def check_place() -> str:
    """Check the variables of a launcher; return a note, or "" if there is nothing to say.

    `RANK` alone, from a shell's profile or a container, starts no job: the note says so, and the variables are removed,
    so that no library takes this for one process of several.

    Raises:
        UserError: All variables are there, and one is no number or out of range.
    """
    found = [name for name in PLACE if os.environ.get(name)]
    if "RANK" not in found:
        os.environ.pop("RANK", None)  # set, and empty
        return ""
    if len(found) < len(PLACE):
        missing = " and ".join(name for name in PLACE if name not in found)
        for name in (*PLACE, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)
        return f"note: RANK is set without {missing}, so no launcher set it: this process works alone"
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        if not (os.environ[name].isascii() and os.environ[name].isdigit()):
            raise UserError(f"{name} is '{os.environ[name]}'", where="environment", expected="a whole number")
    if int(os.environ["RANK"]) >= size():
        raise UserError(
            f"RANK is {os.environ['RANK']} and WORLD_SIZE is {size()}", where="environment",
            expected="RANK from 0 to WORLD_SIZE - 1",
        )  # fmt: skip
    return ""


def launched() -> bool:
    """Return True if the job has several processes.

    They are started by torchrun, accelerate or `--processes`, or by hand.
    """
    return all(name in os.environ for name in PLACE) and size() > 1


def rank() -> int:
    """Return this process's number in its job; 0 is the main process."""
    return int(os.environ["RANK"]) if launched() else 0


def size() -> int:
    """Return the number of processes of the job."""
    try:
        return int(os.environ.get("WORLD_SIZE", 1))
    except ValueError:
        return 1


def end_with_parent() -> None:
    """End a process of `alignzoo run --processes` once its parent has ended for any reason."""
    if SPAWNED not in os.environ:
        return

    def watch() -> None:
        os.read(0, 1)  # a pipe that nobody writes to
        os._exit(LOST)

    threading.Thread(target=watch, daemon=True).start()


def mark_reported_by_main(error: BaseException) -> None:
    """Let the main process alone print an error that all processes have.

    Without a launcher that has started them all, each process prints it.
    """
    propagation(error).reported_elsewhere = rank() > 0 and not by_hand()


def reported_elsewhere(error: BaseException) -> bool:
    """Return True if another process of the job prints this error."""
    return bool(propagation(error).reported_elsewhere)


def lost_peer(error: BaseException) -> bool:
    """Return True for an error caused by the end of another process.

    It is True only in a process of `alignzoo run --processes`.
    """
    return SPAWNED in os.environ and propagation(error).lost


def by_hand() -> bool:
    """Return True if no launcher watches the processes.

    They then report a killed process themselves.
    """
    return SPAWNED not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
