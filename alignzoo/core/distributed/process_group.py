"""The processes of one job: who does what, what they tell each other, and how they end together.

Everything but the sum of gradients goes through one operation, `Ranks.everyone`: each process hands in a value, or why
it can't go on, and gets what all handed in. So a process that fails anywhere meets the others wherever they wait next,
and all of them raise the same error. What can't be agreed on (a process was killed, or failed while the others were
adding up gradients) breaks the connection, which raises PeerLost in the others.
"""

from __future__ import annotations

import os
import socket
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
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.core.signals import Interrupted, shielded

T = TypeVar("T")

GRADIENTS = timedelta(minutes=30)
"""How long a process waits for the others' gradients: all of them are about the same step."""
ANYTHING = timedelta(days=30)
"""How long it waits for anything else. The main process may tokenize or judge for days, and a process that has ended
is noticed at once, by its connection."""
TOLD = "alignzoo told"
"""What the job's store holds once a process has told the user why it ends."""


class PeerLost(RunFailed):
    """Another process of the job has ended in the middle of something."""


class Ranks:
    """This process among those of its job; alone it is the main one of one, and nothing is sent anywhere."""

    _waiting: Any = None

    def __init__(self, device: str = "cpu") -> None:
        """`device`: cpu or cuda. Raises UserError for a launch that can't work."""
        if launched():
            join_process_group()
        self.count, self.index = (dist.get_world_size(), dist.get_rank()) if launched() else (1, 0)
        self.main = self.index == 0
        """Whether this is the one that writes the run folder and talks to the user."""
        with self.together():
            self.device = _own_gpu() if launched() and device == "cuda" else torch.device(device)
            self.sharded = self.count > 1 and shards_asked()
            """Whether each process keeps a shard of the model, so that every forward and backward is one of all."""
            self.zero = stage_asked() if self.count > 1 else 0
            """The stage of DeepSpeed's ZeRO: from 1 each process keeps a part of the optimizer's state; with 2 also of
            the gradients, so that every backward is one of all."""
        self.in_step = self.sharded or self.zero == 2
        """Whether no process can do a backward by itself."""
        self.parted = self.sharded or self.zero > 0
        """Whether no process can save a checkpoint by itself."""

    def all_gather(self, mine: Any = None, error: BaseException | None = None) -> list[Any]:
        """What each process hands in, in their order. Raises, in all of them, the error of the first that has one."""
        if self.count == 1:
            if error is not None:
                raise error
            return [mine]
        said: list[Any] = [None] * self.count
        with shielded(), self.connected():
            dist.all_gather_object(said, (_packed(error, self.index, self.count), mine), group=Ranks._waiting)
        failed = next((rank for rank, (problem, _) in enumerate(said) if problem is not None), None)
        if failed is None:
            return [value for _, value in said]
        raised = error if error is not None and self.main and failed == 0 else _unpacked(said[failed][0])
        _mark(raised, agreed=True, told=not self.main)
        raise raised from (None if raised is error else error)

    def broadcast_from_main(self, work: Callable[[], T]) -> T:
        """What the main process makes, in every process; the others wait for it."""
        made: T = self.all_gather(work() if self.main else None)[0]
        return made

    def alike(self, work: Callable[[], T]) -> T:
        """What the model makes: as `broadcast_from_main`, or where each has a shard of it in all processes at once."""
        if not self.sharded:
            return self.broadcast_from_main(work)
        with self.connected():
            return work()

    def main_process_first(self, work: Callable[[], T]) -> T:
        """`work` in the main process, then in the others, which find what it left."""
        made = [work()] if self.main else []
        self.all_gather()
        return made[0] if made else work()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one process raises within the block all raise, each where it next meets the others."""
        try:
            yield
        except (Exception, Interrupted) as error:
            if self.count == 1 or _is(error, "agreed"):
                raise
            if _is(error, "alone"):
                self._tell_alone(error)
                raise
            try:
                self.all_gather(error=error)
            except PeerLost:  # nobody is there any more to be told
                self._tell_alone(error)
                raise error from None

    @contextmanager
    def connected(self) -> Iterator[None]:
        """While processes exchange something: what fails here can't be agreed on. Raises PeerLost where a connection
        breaks.
        """
        try:
            yield
        except Exception as error:
            lost = isinstance(error, dist.DistError) or any(word in str(error) for word in _BROKEN)
            raised = PeerLost("another process of this job has ended") if lost and self.count > 1 else error
            if self.count > 1:
                _mark(raised, alone=True, lost=lost)
            if raised is error:
                raise
            raise raised from error

    def broken(self, error: BaseException) -> bool:
        """Whether nothing that takes all processes, as gathering shards does, can be done after this error."""
        return self.parted and _is(error, "alone")

    def sum(self, tensor: Tensor) -> Tensor:
        """Over all processes, in place."""
        if self.count > 1:
            with self.connected():
                dist.all_reduce(tensor)
        return tensor

    def all_see(self, folder: Path) -> bool:
        """Whether every process finds what the main one writes in this folder."""
        if self.count == 1:
            return True

        def write() -> str:
            name = f".seen-{uuid.uuid4().hex}.tmp"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
            except OSError:  # it may be there to be read alone, by all
                return ""
            return name

        name = self.broadcast_from_main(write)
        seen = all(self.all_gather(not name or (folder / name).exists()))
        if self.main and name:
            (folder / name).unlink(missing_ok=True)
        return seen

    def seat(self, folder: Path) -> tuple[int, int]:
        """This process's number among those that share a folder, and how many they are: all, or those of a host."""
        if self.all_see(folder):
            return self.index, self.count
        return int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))

    def need_shared(self, folder: Path) -> None:
        """Raises UserError where a process does not see what the main one writes in this folder."""
        if not self.all_see(folder):
            raise UserError(
                "not every process sees this folder", where=str(folder),
                expected="a file system that all hosts share, named by ALIGNZOO_RUNS",
            )  # fmt: skip

    def _tell_alone(self, error: BaseException) -> None:
        """What could not be agreed on: whoever failed tells why, and the others only that somebody is gone, and only
        where neither it nor a launcher does.
        """
        if "told" in error.__dict__:
            return
        told = _is(error, "lost") and not by_hand()
        try:
            store = dist.distributed_c10d._get_default_store()
            if not _is(error, "lost"):
                store.set(TOLD, "")
            elif not told:
                store.wait([TOLD], timedelta(seconds=2))
                told = True
        except (RuntimeError, ValueError):  # nobody has told, or the store went with the process that held it
            pass
        _mark(error, told=told)


