"""Mixtures: how many rows of each source, which ones, in what order; their splits, names and mistakes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from byte_tokenizer import byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.core.errors import UserError
from alignzoo.data.mixing import draws, shares
from alignzoo.data.row_reader import RowReader
from alignzoo.data.sources.files import Files
from alignzoo.data.sources.mix import Mix, derived_name
from alignzoo.data.splits import read_rows
from alignzoo.data.statistics import source_lines
from alignzoo.data.token_store import TokenStore
from alignzoo.interfaces.data_source import DataSource, Split
from alignzoo.interfaces.rows import Completion, Row, Skipped
from alignzoo.recipe.load import load_recipe


class Numbered(DataSource):
    """Rows 0, 1, 2, ... with a prompt of their own, as a plugin's source would have them."""

    name = "numbered"
    rows: int = 10
    tests: int = 0
    word: str = "row"

    def splits(self) -> tuple[Split, ...]:
        return ("train", "test") if self.tests else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        yield Skipped(f"{split}:bad", "empty completion")
        for i in range(self.rows if split == "train" else self.tests):
            prompt = f"{self.word} {split} {i}"
            yield Row(f"{split}:{i}", prompt, (Completion("y"), Completion("n")), prompt)


def part(name: str, rows: int, tests: int = 2, **fields) -> Numbered:
    return Numbered(rows=rows, tests=tests, word=name, **{"as": name}, **fields)


def by_source(rows) -> Counter:
    return Counter(row.id.partition("/")[0] for row in rows)


def numbers(rows, name: str) -> list[int]:
    return [int(row.id.rpartition(":")[2]) for row in rows if row.id.startswith(f"{name}/")]


def test_sources_of_one_name_are_numbered_around_given_names():
    given = [part("toy-3", 1)] + [Numbered(rows=1) for _ in range(4)]
    parts = Mix(of=(*given, Numbered(rows=1, **{"as": "numbered-2"}))).parts
    assert list(parts) == ["toy-3", "numbered", "numbered-3", "numbered-4", "numbered-5", "numbered-2"]


def test_without_weights_every_row_is_there_once_and_any_beginning_has_the_proportions():
    source = Mix(of=(part("a", 600), part("b", 300), part("c", 100)))
    found = read_rows(source)
    assert by_source(found.train) == {"a": 600, "b": 300, "c": 100}
    assert by_source(found.held_out) == {"a": 2, "b": 2, "c": 2}
    assert by_source(found.skipped) == {"a": 2, "b": 2, "c": 2}
    assert (found.read, found.left_out) == (1012, 0)
    for size in (100, 250, 500, 900):
        here = by_source(found.train[:size])
        assert all(abs(here[name] - size * share) <= 2 for name, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)))
    assert len({row.id for row in found.train}) == 1000
    assert numbers(found.train, "a") == list(range(600)), "a source keeps its order"
    order = [row.id for row in found.train]
    assert order == [row.id for row in read_rows(source).train] == [row.id for row in RowReader(source)]
    other = [row.id for row in read_rows(source.model_copy(update={"seed": 1})).train]
    assert other != order
    assert sorted(other) == sorted(order)


def test_with_weights_the_first_source_to_be_used_up_ends_the_mixture():
    parts = (part("a", 600), part("b", 300), part("c", 100))
    found = read_rows(Mix(of=parts, weights=(2, 2, 1)))
    assert by_source(found.train) == {"a": 200, "b": 200, "c": 100}, "c is used up"
    assert found.left_out == 500
    assert found.sources["a"] == {"read": 604, "train": 200, "held_out": 2, "skipped": 2, "deduplicated": 0,
                                  "left_out": 400}  # fmt: skip
    chosen = numbers(found.train, "a")
    assert len(set(chosen)) == 200, "without replacement"
    assert chosen == sorted(chosen)
    assert 240 < sum(chosen) / 200 < 360, "from the whole of the source"
    assert chosen != numbers(read_rows(Mix(of=parts, weights=(2, 2, 1), seed=7)).train, "a")
    fewer = numbers(read_rows(Mix(of=parts, weights=(1, 1, 1))).train, "a")
    assert set(fewer) < set(chosen), "the same seed, so a part of them"


