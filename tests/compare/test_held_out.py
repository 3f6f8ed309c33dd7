"""The figures of held-out rows of every kind, against their definitions written out."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from zoo import make

import alignzoo
from alignzoo.compare.measure import measure
from alignzoo.compare.spec import Sampling
from alignzoo.core.console import Screen
from alignzoo.data import toy
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.evaluation import figures as figures_module
from alignzoo.evaluation.figures import for_testing, row_figures
from alignzoo.evaluation.samples import choose_reply_rows
from alignzoo.recipe.load import load_recipe
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import ScoredBatch

QUIET = Screen(quiet=True)

# --- the split


def test_the_split_is_by_whole_groups_and_the_same_for_every_subset():
    groups = [f"group {i // 3}" for i in range(900)]
    test = for_testing(groups)
    assert 350 < test.sum() < 550
    assert all(len(set(test[i : i + 3].tolist())) == 1 for i in range(0, 900, 3))
    assert np.array_equal(for_testing(groups[::-1]), test[::-1])
    assert np.array_equal(for_testing(groups[:120]), test[:120])


@pytest.mark.parametrize("names", ["ab", "abc", "xyz", "pq"])
def test_two_groups_are_on_two_sides_and_one_is_for_testing(names):
    assert set(for_testing(list(names)).tolist()) == {True, False}
    assert for_testing([names[0]] * 4).all()
    assert for_testing([]).shape == (0,)


def test_prompts_are_spread_over_the_test_split_and_end_where_a_reply_begins():
    contexts = ["so?" if i % 5 == 0 else "" for i in range(40)]
    branches = [
        (Branch(np.array([1])), Branch.scored_from(np.array([2, 3]), len(context) and 1)) for context in contexts
    ]
    held_out = TokenizedRows(Trees.build(Tree(str(i), np.array([i]), two) for i, two in enumerate(branches)), [])
    test = np.arange(40) % 2 == 0
    chosen = choose_reply_rows(held_out, 4, test)
    assert chosen == [6, 16, 26, 36]
    everything = choose_reply_rows(held_out, 999, test)
    assert everything == [i for i in range(40) if i % 2 == 0 and i % 5]
    assert choose_reply_rows(held_out, 999) == [i for i in range(40) if i % 5], "a run leaves out the same rows"
    assert choose_reply_rows(held_out, 4, test & False) == []


def test_of_the_pairs_of_one_prompt_the_first_is_answered():
    prompts, two = [5, 3, 5, 5, 4, 3], (Branch.scored_from(np.array([1]), 0),) * 2
    trees = Trees.build(Tree(str(i), np.array([2, prompt]), two) for i, prompt in enumerate(prompts))
    assert choose_reply_rows(TokenizedRows(trees, []), 9) == [0, 1, 4]
    assert choose_reply_rows(TokenizedRows(trees, []), 9, np.arange(6) > 0) == [1, 2, 4]


# --- figures from given log-probs


@pytest.fixture
def figures(monkeypatch):
    """row_figures of rows whose completions have these log-probs under policy and reference (both one token each)."""

    def compute(objective, counts, scores, reference, columns=None, test=None, metrics=(), lengths=None):
        lengths = lengths or [1] * len(scores)
        branches = iter([Branch(np.arange(n, dtype=np.int32)) for n in lengths])
        items = [Tree(f"row {i}", np.array([1]), tuple(itertools.islice(branches, n))) for i, n in enumerate(counts)]
        columns = {name: np.array(values, dtype=np.float32) for name, values in (columns or {}).items()}
        trees = Trees.build(items, columns)
        whole = np.repeat(np.array(scores) / lengths, lengths)
        flat = ScoredBatch(list(range(len(counts))), list(counts), np.array(lengths), {"log_prob": torch.tensor(whole)})
        first = trees.first
        each = np.array(reference) / lengths
        cached = SimpleNamespace(tokens=lambda row, b: np.repeat(each, lengths)[spans[first[row] + b]])
        spans = [slice(end - n, end) for n, end in zip(lengths, np.cumsum(lengths), strict=True)]
        supply = BatchBuilder(objective, trees, cached, metrics=metrics)
        supply.with_reference(flat, torch.device("cpu"))
        monkeypatch.setattr(figures_module, "score_all", lambda *arguments: flat)
        test = np.array(test) if test is not None else np.ones(len(counts), dtype=bool)
        return row_figures(None, supply, test, 1, QUIET)

    return compute


def test_pairs(figures):
    found = figures(
        make("dpo", beta=0.5), [2, 2, 2], [-3, -4, -5, -1, -2, -2], [-4, -4, -5, -1, -3, -1], lengths=[3, 1, 6, 1, 2, 2]
    )
    assert found["preference_accuracy"].tolist() == [1, 0.5, 1]
    assert found["margin"] == pytest.approx([0.5, 0, 1])
    assert found["likelihood_accuracy"].tolist() == [1, 0, 0.5]
    assert found["length_normalized_accuracy"].tolist() == [1, 1, 0.5]
    assert found["chosen_log_ratio"] == pytest.approx([1, 0, 1])
    assert found["rejected_log_ratio"] == pytest.approx([0, 0, -1])
    assert all(values.dtype == np.float64 for values in found.values())


def numbers(seed: int, count: int) -> list[float]:
    """With ties among them."""
    return np.random.default_rng(seed).integers(-9, 0, count).astype(float).tolist()


def test_a_ranked_list_is_right_by_the_share_of_its_couples(figures):
    counts = [2, 4, 3, 4]
    scores, reference = numbers(0, 13), numbers(1, 13)
    found = figures(make("pl_dpo", beta=2.0), counts, scores, reference)
    at = 0
    for row, count in enumerate(counts):
        ratios = [s - r for s, r in zip(scores[at : at + count], reference[at : at + count], strict=True)]
        couples = list(itertools.combinations(ratios, 2))
        want = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in couples) / len(couples)
        assert found["preference_accuracy"][row] == pytest.approx(want)
        assert found["margin"][row] == pytest.approx(2 * (ratios[0] - ratios[-1]))
        assert found["chosen_log_ratio"][row] == ratios[0]
        assert found["rejected_log_ratio"][row] == ratios[-1]
        want = [right(a, b) for a, b in itertools.combinations(scores[at : at + count], 2)]
        assert found["likelihood_accuracy"][row] == pytest.approx(np.mean(want))
        at += count


def right(a: float, b: float) -> float:
    return (a > b) + 0.5 * (a == b)


def test_single_completions_are_ordered_against_those_of_the_other_kind_on_their_side(figures):
    rows, good = 40, [i % 3 != 0 for i in range(40)]
    test = [i % 2 == 0 for i in range(rows)]
    scores, reference = numbers(2, rows), numbers(3, rows)
    found = figures(
        make("apo_zero_unpaired", beta=0.5), [1] * rows, scores, reference, {"desirable": good}, test, lengths=[2] * rows
    )  # fmt: skip
    rewards = [0.5 * (s - r) for s, r in zip(scores, reference, strict=True)]
    for side in (True, False):
        mine = [i for i in range(rows) if test[i] == side]
        yes, no = [i for i in mine if good[i]], [i for i in mine if not good[i]]
        for name, values in (("preference_accuracy", rewards), ("likelihood_accuracy", scores)):
            area = np.mean([right(values[i], values[j]) for i in yes for j in no])
            for part in (yes, no, mine):
                assert found[name][part].mean() == pytest.approx(area), "each kind's mean is the area under the curve"
        assert found["preference_accuracy"][yes[0]] == np.mean([right(rewards[yes[0]], rewards[j]) for j in no])
        gap = np.mean([rewards[i] for i in yes]) - np.mean([rewards[j] for j in no])
        assert found["margin"][mine].mean() == pytest.approx(gap)
    ratios = np.array(scores) - reference
    assert np.array_equal(found["chosen_log_ratio"], np.where(good, ratios, np.nan), equal_nan=True)
    assert np.array_equal(found["rejected_log_ratio"], np.where(good, np.nan, ratios), equal_nan=True)


def test_where_one_side_has_one_kind_alone_there_is_nothing_to_order(figures):
    found = figures(
        make("apo_zero_unpaired"), [1] * 4, numbers(4, 4), numbers(5, 4), {"desirable": [1, 0, 1, 1]},
        [True, True, False, False],
    )  # fmt: skip
    assert np.isnan(found["preference_accuracy"]).tolist() == [False, False, True, True]
    assert np.isnan(found["margin"]).tolist() == [False, False, True, True]


def test_a_pair_among_single_completions_has_the_mean_of_its_own(figures):
    found = figures(make("apo_zero_unpaired"), [2, 1, 1], [-1, -7, -3, -5], [0, 0, 0, 0], {"desirable": [1, 0, 1, 0]})
    assert found["preference_accuracy"].tolist() == [1, 1, 1]
    assert found["margin"] == pytest.approx([0.1 * np.mean([5, 5]), 0.1 * 3, 0.1 * 3])
    assert found["chosen_log_ratio"][:2].tolist() == [-1, -3]
    assert found["rejected_log_ratio"][[0, 2]].tolist() == [-7, -5]


def test_a_metric_has_a_number_of_each_row_or_none(figures):
    class Metric(alignzoo.Metric):
        name = "length_of_chosen"

        def values(self, example, objective):
            return torch.where(example.chosen.length > 1, example.chosen.length, torch.nan)

    class Impostor(Metric):
        name = "margin"

    found = figures(
        make("dpo"), [2] * 3, numbers(6, 6), numbers(7, 6), metrics=(Metric(), Impostor()), lengths=[2, 1, 1, 1, 5, 3]
    )  # fmt: skip
    assert np.array_equal(found["length_of_chosen"], [2, np.nan, 5], equal_nan=True)
    assert not np.array_equal(found["margin"], found["length_of_chosen"], equal_nan=True)


# --- whole runs of every kind


def lists() -> dict[str, list[dict]]:
    """The same dialogues as pairs, labeled completions, ranked lists of several lengths, and pairs among labels."""
    tables: dict[str, list[dict]] = {"pairs": [], "labels": [], "ranked": [], "mixed": []}
    for i, row in enumerate(itertools.islice(toy.rows("train", 4), 60)):
        texts, scores = [one.text for one in row.completions], [one.columns["score"] for one in row.completions]
        own = {"prompt": row.prompt}
        tables["pairs"].append(own | {"chosen": texts[0], "rejected": texts[-1]})
        tables["labels"].append(own | {"completion": texts[0 if i % 2 else -1], "label": bool(i % 2)})
        kept = 2 + i % 3
        tables["ranked"].append(own | {"completions": texts[:kept], "scores": scores[:kept]})
        tables["mixed"].append(tables["pairs" if i % 4 == 0 else "labels"][-1])
    return tables


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    for name, records in lists().items():
        (root / name).mkdir()
        (root / name / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[:36]))
        (root / name / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[36:]))
    return root


MODEL = {
    "config": {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
               "num_attention_heads": 2, "tie_word_embeddings": True},
    "tokenizer": {"train": "bytes"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "table"),
    [
        ("kto", "labels"), ("kto", "mixed"), ("kto", "pairs"), ("bco", "labels"), ("pl_dpo", "ranked"),
        ("bradley_terry", "pairs"), ("tdpo1", "pairs"), ("tr_dpo", "pairs"), ("simpo", "pairs"), ("sampo", "pairs"),
        ("sft", "labels"), ([{"name": "dpo"}, {"name": "sft", "weight": 0.1}], "pairs"),
        ({"name": "dpo", "modifiers": ["length_normalization"]}, "pairs"),
    ],
    ids=str,
)  # fmt: skip
def test_every_kind_of_run_has_its_figures(world, tmp_path, objective, table):
    from zoo import ZOO  # the same file that `plugins` names

    plugin = __import__(ZOO[0].__module__.partition(".")[0]).__file__
    node = {
        "plugins": [plugin], "objective": objective, "model": MODEL, "data": {"name": "files", "path": str(world / table)},
        "tokens": {"max_length": 400, "max_prompt_length": 300}, "reporters": [], "eval": {"replies": {"num_prompts": 0}},
        "train": {"batch_size": 12, "max_steps": 3, "optimizer": {"name": "adamw", "learning_rate": 3e-3}},
    }  # fmt: skip
    path = tmp_path / "kind.yaml"
    path.write_text(yaml.safe_dump(node))
    result, recipe = alignzoo.run(path), load_recipe(path)
    found = measure(recipe, result.folder, Sampling(prompts=3, tokens=4), (), None, QUIET)
    summary, examples = result.summary["eval"], found.examples
    assert {"test", "preference_accuracy", "margin"} <= examples.keys()
    rows = len(examples["test"])
    assert all(values.shape == (rows,) for values in examples.values())
    if table in ("pairs", "ranked"):
        assert all(np.isfinite(values).all() for values in examples.values())
    if objective != "tr_dpo":  # its reference has moved since
        for name in ("chosen_log_ratio", "rejected_log_ratio") + (("margin",) if table in ("pairs", "ranked") else ()):
            if name in summary:
                assert np.nanmean(examples[name]) == pytest.approx(summary[name], abs=1e-4), name
        if table in ("pairs", "ranked"):
            assert examples["preference_accuracy"].mean() == pytest.approx(summary["preference_accuracy"])
    if objective == "bradley_terry":
        assert found.samples == []
        assert examples.keys() == {"test", "preference_accuracy", "margin"}
        return
    assert len(found.samples) == 3
    moved = [line["kl"] for line in found.samples]
    assert all(kl == 0 for kl in moved) if objective == "sft" else all(kl > 1e-9 for kl in moved)
