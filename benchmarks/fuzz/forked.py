"""Run a command in a child forked from this process, with limits, and classify what came of it.

The limits count from the fork: seconds of processor time, bytes of memory beyond what the parent had, and the folders
that may be written to. A command passes if it ends by itself with one of the exit codes that it may have, within them,
without a traceback, and without having run code that belongs to its input.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS, MEGABYTES = 10, 2048
"""What a refusal may take, and what any command may take in memory."""
WORK_SECONDS = 60
"""What a command may take that does what its input asks for, such as tokenizing thousands of rows."""
HANG_SECONDS = 60
"""Wall time without any processor time after which a child is killed. A busy machine may give it little, but not none."""
ADDRESS_SPACE = 6 * 2**30
"""What a child may map beyond its parent, so that one input can't take the machine's memory."""
WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
RUNS_CODE = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect")
SETTINGS = {
    "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
    "ALIGNZOO_PLUGINS": "", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The end of a command."""

    code: int
    """Exit code, negative for a signal."""
    fault: str
    """Why it does not pass; "" if it does."""
    said: str
    """Its stderr."""
    seconds: float
    megabytes: float


def run(
    words: Sequence[str], folder: Path, allowed: Sequence[int] = (0, 2), modules: Path | None = None,
    limit: int | None = None,
) -> Outcome:  # fmt: skip
    """Run `alignzoo WORDS` in `folder`, the only place that it may write to.

    Args:
        words: The command line.
        folder: Working folder, which also holds its runs, cache and temporary files.
        allowed: Exit codes with which it may end.
        modules: A file for the names of the modules that it has imported at its end, or None.
        limit: Seconds of processor time that it may take; None: `SECONDS`, and `WORK_SECONDS` if it ends with 0.
    """
    for name in ("tmp", "home", "runs", "cache"):
        (folder / name).mkdir(exist_ok=True)
    paths = {name: folder / f".{name}" for name in ("out", "err", "notes")}
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        _child(words, folder, paths, modules, limit or WORK_SECONDS)
    status, usage, hung = _wait(pid)
    said = paths["err"].read_text("utf-8", "replace") if paths["err"].exists() else ""
    notes = paths["notes"].read_text("utf-8", "replace").splitlines() if paths["notes"].exists() else []
    for path in paths.values():
        path.unlink(missing_ok=True)
    before = int(notes.pop(0)) if notes else 0
    seconds, megabytes = usage.ru_utime + usage.ru_stime, (usage.ru_maxrss - before) / 1024
    code = os.waitstatus_to_exitcode(status)
    late = seconds > (limit or (SECONDS if code else WORK_SECONDS))
    fault = _fault(code, said, notes, hung or late, megabytes, allowed)
    return Outcome(code, fault, said, seconds, megabytes)


def _fault(code: int, said: str, notes: list[str], late: bool, megabytes: float, allowed: Sequence[int]) -> str:
    if notes:
        return notes[0]
    if late or code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "time"
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    if "Traceback" in said or code == 70:
        return f"traceback: {_raised(said)}"
    if code not in allowed:
        return f"exit code {code}"
    return "memory" if megabytes > MEGABYTES else ""


def _raised(said: str) -> str:
    """The exception and the innermost frame of ours, to tell kinds apart."""
    lines = said.splitlines()
    frames = [line.strip() for line in lines if line.lstrip().startswith('File "')]
    ours = [line for line in frames if "/alignzoo/" in line and "/site-packages/" not in line] or frames
    where = ours[-1].rpartition("/")[2].replace('"', "") if ours else ""
    last = next((line for line in reversed(lines) if line and not line[0].isspace() and ":" in line), "")
    return f"{last.split(':')[0][:60]} at {where}"


def _wait(pid: int) -> tuple[int, resource.struct_rusage, bool]:
    worked, since, ended = 0, time.monotonic(), select.poll()
    handle = os.pidfd_open(pid)
    ended.register(handle, select.POLLIN)
    while True:
        ended.poll(1000)
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            os.close(handle)
            _kill_group(pid)  # what it left behind
            return status, usage, False
        if time.monotonic() - since > HANG_SECONDS:
            ticks = _ticks(pid)
            if ticks == worked:
                break
            worked, since = ticks, time.monotonic()
    os.close(handle)
    _kill_group(pid)
    _, status, usage = os.wait4(pid, 0)
    return status, usage, True


def _ticks(pid: int) -> int:
    """Processor time of a process and of its ended children, in clock ticks."""
    try:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    except OSError:
        return 0


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _child(
    words: Sequence[str], folder: Path, paths: dict[str, Path], modules: Path | None, limit: int
) -> None:  # fmt: skip
    code = 70
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(paths[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (
            open(n, "w", encoding="utf-8", errors="backslashreplace", closefd=False) for n in (1, 2)
        )
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ |= SETTINGS | {
            "ALIGNZOO_RUNS": str(folder / "runs"), "ALIGNZOO_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp"),
            "HOME": str(folder / "home"), "HF_HOME": str(folder / "home"),
            "MPLCONFIGDIR": str(folder.parent / "fonts"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "tmp" / "inductor"),
        }  # fmt: skip
        os.environ.pop("ALIGNZOO_TRACEBACK", None)
        tempfile.tempdir = None  # read again from TMPDIR
        os.chdir(folder)
        notes = os.open(paths["notes"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(notes, f"{_resident()}\n".encode())
        sys.argv = ["alignzoo", *words]
        os.fsync = lambda handle: None  # no input cuts the power
        _limit(limit)
        _watch(folder, notes)
        from alignzoo.cli.app import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if modules:
            modules.write_text("\n".join(sys.modules))
        os._exit(code)


def _resident() -> int:
    """This process's memory in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def _limit(seconds: int) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))


def _watch(folder: Path, notes: int) -> None:
    """Note writes outside the folder, and code that is run."""
    own = os.path.realpath(folder)
    free = (own + "/", own.rpartition("/")[0] + "/fonts/", "/dev/", "/proc/")

    def outside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a descriptor
        real = os.path.realpath(os.fsdecode(os.path.dirname(os.fspath(path)) or "."))
        if os.path.basename(os.fsdecode(path)) == "fonts":
            return False
        return not (real + "/").startswith(free)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or flags & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            )
            if writes and outside(path):
                os.write(notes, f"writes outside: {path!r}\n".encode())
        elif event in WRITES and any(outside(path) for path in arguments[: 2 if event != "os.mkdir" else 1]):
            os.write(notes, f"changes outside: {event} {arguments!r:.200}\n".encode())
        elif event in RUNS_CODE:
            os.write(notes, f"runs code: {event} {arguments!r:.200}\n".encode())

    sys.addaudithook(hook)
