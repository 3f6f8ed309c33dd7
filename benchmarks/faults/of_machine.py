"""Faults of the machine: too little memory, disks that are full, read-only or gone, damaged shards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import Bench, Impossible, Outcome, at_call, fault, flipped, line, stop_in_step
from stage import Workplace

# --- memory


def small_memory(slots: int) -> Callable[[], None]:
    """No forward of more token slots fits."""

    def inject() -> None:
        import torch

        from alignzoo.scoring.scorer import Scorer

        forward = Scorer.forward

        def limited(self, forest, *more, **options):
            if forest.slots > slots:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(self, forest, *more, **options)

        Scorer.forward = limited

    return inject


def close(place: Workplace, bench: Bench) -> bool:
    """Every number of metrics.jsonl within 1e-4 of the whole run's; log-probs are sums of hundreds."""
    from alignzoo.training.records import read_lines

    lines = [read_lines(one.run_folder() / "metrics.jsonl") for one in (place, bench.whole)]
    return len(lines[0]) == len(lines[1]) and all(
        got.keys() == want.keys()
        and all(abs(got[key] - want[key]) <= 1e-4 * max(1, abs(want[key])) for key in got if key != "kind")
        for got, want in zip(*lines, strict=True)
    )


@fault("memory runs out in the reference pass, the evaluations and the steps")
def out_of_memory(bench: Bench) -> Outcome:
    place = bench.place()
    finished = place.run(inject=small_memory(500))
    told = [line(finished, "memory ran out: going on"), line(finished, "memory ran out in step")]
    checks = {
        "the run ends well": finished.code == 0,
        "every metric within 1e-4 of a run with memory enough": finished.code == 0 and close(place, bench),
    }
    return Outcome("; ".join(told), checks)


@fault("memory runs out for a single row")
def one_row_too_large(bench: Bench) -> Outcome:
    place = bench.place()
    return bench.failed(place, place.run(inject=small_memory(20)), 0)


