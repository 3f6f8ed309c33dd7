"""The processes of one job: exchanges, shares of rows, and errors that end all of them.

Everything but the sum of gradients goes through one operation, `Ranks.all_gather`: each process passes a value or an
error, and gets the values of all. A process that fails anywhere therefore meets the others at their next exchange, and
all of them raise the same error. A process that is killed, or that fails while the others sum gradients, breaks the
connection, which raises PeerLost in the others.
"""

from __future__ import annotations

import os
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.distributed.accelerate_env import shards_asked, stage_asked
from alignzoo.core.distributed.launch import by_hand, launched
from alignzoo.core.distributed.rendezvous import connect
from alignzoo.core.errors import RunFailed, UserError, first_line, propagation
from alignzoo.core.packing import balance
from alignzoo.core.signals import Interrupted, shielded

T = TypeVar("T")

GRADIENTS = timedelta(minutes=30)
"""Timeout of a sum of gradients, which all processes reach at about the same time."""
ANYTHING = timedelta(days=30)
"""Timeout of every other exchange. The main process may tokenize or judge for days; a process that has ended breaks its
connection at once."""
REPORTED = "alignzoo reported"
"""Key of the job's store, set once a process has printed why it ends."""


class PeerLost(RunFailed):
    """Another process of the job has ended during an exchange."""


class Ranks:
    """This process and its job. A single process is the main one of one, and nothing is sent."""

    _waiting: Any = None

    def __init__(self, device: str = "cpu") -> None:
        """Join the job on a `device`, cpu or cuda. Raises UserError for a launch that can't work."""
        if launched():
            join_process_group()
        self.count, self.index = (dist.get_world_size(), dist.get_rank()) if launched() else (1, 0)
        self.main = self.index == 0
        """True in the process that writes the run folder and prints."""
        with self.together():
            self.device = _own_gpu() if launched() and device == "cuda" else torch.device(device)
            self.sharded = self.count > 1 and shards_asked()
            """True with FSDP: each process keeps a shard of the model, and every forward and backward is collective."""
            self.zero = stage_asked() if self.count > 1 else 0
            """The stage of DeepSpeed's ZeRO. From 1 each process keeps a part of the optimizer's state; with 2 also of
            the gradients, so that every backward is collective."""
        self.in_step = self.sharded or self.zero == 2
        """True if no process can do a backward by itself."""
        self.parted = self.sharded or self.zero > 0
        """True if no process can save a checkpoint by itself."""

    def all_gather(self, mine: Any = None, error: BaseException | None = None) -> list[Any]:
        """Return the value of each process, in order of rank.

        If any process passes an error, all processes raise the error of the first that has one.
        """
        if self.count == 1:
            if error is not None:
                raise error
            return [mine]
        gathered: list[Any] = [None] * self.count
        with shielded(), self.connected():
            dist.all_gather_object(gathered, (_pack(error, self.index, self.count), mine), group=Ranks._waiting)
        failed = next((rank for rank, (problem, _) in enumerate(gathered) if problem is not None), None)
        if failed is None:
            return [value for _, value in gathered]
        raised = error if error is not None and self.main and failed == 0 else _unpack(gathered[failed][0])
        path = propagation(raised)
        path.agreed, path.reported_elsewhere = True, not self.main
        raise raised from (None if raised is error else error)

    def broadcast_from_main(self, work: Callable[[], T]) -> T:
        """Call `work` in the main process, and return its result in every process."""
        result: T = self.all_gather(work() if self.main else None)[0]
        return result

    def alike(self, work: Callable[[], T]) -> T:
        """Call `work`, which runs the model, in the main process or in all processes.

        A sharded model needs all of them at once.
        """
        if not self.sharded:
            return self.broadcast_from_main(work)
        with self.connected():
            return work()

    def main_process_first(self, work: Callable[[], T]) -> T:
        """Call `work` in the main process, then in the others, which find its files."""
        results = [work()] if self.main else []
        self.all_gather()
        return results[0] if results else work()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise an error of one process in all, each at its next exchange."""
        try:
            yield
        except (Exception, Interrupted) as error:
            if self.count == 1 or propagation(error).agreed:
                raise
            if propagation(error).alone:
                self._decide_report(error)
                raise
            try:
                self.all_gather(error=error)
            except PeerLost:  # no other process is left
                self._decide_report(error)
                raise error from None

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Run a collective operation, whose errors the processes can't agree on.

        Raises:
            PeerLost: A connection breaks.
        """
        try:
            yield
        except Exception as error:
            lost = isinstance(error, dist.DistError) or any(word in str(error) for word in _BROKEN)
            raised = PeerLost("another process of this job has ended") if lost and self.count > 1 else error
            if self.count > 1:
                path = propagation(raised)
                path.alone, path.lost = True, lost
            if raised is error:
                raise
            raise raised from error

    def broken(self, error: BaseException) -> bool:
        """Return True if no collective operation, such as gathering shards, can follow this error."""
        return self.parted and propagation(error).alone

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.count > 1:
            with self.connected():
                dist.all_reduce(tensor)
        return tensor

    def all_see(self, folder: Path) -> bool:
        """Return True if every process sees the files that the main one writes in this folder."""
        if self.count == 1:
            return True

        def write() -> str:
            name = f".seen-{uuid.uuid4().hex}.tmp"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
            except OSError:  # a read-only folder may still be shared
                return ""
            return name

        name = self.broadcast_from_main(write)
        seen = all(self.all_gather(not name or (folder / name).exists()))
        if self.main and name:
            (folder / name).unlink(missing_ok=True)
        return seen

    def seat(self, folder: Path) -> tuple[int, int]:
        """Return this process's number among those that share a folder, and their count.

        They are all processes of the job, or those of its host.
        """
        if self.all_see(folder):
            return self.index, self.count
        return int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))

    def need_shared(self, folder: Path) -> None:
        """Raise UserError unless every process sees the main process's files in this folder."""
        if not self.all_see(folder):
            raise UserError(
                "not every process sees this folder", where=str(folder),
                expected="a file system that all hosts share, named by ALIGNZOO_RUNS",
            )  # fmt: skip

    def _decide_report(self, error: BaseException) -> None:
        """Decide who prints an error that the processes can't agree on.

        The process that failed prints its error. The others print that it has ended, if neither it nor a launcher does.
        """
        path = propagation(error)
        if path.reported_elsewhere is not None:
            return
        reported = path.lost and not by_hand()
        try:
            store = dist.distributed_c10d._get_default_store()
            if not path.lost:
                store.set(REPORTED, "")
            elif not reported:
                store.wait([REPORTED], timedelta(seconds=2))
                reported = True
        except (RuntimeError, ValueError):  # no report, or the store ended with its process
            pass
        path.reported_elsewhere = reported


