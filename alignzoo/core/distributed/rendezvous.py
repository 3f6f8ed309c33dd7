"""The first meeting of a job's processes, with a deadline.

A process that has ended looks like one that is late.
"""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta

import torch.distributed as dist

from alignzoo.core.distributed.launch import LISTENER
from alignzoo.core.errors import UserError, first_line

MEETING = 50
"""Seconds in which all processes must come. ALIGNZOO_JOIN_SECONDS sets another number."""
CONNECTING = timedelta(seconds=30)
"""Timeout of connecting processes that have all come."""


def connect(backend: str, timeout: timedelta) -> None:
    """Make torch's process group once every process of the job has connected.

    `timeout` is that of later operations.

    Raises:
        UserError: The processes can't connect, or not all come in time.
    """
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    seconds = _patience()
    deadline = time.monotonic() + seconds
    missing = 0
    try:
        if rank > 0:
            _wait_for_main(deadline)
        store = _store(rank, count, timedelta(seconds=seconds))
        store.set(_came(rank), "")
        for missing in range(count):
            store.wait([_came(missing)], timedelta(seconds=max(1.0, deadline - time.monotonic())))
        deadline = time.monotonic() + CONNECTING.total_seconds()
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=CONNECTING)
    except (ValueError, RuntimeError, OSError) as error:
        late = time.monotonic() >= deadline - 1
        who = f"process {missing} of {count}" if missing or rank else "another process"
        what = f"{who} did not come within {seconds} s, or has ended" if late else first_line(error)
        raise UserError(
            f"the processes of this job could not connect: {what}", where=socket.gethostname(),
            hint="ALIGNZOO_JOIN_SECONDS sets a longer time" if late else "",
        ) from error  # fmt: skip
    store.set_timeout(timeout)
    dist.distributed_c10d._set_pg_timeout(timeout)


def _store(rank: int, count: int, timeout: timedelta) -> dist.Store:
    """Return the job's store, at MASTER_ADDR and MASTER_PORT. The main process serves it."""
    listener = os.environ.pop(LISTENER, "")
    if rank > 0 or not listener:
        store, _, _ = next(dist.rendezvous("env://", rank, count, timeout=timeout))
        return store
    return dist.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), count, is_master=True, timeout=timeout,
        wait_for_workers=False, master_listen_fd=int(listener),
    )  # fmt: skip


def _came(rank: int) -> str:
    return f"alignzoo came {rank}"


def _wait_for_main(deadline: float) -> None:
    """Wait until the main process listens.

    torch's own client tries for twice its time limit and prints stack traces.
    """
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    while True:
        try:
            return socket.create_connection(address, max(0.1, deadline - time.monotonic())).close()
        except OSError:
            if time.monotonic() >= deadline - 0.2:
                raise
            time.sleep(0.2)


def _patience() -> int:
    given = os.environ.get("ALIGNZOO_JOIN_SECONDS", str(MEETING))
    if not (given.isascii() and given.isdigit() and int(given)):
        raise UserError(
            f"ALIGNZOO_JOIN_SECONDS is '{given}'", where="environment", expected="a whole number of seconds"
        )
    return int(given)
