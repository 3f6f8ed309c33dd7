"""Reading a drawn data set that was written by hand: as pairs, lists, labels, and the best of N."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from byte_tokenizer import byte_tokenizer

from alignzoo.core.artifacts import write_manifest
from alignzoo.core.errors import UserError
from alignzoo.data.convert import convert_rows
from alignzoo.data.row_reader import RowReader
from alignzoo.data.sources.draws import Draws
from alignzoo.data.splits import read_rows
from alignzoo.data.tokenize import tokenize, vocabulary_digest
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.builtin.sft import SFT
from alignzoo.recipe.schema import TokensConfig


class Listwise(Objective):
    """A loss on lists."""

    name = "listwise"
    data = "ranked"


class Labeled(Objective):
    """A loss on labels."""

    name = "labeled"
    data = "unpaired"


class Tied(Objective):
    """A loss on pairs and ties."""

    name = "tied"
    ties = True


TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def line(id: str, scores: list[float | None] | None, texts: list[str] | None = None, **more: Any) -> dict[str, Any]:
    texts = texts or [f" draw {n}" for n in range(len(scores or [0]))]
    found = {
        "id": id, "prompt": f"Prompt {id}", "completions": texts, "scores": scores, "taste": scores,
        "finished": [True] * len(texts), "group": f"group {id}", "columns": {"answer": "yes", "label": 1},
        "prompt_ids": ids(f"Prompt {id}"), "completion_ids": [[*ids(text), EOS] for text in texts],
    }  # fmt: skip
    return {key: value for key, value in (found | more).items() if value is not None}


def source(folder: Path, lines: list[dict[str, Any]], objective: Objective, **fields: Any) -> Draws:
    """A source whose run has these rows, for an objective."""
    draws = folder / "draws"
    draws.mkdir(parents=True, exist_ok=True)
    (draws / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    rewards = ["taste"] if "taste" in lines[0] else []
    write_manifest(draws, {"run": "1", "vocabulary": vocabulary_digest(TOKENIZER), "rewards": rewards, "figures": {}})
    found = Draws(**{"from": "draws.yaml", "held_out_fraction": 0, **fields})
    found.bind_run("from", lambda: folder)
    return found.serving({objective.data}, objective.ties)


def rows(folder: Path, lines: list[dict[str, Any]], objective: Objective, **fields: Any):
    """The rows that an objective takes, and the reasons for which others are skipped."""
    one = source(folder, lines, objective, **fields)
    read = read_rows(one)
    kept, skipped = convert_rows(read.train, objective, one.pairs)
    return kept, [row.reason for row in (*read.skipped, *skipped)]


def texts(kept: list[Any]) -> list[tuple[str, ...]]:
    return [tuple(one.text.strip() for one in row.completions) for row in kept]


FOUR = line("a", [0.1, 0.9, 0.5, 0.3])


@pytest.mark.parametrize(("rule", "pairs"), [
    ("all", [("draw 1", "draw 2"), ("draw 1", "draw 3"), ("draw 1", "draw 0"), ("draw 2", "draw 3"), ("draw 2", "draw 0"), ("draw 3", "draw 0")]),
    ("adjacent", [("draw 1", "draw 2"), ("draw 2", "draw 3"), ("draw 3", "draw 0")]),
    ("extremes", [("draw 1", "draw 0")]),
])  # fmt: skip
def test_four_draws_of_different_scores_are_six_pairs(tmp_path, rule, pairs):
    kept, skipped = rows(tmp_path, [FOUR], DPO(), pairs=rule)
    assert (texts(kept), skipped) == (pairs, [])
    assert {row.group for row in kept} == {"group a"}
    best = kept[0].completions[0].columns
    assert best == {"score": 0.9, "taste": 0.9}
    assert kept[0].extra["answer"] == "yes"
    assert kept[0].columns["label"] == 1.0


def test_ties_form_no_pair_and_prompts_without_spread_are_counted(tmp_path):
    lines = [line("a", [0.5, 0.5, 0.1, 0.1]), line("b", [0.2, 0.2, 0.2]), line("c", [0.2, None, None])]
    kept, skipped = rows(tmp_path, lines, DPO(), pairs="all")
    assert texts(kept) == [("draw 0", "draw 2"), ("draw 0", "draw 3"), ("draw 1", "draw 2"), ("draw 1", "draw 3")]
    assert sorted(skipped) == ["all scores are equal", "fewer than two different draws"]
    tied, _ = rows(tmp_path, lines[1:2], Tied())
    assert [row.columns["tie"] for row in tied] == [1.0]


def test_draws_with_the_same_tokens_are_one_for_what_compares(tmp_path):
    same = line("a", [0.1, 0.9, 0.9], [" no", " yes", " yes"])
    assert texts(rows(tmp_path, [same], DPO(), pairs="all")[0]) == [("yes", "no")]
    assert texts(rows(tmp_path, [same], Listwise())[0]) == [("yes", "no")]
    labeled, _ = rows(tmp_path, [same], Labeled())
    assert len(labeled) == 3, "how often the model says something counts"


def test_lists_are_best_first_without_the_draws_that_are_left_out(tmp_path):
    kept, _ = rows(tmp_path, [line("a", [0.1, None, 0.5, 0.3])], Listwise())
    assert texts(kept) == [("draw 2", "draw 3", "draw 0")]
    assert [one.columns["score"] for one in kept[0].completions] == [0.5, 0.3, 0.1]


@pytest.mark.parametrize(("rule", "labels"), [("mean", [1, 1, 0, 0]), (0.2, [1, 1, 1, 0]), (2.0, [0, 0, 0, 0])])
def test_labels_by_the_prompt_s_mean_or_a_number(tmp_path, rule, labels):
    """0.9 and 0.5 are above the mean of 0.45."""
    kept, skipped = rows(tmp_path, [FOUR, line("b", [0.2, 0.2])], Labeled(), labels=rule)
    assert [row.completions[0].columns["desirable"] for row in kept[:4]] == labels
    assert texts(kept[:4]) == [("draw 1",), ("draw 2",), ("draw 3",), ("draw 0",)]
    assert skipped == (["all scores are equal"] if rule == "mean" else [])
    assert len(kept) == (4 if rule == "mean" else 6)


def test_sft_learns_the_best_of_n_and_a_single_draw_without_scores(tmp_path):
    kept, _ = rows(tmp_path, [FOUR, line("b", [0.3, 0.3])], SFT())
    assert texts(kept) == [("draw 1",), ("draw 0",)]
    assert all(row.is_training_text for row in kept)
    alone = line("c", None, [" only"], taste=None)
    assert texts(rows(tmp_path / "alone", [alone], SFT())[0]) == [("only",)]


def test_completions_reach_training_as_the_tokens_that_were_drawn(tmp_path):
    """Ids that no tokenizer makes of the text, without a token that ends a draw which was cut."""
    odd = [[*ids(" dra"), *ids("w"), EOS], ids(" cut")]
    drawn = line("a", [0.9, 0.1], [" draw", " cut"], completion_ids=odd, finished=[True, False])
    (row,), _ = rows(tmp_path, [drawn | {"prompt_ids": [EOS, *ids("Prompt a")]}], DPO())
    tree = tokenize([row], TOKENIZER, TokensConfig()).trees[0]
    assert tree.prompt.tolist() == [EOS, *ids("Prompt a")]
    assert [branch.tokens.tolist() for branch in tree.branches] == odd
    assert [branch.spans.tolist() for branch in tree.branches] == [[[0, len(own)]] for own in odd]


def test_another_vocabulary_reads_the_texts(tmp_path):
    other = byte_tokenizer()
    other.add_tokens([" draw"])
    (row,), _ = rows(tmp_path, [line("a", [0.9, 0.1])], DPO())
    tree = tokenize([row], other, TokensConfig()).trees[0]
    new = other.get_vocab()[" draw"]
    assert [branch.tokens[0] for branch in tree.branches] == [new, new]
    assert [branch.tokens[-1] for branch in tree.branches] == [EOS, EOS]
    assert tree.prompt.tolist() == ids("Prompt a")


def test_they_are_cut_to_the_limits_as_any_row(tmp_path):
    (row,), _ = rows(tmp_path, [line("a", [0.9, 0.1], [" oneabc", " twobcd"])], DPO())
    tree = tokenize([row], TOKENIZER, TokensConfig(max_length=8, max_prompt_length=3)).trees[0]
    assert tree.prompt.tolist() == ids("t a")
    assert [branch.tokens.tolist() for branch in tree.branches] == [
        ids(" one")[:5] + ids("a"),
        ids(" two")[:5] + ids("b"),
    ]


def test_a_chat_s_draws_are_assistant_messages(tmp_path):
    asked = [{"role": "user", "content": "Hello"}]
    (row,), _ = rows(tmp_path, [line("a", [0.9, 0.1], prompt=asked)], DPO())
    assert row.prompt == tuple(asked)
    assert row.completions[0].text == ({"role": "assistant", "content": " draw 0"},)
    tree = tokenize([row], TOKENIZER, TokensConfig()).trees[0]
    assert tree.branches[0].tokens.tolist() == [*ids(" draw 0"), EOS]


@pytest.mark.parametrize("name", ["train.jsonl", "about.json"])
def test_damage_is_told_with_the_command_that_mends_it(tmp_path, name):
    one = source(tmp_path, [FOUR], DPO())
    path = tmp_path / "draws" / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(UserError, match="the drawn data are damaged, or not there") as error:
        RowReader(one).plan  # noqa: B018
    assert error.value.problems[0].hint == "alignzoo run draws.yaml --fresh draws them again"


@pytest.mark.parametrize(("change", "words"), [
    ({"scores": [0.1]}, "scores is not a list of 4"),
    ({"taste": [0.1, 0.2, "x", 0.3]}, "taste has a value that is no number"),
    ({"taste": None}, "taste is not a list of 4"),
    ({"completion_ids": [[1], [2], [3], [-4]]}, "completion_ids.3.0"),
    ({"completion_ids": [[1], [2], [3], [2**40]]}, "completion_ids.3.0"),
    ({"completion_ids": [[1], [2], [3], []]}, "completion_ids.3"),
    ({"prompt_ids": []}, "prompt_ids"),
    ({"scores": [0.1, 0.2, 0.3, float("nan")]}, "scores"),
    ({"id": 3}, "id"),
])  # fmt: skip
def test_rows_that_fit_no_schema_are_told_with_file_and_line(tmp_path, change, words):
    """Though the digests are right, as where somebody has written the manifest too."""
    bad = {key: value for key, value in (line("b", [0.1, 0.9, 0.5, 0.3]) | change).items() if value is not None}
    with pytest.raises(UserError) as error:
        read_rows(source(tmp_path, [FOUR, bad], DPO()))
    assert words in str(error.value)
    assert "train.jsonl:2" in str(error.value)


def test_before_the_run_is_made_there_are_no_rows(tmp_path):
    one = Draws(**{"from": "draws.yaml"})
    with pytest.raises(UserError, match="the run was removed, and its rows are needed"):
        read_rows(one)
    one.bind_run("from", lambda: tmp_path / "draws-12345678")
    assert one.splits() == ("train",)
    with pytest.raises(UserError, match="the rows of draws-12345678 are not drawn yet") as error:
        read_rows(one)
    assert error.value.problems[0].hint == "alignzoo run draws.yaml draws them"