@given(
    counts=st.lists(st.integers(1, 10**6), min_size=1, max_size=6), data=st.data(),
)  # fmt: skip
def test_draws_are_as_many_as_fit_the_weights(counts, data):
    weights = data.draw(st.lists(st.floats(1e-3, 1e3), min_size=len(counts), max_size=len(counts)))
    found = draws(counts, weights)
    assert all(0 <= one <= count for one, count in zip(found, counts, strict=True))
    assert any(one == count for one, count in zip(found, counts, strict=True)), "a source is used up"
    unit = min(count / weight for count, weight in zip(counts, weights, strict=True))
    assert all(abs(one - unit * weight) <= 0.5 + 1e-6 * one for one, weight in zip(found, weights, strict=True))
    limit = data.draw(st.integers(0, sum(counts)))
    divided = shares(counts, limit)
    assert sum(divided) == limit
    assert all(abs(one - limit * count / sum(counts)) < 1 for one, count in zip(divided, counts, strict=True))


def test_limits_of_the_mixture_keep_its_proportions_and_those_of_a_source_are_its_own():
    parts = (part("a", 600, max_train_rows=400), part("b", 300, tests=30, held_out_rows=10))
    found = read_rows(Mix(of=parts, max_train_rows=70, held_out_rows=6))
    assert by_source(found.train) == {"a": 40, "b": 30}
    assert by_source(found.held_out) == {"a": 1, "b": 5}
    assert numbers(found.train, "a") == list(range(40))
    assert by_source(read_rows(Mix(of=parts)).train) == {"a": 400, "b": 300}


def test_each_source_has_its_own_split():
    parts = (part("a", 50, tests=5), part("b", 100, tests=0), part("c", 40, tests=0, held_out_fraction=0))
    found = read_rows(Mix(of=parts, held_out_fraction=0.3))
    held_out = by_source(found.held_out)
    assert (held_out["a"], held_out["c"]) == (5, 0)
    assert 15 < held_out["b"] < 45
    assert found.from_training == ("b",)
    alone = read_rows(Numbered(rows=100, word="b", held_out_fraction=0.3))
    assert numbers(found.held_out, "b") == [int(row.id.rpartition(":")[2]) for row in alone.held_out]


def test_noise_and_repeated_rows_are_those_of_the_whole_mixture():
    parts = (part("a", 200), part("b", 200, label_noise=0))
    found = read_rows(Mix(of=parts, label_noise=0.5))
    assert 70 < found.flipped < 130
    assert not [row for row in found.train if row.id.startswith("b/") and row.completions[0].text == "n"]
    twice = (part("a", 30), Numbered(rows=50, tests=2, word="a", **{"as": "again"}))
    found = read_rows(Mix(of=twice))
    assert found.duplicates["train"]["rows"] == 30
    assert found.duplicates["held_out"]["rows"] == 2
    found = read_rows(Mix(of=twice, deduplicate=True))
    assert by_source(found.train) == {"a": 30, "again": 20}, "the first one stays"
    assert (found.deduplicated, found.sources["again"]["deduplicated"]) == (32, 32)


@pytest.mark.parametrize(
    ("path", "name"),
    [("x/chat.jsonl.gz", "chat"), ("/data/a b.csv", "a-b"), ("x/*.jsonl", "files"), ("folder", "files"), (("a", "b"), "files")],
)  # fmt: skip
def test_a_source_without_a_name_has_that_of_its_file(path, name):
    assert derived_name(Files(path=path)) == name


def test_names_that_are_there_twice_are_numbered():
    parts = Mix(of=(Files(path="a.jsonl"), Numbered(), Files(path="b/a.csv"), Numbered(**{"as": "numbered"}))).parts
    assert list(parts) == ["a", "numbered-2", "a-2", "numbered"]


