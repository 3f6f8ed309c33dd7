"""What is measured of a finished run: the figures are the plain forward's, nothing is computed twice, nothing lost."""

from __future__ import annotations

import json
import math
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import alignzoo
from alignzoo.compare import measure as module
from alignzoo.compare import replies
from alignzoo.compare.measure import _Measuring, measure
from alignzoo.compare.replies import distinct, divergences
from alignzoo.compare.spec import Sampling
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.core.paths import cache_root
from alignzoo.data.row_reader import RowReader
from alignzoo.data.token_store import TokenStore
from alignzoo.data.trees import Branch, Tree
from alignzoo.evaluation.judging import judge_key
from alignzoo.interfaces.judge import Judge
from alignzoo.models.generation import generate_replies
from alignzoo.recipe.load import load_recipe
from alignzoo.registry.lookup import registry
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.needed_runs import folder_of

pytestmark = pytest.mark.slow

SMALLEST = "tests/smallest.yaml"
SETTINGS, OTHERS = Sampling(prompts=6, tokens=10), Sampling(prompts=6, tokens=10, seed=1)
QUIET = Screen(quiet=True)
LEARNING = "train.optimizer.learning_rate=1e-2"
RECIPES = {
    "sft": ("recipes/sft_hh.yaml", ()),
    "dpo": ("recipes/dpo_hh.yaml", ("eval.metrics=[entropy]", LEARNING)),
    "more_sft": ("recipes/dpo_hh.yaml", ("objective=sft", LEARNING)),
}


def resolved(name: str):
    recipe, overrides = RECIPES[name]
    return load_recipe(recipe, list(overrides), [SMALLEST])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Finished runs, SFT and what starts from it, measured without a judge. Every test has a copy of its own."""
    root = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
        for recipe, overrides in RECIPES.values():
            alignzoo.run(recipe, list(overrides), [SMALLEST])
        for name in ("sft", "dpo"):
            measure(resolved(name), folder_of(resolved(name)).path, SETTINGS, (), None, QUIET)
    return root


@pytest.fixture
def run(world, tmp_path):
    """Name -> (the resolved recipe, the folder of its run)."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)

    def find(name: str):
        recipe = resolved(name)
        return recipe, folder_of(recipe).path

    return find


@pytest.fixture
def measured(run):
    def go(name="dpo", settings=SETTINGS, judges=(), start=None, screen=QUIET):
        return measure(*run(name), settings, judges, start, screen)

    return go


class Longer(Judge):
    """Prefers what is longer, and counts how often it is asked."""

    name = "longer"
    unit: float = 1.0

    def scores(self, prompts, replies):
        ASKED.append(len(prompts))
        return [len(reply) / self.unit for reply in replies]


class Compares(Judge):
    """Knows no scores; has no opinion of empty replies."""

    name = "compares"

    def prefers(self, prompts, first, second):
        return [math.nan if not a or not b else float(len(a) < len(b)) for a, b in zip(first, second, strict=True)]


class Moody(Judge):
    """Fails on demand."""

    name = "moody"

    def scores(self, prompts, replies):
        if PROBLEMS:
            raise ConnectionError(PROBLEMS[0] + "\nand a long trace")
        return [1.0] * len(replies)


ASKED: list[int] = []
PROBLEMS: list[str] = []


@pytest.fixture(autouse=True)
def forgetful():
    ASKED.clear()
    PROBLEMS.clear()


# --- the format


