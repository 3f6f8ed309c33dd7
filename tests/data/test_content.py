"""Rows that are there twice: normalization, counts beside sets of tuples, and what `deduplicate` drops."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.data.content import content_of, normalized
from alignzoo.data.splits import read_rows
from alignzoo.interfaces.data_source import DataSource, Split
from alignzoo.interfaces.rows import Completion, Row, Skipped


class Given(DataSource):
    """Rows that a test gives."""

    name = "given"
    model_config = DataSource.model_config | {"arbitrary_types_allowed": True}
    train: tuple = ()
    test: tuple = ()

    def splits(self) -> tuple[Split, ...]:
        return ("train", "test")

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        yield from self.train if split == "train" else self.test


def pair(prompt, good="good", bad="bad", id="x") -> Row:
    return Row(id, prompt, (Completion(good), Completion(bad)), "group")


USER = ({"role": "user", "content": "What  is\tÉté?"},)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("What is\n it?", " what IS it? ", True),
        ("\u00e9t\u00e9", "E\u0301TE\u0301", True),  # composed, and decomposed in capitals
        ("STRASSE", "straße", True),
        ("a\u00a0b", "a b", True),
        ("ab", "a b", False),
        ("été", "ete", False),
        ("ﬁne", "fine", True),  # case folding opens this ligature
        ("x²", "x2", False),  # compatibility forms stay apart
    ],
)
def test_texts_are_equal_up_to_case_white_space_and_composition(one, other, equal):
    assert (normalized(one) == normalized(other)) == equal
    assert (content_of(pair(one))[0] == content_of(pair(other))[0]) == equal
    assert (content_of(pair(one)) == content_of(pair(other))) == equal


@given(st.text())
def test_normalizing_is_stable_whatever_the_composition(text):
    assert normalized(normalized(text)) == normalized(text)
    if not text.isascii():
        assert normalized(unicodedata.normalize("NFD", text)) == normalized(text)
    assert normalized(text + "é").removesuffix("é") == normalized(text + "é ")[:-1], "ASCII alone is no special case"


def test_a_chat_and_the_same_text_have_one_prompt_and_other_rows_do_not():
    chat = Row("c", USER, (Completion(({"role": "assistant", "content": "yes"},)),), "g")
    text = Row("t", "what is été?", (Completion("YES"),), "g", columns={"margin": 1})
    assert content_of(chat) == content_of(text)
    swapped, other, tooled = (pair("p", "bad", "good"), pair("p", "good", "worse"), pair("p"))
    assert content_of(swapped) == content_of(pair("p")), "the order of completions is no content"
    assert content_of(other)[0] == content_of(pair("p"))[0]
    assert content_of(other)[1] != content_of(pair("p"))[1]
    tooled = Row("x", "p", tooled.completions, "g", tools=({"name": "f"},))
    assert content_of(tooled)[1] != content_of(pair("p"))[1]
    alone = [Row("t", "", (Completion(text),), "g") for text in ("a b", "A  B", "a c")]
    assert content_of(alone[0]) == content_of(alone[1])
    assert content_of(alone[0])[0] != content_of(alone[2])[0], "a text without a prompt is its own prompt"
    thought = tuple(({"role": "assistant", "content": "yes", "reasoning_content": why},) for why in ("a", "b"))
    assert len({content_of(Row("t", USER, (Completion(one),), "g"))[1] for one in thought}) == 2


ROWS = st.lists(
    st.tuples(st.sampled_from(["p", "P ", "q", "r"]), st.sampled_from(["g", "G", "h"])), min_size=1, max_size=12
)


def rows(pairs, side: str) -> tuple[Row, ...]:
    return tuple(pair(prompt, good, id=f"{side}{i}") for i, (prompt, good) in enumerate(pairs))


def plain(row: Row) -> tuple[str, str]:
    return row.prompt.strip().lower(), row.completions[0].text.lower()


@given(train=ROWS, test=ROWS)
def test_counts_and_what_is_dropped_are_those_of_plain_sets(train, test):
    train, test = rows(train, "a"), rows(test, "b")
    known, prompts = {plain(row) for row in train}, {plain(row)[0] for row in train}
    found = read_rows(Given(train=train, test=test))
    assert found.overlap == {
        "rows": sum(plain(row) in known for row in test),
        "prompts": sum(plain(row)[0] in prompts for row in test),
    }
    assert found.duplicates["train"] == {"rows": len(train) - len(known), "prompts": len(train) - len(prompts)}
    assert (len(found.train), len(found.held_out), found.deduplicated) == (len(train), len(test), 0)

    first: dict[tuple, list[Row]] = {}
    for row in test:
        first.setdefault(plain(row), []).append(row)
    held_out = [same[0] for same in first.values()]
    kept = [row for i, row in enumerate(train)
            if plain(row) not in first and plain(row) not in {plain(one) for one in train[:i]}]  # fmt: skip
    if kept:
        found = read_rows(Given(train=train, test=test, deduplicate=True))
        assert (found.train, found.held_out) == (kept, held_out)
        assert found.deduplicated == len(train) + len(test) - len(kept) - len(held_out)
        assert found.read == len(found.train) + len(found.held_out) + found.deduplicated
        assert found.overlap["rows"] == found.duplicates["train"]["rows"] == found.duplicates["held_out"]["rows"] == 0


def test_limits_and_counts_are_those_of_the_rows_that_are_left():
    train = rows([("p", "g"), ("p", "g"), ("q", "g"), ("r", "g")], "a")
    found = read_rows(Given(train=train, test=rows([("r", "x")], "b"), deduplicate=True, max_train_rows=2))
    assert [row.id for row in found.train] == ["a0", "a2"]
    assert (found.deduplicated, found.left_out) == (1, 1)
    assert found.overlap == {"rows": 0, "prompts": 0}, "r is not trained on any more"