RECIPE = {
    "objective": "dpo", "model": {"path": "nowhere"}, "train": {"optimizer": {"name": "sgd", "learning_rate": 1}},
    "data": {"name": "mix", "of": ["hh", {"name": "toy", "shape": "tools"}, {"name": "files", "path": "./a.csv",
             "as": "table", "format": {"name": "records", "prompt": "q"}}], "weights": [3, 1, 1]},
    "eval": {"data": {"table": {"name": "files", "path": "./b.csv", "format": "records"}, "hh": "hh"}},
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path):
    (tmp_path / "a.csv").write_text("q,chosen,rejected\n" + "".join(f"p {i},y,n\n" for i in range(40)))
    (tmp_path / "b.csv").write_text("prompt,chosen,rejected\n" + "".join(f"p {i},y,n\n" for i in range(4)))
    path = tmp_path / "mix.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return lambda *overrides: load_recipe(path, list(overrides))


def test_a_resolved_mixture_loads_to_the_same_run_and_takes_overrides(recipe, tmp_path):
    resolved = recipe()
    assert list(resolved.recipe.data.parts) == ["hh", "toy", "table"]
    again = tmp_path / "again.yaml"
    again.write_text(resolved.to_yaml())
    assert load_recipe(again).fingerprint == resolved.fingerprint
    changed = load_recipe(again, ["data.held_out_fraction=0.4", "data.of.2.max_train_rows=7", "data.of.0=toy"])
    hh, _, table = changed.recipe.data.of
    assert (hh.name, table.held_out_fraction, table.max_train_rows) == ("toy", 0.4, 7)
    assert {component.name for component in resolved.components} >= {"mix", "hh", "toy", "files", "records"}


def test_the_fingerprint_has_all_that_the_rows_depend_on(recipe, tmp_path):
    same = recipe().fingerprint
    changes = [
        "data.weights=[3,1,2]", "data.weights=null", "data.seed=1", "data.of.0.max_train_rows=5", "data.of.2.as=t",
        "data.deduplicate=true", "data.held_out_fraction=0.2", "eval.data.hh.held_out_rows=3", "eval.data.hh=null",
        "data.of.2.format.chosen=rejected",
    ]  # fmt: skip
    assert len({same, *(recipe(one).fingerprint for one in changes)}) == 1 + len(changes)
    assert recipe("eval.allow_overlap=true").fingerprint == same
    for name in ("a.csv", "b.csv"):
        with open(tmp_path / name, "a") as file:
            file.write("p,y,n\n")
        before, same = same, recipe().fingerprint
        assert before != same


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.weights=[1,2]", "data.weights: 2 weights for 3 sources"),
        ("data.of=[]", r"data.of: .* has too few items; expected at least 1"),
        ("data.weights=[1,2,0]", "data.weights.2: 0 is out of bounds; expected at least 1e-12"),
        ("data.weights=[1,2,5e-324]", "data.weights.2: 5e-324 is out of bounds; expected at least 1e-12"),
        ("data.weights=[1,2,.inf]", "data.weights.2: inf is not a finite number"),
        (f"data.of.2.as={'a' * 101}", "data.of.2.as: .*is too long; expected at most 100 characters"),
        (f"eval.data.{'a' * 101}={{name: hh}}", "eval.data.*is too long; expected at most 100 characters"),
        ("data.of.1.shap=tools", r"data.of.1.shap: no such field; did you mean 'shape'"),
        ("data.of.1.name=toi", r"data.of.1.name: no data source is called 'toi'"),
        ("data.of.0.train_on=all", r"of.0.train_on is one for all sources: set it beside `of`"),
        (
            "data.of.0={name: mix, of: [hh]}",
            "data.of: source 0 is a mixture, and a mixture can't be mixed again; name its sources here",
        ),
        ("data.of.0.as=table", r"data.of: two sources are named 'table'"),
        ("data.of.0.as=a/b", r"data.of.0.as: 'a/b' is not a name"),
        ("data.of=hh", "data.of: 'hh' is not a list"),
        ("eval.data.hh.max_train_rows=3", r"eval.data.hh.max_train_rows: it describes rows to train on"),
        ("eval.data.m={name: mix, of: [hh, toy], weights: [1, 2]}", r"eval.data.m.weights: it describes rows to train"),
        (
            "eval.data.m={name: mix, of: [hh, {name: toy, label_noise: 0.5}]}",
            r"eval.data.m.of.1.label_noise: it describes rows to train on",
        ),
        ("eval.data.held_out=hh", r"eval.data.held_out: this is the name of a split"),
        ("eval.data=hh", r"eval.data: not a mapping"),
        ("eval.data.x.name=nothing", r"eval.data.x.name: no data source is called 'nothing'"),
    ],
)
def test_a_mistake_is_named_with_its_key(recipe, override, words):
    with pytest.raises(UserError, match=words):
        recipe(override)


