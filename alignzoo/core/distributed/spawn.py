"""`alignzoo run --processes N`: start the same command N times on this machine, and see that all end when one does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from types import FrameType
from typing import IO

from alignzoo.core.distributed.launch import LOST, SPAWNED

PATIENCE = 10.0
"""Seconds that the others have to end by themselves once one has failed."""


def run_on(processes: int) -> int:
    """Run this very command on so many processes, and return the exit code of the job.

    The main process talks to the user; what another one has to say is told if it is the one that failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port, SPAWNED: "1",
    }  # fmt: skip
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if sys.platform == "linux":
        shared.setdefault("GLOO_SOCKET_IFNAME", "lo")
    started: list[subprocess.Popen[bytes]] = []
    said: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(1, processes)]
    before = {number: signal.signal(number, _passes_on(started)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for rank in range(processes):
            quiet = {} if rank == 0 else {"stdout": said[rank - 1], "stderr": subprocess.STDOUT}
            started.append(
                subprocess.Popen(
                    _this_command(), env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdin=subprocess.PIPE, start_new_session=True, **quiet,
                )  # type: ignore[call-overload]
            )  # fmt: skip
        return _job(_ended(started), said)
    finally:
        for one in started:
            one.kill()
            one.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _this_command() -> list[str]:
    """As it was started: the console script, or `python -m alignzoo`."""
    way = ["-m", "alignzoo"] if os.path.basename(sys.argv[0]) == "__main__.py" else [sys.argv[0]]
    return [sys.executable, *way, *sys.argv[1:]]


def _passes_on(started: list[subprocess.Popen[bytes]]):  # type: ignore[no-untyped-def]
    """A signal goes to all processes, once: they have a session of their own, in which no terminal sends any."""

    def on(number: int, frame: FrameType | None) -> None:
        for one in started:
            if one.poll() is None:
                one.send_signal(number)

    return on


def _ended(started: list[subprocess.Popen[bytes]]) -> list[int]:
    """The exit codes, when all have ended. Once one has failed the others are given some time, then killed.

    A process that was killed by a signal has the signal's number, negative; those killed here have LOST.
    """
    deadline: float | None = None
    killed: set[int] = set()
    while any(one.poll() is None for one in started):
        if deadline is None and any(one.returncode for one in started):
            deadline = time.monotonic() + PATIENCE
        if deadline is not None and time.monotonic() > deadline:
            for rank, one in enumerate(started):
                if one.returncode is None:
                    killed.add(rank)
                    one.kill()
        time.sleep(0.02)
    return [LOST if rank in killed else one.returncode for rank, one in enumerate(started)]


def _job(codes: list[int], said: list[IO[bytes]]) -> int:
    """The exit code of the job, after telling what the main process could not know."""
    for rank, code in enumerate(codes):
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the system kills so when memory runs out" if name == "SIGKILL" else ""
            kept = "the same command goes on from the last checkpoint"
            print(f"error: process {rank} of {len(codes)} was ended by {name}{hint}; {kept}", file=sys.stderr)
            return 1
    if codes[0] != LOST:
        return codes[0] or next((code for code in codes if code), 0)
    for rank, code in enumerate(codes[1:], 1):
        if code not in (0, LOST):
            said[rank - 1].seek(0)
            sys.stderr.write(said[rank - 1].read().decode(errors="replace"))
            return code
    return 1
