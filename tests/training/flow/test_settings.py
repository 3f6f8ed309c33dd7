"""Settings of speed and display are no part of a run's identity, and a change of one is recorded at its step."""

from __future__ import annotations

import pytest
from jobs import bytes_of
from tiny_runs import tiny, tiny_recipe

from alignzoo.recipe.load import load_recipe
from alignzoo.report.run_page import write_report
from alignzoo.training.records import read_lines
from alignzoo.training.step import Engine

pytestmark = pytest.mark.usefixtures("no_fork")
SAME = (
    "train.micro_batch_tokens=64", "train.checkpoint_every=7", "train.keep_checkpoints=5", "train.keep_optimizer=true",
    "eval.every=5", "reporters=[html]", "eval.allow_overlap=true",
)  # fmt: skip


def killed_at(number, monkeypatch, tmp_path, *overrides):
    """Run, and end without a checkpoint in this step, from 0."""
    step = Engine.step

    def killed(engine, at):
        if at == number:
            raise SystemExit
        return step(engine, at)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", killed)
        with pytest.raises(SystemExit):
            tiny(tmp_path, *overrides)


def test_the_fingerprint_does_not_count_them(tmp_path):
    path = tiny_recipe(tmp_path)
    assert {load_recipe(path, [one]).fingerprint for one in SAME} == {load_recipe(path).fingerprint}
    length = ["train.max_steps=7", "train.epochs=3"]
    assert load_recipe(path, length).fingerprint != load_recipe(path).fingerprint
    assert load_recipe(path, length).lineage == load_recipe(path).lineage


@pytest.mark.slow
def test_a_change_is_recorded_with_its_step_and_its_resumes_are_as_exact(tmp_path, monkeypatch):
    killed_at(3, monkeypatch, tmp_path, "eval.every=1")
    changed = ("eval.every=1", "train.micro_batch_tokens=64")
    killed_at(5, monkeypatch, tmp_path, *changed)
    result = tiny(tmp_path, *changed)
    lines = read_lines(result.folder / "metrics.jsonl")
    noted = [line for line in lines if line["kind"] == "settings"]
    assert noted == [{"kind": "settings", "step": 2, "train.micro_batch_tokens": "4096 -> 64"}]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    text = write_report(result.folder).read_text()
    assert "changed after step 2" in text
    assert "<code>train.micro_batch_tokens</code> 4096 → 64" in text
    assert "up to rounding" in text


@pytest.mark.slow
def test_what_changes_no_step_changes_no_byte_but_its_own_records(tmp_path, monkeypatch):
    want = bytes_of(tiny(tmp_path, "name=whole").folder)
    killed_at(3, monkeypatch, tmp_path)
    result = tiny(tmp_path, "train.keep_checkpoints=1", "reporters=[html]")
    policy, metrics, samples = bytes_of(result.folder)
    assert (policy, samples) == (want[0], want[2])
    lines = metrics.decode().splitlines()
    (note,) = (line for line in lines if '"settings"' in line)
    assert '"train.keep_checkpoints": "2 -> 1"' in note
    assert "html" in note
    assert [line for line in lines if line != note] == want[1].decode().splitlines()
