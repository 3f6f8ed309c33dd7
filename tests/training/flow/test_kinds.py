"""Whole tiny runs from YAML, one for each kind of thing that an objective can ask for.

The policy starts as its own reference, so that the loss at step 0 is known in closed form for most of them.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from jobs import PATIENCE, command
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.data import toy
from alignzoo.training import checkpoint
from alignzoo.training import run as run_module
from alignzoo.training.records import read_lines
from alignzoo.training.step import Engine

ZOO = Path(__file__).parent.parent.parent.parent / "plugins" / "alignzoo-zoo"
LN2 = math.log(2)
ADAM = {"name": "adamw", "learning_rate": 3e-3}
STEPS, EVERY = 6, 3


def write(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def tables(folder: Path) -> None:
    """The same dialogues as pairs with scores, as labeled completions and as ranked lists."""
    lists = [(row.prompt, row.completions) for row in islice(toy.rows("train", 4), 96)]
    pairs, labels, ranked = [], [], []
    for i, (prompt, all_of_them) in enumerate(lists):
        best, worst = all_of_them[0], all_of_them[-1]
        scores = [one.columns["score"] for one in all_of_them]
        pairs.append({
            "prompt": prompt, "chosen": best.text, "rejected": worst.text, "chosen_score": scores[0],
            "rejected_score": scores[-1], "margin": scores[0] - scores[-1], "chosen_safe": i % 2, "rejected_safe": i % 3 % 2,
            "chosen_quantile": 0.9, "rejected_quantile": 0.2,
        })  # fmt: skip
        labels.append({"prompt": prompt, "completion": (best if i % 2 else worst).text, "label": bool(i % 2)})
        kept = all_of_them[: 2 + i % 3]
        ranked.append({"prompt": prompt, "completions": [one.text for one in kept], "scores": scores[: len(kept)]})
    solved = [
        {"prompt": f"{i} + 1 + 2 =", "completions": [f"{i + 1} + 2", f"{i + 3 + i % 2}"], "labels": [True, i % 2 == 0]}
        for i in range(len(pairs))
    ]
    mixed = [labels[i] if i % 4 in (1, 2) else pairs[i] for i in range(len(pairs))]
    for name, records in (
        ("pairs", pairs),
        ("labels", labels),
        ("ranked", ranked),
        ("mixed", mixed),
        ("steps", solved),
    ):
        (folder / name).mkdir()
        write(folder / name / "train.jsonl", records[:72])
        write(folder / name / "test.jsonl", records[72:])


def recipe(folder: Path, name: str, objective, data, model=None, **train) -> Path:
    """A recipe file; `data` is a table's folder, or a data node."""
    data = data if isinstance(data, dict) else {"name": "files", "path": data}
    node = {
        "plugins": [str(ZOO / "alignzoo_zoo" / "__init__.py")],
        "objective": objective,
        "model": model or {"path": str(folder / "start")},
        "data": data,
        "tokens": {"max_length": 256, "max_prompt_length": 192},
        "train": {"batch_size": 12, "max_steps": STEPS, "epochs": 50, "micro_batch_tokens": 512, "checkpoint_every": EVERY,
                  "optimizer": ADAM} | train,
        "eval": {"every": EVERY, "replies": {"num_prompts": 2, "max_new_tokens": 4}},
        "reporters": [],
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(node))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tables, and a small policy that was trained on the chosen replies: where every run starts."""
    folder = tmp_path_factory.mktemp("kinds")
    tables(folder)
    model = {
        "config": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                   "num_attention_heads": 4, "tie_word_embeddings": True},
        "tokenizer": {"train": "bpe", "vocab_size": 400},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ZOO)
        patch.setenv("ALIGNZOO_CACHE", str(folder / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(folder / "runs"))
        alignzoo.run(recipe(folder, "sft", "sft", "pairs", model)).policy.rename(folder / "start")
        yield folder


@pytest.fixture
def run(world, monkeypatch, no_fork):
    """Run an objective on a table: `run("dpo", "pairs")`. All runs of this file share a reference cache."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(world / "cache"))

    def go(objective, data, fresh=False, overrides=(), **train):
        return alignzoo.run(recipe(world, "kind", objective, data, **train), overrides, fresh=fresh)

    return go


