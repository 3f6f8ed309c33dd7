"""Folders with a manifest: a file that is dropped on purpose leaves the folder intact at every moment."""

from __future__ import annotations

import pytest

from alignzoo.core import artifacts
from alignzoo.core.artifacts import drop_files, read_verified, write_manifest


class Killed(BaseException):
    pass


@pytest.mark.parametrize("done", [0, 1, 2, None])
def test_a_process_that_is_killed_while_it_drops_files_leaves_the_folder_intact(tmp_path, monkeypatch, done):
    names = ["kept", "one", "two"]
    for name in names:
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, {"step": 3})
    removed, remove = [], artifacts.remove

    def until(path):
        if len(removed) == done:
            raise Killed
        removed.append(path.name)
        remove(path)

    monkeypatch.setattr(artifacts, "remove", until)
    try:
        drop_files(tmp_path, ("one", "two", "never there"))
    except Killed:
        assert done in (0, 1)
    about = read_verified(tmp_path)
    assert about is not None
    assert list(about["files"]) == ["kept"]
    assert about["step"] == 3
    (tmp_path / "three").write_text("a file that nothing has dropped")
    assert read_verified(tmp_path) is None


def test_files_are_dropped_one_after_the_other(tmp_path):
    for name in ("kept", "one", "two"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, {})
    for name in ("one", "two"):
        drop_files(tmp_path, (name,))
    assert sorted(read_verified(tmp_path)["files"]) == ["kept"]
    assert not (tmp_path / "one").exists()
    (tmp_path / "kept").write_text("changed")
    assert read_verified(tmp_path) is None