def test_a_measured_run_is_what_results_reads(run, measured):
    found = measured()
    ids = found.about["ids"]
    assert len(ids) == 32
    assert found.path.parent == run("dpo")[1] / "evaluations"
    assert found.examples.keys() == {
        "test", "preference_accuracy", "likelihood_accuracy", "length_normalized_accuracy", "margin",
        "chosen_log_ratio", "rejected_log_ratio", "entropy",
    }  # fmt: skip
    assert all(values.shape == (32,) and values.dtype == np.float64 for values in found.examples.values())
    assert set(found.examples["test"].tolist()) == {0.0, 1.0}
    assert found.about["sampling"] == SETTINGS.model_dump()
    assert found.judges == {}
    tested = {id for id, test in zip(ids, found.examples["test"], strict=True) if test}
    assert [line["id"] in tested for line in found.samples] == [True] * 6
    for line in found.samples:
        assert line["test"] == 1
        assert 1 <= line["length"] <= 10
        assert line["kl"] > 0
        assert line["prompt"].startswith("\n\nHuman:")
        assert line["chosen"] not in ("", line["reply"])
        assert line["judges"] == {}


def test_means_over_all_rows_are_the_runs_own_evaluation(run, measured):
    found, summary = measured(), json.loads((run("dpo")[1] / "summary.json").read_text())["eval"]
    names = (
        "preference_accuracy",
        "likelihood_accuracy",
        "margin",
        "chosen_log_ratio",
        "rejected_log_ratio",
        "entropy",
    )
    for name in names:
        assert found.examples[name].mean() == pytest.approx(summary[name], abs=2e-5), name


# --- the figures, once more with nothing of ours


def plain(path: Path, prompt, tokens) -> torch.Tensor:
    """(tokens, V) log-probs at each of the tokens, by the model's own forward of one sequence."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0]
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


def test_every_figure_is_the_plain_forwards(run, measured):
    found = measured()
    recipe, folder = run("dpo")
    start = run("sft")[1] / "policy"
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    held_out = TokenStore(recipe, tokenizer).get(RowReader(recipe.recipe.data), str).held_out
    for i in (0, 7, 31):
        tree = held_out.trees[i]
        sides = []
        for branch in tree.branches:
            ids = torch.tensor(branch.tokens.tolist())[:, None]
            mine, reference = (plain(path, tree.prompt, branch.tokens) for path in (folder / "policy", start))
            sides.append((float(mine.gather(1, ids).sum()), float(reference.gather(1, ids).sum()), len(ids)))
        (chosen, chosen_ref, n), (rejected, rejected_ref, m) = sides
        row = {name: values[i] for name, values in found.examples.items()}
        assert row["chosen_log_ratio"] == pytest.approx(chosen - chosen_ref, abs=1e-4)
        assert row["rejected_log_ratio"] == pytest.approx(rejected - rejected_ref, abs=1e-4)
        assert row["margin"] == pytest.approx(0.1 * (chosen - chosen_ref - rejected + rejected_ref), abs=1e-4)
        assert row["preference_accuracy"] == float(chosen - chosen_ref > rejected - rejected_ref)
        assert row["likelihood_accuracy"] == float(chosen > rejected)
        assert row["length_normalized_accuracy"] == float(chosen / n > rejected / m)
    for line in found.samples:
        prompt = held_out.trees[found.about["ids"].index(line["id"])].prompt
        reply = sample_of(recipe, folder, prompt)
        assert line["reply"] == reply.text
        assert line["length"] == len(reply.tokens)
        mine, reference = (plain(path, prompt, reply.tokens) for path in (folder / "policy", start))
        ids = torch.tensor(reply.tokens.tolist())[:, None]
        assert line["kl"] == pytest.approx(float((mine.exp() * (mine - reference)).sum()), abs=1e-5)
        assert line["log_ratio"] == pytest.approx(float((mine - reference).gather(1, ids).sum()), abs=1e-4)
        assert line["entropy"] == pytest.approx(float(-(mine.exp() * mine).sum(1).mean()), abs=1e-5)


def sample_of(recipe, folder, prompt):
    model = AutoModelForCausalLM.from_pretrained(folder / "policy").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    return generate_replies(
        model, tokenizer, [prompt], temperature=1.0, max_new_tokens=SETTINGS.tokens, seed=SETTINGS.seed
    )[0]


def test_what_starts_from_nothing_is_its_own_reference(run, measured):
    recipe, folder = run("sft")
    shutil.rmtree(cache_root() / "reference")
    otherwise = _Measuring(recipe, folder, SETTINGS, QUIET, budget=100)  # cached log-probs are then rounded otherwise
    otherwise._computed(otherwise.store.get(RowReader(recipe.recipe.data), str).held_out)
    found = measured("sft", settings=OTHERS)
    assert not found.examples["chosen_log_ratio"].any()
    assert not found.examples["rejected_log_ratio"].any()
    assert all(line["kl"] == 0 and line["log_ratio"] == 0 for line in found.samples)
    assert 0 < found.examples["likelihood_accuracy"].mean() < 1
    assert np.array_equal(found.examples["likelihood_accuracy"], found.examples["preference_accuracy"])


def test_what_needs_no_reference_is_measured_against_its_start(measured):
    found = measured("more_sft")
    assert np.abs(found.examples["chosen_log_ratio"]).min() > 1e-3
    assert min(line["kl"] for line in found.samples) > 1e-6


@pytest.fixture
def scorers(run):
    paths = [run(name)[1] / "policy" for name in ("dpo", "sft")]
    return [Scorer(AutoModelForCausalLM.from_pretrained(path).eval()) for path in paths]


def test_a_policy_is_no_nat_from_itself(run, scorers):
    trees = [Tree("a", np.array([5, 6, 7]), (Branch(np.array([9, 10, 1])),))]
    for other in (scorers[0], Scorer(scorers[0].model)):
        kl, log_ratio = divergences(scorers[0], other, trees, 64)
        assert kl == pytest.approx([0], abs=1e-6)
        assert log_ratio == [0]


def test_the_mean_log_ratio_of_replies_estimates_their_kl(run, scorers):
    """Each token's log-ratio has its KL for a mean, whatever came before: their differences add up to nothing."""
    policy, reference = scorers
    tokenizer = AutoTokenizer.from_pretrained(run("dpo")[1] / "policy")
    prompts = [np.array([5 + i % 40, 6, 7 + i % 3], dtype=np.int32) for i in range(400)]
    drawn = generate_replies(policy.model, tokenizer, prompts, temperature=1.0, max_new_tokens=12, seed=1)
    trees = [Tree(str(i), p, (Branch(r.tokens),)) for i, (p, r) in enumerate(zip(prompts, drawn, strict=True))]
    kl, log_ratio = (np.array(values) for values in divergences(policy, reference, trees, 4096))
    off = log_ratio - kl
    assert kl.mean() > 1e-3
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(len(off))
    assert kl.std() < log_ratio.std() / 3, "the exact KL of each step is the better estimate of the two"