@contextmanager
def together() -> Iterator[None]:
    """What one process of a launched job raises within the block all raise: for what comes before a run."""
    with Ranks().together():
        yield


def share_rows(rows: Sequence[int], sizes: Sequence[int], rank: int, ranks: int) -> list[int]:
    """This rank's part of the rows, so that all ranks get about the same number of tokens (longest to the emptiest)."""
    if ranks == 1:
        return list(rows)
    loads = [0] * ranks
    parts: list[list[int]] = [[] for _ in range(ranks)]
    for i in sorted(range(len(rows)), key=lambda i: (-sizes[i], i)):
        least = min(range(ranks), key=lambda r: (loads[r], r))
        parts[least].append(rows[i])
        loads[least] += sizes[i]
    return parts[rank]


def deal_rows(sizes: NDArray[np.int64], rank: int, ranks: int) -> NDArray[np.int64]:
    """The same for any number of rows, in no time: theirs are dealt out by length, to and fro."""
    order = np.argsort(-sizes, kind="stable")
    place = np.arange(len(order)) % (2 * ranks)
    return np.sort(order[np.minimum(place, 2 * ranks - 1 - place) == rank])


def join_process_group() -> None:
    """Meet the other processes of the launch, unless they have met."""
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            dist.init_process_group(backend, timeout=GRADIENTS)
        except (ValueError, RuntimeError) as error:
            what = (str(error).splitlines() or [""])[0]
            raise UserError(f"the processes of this job did not meet: {what}", where=socket.gethostname()) from error
    if Ranks._waiting is None:
        Ranks._waiting = dist.new_group(backend="gloo", timeout=ANYTHING)


def _own_gpu() -> torch.device:
    here, own = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.device_count() < here:
        raise UserError(
            f"{here} processes on this machine and {torch.cuda.device_count()} GPUs",
            expected="a process a GPU, or train.device=cpu",
        )  # fmt: skip
    torch.cuda.set_device(own)
    return torch.device("cuda", own)


def leave_process_group(code: int) -> None:
    """End this process with `code` if it is one of a job: without waiting for others that may have ended before."""
    if not dist.is_initialized():
        return
    if code == 0:
        dist.destroy_process_group()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "Socket closed")


def _mark(error: BaseException, **marks: bool) -> None:
    error.__dict__.update(marks)


def _is(error: BaseException, mark: str) -> bool:
    return bool(error.__dict__.get(mark))


def _packed(error: BaseException | None, rank: int, ranks: int) -> Any:
    """An error as a value that can be sent."""
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
    words = (str(error).splitlines() or [""])[0]
    return RunFailed, (f"process {rank} of {ranks}: {type(error).__name__}: {words}{at}",)


def _unpacked(packed: Any) -> BaseException:
    kind, arguments = packed
    error: BaseException = kind(*arguments)
    return error
