from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hh_rows import hh_records
from pydantic import ValidationError

from alignzoo.core.errors import UserError
from alignzoo.data.sources import register_data_sources
from alignzoo.data.sources.hh import HH
from alignzoo.data.splits import read_rows
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.rows import Row


def ids(source: DataSource, split="train") -> list[str]:
    return [row.id for row in source.read(split)]


# --- HH


def test_hh_reads_a_file_and_names_rows_by_file_and_line(write):
    source = HH(path=write("hh.jsonl.gz", hh_records(3)))
    rows = list(source.read("train"))
    assert [row.id for row in rows] == ["hh.jsonl.gz:1", "hh.jsonl.gz:2", "hh.jsonl.gz:3"]
    assert rows[1].prompt == "\n\nHuman: question 1\n\nAssistant:"
    assert [c.text for c in rows[1].completions] == [" good 1", " bad 1"]
    assert source.splits() == ("train",)


def test_a_folder_with_train_and_test_files_has_its_own_splits(write, tmp_path):
    for part in ("helpful-base", "harmless-base"):
        write(f"hh/{part}/train.jsonl.gz", hh_records(3, part))
        write(f"hh/{part}/test.jsonl.gz", hh_records(2, part))
    source = HH(path=str(tmp_path / "hh"))
    assert source.splits() == ("train", "test")
    assert ids(source, "test") == [
        f"{part}/test.jsonl.gz:{i}" for part in ("harmless-base", "helpful-base") for i in (1, 2)
    ]
    rows = read_rows(source)
    assert (len(rows.train), len(rows.held_out), rows.held_out_from_train) == (6, 4, False)


def test_files_that_are_all_tests_train_only_where_the_recipe_says_so(write, tmp_path):
    for name in ("hh_a_test.jsonl", "hh_b_test.jsonl"):
        write(name, hh_records(20, name))
    assert HH(path=str(tmp_path / "hh_*_test.jsonl")).splits() == ("train",)
    with pytest.raises(UserError, match=r"every split is a test split; expected train_split: one of test"):
        ids(HH(path=str(tmp_path)))
    assert len(ids(HH(path=str(tmp_path), train_split="test"))) == 40


def test_a_test_file_beside_one_without_a_split_is_held_out(write, tmp_path):
    write("rows.jsonl", hh_records(3))
    write("test.jsonl", hh_records(2, "other"))
    source = HH(path=str(tmp_path))
    assert (ids(source, "train"), ids(source, "test")) == (
        ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3"], ["test.jsonl:1", "test.jsonl:2"],
    )  # fmt: skip


def test_files_below_linked_folders_are_read_and_a_loop_of_links_ends(write, tmp_path):
    write("far/rows.jsonl", hh_records(2))
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "loop").symlink_to(tmp_path / "near")
    assert ids(HH(path=str(tmp_path / "near"))) == ["linked/rows.jsonl:1", "linked/rows.jsonl:2"]


ULTRAFEEDBACK = ("train_prefs", "train_sft", "test_prefs", "test_sft", "train_gen", "test_gen")


@pytest.mark.parametrize("kinds", [{"pair"}, {"ranked"}, {"pair", "chosen"}, {"chosen"}])
def test_files_of_splits_for_each_way_to_train(write, tmp_path, kinds):
    for name in ULTRAFEEDBACK:
        write(f"data/{name}-00000-of-00001.jsonl", hh_records(2, name))
    purpose = "sft" if kinds == {"chosen"} else "prefs"
    source = HH(path=str(tmp_path)).serving(kinds)
    for split in ("train", "test"):
        file = f"data/{split}_{purpose}-00000-of-00001.jsonl"
        assert ids(source, split) == [f"{file}:1", f"{file}:2"]
    other = HH(path=str(tmp_path), train_split="train_gen").serving(kinds)
    assert ids(other, "test")[0].startswith("data/test_gen-")
    assert other.fingerprint() != source.fingerprint()
    with pytest.raises(UserError, match="the training split is ambiguous; expected train_split: one of test_gen"):
        ids(HH(path=str(tmp_path)).serving({"unpaired"}))