def evaluations(result) -> list[dict]:
    return [line for line in read_lines(result.folder / "metrics.jsonl") if line["kind"] == "eval"]


def steps(result) -> list[dict]:
    return [line for line in read_lines(result.folder / "metrics.jsonl") if line["kind"] == "train"]


def check(result, at_start: float | None, policy: bool = True, mixed: bool = False) -> None:
    """Everything finite, the loss on held-out rows where theory has it at the start, and moved after that."""
    assert [line["step"] for line in evaluations(result)] == [0, EVERY, STEPS]
    assert [line["step"] for line in steps(result)] == list(range(1, STEPS + 1))
    for line in (*evaluations(result), *steps(result)):
        assert all(math.isfinite(value) for value in line.values() if isinstance(value, float)), line
        assert "loss" in line
        assert {"chosen_reward", "rejected_reward"} & line.keys()
        if (
            not mixed and {"chosen_reward", "rejected_reward", "margin"} <= line.keys()
        ):  # a row of both kinds counts once
            assert line["margin"] == pytest.approx(line["chosen_reward"] - line["rejected_reward"], abs=1e-5)
    first, *_, last = evaluations(result)
    if at_start is not None:
        assert first["loss"] == pytest.approx(at_start, abs=1e-6)
        assert first["margin"] == 0
        assert first["preference_accuracy"] == 0.5
    assert last["loss"] != first["loss"]
    assert last["margin"] != first["margin"]
    assert result.summary["eval"]["loss"] == last["loss"]
    if policy:
        AutoModelForCausalLM.from_pretrained(result.policy)


PAIRWISE = {
    "column of each completion": ({"name": "odpo", "alpha": 0.5}, None),
    "token reference, cached": ("ld_dpo", LN2),
    "live reference": ("tdpo1", LN2),
    "moving reference": ({"name": "tr_dpo", "every": 2}, LN2),
    "corrected reference, clipped tokens": ({"name": "bema_dpo", "every": 2, "modifiers": ["humanline"]}, LN2),
    "labels of each completion": ({"name": "safe_dpo", "delta": 1.0}, None),
    "quantile of each completion": ({"name": "qrpo", "beta": 0.5}, None),
    "random tokens": ("sampo", LN2),
    "random pairs and a state": ("beta_dpo", LN2),
    "whole batch": ("aot", LN2),
    "policy's whole distribution": ("wpo", None),
    "reference's whole distribution": ("mallows_po", LN2),
    "no reference": ("simpo", None),
    "modified": (
        {"name": "dpo", "modifiers": ["length_normalization", {"name": "label_smoothing", "epsilon": 0.2}]},
        LN2,
    ),
    "modifier from a plugin": ({"name": "ipo", "modifiers": [{"name": "length_desensitization", "alpha": 0.5}]}, 25.0),
    "sum": ([{"name": "dpo", "beta": 0.2}, {"name": "sft", "weight": 0.5}], None),
    "sum of two with states": ([{"name": "bco"}, {"name": "beta_dpo", "weight": 0.5}], 1.5 * LN2),
    "unpaired": ("kto", 0.5),
    "unpaired with a state": ("bco", LN2),
    "ranked": ("pl_dpo", LN2),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAIRWISE)
def test_pairs_feed_every_kind(run, kind):
    objective, at_start = PAIRWISE[kind]
    result = run(objective, "pairs")
    check(result, at_start)
    assert all(0 <= line["accuracy"] <= 1 for line in steps(result))


