"""A cache that others share, fill and damage: commands list it, runs compute again what is wrong, and nobody loses anything."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from jobs import bytes_of, run_folder
from other_user import as_another_user, shared_folder
from safetensors.numpy import load_file, save_file

import alignzoo
from alignzoo.cli.app import alignzoo as cli
from alignzoo.core.artifacts import write_manifest
from alignzoo.core.door import BadFile, UnreadableFile
from alignzoo.core.errors import RunFailed
from alignzoo.core.files import temporary_path
from alignzoo.core.paths import ABOUT
from alignzoo.data.token_store import read_folder
from alignzoo.reference import cache as cache_module
from alignzoo.reference.cache import ReferenceCache, read_shard


def key(n: int) -> bytes:
    return n.to_bytes(16, "little")


def shard(folder: Path, **changes) -> Path:
    """A shard under its right name, with arrays of someone's own."""
    arrays = {"keys": np.frombuffer(key(1) + key(2), np.uint8).reshape(2, 16), "offsets": np.array([0, 2, 3]),
              "log_probs": np.array([-1, -2, -3], np.float32)}  # fmt: skip
    arrays |= {name: np.asarray(value) for name, value in changes.items() if value is not None}
    arrays = {name: value for name, value in arrays.items() if name not in changes or changes[name] is not None}
    own = [arrays.get(name, np.zeros(0, np.uint8)) for name in ("keys", "offsets", "log_probs")]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cache_module._digest(*own)}.safetensors"
    save_file(arrays, path)
    return path


def test_a_good_shard_is_read(tmp_path):
    assert read_shard(shard(tmp_path)).log_probs.tolist() == [-1, -2, -3]


BAD = {
    "past the end": {"offsets": [0, 2, 4]}, "far past the end": {"offsets": [0, 2, 2**40]}, "negative": {"offsets": [-1, 2, 3]},
    "falling": {"offsets": [0, 5, 3]}, "too few": {"offsets": [0, 3]}, "too many": {"offsets": [0, 1, 2, 3]}, "no offsets": {"offsets": None},
    "none at all": {"offsets": np.zeros(0, np.int64)}, "of a type": {"offsets": np.array([0, 2, 3], np.int32)},
    "nan": {"log_probs": np.array([-1, np.nan, 0], np.float32)}, "inf": {"log_probs": np.array([-1, np.inf, 0], np.float32)},
    "flat keys": {"keys": np.zeros(32, np.uint8)}, "short keys": {"keys": np.zeros((2, 8), np.uint8)},
    "a matrix": {"log_probs": np.zeros((3, 1), np.float32)}, "more": {"more": np.zeros(3)},
}  # fmt: skip


@pytest.mark.parametrize("changes", BAD.values(), ids=list(BAD))
def test_a_shard_with_arrays_of_its_own_is_damaged(tmp_path, changes):
    path = shard(tmp_path, **changes)
    with pytest.raises(BadFile, match=path.name):
        read_shard(path)
    cache = ReferenceCache(tmp_path)
    assert (len(cache), cache.damaged) == (0, [path])
    assert cache.find([key(1)]).tolist() == [-1]


def test_a_score_that_is_no_number_is_not_kept(tmp_path):
    cache = ReferenceCache(tmp_path)
    cache.add(key(1), np.array([-1.0, np.nan]))
    cache.add(key(2), np.array([-1.0]))
    with pytest.raises(RunFailed, match="log-probs of 1 of 2 sequences are not finite"):
        cache.flush()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A cache with one of everything that may be in it; returns the shard of another user, which is intact."""
    folder = tmp_path / "cache" / "reference" / "abc"
    good, foreign = shard(folder), shard(folder, log_probs=np.array([-4, -5, -6], np.float32))
    shard(folder, offsets=[0, 2, 9])
    (folder / "garbage.safetensors").write_text("garbage")
    (folder / "dangling.safetensors").symlink_to("nowhere")
    (folder / "device.safetensors").symlink_to("/dev/zero")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    (folder.parent / "dangling").symlink_to("nowhere")
    (folder.parent / "file").write_text("")
    temporary_path(folder / "x.safetensors").write_text("being written")
    tokens = tmp_path / "cache" / "tokens"
    (tokens / "aa").mkdir(parents=True)
    (tokens / "bb").symlink_to("nowhere")
    (tokens / "cc").write_text("a file")
    (tokens / "dd").mkdir()
    (tokens / "dd" / ABOUT).write_text("[]")
    (tokens / "ee").mkdir()
    (tokens / "ee" / ABOUT).symlink_to("/dev/zero")
    whole = cache_module.mmap_safetensors

    def of_a_user(path):
        if path == foreign:
            raise UnreadableFile("can't be read: permission denied", where=str(path))
        return whole(path)

    monkeypatch.setattr(cache_module, "mmap_safetensors", of_a_user)
    return good, foreign


def test_commands_take_a_cache_as_it_is(odd):
    good, foreign = odd
    for words in (["ls"], ["ls", "--json"], ["verify"], ["verify", "--json"], ["prune", "--dry-run"]):
        done = CliRunner().invoke(cli, ["cache", *words])
        assert done.exit_code == (words[0] == "verify"), (words, done.exception)
    found = json.loads(CliRunner().invoke(cli, ["cache", "verify", "--json"]).stdout)
    assert (found["intact"], found["tokens"], found["unreadable"]) == (1, 0, [str(foreign)])
    assert {Path(path).name for path in found["damaged"]} >= {
        "garbage.safetensors",
        "aa",
        "bb",
        "cc",
        "dd",
        "ee",
        "pipe.safetensors",
    }
    temporary = [path for path in good.parent.iterdir() if path.suffix == ".tmp"]
    done = CliRunner().invoke(cli, ["cache", "prune"])
    assert done.exit_code == 0, done.exception
    assert good.exists()
    assert foreign.exists()
    assert temporary[0].exists()
    assert not (good.parent / "garbage.safetensors").exists()
    cache = ReferenceCache(good.parent)
    assert (len(cache), cache.unreadable) == (2, [foreign])
    done = CliRunner().invoke(cli, ["cache", "prune", "--all"])
    assert done.exit_code == 0, done.exception
    assert not good.exists()


def test_a_shard_of_another_user_stays_where_it_is():
    with shared_folder() as folder:
        own, foreign = shard(folder), shard(folder, log_probs=np.array([-4, -5, -6], np.float32))
        own.chmod(0o644)
        foreign.chmod(0)

        def found():
            cache = ReferenceCache(folder)
            return [len(cache), list(map(str, cache.unreadable)), list(map(str, cache.damaged))]

        assert as_another_user(found) == [2, [str(foreign)], []]
        assert sorted(folder.iterdir()) == sorted([own, foreign])


def test_files_that_vanish_meanwhile_are_no_error(odd, monkeypatch):
    """Another process renames its temporary file right when it is looked at."""

    def vanished(path, *_, **__):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "lstat", vanished)
    for words in (["ls"], ["verify"], ["prune"]):
        assert not isinstance(CliRunner().invoke(cli, ["cache", *words]).exception, OSError)


@pytest.fixture
def tokens(finished, tmp_path):
    """The folder of the token store of a finished run, in this test's own copy."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (folder,) = (path for path in (tmp_path / "cache" / "tokens").iterdir() if not path.name.startswith("."))
    return folder


