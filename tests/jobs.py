"""Commands and jobs of several processes, forked from one that has imported everything but plugins.

Starting one takes a tenth of a second. A fork has the parent's hash seed: where a fresh one matters, start a fresh Python.

Each process is given its place by the variables that every launcher sets, so a job here is also what two hosts are that
were started by hand.
"""

from __future__ import annotations

import csv
import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from checkout import ROOT

from alignzoo.core.distributed.launch import LISTENER

CONTEXT = get_context("forkserver")
TIMED = ("seconds", "pairs_per_second", "peak_memory")
"""Words of columns that a clock or another process decides."""
PRELOAD = [
    "alignzoo.training.run",
    "alignzoo.cli.run",
    "alignzoo.cli.compare",
    "alignzoo.report",
    "torch.distributed.fsdp",
]
CONTEXT.set_forkserver_preload(PRELOAD)
PATIENCE = 600
"""Seconds that a test waits for what must happen. It is a hang that takes so long, and not a busy machine."""
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
"""What `accelerate launch` sets by recipes/accelerate/fsdp2.yaml."""
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
"""By recipes/accelerate/zero.yaml; stage 1 as ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}."""
KEPT = ("PATH", "PYTHONPATH", "HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "ALIGNZOO_PLUGINS")
ALIGNZOO = "import sys; sys.argv[0] = 'alignzoo'; from alignzoo.cli.app import main; main()"
"""What pip's script `alignzoo` does."""
SMALLEST = ["--with", "tests/smallest.yaml"]
DPO = ["run", "recipes/dpo_hh.yaml", *SMALLEST]


def run_folder(folder: Path, name: str = "dpo_hh") -> Path:
    """The one run of that name in `folder`/runs."""
    (found,) = (folder / "runs").glob(f"{name}-*")
    return found


def unfinish(run: Path, step: int = 4) -> None:
    """Take away what a finished run has beyond its checkpoint of a step, as if it had been killed."""
    (run / "summary.json").unlink()
    for checkpoint in (run / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)


def bytes_of(folder: Path) -> list[bytes]:
    """What a run folder holds that must not depend on how the run came about."""
    return [(folder / name).read_bytes() for name in ("policy/model.safetensors", "metrics.jsonl", "samples.jsonl")]


def bound_port() -> tuple[socket.socket, str]:
    """A socket that holds a port until it is closed, and the port. Process 0 of a job is to listen on it."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held, str(held.getsockname()[1])


def _run(words: Sequence[str]) -> None:
    """Do what `python WORDS` does: `-m MODULE`, `-c CODE` or a script, with its arguments."""
    option, *rest = words
    if option == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        exec(code, {"__name__": "__main__"})
    elif option == "-m":
        name, *rest = rest
        sys.path.insert(0, os.getcwd())
        sys.argv = [name, *rest]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(option).parent))
        sys.argv = [option, *rest]
        runpy.run_path(option, run_name="__main__")


def _rank(
    words: Sequence[str], environment: Mapping[str, str], output: str, errors: str = "", folder: str = str(ROOT),
    listener: socket.socket | None = None,
) -> None:  # fmt: skip
    os.environ.clear()
    os.environ.update(environment)
    if listener is not None:
        os.environ[LISTENER] = str(listener.detach())
    os.chdir(folder)
    os.fsync = lambda handle: None  # as in conftest.py
    inside = tuple(
        str(ROOT / part) for part in ("tests", "plugins", "benchmarks")
    )  # of the tests' own path, not a user's
    asked = [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:] = asked + [one for one in sys.path if not one.startswith(inside)]
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if errors else file, 2)
    code: Any = 1
    try:
        _run(words)
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


@dataclass
class Command:
    """One process that runs a command."""

    process: Any
    streams: Path

    def poll(self) -> int | None:
        """Its exit code, or None while it works."""
        return self.process.exitcode

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.join()

    def wait(self, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Its end; a process that hangs is killed, and fails the test."""
        self.process.join(seconds)
        hung = self.process.is_alive()
        self.kill()
        out, err = ((self.streams / name).read_text() for name in ("stdout", "stderr"))
        shutil.rmtree(self.streams)
        assert not hung, f"still at work after {seconds} s: {err}"
        return subprocess.CompletedProcess((), self.process.exitcode, out, err)


def python(
    *words: Any, folder: Path = ROOT, listener: socket.socket | None = None, **environment: str | None
) -> Command:
    """Start `python WORDS` in a folder, with this process's environment and `environment`.

    A variable that is None is not set. `listener` is the socket of `bound_port`, for process 0 of a job.
    """
    streams = Path(mkdtemp(prefix="command-"))
    files = [str(streams / name) for name in ("stdout", "stderr")]
    own = {name: value for name, value in (os.environ | environment).items() if value is not None}
    process = CONTEXT.Process(target=_rank, args=([str(word) for word in words], own, *files, str(folder), listener))
    process.start()
    return Command(process, streams)


def command(*arguments: Any, folder: Path = ROOT, **environment: str | None) -> Command:
    """Start `alignzoo ARGUMENTS`, otherwise as `python` does."""
    return python("-c", ALIGNZOO, *arguments, folder=folder, **environment)


@dataclass
class Job:
    """Processes that run one command line together."""

    processes: list[Any]
    outputs: list[Path]

    def wait(self, seconds: float = PATIENCE) -> list[int]:
        """Their exit codes; whatever hangs is killed, and fails the test."""
        deadline = time.monotonic() + seconds
        for one in self.processes:
            one.join(max(0.1, deadline - time.monotonic()))
        hung = [rank for rank, one in enumerate(self.processes) if one.is_alive()]
        for one in self.processes:
            one.kill()
            one.join()
        assert not hung, f"processes {hung} hang: {self.said()}"
        return [one.exitcode for one in self.processes]

    def said(self) -> list[str]:
        """What each wrote to stdout and stderr."""
        return [path.read_text() for path in self.outputs]

    def errors(self) -> list[str]:
        """Every line of an error, of all of them."""
        return [line for text in self.said() for line in text.splitlines() if line.startswith(("error:", "Traceback"))]


def start(
    folder: Path, arguments: Sequence[Any], ranks: int = 1, environments: Sequence[Mapping[str, str]] = ({},)
) -> Job:
    """Start `alignzoo ARGUMENTS` on so many processes, with `folder`/runs and `folder`/cache.

    `environments`: what each process has besides, or one for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = {name: os.environ[name] for name in KEPT if name in os.environ}
    shared |= {"ALIGNZOO_RUNS": str(folder / "runs"), "ALIGNZOO_CACHE": str(folder / "cache")}
    if sys.platform == "linux":
        shared["GLOO_SOCKET_IFNAME"] = "lo"
    listener = None
    if ranks > 1:
        size, (listener, port) = str(ranks), bound_port()
        shared |= {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    job = Job([], [])
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        own |= environments[rank if len(environments) > 1 else 0]
        output = folder / f"rank-{rank}.txt"
        words = ["-c", ALIGNZOO, *(str(word) for word in arguments)]
        first = {} if rank else {"listener": listener}
        process = CONTEXT.Process(target=_rank, args=(words, shared | own, str(output)), kwargs=first)
        process.start()
        if listener is not None:
            listener.close()  # process 0 has it
        job.processes.append(process)
        job.outputs.append(output)
    return job


OBJECTIVE = '''
"""Goes wrong in one process, at its second step."""
import os, signal
import torch
from alignzoo import Objective, hookimpl

class Wrong(Objective):
    """DPO-like, until it goes wrong."""

    name = "wrong"
    needs_uniform = True
    _calls = []

    def loss(self, pair):
        losses = (pair.rejected.log_prob - pair.chosen.log_prob) * 1e-3
        self._calls.append(None)
        calls = len(self._calls)
        if os.environ.get("RANK") == "{rank}" and losses.requires_grad and {when}:
            {what}
        return losses

@hookimpl
def register_objectives():
    return [Wrong]
'''
RECIPE = "extends: {root}/recipes/bases/hh_preference.yaml\nplugins: [./wrong.py]\nobjective: {{name: wrong}}\n"


def goes_wrong(
    folder: Path, what: str, environment: Mapping[str, str], *arguments: str, rank: int = 1, when: str = "calls > 3"
) -> Job:
    """A run on two processes, of which one does `what` instead of giving its losses."""
    words = OBJECTIVE.replace("{what}", what).replace("{when}", when).replace("{rank}", str(rank))
    (folder / "wrong.py").write_text(words)
    (folder / "wrong.yaml").write_text(RECIPE.format(root=ROOT))
    command = ["run", folder / "wrong.yaml", *SMALLEST, "train.checkpoint_every=1", *arguments]
    return start(folder, command, 2, [environment])


def untimed(folder: Path) -> list[list[str]]:
    """table.csv without what a clock or another process's memory decides."""
    with open(folder / "table.csv", newline="") as file:
        rows = list(csv.reader(file))
    keep = [i for i, name in enumerate(rows[0]) if not any(word in name for word in TIMED)]
    column = rows[0].index("column") if "column" in rows[0] else None
    return [
        [row[i] for i in keep] for row in rows
        if column is None or not any(word in row[column] for word in TIMED)
    ]  # fmt: skip
