"""`alignzoo judge`: figures by hand, position bias that is known, verdicts asked once, and mistakes as sentences."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from evaluation.judges.server import KEY, Answer, serving

import alignzoo
from alignzoo.cli import alignzoo as cli
from alignzoo.compare import judge_verdicts
from alignzoo.compare.agreement import kappa_values
from alignzoo.compare.completion_scores import without_rounding
from alignzoo.compare.judge_figures import agreement, best_of_n, figures_of
from alignzoo.compare.judge_pairs import open_source, read_pairs
from alignzoo.compare.judge_report import JudgeReport
from alignzoo.compare.judge_verdicts import ask_judge
from alignzoo.compare.scales import SHARE, estimate
from alignzoo.compare.statistics import interval
from alignzoo.core.console import Screen
from alignzoo.core.door import read_json
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.core.paths import cache_root
from alignzoo.evaluation.judges.chat import Chat
from alignzoo.evaluation.judges.length import Length
from alignzoo.interfaces.judge import Judge

PAIRS = [
    {"prompt": "one", "chosen": " aaaa", "rejected": " b"},
    {"prompt": "two", "chosen": "c", "rejected": "ddd"},
    {"prompt": "three", "chosen": "ee", "rejected": "ff"},
    {"prompt": "one", "chosen": "gggg", "rejected": "h "},
]
LISTS = [
    {"prompt": "p", "chosen": ["long"], "rejected": ["a", "bb", "ccc"], "subset": "Focus"},
    {"prompt": "q", "chosen": ["ccc"], "rejected": ["a", "ddd", "bb"], "subset": "Focus"},
    {"prompt": "r", "chosen": ["a"], "rejected": ["bb", "ccc", "dddd"], "subset": "Math"},
]
SCREEN = Screen(quiet=True)


class Asked(Judge):
    """Remembers what it is asked."""

    name = "asked"

    def __init__(self, **fields):
        super().__init__(**fields)
        self.__dict__["calls"] = []


class First(Asked):
    """Prefers whichever reply is shown first."""

    name = "first"

    def prefers(self, prompts, first, second):
        self.calls.extend(zip(prompts, first, second, strict=True))
        return [1.0 for _ in prompts]


class Longer(Asked):
    """Prefers the longer reply, and the first of two that are as long."""

    name = "longer"

    def prefers(self, prompts, first, second):
        self.calls.extend(zip(prompts, first, second, strict=True))
        return [float(len(a) >= len(b)) for a, b in zip(first, second, strict=True)]


class Counting(Asked):
    """Scores by length, and counts the replies."""

    name = "counting"

    def scores(self, prompts, replies):
        self.calls.extend(replies)
        return [float("nan") if reply == "ff" else float(len(reply)) for reply in replies]


def written(folder: Path, records, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def pairs_of(folder: Path, records):
    return read_pairs("rows", open_source("rows", {"name": "files", "path": str(written(folder, records))}))


def called(*options) -> dict:
    done = CliRunner().invoke(cli, ["judge", *map(str, options), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def means(figures) -> dict[str, float]:
    return {name: figure["mean"] for name, figure in figures.items()}


# --- figures


def test_a_length_judge_on_rows_of_known_lengths(tmp_path):
    report = called(written(tmp_path, PAIRS), "--judge", "{name: length, unit: characters}")
    found = report["sets"]["rows"]
    assert (found["rows"], found["pairs"], found["prompts"]) == (4, 4, 3)
    figures = found["judges"]["length"]["figures"]
    assert means(figures) == {
        "accuracy": 0.625, "ties": 0.25, "accuracy_longer": 1.0, "accuracy_shorter": 0.0, "prefers_longer": 1.0,
        "longer_than_labels": pytest.approx(1 / 3),
    }  # fmt: skip
    assert [figures[name]["n"] for name in figures] == [4, 4, 2, 1, 3, 3]
    assert found["labels"]["prefers_longer"]["mean"] == pytest.approx(2 / 3)
    want = estimate(np.array([[1.0, 0.0, 0.5, 1.0]]), SHARE, groups=np.array([1, 2, 3, 1]))
    assert (figures["accuracy"]["low"], figures["accuracy"]["high"]) == pytest.approx((want.low, want.high))
    assert figures["accuracy"]["prompts"] == 3


def test_a_judge_of_the_first_place_has_all_of_the_bias(tmp_path):
    pairs = pairs_of(tmp_path, PAIRS)
    judge = First()
    figures = figures_of(ask_judge(judge, pairs, "first", SCREEN), pairs)
    assert means(figures) == {
        "accuracy": 0.5, "ties": 1.0, "accuracy_longer": 0.5, "accuracy_shorter": 0.5, "prefers_longer": 0.5,
        "inconsistent": 1.0, "first_place": 0.5, "longer_than_labels": pytest.approx(0.5 - 2 / 3),
    }  # fmt: skip
    shown = [(prompt, a, b) for prompt, a, b in judge.calls]
    assert ("one", "aaaa", "b") in shown  # without the white space around it
    assert {(prompt, b, a) for prompt, a, b in shown} == set(shown)  # both orders
    assert len(shown) == 8


def test_a_judge_of_length_is_inconsistent_where_lengths_are_equal(tmp_path):
    pairs = pairs_of(tmp_path, PAIRS)
    figures = figures_of(ask_judge(Longer(), pairs, "longer", SCREEN), pairs)
    assert figures["accuracy"]["mean"] == 0.625
    assert figures["inconsistent"]["mean"] == 0.25
    assert figures["first_place"]["mean"] == 0.125  # 1/2 on one pair of four


def test_the_chat_judge_averages_its_orders_and_its_bias_is_still_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    pairs, judge = pairs_of(tmp_path, PAIRS), Chat(model="m", backoff=0.001)
    with serving(lambda asked, before: Answer("A")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert judge.prefers(["one"], ["aaaa"], ["b"]) == [0.5]
        figures = figures_of(ask_judge(judge, pairs, "chat", SCREEN), pairs)
        assert len(server.asked) == 8  # two of them before, which its own cache knows
        assert figures["first_place"]["mean"] == 0.5
        assert figures["inconsistent"]["mean"] == 1
        ask_judge(judge, pairs, "chat", SCREEN)
        assert len(server.asked) == 8


def test_pairs_without_a_verdict_count_for_nothing(tmp_path):
    pairs = pairs_of(tmp_path, PAIRS)
    found = ask_judge(Counting(), pairs, "counting", SCREEN)
    assert np.isnan(found.values).tolist() == [False, False, True, False]
    figures = figures_of(found, pairs)
    assert (figures["accuracy"]["mean"], figures["accuracy"]["n"]) == (pytest.approx(2 / 3), 3)
    assert figures["ties"]["mean"] == 0


# --- agreement


def cohen(table) -> float:
    """Cohen's kappa of a square table of counts."""
    shares = np.array(table, float) / np.sum(table)
    chance = shares.sum(0) @ shares.sum(1)
    return float((np.trace(shares) - chance) / (1 - chance))


