"""Temperatures and best of N: what is drawn, what is drawn once, and what the table says of it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_plugins import REWARD_MODEL
from measured import SAMPLING, Runs, about
from tiny_runs import tiny, tiny_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.cli.compare import _comparison, _replies
from alignzoo.compare import replies as replies_module
from alignzoo.compare.best_of import BestOf
from alignzoo.compare.measure import measure
from alignzoo.compare.plan import make_plan
from alignzoo.compare.results import Drawn, read_results, write_results
from alignzoo.compare.runner import compare_plan
from alignzoo.compare.spec import Comparison, Sampling, make_judges
from alignzoo.compare.table import build
from alignzoo.core.artifacts import write_manifest
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.evaluation.best_of_draws import kl_bound
from alignzoo.evaluation.judges.length import Length
from alignzoo.interfaces.judge import Judge
from alignzoo.models.generation import generate_replies
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.parse import Node, Origin
from alignzoo.report.comparison.write import write_all

pytestmark = pytest.mark.usefixtures("no_fork")
QUIET = Screen(quiet=True)
LETTERS = Length(unit="characters")
TOKENS = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished run of a tiny recipe; every test has a copy of its own."""
    root = tmp_path_factory.mktemp("axes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
        tiny_recipe(root, prompts=24)
        folder = tiny(root).folder
    return root, folder.name


@pytest.fixture
def run(world, tmp_path, monkeypatch):
    root, name = world
    shutil.copytree(root / "runs" / name, tmp_path / "runs" / name)
    shutil.copytree(root / "cache", tmp_path / "cache", dirs_exist_ok=True)
    return load_recipe(root / "tiny.yaml"), tmp_path / "runs" / name


@pytest.fixture
def drawn(monkeypatch):
    """Every call that draws: (temperature, number of replies)."""
    calls = []

    def draw(model, tokenizer, prompts, **options):
        calls.append((options["temperature"], len(prompts)))
        return generate_replies(model, tokenizer, prompts, **options)

    monkeypatch.setattr(replies_module, "generate_replies", draw)
    return calls


def settings(*temperatures: float) -> Sampling:
    return Sampling(prompts=3, tokens=TOKENS, temperature=temperatures)


def best_of(*counts: int, recipe: Path) -> BestOf:
    comparison = Comparison(
        recipes=(str(recipe),), best_of=counts, best_of_judge={"name": "length", "unit": "characters"}
    )
    found = BestOf.of(comparison, ["tiny"], ())
    assert found is not None
    return found


# --- what is drawn


def test_temperature_0_is_the_greedy_reply_of_transformers(run):
    recipe, folder = run
    found = measure(recipe, folder, settings(0, 1), (), None, QUIET)
    model = AutoModelForCausalLM.from_pretrained(folder / "policy").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    lines = found.at(0).samples
    assert len(lines) == 3
    for line in lines:
        ids = tokenizer(line["prompt"], return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
        new = out[0, ids["input_ids"].shape[1] :].tolist()
        assert line["length"] == len(new)
        text = tokenizer.decode(new, skip_special_tokens=True)
        assert line["reply"] == text
        assert (line["kl"], line["log_ratio"]) == (None, None), "the KL is the policy's at temperature 1 alone"
    assert all(line["kl"] is not None for line in found.at(1).samples)
    assert found.at(0.5) is None


def test_a_temperature_that_is_added_draws_its_own_replies_alone(run, drawn):
    recipe, folder = run
    before = measure(recipe, folder, settings(0.5), [LETTERS], None, QUIET)
    assert drawn == [(0.5, 3)]
    first = measure(recipe, folder, settings(0.5, 1, 0), [LETTERS], None, QUIET)
    assert sorted(drawn[1:]) == [(0.0, 3), (1.0, 3)]
    assert first.at(0.5).samples == before.samples
    del drawn[:]
    more = measure(recipe, folder, settings(1, 0.25, 0), [LETTERS], None, QUIET)
    assert drawn == [(0.25, 3)]
    assert more.path == first.path
    assert more.at(0).samples == first.at(0).samples
    del drawn[:]
    other = measure(recipe, folder, settings(0.25), [LETTERS], None, QUIET)  # now the table's own
    assert drawn == []
    assert [line["reply"] for line in other.samples] == [line["reply"] for line in more.at(0.25).samples]
    for line in more.at(0.25).samples:
        assert line["judges"]["length"]["reward"] == len(line["reply"].strip())


def test_best_of_n_draws_once_for_the_largest_n_and_the_first_draw_is_the_plain_reply(run, drawn, world):
    recipe, folder = run
    found = measure(
        recipe, folder, settings(1), [LETTERS], None, QUIET, best_of=best_of(1, 2, 4, recipe=world[0] / "tiny.yaml")
    )
    assert drawn == [(1.0, 3), (1.0, 12)]
    (one,) = found.drawn
    lines = one.folder.samples
    assert [line["number"] for line in lines] == [0, 1, 2, 3] * 3
    prompts = [line["prompt"] for line in found.samples]
    for n, (line, first) in enumerate(zip(found.samples, lines[::4], strict=True)):
        assert (first["id"], first["prompt"]) == (line["id"], line["prompt"])
        assert first["reply"] == line["reply"] or line["prompt"] in prompts[:n], "its streams come after those before"
    assert len({line["reply"] for line in lines[:4]}) > 1
    assert [verdict["reward"] for verdict in one.picker["verdicts"]] == [len(line["reply"].strip()) for line in lines]
    assert one.picker["verdicts"][0].keys() == {"reward"}, "what picks compares with nothing"
    del drawn[:]
    again = measure(
        recipe, folder, settings(1), [LETTERS], None, QUIET, best_of=best_of(3, 4, recipe=world[0] / "tiny.yaml")
    )
    assert drawn == []
    assert again.drawn[0].replies == one.replies


class Asked(Judge):
    """A judge behind an address, which counts what it is asked."""

    name = "asked"

    def address(self):
        return "https://judge.example"

    def prefers(self, prompts, first, second):
        SEEN.extend(first)
        return [float(len(a) > len(b)) for a, b in zip(first, second, strict=True)]


SEEN: list[str] = []


def test_a_judge_behind_an_address_sees_the_best_of_the_first_n_alone(run, world):
    recipe, folder = run
    SEEN.clear()
    found = measure(
        recipe, folder, settings(1), [Asked()], None, QUIET, best_of=best_of(1, 4, recipe=world[0] / "tiny.yaml")
    )
    (one,) = found.drawn
    assert len(SEEN) <= 3 + 3 * 2
    assert one.folder.judges["asked"]["first"]
    for n in range(3):
        own = one.folder.samples[4 * n : 4 * n + 4]
        best = max(range(4), key=lambda i: len(own[i]["reply"].strip()))
        seen = {i for i, line in enumerate(own) if line["judges"]["asked"]}
        assert seen == {0, best}


def test_a_judge_that_picks_and_fails_leaves_the_rest_of_the_row(run, world, monkeypatch):
    recipe, folder = run

    def scores(self, prompts, replies, tokens=()):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(Length, "scores", scores)
    found = measure(recipe, folder, settings(1), (), None, QUIET, best_of=best_of(1, 2, recipe=world[0] / "tiny.yaml"))
    assert found.drawn[0].picker["problem"] == "ConnectionError: nobody there"
    assert len(found.samples) == 3


# --- a whole comparison


def test_a_comparison_over_both_axes_with_a_reward_model_that_picks(tmp_path, drawn):
    tiny_recipe(tmp_path)
    (tmp_path / "ranks.py").write_text(REWARD_MODEL)
    rm = tiny_recipe(tmp_path, "rm", objective="ranks", plugins=[str(tmp_path / "ranks.py")])
    comparison = Comparison(
        recipes=(str(tmp_path / "tiny.yaml"),), seeds=1, samples=settings(0, 1), best_of=(1, 4),
        judges=({"name": "length", "unit": "characters"},), best_of_judge={"name": "reward_model", "from": str(rm)},
    )  # fmt: skip
    plan = make_plan(comparison)
    judges = make_judges(comparison.judges, Node({}, Origin("here")))
    folder = compare_plan(plan, judges, QUIET)
    assert len(list((tmp_path / "runs").glob("rm-*/summary.json"))) == 1
    table = write_all(folder)
    assert [row.problem for row in table.rows] == [""]
    shown = {(one.axis, one.column.key): one for one in table.axes}
    assert ("temperature", "length.over_chosen") in shown
    assert ("temperature", "kl") not in shown
    picked = shown["best_of", "reward_model.reward"]
    means = [picked.cells["tiny", n].estimate.mean for n in (1, 4)]
    (run,) = table.rows[0].chosen.done
    one = next(one for one in run.drawn if one.counts)
    scores = np.array([verdict["reward"] for verdict in one.picker["verdicts"]]).reshape(-1, 4)
    assert means == pytest.approx([scores.mean(), scores.max(1).mean()])
    assert means[1] > means[0]
    lengths = np.array([line["length"] for line in one.folder.samples]).reshape(-1, 4)
    best = lengths[np.arange(len(lengths)), scores.argmax(1)]
    assert shown["best_of", "length"].cells["tiny", 4].estimate.mean == pytest.approx(best.mean())
    del drawn[:]
    assert compare_plan(plan, judges, QUIET) == folder
    assert drawn == []


# --- the table


def made(root: Path):
    """SFT and DPO with replies at two more temperatures, and best of 4 of SFT; all numbers are made up."""
    root.mkdir(exist_ok=True)
    runs = Runs(root).add("sft_hh", accuracy=0.55, kl=0.0, reward=0.1, fingerprint="57a7" * 8, start=None)
    for seed in range(2):
        runs.add("dpo_hh", seed, accuracy=0.8 + 0.01 * seed)
    dice = np.random.default_rng(0)
    entries = []
    for n, record in enumerate(runs.entries):
        lines = record.figures.samples
        more = []
        for temperature in (0.0, 0.5):
            path = root / f"replies-{n}-{temperature:g}"
            path.mkdir()
            own = [{key: value for key, value in line.items() if key != "judges"} for line in lines]
            own = [
                line | {"length": int(line["length"] * (1 + temperature)), "kl": None, "log_ratio": None}
                for line in own
            ]
            write(path, own, {"sampling": SAMPLING | {"temperature": temperature}, "tokens": ""})
            wins = [{"reward": float(dice.random()), "over_chosen": float(dice.random() < 0.3 + 0.3 * n)} for _ in own]
            verdicts = judged(path, wins)
            more.append(Drawn(temperature, str(path), [verdicts]))
        if record.label == "sft_hh":
            path = root / "draws"
            path.mkdir()
            draws = [{key: value for key, value in line.items() if key != "judges"} | {"number": i, "length": 10 + i}
                     for line in lines for i in range(4)]  # fmt: skip
            write(path, draws, {"sampling": SAMPLING, "tokens": "", "draws": 4})
            true = [{"reward": float(dice.random()), "over_chosen": 0.5} for _ in draws]
            learnt = [{"reward": float(dice.random())} for _ in draws]
            more.append(
                Drawn(1.0, str(path), [judged(path, true)], 4, (1, 2, 4), "learnt", judged(path, learnt, "learnt"))
            )
        entries.append(replace(record, drawn=tuple(more)))
    return entries


def write(path: Path, lines, manifest) -> None:
    (path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(path, manifest)


def judged(path: Path, verdicts, name: str = "gold") -> str:
    folder = path.parent / f"{path.name}-{name}"
    folder.mkdir()
    write_manifest(folder, {"evaluation": path.name, "judge": name, "version": "v1", "fields": {}, "over_start": False,
                            "problem": "", "verdicts": verdicts})  # fmt: skip
    return str(folder)


def test_the_table_has_every_figure_over_both_axes_with_intervals(tmp_path):
    entries = made(tmp_path)
    table = build(about(), entries)
    shown = {(one.axis, one.column.key): one for one in table.axes}
    wins = shown["temperature", "gold.over_chosen"]
    assert wins.places == (0.0, 0.5, 1.0)
    assert wins.labels == ["sft_hh", "dpo_hh"]
    own = [[line["judges"]["gold"]["over_chosen"] for line in run.figures.at(0.5).samples] for run in entries[1:]]
    cell = wins.cells["dpo_hh", 0.5]
    assert cell.estimate.mean == pytest.approx(np.mean(own))
    assert 0 <= cell.estimate.low < cell.estimate.mean < cell.estimate.high <= 1
    sft = [line["judges"]["gold"]["over_chosen"] for line in entries[0].figures.at(0.5).samples]
    by = wins.cells["sft_hh", 0.5].difference
    assert by.mean == pytest.approx(np.mean(sft) - np.mean(own))
    assert not {"kl", "kl_sampled"} & {column for axis, column in shown if axis == "temperature"}
    best = shown["best_of", "gold.reward"]
    assert list(best.cells) == [("sft_hh", 1), ("sft_hh", 2), ("sft_hh", 4)]
    drawn = entries[0].drawn[-1]
    learnt = np.array([verdict["reward"] for verdict in drawn.picker["verdicts"]]).reshape(-1, 4)
    true = np.array([line["judges"]["gold"]["reward"] for line in drawn.folder.samples]).reshape(-1, 4)
    for n in (1, 2, 4):
        every = [
            [t[max(subset, key=lambda i: s[i])] for subset in combinations(range(4), n)]
            for s, t in zip(learnt, true, strict=True)
        ]
        assert best.cells["sft_hh", n].estimate.mean == pytest.approx(np.mean([np.mean(own) for own in every]))
    assert ("best_of", "learnt.over_chosen") not in shown


def test_every_format_shows_the_axes_and_names_the_bound_as_one(tmp_path):
    entries = made(tmp_path / "made")
    table = write_all(tmp_path / "out", build(about(), entries))
    out = tmp_path / "out"
    page, text = (out / "report.html").read_text(), (out / "table.md").read_text()
    for words in ("Over the sampling temperature", "Best of N", "by the score of learnt", "an upper bound, not a measurement",
                  "≤ 0.64", "standard errors of their paired difference"):  # fmt: skip
        assert words in page or words.lower() in page.lower(), words
    assert "## Best of N" in text
    assert f"≤ {kl_bound(4):.2f}" in text
    assert "(KL: upper bound)" in (out / "frontier.svg").read_text()
    for name in ("temperature-gold-over_chosen", "best_of-gold-reward"):
        drawn = (out / f"{name}.svg").read_text()
        assert "sft_hh" in drawn
        assert name in page
    lines = list(csv.DictReader((out / "axes.csv").open()))
    assert {line["axis"] for line in lines} == {"temperature", "best_of"}
    (line,) = [one for one in lines if (one["axis"], one["place"], one["column"]) == ("best_of", "4", "gold.reward")]
    assert float(line["kl_upper_bound"]) == kl_bound(4)
    found = json.loads((out / "table.json").read_text())["axes"]
    assert {one["column"] for one in found} >= {"gold.over_chosen", "learnt.reward", "length"}
    assert table.axes
    # On a narrow page every wide thing is in a box of its own that scrolls, and cells say what they are.
    for tag in re.findall(r'<div class="scroll[^>]*>\s*<(?:table|svg)', page):
        assert "scroll" in tag
    assert page.count("<table") == len(re.findall(r'<div class="scroll table"[^>]*><table', page))
    assert 'data-column="temperature 0.5"' in page


def test_results_of_before_there_were_axes_are_read(tmp_path):
    runs = Runs(tmp_path).add("dpo_hh")
    write_results(tmp_path, about(), runs.entries)
    content = json.loads((tmp_path / "results.json").read_text())
    for record in content["runs"]:
        del record["drawn"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    found, records = read_results(tmp_path)
    assert build(found, records).axes == ()
    entries = made(tmp_path / "made")
    write_results(tmp_path, about(samples=SAMPLING | {"temperature": [0, 0.5, 1]}), entries)
    found, records = read_results(tmp_path)
    assert [one.replies for record in records for one in record.drawn] == [
        one.replies for record in entries for one in record.drawn
    ]
    assert build(found, records).axes == build(found, entries).axes


# --- mistakes


def test_kl_at_another_temperature_is_no_figure_of_the_table(tmp_path):
    runs = Runs(tmp_path).add("dpo_hh", sampling=SAMPLING | {"temperature": 0.7})
    table = build(about(), runs.entries)
    assert table.column("kl") is None
    assert table.column("length") is not None


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"best_of_judge": "lengt"}, "did you mean 'length'"),
        ({"best_of_judge": "length", "best_of_rows": ("sft",)}, "no row is called 'sft'"),
    ],
)
def test_a_mistake_in_best_of_is_found_before_any_run(tmp_path, fields, problem):
    recipe = tiny_recipe(tmp_path)
    with pytest.raises(UserError) as error:
        make_plan(Comparison(recipes=(str(recipe),), best_of=(1, 4), **fields))
    assert problem in str(error.value)
    assert "best_of" in str(error.value)


def test_the_command_line_sets_both_axes(tmp_path):
    recipe = str(tiny_recipe(tmp_path))
    words = {"temperature": "0, 0.25,1", "best_of": "4,1", "best_of_judge": "{name: length, unit: characters}",
             "best_of_rows": ("tiny",)}  # fmt: skip
    found, _ = _comparison((recipe,), words)
    assert (found.samples.temperature, found.samples.main) == ((0.0, 0.25, 1.0), 1.0)
    assert (found.best_of, found.best_of_rows) == ((1, 4), ("tiny",))
    plan = make_plan(found)
    assert plan.best_of is not None
    assert plan.best_of.judge == LETTERS
    assert plan.best_of.measures("tiny") is plan.best_of
    assert plan.best_of.measures("other") is None
    assert _replies(plan) == (
        "replies of each run: 128 at each temperature of 0, 0.25, 1; 512 for the best of 4 of tiny, picked by length"
    )
    with pytest.raises(UserError, match="'warm' is not a number"):
        _comparison((recipe,), {"temperature": "warm"})
