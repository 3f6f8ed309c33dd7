"""`alignzoo run --processes N`: start the same command N times on this machine.

All processes are ended when one fails.
"""

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

from alignzoo.core.concurrency import usable_cores
from alignzoo.core.distributed.launch import LISTENER, LOST, SPAWNED
from alignzoo.core.signals import exit_words, stop_signals

PATIENCE = 10.0
"""Seconds that the other processes have to end by themselves once one has failed."""


def run_on(processes: int) -> int:
    """Run this command in several processes, and return the exit code of the job.

    The output of the main process is shown, and that of another one only if it is the one that failed.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    shared = os.environ | {
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(listener.getsockname()[1]), SPAWNED: "1",
    }  # fmt: skip
    shared.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    if sys.platform == "linux":
        shared.setdefault("GLOO_SOCKET_IFNAME", "lo")
    started: list[subprocess.Popen[bytes]] = []
    outputs: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(1, processes)]
    before = {number: signal.signal(number, _passes_on(started)) for number in stop_signals()}
    try:
        for rank in range(processes):
            own, quiet = {"RANK": str(rank), "LOCAL_RANK": str(rank)}, {}
            if rank == 0:
                own[LISTENER] = str(listener.fileno())
            else:
                quiet = {"stdout": outputs[rank - 1], "stderr": subprocess.STDOUT}
            started.append(
                subprocess.Popen(
                    _this_command(), env=shared | own, stdin=subprocess.PIPE, start_new_session=True,
                    pass_fds=() if rank else (listener.fileno(),), **quiet,
                )  # type: ignore[call-overload]
            )  # fmt: skip
            listener.close()  # of this process: once the main one has ended, the port is closed
        return _job(_ended(started), outputs)
    finally:
        listener.close()
        for one in started:
            one.kill()
            one.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _this_command() -> list[str]:
    """The command line of this process: the console script, or `python -m alignzoo`."""
    way = ["-m", "alignzoo"] if os.path.basename(sys.argv[0]) == "__main__.py" else [sys.argv[0]]
    return [sys.executable, *way, *sys.argv[1:]]


def _passes_on(started: list[subprocess.Popen[bytes]]):  # type: ignore[no-untyped-def]
    """A handler that forwards a signal to all processes.

    They have sessions of their own, to which the terminal sends no signals.
    """

    def on(number: int, frame: FrameType | None) -> None:
        for one in started:
            if one.poll() is None:
                one.send_signal(number)

    return on


def _ended(started: list[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for all processes and return their exit codes.

    After a failure the others are killed after PATIENCE seconds. The code of a process that a signal ended is the
    negative number of the signal; those killed here have LOST.
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


def _job(codes: list[int], outputs: list[IO[bytes]]) -> int:
    """Print errors that the main process did not see, and return the job's exit code."""
    for rank, code in enumerate(codes):
        if code < 0:
            kept = "the same command continues from the last checkpoint"
            print(f"error: process {rank} of {len(codes)} {exit_words(code)}; {kept}", file=sys.stderr)
            return 1
    if codes[0] != LOST:
        return codes[0] or next((code for code in codes if code), 0)
    for rank, code in enumerate(codes[1:], 1):
        if code not in (0, LOST):
            outputs[rank - 1].seek(0)
            sys.stderr.write(outputs[rank - 1].read().decode(errors="replace"))
            return code
    return 1