@pytest.mark.slow
def test_training_on_pairs_orders_them(run):
    """Long enough to see it: the margin grows and the loss falls."""
    result = run({"name": "dpo", "beta": 0.5}, "pairs", max_steps=30, optimizer=ADAM | {"learning_rate": 1e-3})
    first, *_, last = evaluations(result)
    assert last["margin"] > 0.5
    assert last["preference_accuracy"] > 0.6
    assert last["loss"] < first["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "at_start"), [("kto", 0.5), ("bco", LN2), ("apo_zero_unpaired", 0.5)])
def test_labeled_completions(run, objective, at_start):
    result = run(objective, "labels")
    check(result, at_start)
    assert "accuracy" not in steps(result)[0]  # no row has two completions to compare
    assert result.summary["eval"]["n"] == 24


@pytest.mark.slow
def test_chosen_alone_takes_the_desirable_completions(run):
    result = run("sft", "labels")
    assert result.summary["data"]["skipped_by_reason"] == {"undesirable completion": 36 + 12}
    both = run(["apo_zero_unpaired", {"name": "sft", "weight": 0.1}], "labels")
    assert both.summary["data"]["skipped"] == 0
    assert evaluations(both)[0]["loss"] == pytest.approx(0.5 + 0.1 * evaluations(result)[0]["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["pl_dpo", "infonca", "nca", "lipo_lambda", "pro"])
def test_ranked_lists_of_several_lengths(run, objective):
    check(run(objective, "ranked"), None)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["plackett_luce", "score_regression"])
def test_reward_models_of_ranked_lists(run, objective):
    check(run(objective, "ranked"), None, policy=False)


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "at_start"), [("pl_dpo", math.log(24)), ("infonca", math.log(4))])
def test_ranked_lists_of_the_embedded_sample(run, objective, at_start):
    """All K! orders are alike to a policy that is its reference, and all K completions."""
    result = run(objective, {"name": "toy", "completions": 4, "max_train_rows": 36, "held_out_rows": 20})
    check(result, at_start)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "pairs"), [("extremes", 32 + 32 + 32), ("adjacent", 32 + 64 + 96), ("all", 32 + 96 + 192)]
)
def test_a_ranked_list_feeds_pairs_by_a_rule(run, rule, pairs):
    result = run("dpo", {"name": "files", "path": "ranked", "pairs": rule})
    check(result, LN2)
    data = result.summary["data"]
    assert data["train"] + data["held_out"] + data["skipped"] == pairs


@pytest.mark.slow
def test_pairs_and_labeled_completions_in_one_table(run):
    result = run("kto", "mixed")
    check(result, 0.5, mixed=True)
    assert result.summary["eval"]["n"] == 24
    assert run("sft", "mixed").summary["data"]["skipped_by_reason"] == {"undesirable completion": 18 + 6}


@pytest.mark.parametrize(
    ("objective", "table", "message"),
    [
        ("bradley_terry_margin", "ranked", r"needs the column 'margin', which row train\.jsonl:1 does not have"),
        ("dpo", "labels", r"dpo compares completions, and row train\.jsonl:1 has a single labeled completion"),
        ("pl_dpo", "mixed", r"pl_dpo compares completions, and row train\.jsonl:2 has a single labeled"),
    ],
)
@pytest.mark.slow
def test_rows_that_lack_what_is_asked_for_are_a_clear_error(run, objective, table, message):
    with pytest.raises(UserError, match=message):
        run(objective, table)


@pytest.mark.slow
def test_a_reward_model_is_one_for_transformers(run, world):
    result = run("bradley_terry", "pairs")
    check(result, None, policy=False)
    tokenizer = AutoTokenizer.from_pretrained(result.policy)
    model = AutoModelForSequenceClassification.from_pretrained(result.policy)
    assert model.config.num_labels == 1
    margins = []
    for row in read_lines(world / "pairs" / "test.jsonl"):
        scores = []
        for side in ("chosen", "rejected"):
            ids = tokenizer(row["prompt"])["input_ids"] + tokenizer(row[side])["input_ids"] + [tokenizer.eos_token_id]
            with torch.no_grad():
                scores.append(float(model(torch.tensor([ids])).logits[0, 0]))
        margins.append(scores[0] - scores[1])
    last = evaluations(result)[-1]
    assert last["margin"] == pytest.approx(np.mean(margins), abs=1e-5)
    assert last["preference_accuracy"] == np.mean([margin > 0 for margin in margins])
    assert not (result.folder / "samples.jsonl").exists()  # a reward model answers nothing


@pytest.mark.slow
def test_a_reward_model_may_learn_its_texts_too(run, world):
    """At the start its language head is the policy's: the loss is that of transformers' language model."""
    result = run({"name": "grm", "lambda_": 1.0, "regularization": "nll"}, "pairs")
    check(result, None, policy=False)
    tokenizer, model = (one.from_pretrained(world / "start") for one in (AutoTokenizer, AutoModelForCausalLM))
    lost = []
    for row in read_lines(world / "pairs" / "test.jsonl"):
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = torch.tensor([prompt + tokenizer(row["chosen"])["input_ids"] + [tokenizer.eos_token_id]])
        with torch.no_grad():
            log_probs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(1)
        lost.append(-float(log_probs.gather(1, ids[0, len(prompt) :, None]).sum()))
    assert evaluations(result)[0]["loss"] == pytest.approx(np.mean(lost), rel=1e-4)
    AutoModelForSequenceClassification.from_pretrained(result.policy)


