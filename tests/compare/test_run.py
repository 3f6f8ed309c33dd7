"""Whole comparisons at the smallest size: shared work is done once, nothing is lost, nothing is done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from jobs import ROOT, Command, command, untimed

import alignzoo
from alignzoo.compare.plan import make_plan
from alignzoo.compare.results import read_results
from alignzoo.compare.runner import compare_plan
from alignzoo.compare.spec import Comparison, make_judges
from alignzoo.compare.table import build
from alignzoo.core.console import Screen
from alignzoo.recipe.parse import Node, Origin

sys.path.insert(0, str(ROOT / "benchmarks" / "faults"))
WORDS = ["sft_hh", "dpo_hh", "--with", "tests/smallest.yaml", "--seeds", "2", "--grid", "objective.beta=0.1,0.5", "--judge",
         "toy", "--samples", "4", "--sample-tokens", "8"]  # fmt: skip
PLUGIN = '''
import torch
from alignzoo import Judge, Objective, hookimpl

class Fails(Objective):
    """Fails in its second step."""
    name = "fails"
    def loss(self, pair):
        if float(pair.margin.abs().sum()) > 0:
            raise RuntimeError("the lamp went out")
        return -pair.margin

@hookimpl
def register_objectives():
    return [Fails]
'''


def compare(*words: str, root: Path | None = None) -> Command:
    """Start a comparison; with `root`, in its folders."""
    return command("compare", *words, **folders(root) if root else {})


def folders(root: Path) -> dict[str, str]:
    return {"ALIGNZOO_RUNS": str(root / "runs"), "ALIGNZOO_CACHE": str(root / "cache")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted comparison, run from the command line with empty folders."""
    root = tmp_path_factory.mktemp("whole")
    done = compare(*WORDS, root=root).wait()
    assert done.returncode == 0, done.stderr
    (folder,) = (root / "runs").glob("compare-*")
    return root, folder, done


@pytest.mark.slow
def test_it_says_what_it_will_do_and_leaves_everything_behind(whole):
    root, folder, done = whole
    assert "5 runs (0 done before)" in done.stderr
    assert "1 reference pass;" in done.stderr
    assert "about " in done.stderr
    for name in ("table.md", "table.csv", "table.json", "report.html", "results.json"):
        assert (folder / name).stat().st_size > 200
    assert list(folder.glob("**/*.png"))
    assert list(folder.glob("**/*.svg"))
    assert "accuracy" in done.stdout
    assert len(list((root / "runs").glob("*_hh-*"))) == 5


@pytest.mark.slow
def test_what_can_be_shared_is_done_once(whole):
    about, entries = read_results(whole[1])
    assert about["counts"] == {
        "runs": 5, "runs_done_before": 0, "sft_runs": 1, "reference_passes": 1, "tokenizations": 1,
    }  # fmt: skip
    assert {entry.state for entry in entries} == {"done"}
    assert len({entry.start for entry in entries if entry.start}) == 1


@pytest.mark.slow
def test_the_same_again_runs_nothing_and_gives_the_same_table(whole, monkeypatch):
    root, folder, _ = whole
    before = {path: path.stat().st_mtime_ns for path in (root / "runs").glob("*_hh-*/**/*.safetensors")}
    table = untimed(folder)
    done = compare(*WORDS, root=root).wait()
    assert done.returncode == 0, done.stderr
    assert "5 runs (5 done before)" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert untimed(folder) == table
    assert read_results(folder)[0]["counts"]["reference_passes"] == 0


@pytest.mark.slow
def test_a_search_with_one_seed_gives_the_other_to_the_chosen_point_alone(whole):
    """Every run is there already; a fresh start would make as many."""
    root, _, _ = whole
    done = compare(*WORDS, "--search-seeds", "1", "--name", "searched", root=root).wait()
    assert done.returncode == 0, done.stderr
    assert "3 runs (3 done before), and 1 of the chosen configurations" in " ".join(done.stderr.split())
    (folder,) = (root / "runs").glob("searched-*")
    about, entries = read_results(folder)
    assert {entry.state for entry in entries} == {"done"}
    assert about["counts"] | {"runs": 4, "runs_done_before": 4} == about["counts"]
    for row in build(about, entries).rows[1:]:
        seeds = {point.description: [run.seed for run in point.runs] for point in row.points}
        assert seeds.pop(row.chosen.description) == [0, 1]
        assert list(seeds.values()) == [[0]]


