"""The command line as a person uses it: what is printed where, and the exit code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from jobs import command

from alignzoo.cli.app import _exit_code, alignzoo
from alignzoo.core.errors import UserError
from alignzoo.interfaces.hookspecs import KINDS
from alignzoo.reference.cache import ReferenceCache

SMALLEST = ["--with", "tests/smallest.yaml"]


def cli(*arguments) -> subprocess.CompletedProcess:
    return command(*arguments).wait()


@pytest.mark.slow
def test_a_mistake_is_reported_without_a_traceback(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "extends: %s\nobjective: {name: dpo, bta: 1}\ntrain: {epohcs: 3}\n"
        % (ROOT / "recipes/bases/hh_preference.yaml")
    )
    for name in ("run", "validate", "show", "score"):
        done = cli(name, bad, *(["-o", tmp_path / "x"] if name == "score" else []))
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"error: {bad}:2:24: objective.bta: no such field; did you mean 'beta'?",
            f"error: {bad}:3:9: train.epohcs: no such field; did you mean 'epochs'?",
        ]
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum", "x"], "there is no command 'rum'; did you mean 'run'?"),
        (["run"], "Missing argument"),
        (["run", "recipes/dpo.yaml"], "recipes/dpo.yaml: no such recipe"),
        (["run", "recipes/dpo_hh.yaml", "objective=kto_x"], "no objective is called 'kto_x'"),
        (["run", "recipes/dpo_hh.yaml", "data.path=./nothing.jsonl"], "nothing.jsonl: no such file or folder"),
        (["list", "dop"], "no objective is called 'dop'; did you mean 'dpo'?"),
        (["run", "recipes/dpo_hh.yaml", "--resume"], "there is no run to resume"),
        (["report", "nowhere"], "nowhere: no such run; expected a run folder, its name, or a recipe"),
        (
            ["validate", "recipes/dpo_hh.yaml", "data.max_train_rows=3"],
            "3 training rows are usable, fewer than one batch",
        ),
    ],
)
def test_each_mistake_exits_with_2(arguments, words):
    done = cli(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch, capsys):
    """torch ends the process there, with "Cannot load libtorch_cpu.so"."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr("sys.argv", ["alignzoo", "list"])
    assert _exit_code() == 2
    assert capsys.readouterr().err == "error: the working directory is gone\n    cd to another folder\n"


@pytest.mark.slow
def test_validate_prints_the_plan_and_dry_run_is_the_same():
    done = cli("validate", "recipes/dpo_hh.yaml", *SMALLEST)
    assert done.returncode == 0, done.stderr
    assert "dpo(beta=0.1)" in done.stdout
    assert "the run of sft_hh" in done.stdout
    assert "8 steps of 16 rows" in done.stdout
    assert cli("run", "recipes/dpo_hh.yaml", *SMALLEST, "--dry-run").stdout == done.stdout
    plan = json.loads(cli("validate", "recipes/dpo_hh.yaml", *SMALLEST, "--json").stdout)
    assert [step["name"] for step in plan] == ["sft_hh", "dpo_hh"]


def test_show_tells_where_values_come_from():
    done = cli("show", "recipes/ipo_hh.yaml", "objective.beta=0.3", "--origins")
    assert "objective.beta: 0.3" in done.stdout
    assert "# command line" in done.stdout
    assert "recipes/bases/hh.yaml:2:" in done.stdout
    assert "# default" in done.stdout
    assert json.loads(cli("show", "recipes/ipo_hh.yaml", "--json").stdout)["objective"]["name"] == "ipo"


def test_everything_that_can_be_named_is_listed_and_explained():
    listed = json.loads(cli("list", "--json").stdout)
    assert {one["kind"] for one in listed} == set(KINDS)
    assert all(one["what"] and all(field["description"] for field in one["parameters"]) for one in listed)
    assert [one["name"] for one in json.loads(cli("list", "metrics", "--json").stdout)] == [
        "entropy",
        "normalized_accuracy",
    ]
    text = cli("list", "records").stdout
    assert "column of the preferred completion" in text
    assert "data: {name: files, path: FILE, format: {name: records}}" in text
    done = cli("list", "recrods")
    assert done.returncode == 2
    assert "no format is called 'recrods'; did you mean 'records'?" in done.stderr


def test_objectives_are_listed_and_explained():
    listed = json.loads(cli("list", "objectives", "--json").stdout)
    assert sorted(one["name"] for one in listed) == ["cdpo", "dpo", "ipo", "sft"]
    assert all(one["source"] and one["equation"] for one in listed)
    text = cli("list", "cdpo").stdout
    for words in (
        "Mitchell 2023",
        "label_smoothing = 0.1",
        ">= 0, < 0.5",
        "assumed fraction of flipped labels",
        "objective: {name: cdpo",
    ):
        assert words in text
    assert "Rafailov et al. 2023" in cli("list", "objectives").stdout


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("objectives", "list objectives"),
        ("objectives --json", "list objectives --json"),
        ("objectives show dpo --json", "list dpo --json"),
        ("objectives plot dpo -o x.svg", "plot dpo -o x.svg"),
        ("plugins", "list plugins"),
        ("plugins --json", "list plugins --json"),
    ],
)
def test_a_former_command_names_the_present_one(former, present):
    with pytest.raises(UserError) as error:
        alignzoo.main(former.split(), standalone_mode=False)  # exit code 2, as any UserError
    assert error.value.problems[0].expected == f"`alignzoo {present}`"


@pytest.mark.slow
def test_run_reports_and_the_second_time_it_is_done_before(tmp_path):
    first = cli("run", "recipes/dpo_hh.yaml", *SMALLEST, "reporters=html")
    assert first.returncode == 0, first.stderr
    assert "data.path=" in first.stderr
    assert "held-out accuracy" in first.stdout
    report = Path(first.stdout.strip().splitlines()[-1].removeprefix("report: "))
    assert report.is_file()
    assert "Traceback" not in first.stderr
    again = cli("run", "recipes/dpo_hh.yaml", *SMALLEST, "--json")
    assert "already finished" in again.stderr
    assert json.loads(again.stdout)["finished"] is True
    listed = json.loads(cli("cache", "ls", "--json").stdout)
    assert [entry["sequences"] for entry in listed] == [320]
    scored = cli("score", "recipes/dpo_hh.yaml", *SMALLEST, "-o", tmp_path / "s.jsonl", "--split", "held_out")
    assert scored.returncode == 0, scored.stderr
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 32
    assert cli("report", report.parent).stdout.strip() == str(report)
    # The resolved recipe in the folder is the run.
    assert "already finished" in cli("run", report.parent).stderr


def test_the_cache_is_listed_verified_and_pruned(tmp_path):
    assert "the cache is empty" in cli("cache", "ls").stdout
    folder = tmp_path / "cache" / "reference" / "abc"
    cache = ReferenceCache(folder)
    cache.add(b"k" * 16, np.array([-1.0, -2.0]))
    cache.flush()
    assert "1 sequences" in " ".join(cli("cache", "ls").stdout.split())
    assert cli("cache", "verify").returncode == 0
    shard = next(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    broken = cli("cache", "verify")
    assert broken.returncode == 1
    assert f"damaged: {shard}" in broken.stdout
    assert "would remove" in cli("cache", "prune", "--dry-run").stdout
    assert shard.exists()
    assert "removed" in cli("cache", "prune").stdout
    assert not shard.exists()
    assert cli("cache", "prune", "--all").returncode == 0
    assert not folder.exists()