class Repeating(Numbered):
    """The first half of the rows is one row, over and over."""

    name = "repeating"

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        for row in super().read(split):
            if isinstance(row, Row):
                same = int(row.id.rpartition(":")[2]) < self.rows // 2
                yield replace(row, prompt="same") if same else row


def test_repeated_rows_are_drawn_as_often_as_any_others():
    """Equal hashes in a row would be drawn all or none. 400 draws at a half have a standard error of 0.025."""
    shares = []
    for seed in range(8):
        parts = (Repeating(rows=100, tests=1, **{"as": "a"}), part("b", 50))
        rows = [row for row in read_rows(Mix(of=parts, weights=(1, 1), seed=seed)).train if row.id.startswith("a/")]
        assert len(rows) == 50
        shares.append(sum(row.prompt == "same" for row in rows) / 50)
    assert all(0.25 < share < 0.75 for share in shares)
    assert abs(sum(shares) / 8 - 0.5) < 4 * 0.025


def test_two_sources_of_the_same_rows_draw_apart():
    parts = [Numbered(rows=200, tests=1, **{"as": name}) for name in "ab"]
    rows = read_rows(Mix(of=(*parts, part("c", 100)), weights=(1, 1, 1))).train
    both = set(numbers(rows, "a")) & set(numbers(rows, "b"))
    assert 30 < len(both) < 70  # 50 +- 3.5 of independent halves, and 100 of equal ones


def test_an_evaluation_set_is_scored_as_the_data_unless_it_says_otherwise(recipe):
    mixture = "eval.data.m={name: mix, of: [hh, toy]}"
    resolved = recipe(mixture, "data.train_on=last_assistant", "data.pairs=all", "eval.data.hh.pairs=adjacent")
    sets = resolved.recipe.eval.data
    assert [(one.train_on, one.pairs) for one in (sets["table"], sets["hh"], sets["m"], *sets["m"].of)] == [
        ("last_assistant", rule) for rule in ("all", "adjacent", "all", "all", "all")
    ]
    changed = recipe("data.train_on=last_assistant").evaluation_fingerprints
    assert changed["table"] != recipe().evaluation_fingerprints["table"]


def test_a_weighted_mixture_can_be_evaluated_with_and_without_test_splits():
    source = Mix(of=(part("a", 10, tests=3), part("b", 4, tests=0)), weights=(1, 1))
    rows = [row for held_out, row in RowReader(source, evaluation=True).used() if held_out]
    assert by_source(rows) == {"a": 3, "b": 4}


def test_the_small_sources_of_a_mixture_share_one_limit_of_memory(monkeypatch):
    monkeypatch.setattr("alignzoo.data.row_reader.MAX_ROWS_IN_MEMORY", 25)
    source = Mix(of=tuple(part(name, 10, held_out_fraction=0) for name in "abcd"))
    reader = RowReader(source)
    assert {id for id in ids(reader)} == {row.id for row in read_rows(source).train}
    kept = sum(map(len, reader._in_memory.values()))
    assert 0 < kept <= 25
    assert ids(reader) == ids(RowReader(source))