def test_kappa_is_cohens_of_the_pairs_in_both_orders():
    one = np.array([1, 1, 1, -1, 0, 1, -1, 1.0])
    other = np.array([1, 1, -1, -1, 0, 0, 1, 1.0])
    places = {1.0: 0, 0.0: 1, -1.0: 2}
    table = np.zeros((3, 3))
    for sign in (1, -1):
        for a, b in zip(sign * one, sign * other, strict=True):
            table[places[a], places[b]] += 1
    assert kappa_values(one, other).mean() == pytest.approx(cohen(table))
    assert np.isnan(kappa_values(np.zeros(3), np.zeros(3))).all()
    assert (kappa_values(one, one) == 1).all()


def test_the_interval_of_kappa_has_the_jackknifes_width():
    draw = np.random.default_rng(0)
    one = draw.choice([-1.0, 0.0, 1.0], 400, p=[0.3, 0.1, 0.6])
    other = np.where(draw.random(400) < 0.6, one, draw.choice([-1.0, 0.0, 1.0], 400))
    values = kappa_values(one, other)
    left = [kappa_values(np.delete(one, n), np.delete(other, n)).mean() for n in range(400)]
    jackknife = math.sqrt(399 / 400 * np.sum((left - np.mean(left)) ** 2))
    assert interval(values[None]).se == pytest.approx(jackknife, rel=0.01)


def test_agreement_of_judges_with_the_labels_and_with_each_other(tmp_path):
    pairs = pairs_of(tmp_path, PAIRS)
    judges = {
        "length": ask_judge(Length(unit="characters"), pairs, "length", SCREEN),
        "first": ask_judge(First(), pairs, "first", SCREEN),
        "counting": ask_judge(Counting(), pairs, "counting", SCREEN),
    }
    found = {tuple(one["judges"]): one for one in agreement(judges, pairs)}
    assert len(found) == 6
    labels = found["labels", "length"]
    assert labels["equal"]["mean"] == 0.5  # a tie is no agreement with a label
    assert labels["kappa"]["mean"] == pytest.approx((0.5 - 0.375) / (1 - 0.375))
    both = found["length", "counting"]
    assert (both["equal"]["mean"], both["equal"]["n"]) == (1, 3)
    assert (both["kappa"]["mean"], both["kappa"]["low"], both["kappa"]["high"]) == (1, None, None)
    assert found["length", "first"]["equal"]["mean"] == 0.25


# --- best of N


