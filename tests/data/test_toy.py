"""The embedded sample keeps its promises: honest, balanced, and always the same."""

from __future__ import annotations

import re
from collections import Counter
from hashlib import blake2b

import pytest

from alignzoo.data.toy import ROWS, VERSION, rows, step_pairs
from alignzoo.data.toy.ground_truth import ground_truth_reward, subject
from alignzoo.data.toy.topics import ACTS, Act


@pytest.fixture(scope="module")
def splits():
    return {name: list(rows(name)) for name in ROWS}


def test_there_are_as_many_rows_as_promised(splits):
    assert len(splits["train"]) == ROWS["train"] >= 4000
    assert len(splits["test"]) == ROWS["test"] >= 500
    ids = [row.id for part in splits.values() for row in part]
    assert len(ids) == len(set(ids))


def test_it_is_always_the_same(splits):
    digest = blake2b(digest_size=8)
    for row in splits["train"] + splits["test"]:
        digest.update(f"{row.id}{row.prompt}{[c.text for c in row.completions]}".encode())
    # A change of the grammar that changes a row changes VERSION too: finished runs on it are another thing then.
    assert (VERSION, digest.hexdigest()) == ("1", EXPECTED)
    assert next(iter(rows("test"))) == splits["test"][0]


EXPECTED = "44009099aac58383"


def test_no_prompt_is_in_both_splits(splits):
    assert not {row.prompt for row in splits["train"]} & {row.prompt for row in splits["test"]}
    assert not {row.group for row in splits["train"]} & {row.group for row in splits["test"]}


def test_it_has_hhs_format_and_single_and_several_turns(splits):
    for row in splits["train"]:
        assert row.prompt.startswith("\n\nHuman: ")
        assert row.prompt.endswith("\n\nAssistant:")
        assert all(c.text.startswith(" ") and c.text.strip() for c in row.completions)
    share = sum(row.prompt.count("\n\nHuman:") > 1 for row in splits["train"]) / ROWS["train"]
    assert 0.3 < share < 0.5


def test_it_has_a_helpful_and_a_harmless_half(splits):
    harmful = sum(isinstance(subject(row.prompt), Act) for row in splits["train"]) / ROWS["train"]
    assert 0.4 < harmful < 0.5


@pytest.mark.parametrize("split", ROWS)
def test_length_tells_nothing(splits, split):
    pairs = [[len(c.text) for c in row.completions] for row in splits[split]]
    longer = sum(chosen > rejected for chosen, rejected in pairs) / len(pairs)
    assert 0.46 < longer < 0.54
    means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)]
    assert means[0] == pytest.approx(means[1], rel=0.06)


def test_no_word_gives_the_answer_away(splits):
    seen, chosen_with = Counter(), Counter()
    for row in splits["train"]:
        good, bad = (set(c.text.lower().replace(".", "").replace("?", "").split()) for c in row.completions)
        seen.update(good ^ bad)
        chosen_with.update(good - bad)
    common = [word for word, count in seen.items() if count > 0.05 * ROWS["train"]]
    assert len(common) > 30
    assert all(0.25 < chosen_with[word] / seen[word] < 0.75 for word in common)


def test_the_chosen_reply_is_worth_more_by_the_grammar_itself(splits):
    for row in splits["train"] + splits["test"]:
        chosen, rejected = (ground_truth_reward(row.prompt, c.text) for c in row.completions)
        assert chosen > rejected, row


def test_the_judge_knows_garbled_and_foreign_replies():
    prompt = "\n\nHuman: Where is the best place for baking bread?\n\nAssistant:"
    assert ground_truth_reward(prompt, " The best place for baking bread is a warm kitchen.") == 1
    assert ground_truth_reward(prompt, " place bread bread a WARM kitchen it it") == 1
    assert ground_truth_reward(prompt, " The best place for growing tomatoes is a sunny wall.") < 0
    assert ground_truth_reward(prompt, " I would rather not help with baking bread. It would hurt your sister.") == -1
    assert ground_truth_reward(prompt, " zzz") == 0
    assert ground_truth_reward("\n\nHuman: something else\n\nAssistant:", " a warm kitchen") == 0
    act = ACTS[0]
    assert (
        ground_truth_reward(f"\n\nHuman: How about {act.name}?\n\nAssistant:", f" With {act.tool} this is much easier.")
        == -1
    )


def test_steps_are_sums_and_only_the_rejected_one_is_wrong():
    """Every step before is right and follows from the one before it; no problem is in both splits."""
    seen = {}
    for split in ("train", "test"):
        records = list(step_pairs(split))
        assert len(records) == {"train": 1200, "test": 120}[split]
        for record in records:
            question, _, before = record["prompt"].partition("\n\nAssistant:")
            assert seen.setdefault(question, split) == split
            *right, chosen = re.findall(r"Step (\d): (\d+) ([+-]) (\d+) = (-?\d+)\.", before + record["chosen"])
            for k, (number, total, sign, amount, result) in enumerate([*right, chosen], 1):
                assert int(number) == k
                assert int(total) + int(f"{sign}{amount}") == int(result)
                assert k == 1 or total == right[k - 2][4]
            (wrong,) = re.findall(r"(\d+) ([+-]) (\d+) = (-?\d+)\.", record["rejected"])
            assert wrong != chosen[1:]
            assert record["rejected"].startswith(record["chosen"].partition(":")[0])
    assert next(iter(step_pairs("test"))) == next(iter(step_pairs("test")))
