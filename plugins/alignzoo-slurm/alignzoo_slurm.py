"""Runs of a comparison as steps of a SLURM job."""

from collections.abc import Sequence

from alignzoo import Executor, Field, hookimpl


class Slurm(Executor):
    """Workers that `srun` starts, one step for each run at a time."""

    name = "slurm"

    options: tuple[str, ...] = Field((), description="options of srun, such as --partition=gpu and --gpus=1")

    def command(self, worker: Sequence[str], slot) -> Sequence[str]:
        """Start the worker as a single task, which gets this process's stdin."""
        return ["srun", "--ntasks=1", f"--job-name=alignzoo-{slot.number}", *self.options, *worker]


@hookimpl
def register_executors():
    return [Slurm]
