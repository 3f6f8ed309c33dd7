"""More steps continue a finished run where its schedule and its optimizer state allow it; else the missing one is named."""

from __future__ import annotations

import json
import os
import shutil
from datetime import date

import pytest
from jobs import bytes_of
from tiny_runs import tiny, tiny_recipe

from alignzoo.core.artifacts import read_verified
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training import checkpoint
from alignzoo.training.extension import check_resumable, extend, obstacle, of_other_length
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.run import run_resolved
from alignzoo.training.step import Engine

pytestmark = pytest.mark.usefixtures("no_fork")
KEEP = "train.keep_optimizer=true"


@pytest.fixture
def steps(monkeypatch):
    """The numbers of the steps that are taken, from 0."""
    taken, step = [], Engine.step

    def counted(engine, number):
        taken.append(number)
        return step(engine, number)

    monkeypatch.setattr(Engine, "step", counted)
    return taken


def said(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize("choice", [(), ("train.keep_best=loss",)], ids=["last", "best"])
def test_a_longer_run_continues_a_finished_one_to_the_bytes_of_one_from_its_first_step(tmp_path, steps, choice):
    """The short run was also evaluated after its last step, which the long one is not."""
    options = (*choice, "eval.every=2", "train.keep_checkpoints=9")
    want = bytes_of(tiny(tmp_path, *options, "train.max_steps=8").folder)
    shutil.rmtree(tmp_path / "runs")
    short = tiny(tmp_path, *options, KEEP, "train.max_steps=5")
    del steps[:]
    long = tiny(tmp_path, *options, "train.max_steps=8")
    assert steps == [5, 6, 7]
    assert bytes_of(long.folder) == want
    assert long.folder != short.folder
    del steps[:]
    assert bytes_of(tiny(tmp_path, *options, "train.max_steps=8", fresh=True).folder) == want
    assert steps == list(range(8))
    assert long.summary["train"]["steps"] == 8
    times = [json.loads(line)["step"] for line in (long.folder / "timings.jsonl").open()]
    assert times == list(range(1, 9))  # its cost is that of all steps


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_an_extended_run_keeps_the_rows_of_a_best_checkpoint_that_the_shorter_run_made(tmp_path, named):
    """`held_out.jsonl` is of the exported policy, and an evaluation at the shorter run's end alone chooses nothing."""
    options = ("train.keep_best=loss", "train.greater_is_better=true", "train.optimizer.learning_rate=0.002",
               "eval.every=2", "train.keep_checkpoints=9", KEEP)  # fmt: skip
    whole = tiny(tmp_path, *options, "train.max_steps=8")
    assert whole.summary["selection"]["step"] < 5
    want = [*bytes_of(whole.folder), (whole.folder / "held_out.jsonl").read_bytes()]
    shutil.rmtree(tmp_path / "runs")
    short = tiny(tmp_path, *options, "train.max_steps=5")
    given = {"resume_from": short.folder / "checkpoints" / "step-000005"} if named else {}
    long = tiny(tmp_path, *options, "train.max_steps=8", **given)
    assert [*bytes_of(long.folder), (long.folder / "held_out.jsonl").read_bytes()] == want


def test_a_checkpoint_that_the_other_process_removes_is_not_extended(tmp_path, monkeypatch):
    path = tiny(tmp_path, KEEP, "train.max_steps=2").folder / "checkpoints" / "step-000002"
    resolved = load_recipe(tmp_path / "tiny.yaml", ["train.max_steps=3"])
    intact = checkpoint.read(path)

    def removed_after(_):
        shutil.rmtree(path, ignore_errors=True)
        return intact

    monkeypatch.setattr(checkpoint, "read", removed_after)
    monkeypatch.setattr("alignzoo.training.extension.read_checked", lambda *_: {"files": {"optimizer.safetensors": ""}})
    monkeypatch.setattr("alignzoo.training.extension._lineage", lambda _: resolved.lineage)
    extend(resolved, folder_of(resolved), 3, Screen(quiet=True))
    assert checkpoint.by_step(folder_of(resolved).checkpoints) == []


@pytest.mark.slow
def test_a_run_that_is_not_finished_is_extended_without_any_option(tmp_path, steps, monkeypatch):
    whole = Engine.step

    def killed(engine, number):
        if number == 5:
            raise SystemExit  # no checkpoint is written for it
        return whole(engine, number)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", killed)
        with pytest.raises(SystemExit):
            tiny(tmp_path, "train.max_steps=6")
    del steps[:]
    assert tiny(tmp_path, "train.epochs=3", "train.max_steps=null").summary["train"]["steps"] > 6
    assert steps[0] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ((), "its optimizer state is gone: a finished run has it with train.keep_optimizer=true"),
        ((KEEP, "train.schedule=cosine"), "its learning rate depends on the last step (train.schedule: cosine)"),
        (
            (KEEP, "train.schedule.warmup_ratio=0.5"),
            "its learning rate depends on the last step (train.schedule: constant, warmup_ratio: 0.5)",
        ),
    ],
    ids=["state", "schedule", "warm-up"],
)
def test_what_is_missing_is_named(tmp_path, capsys, steps, options, missing):
    short = tiny(tmp_path, *options, "train.max_steps=2")
    longer = [*options, "train.max_steps=3"]
    resolved = load_recipe(tmp_path / "tiny.yaml", longer)
    with pytest.raises(UserError, match="there is no run to resume; tiny-") as error:
        check_resumable(resolved, folder_of(resolved))
    assert missing in str(error.value)
    del steps[:]
    tiny(tmp_path, *longer, quiet=False)
    assert steps == [0, 1, 2]
    assert f"{short.folder.name} has the first 2 steps, and is not extended: {missing}" in said(capsys)


