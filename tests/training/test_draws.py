"""Runs that draw a data set: its rows, a kill in the middle, batches, processes, and the recipes that read it."""

from __future__ import annotations

import json
import shutil
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from jobs import start
from rollout_runs import killed
from tiny_runs import tiny_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

import alignzoo
from alignzoo.cli.app import alignzoo as command
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.data.dataset import tokenized_dataset
from alignzoo.recipe.load import load_recipe
from alignzoo.rollouts import attempts as attempts_module
from alignzoo.rollouts import drawn_by as drawn_by_module
from alignzoo.rollouts import folder as folder_module
from alignzoo.training import draws as draws_module
from alignzoo.training.runs import describe_run, load_finished

REWARD = '''
def spread(completions, completion_ids):
    """A number that differs for most tokens, and is the same for the same ones."""
    return [sum((n + 1) * id for n, id in enumerate(ids)) % 101 / 101 for ids in completion_ids]


def even(completions, completion_ids):
    """1 or 0: draws of a prompt are often equal. It applies to no draw of one token."""
    return [float(sum(ids) % 2) if len(ids) > 1 else None for ids in completion_ids]
'''
DRAW = {"completions": 4, "max_new_tokens": 6, "rewards": ["spread", {"name": "even", "weight": 0}]}
READER = {"objective": "dpo", "model": {"from": "sft.yaml"}, "data": {"from": "draws.yaml", "pairs": "all"}}