def test_distinct_words():
    assert distinct("a b a b", 2) == pytest.approx(2 / 3)
    assert distinct("a b c", 2) == 1
    assert [distinct(text, 2) for text in ("", " one\n")] == [None, None]


def test_no_figure_depends_on_how_it_was_batched(run, monkeypatch):
    recipe, folder = run("dpo")
    found = []
    for slots, batch in ((300, 100), (4096, 16_384)):
        monkeypatch.setattr(replies, "generate_replies", partial(generate_replies, budget=batch))
        measuring = _Measuring(recipe, folder, SETTINGS, QUIET, slots)
        shutil.rmtree(cache_root() / "reference")
        found.append(measuring._computed(measuring.store.get(RowReader(recipe.recipe.data), str).held_out))
    (examples, lines), (others, other_lines) = found
    for name, values in examples.items():
        assert np.allclose(values, others[name], rtol=0, atol=1e-5), name
    for line, other in zip(lines, other_lines, strict=True):
        numbers = {name for name, value in line.items() if isinstance(value, float)}
        assert {name: line[name] for name in numbers} == pytest.approx({n: other[n] for n in numbers}, abs=1e-5)
        assert {n: line[n] for n in line.keys() - numbers} == {n: other[n] for n in other.keys() - numbers}


def test_the_reference_pass_of_the_run_is_not_done_again(run, measured, monkeypatch):
    said = []
    screen = Screen(quiet=True)
    monkeypatch.setattr(screen, "info", said.append)
    measured(settings=OTHERS, screen=screen)
    assert "reference: 32 of 32 rows cached, 0 to score" in said
    assert "tokens: 128 + 32 rows from the store" in said