# --- the disk


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own for a folder, with what is in it."""
    kept = folder.with_name(f"{folder.name} before")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, kept)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        raise Impossible("mounting needs root")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        shutil.rmtree(kept)


def fill(folder: Path) -> None:
    """Leave 100 kB free."""
    free = shutil.disk_usage(folder).free
    with open(folder / ".filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(0, free - 100_000))


def full_disk(bench: Bench, what: Callable[[Workplace], Callable[[], None]], of: str, step: int) -> Outcome:
    """The disk is filled at some moment of a run; then somebody makes room."""
    place = bench.place()
    with small_disk(getattr(place, of), "40m"):
        finished = place.run(inject=what(place))
        (getattr(place, of) / ".filler").unlink()
        return bench.failed(place, finished, step)


@fault("the disk is full when a checkpoint is written")
def full_in_checkpoint(bench: Bench) -> Outcome:
    def inject(place: Workplace) -> Callable[[], None]:
        from alignzoo.training import checkpoint

        return lambda: at_call(checkpoint, "save", 2, lambda: fill(place.runs))

    return full_disk(bench, inject, "runs", 2)


@fault("the disk is full when the policy is exported")
def full_in_export(bench: Bench) -> Outcome:
    def inject(place: Workplace) -> Callable[[], None]:
        from alignzoo.training import run as run_module

        return lambda: at_call(run_module, "export_policy", 1, lambda: fill(place.runs))

    return full_disk(bench, inject, "runs", 6)


@fault("the disk is full when the reference is scored")
def full_in_reference(bench: Bench) -> Outcome:
    def inject(place: Workplace) -> Callable[[], None]:
        from alignzoo.reference.cache import ReferenceCache

        def full() -> None:
            fill(place.cache)
            with open(place.cache / ".filler2", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, 90_000)

        return lambda: at_call(ReferenceCache, "flush", 1, full)

    place = bench.place()
    with small_disk(place.cache, "40m"):
        finished = place.run(inject=inject(place))
        for filler in place.cache.glob(".filler*"):
            filler.unlink()
        return bench.failed(place, finished, 0)


@fault("the disk is full when the tokens are stored")
def full_in_tokens(bench: Bench) -> Outcome:
    place = bench.place()
    with small_disk(place.cache, "1m"):
        (place.cache / "filler").write_bytes(bytes(1_020_000))

        def inject() -> None:
            from alignzoo.reference.cache import ReferenceCache

            at_call(ReferenceCache, "flush", 1, (place.cache / "filler").unlink)

        finished = place.run(inject=inject)
        same = finished.code == 0 and place.artifacts() == bench.want
    return Outcome(line(finished, "tokens: /"), {"the run goes on without them, to the same bytes": same})


@fault("a file is larger than the user may write (ulimit -f)")
def file_too_large(bench: Bench) -> Outcome:
    import resource

    place = bench.place()

    def inject() -> None:
        from alignzoo.training import checkpoint

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does
        at_call(checkpoint, "save", 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)))

    return bench.failed(place, place.run(inject=inject), 2)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written in a folder, not even by root."""
    for options in (["--bind", folder, folder], ["-o", "remount,bind,ro", folder]):
        if subprocess.run(["mount", *options], capture_output=True).returncode:
            raise Impossible("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@fault("the folder of runs is read-only")
def read_only_runs(bench: Bench) -> Outcome:
    place = bench.place()
    with read_only(place.runs):
        finished = place.run()
    checks = {"exit code 1, no traceback": finished.code == 1 and "Traceback" not in finished.err}
    return Outcome(finished.message, checks | bench.goes_on(place))


@fault("the checkpoints' folder becomes read-only in the middle")
def read_only_checkpoints(bench: Bench) -> Outcome:
    place = bench.place()
    mounted: list[Path] = []

    def inject() -> None:
        from alignzoo.training import checkpoint

        def remount() -> None:
            folder = place.run_folder() / "checkpoints"
            for options in (["--bind", folder, folder], ["-o", "remount,bind,ro", folder]):
                subprocess.run(["mount", *options], check=True, capture_output=True)

        at_call(checkpoint, "save", 2, remount)

    with read_only(bench.root / "whole"):  # whether mounting works at all
        pass
    finished = place.run(inject=inject)
    mounted.append(place.run_folder() / "checkpoints")
    subprocess.run(["umount", "-l", mounted[0]], check=True)
    return bench.failed(place, finished, 2)


@fault("the cache is read-only")
def read_only_cache(bench: Bench) -> Outcome:
    place = bench.place()
    place.cache.mkdir()
    with read_only(place.cache):
        finished = place.run()
    return bench.failed(place, finished, 0)


# --- the cache


@fault("the cache's folder is deleted while a run works")
def cache_lost(bench: Bench) -> Outcome:
    place = bench.place()

    def inject() -> None:
        from alignzoo.training.step import Engine

        at_call(Engine, "step", 3, lambda: shutil.rmtree(place.cache))

    finished = place.run(inject=inject)
    same = finished.code == 0 and place.artifacts() == bench.want
    gone = not place.cache.exists()
    return Outcome("nothing: what the run needs of it is open", {
        "the cache was gone and the run ended with the same bytes": same and gone,
    })  # fmt: skip


@fault("the cache's folder is deleted while a run is stopped")
def cache_lost_between(bench: Bench) -> Outcome:
    place = bench.place()
    place.run(inject=stop_in_step(3, signal.SIGKILL))
    shutil.rmtree(place.cache)
    finished = place.run()
    same = finished.code == 0 and place.artifacts() == bench.want
    told = f"{line(finished, 'to score')}; {line(finished, 'resuming')}"
    return Outcome(told, {"scored again by the start and not by the half-trained policy; the same bytes": same})


def damaged_shard(bench: Bench, damage: Callable[[bytes], bytes]) -> Outcome:
    place = bench.place()
    place.run(inject=stop_in_step(3, signal.SIGKILL))
    for shard in place.cache.glob("reference/*/*.safetensors"):
        shard.write_bytes(damage(shard.read_bytes()))
    finished = place.run()
    same = finished.code == 0 and place.artifacts() == bench.want
    aside = len(list(place.cache.glob("reference/*/*.damaged"))) == 2
    return Outcome(line(finished, "is damaged"), {"set aside, scored again, the same bytes": same and aside})


@fault("a shard of the reference cache is cut short")
def shard_truncated(bench: Bench) -> Outcome:
    return damaged_shard(bench, lambda raw: raw[: len(raw) // 2])


@fault("a bit of a shard of the reference cache is flipped")
def shard_flipped(bench: Bench) -> Outcome:
    return damaged_shard(bench, flipped)