def test_a_list_of_a_train_and_a_test_file_has_both_splits(write):
    source = HH(path=[write("train.jsonl", hh_records(3)), write("test.jsonl", hh_records(2, "other"))])
    assert (ids(source, "train"), ids(source, "test")) == (
        ["train.jsonl:1", "train.jsonl:2", "train.jsonl:3"], ["test.jsonl:1", "test.jsonl:2"],
    )  # fmt: skip


def test_files_of_one_name_in_several_folders_keep_their_rows_apart(write, tmp_path):
    for part in ("a", "b"):
        write(f"{part}/hh.jsonl", hh_records(2, part))
    assert ids(HH(path=str(tmp_path / "*" / "hh.jsonl"))) == [
        "a/hh.jsonl:1",
        "a/hh.jsonl:2",
        "b/hh.jsonl:1",
        "b/hh.jsonl:2",
    ]


def test_a_file_that_is_named_twice_is_read_once(write, tmp_path):
    path = write("hh.jsonl", hh_records(2))
    assert ids(HH(path=[path, str(tmp_path)])) == ["hh.jsonl:1", "hh.jsonl:2"]


def test_hh_says_which_field_is_missing_and_where(write):
    path = write("hh.jsonl", [*hh_records(1), {"chosen": "x", "rejcted": "y"}])
    with pytest.raises(
        UserError, match=r"hh\.jsonl:2: no text field 'rejected'; expected .*; did you mean 'rejcted'\?"
    ):
        ids(HH(path=path))
    with pytest.raises(UserError, match=r"tt\.jsonl:1: no text field 'chosen'"):
        ids(HH(path=write("tt.jsonl", [{"chosen": 3, "rejected": "y"}])))


def test_the_sample_has_both_splits_and_reads_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = HH()
    assert source.path == "toy"
    assert source.splits() == ("train", "test")
    assert all(isinstance(row, Row) and row.completions[0].text.startswith(" ") for row in source.read("test"))


# --- fingerprints


def test_the_fingerprint_is_of_what_files_hold_and_not_of_where_they_are(write):
    one, same = write("one/hh.jsonl", hh_records(2)), write("two/hh.jsonl", hh_records(2))
    other, renamed = write("three/hh.jsonl", hh_records(3)), write("four/xx.jsonl", hh_records(2))
    assert HH(path=one).fingerprint() == HH(path=same).fingerprint()
    assert len({HH(path=path).fingerprint() for path in (one, other, renamed)}) == 3
    assert HH(path=one).fingerprint() != HH(path=one, label_noise=0.1).fingerprint() != HH().fingerprint()
    assert len(HH(path=one).fingerprint()) == 32


def test_a_file_that_changes_changes_the_fingerprint(write):
    path = write("hh.jsonl", hh_records(2))
    before = HH(path=path).fingerprint()
    write("hh.jsonl", hh_records(3))
    assert HH(path=path).fingerprint() != before


def test_a_source_of_nothing_but_fields_has_their_fingerprint():
    class Mine(DataSource):
        name = "mine"

    assert Mine().fingerprint() == Mine().fingerprint() != Mine(label_noise=0.5).fingerprint()


# --- the hook


def test_all_are_registered_and_described():
    classes = register_data_sources()
    assert [cls.name for cls in classes] == ["hh", "files", "hub", "imdb", "mix", "toy", "draws"]
    for cls in classes:
        assert cls.__doc__
        assert all(field.description for field in cls.model_fields.values())
        with pytest.raises(ValidationError):
            cls(path="x", pth="y")


def test_sources_need_neither_torch_nor_datasets():
    heavy = {"torch", "transformers", "datasets", "pyarrow"}
    code = f"import sys, alignzoo.data, alignzoo.data.sources; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "set()", done.stderr