def ids(reader: RowReader) -> list[str]:
    return [row.id for row in reader]


def test_a_source_that_is_used_up_before_it_begins_is_an_error_with_its_name():
    parts = (part("a", 10), Numbered(rows=0, tests=2, **{"as": "b"}))
    with pytest.raises(UserError, match="no row of b is left to train on, and it has a weight"):
        read_rows(Mix(of=parts, weights=(1, 1)))
    assert by_source(read_rows(Mix(of=parts)).train) == {"a": 10}


@pytest.mark.parametrize("weight", [0.05, 0.0500001])
def test_a_source_of_which_no_row_is_drawn_is_an_error_with_the_weight_that_it_needs(weight):
    source = Mix(of=(part("a", 10), part("b", 40)), weights=(1, weight))
    if weight > 0.05:
        assert by_source(read_rows(source).train) == {"a": 10, "b": 1}
        return
    with pytest.raises(UserError, match="none of the 40 rows of b are drawn: the 10 of a are used up first") as found:
        read_rows(source)
    assert found.value.problems[0].where == "data.weights.1"
    assert "a weight above 0.05" in str(found.value)


def test_pairs_of_lists_are_counted_by_source(tmp_path, monkeypatch):
    """A list of three has three pairs, of which equal scores make none: 5 x 2 further ones, and 4 x 1."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    tables = {
        "three": [{"prompt": f"t {i}", "completions": ["a", "b", "c"], "scores": [3, 2, 1]} for i in range(5)],
        "tied": [{"prompt": f"u {i}", "completions": ["a", "b", "c"], "scores": [3, 1, 1]} for i in range(4)],
        "pairs": [{"prompt": f"p {i}", "chosen": "a", "rejected": "b"} for i in range(3)],
    }
    for name, records in tables.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    of = [{"name": "files", "path": f"./{name}.jsonl", "held_out_fraction": 0.3} for name in tables]
    path = tmp_path / "lists.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"data": {"name": "mix", "of": of, "pairs": "all"}, "eval": {}}))
    resolved = load_recipe(path)
    report = TokenStore(resolved, byte_tokenizer()).get(RowReader(resolved.recipe.data), lambda line: None).report
    counts = report["sources"] | {"": report}
    assert {name: own["further_pairs"] for name, own in counts.items()} == {"three": 10, "tied": 4, "pairs": 0, "": 14}
    for own in counts.values():
        unused = own["skipped"] + own["left_out"] + own["deduplicated"]
        assert own["read"] + own["further_pairs"] == own["train"] + own["held_out"] + unused
    three, _, pairs = source_lines(report["sources"])
    assert three.endswith("of 5 read and 10 further pairs of lists")
    assert pairs.endswith("of 3 read")


def test_every_row_can_be_trained_on():
    found = read_rows(Numbered(rows=20, held_out_fraction=0))
    assert (len(found.train), found.held_out, found.held_out_wanted) == (20, [], False)
    same = [Row(f"{i}", "p", (Completion("y"), Completion("n")), "one group") for i in range(3)]

    class Same(Numbered):
        def read(self, split: Split) -> Iterator[Row | Skipped]:
            yield from same

    with pytest.raises(UserError, match="held_out_fraction: 0 trains on every row"):
        read_rows(Same())
    assert len(read_rows(Same(held_out_fraction=0)).train) == 3
    assert not read_rows(Numbered(rows=5, tests=3, held_out_rows=0)).held_out_wanted


def test_an_evaluation_set_is_the_test_split_or_all_rows(tmp_path):
    for source, count in (
        (Numbered(rows=9, tests=4), 4),
        (Numbered(rows=9), 9),
        (Numbered(rows=9, held_out_rows=2), 2),
    ):
        rows = list(RowReader(source, evaluation=True).used())
        assert len(rows) == count
        assert all(held_out for held_out, _ in rows)
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "y", "rejected": "n"}) + "\n")
    assert len(list(RowReader(Files(path=str(tmp_path / "train.jsonl")), evaluation=True).used())) == 1
