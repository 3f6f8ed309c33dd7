"""Runs that start from the same run wait for the one that trains it, and score the same reference once."""

from __future__ import annotations

import os
import platform
import threading
from contextlib import contextmanager

import pytest
from jobs import SMALLEST, command
from tiny_runs import tiny, tiny_recipe

from alignzoo.core import locks
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.reference import scores
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.run import run_resolved

pytestmark = pytest.mark.usefixtures("no_fork")
ME = f"process {os.getpid()} on {platform.node()}"


class Told(Screen):
    """Keeps the lines, and calls `then` once one says that it waits."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self.waits = threading.Event()

    def info(self, text: str) -> None:
        self.lines.append(text)
        if "waiting for it" in text:
            self.waits.set()


@contextmanager
def held_until(screen: Told, holding):
    """Hold a lock in another thread until the screen says that it is waited for."""
    taken = threading.Event()

    def hold():
        with holding():
            taken.set()
            screen.waits.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    yield
    screen.waits.set()
    thread.join()


@pytest.mark.slow
def test_a_run_waits_for_the_process_that_trains_its_start(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    tiny_recipe(tmp_path, "sft", objective="sft")
    path = tiny_recipe(tmp_path, "dpo", model=None)
    path.write_text(path.read_text().replace("model: null", "model: {from: sft.yaml}"))
    resolved, screen = load_recipe(path), Told()
    start = folder_of(resolved.start)
    with held_until(screen, start.held):
        run_resolved(resolved, screen=screen)
    assert f"{start.path.name} is trained by {ME}; waiting for it" in screen.lines
    assert start.summary() is not None


def test_the_same_run_twice_is_an_error_that_names_the_other(tmp_path):
    resolved = load_recipe(tiny_recipe(tmp_path))
    with folder_of(resolved).held(), pytest.raises(UserError, match=f"this run is trained by {ME}"):
        run_resolved(resolved, screen=Screen(quiet=True))


@pytest.mark.slow
def test_a_reference_that_another_run_scores_is_waited_for_and_not_scored_again(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    first = tiny(tmp_path).summary["reference"]
    (cache,) = (tmp_path / "cache" / "reference").glob("[0-9a-f]*")
    (shards := tmp_path / "away").mkdir()
    for shard in cache.glob("*.safetensors"):
        shard.rename(shards / shard.name)
    screen = Told()

    @contextmanager
    def scoring():
        """Another process, which has written its scores when it lets go."""
        with locks.locked(cache / ".lock"):
            yield
            for shard in shards.iterdir():
                shard.rename(cache / shard.name)

    with held_until(screen, scoring), monkeypatch.context() as patch:
        patch.setattr(scores, "_score", lambda *_: pytest.fail("rows are scored twice"))
        result = run_resolved(load_recipe(tmp_path / "tiny.yaml", ["objective.beta=0.5"]), screen=screen)
    assert result.summary["reference"] == {"kind": "sequence", "rows_scored": 0, "rows_cached": first["rows_scored"]}
    assert any("rows of the same model are scored by process" in line for line in screen.lines)


@pytest.mark.slow
def test_a_job_array_trains_the_common_start_once(tmp_path):
    jobs = [command("run", f"recipes/{name}_hh.yaml", *SMALLEST) for name in ("dpo", "ipo")]
    found = [job.wait() for job in jobs]
    assert [one.returncode for one in found] == [0, 0], [one.stderr for one in found]
    trained = [one.stderr.count("evaluation after step 0") for one in found]
    assert sorted(trained) == [1, 2]  # one of them has trained the start too
