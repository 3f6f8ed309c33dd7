"""The executor of one machine, whose workers have a share of its cores or a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from alignzoo.core.concurrency import usable_cores
from alignzoo.core.errors import UserError
from alignzoo.interfaces.executor import Executor, Slot

THREADS, GPUS = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"


class Local(Executor):
    """Processes on this machine, each with an equal share of its cores, or a GPU of its own."""

    name = "local"

    def ready(self, slots: Sequence[Slot]) -> None:
        """Check that there is a GPU for each worker, if the runs use one."""
        if use_gpu(slots[0].devices):
            check_gpus(len(slots), visible_gpus())

    def environment(self, slot: Slot) -> dict[str, str]:
        """Return the variables that limit a worker to its share."""
        return share(slot, usable_cores(), visible_gpus() if use_gpu(slot.devices) else None, os.environ)


def use_gpu(devices: Iterable[str]) -> bool:
    """Return True if runs with these `train.device` use a GPU here.

    Raises:
        UserError: One asks for a GPU, and there is none.
    """
    from alignzoo.training.policy import device_of

    return "cuda" in set(map(device_of, devices))


def share(slot: Slot, cores: int, gpus: Sequence[str] | None, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a worker: its number of threads, and its GPU.

    A number of threads that the user has set stays, for every worker. Other numbers change the order of float sums,
    and thereby the last digits of results.

    Args:
        slot: Place of the worker.
        cores: Cores that all workers may use together.
        gpus: GPUs that they may use, one each; None if they use none.
        given: Variables of this process.
    """
    found = {THREADS: given.get(THREADS) or str(max(1, cores // slot.of))}
    return found if gpus is None else found | {GPUS: gpus[slot.number]}


def check_gpus(jobs: int, gpus: Sequence[str]) -> None:
    """Check that each job has a GPU of its own.

    Raises:
        UserError: There are fewer GPUs than jobs.
    """
    if jobs > len(gpus):
        raise UserError(
            f"{jobs} runs at a time need {jobs} GPUs, and this process may use {len(gpus)}", where="jobs",
            expected=f"at most {len(gpus)}", hint="train.device=cpu shares out cores in place of GPUs",
        )  # fmt: skip


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    given = os.environ.get(GPUS)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