def altered(folder: Path, **arrays) -> None:
    """Arrays of someone's own, under digests that are right."""
    name = folder / "held_out.safetensors"
    found = load_file(name)
    for array, change in arrays.items():
        found[array] = change(found[array].copy())
    save_file({array: value for array, value in found.items() if value is not None}, name)
    about = json.loads((folder / ABOUT).read_text())
    (folder / ABOUT).unlink()
    write_manifest(folder, {part: about[part] for part in ("mismatched", "report")})


def put(index, value):
    def change(array):
        array[index] = value
        return array

    return change


TOKENS = {
    "segment past the end": {"segments": put(-1, 10**9)}, "segment before the beginning": {"segments": put(0, -1)},
    "falling segments": {"segments": put(3, 0)}, "tree past the end": {"trees": put(-1, 10**9)}, "falling trees": {"trees": put(2, 0)},
    "a span past the end": {"spans": put(1, (0, 10**6))}, "an empty span": {"spans": put(1, (5, 5))},
    "a span of a prompt": {"span_cuts": put(1, 1)}, "negative id": {"tokens": put(0, -1)}, "no tokens": {"tokens": lambda _: None},
    "ids past the end": {"id_cuts": put(-1, 10**9)}, "rows past the end": {"row_cuts": put(-1, 10**9)}, "rows of another type":
    {"row_cuts": lambda array: array.astype(np.int32)}, "short keys": {"keys": lambda array: array[:1]},
}  # fmt: skip


@pytest.mark.parametrize("changes", TOKENS.values(), ids=list(TOKENS))
def test_tokens_with_indices_out_of_range_are_damaged(tokens, changes):
    read_folder(tokens)
    altered(tokens, **changes)
    with pytest.raises(BadFile, match="damaged"):
        read_folder(tokens)
    done = CliRunner().invoke(cli, ["cache", "verify"])
    assert done.exit_code == 1
    assert f"damaged: {tokens}" in done.stdout


@pytest.mark.slow
def test_a_run_makes_again_what_is_damaged(tokens, tmp_path, capsys):
    """Token ids of no tokenizer, and a reference with offsets of no shard."""
    folder = run_folder(tmp_path)
    want = bytes_of(folder)
    altered(tokens, tokens=put(5, 10**6))
    for path in (tmp_path / "cache" / "reference").rglob("*.safetensors"):
        path.unlink()
    (reference,) = (tmp_path / "cache" / "reference").iterdir()
    bad = shard(reference, offsets=[0, 2, 4])
    shutil.rmtree(folder)
    alignzoo.run("recipes/dpo_hh.yaml", overlays=["tests/smallest.yaml"], quiet=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "a token id is not the tokenizer's; set aside, its rows are tokenized again" in said
    assert f"{bad.name} is damaged" in said
    assert bytes_of(folder) == want


def test_a_stored_row_that_is_none_is_a_sentence(tokens):
    rows = tokens / "held_out.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b'"id"', b'"xx"', 1))
    altered(tokens)
    with pytest.raises(BadFile, match=r"held_out\.jsonl: a row can't be read: KeyError"):
        list(read_folder(tokens)[2].rows)
