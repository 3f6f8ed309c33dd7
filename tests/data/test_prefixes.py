"""Prompts that are the first tokens of a text, and ranges of prompt groups."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import pytest
import yaml
from byte_tokenizer import byte_tokenizer

from alignzoo.core.digests import digest_file
from alignzoo.core.errors import UserError
from alignzoo.data.dataset import tokenized_dataset
from alignzoo.data.formats.records import Records
from alignzoo.data.prefixes import number_of_tokens
from alignzoo.data.sources.files import Files
from alignzoo.data.splits import read_rows
from alignzoo.interfaces.data_source import PrefixTokens
from alignzoo.recipe.load import load_recipe

TEXTS = [f"Review {i}: a film about the number {i * i}." for i in range(60)]


@pytest.fixture
def reviews(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": i % 2}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def prompts_of(reviews: Path, seed: int = 0, **data: object):
    """The dataset of an online recipe over prefixes of 2 to 8 bytes, each of which is a token."""
    byte_tokenizer().save_pretrained(reviews.parent / "tokenizer")
    prefix = {"least": 2, "most": 8, "seed": seed}
    node = {
        "objective": "dpo", "model": {"path": "nowhere"}, "reporters": [],
        "data": {"name": "files", "path": str(reviews), "prefix_tokens": prefix, **data},
        "rollout": {"rewards": ["length"]}, "train": {"optimizer": {"name": "sgd", "learning_rate": 1}},
    }  # fmt: skip
    recipe = reviews.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(node))
    return tokenized_dataset(load_recipe(recipe), byte_tokenizer(), lambda line: None)


def test_a_prompt_is_the_first_tokens_of_its_text(reviews):
    """As tokens, and as the text that judges read; its length is from 2 to 8, and the group is that of the review."""
    part = prompts_of(reviews).train
    sizes = set()
    for n, row in enumerate(part.rows):
        text = TEXTS[int(row.id.rpartition(":")[2]) - 1]
        ids = part.trees[n].prompt.tolist()
        assert ids == byte_tokenizer()(text, add_special_tokens=False)["input_ids"][: len(ids)]
        assert row.prompt == text[: len(ids)]
        assert (row.completions, row.group, row.columns["label"]) == (
            (),
            text,
            float(int(row.id.split(":")[1]) - 1 & 1),
        )
        sizes.add(len(ids))
    assert sizes == set(range(2, 9))


def test_the_lengths_depend_on_id_and_seed_alone(reviews):
    whole, part = prompts_of(reviews), prompts_of(reviews, group_range=[0.3, 0.9])
    other = prompts_of(reviews, seed=1)

    def by_id(dataset):
        return {row.id: row.prompt for side in (dataset.train, dataset.held_out) for row in side.rows}

    assert by_id(part).items() < by_id(whole).items()
    assert by_id(other).keys() == by_id(whole).keys()
    assert by_id(other) != by_id(whole)


def test_every_length_is_equally_likely():
    counts = Counter(number_of_tokens(f"f:{i}", PrefixTokens(least=2, most=8)) for i in range(7_000))
    assert set(counts) == set(range(2, 9))
    assert all(abs(count - 1_000) < 5 * (1_000 * 6 / 7) ** 0.5 for count in counts.values())  # five standard errors


def test_a_chat_has_no_prefix(reviews):
    reviews.write_text(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}) + "\n")
    with pytest.raises(UserError, match=r"row reviews.jsonl:1 is a chat, and a prefix is of a text") as found:
        read_rows(Files(path=str(reviews), prefix_tokens={"least": 1, "most": 2}))
    assert found.value.problems[0].where == "data.prefix_tokens"


def test_ranges_share_no_group_with_or_without_prefixes(reviews):
    """A review that a language model is fitted on is no prompt of a recipe with the rest of the range."""
    half = {"path": str(reviews), "held_out_fraction": 0.2}
    text = read_rows(Files(**half, group_range=(0, 0.5)))
    prompt = read_rows(Files(**half, group_range=(0.5, 1), prefix_tokens=PrefixTokens()))
    groups = [{row.group for row in (*part.train, *part.held_out)} for part in (text, prompt)]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == set(TEXTS)
    assert min(map(len, groups)) > 20  # of 60; fewer has a probability of 1%, and the hash is fixed
    assert text.left_out == len(groups[1])
    whole = read_rows(Files(**half))
    assert {row.group for row in text.held_out} <= {row.group for row in whole.held_out}


@pytest.mark.parametrize(("value", "problem"), [
    ((0.5, 0.5), "is no range"), ((0.2, 1.5), "is no range"), ((0.6, 0.1), "is no range"),
])  # fmt: skip
def test_bad_ranges(value, problem):
    with pytest.raises(ValueError, match=problem):
        Files(path="x", format=Records(), group_range=value)


def test_bounds_in_the_wrong_order():
    with pytest.raises(ValueError, match="least is above most: expected at most 3"):
        PrefixTokens(least=4, most=3)


def test_without_them_fingerprints_are_as_before(reviews):
    """The digest has no entry for the new fields: runs that are finished keep their folders."""
    plain = Files(path=str(reviews))
    fields = {key: value for key, value in plain.model_dump(mode="json").items()
              if key not in ("path", "as_", "prefix_tokens", "group_range")}  # fmt: skip
    text = "\n".join(["files", json.dumps(fields, sort_keys=True), f"reviews.jsonl {digest_file(reviews)}"])
    assert plain.fingerprint() == blake2b(text.encode(), digest_size=16).hexdigest()
    others = [Files(path=str(reviews), prefix_tokens=PrefixTokens()), Files(path=str(reviews), group_range=(0, 0.5))]
    assert len({plain.fingerprint(), *(one.fingerprint() for one in others)}) == 3