def test_best_of_n_of_scores_and_of_comparisons(tmp_path):
    pairs = pairs_of(tmp_path, LISTS)
    assert len(pairs) == 9
    scored = best_of_n(ask_judge(Length(unit="characters"), pairs, "length", SCREEN), pairs)
    assert means(scored) == {"Focus": 0.75, "Math": 0.0, "overall": 0.375}  # 1, and 1/2 for the two longest
    compared = best_of_n(ask_judge(Longer(), pairs, "longer", SCREEN), pairs)
    assert means(compared) == means(scored)
    assert means(best_of_n(ask_judge(First(), pairs, "first", SCREEN), pairs)) == {
        "Focus": 0.25, "Math": 0.25, "overall": 0.25
    }  # fmt: skip


def test_a_judge_that_compares_has_no_figure_of_several_chosen(tmp_path):
    ties = {"id": "tied:1", "prompt": "s", "chosen": ["aaa", "bb"], "rejected": ["c"], "subset": "Ties"}
    pairs = pairs_of(tmp_path, [*LISTS, ties])
    assert len(pairs) == 11  # the two chosen ones are no pair
    assert set(best_of_n(ask_judge(Longer(), pairs, "longer", SCREEN), pairs)) == {"Focus", "Math", "overall"}
    scored = best_of_n(ask_judge(Length(unit="characters"), pairs, "length", SCREEN), pairs)
    assert scored["Ties"]["parts"]["tied_accuracy"] == 1


def test_pairs_without_a_subset_have_no_best_of_n(tmp_path):
    pairs = pairs_of(tmp_path, PAIRS)
    assert best_of_n(ask_judge(Length(), pairs, "length", SCREEN), pairs) == {}


# --- what is kept


def test_what_a_judge_has_answered_is_asked_once(tmp_path):
    pairs, judge = pairs_of(tmp_path, PAIRS), Counting()
    found = ask_judge(judge, pairs, "counting", SCREEN)
    assert sorted(judge.calls) == sorted(["aaaa", "b", "c", "ddd", "ee", "ff", "gggg", "h"])
    again = Counting()
    assert np.array_equal(ask_judge(again, pairs, "counting", SCREEN).values, found.values, equal_nan=True)
    assert again.calls == ["ff"]  # it had no score
    more = pairs_of(tmp_path, [*PAIRS, {"prompt": "four", "chosen": "ii", "rejected": "j"}])
    ask_judge(again, more, "counting", SCREEN)
    assert sorted(again.calls) == ["ff", "ff", "ii", "j"]
    for path in (cache_root() / "judged").rglob("*.json"):
        path.write_text("{")
    damaged = Counting()
    ask_judge(damaged, pairs, "counting", SCREEN)
    assert len(damaged.calls) == 8


def test_an_interrupt_keeps_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_verdicts, "PORTION", 1)
    pairs = pairs_of(tmp_path, PAIRS)

    class Stopped(First):
        name = "first"

        def prefers(self, prompts, first, second):
            if len(self.calls) == 4:
                raise KeyboardInterrupt
            return super().prefers(prompts, first, second)

    stopped, on = Stopped(), Stopped()
    with pytest.raises(KeyboardInterrupt):
        ask_judge(stopped, pairs, "first", SCREEN)
    with pytest.raises(KeyboardInterrupt):  # two further pairs
        ask_judge(on, pairs_of(tmp_path, [*PAIRS, {"prompt": "z", "chosen": "y", "rejected": "x"}]), "first", SCREEN)
    assert not set(stopped.calls) & set(on.calls)
    assert len(stopped.calls) == len(on.calls) == 4


# --- files


def test_rows_that_are_no_pair_are_counted_with_their_reason(tmp_path):
    records = [
        *PAIRS,
        {"prompt": "same", "chosen": "a ", "rejected": " a"},
        {"prompt": "same", "chosen": "a", "rejected": "a"},
        {"prompt": "nothing", "chosen": "a", "rejected": " "},
        {"prompt": "many", "completions": [f"r{n}" for n in range(65)]},
        {"prompt": "alone", "completion": "a", "label": True},
        {"prompt": "tie", "completions": ["a", "b"], "scores": [1, 1]},
    ]
    pairs = pairs_of(tmp_path, records)
    assert len(pairs) == 4
    assert pairs.skipped == {
        "both replies are equal": 1, "chosen equals rejected": 1, "empty completion": 1, "over 64 completions": 1,
        "no second completion": 1, "all scores are equal": 1,
    }  # fmt: skip
    dialogue = [{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                 "rejected": "\n\nHuman: a\n\nAssistant: x\n\nHuman: c\n\nAssistant: e"}]  # fmt: skip
    with pytest.raises(UserError, match=r"rows: no labeled pair: the dialogues differ before the last turn \(1\)"):
        pairs_of(tmp_path, dialogue)