@pytest.mark.slow
@pytest.mark.skipif(torch.get_num_threads() > 1, reason="it forks this process, and a fork has no OpenMP threads")
@pytest.mark.skipif("ALIGNZOO_TEST_ULP" in os.environ, reason="of its two processes only the fork's log-probs move")
def test_killed_in_the_middle_it_goes_on_and_the_table_is_the_same(whole, tmp_path):
    from bench import at_call
    from stage import Workplace

    def inject() -> None:
        from alignzoo.training.run_folder import RunFolder

        at_call(RunFolder, "finish", 4, lambda: os.kill(os.getpid(), signal.SIGKILL))

    assert Workplace(tmp_path, WORDS).run(inject=inject, command="compare").code == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*_hh-*/summary.json")}
    assert len(finished) == 3
    done = compare(*WORDS, root=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    (folder,) = (tmp_path / "runs").glob("compare-*")
    assert folder.name == whole[1].name
    assert untimed(folder) == untimed(whole[1])


@pytest.mark.slow
def test_two_at_once_share_their_work(whole, tmp_path):
    both = [compare(*WORDS, root=tmp_path) for _ in range(2)]
    done = [working.wait(500) for working in both]
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    (folder,) = (tmp_path / "runs").glob("compare-*")
    assert untimed(folder) == untimed(whole[1])
    for timings in (tmp_path / "runs").glob("*_hh-*/timings.jsonl"):
        steps = [json.loads(line)["step"] for line in timings.read_text().splitlines()]
        assert steps == sorted(set(steps))  # nobody trained what the other was training


@pytest.fixture
def started(whole, tmp_path):
    """A copy of the finished runs and caches, for comparisons that need only a little more."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def small(*recipes: str, judges=("toy",), **fields):
    samples = {"prompts": 4, "tokens": 8}
    plan = make_plan(Comparison(
        recipes=recipes, overlays=("tests/smallest.yaml",), seeds=1, judges=judges, samples=samples, **fields
    ))  # fmt: skip
    return plan, make_judges(judges, Node({}, Origin("here")))


@pytest.mark.slow
def test_a_failed_run_is_a_row_that_says_why_and_the_others_go_on(started):
    (started / "fails.py").write_text(PLUGIN)
    (started / "fails_hh.yaml").write_text("extends: dpo_hh\nplugins: [fails.py]\nobjective: fails\n")
    plan, judges = small(str(started / "fails_hh.yaml"), "dpo_hh")
    folder = compare_plan(plan, judges, Screen(quiet=True))
    from alignzoo.report.comparison.write import write_all

    write_all(folder)
    entries = {entry.label: entry for entry in read_results(folder)[1]}
    assert (entries["fails_hh"].state, entries["dpo_hh"].state) == ("failed", "done")
    assert "the lamp went out" in entries["fails_hh"].reason
    text = (folder / "table.md").read_text()
    assert "the lamp went out" in text
    assert "dpo_hh" in text


@pytest.mark.slow
def test_a_judge_that_does_not_answer_costs_its_own_column(started, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    given = ("toy", {"name": "chat", "model": "nobody", "retries": 0, "timeout": 1})
    plan, judges = small("dpo_hh", judges=given)
    folder = compare_plan(plan, judges, Screen(quiet=True))
    from alignzoo.report.comparison.write import write_all

    write_all(folder)
    text = (folder / "table.md").read_text()
    assert "chat" in text
    assert read_results(folder)[1][0].state == "done"
    everything = "".join(path.read_text(errors="ignore") for path in started.rglob("*") if path.is_file())
    assert "sk-very-secret" not in everything


@pytest.mark.slow
def test_every_run_of_a_comparison_is_an_ordinary_run(started):
    (folder,) = (started / "runs").glob("compare-*")
    result = alignzoo.run("dpo_hh", ["objective.beta=0.1"], ["tests/smallest.yaml"])
    assert result.folder.name in {Path(entry.folder).name for entry in read_results(folder)[1]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["dpo_hh", "--seeds", "0"], "seeds: 0 is out of bounds; expected at least 1"),
        (["dpo_hh", "--grid", "objective.bta=1"], "did you mean 'objective.beta'?"),
        (["dpo_hh", "--grid", "objective.beta"], "no values; expected --grid objective.beta=0.05,0.1,0.5"),
        (["dpo_hh", "--baseline", "dop_hh"], "no row is called 'dop_hh'; did you mean 'dpo_hh'?"),
        (["dpo_hh", "--judge", "tyo"], "no judge is called 'tyo'; did you mean 'toy'?"),
        (["dpo_hh", "--select", "sample.reward"], "there is no metric 'sample.reward' of validation rows; expected one of"),
        (["dpo_hh", "--select", "toy.reward", "--judge", "toy"], "'toy.reward' is a figure of replies, and there are none to"),
        (["dop_hh"], "no such recipe"),
    ],
)  # fmt: skip
def test_bad_input_is_reported_with_exit_code_2(words, problem):
    done = compare(*words).wait()
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_mixture_without_held_out_rows_is_compared_on_its_first_evaluation_set(tmp_path, monkeypatch):
    """The run that others start from has no evaluation set. It is measured on theirs, so that judges see one prompt."""
    for name, folder in folders(tmp_path).items():
        monkeypatch.setenv(name, folder)
    tiny = "{config: {hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1}, tokenizer: {vocab_size: 400}}"
    (tmp_path / "start.yaml").write_text(
        f"extends: {ROOT}/recipes/bases/sft_mix.yaml\nmodel: {tiny}\ndata: {{held_out_fraction: 0, held_out_rows: 0}}\n"
    )
    (tmp_path / "mixed.yaml").write_text(
        f"extends: {ROOT}/recipes/mix.yaml\nmodel: {{from: start.yaml}}\n"
        "data: {held_out_fraction: 0, held_out_rows: 0}\n"
        "eval: {data: {lists: {held_out_rows: 12}, tools: {name: toy, shape: tools, held_out_rows: 8}}}\n"
    )
    sets = ("data.max_train_rows=32", "train.max_steps=2", "reporters=[]", "eval.replies.num_prompts=0")
    plan = make_plan(Comparison(
        recipes=[str(tmp_path / "mixed.yaml")], seeds=1, samples={"prompts": 2, "tokens": 4}, set=sets
    ))  # fmt: skip
    folder = compare_plan(plan, make_judges(("toy",), Node({}, Origin("here"))), Screen(quiet=True))
    (entry,) = read_results(folder)[1]
    assert (entry.state, entry.reason) == ("done", "")
    (own,) = tmp_path.glob("runs/mixed-*/evaluations/*/about.json")
    (start,) = tmp_path.glob("runs/start-*/evaluations/*/about.json")
    ids = json.loads(own.read_text())["ids"]
    assert len(ids) == 12
    assert json.loads(start.read_text())["ids"] == ids
