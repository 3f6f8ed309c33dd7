"""Data files and saved datasets that are broken, bombs or odd: one sentence with the file's name, and no crash."""

from __future__ import annotations

import gzip
import json
import os
import time

import numpy as np
import pytest

from alignzoo.core import console, errors
from alignzoo.core.errors import UserError
from alignzoo.data.sources.files import Files
from alignzoo.data.sources.folders import walk
from alignzoo.data.sources.json_stream import LONGEST_VALUE, PIECE
from alignzoo.data.sources.readers import find_files, read_records
from alignzoo.data.splits import MOST_CHARACTERS, read_rows

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
PAIRS = [PAIR | {"prompt": f"p{n}"} for n in range(8)]


@pytest.fixture
def saved(tmp_path):
    """A folder as `datasets` saves one, with a date in each row."""
    pyarrow = pytest.importorskip("pyarrow")
    folder = tmp_path / "saved"
    folder.mkdir()
    table = pyarrow.Table.from_pylist(PAIRS).append_column("day", pyarrow.array(range(8), pyarrow.timestamp("s")))
    with pyarrow.OSFile(str(folder / "data.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text("3")  # nothing of it is needed
    return folder


def rows_of(path):
    return list(Files(path=str(path)).read("train"))


def test_a_saved_dataset_needs_its_state_and_its_tables_alone(saved):
    assert [row.id for row in rows_of(saved)] == [f"train:{n + 1}" for n in range(8)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("state.json", {"_data_files": [{"filename": "none.arrow"}]}, "none.arrow: no such file"),
        ("state.json", {"_data_files": [{"filename": "../saved/data.arrow"}]}, "outside of this folder"),
        ("state.json", {"_data_files": [{"filename": 3}]}, "3 is not the name of a file"),
        ("state.json", {"_data_files": [3]}, "state.json: no list of tables"),
        ("state.json", [], "state.json: no list of tables"),
        ("dataset_dict.json", {"splits": 3}, "dataset_dict.json: no list of splits"),
        ("dataset_dict.json", {"splits": ["../saved"]}, "'../saved' is not the name of a split"),
        ("dataset_dict.json", {"splits": ["train"]}, "train/state.json: no such file"),
        ("data.arrow", "nothing", "data.arrow: not a table of a saved dataset"),
    ],
)
def test_a_damaged_saved_dataset_is_one_sentence(saved, name, content, words):
    (saved / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        rows_of(saved)
    assert words in str(error.value)


@pytest.mark.slow
def test_changed_bytes_of_a_table_never_end_the_process(saved):
    """Each change is read or refused; offsets out of range end the process without validation."""
    whole = (saved / "data.arrow").read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        at = int(rng.integers(0, len(whole) - 4)) // 4 * 4
        word = rng.choice([2**31 - 1, 2**32 - 1, 2**20, 0]).astype("<u4").tobytes()
        (saved / "data.arrow").write_bytes(whole[:at] + word + whole[at + 4 :])
        try:
            rows_of(saved)
        except UserError as error:
            refused += 1
            assert str(saved) in str(error)
    assert refused > 10


def test_a_date_that_python_has_not_is_named_with_its_row(saved):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    days = pyarrow.array([0] * 5 + [2**40, 0, 0], pyarrow.timestamp("s"))
    table = pyarrow.Table.from_pylist(PAIRS).append_column("day", days)
    parquet.write_table(table, saved.parent / "dates.parquet", coerce_timestamps=None, version="2.6", store_schema=True)
    with pytest.raises(UserError, match=r"dates\.parquet: row 6: a value can't be read"):
        rows_of(saved.parent / "dates.parquet")


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.json.gz", "bomb.csv.gz"])
def test_a_line_over_the_limit_is_refused_in_seconds(tmp_path, name):
    begin = {"bomb.csv.gz": b"prompt,chosen\n", "bomb.json.gz": b"["}.get(name, json.dumps(PAIR).encode() + b"\n")
    (tmp_path / name).write_bytes(gzip.compress(begin + b'{"prompt": "' + b"a" * (3 * LONGEST_VALUE), 1))
    began = time.process_time()
    with pytest.raises(UserError, match=f"{name}:.*: a line or a value of more than 64 MB"):
        list(read_records(tmp_path / name))
    assert time.process_time() - began < 5


def test_a_row_over_the_limit_is_left_out_and_counted(tmp_path):
    rows = [*PAIRS, PAIR | {"prompt": "long", "chosen": "x" * (MOST_CHARACTERS + 1)}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_rows(Files(path=str(tmp_path / "a.jsonl")))
    assert found.read == 9
    assert [one.reason for one in found.skipped] == [f"over {MOST_CHARACTERS:,} characters"]


def test_half_a_surrogate_in_a_text_leaves_the_row_out_and_in_an_id_is_written_out(tmp_path):
    from alignzoo.data.formats.records import Records

    rows = [row | {"uid": f"u{n}"} for n, row in enumerate(PAIRS)]
    rows[2]["chosen"], rows[4]["uid"] = "x \ud83d", "\ud800z"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_rows(Files(path=str(tmp_path / "a.jsonl"), format=Records(id="uid")))
    assert [(one.id, one.reason) for one in found.skipped] == [("u2", "not valid Unicode")]
    assert "\\ud800z" in [row.id for row in (*found.train, *found.held_out)]


def test_a_record_of_a_million_columns_is_a_sentence(tmp_path, monkeypatch):
    """Each column was compared with each usual name: hours. The number of comparisons does not grow with the columns."""
    compared = []
    distance = errors._distance
    monkeypatch.setattr(errors, "_distance", lambda *words: compared.append(1) or distance(*words))
    many = {f"c{n}": "1" for n in range(20_000)}
    (tmp_path / "x.jsonl").write_text(json.dumps(many))
    with pytest.raises(UserError, match="and 19980 more are no row"):
        rows_of(tmp_path / "x.jsonl")
    assert len(compared) <= 50 * errors.MOST_WORDS


@pytest.mark.parametrize("size", [3, 50, PIECE // 100])
def test_an_array_is_read_in_pieces(tmp_path, size):
    """Every piece ends somewhere else in a value; the records are those of `json`."""
    rows = [{"n": n, "text": 'ä"\\\n🙂' * (n % 7), "x": [1.5e300, -n, None, True]} for n in range(size)]
    for name, text in {"a.json": json.dumps(rows, ensure_ascii=False), "b.json": json.dumps(rows, indent=1),
                       "c.json": "\n".join(json.dumps(row, indent=1) for row in rows)}.items():  # fmt: skip
        (tmp_path / name).write_text(text)
        assert [record for _, record in read_records(tmp_path / name)] == rows


@pytest.mark.slow
def test_a_record_of_many_lines_over_the_limit_is_refused(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b'prompt,chosen,rejected\n"' + b"\n" * (LONGEST_VALUE + 1) + b'",a,b\n', mtime=0))
    with pytest.raises(UserError, match=r"x\.csv\.gz:\d+"):
        next(iter(read_records(path)))


def test_a_file_of_wide_characters_has_a_size(tmp_path, monkeypatch):
    from alignzoo.data.sources import readers

    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(PAIR).encode("utf-16"))
    assert [record for _, record in read_records(path)] == [PAIR]
    monkeypatch.setattr(readers, "LARGEST_WIDE", 10)
    with pytest.raises(UserError, match=r"x\.jsonl: more than 0 MB of UTF-16; expected UTF-8"):
        list(read_records(path))


def test_a_stream_that_claims_more_rows_than_its_bytes_hold_is_refused(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from alignzoo.data.sources import arrow_tables

    monkeypatch.setattr(arrow_tables, "FREE_ROWS", 10)
    table = pyarrow.table({"nothing": pyarrow.nulls(100_000)})
    path = tmp_path / "x.arrow"
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    with pytest.raises(UserError, match=r"x\.arrow: .*100,000 rows are more than its bytes can hold"):
        list(arrow_tables._of_stream(path))


def test_a_user_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"~nosuchuser/x\.jsonl: no such user"):
        find_files("~nosuchuser/x.jsonl")


def test_links_that_loop_end_and_are_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "a.jsonl").write_text("{}")
    (tmp_path / "data" / "sub" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "self").symlink_to(".")
    for path in (tmp_path / "data", tmp_path / "data" / "**" / "*.jsonl", tmp_path / "*" / "**"):
        assert [file.name for file in find_files(str(path))] == ["a.jsonl"]
    assert "sub/up is a link to a folder around it, and is left out" in capsys.readouterr().err


def test_links_that_multiply_are_refused(tmp_path, monkeypatch):
    from alignzoo.data.sources import folders

    monkeypatch.setattr(folders, "MOST_FOLDERS", 100)
    for level in range(20):
        (tmp_path / str(level)).mkdir()
        for name in "ab":
            os.symlink(f"../{level + 1}", tmp_path / str(level) / name)
    (tmp_path / "20").mkdir()
    with pytest.raises(UserError, match="more than 100 folders: links lead in circles"):
        list(walk(tmp_path / "0"))
