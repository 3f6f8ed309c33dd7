from __future__ import annotations

import gzip
import json
import sys

import pytest
from other_user import as_another_user, shared_folder

from alignzoo.core.errors import UserError
from alignzoo.data.sources.files import Files
from alignzoo.data.sources.hub import without_nulls
from alignzoo.data.sources.named_splits import split_in_path
from alignzoo.data.sources.readers import find_files, read_records
from alignzoo.interfaces.rows import Row


def records(path) -> list[dict]:
    return [record for _, record in read_records(find_files(path)[0])]


ROWS = [{"prompt": "p", "chosen": 'ä\n"x"', "rejected": "b,c"}, {"prompt": "q", "chosen": "d", "rejected": "e"}]
CSV = 'prompt,chosen,rejected\np,"ä\n""x""","b,c"\nq,d,e\n'.encode()


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()),
        ("a.jsonl.gz", gzip.compress("\n\n".join(json.dumps(row) for row in ROWS).encode(), mtime=0)),
        ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("a.csv", CSV),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)),
        ("a.tsv", CSV.replace(b'"b,c"', b"b;c").replace(b",", b"\t").replace(b";", b",")),
        ("bom.csv", b"\xef\xbb\xbf" + CSV),
        ("bom.jsonl", b"\xef\xbb\xbf" + "\n".join(json.dumps(row) for row in ROWS).encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_format_gives_the_same_records(write, name, raw):
    assert records(write(name, raw)) == ROWS


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("lines.json", LINES),
        ("array.jsonl", json.dumps(ROWS).encode()),
        ("array.jsonl", b"\n\n" + json.dumps(ROWS, indent=2).encode()),
        ("pretty.jsonl", b"\n".join(json.dumps(row, indent=2).encode() for row in ROWS)),
        ("wrapped.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("wrapped.jsonl", json.dumps({"data": ROWS}, indent=4).encode()),
        ("crlf.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("utf16.jsonl", LINES.decode().encode("utf-16")),
        ("utf16.csv", CSV.decode().encode("utf-16")),
        ("utf32.json", json.dumps(ROWS).encode("utf-32")),
        ("crlf.csv", b'prompt,chosen,rejected\r\np,"\xc3\xa4\n""x""","b,c"\r\nq,d,e\r\n'),
        ("quotes.tsv", b'prompt\tchosen\trejected\np\t"\xc3\xa4\n""x"""\tb,c\nq\td\te\n'),
    ],
)
def test_the_content_says_how_a_file_is_read(write, name, raw):
    assert records(write(name, raw)) == ROWS


def test_one_object_is_one_record_however_it_is_written(write):
    row = {"prompt": "p", "data": ["x"]}
    assert records(write("a.json", json.dumps(row).encode())) == [row]
    assert records(write("b.json", json.dumps(row, indent=1).encode())) == [row]


def test_a_field_of_csv_may_be_long(write):
    long = "x" * 131_073
    assert records(write("a.csv", f"a,b\n{long},1\n".encode())) == [{"a": long, "b": "1"}]


def test_zstandard(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "a.jsonl.zst"
    for part in (LINES[:40], LINES[40:]):  # two frames, as `zstd a b` and `cat` leave them
        with open(path, "ab") as file:
            file.write(pyarrow.compress(part, codec="zstd", asbytes=True))
    assert records(str(path)) == ROWS


def test_parquet_with_json_columns_is_what_datasets_reads(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [
        {"chosen": [{"role": "user", "content": "plain"}], "meta": {"a": "1"}, "whole": [1, {"b": None}]},
        {"chosen": [{"role": "user", "content": [{"type": "text", "text": "ä"}]}, {"role": "x", "content": None}],
         "meta": {"a": 2.5}, "whole": "text"},
        {"chosen": None, "meta": None, "whole": None},
    ]  # fmt: skip
    json_type = datasets.Json()
    features = datasets.Features(
        {"chosen": datasets.List({"role": datasets.Value("string"), "content": json_type}),
         "meta": {"a": json_type}, "whole": json_type}
    )  # fmt: skip
    path = str(tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    theirs = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    assert records(path) == [without_nulls(record) | {"whole": record["whole"]} for record in theirs]
    assert records(path)[0]["whole"] == [1, {"b": None}], "a null that JSON text holds is a value"
    assert records(path)[1]["chosen"] == [{"role": "user", "content": [{"type": "text", "text": "ä"}]}, {"role": "x"}]


CALLS = [{"type": "function", "function": {"name": name, "arguments": own}}
         for name, own in (("sea", {"at": "a"}), ("sky", {"by": 1}))]  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "sea", "parameters": {"properties": {"at": {"enum": ["a"]}}}}},
         {"type": "function", "function": {"name": "sky", "parameters": {"properties": {"by": {"type": "x"}}}}}]  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_keys_that_arrow_has_filled_in_do_not_reach_a_template(tmp_path, kind):
    """Arrow gives every call the arguments of all calls, and every schema the keys of all schemas."""
    datasets = pytest.importorskip("datasets")
    chat = [
        {"role": "user", "content": "q", "tool_calls": None},
        {"role": "assistant", "content": "", "tool_calls": CALLS},
    ]
    data = datasets.Dataset.from_list([{"messages": chat, "tools": TOOLS, "answer": {"x": 1}}, {"answer": {"y": 2}}])
    assert data[0]["tools"][0]["function"]["parameters"]["properties"]["by"] is None
    path = str(tmp_path / ("a.parquet" if kind == "parquet" else "saved"))
    data.to_parquet(path) if kind == "parquet" else data.save_to_disk(path)
    (row,) = (row for row in Files(path=path).read("train") if isinstance(row, Row))
    assert row.completions[0].text[0]["tool_calls"] == CALLS
    assert list(row.tools) == TOOLS
    assert row.extra == {"answer": {"x": 1}}
    assert without_nulls(data[0])["tools"] == TOOLS


def test_json_columns_that_hold_no_json_are_an_error(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.ExtensionArray.from_storage(pyarrow.json_(), pyarrow.array(['"a"', "{"]))
    parquet.write_table(pyarrow.table({"x": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: row 2: x: invalid JSON: .*; expected JSON text"):
        records(str(tmp_path / "a.parquet"))


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert records(str(tmp_path / "a.parquet")) == ROWS


def test_lines_are_numbered_as_an_editor_numbers_them(write):
    path = write("a.jsonl", b'{"a": 1}\n\n{"a": 2}\n')
    assert list(read_records(find_files(path)[0])) == [(1, {"a": 1}), (3, {"a": 2})]


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl:2: not JSON: Expecting value at column 7; expected JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl:2: the line is a list; expected a JSON object"),
        ("a.jsonl", b"[1]\n", "a.jsonl: item 1 is a number; expected a JSON object"),
        ("a.jsonl", b'{"a": \n{"a": 1}\n', "a.jsonl:3: not JSON"),
        ("a.json", b'{"a": 1,\n "b" 2}', "a.json:2: not JSON: Expecting ':' delimiter at column 6"),
        ("a.jsonl", b'{"a": 1}\r{"a": 2}', "a.jsonl:1: not JSON: Extra data"),
        ("a.jsonl", b"\xff\xfe{", "a.jsonl: byte 2 is not UTF-16"),
        ("a.csv", b"a,b,a\n1,2,3\n", "a.csv:1: two columns are called 'a'"),
        ("a.jsonl.zst", b"plain text", "a.jsonl.zst: the file can't be read: ZSTD"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "a.jsonl:2: byte 7 is not UTF-8"),
        ("a.jsonl", b"", "a.jsonl: the file is empty"),
        ("a.json", b'[\n{"a": 1},\n{"a" 2}\n]', "a.json:3: not JSON: Expecting ':' delimiter at column 6"),
        ("a.jsonl", b"[" * 10**6, "a.jsonl: invalid JSON: maximum recursion depth"),
        ("a.jsonl", b"1" * 10**4, "a.jsonl:1: invalid JSON: Exceeds the limit"),
        ("a.json", b"[1]", "a.json: item 1 is a number; expected a JSON object"),
        ("a.csv", b"a,b\n1,2\n1\n", "a.csv:3: the line and the header have different numbers of fields"),
        ("a.csv", b"a,b\n1,2,3\n", "a.csv:2: the line and the header have different numbers of fields"),
        ("a.csv", b'a,b\n"1,2\n', "a.csv:2: not CSV: unexpected end of data"),
        ("a.jsonl.gz", b"plain text", "a.jsonl.gz: the gzip data is broken: Not a gzipped file"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9],
            "a.jsonl.gz: the gzip data is broken: Compressed file end",
        ),
        ("a.txt", b"x", "a.txt: unknown file type; expected .jsonl, .json, .csv"),
        ("a.parquet", b"x", "a.parquet: not a Parquet file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_an_error_with_file_and_line(write, name, raw, message):
    with pytest.raises(UserError) as error:
        records(write(name, raw))
    assert message in str(error.value)


def test_a_broken_gzip_checksum_is_noticed(write):
    raw = bytearray(gzip.compress(b'{"a": 1}\n' * 99))
    raw[-8] ^= 1
    with pytest.raises(UserError, match="the gzip data is broken: CRC"):
        records(write("a.jsonl.gz", bytes(raw)))


def test_a_file_that_may_not_be_read():
    with shared_folder() as folder:
        (folder / "a.jsonl").write_text("{}")
        (folder / "a.jsonl").chmod(0)
        kind, said = as_another_user(lambda: records(str(folder / "a.jsonl")))
    assert kind in ("UserError", "UnreadableFile")
    assert "can't be read: permission denied" in said.lower()


def test_without_pyarrow_the_error_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        UserError, match=r"Parquet files requires the package pyarrow\n *pip install 'alignzoo\[data\]'"
    ):
        records(write("a.parquet", b"x"))


def test_a_folder_gives_its_data_files_sorted_and_no_hidden_ones(write, tmp_path):
    for name in ("b/test.jsonl.gz", "b/train.jsonl", "a.csv", "README.md", ".cache/x.jsonl", "b/.x.jsonl"):
        write(name, b"{}")
    assert [file.relative_to(tmp_path).as_posix() for file in find_files(str(tmp_path))] == [
        "a.csv", "b/test.jsonl.gz", "b/train.jsonl",
    ]  # fmt: skip


def test_a_pattern_gives_files_and_what_is_in_folders(write, tmp_path):
    for name in ("hh_b.jsonl", "hh_a.jsonl", "other.jsonl", "hh_c/x.jsonl", "hh_notes.md"):
        write(name, b"{}")
    found = find_files(str(tmp_path / "hh_*"))
    assert [file.relative_to(tmp_path).as_posix() for file in found] == ["hh_a.jsonl", "hh_b.jsonl", "hh_c/x.jsonl"]


def test_a_list_keeps_its_order(write):
    second, first = write("b.jsonl", b"{}"), write("a.jsonl", b"{}")
    assert [str(file) for file in find_files([second, first])] == [second, first]


def test_nothing_there(write, tmp_path):
    write("train.jsonl", b"{}")
    with pytest.raises(UserError, match=r"tran\.jsonl: no such file or folder; did you mean 'train\.jsonl'\?"):
        find_files(str(tmp_path / "tran.jsonl"))
    with pytest.raises(UserError, match="no such file or folder"):
        find_files(str(tmp_path / "nowhere" / "*.jsonl"))
    write("empty/README.md", b"x")
    with pytest.raises(UserError, match="no data file in this folder; expected"):
        find_files(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="no data file matches this pattern"):
        find_files(str(tmp_path / "emp*"))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"), ("helpful-base/test.jsonl.gz", "test"), ("data/validation-00000.parquet", "test"),
        ("train/part.jsonl", "train"), ("train_prefs-00000-of-00001.parquet", "train_prefs"),
        ("data/test_sft.jsonl", "test_sft"), ("train_a.jsonl", "train"), ("latest.jsonl", ""), ("training.jsonl", ""),
        ("hh.jsonl", ""),
    ],
)  # fmt: skip
def test_a_name_says_its_split_by_whole_words(name, split):
    assert split_in_path(name) == split