@pytest.mark.slow
def test_a_process_reward_model_learns_from_labeled_steps(run, world):
    """It is read after each step, in the text of the steps before it."""
    data = {"name": "files", "path": "steps", "format": "steps"}
    result = run("process_reward", data)
    check(result, None, policy=False)
    assert result.summary["data"]["held_out"] == 2 * 24
    tokenizer = AutoTokenizer.from_pretrained(result.policy)
    model = AutoModelForSequenceClassification.from_pretrained(result.policy)
    lost = []
    for row in read_lines(world / "steps" / "test.jsonl"):
        first, second = row["completions"]
        for text, right in zip((first, f"{first}\n{second}"), row["labels"], strict=True):
            ids = tokenizer(row["prompt"] + text)["input_ids"] + [tokenizer.eos_token_id]
            with torch.no_grad():
                odds = float(model(torch.tensor([ids])).logits[0, 0])
            lost.append(math.log1p(math.exp(-odds if right else odds)))
    assert evaluations(result)[-1]["loss"] == pytest.approx(np.mean(lost), rel=1e-4)


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("policy/model.safetensors", "metrics.jsonl")]


RESUMED = {
    "state": "bco",
    "random": "sampo",
    "sum with a moving part": [{"name": "tr_dpo", "every": 2}, {"name": "sft", "weight": 0.3}],
}
"""Beside those that tests/faults/test_exact.py kills."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", RESUMED)
def test_a_run_that_broke_off_goes_on_to_the_same_bytes(run, monkeypatch, kind):
    objective = RESUMED[kind]
    result = run(objective, "pairs", fresh=True)
    want = bytes_of(result.folder)
    assert bytes_of(run(objective, "pairs", fresh=True).folder) == want
    step = Engine.step

    def breaks(self, number):
        if number == EVERY + 1:
            raise MemoryError("the process is gone")
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", breaks)
        with pytest.raises(MemoryError, match="the process is gone"):
            run(objective, "pairs", fresh=True)
    assert checkpoint.latest(result.folder / "checkpoints")[0].step == EVERY
    assert bytes_of(run(objective, "pairs").folder) == want


@pytest.mark.slow
@pytest.mark.parametrize("removed", [1, 2, 4])
def test_a_fresh_start_that_breaks_off_while_it_clears(run, monkeypatch, removed):
    """What is left of the run before is a run that goes on, or nothing."""
    result = run("bco", "pairs", fresh=True)
    want, count = bytes_of(result.folder), []

    def limited(remove):
        def breaks(*arguments, **options):
            count.append(arguments)
            if len(count) > removed:
                raise KeyboardInterrupt
            remove(*arguments, **options)

        return breaks

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "remove", limited(run_module.remove))
        with pytest.raises(KeyboardInterrupt):
            run("bco", "pairs", fresh=True)
    assert bytes_of(run("bco", "pairs").folder) == want


@pytest.mark.slow
def test_kill_9_of_a_sum_with_a_moving_part(run, world, monkeypatch):
    """In another process, so that nothing but the checkpoint can have carried anything over."""
    objective = RESUMED["sum with a moving part"]
    result = run(objective, "pairs", fresh=True)
    want = bytes_of(result.folder)
    shutil.rmtree(result.folder)
    monkeypatch.setenv("PYTHONPATH", str(ZOO))
    process = command("run", world / "kind.yaml")
    deadline = time.monotonic() + PATIENCE
    while not (result.folder / "checkpoints" / f"step-{EVERY:06d}").exists():
        assert process.poll() is None, process.wait()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    broke_off = not (result.folder / "summary.json").exists()  # where the machine is busy it may have been too late
    finished = command("run", world / "kind.yaml").wait()
    assert finished.returncode == 0, finished.stderr
    assert "resuming after step 3" in finished.stderr or not broke_off
    assert bytes_of(result.folder) == want
