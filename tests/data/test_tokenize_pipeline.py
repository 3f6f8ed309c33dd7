"""What is read and tokenized a chunk at a time takes the memory of a chunk."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from byte_tokenizer import byte_tokenizer
from hh_rows import dialogue

from alignzoo.core.errors import UserError
from alignzoo.data.prepare import prepare
from alignzoo.data.row_reader import RowReader
from alignzoo.data.splits import read_rows
from alignzoo.data.tokenize_pipeline import TokenizePipeline
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.rows import Completion, Row
from alignzoo.recipe.load import load_recipe


def recipe_on(folder: Path, rows: int):
    folder.mkdir()
    texts = ("a prompt of some length " * 4, "what one says " * 6, "and what another says " * 4)
    with open(folder / "rows.jsonl", "w") as file:
        for i in range(rows):
            prompt, good, bad = (f"{text}{i}" for text in texts)
            file.write(json.dumps({"chosen": dialogue(prompt, good), "rejected": dialogue(prompt, bad)}) + "\n")
    node = {
        "objective": "dpo", "model": {"path": "nowhere"}, "reporters": [],
        "data": {"name": "hh", "path": str(folder / "rows.jsonl")},
        "train": {"optimizer": {"name": "sgd", "learning_rate": 1}},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(node))
    return load_recipe(path).recipe


def most_memory(work) -> int:
    """Bytes that Python and numpy held at once beside what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("alignzoo.data.tokenize_pipeline.CHUNK", 64)
    monkeypatch.setattr("alignzoo.data.row_reader.MAX_ROWS_IN_MEMORY", 100)
    tokenizer, streamed, listed = byte_tokenizer(), {}, {}
    for rows in (299, 300, 1500):  # the first takes what is made once and kept
        recipe = recipe_on(tmp_path / str(rows), rows)
        work = tmp_path / f"work {rows}"
        work.mkdir()

        def stream(recipe=recipe, work=work, rows=rows):
            (_, train), (_, held_out) = TokenizePipeline(RowReader(recipe.data), tokenizer, recipe, work).prepare(
                work / "rows"
            )
            assert len(train.trees) + len(held_out.trees) == rows

        def as_list(recipe=recipe):
            found = read_rows(recipe.data)
            assert prepare(found.train, tokenizer, recipe).trees
            assert prepare(found.held_out, tokenizer, recipe).trees

        streamed[rows], listed[rows] = most_memory(stream), most_memory(as_list) if rows == 300 else 0
    assert (streamed[1500] - streamed[300]) / 1200 < 200, "bytes a row"
    assert listed[300] / 300 > 4000, "what the same rows take as lists"


class Shrinking(DataSource):
    """Gives a row less each time it is read."""

    name = "shrinking"
    _times: ClassVar[list[int]] = [0]

    def read(self, split):
        self._times[0] += 1
        for i in range(9 - self._times[0]):
            yield Row(f"{i}", f"p {i}", (Completion("a"), Completion("b")), f"p {i}")


def test_data_that_changes_while_it_is_read_is_reported(monkeypatch):
    monkeypatch.setattr("alignzoo.data.row_reader.MAX_ROWS_IN_MEMORY", 1)
    with pytest.raises(UserError, match="the data has changed while it was read"):
        list(RowReader(Shrinking()))


@pytest.mark.parametrize(("limit", "most"), [("ROWS", 9), ("CHARACTERS", 49)])
def test_few_rows_are_read_once_and_many_twice(monkeypatch, limit, most):
    reads = []

    class Counted(DataSource):
        """Ten rows of five characters."""

        name = "counted"

        def read(self, split):
            reads.append(split)
            return (Row(f"{i}", f"p {i}", (Completion("a"), Completion("b")), f"p {i}") for i in range(10))

    few = RowReader(Counted())
    assert reads == [], "nobody has looked"
    first, again = list(few.used()), list(few.used())
    assert first == again
    assert reads == ["train"]
    monkeypatch.setattr(f"alignzoo.data.row_reader.MAX_{limit}_IN_MEMORY", most)
    many = RowReader(Counted())
    assert list(many.used()) == first
    assert list(many) == [row for held_out, row in first if not held_out] == read_rows(Counted()).train
    assert reads == ["train"] * 5
