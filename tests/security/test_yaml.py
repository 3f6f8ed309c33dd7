"""A recipe is data: no tag makes an object, and no few lines of it take a machine's memory or time."""

from __future__ import annotations

import time

import pytest

from alignzoo.compare.spec import read_comparison
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.parse import MOST_BYTES, parse, read_file

LAUGHS = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))])


def refused(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(path)
    return str(error.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:os.system ['touch ran']", "!!python/object/new:os.system ['touch ran']",
     "!!python/name:os.system ''", "!!python/module:os ''", "!!python/object:os.stat_result {}",
     "!!python/tuple [1, 2]", "!mine x", "!!set {a}", "!!omap [a: 1]"],
)  # fmt: skip
def test_tags_make_nothing(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "not YAML" in refused(f"objective: {value}", tmp_path)
    with pytest.raises(UserError, match="command line: not YAML"):
        load_recipe("dpo_hh", [f"objective.beta={value}"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_aliases_of_aliases_are_counted(tmp_path):
    assert refused(LAUGHS, tmp_path) == "FILE: too many values; expected at most 20,000"
    with pytest.raises(UserError, match="too many values"):
        read_comparison(_write(tmp_path, "recipes: [a]\n" + LAUGHS))


def test_an_alias_of_itself_ends(tmp_path):
    assert "nested too deeply" in refused("model: &m {config: *m}", tmp_path)


def test_an_alias_that_is_used_twice_is_fine():
    assert parse("a: &x [1]\nb: *x", "f").plain() == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 50 + "]" * 50, "a: " + "[" * 5000, "a: " + "{x: " * 100 + "1" + "}" * 100]
)
def test_nesting_has_a_limit(text, tmp_path):
    assert "nested too deeply" in refused(text, tmp_path)


def test_so_has_an_override():
    with pytest.raises(UserError, match="names joined by dots"):
        load_recipe("dpo_hh", [".".join(["a"] * 3000) + "=1"])


@pytest.mark.parametrize(
    "number", ["9" * 5000, "1:" * 3000 + "1", "0x" + "f" * 9000, "1e999", ".inf", "-.nan", "1" + "0" * 400]
)
def test_numbers_without_end_are_errors(number, tmp_path):
    refused(f"extends: dpo_hh\nseed: {number}", tmp_path)
    refused(f"extends: dpo_hh\ntrain: {{epochs: {number}}}", tmp_path)


def test_a_long_number_is_read_in_linear_time():
    began = time.process_time()
    assert parse("a: " + "1" * 100_000 + "x", "x").plain() == {"a": "1" * 100_000 + "x"}
    assert parse("a: 1_0.5e-7", "x").plain() == {"a": 10.5e-7}
    assert time.process_time() - began < 5


def test_a_file_has_a_size(tmp_path):
    path = _write(tmp_path, "a: " + "x" * MOST_BYTES)
    with pytest.raises(UserError, match="are too many; expected at most 200,000 bytes"):
        read_file(path)


@pytest.mark.parametrize(
    ("value", "kind"), [("2020-01-01", "date"), ("!!binary aGk=", "bytes"), ("2020-01-01 10:00:00", "datetime")]
)
def test_what_is_neither_text_nor_a_number_is_an_error(value, kind, tmp_path):
    assert f"as a {kind}; expected quotation marks" in refused(f"extends: dpo_hh\nname: {value}", tmp_path)


def _write(folder, text):
    path = folder / "file.yaml"
    path.write_text(text)
    return path


def test_half_a_surrogate_is_named_at_its_line(tmp_path):
    """No file, digest or path takes it."""
    (tmp_path / "a.yaml").write_text('objective: dpo\ndata: {path: "x\\ud800"}\n')
    with pytest.raises(UserError, match=r"a\.yaml:2:14: 'x\\ud800' has half a surrogate"):
        read_file(tmp_path / "a.yaml")