def test_pairs_of_a_ranked_list_are_all_with_different_scores(tmp_path):
    pairs = pairs_of(tmp_path, [{"prompt": "p", "completions": ["a", "b", "c"], "scores": [1, 3, 1]}])
    assert [(pairs.text(n, True), pairs.text(n, False)) for n in range(len(pairs))] == [("b", "a"), ("b", "c")]


def test_a_split_is_that_of_a_run_on_the_data_and_its_labels_are_the_datas(tmp_path):
    records = [{"prompt": f"p{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(40)]
    source = open_source("rows", {
        "name": "files", "path": str(written(tmp_path, records)), "held_out_fraction": 0.5, "label_noise": 1.0,
    })  # fmt: skip
    splits = ("held_out", "train", "all", "validation", "test")
    ids = {split: {row.id for row in read_pairs("rows", source, split).rows} for split in splits}
    assert ids["held_out"] | ids["train"] == ids["all"]
    assert len(ids["all"]) == 40
    assert not ids["held_out"] & ids["train"]
    assert ids["validation"] | ids["test"] == ids["held_out"]
    assert not ids["validation"] & ids["test"]
    train = read_pairs("rows", source, "train")
    assert all(train.text(n, True).startswith("a") for n in range(len(train)))


def test_the_report_is_written_and_has_its_schema(tmp_path):
    data, out, page = written(tmp_path, PAIRS), tmp_path / "r.json", tmp_path / "r.md"
    options = [str(data), "--judge", "length", "--judge", "{name: length, unit: tokens}", "-o", out, "--markdown", page]
    done = CliRunner().invoke(cli, ["judge", *map(str, options)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = read_json(out, JudgeReport)
    failed = report.sets["rows"].judges["length (unit=tokens)"]
    assert "known of draws alone" in failed.problem
    assert report.sets["rows"].judges["length (unit=words)"].figures["ties"].mean == 1
    assert report.judges["length (unit=tokens)"]["unit"] == "tokens"
    assert "rows: 4 pairs of 3 prompts; the chosen reply is the longer one in 66.7%" in done.output
    assert "| length (unit=words)" in page.read_text()
    assert "length (unit=tokens) failed: ValueError" in page.read_text()


def test_from_python(tmp_path):
    report = alignzoo.judge(PAIRS, judges={"name": "length", "unit": "characters"}, quiet=True)
    (found,) = report["sets"].values()
    assert found["judges"]["length"]["figures"]["accuracy"]["mean"] == 0.625
    with pytest.raises(UserError, match="there is no split 'tests'"):
        alignzoo.judge(PAIRS, judges="length", split="tests")


def test_a_mistake_is_a_sentence(tmp_path):
    data = written(tmp_path, PAIRS)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a", "chosen": 3}\n')
    (tmp_path / "empty.jsonl").write_text("")
    for options, said in (
        ([data], "--judge: no judge is named"),
        (["--judge", "length"], "DATA: no data is named"),
        ([data, "--judge", "lenght"], "did you mean 'length'"),
        ([data, "--judge", "{name: length, limit: 0}"], "limit"),
        ([data, "--judge", "length", "--judge", "length"], "the judge length is there twice"),
        ([data, "--judge", "{name: reward_model, from: rm_hh.yaml}"], "expected --run with that recipe"),
        ([data, "--run", "nothing-here"], "no such run"),
        ([data, "--judge", "{name: chat, model: m}"], "OPENAI"),
        ([data, "--judge", "length", "-o", data], "the data would be replaced"),
        (["no.jsonl", "--judge", "length"], "no such file or folder"),
        ([tmp_path / "prompts.jsonl", "--judge", "length"], "no labeled pair: no second completion"),
        ([tmp_path / "broken.jsonl", "--judge", "length"], "broken.jsonl:1"),
        ([tmp_path / "empty.jsonl", "--judge", "length"], "the file is empty"),
        (["{name: filess, path: x}", "--judge", "length"], "did you mean 'files'"),
        (["{name: hh, path: toy, api_key: sk-1234567890abcdef}", "--judge", "length"], "api_key"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            CliRunner().invoke(cli, ["judge", *map(str, options)], catch_exceptions=False)
    with pytest.raises(RunFailed, match="every judge failed: ValueError: unit: tokens"):
        CliRunner().invoke(cli, ["judge", str(data), "--judge", "{name: length, unit: tokens}"], catch_exceptions=False)


def test_scores_without_a_number_tie_with_none():
    import torch

    found = without_rounding(torch.tensor([1.0, 1.0 + 1e-9, torch.nan, 3.0]), torch.full((4,), 1e-6), [3, 1])
    assert found[0][0] == found[0][1] == pytest.approx(1)
    assert np.isnan(found[0][2])
    assert found[1].tolist() == [3]
