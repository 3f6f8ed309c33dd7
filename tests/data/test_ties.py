"""Ties reach the objectives that declare them and no others; flags and probabilities are what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid
from zoo import make

from alignzoo.core.errors import UserError
from alignzoo.data.convert import convert_rows, with_columns
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.data.sources.files import Files
from alignzoo.data.splits import read_rows
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.evaluation.row_metrics import row_metrics
from alignzoo.interfaces.objective import Field, Objective
from alignzoo.interfaces.requirements import contradiction
from alignzoo.interfaces.rows import Row
from alignzoo.objectives.composition import Sum
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import ScoredBatch

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
LIST = {"prompt": "p", "completions": ["a", "b", "c"]}


class Tied(Objective):
    """Ties have the loss 1 of a zero margin."""

    name = "tied"
    ties = True

    def loss(self, pair):
        return (1 + pair.margin**2).where(pair.tied, -logsigmoid(pair.margin))


class Flagged(Objective):
    """A flag, a probability, and columns that the recipe names."""

    name = "flagged"
    flags = ("unsafe",)
    probabilities = ("win",)
    column_fields = ("score", "rewards")
    score: str = Field("score", description="a column")
    rewards: dict[str, float] = Field({}, description="weights of columns")

    def loss(self, pair):
        return pair.margin * pair.chosen.flag("unsafe")


def row_of(record, id: str = "f:1") -> Row:
    row = record_row(id, record, {}, id)
    assert isinstance(row, Row)
    return row


RECORDS = [
    PAIR | {"prompt": f"p {i}", **more}
    for i, more in enumerate([{}, {"tie": True}, {"chosen_score": 2, "rejected_score": 2}, {"tie": 0}])
] + [LIST | {"prompt": "list", "scores": [3, 3, 3]}, LIST | {"prompt": "other", "scores": [3, 3, 1]}]


@pytest.fixture
def source(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return Files(path=str(tmp_path / "rows.jsonl"), held_out_fraction=0.01)


def test_rows_without_a_better_completion_are_skipped_and_counted_unless_an_objective_takes_ties(source):
    found = read_rows(source.serving({"pair"}))
    assert len(found.train) + len(found.held_out) == 4
    assert [one.reason for one in found.skipped] == ["no preference", "all scores are equal"]
    found = read_rows(source.serving({"pair"}, ties=True))
    assert len(found.train) + len(found.held_out) == 6
    assert found.skipped == []


@pytest.mark.parametrize(
    ("rule", "pairs", "tied"),
    [("extremes", ["ac"], [0]), ("adjacent", ["ab", "bc"], [1, 0]), ("all", ["ab", "ac", "bc"], [1, 0, 0])],
)
def test_completions_of_a_list_with_equal_scores_are_a_pair_for_an_objective_with_ties(rule, pairs, tied):
    row = row_of(RECORDS[5])
    kept, _ = convert_rows([row], Tied(), rule)
    assert ["".join(one.text for one in each.completions) for each in kept] == pairs
    trees = Trees.build([Tree(each.id, np.array([1]), (Branch.of([2], (0, 1)),) * 2) for each in kept])
    assert with_columns(trees, kept, Tied()).columns["tie"].tolist() == [value for value in tied for _ in range(2)]
    without, _ = convert_rows([row], make("dpo"), rule)
    assert len(without) == len(pairs) - sum(tied)


def builder_of(objective: Objective) -> tuple[BatchBuilder, ScoredBatch]:
    """The four pairs of RECORDS; log-probs are minus the token ids."""
    rows = [row_of(record, f"f:{i}") for i, record in enumerate(RECORDS[:4])]
    ids = np.arange(16, dtype=np.int32).reshape(4, 2, 2)
    items = [Tree(row.id, np.array([1]), tuple(map(Branch, own))) for row, own in zip(rows, ids, strict=True)]
    builder = BatchBuilder(objective, with_columns(Trees.build(items), rows, objective))
    batch = builder.empty(range(4))
    log_prob = -torch.from_numpy(ids.reshape(-1)).double()
    batch.values = {"log_prob": log_prob, "ref_log_prob": log_prob * 0}
    return builder, batch


def test_a_sum_gives_ties_to_the_terms_that_declare_them():
    """The margin is ids of rejected minus ids of chosen: 4 in every row. Rows 1 and 2 are ties."""
    both = Sum(parts=(Tied(), make("dpo", beta=1.0)), weights=(1.0, 1.0))
    builder, batch = builder_of(both)
    (tied,) = builder.examples(batch, both.parts[0])
    assert tied.example.tied.tolist() == [False, True, True, False]
    assert tied.owners.tolist() == [0, 1, 2, 3]
    win = torch.nn.functional.softplus(torch.tensor(-4.0, dtype=torch.float64)).item()
    assert both.parts[0].loss(tied.example).tolist() == pytest.approx([win, 17, 17, win])
    (dpo,) = builder.examples(batch, both.parts[1])
    assert dpo.owners.tolist() == [0, 3]
    assert both.parts[1].loss(dpo.example).tolist() == pytest.approx([win, win])
    reverse, again = builder_of(Sum(parts=both.parts[::-1], weights=(1.0, 1.0)))
    assert next(iter(reverse.examples(again, both.parts[1]))).owners.tolist() == [0, 3]
    alone, batch = builder_of(make("dpo"))
    assert next(iter(alone.examples(batch, make("dpo")))).owners.tolist() == [0, 1, 2, 3], "as the rows say"


def test_a_tie_has_no_accuracy_and_no_margin():
    builder, batch = builder_of(Tied())
    found = row_metrics(builder, batch, ("preference_accuracy",))
    for name in ("preference_accuracy", "margin", "chosen_reward"):
        assert found[name].isnan().tolist() == [False, True, True, False], name
    assert found["margin"][[0, 3]].tolist() == [4, 4]


def test_a_batch_of_ties_has_no_example_for_other_objectives():
    both = Sum(parts=(Tied(), make("dpo")), weights=(1.0, 1.0))
    builder, batch = builder_of(both)
    assert list(builder.examples(batch.in_order([1, 2]), both.parts[1])) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"unsafe": 2, "win": 0, "honesty": 1}, "reads the column 'unsafe', which is 2 in row f:1; expected 0 or 1"),
        ({"chosen_unsafe": 0.5, "rejected_unsafe": 1, "win": 0, "honesty": 1}, "which is 0.5 in row f:1"),
        ({"unsafe": True, "win": 1.5, "honesty": 1}, "reads the column 'win', which is 1.5 in row f:1; expected a number from 0 to 1"),
        ({"unsafe": True, "win": 1, "score": 3}, "needs the column 'honesty'"),
        ({"win": 0}, "needs the column 'unsafe'"),
    ],
)  # fmt: skip
def test_a_column_that_is_not_what_it_says_is_an_error(more, said):
    with pytest.raises(UserError, match="flagged") as error:
        convert_rows([row_of(PAIR | {"score": 1} | more)], Flagged(rewards={"honesty": 1.0}), "extremes")
    assert said in str(error.value)


def test_a_tie_that_is_no_flag_is_an_error():
    with pytest.raises(UserError, match=r"'tie', which is 3 in row f:1; expected 0 or 1"):
        convert_rows([row_of(PAIR | {"tie": 3})], Tied(), "extremes")


def test_fields_name_columns_of_one_instance():
    assert Flagged.columns == ("unsafe", "win")
    assert Flagged().columns == ("unsafe", "win", "score")
    named = Flagged(score="helpfulness", rewards={"honesty": 0.5, "win": 1.0})
    assert named.columns == ("unsafe", "win", "helpfulness", "honesty")
    assert named.requirements.columns == named.columns
    assert Sum(parts=(Flagged(), named), weights=(1.0, 1.0)).columns == (
        "unsafe",
        "win",
        "score",
        "helpfulness",
        "honesty",
    )
    assert named != Flagged()
    more = {"unsafe": 0, "win": 0.5, "chosen_helpfulness": 4, "rejected_helpfulness": 1, "honesty": 2}
    rows, _ = convert_rows([row_of(PAIR | more)], named, "extremes")
    trees = Trees.build([Tree("f:1", np.array([1]), (Branch.of([2], (0, 1)), Branch.of([3], (0, 1))))])
    columns = with_columns(trees, rows, named).columns
    assert {name: columns[name].tolist() for name in named.columns} == {
        "unsafe": [0, 0], "win": [0.5, 0.5], "helpfulness": [4, 1], "honesty": [2, 2],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "unpaired", "ties": True}, "`ties` needs"),
        ({"references": ("reference",)}, '"reference" is declared as `reference = "sequence"`'),
        ({"references": ("a",), "head": "scalar", "reference": "none"}, "no `references`"),
        ({"references": "teacher"}, "is not a tuple"), ({"flags": "safe"}, "is not a tuple"),
        ({"column_fields": ("missing",)}, "`column_fields` needs names of fields"),
        ({"min_completions": 3}, '`min_completions` needs `data = "group"` or "ranked"'),
    ],
)  # fmt: skip
def test_what_no_engine_can_provide(changes, said):
    cls = type("Mine", (Objective,), {"name": "mine", "__module__": __name__, "loss": lambda self, pair: 0} | changes)
    assert said in contradiction(cls)


def test_a_list_that_is_too_short_is_skipped_and_counted():
    rows = [row_of(LIST | {"scores": [3, 2, 1]}), row_of(PAIR)]
    kept, skipped = convert_rows(rows, make("tpo"), "extremes")
    assert kept == rows[:1]
    assert [one.reason for one in skipped] == ["fewer than 3 completions"]
    modified = Sum(parts=(make("tpo"), make("pl_dpo")), weights=(1.0, 1.0))
    assert convert_rows(rows, modified, "extremes")[0] == rows[:1]


def test_ties_are_counted_before_training_so_that_a_misspelled_column_shows():
    from alignzoo.training.announce import ties_line

    builder, _ = builder_of(Tied())
    assert ties_line(Tied(), builder.trees) == "2 of 4 training rows are ties, which tied takes"
    assert ties_line(make("dpo"), builder.trees) == ""
    builder.trees.columns["tie"][:] = 0
    assert "0 of 4 training rows are ties, which tied takes; a row is one if its column 'tie' is 1" in ties_line(
        Tied(), builder.trees
    )


class Rated(Objective):
    """A score of each completion."""

    name = "rated"
    data = "ranked"
    min_completions = 1
    columns = ("score",)

    def loss(self, ranked):
        return (ranked.completions.log_prob - ranked.completions.column("score")).square().mean(1)


def test_a_single_completion_is_a_list_for_an_objective_that_takes_it():
    rows = [row_of({"prompt": "p", "completion": "a", "score": 2}), row_of(LIST | {"prompt": "q", "scores": [3, 2, 1]})]
    kept, skipped = convert_rows(rows, Rated(), "extremes")
    assert (kept, skipped) == (rows, [])
    with pytest.raises(UserError, match="compares completions"):
        convert_rows(rows, make("pl_dpo"), "extremes")
