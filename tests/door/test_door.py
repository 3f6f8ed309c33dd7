"""The door: whatever a file is, reading it is a value or one sentence with its name."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import time
from dataclasses import dataclass

import numpy as np
import pytest
from other_user import as_another_user, shared_folder
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from alignzoo.core.door import (
    BadFile,
    Child,
    MissingFile,
    in_child,
    in_children,
    inside,
    open_file,
    parse_json,
    read_bytes,
    read_json,
    read_json_lines,
    read_text,
    read_yaml,
    tensors,
    translate,
)
from alignzoo.core.errors import RunFailed, UserError


def refused(function, *args, kind=BadFile, **options):
    with pytest.raises(kind) as error:
        function(*args, **options)
    assert type(error.value) is kind
    return str(error.value)


# Files


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")  # opening one would wait for its writer
    with socket.socket(socket.AF_UNIX) as one:
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        one.bind("socket")
        for name, what in [("pipe", "a pipe"), ("socket", "a socket"), (".", "a folder")]:
            assert refused(open_file, tmp_path / name) == f"{tmp_path / name}: {what}; expected a file"
    assert refused(open_file, "/dev/zero") == "/dev/zero: a device; expected a file"
    (tmp_path / "link").symlink_to("/dev/zero")
    assert "a device" in refused(read_bytes, tmp_path / "link")
    assert refused(open_file, tmp_path / "no", kind=MissingFile) == f"{tmp_path / 'no'}: no such file"
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in refused(open_file, tmp_path / "loop")
    assert "too long" in refused(open_file, tmp_path / ("x" * 5000))
    assert "not the name" in refused(open_file, tmp_path / "a\0b")


def test_a_file_of_another_user_is_not_called_damaged():
    with shared_folder() as folder:
        (folder / "x").write_text("{}")
        (folder / "x").chmod(0)
        kind, said = as_another_user(lambda: read_json(folder / "x"))
    assert kind == "UnreadableFile"
    assert "permission denied" in said


def test_sizes_are_limited(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", 5) == b"12345"
    assert "5 bytes are too many; expected at most 4 bytes" in refused(read_bytes, tmp_path / "x", 4)
    (tmp_path / "x").write_bytes(b"ab\xff")
    assert "byte 2 is not UTF-8" in refused(read_text, tmp_path / "x")


def test_names_stay_inside(tmp_path):
    folder, secret = tmp_path / "model", tmp_path / "secret"
    (folder / "sub").mkdir(parents=True)
    secret.write_text("x")
    (folder / "sub" / "a").write_text("x")
    (folder / "out").symlink_to(secret)
    (folder / "sub" / "up").symlink_to("../..")
    (folder / "within").symlink_to("sub/a")
    assert inside(folder, "sub/a") == folder / "sub" / "a"
    assert inside(folder, "within").read_text() == "x"
    for name in ["../secret", str(secret), "sub/../../secret"]:
        assert "is outside of this folder" in refused(inside, folder, name)
    for name in ["out", "sub/up/secret"]:
        assert "a link out of its folder" in refused(inside, folder, name)
    assert inside(folder, "out", links_to=tmp_path) == folder / "out"
    assert "a folder; expected a file" in refused(inside, folder, "sub")
    for name in ["", 7, None, ["a"], "a\0b"]:
        assert "is not the name of a file" in refused(inside, folder, name)
    refused(inside, folder, "nothing", kind=MissingFile)
    (tmp_path / "other").symlink_to(folder)  # the folder itself may be reached by a link
    assert inside(tmp_path / "other", "sub/a").read_text() == "x"


# JSON


@dataclass
class Made:
    step: int
    loss: float = 0.0


def test_json_has_a_schema():
    assert parse_json('{"step": 3, "loss": 1}', "f", Made) == Made(3, 1.0)
    assert refused(parse_json, '{"step": "3"}', "f", Made) == "f: step: input should be a valid integer (got '3')"
    assert refused(parse_json, '{"loss": 1}', "f", Made) == "f: step: field required"
    assert "should be an object" in refused(parse_json, "[1]", "f", Made)
    assert parse_json('{"a": [1]}', "f", dict[str, list[int]]) == {"a": [1]}
    assert len(refused(parse_json, "[" + "null," * 1000 + "1]", "f", list[int]).splitlines()) == 5


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "1 2", "NaN", "Infinity", "[1e999]", "-1e999", "9" * 400 + ".0", "9" * 5000, "[" * 100 + "]" * 100,
     "[" * 100_000, '{"a":' * 61 + "1" + "}" * 61, '"\\ud800"', b"\xff", b'"\xff"', "\0"],
)  # fmt: skip
def test_json_that_is_none(text):
    assert refused(parse_json, text, "f").startswith("f: ")


def test_json_numbers_are_read_exactly():
    values = np.random.default_rng(0).standard_normal(2000) * 10.0 ** np.arange(-300, 300).repeat(4)[:2000]
    assert parse_json(json.dumps(values.tolist()), "f") == values.tolist()
    assert parse_json("[NaN, -Infinity]", "f", nan=True)[1] == -np.inf
    assert parse_json("[" * 60 + "]" * 60, "f") is not None


def test_lines_end_where_a_crash_cut_them(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": "\\u2028 \u2028"}\n{"a": 2}\n{"a":')
    assert [one["a"] for one in read_json_lines(path)] == ["\u2028 \u2028", 2]
    path.write_text('{"a": 1}\n{"a":\n{"a": 3}\n')
    assert refused(list, read_json_lines(path)).startswith(f"{path}:2: not JSON")
    path.write_text('{"step": 1}\n{"step": -1.5}\n')
    assert refused(list, read_json_lines(path, Made)).startswith(f"{path}:2: step: ")


def test_yaml_is_read_through_the_door(tmp_path):
    (tmp_path / "x").write_text("a: 1")
    assert read_yaml(tmp_path / "x").plain() == {"a": 1}
    assert "a device" in refused(read_yaml, "/dev/zero")


# Tensors


def safetensors_file(path, header, data=b"", size=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if size is None else size) + raw + data)
    return path


def one(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_tensors_are_those_of_safetensors(tmp_path):
    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(0, np.int64), "c": np.array(1, np.uint8)}
    save_file(arrays, tmp_path / "x", metadata={"format": "pt"})
    found = tensors(tmp_path / "x")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        "a": ("F32", (2, 3)), "b": ("I64", (0,)), "c": ("U8", ())
    }  # fmt: skip
    assert max(tensor.end for tensor in found.values()) == (tmp_path / "x").stat().st_size


@pytest.mark.parametrize(
    ("header", "options"),
    [
        (one(), {"size": 2**63}), (one(), {"size": 2**20}), (one(), {"size": 3}), (b"", {"size": 10**9}), ([], {}), (b"null", {}),
        (one("F33"), {}), (one(7), {}), (one(shape=[-2]), {}), (one(shape=3), {}), (one(shape=[2.0]), {}), (one(shape=[True, 2]), {}),
        (one(shape=[2**40, 2**40]), {}), (one(shape=[1] * 100_000), {}), (one(offsets=[0]), {}), (one(offsets=[8, 0]), {}),
        (one(offsets=[-8, 0]), {}), (one(offsets=[0, 2**61]), {}), (one(offsets=[4, 12]), {}), (one(shape=[3]), {}),
        ({"a": 7}, {}), ({"a": None}, {}), (one() | {"b": one()["a"]}, {}), (one() | {"__metadata__": {"x": 1}}, {}),
        (one() | {"__metadata__": 3}, {}), (b'{"a":' * 1000, {}),
        (one(shape=[1], offsets=[0, 4]), {}), (one(shape=[1], offsets=[4, 8]), {}),  # bytes of no tensor
    ],
)  # fmt: skip
def test_broken_headers(header, options, tmp_path):
    path = safetensors_file(tmp_path / "x", header, bytes(8), **options)
    assert refused(tensors, path).startswith(str(path))
    with pytest.raises((SafetensorError, KeyError, ValueError, TypeError)):
        load_file(path)


def test_truncated_tensors(tmp_path):
    save_file({"a": np.zeros(100, np.float32)}, tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()
    for size in (0, 7, 8, 30, len(whole) - 1):
        (tmp_path / "x").write_bytes(whole[:size])
        assert "truncated" in refused(tensors, tmp_path / "x") or size == 30


# What a library raises


class PanicException(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (KeyError("x"), "f: the config can't be read: KeyError: 'x'\n    write it again"),
        (PanicException("index out of bounds\nat"), "PanicException: index out of bounds"),
        (RecursionError("deep"), "nested too deeply"), (MemoryError(), "more memory than there is"),
        (OSError("Can't load"), "OSError: Can't load"), (ValueError("y" * 10_000), "y" * 300 + "..."),
        (ValueError(), "can't be read: ValueError"), (SystemError("\x1b[31mred"), "\\u001b[31mred"),
    ],
)  # fmt: skip
def test_what_a_library_raises_is_a_sentence(error, what):
    with pytest.raises(BadFile) as found, translate("f", "the config", "write it again"):
        raise error
    assert what in str(found.value)
    assert len(str(found.value)) < 500


@pytest.mark.parametrize("error", [UserError("u"), RunFailed("r"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_a_sentence_stays(error):
    with pytest.raises(type(error)) as found, translate("f"):
        raise error
    assert found.value is error


# Children


def hang():
    while True:
        pass


def take():
    return len([bytearray(10**8) for _ in range(20)])


def user_error():
    raise UserError("w", where="here", expected="e", nearest="n", hint="h")


def child_kinds(kind):
    return {
        "abort": os.abort, "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV), "exit": lambda: os._exit(7),
        "raise": lambda: {}["x"], "hang": hang, "sleep": lambda: time.sleep(60), "take": take, "user": user_error,
        "object": object,
    }[kind]()  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("abort", "the tokenizer can't be read: its parser ended with signal SIGABRT"), ("segv", "SIGSEGV"),
        ("exit", "exit code 7"), ("raise", "KeyError: 'x'"), ("hang", "took more than 1 s"), ("sleep", "took more than 0.1 s"),
        ("take", "more memory than there is"), ("user", "here: w; expected e; did you mean 'n'?\n    h"),
    ],
)  # fmt: skip
def test_a_child_ends_in_a_sentence(kind, what, capfd):
    before = time.monotonic()
    seconds = {"sleep": 0.1, "hang": 1}.get(kind, 5)
    kind_of_error = UserError if kind == "user" else BadFile
    said = refused(
        in_child, "f", child_kinds, kind, what="the tokenizer", seconds=seconds, memory=3 * 10**8, kind=kind_of_error
    )
    assert what in said
    assert time.monotonic() - before < 10
    assert capfd.readouterr() == ("", "")


def test_a_child_gives_its_value(capfd):
    assert in_child("f", lambda a, b: print("x") or {"sum": [a, b]}, 1, "\u2028" * 200_000) == {
        "sum": [1, "\u2028" * 200_000]
    }
    assert capfd.readouterr() == ("", "")
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY  # the limits are the child's
    assert in_child("f", lambda: b"\x00\n\xff" * 10**5) == b"\x00\n\xff" * 10**5
    assert in_child("f", lambda: b"") == b""


def test_children_answer_in_order_and_a_failure_ends_all(monkeypatch):
    started: list[Child] = []

    def start(i):
        started.append(Child("f", lambda: [time.sleep(0.01 * (i % 3)), 6 // i], seconds=5))
        return started[-1]

    for done, (item, (_, value)) in enumerate(in_children(range(1, 9), start, 3)):
        assert (item, value) == (done + 1, 6 // (done + 1))
        assert len(started) <= done + 3
    assert done == 7
    with pytest.raises(BadFile, match="ZeroDivisionError"):
        list(in_children([3, 0, 2, 1], start, 3))
    assert len(started) == 12
    assert not any(child.end() for child in started), "all are gone"


def test_signals_of_the_terminal_are_the_parents_matter():
    child = Child("f", lambda: [time.sleep(0.3), 1][1:], seconds=5)
    time.sleep(0.1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child._pid, number)
    assert child.value() == [1]


def test_a_child_that_waits_for_a_lock_of_the_fork_is_started_once_more(tmp_path):
    """A thread of the parent may hold a lock when it forks, and no thread of the child ever frees it."""
    first = tmp_path / "first"

    def parse(stuck):
        if stuck or not first.exists():
            first.touch()
            time.sleep(60)
        return 7

    assert in_child(tmp_path, parse, False, seconds=2) == 7  # a fork itself takes processor time, less than an eighth
    assert "took more than 2 s" in refused(in_child, tmp_path, parse, True, seconds=2)
