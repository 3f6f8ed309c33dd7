"""`alignzoo table`: comparisons and measured runs in one table again, without training."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from measured import REPLIES, Runs, about, comparison, judge, measure

from alignzoo import load_recipe
from alignzoo.cli.app import _exit_code
from alignzoo.compare.results import write_results
from alignzoo.core.artifacts import write_manifest

DATA_OF_OTHERS = "0ther" * 6


@pytest.fixture
def cli(monkeypatch, capsys):
    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["alignzoo", "table", *map(str, arguments)])
        code = _exit_code()
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def losses(tmp_path):
    folder = tmp_path / "losses-1a2b3c4d"
    write_results(folder, about(), comparison(tmp_path / "runs").entries)
    return folder


def run_folder(root, name: str, *overrides: str, **options):
    """A finished and measured run, as `alignzoo run` and `alignzoo compare` leave it."""
    resolved = load_recipe("dpo_hh", overrides)
    sft = root / "sft_hh-0000"
    for folder, recipe, places in (
        (sft, resolved.start, {}), (root / name, resolved, {"model.from": f"../{sft.name}/recipe.yaml"}),
    ):  # fmt: skip
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "recipe.yaml").write_text(recipe.to_yaml(places))
            summary = {"finished": True, "name": recipe.recipe.name, "fingerprint": recipe.fingerprint,
                       "train": {"steps": 600, "pairs": 9600, "seconds": 60.0, "pairs_per_second": 160.0},
                       "peak_memory_bytes": 2**29, "versions": {"alignzoo": "0.1.0", "torch": "2.13.0", "pluggy": "1"}}  # fmt: skip
            (folder / "summary.json").write_text(json.dumps(summary))
            key = folder / "evaluations" / folder.name.replace("-", "_")  # a key of its own for every run
            measure(key, recipe.recipe.seed, **options if places else {})
    return root / name


def test_it_prints_the_table_and_writes_nothing(cli, losses):
    before = sorted(losses.rglob("*"))
    code, out, err = cli(losses)
    assert (code, err) == (0, "")
    assert "dpo_hh" in out
    assert "beta=0.1, best of 3, 3 runs" in out
    assert "UNEQUAL TUNING BUDGETS" in out
    assert sorted(losses.rglob("*")) == before


def test_it_writes_every_form_to_the_folder_of_the_option(cli, losses, tmp_path):
    code, out, _ = cli(losses, "-o", tmp_path / "out")
    assert code == 0
    assert f"table, plots and report: {tmp_path / 'out'}" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"table.md", "table.csv", "table.json", "report.html",
                                                                    "frontier.png", "frontier.svg"}  # fmt: skip


def test_another_baseline_and_another_choice(cli, losses):
    code, out, _ = cli(losses, "--baseline", "ipo_hh", "--select", "likelihood_accuracy", "--json")
    described = json.loads(out)
    assert code == 0
    assert described["baseline"] == "ipo_hh"
    assert described["select"] == {"column": "likelihood_accuracy", "better": "higher", "split": "validation"}
    assert described["about"]["command"] == about()["command"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--baseline", "dpo_h"], "baseline: there is no row 'dpo_h'; expected one of sft_hh, dpo_hh"),
        (["--select", "margn"], "select: there is no figure 'margn'"),
        (["--select", "gold.reward"], "no validation row has a figure for 'gold.reward'"),
    ],
)
def test_each_mistake_exits_with_2(cli, losses, options, words):
    code, out, err = cli(losses, *options)
    assert (code, out) == (2, "")
    assert words in err


def test_a_folder_that_is_none_is_reported_with_the_nearest(cli, losses, tmp_path):
    code, _, err = cli(tmp_path / "losses-1a2b3c4e")
    assert code == 2
    assert "losses-1a2b3c4e: no such folder" in err
    assert "did you mean 'losses-1a2b3c4d'?" in err
    assert cli(tmp_path / "runs")[2] == f"error: {tmp_path / 'runs'}: neither a comparison nor a run folder\n"
    (losses / "results.json").write_text("{")
    assert "results.json: not JSON" in cli(losses)[2]
    assert cli()[0] == 2


def test_figures_that_are_gone_are_reported(cli, losses, tmp_path):
    shutil.rmtree(tmp_path / "runs" / "run-3" / "evaluations")
    code, _, err = cli(losses)
    assert code == 2
    assert "the figures of dpo_hh, seed 2, are gone or damaged" in err


def test_two_comparisons_in_one_table_share_the_run_that_both_name(cli, losses, tmp_path):
    other = Runs(tmp_path / "more")
    for seed in range(3):
        other.add("slic_hh", seed, fingerprint=f"slic{seed}")
    sft = comparison(tmp_path / "again").entries[0]
    write_results(tmp_path / "other", about(name="other"), [sft, *other.entries])
    code, out, _ = cli(losses, tmp_path / "other", "--json")
    described = json.loads(out)
    assert code == 0
    assert [row["label"] for row in described["rows"]] == ["sft_hh", "dpo_hh", "ipo_hh", "cdpo_hh", "slic_hh"]
    assert described["name"] == "losses and other"
    assert described["about"]["command"].startswith("alignzoo table ")
    assert described["about"]["versions"] == about()["versions"]


def test_one_label_that_means_two_things_is_two_rows(cli, losses, tmp_path):
    other = Runs(tmp_path / "more").add("cdpo_hh", fingerprint="another")
    write_results(tmp_path / "other", about(name="other", baseline="cdpo_hh"), other.entries)
    labels = [row["label"] for row in json.loads(cli(losses, tmp_path / "other", "--json")[1])["rows"]]
    assert labels[-2:] == ["cdpo_hh (losses-1a2b3c4d)", "cdpo_hh (other)"]


def test_different_data_is_rejected_or_allowed_and_then_said(cli, losses, tmp_path):
    other = Runs(tmp_path / "more").add("slic_hh", fingerprint="another", data=DATA_OF_OTHERS)
    write_results(tmp_path / "other", about(name="other", baseline="slic_hh"), other.entries)
    code, out, err = cli(losses, tmp_path / "other")
    assert (code, out) == (2, "")
    assert "these rows have different data" in err
    assert "slic_hh (data 0ther0th" in err
    assert "--allow-different-data" in err
    code, out, _ = cli(losses, tmp_path / "other", "--allow-different-data")
    assert code == 0
    assert "DIFFERENT DATA" in out


def test_runs_of_one_name_are_a_row_and_what_they_differ_in_is_its_grid(cli, tmp_path):
    folders = [
        run_folder(tmp_path, f"dpo_hh-{beta}-{seed}", f"objective.beta={beta}", f"seed={seed}", accuracy=accuracy)
        for beta, accuracy in ((0.1, 0.7), (0.5, 0.8)) for seed in (0, 1)
    ]  # fmt: skip
    code, out, err = cli(*reversed(folders), tmp_path / "sft_hh-0000", "--json")
    assert (code, err) == (0, "")
    sft, dpo = json.loads(out)["rows"]
    assert sft["start"]
    assert dpo["chosen"] == {"objective.beta": 0.5}
    assert [point["point"] for point in dpo["points"]] == [{"objective.beta": 0.1}, {"objective.beta": 0.5}]
    assert [[run["seed"] for run in point["runs"]] for point in dpo["points"]] == [[0, 1], [0, 1]]
    assert dpo["figures"]["preference_accuracy"]["seeds"] == 2
    assert dpo["figures"]["peak_memory_bytes"]["mean"] == 512


def test_runs_share_the_settings_with_the_most_judges_or_those_of_the_named_folder(cli, tmp_path):
    one, two = (run_folder(tmp_path, f"dpo_hh-{seed}", f"seed={seed}") for seed in (0, 1))

    def shown(*names) -> dict:
        code, out, err = cli(one, two, *(word for name in names for word in ("--evaluation", name)), "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    assert "gold.reward" in [column["key"] for column in shown()["columns"]]
    measure(one / "evaluations" / "other", 0, sampling={"temperature": 0.0})
    shown()  # the second run has no replies with these settings
    measure(two / "evaluations" / "other", 1, sampling={"temperature": 0.0})
    code, _, err = cli(one, two)
    assert code == 2
    assert "--evaluation with one of dpo_hh_0-gold-v1 (prompts 40, " in err
    assert "other-gold-v1 (temperature 0.0, judge gold)" in err
    for name in ("other", "other-gold-v1"):
        assert shown(name)["about"]["samples"] == {"temperature": 0.0}
    code, _, err = cli(one, two, "--evaluation", "othr")
    assert code == 2
    assert "no run has the evaluation 'othr'" in err
    assert "did you mean 'other'?" in err


def test_of_two_versions_of_a_judge_one_is_named(cli, tmp_path):
    one, two = (run_folder(tmp_path, f"dpo_hh-{seed}", f"seed={seed}") for seed in (0, 1))
    for folder in (one, two):
        name = folder.name.replace("-", "_")
        judge(folder / "evaluations" / name, [{"reward": 9.0}] * REPLIES, "", "v2")
    code, _, err = cli(one, two)
    assert code == 2
    assert "dpo_hh_0-gold-v1 (" in err
    assert "dpo_hh_0-gold-v2 (" in err
    described = json.loads(cli(one, two, "--evaluation", "dpo_hh_1-gold-v2", "--json")[1])
    assert described["rows"][0]["figures"]["gold.reward"]["mean"] == 9


def test_a_judge_that_failed_in_one_run_does_not_part_it_from_the_others(cli, tmp_path):
    one, two = (run_folder(tmp_path, f"dpo_hh-{seed}", f"seed={seed}") for seed in (0, 1))
    shutil.rmtree(two / "evaluations")
    measure(one / "evaluations" / "again", 0, tokens="others")  # the same settings again
    measure(two / "evaluations" / "dpo_hh_1", 1, problem="OSError: no such server")
    code, out, _ = cli(one, two, "--json")
    assert code == 0
    described = json.loads(out)
    assert described["rows"][0]["figures"]["gold.reward"]["seeds"] == 1
    assert described["notes"][0]["text"] == "Judge gold failed in seed 1: OSError: no such server"


def test_damaged_verdicts_are_named(cli, losses, tmp_path):
    path = tmp_path / "runs" / "run-3" / "evaluations" / "verdicts" / "key-gold-v1" / "about.json"
    path.write_text(path.read_text().replace('"over_chosen": 1.0', '"over_chosen": 0.0', 1))
    code, _, err = cli(losses)
    assert code == 2
    assert f"{path.parent}: the figures of dpo_hh, seed 2, are gone or damaged" in err


def test_runs_that_were_not_measured_alike_are_rejected(cli, tmp_path):
    one, two = (run_folder(tmp_path, f"dpo_hh-{seed}", f"seed={seed}") for seed in (0, 1))
    for place in (one / "evaluations").iterdir():
        shutil.rmtree(place)
    measure(one / "evaluations" / "key", 0, sampling={"temperature": 0.0})
    code, _, err = cli(one, two)
    assert code == 2
    assert "these runs have not been measured alike" in err


def test_a_run_that_is_not_finished_or_measured_says_so(cli, tmp_path):
    folder = run_folder(tmp_path, "dpo_hh-1111")
    shutil.rmtree(folder / "evaluations")
    assert "this run has not been measured" in cli(folder)[2]
    (folder / "summary.json").unlink()
    code, _, err = cli(folder)
    assert code == 2
    assert "this run has not finished" in err


@pytest.mark.parametrize(
    "change",
    [{"test": None}, {"kl": "x"}, {"length": []}, {"reply": 3}, {"id": None}, {"entropy": {"a": 1}}, {"groups": ["a"]}, {"sampling": 3}, {"ids": "a"},
     {"judges": 3}, {"step": 1}, {"seed": "0"}, {"point": []}],
)  # fmt: skip
def test_records_of_another_form_are_a_sentence(cli, losses, tmp_path, change):
    """Under digests that are right."""
    (key,) = change
    folder = sorted((tmp_path / "runs").glob("*/evaluations/key"))[0]
    if key in ("step", "seed", "point"):
        found = json.loads((losses / "results.json").read_text())
        found["runs"][0] |= change
        (losses / "results.json").write_text(json.dumps(found))
    else:
        about = json.loads((folder / "about.json").read_text())
        (folder / "about.json").unlink()
        if key in ("groups", "sampling", "ids"):
            about |= change
        else:
            lines = (folder / "samples.jsonl").read_text().splitlines()
            lines[0] = json.dumps({k: v for k, v in (json.loads(lines[0]) | change).items() if v is not None})
            (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
        write_manifest(folder, {k: v for k, v in about.items() if k not in ("files", "digest")})
    code, _, err = cli(losses)
    assert (code, err.startswith("error: ")) == (0, False) if key == "judges" else (2, True), err