# --- nothing twice, nothing lost


def never(*arguments, **named):
    raise AssertionError("it was computed again")


def test_what_is_there_is_not_computed_again(measured, monkeypatch):
    first = measured()
    for name in ("open_policy", "open_scorer", "reply_lines", "row_figures"):
        monkeypatch.setattr(module, name, never)
    assert measured().path == first.path
    assert measured().samples == first.samples
    with pytest.raises(AssertionError):
        measured(settings=OTHERS)


def test_other_settings_stand_beside(measured):
    first, more = measured(), measured(settings=Sampling(prompts=3, validation_prompts=2, tokens=10))
    assert first.path != more.path
    assert len(first.samples) == 6
    assert [line["id"] for line in more.samples] != [line["id"] for line in first.samples][:3], "evenly spaced"
    assert [line["test"] for line in more.samples] == [1, 1, 1, 0, 0]
    sides = dict(zip(more.about["ids"], more.examples["test"], strict=True))
    assert [sides[line["id"]] for line in more.samples] == [1, 1, 1, 0, 0]
    none = measured(settings=Sampling(prompts=0), judges=[Longer()])
    assert none.samples == []
    assert none.judges["longer"]["problem"] == ""


def test_two_at_once_compute_once(run, monkeypatch):
    recipe, folder = run("dpo")
    calls, results = [], []
    real = module.row_figures
    monkeypatch.setattr(module, "row_figures", lambda *a, **named: calls.append(1) or real(*a, **named))
    threads = [
        threading.Thread(target=lambda: results.append(measure(recipe, folder, OTHERS, [Longer()], None, QUIET)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert results[0].path == results[1].path
    assert len(ASKED) == 2  # the replies, and the chosen ones


def test_what_breaks_off_leaves_nothing_half_done(run, measured, monkeypatch):
    def stopped(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "reply_lines", stopped)
        with pytest.raises(KeyboardInterrupt):
            measured(settings=OTHERS)
    left = [path for path in (run("dpo")[1] / "evaluations").iterdir() if path.is_dir()]
    assert left == [measured().path]
    assert len(measured(settings=OTHERS).samples) == 6


@pytest.mark.parametrize("name", ["examples.safetensors", "samples.jsonl", "about.json"])
def test_damaged_figures_are_computed_again(measured, name):
    path = measured().path / name
    want = path.read_bytes()
    path.write_bytes(want[:-9] + b"x" + want[-8:])
    assert measured().path == path.parent
    assert path.read_bytes() == want


def test_damaged_verdicts_are_asked_for_again(measured):
    first = measured(judges=[Longer()])
    path = first.verdict_paths[0] / "about.json"
    want = path.read_bytes()
    path.write_bytes(want.replace(b'"over_chosen": 1.0', b'"over_chosen": 0.0').replace(b'"reward"', b'"rewart"', 1))
    assert path.read_bytes() != want
    assert measured(judges=[Longer()]).samples == first.samples
    assert path.read_bytes() == want


def test_an_unfinished_run_and_a_lost_start_are_clear_errors(run, measured):
    _, folder = run("dpo")
    other = AutoModelForCausalLM.from_pretrained(run("sft")[1] / "policy")
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(run("sft")[1] / "policy")
    with pytest.raises(UserError, match="the run's start has other weights"):
        measured(settings=OTHERS)
    (folder / "summary.json").unlink()
    with pytest.raises(UserError, match="the run is not finished"):
        measured()


# --- judges


def test_judges_say_what_replies_are_worth_and_which_is_better(measured):
    start = measured("sft")
    found = measured(judges=[Longer(), Compares()], start=start)
    assert [about["problem"] for about in found.judges.values()] == ["", ""]
    before = {line["id"]: line["reply"].strip() for line in start.samples}
    for line in found.samples:
        reply, chosen, old = line["reply"].strip(), line["chosen"].strip(), before[line["id"]]
        longer, shorter = line["judges"]["longer"], line["judges"]["compares"]
        assert longer == {
            "reward": len(reply), "over_chosen": 0.5 + 0.5 * np.sign(len(reply) - len(chosen)),
            "over_start": 0.5 + 0.5 * np.sign(len(reply) - len(old)),
        }  # fmt: skip
        assert shorter == {"over_chosen": float(len(reply) < len(chosen)), "over_start": float(len(reply) < len(old))}
    without = measured(judges=[Longer()])
    assert without.path == found.path, "the figures are kept once, whoever judges the replies"
    assert without.samples[0]["judges"]["longer"].keys() == {"reward", "over_chosen"}
    assert found.examples.keys() == without.examples.keys() == start.examples.keys() | {"entropy"}


def test_a_judge_is_asked_once(measured):
    first = measured(judges=[Longer()])
    assert ASKED == [6, 6]
    assert measured(judges=[Longer()]).path == first.path
    assert measured(judges=[Longer(), Compares()]).samples[0]["judges"]["longer"]["reward"] >= 0
    assert ASKED == [6, 6]
    other = measured(judges=[Longer(unit=2)])
    assert ASKED == [6] * 4
    pairs = zip(first.samples, other.samples, strict=True)
    assert all(a["judges"]["longer"]["reward"] == 2 * b["judges"]["longer"]["reward"] for a, b in pairs)
    assert first.samples == measured(judges=[Longer()]).samples, "the other one is not written over it"


def test_another_model_in_the_same_folder_is_another_judge(tmp_path):
    class Folder(Judge):
        name = "folder"
        path: str

    def key(text: str) -> str:
        (tmp_path / "config.json").write_text(text)
        return judge_key(Folder(path=str(tmp_path)), registry())

    assert key("{}") == key("{}") != key("{} ")
    assert judge_key(Folder(path="a"), registry()) != judge_key(Folder(path="b"), registry())


def test_a_judge_that_fails_costs_its_own_figures_and_is_asked_again(measured):
    PROBLEMS.append("no answer from judge.example")
    broken = measured(judges=[Moody(), Longer()])
    assert {name: about["problem"] for name, about in broken.judges.items()} == {
        "moody": "ConnectionError: no answer from judge.example", "longer": "",
    }  # fmt: skip
    assert [set(line["judges"]) for line in broken.samples] == [{"longer"}] * 6
    assert len(broken.examples["margin"]) == 32
    PROBLEMS[0] = "another reason"
    again = measured(judges=[Moody(), Longer()])
    assert again.judges["moody"]["problem"] == "ConnectionError: another reason"
    PROBLEMS.clear()
    whole = measured(judges=[Moody(), Longer()])
    assert [about["problem"] for about in whole.judges.values()] == ["", ""]
    assert [line["judges"]["moody"] for line in whole.samples] == [{"reward": 1.0, "over_chosen": 0.5}] * 6
    assert ASKED == [6, 6]


@pytest.mark.parametrize(
    ("answers", "says"),
    [([1.0], "ValueError"), ([1.0] * 7, "ValueError"), ([math.nan] * 6, None), (["high"] * 6, "'high' is no number")],
)
def test_answers_that_make_no_sense_are_a_problem_and_not_a_number_is_none(measured, monkeypatch, answers, says):
    monkeypatch.setattr(Longer, "scores", lambda self, prompts, replies: answers)
    found = measured(judges=[Longer()])
    if says:
        assert says in found.judges["longer"]["problem"]
    else:
        assert found.samples[0]["judges"]["longer"] == {"reward": None, "over_chosen": None}


def test_a_judge_with_no_opinion_at_all_says_so(measured):
    class Silent(Judge):
        name = "silent"

    assert "NotImplementedError" in measured(judges=[Silent()]).judges["silent"]["problem"]
