"""A run that is stopped, killed or damaged goes on to the very bytes of one that was not."""

from __future__ import annotations

import json
import shutil
import signal
import time
from datetime import date
from pathlib import Path

import pytest
import yaml
from byte_tokenizer import CHATML, byte_tokenizer
from jobs import DPO, PATIENCE, Command, bytes_of, command, run_folder, unfinish

import alignzoo
from alignzoo.data import chat_template, token_store
from alignzoo.training import checkpoint
from alignzoo.training import run_folder as run_folder_module
from alignzoo.training.step import Engine


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
        assert "resuming after step" in finished.stderr
    assert bytes_of(folder) == want


@pytest.mark.slow
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
    unfinish(folder, 6)
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
    unfinish(folder, 6)
    shutil.rmtree(tmp_path / "cache")
    result = run("recipes/dpo_hh.yaml", "train.checkpoint_every=3")
    assert result.summary["reference"]["rows_scored"] == 160
    assert bytes_of(folder) == want


@pytest.mark.slow
def test_a_run_resumed_on_another_day_scores_the_prompts_of_its_first_day(tmp_path, monkeypatch):
    """The chat template formats the date, and the tokens are made again on each day."""

    def on(day: str) -> None:
        class Day(date):
            @classmethod
            def today(cls):
                return cls.fromisoformat(day)

        for module in (chat_template, token_store, run_folder_module):
            monkeypatch.setattr(module, "date", Day)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    byte_tokenizer(template="{{ strftime_now('%d %B %Y') }}\n" + CHATML).save_pretrained(tmp_path / "tokenizer")
    rows = [{"prompt": [{"role": "user", "content": f"p {i}"}], "chosen": [{"role": "assistant", "content": "good"}],
             "rejected": [{"role": "assistant", "content": "bad"}]} for i in range(12)]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "max_position_embeddings": 256}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({
        "objective": "sft", "reporters": [], "data": {"name": "files", "path": str(tmp_path / "rows.jsonl")},
        "model": {"config": config, "tokenizer": str(tmp_path / "tokenizer")},
        "train": {"batch_size": 4, "max_steps": 3, "optimizer": {"name": "sgd", "learning_rate": 0.1}},
        "eval": {"replies": {"num_prompts": 1, "max_new_tokens": 2}},
    }))  # fmt: skip

    def run(root: str) -> Path:
        monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / root))
        return alignzoo.run(str(tmp_path / "recipe.yaml")).folder

    on("2026-11-29")
    want = bytes_of(run("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", signalled(Engine.step))
        with pytest.raises(KeyboardInterrupt, match="stopped after step 1"):
            run("resumed")
    on("2027-01-02")
    assert bytes_of(run("resumed")) == want
