"""Rows of every kind in the shape of every objective, the numbers that it declares, and KTO's mismatched completions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import make

from alignzoo.core.errors import UserError
from alignzoo.data.convert import convert_rows, with_columns
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.data.mismatched import with_mismatched
from alignzoo.data.prepare import prepare
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import Row
from alignzoo.objectives.composition import Sum
from alignzoo.recipe.schema import TokensConfig


def row_of(record, id: str = "f:1") -> Row:
    row = record_row(id, record, {}, id)
    assert isinstance(row, Row)
    return row


PAIR = row_of({"prompt": "p", "chosen": "a", "rejected": "b"})
GOOD = row_of({"prompt": "p", "completion": "a", "label": True})
BAD = row_of({"prompt": "p", "completion": "b", "label": False})
LIST = row_of({"prompt": "p", "completions": ["a", "b", "c", "d"], "scores": [4, 3, 3, 1]})
UNSCORED = row_of({"prompt": "p", "completions": ["a", "b", "c"]})


def a_sum(*names: str) -> Sum:
    return Sum(parts=tuple(make(name) for name in names), weights=(1.0,) * len(names))


def shaped(row: Row, objective: Objective, rule: str = "extremes") -> list[str]:
    """The texts of every row that the objective gets, or why it gets none."""
    kept, skipped = convert_rows([row], objective, rule)
    return ["".join(one.text for one in each.completions) for each in kept] + [one.reason for one in skipped]


def labels(row: Row, objective: Objective) -> list[float]:
    """Which completions count as desirable."""
    items = [Tree(row.id, np.array([1]), tuple(Branch(np.array([2 + i])) for i in range(len(row.completions))))]
    return with_columns(Trees.build(items), [row], objective).columns["desirable"].tolist()


# Shapes


@pytest.mark.parametrize(
    ("row", "name", "texts"),
    [
        (PAIR, "dpo", ["ab"]), (PAIR, "sft", ["ab"]), (PAIR, "kto", ["ab"]), (PAIR, "pl_dpo", ["ab"]),
        (GOOD, "kto", ["a"]), (BAD, "kto", ["b"]), (GOOD, "sft", ["a"]), (BAD, "sft", ["undesirable completion"]),
        (LIST, "pl_dpo", ["abcd"]), (LIST, "kto", ["abcd"]), (LIST, "sft", ["abcd"]), (LIST, "dpo", ["ad"]),
        (UNSCORED, "dpo", ["ac"]), (UNSCORED, "pl_dpo", ["abc"]),
    ],
)  # fmt: skip
def test_each_kind_of_row_for_each_kind_of_objective(row, name, texts):
    assert shaped(row, make(name)) == texts


@pytest.mark.parametrize(
    ("row", "rule", "texts"),
    [
        (LIST, "extremes", ["ad"]),
        (LIST, "adjacent", ["ab", "cd"]),
        (LIST, "all", ["ab", "ac", "ad", "bd", "cd"]),
        (UNSCORED, "extremes", ["ac"]),
        (UNSCORED, "adjacent", ["ab", "bc"]),
        (UNSCORED, "all", ["ab", "ac", "bc"]),
    ],
)
def test_pairs_of_a_list_by_the_rule_and_a_tie_is_no_pair(row, rule, texts):
    assert shaped(row, make("dpo"), rule) == texts
    kept, _ = convert_rows([row], make("dpo"), rule)
    assert len({one.id for one in kept}) == len(kept)
    assert {one.group for one in kept} == {row.group}
    assert all(one.columns == row.columns for one in kept)


def test_a_long_list_is_not_turned_into_all_of_its_pairs():
    """A row of 60,000 completions has 1.8e9 pairs; that of its ends is made without them."""
    words, scores = [f"a{i}" for i in range(60_000)], list(range(60_000))
    long = row_of({"prompt": "p", "completions": words, "scores": scores})
    assert shaped(long, make("dpo")) == ["a59999a0"]
    assert shaped(long, make("dpo"), "all") == shaped(long, make("dpo"), "adjacent") == ["over 10,000 pairs"]
    most = row_of({"prompt": "p", "completions": words[:141], "scores": scores[:141]})
    assert len(shaped(most, make("dpo"), "all")) == 141 * 140 / 2


def test_a_list_without_two_scores_is_skipped_by_what_takes_pairs_alone():
    flat = row_of({"prompt": "p", "completions": ["a", "b", "c"], "scores": [1, 2, 3]})
    flat = type(flat)(
        flat.id, flat.prompt, tuple(type(one)(one.text, "", {"score": 1.0}) for one in flat.completions), "p"
    )
    for rule in ("extremes", "adjacent", "all"):
        assert shaped(flat, make("dpo"), rule) == ["no pair of different scores"]
    assert shaped(flat, make("infonca")) == ["cba"]


@pytest.mark.parametrize(
    ("names", "row", "texts"),
    [
        (["dpo", "sft"], LIST, ["ad"]),
        (["dpo", "kto"], LIST, ["ad"]),
        (["pl_dpo", "sft"], LIST, ["abcd"]),
        (["pl_dpo", "kto"], LIST, ["abcd"]),
        (["pl_dpo", "dpo"], LIST, ["abcd"]),
        (["kto", "sft"], LIST, ["abcd"]),
        (["kto", "sft"], BAD, ["b"]),
        (["kto", "sft"], GOOD, ["a"]),
        (["kto", "dpo", "pl_dpo", "sft"], PAIR, ["ab"]),
    ],
)
def test_a_sum_gets_one_shape_for_all_its_parts(names, row, texts):
    assert shaped(row, a_sum(*names)) == texts


def test_a_rule_that_a_ranked_part_would_ignore_is_reported():
    for rule in ("adjacent", "all"):
        with pytest.raises(UserError, match=rf"data\.pairs: '{rule}' .* row f:1 stays a list.*; expected extremes"):
            convert_rows([LIST], a_sum("pl_dpo", "dpo"), rule)
    assert shaped(PAIR, a_sum("pl_dpo", "dpo"), "all") == ["ab"]


@pytest.mark.parametrize(
    ("row", "objective", "said"),
    [
        (GOOD, make("dpo"), "dpo compares completions, and row f:1 has a single labeled completion; expected rows with chosen and rejected"),
        (BAD, make("pl_dpo"), "pl_dpo compares completions, and row f:1 has a single labeled completion"),
        (GOOD, a_sum("kto", "dpo"), "data: dpo compares completions, and row f:1 has a single labeled completion"),
        (GOOD, a_sum("sft", "infonca"), "data: infonca compares completions, and row f:1 has a single labeled completion"),
        (PAIR, make("odpo"), "odpo needs the column 'score', which row f:1 does not have; expected a number 'score' in every row (or chosen_score and rejected_score, or scores)\n    columns found: none"),
        (UNSCORED, make("nca"), "nca needs the column 'score', which row f:1 does not have"),
        (PAIR, a_sum("dpo", "bradley_terry_margin"), "bradley_terry_margin needs the column 'margin', which row f:1 does not have"),
        (
            row_of({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_scor": 1, "rejected_scor": 2, "length": 3}),
            make("odpo"), "did you mean 'scor'?\n    columns found: length, scor",
        ),
        (
            row_of({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score": 1}),
            make("odpo"), "odpo needs the column 'score', which row f:1 does not have for completion 2 of 2",
        ),
        (row_of({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "wide"}), make("bradley_terry_margin"), "which row f:1 does not have"),
    ],
)  # fmt: skip
def test_a_row_that_an_objective_can_not_take_is_reported_by_name(row, objective, said):
    with pytest.raises(UserError) as error:
        convert_rows([PAIR if objective.columns == () else row, row], objective, "extremes")
    assert said in str(error.value)


# Labels and columns


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (GOOD, [1]), (BAD, [0]), (PAIR, [1, 0]), (UNSCORED, [1, 0, 0]), (LIST, [1, 0, 0, 0]),
        (row_of({"prompt": "p", "completions": ["a", "b", "c"], "scores": [1, 2, 2]}), [1, 1, 0]),
        (row_of({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score": 1, "rejected_score": 1}), [1, 0]),
        (row_of({"prompt": "p", "chosen": "a", "rejected": "b", "desirable": 0, "rejected_desirable": 1}), [1, 0]),
        (row_of({"prompt": "p", "completion": "a", "label": False, "desirable": 1}), [0]),
    ],
)  # fmt: skip
def test_the_best_is_desirable_and_what_ties_with_it_and_nothing_else(row, wanted):
    assert labels(row, make("kto")) == wanted


def test_columns_are_the_rows_or_the_completions_own_and_nothing_that_nobody_declared():
    row = row_of(
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score": 2, "rejected_score": 1, "margin": 0.5, "x": 9}
    )
    items = [Tree("f:1", np.array([1]), (Branch(np.array([2])), Branch(np.array([3]))))]
    for objective, wanted in [
        (make("dpo"), {}),
        (make("odpo"), {"score": [2, 1]}),
        (a_sum("odpo", "bradley_terry_margin"), {"score": [2, 1], "margin": [0.5, 0.5]}),
        (a_sum("odpo", "kto"), {"score": [2, 1], "desirable": [1, 0]}),
    ]:
        trees = with_columns(Trees.build(items), [row], objective)
        assert {name: values.tolist() for name, values in trees.columns.items()} == wanted


# From rows to trees


def prepared(rows, objective, tokenizer, **tokens):
    recipe = SimpleNamespace(
        objective=objective, data=SimpleNamespace(pairs="extremes", train_on="assistant"),
        tokens=TokensConfig(**({"max_length": 40, "max_prompt_length": 20} | tokens)),
    )  # fmt: skip
    return prepare(rows, tokenizer, recipe)


def test_all_kinds_of_rows_in_one_run(tokenizer):
    rows = [
        row_of({"prompt": f"prompt {i}", **record}, f"f:{i}")
        for i, record in enumerate([
            {"chosen": "good", "rejected": "bad"}, {"completion": "good", "label": True}, {"completion": "bad", "label": False},
            {"completions": ["best", "better", "worst"], "scores": [3, 2, 1]},
        ])
    ]  # fmt: skip
    found = prepared(rows, make("kto"), tokenizer)
    assert [len(tree.branches) for tree in found.trees] == [4, 2, 2, 6]  # half of them mismatched
    own = [
        found.trees.columns["desirable"][first : first + count].tolist()
        for first, count in zip(found.trees.first, (2, 1, 1, 3), strict=False)
    ]
    assert own == [[1, 0], [1], [0], [1, 0, 0]]
    assert found.trees.mismatched


def test_what_is_skipped_is_counted(tokenizer):
    rows = [row_of({"prompt": f"p {i}", "completion": "a", "label": i % 2}, f"f:{i}") for i in range(5)]
    found = prepared(rows, make("sft"), tokenizer)
    assert [tree.id for tree in found.trees] == ["f:1", "f:3"]
    assert [(one.id, one.reason) for one in found.skipped] == [(f"f:{i}", "undesirable completion") for i in (0, 2, 4)]


def test_a_list_is_cut_as_a_pair_is_by_its_longest_completion(tokenizer):
    """One token a byte, and one that closes: the prompt gives way first, then each completion that is still too long."""
    row = row_of({"prompt": "p" * 30, "completions": ["a" * 3, "b" * 25, "c" * 10]})
    found = prepared([row], make("pl_dpo"), tokenizer)
    (tree,) = found.trees
    assert len(tree.prompt) == 20
    assert [one.scored for one in tree.branches] == [4, 20, 11]
    assert (found.truncated_prompts, found.truncated_completions) == (1, 1)


def test_a_list_whose_completions_are_equal_once_cut_is_skipped(tokenizer):
    row = row_of({"prompt": "p" * 20, "completions": ["a" * 30 + "x", "a" * 30 + "y", "c"]})
    assert [one.reason for one in prepared([row], make("pl_dpo"), tokenizer).skipped] == [
        "two completions are equal after truncation"
    ]


# Mismatched completions


def some_trees(prompts, counts, seed=0, longest=30) -> Trees:
    dice = np.random.default_rng(seed)

    def some() -> np.ndarray:
        return dice.integers(100, 200, dice.integers(1, longest)).astype(np.int32)

    items = [
        Tree(f"row {i}", np.full(2 + prompt % 5, prompt, dtype=np.int32), tuple(Branch(some()) for _ in range(count)))
        for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
    ]
    total = sum(counts)
    return Trees.build(items, {"desirable": np.arange(total, dtype=np.float32)})


@settings(max_examples=80)
@given(st.data(), st.integers(2, 12), st.integers(8, 40), st.integers(0, 99))
def test_a_mismatched_completion_belongs_to_another_prompt_and_fits(data, rows, max_length, seed):
    prompts = data.draw(st.lists(st.integers(1, 4), min_size=rows, max_size=rows).filter(lambda own: len(set(own)) > 1))
    counts = data.draw(st.lists(st.integers(1, 3), min_size=rows, max_size=rows))
    trees = some_trees(prompts, counts, seed)
    wide = with_mismatched(trees, max_length)
    of = {}
    for tree, prompt in zip(trees, prompts, strict=True):
        of.setdefault(prompt, []).extend(branch.tokens.tolist() for branch in tree.branches)
    assert wide.mismatched
    for tree, old, prompt, first in zip(wide, trees, prompts, wide.first, strict=False):
        own, strange = tree.branches[: len(old.branches)], tree.branches[len(old.branches) :]
        assert len(strange) == len(own)
        assert [one.tokens.tolist() for one in own] == [one.tokens.tolist() for one in old.branches]
        for one in strange:
            tokens = one.tokens.tolist()
            assert 0 < len(tokens) <= max(1, max_length - len(tree.prompt))
            others = [whole for other, wholes in of.items() if other != prompt for whole in wholes]
            assert any(whole[: len(tokens)] == tokens for whole in others)
        values = wide.columns["desirable"][first : first + 2 * len(own)]
        assert np.isfinite(values[: len(own)]).all()
        assert np.isnan(values[len(own) :]).all()


def test_which_completion_meets_which_prompt_depends_on_the_data_alone():
    trees = some_trees([1, 1, 2, 3, 1], [1, 2, 1, 1, 2])
    again, shorter = with_mismatched(trees, 64), with_mismatched(some_trees([1, 1, 2, 3, 1], [1, 2, 1, 1, 2]), 64)
    assert np.array_equal(again.tokens, shorter.tokens)
    first = again[0]
    assert first.branches[1].tokens.tolist() == trees[2].branches[0].tokens.tolist()  # the next row with another prompt
    assert again[4].branches[2].tokens.tolist() == trees[2].branches[0].tokens.tolist()  # round the end of the file


def test_a_turn_that_belongs_to_one_branch_alone_stays_there():
    items = [
        Tree("a", np.array([1, 2]), (Branch.scored_from(np.array([50, 51, 60]), 2),)),
        Tree("b", np.array([3]), (Branch(np.array([70, 71])),)),
    ]
    wide = with_mismatched(Trees.build(items, {}), 64)
    assert wide[1].branches[1].tokens.tolist() == [60]
    assert wide[1].branches[1].spans.tolist() == [[0, 1]]


def test_one_prompt_alone_has_no_mismatched_completion():
    with pytest.raises(UserError, match="data: all rows have the same prompt"):
        with_mismatched(some_trees([1, 1, 1], [1, 1, 2]), 64)
