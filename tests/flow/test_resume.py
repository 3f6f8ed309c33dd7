"""A run that is stopped, killed or damaged goes on to the very bytes of one that was not."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest
from jobs import DPO, PATIENCE, Command, command, run_folder

from alignzoo.training import checkpoint
from alignzoo.training.step import Engine


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("policy/model.safetensors", "metrics.jsonl", "samples.jsonl")]


@pytest.fixture
def whole(finished, tmp_path):
    """The bytes of an uninterrupted run; the folder, in this test's own copy, is cleared for another try."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder = run_folder(tmp_path)
    want = bytes_of(folder)

    def again() -> Path:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        return folder

    return want, again


def signalled(function, at=1, number=signal.SIGTERM):
    """The function, and a signal within its `at`-th call."""
    calls = []

    def wrapped(*arguments, **options):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(number)
        return function(*arguments, **options)

    return wrapped


def wait_for(path: Path, process: Command) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.wait()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["recipe.yaml", "metrics.jsonl", "checkpoints/step-000004", "policy"])
def test_kill_9_and_the_same_command_again(whole, moment):
    want, again = whole
    folder = again()
    process = command(*DPO)
    wait_for(folder / moment, process)
    process.kill()
    broke_off = not (folder / "summary.json").exists()  # where the machine is busy it may have been too late
    finished = command(*DPO).wait()
    assert finished.returncode == 0, finished.stderr
    if moment == "checkpoints/step-000004" and broke_off:
        assert "resuming after step 4" in finished.stderr
    assert bytes_of(folder) == want


def test_a_stop_that_was_asked_for_checkpoints_and_goes_on(run, whole, monkeypatch):
    want, again = whole
    folder = again()
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", signalled(Engine.step))
        with pytest.raises(KeyboardInterrupt, match="stopped after step 1; the same command continues from there"):
            run()
    assert checkpoint.latest(folder / "checkpoints")[0].step == 1
    run()
    assert bytes_of(folder) == want


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(run, whole):
    want, again = whole
    folder = again()
    run("recipes/dpo_hh.yaml", "train.checkpoint_every=3")
    (folder / "summary.json").unlink()
    last = checkpoint.latest(folder / "checkpoints")[0]
    raw = bytearray((last.path / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (last.path / "model.safetensors").write_bytes(raw)
    run("recipes/dpo_hh.yaml", "train.checkpoint_every=3")
    assert bytes_of(folder) == want


@pytest.mark.slow
def test_a_lost_cache_is_scored_again_with_the_same_result(run, whole, tmp_path):
    """The run is stopped, the cache is deleted: the reference is still the start, not the half-trained policy."""
    want, again = whole
    folder = again()
    run("recipes/dpo_hh.yaml", "train.checkpoint_every=3")
    (folder / "summary.json").unlink()
    shutil.rmtree(tmp_path / "cache")
    result = run("recipes/dpo_hh.yaml", "train.checkpoint_every=3")
    assert result.summary["reference"]["rows_scored"] == 160
    assert bytes_of(folder) == want