@contextmanager
def together() -> Iterator[None]:
    """Raise an error of one process of a launched job in all, before a run exists."""
    with Ranks().together():
        yield


def share_rows(rows: Sequence[int], sizes: Sequence[int], rank: int, ranks: int) -> list[int]:
    """Return this rank's share of the rows, with about equal token counts.

    Each row, longest first, goes to the rank with the fewest tokens.
    """
    if ranks == 1:
        return list(rows)
    return [rows[i] for i in balance(sizes, ranks)[rank]]


def deal_rows(sizes: NDArray[np.int64], rank: int, ranks: int) -> NDArray[np.int64]:
    """Return this rank's share of the rows, dealt by length in alternating order.

    It takes any number of rows and is faster than `share_rows`.
    """
    order = np.argsort(-sizes, kind="stable")
    place = np.arange(len(order)) % (2 * ranks)
    return np.sort(order[np.minimum(place, 2 * ranks - 1 - place) == rank])


def join_process_group() -> None:
    """Join the process group of the launch, once."""
    if Ranks._waiting is not None:
        return
    if not dist.is_initialized():
        connect("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", GRADIENTS)
    Ranks._waiting = dist.new_group(backend="gloo", timeout=ANYTHING)


def _own_gpu() -> torch.device:
    here, own = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.device_count() < here:
        raise UserError(
            f"{here} processes on this machine and {torch.cuda.device_count()} GPUs",
            expected="one GPU per process, or train.device=cpu",
        )  # fmt: skip
    torch.cuda.set_device(own)
    return torch.device("cuda", own)


def leave_process_group(code: int) -> None:
    """Leave the process group; unless `code` is 0, also end the process with that code.

    A process that ends does not wait for others, which may have ended before.
    """
    if not dist.is_initialized():
        return
    if code == 0:
        dist.destroy_process_group()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "Socket closed")


def _pack(error: BaseException | None, rank: int, ranks: int) -> Any:
    """An error as a picklable value."""
    if error is None:
        return None
    if isinstance(error, UserError):
        return UserError, (error.problems,)
    if isinstance(error, Interrupted):
        return Interrupted, (str(error), error.code - 128)
    if isinstance(error, RunFailed):
        return RunFailed, (str(error),)
    place = traceback.extract_tb(error.__traceback__)[-1:]
    at = "".join(f" ({one.filename}:{one.lineno})" for one in place)
    words = first_line(error)
    return RunFailed, (f"process {rank} of {ranks}: {type(error).__name__}: {words}{at}",)


def _unpack(packed: Any) -> BaseException:
    kind, arguments = packed
    error: BaseException = kind(*arguments)
    return error