@pytest.mark.slow
def test_a_finished_run_has_no_optimizer_state_unless_it_is_kept(tmp_path):
    states = {}
    for name, options in {"dropped": (), "kept": (KEEP,)}.items():
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        folder = tiny(tmp_path, *options).folder / "checkpoints"
        states[name] = [checkpoint.has_optimizer(path) for path in checkpoint.by_step(folder)]
        assert all(checkpoint.read(path) is not None for path in checkpoint.by_step(folder))  # the digests are right
    assert states == {"dropped": [False, False], "kept": [True, True]}


def test_another_recipe_is_no_shorter_run(tmp_path):
    tiny(tmp_path, KEEP, "train.max_steps=2")
    resolved = load_recipe(tmp_path / "tiny.yaml", ["train.max_steps=3", "seed=1"])
    assert of_other_length(resolved, folder_of(resolved)) == []
    resolved = load_recipe(tmp_path / "tiny.yaml", ["train.max_steps=3"])
    (found,) = of_other_length(resolved, folder_of(resolved))
    assert obstacle(resolved, [found]) == ""
    (found / "optimizer.safetensors").write_bytes(b"")  # a damaged one is left alone
    extend(resolved, folder_of(resolved), 3, Screen(quiet=True))
    assert not folder_of(resolved).checkpoints.exists()


@pytest.mark.slow
def test_a_longer_run_has_the_first_day_of_the_shorter(tmp_path):
    """A chat template may write the date into every prompt."""
    short = tiny(tmp_path, KEEP, "train.max_steps=2")
    (short.folder / "started.txt").write_text("2026-01-02\n")
    long = tiny(tmp_path, "train.max_steps=3").folder
    assert (long / "started.txt").read_text() == "2026-01-02\n"
    assert folder_of(load_recipe(tmp_path / "tiny.yaml", ["train.max_steps=3"])).first_day() == date(2026, 1, 2)
    other = load_recipe(tmp_path / "tiny.yaml", ["train.max_steps=4"])
    folder_of(other).path.mkdir()
    (folder_of(other).path / "started.txt").write_text("2026-01-03\n")  # it had begun, on another day
    extend(other, folder_of(other), 4, Screen(quiet=True))
    assert not folder_of(other).checkpoints.exists()


@pytest.mark.slow
def test_resume_from_an_earlier_checkpoint_takes_the_later_steps_again(tmp_path, steps):
    options = (KEEP, "train.keep_checkpoints=9", "eval.every=3")
    first = tiny(tmp_path, *options)
    want = bytes_of(first.folder)
    del steps[:]
    again = tiny(tmp_path, *options, resume_from=first.folder / "checkpoints" / "step-000004")
    assert steps == [4, 5]
    assert bytes_of(again.folder) == want
    moved = shutil.move(first.folder, tmp_path / "elsewhere")
    del steps[:]
    again = tiny(tmp_path, *options, resume_from=moved / "checkpoints" / "step-000002")
    assert steps == [2, 3, 4, 5]
    assert bytes_of(again.folder) == want


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere", "no such checkpoint"),
        ("rows", "this is no checkpoint of a run"),
        ("damaged", "this checkpoint is damaged, or renamed"),
        ("other", "whose recipe differs from this one in more than train.epochs and train.max_steps"),
        ("finished", "its optimizer state is gone"),
    ],
)
def test_a_checkpoint_that_can_not_be_continued_is_an_error(tmp_path, given, words):
    path = tiny_recipe(tmp_path)
    (tmp_path / "rows").mkdir()
    options = [KEEP] if given == "damaged" else []
    result = tiny(tmp_path, "train.max_steps=2", *options, *(["seed=3"] if given == "other" else []))
    last = result.folder / "checkpoints" / "step-000002"
    if given == "damaged":
        (last / "optimizer.safetensors").write_bytes(b"")
    before = bytes_of(result.folder)
    where = {"nowhere": tmp_path / "nowhere", "rows": tmp_path / "rows"}.get(given, last)
    with pytest.raises(UserError, match=words):
        run_resolved(load_recipe(path, ["train.max_steps=4"]), screen=Screen(quiet=True), resume_from=where)
    assert bytes_of(result.folder) == before


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_drops_its_optimizer_states_drops_them_when_it_is_repeated(tmp_path, monkeypatch):
    """Before, it was finished by then, and the states stayed."""

    class Killed(BaseException):
        pass

    def killed(path, names):
        left = path / ".about.json.elsewhere.1-00000000.tmp"
        left.write_text("half")
        os.utime(left, (0, 0))
        raise Killed

    options = ("train.max_steps=5", "train.keep_checkpoints=9")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "drop_files", killed)
        with pytest.raises(Killed):
            tiny(tmp_path, *options)
    folder = tiny(tmp_path, *options).folder
    steps = checkpoint.by_step(folder / "checkpoints")
    assert [path.name for path in steps] == ["step-000002", "step-000004", "step-000005"]
    for path in steps:
        assert read_verified(path) is not None
        assert not [one.name for one in path.iterdir() if "optimizer" in one.name or one.name.startswith(".about")]