def write(folder: Path, name: str, node: dict) -> str:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(node))
    return str(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with an SFT run, and a finished run of draws for its 24 prompts."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
        patch.setattr(draws_module, "PROMPTS_OF_A_PART", 5)
        (root / "reward.py").write_text(REWARD)
        sft = yaml.safe_load(tiny_recipe(root, "sft", objective="sft").read_text())
        data = {"name": "files", "path": "rows.jsonl", "held_out_fraction": 0.4}
        draws = {"plugins": ["reward.py"], "model": {"from": "sft.yaml"}, "data": data, "draw": DRAW}
        write(root, "dpo", sft | READER)
        alignzoo.run(write(root, "draws", draws))
    return root


@pytest.fixture
def home(made, tmp_path, monkeypatch) -> Path:
    """This test's own copy."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "home" / "cache"))
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "home" / "runs"))
    return tmp_path / "home"


def run_of(root: Path, name: str = "draws") -> Path:
    (found,) = (root / "runs").glob(f"{name}-*")
    return found


def data_set(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run_of(root) / "draws").iterdir())}


def lines(root: Path, name: str = "train") -> list[dict]:
    return list(map(json.loads, (run_of(root) / "draws" / f"{name}.jsonl").read_text().splitlines()))


def test_a_row_has_draws_scores_and_tokens(made):
    """Prompts of both sides are there, each with its four draws, both rewards, and the ids whose text is shown."""
    data = json.loads((run_of(made) / "data.json").read_text())
    rows, held_out = lines(made), lines(made, "test")
    assert (len(rows), len(held_out)) == (data["train"], data["held_out"])
    assert len(rows) + len(held_out) == 24
    assert not {row["group"] for row in rows} & {row["group"] for row in held_out}
    tokenizer = AutoTokenizer.from_pretrained(run_of(made, "sft") / "policy")
    for row in rows + held_out:
        assert row["prompt"] == tokenizer.decode(row["prompt_ids"])
        assert len(row["completions"]) == len(row["finished"]) == 4
        for n, ids in enumerate(row["completion_ids"]):
            assert row["finished"][n] == (ids[-1] == tokenizer.eos_token_id)
            assert row["finished"][n] or len(ids) == 6
            assert row["completions"][n] == tokenizer.decode(
                ids[:-1] if row["finished"][n] else ids, skip_special_tokens=True
            )
            assert row["scores"][n] == row["spread"][n] == sum((k + 1) * id for k, id in enumerate(ids)) % 101 / 101
            assert row["even"][n] == (sum(ids) % 2 if len(ids) > 1 else None)


def test_the_summary_counts_pairs_ties_and_lengths(made):
    figures = json.loads((run_of(made) / "summary.json").read_text())["draws"]
    for name, rows in (("train", lines(made)), ("test", lines(made, "test"))):
        draws = [list(zip(row["completion_ids"], row["scores"], strict=True)) for row in rows]
        pairs = [
            (a, b) for own in draws for a, b in combinations({tuple(ids): score for ids, score in own}.values(), 2)
        ]
        scores = [score for own in draws for _, score in own]
        assert figures[name]["prompts"] == len(rows)
        assert figures[name]["draws"] == 4 * len(rows)
        assert figures[name]["pairs"] == len(pairs)
        assert figures[name]["tied_pairs"] == sum(a == b for a, b in pairs)
        assert figures[name]["reward"] == pytest.approx(sum(scores) / len(scores), abs=1e-12)
        sizes = [len(ids) for row in rows for ids in row["completion_ids"]]
        assert figures[name]["length"] == pytest.approx(sum(sizes) / len(sizes))
        ends = [one for row in rows for one in row["finished"]]
        assert figures[name]["finished"] == pytest.approx(sum(ends) / len(ends))
    assert not (run_of(made) / "parts").exists()


def test_near_temperature_zero_they_are_transformers_greedy_completions(home):
    alignzoo.run("draws.yaml", ["name=greedy", "draw.temperature=0.001", "draw.completions=1", "draw.rewards=null"])
    folder = run_of(home, "sft") / "policy"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    path = run_of(home, "greedy") / "draws" / "train.jsonl"
    rows = list(map(json.loads, path.read_text().splitlines()))
    assert "scores" not in rows[0]
    for row in rows:
        asked = torch.tensor([row["prompt_ids"]])
        found = model.generate(asked, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        assert row["completion_ids"] == [found[0, asked.shape[1] :].tolist()]


def test_batches_and_parts_change_no_draw(home):
    want = data_set(home)
    for budget in (12, 40):  # one completion at a time, a few; parts of 256 prompts
        shutil.rmtree(run_of(home))
        alignzoo.run("draws.yaml", [f"draw.batch_tokens={budget}"])
        assert data_set(home) == want


def test_a_finished_run_and_its_draws_are_used_again(home, monkeypatch):
    monkeypatch.setattr(drawn_by_module, "draw", None)  # nothing is drawn
    done = alignzoo.run("draws.yaml")
    assert done.folder == run_of(home)


@pytest.mark.parametrize(("module", "name", "at"), [
    (drawn_by_module, "draw", 2), (attempts_module, "score", 3), (folder_module, "save_file", 4),
    (draws_module, "write_manifest", 1), (draws_module, "remove", 1),
])  # fmt: skip
def test_a_killed_run_ends_with_the_same_bytes(home, monkeypatch, module, name, at):
    """Parts that are there are not drawn again: at most one is lost."""
    monkeypatch.setattr(draws_module, "PROMPTS_OF_A_PART", 5)
    want = data_set(home)
    parts = sum(-(-len(lines(home, side)) // 5) for side in ("train", "test"))
    shutil.rmtree(run_of(home))
    assert killed(module, name, at, lambda: alignzoo.run("draws.yaml"))
    there = len(list((run_of(home) / "parts").glob("*/*/drawn/about.json")))
    assert not (run_of(home) / "summary.json").exists()
    drawn, draw = [], drawn_by_module.draw
    monkeypatch.setattr(drawn_by_module, "draw", lambda *a, **o: drawn.append(1) or draw(*a, **o))
    alignzoo.run("draws.yaml")
    assert data_set(home) == want
    assert len(drawn) == (0 if module is draws_module else parts - there)


def test_damaged_draws_are_told_and_drawn_again_with_fresh(home):
    want, path = data_set(home), run_of(home) / "draws" / "train.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="the drawn data are damaged") as error:
        alignzoo.run("dpo.yaml")
    assert "--fresh draws them again" in error.value.problems[0].hint
    alignzoo.run("draws.yaml", fresh=True)
    assert data_set(home) == want


def test_recipes_that_read_them_share_the_draws_and_train_on_their_tokens(home, monkeypatch):
    """DPO's pairs are all of a prompt's draws with different scores; SFT's completions are the best of four."""
    monkeypatch.setattr(drawn_by_module, "draw", None)  # nothing is drawn
    done = alignzoo.run("dpo.yaml", ["train.max_steps=2"])
    rows = lines(home)
    wanted = {
        (tuple(row["prompt_ids"]), tuple(a), tuple(b))
        for row in rows
        for (a, s), (b, t) in [(x, y) for x in _scored(row) for y in _scored(row)]
        if s > t
    }
    dataset = _dataset("dpo.yaml")
    trees = [dataset.train.trees[i] for i in range(len(dataset.train.trees))]
    found = [(tuple(tree.prompt.tolist()), *(tuple(own.tokens.tolist()) for own in tree.branches)) for tree in trees]
    assert set(found) == wanted
    assert len(found) == done.summary["data"]["train"]
    assert len(done.summary["data"]) and done.summary["data"]["held_out"] > 0  # noqa: PT018
    best = _dataset("dpo.yaml", "objective=sft")
    for i, row in enumerate(rows):
        (own,) = best.train.trees[i].branches
        assert own.tokens.tolist() == max(_scored(row), key=lambda one: one[1])[0]


def _scored(row: dict) -> list[tuple[list[int], float]]:
    return list(zip(row["completion_ids"], row["scores"], strict=True))


def _dataset(recipe: str, *overrides: str):
    resolved = load_recipe(recipe, list(overrides))
    tokenizer = AutoTokenizer.from_pretrained(run_of(Path.cwd(), "sft") / "policy")
    return tokenized_dataset(resolved, tokenizer, Screen(quiet=True).info)


def test_prefixes_of_texts_are_what_is_drawn_for_and_judged(home):
    """The sentiment experiment: prompts of 2 to 8 tokens of a review that SFT has not read."""
    (home / "texts.jsonl").write_text("".join(json.dumps({"text": f"Review {i} of a film."}) + "\n" for i in range(40)))
    (home / "seen.py").write_text(
        "def seen(prompts, completions, label=None):\n    return [float(len(prompt)) for prompt in prompts]\n"
    )
    data = {"name": "files", "path": "texts.jsonl", "group_range": [0.5, 1], "prefix_tokens": {"least": 2, "most": 8}}
    node = {"plugins": ["seen.py"], "model": {"from": "sft.yaml"}, "data": data, "draw": {**DRAW, "rewards": ["seen"]}}
    done = alignzoo.run(write(home, "prefixes", node))
    rows = list(map(json.loads, (done.folder / "draws" / "train.jsonl").read_text().splitlines()))
    assert 8 < len(rows) < 32
    for row in rows:
        size = len(row["prompt_ids"])
        assert 2 <= size <= 8
        assert row["prompt"] == row["group"][:size]  # one token a byte
        assert row["scores"] == [float(size)] * 4
    text = load_recipe("sft.yaml", ["data={name: files, path: texts.jsonl, group_range: [0, 0.5]}"])
    from alignzoo.data.splits import read_rows

    read = read_rows(text.recipe.data)
    assert not {row.group for row in (*read.train, *read.held_out)} & {row["group"] for row in rows}


def test_other_commands_know_such_a_run(home):
    folder = run_of(home)
    info = describe_run(folder)
    assert (info.state, info.objective, info.accuracy) == ("finished", "draw", None)
    with pytest.raises(UserError, match="draws makes a data set and no policy"):
        load_finished(folder)

    def said(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(command, list(words))
        assert done.exit_code == code, done.output
        return done.output

    assert "draw:" in said("show", str(folder))
    assert "it draws a data set" in said("validate", "draws.yaml")
    assert "4 completions of at most 6 tokens for each of 24 prompts" in said("validate", "draws.yaml")
    assert said("report", str(folder)).strip().endswith("report.html")
    assert "pairs" in (folder / "report.html").read_text()
    assert "rows read" in said("data", "inspect", "draws.yaml")
    assert "further pairs of lists" in said("data", "inspect", "dpo.yaml")
    assert "data:" in said("run", "draws.yaml")
    shutil.rmtree(folder)
    plan = said("validate", "dpo.yaml")
    assert "those that draws will draw" in plan
    assert describe_run(run_of(home, "sft")).objective == "sft"


def test_a_comparison_has_no_row_for_them(home):
    from alignzoo.compare.plan import make_plan
    from alignzoo.compare.spec import Comparison

    with pytest.raises(UserError, match="draws draws a data set and trains nothing to compare"):
        make_plan(Comparison(recipes=("draws.yaml",)))
    plan = make_plan(Comparison(recipes=("dpo.yaml",), rows={"objective.beta": [0.1, 1]}, seeds=2))
    assert len(plan.jobs) == 4
    assert sorted(start.recipe.name for start in plan.starts) == ["draws", "sft"]


@pytest.mark.slow
def test_two_processes_draw_the_same(home):
    want = data_set(home)
    shutil.rmtree(run_of(home))
    job = start(home, ["run", str(home / "draws.yaml")], 2, [{}])
    assert set(job.wait()) == {0}, job.said()
    assert data_set(home) == want
