"""A recipe that is made to take an hour is refused in seconds, in one sentence or a few."""

from __future__ import annotations

import os
import time

import pytest

from alignzoo.compare.plan import make_plan
from alignzoo.compare.spec import Comparison
from alignzoo.core.errors import MOST_PROBLEMS, UserError, nearest
from alignzoo.recipe.load import MOST_RUNS, load_recipe
from alignzoo.recipe.merge import MOST_BASES, MOST_FILES
from alignzoo.registry import loading


@pytest.fixture
def refused(tmp_path):
    """`refused(first, {name: text})`: write recipes, load the first, and return what is said, in less than 10 s."""

    def check(first: str, files: dict[str, str]) -> str:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        began = time.process_time()
        with pytest.raises(UserError) as error:
            load_recipe(tmp_path / first)
        assert time.process_time() - began < 10
        assert len(str(error.value)) < 30_000
        return str(error.value)

    return check


def one(text: str) -> dict[str, str]:
    return {"a.yaml": f"extends: dpo_hh\n{text}\n"}


def test_a_key_as_long_as_a_book(refused):
    assert "bytes are too many" in refused("a.yaml", one(f"{'k' * 900_000}: 1"))
    assert "no such field" in refused("a.yaml", one(f"train:\n  ? {'epoch' * 9000}\n  : 1"))
    assert "no metric is called" in refused("a.yaml", one(f"eval: {{metrics: [{'entropy' * 9000}]}}"))
    assert "file name too long" in refused("a.yaml", {"a.yaml": f"extends: {'x' * 200}/{'y' * 90_000}"})


def test_a_word_far_from_all_others_costs_nothing():
    began = time.process_time()
    assert nearest("k" * 10**6, ["epochs"]) == ""
    assert nearest("epohcs", ["k" * 10**6, "epochs"]) == "epochs"
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("section", ["", "train", "eval"])
def test_more_unknown_keys_than_anyone_reads(refused, section):
    keys = "".join(f"{'  ' if section else ''}epoch{n}: 1\n" for n in range(7_000))
    said = refused("a.yaml", one(f"{section}:\n{keys}" if section else keys))
    assert "no such field" in said
    assert len(said.splitlines()) <= MOST_PROBLEMS + 1
    assert said.endswith(f"and {7_000 - MOST_PROBLEMS:,} more problems like these")
    assert "too many" in refused("a.yaml", one("".join(f"k{n}: 1\n" for n in range(100_000))))


def test_extends_that_fans_out(refused):
    every = "extends: [" + ", ".join("b.yaml" for _ in range(60)) + "]"
    files = {
        "a.yaml": every,
        "b.yaml": every.replace("b.y", "c.y"),
        "c.yaml": every.replace("b.y", "d.y"),
        "d.yaml": "seed: 1",
    }
    assert f"extends too many others; expected at most {MOST_FILES} files" in refused("a.yaml", files)


def test_extends_in_a_long_row(refused):
    files = {f"r{n}.yaml": f"extends: r{n + 1}.yaml" for n in range(1500)}
    assert f"extends too many others; expected at most {MOST_BASES} in a row" in refused("r0.yaml", files)


def test_runs_in_a_long_row(refused):
    files = {f"r{n}.yaml": f"extends: dpo_hh\nmodel: {{from: r{n + 1}.yaml}}" for n in range(40)}
    assert f"needs too many runs, each of which needs the next; expected at most {MOST_RUNS}" in refused(
        "r0.yaml", files
    )


def test_a_comparison_has_a_number_of_runs():
    recipe = "dpo_hh"
    betas = {f"k{key}": tuple(range(50)) for key in range(30)}
    for asked, what in (
        ({"seeds": 10**12}, "grid, seeds: the comparison has too many runs"),
        ({"grid": {"objective.beta": tuple(range(1, 5000))}}, "grid, seeds: the comparison has too many runs"),
        ({"rows": betas}, "rows: the comparison has too many rows"),
    ):
        with pytest.raises(UserError, match=what):
            make_plan(Comparison(recipes=(recipe,), **asked))


PLUGIN = """
import time
{code}
from alignzoo import Metric, hookimpl

@hookimpl
def register_metrics():
    {hook}
    return []
"""


@pytest.mark.parametrize(
    ("code", "hook"),
    [("time.sleep(60)", "pass"), ("while True: pass", "pass"), ("", "time.sleep(60)"),
     ("while True:\n    try: time.sleep(60)\n    except Exception: break\ntime.sleep(60)", "pass")],
)  # fmt: skip
def test_a_plugin_that_hangs(refused, code, hook, monkeypatch):
    monkeypatch.setattr(loading, "IMPORT_SECONDS", 0.2)
    began = time.monotonic()
    files = one("plugins: [./hangs.py]") | {"hangs.py": PLUGIN.format(code=code, hook=hook)}
    assert "it took more than 0.2 s" in refused("a.yaml", files)
    assert time.monotonic() - began < 10


def test_a_plugin_file_has_a_size(refused, monkeypatch):
    monkeypatch.setattr(loading, "SOURCE_BYTES", 1_000)
    files = one("plugins: [./long.py]") | {"long.py": PLUGIN.format(code="#" * 1_000, hook="pass")}
    assert "bytes are too many; expected at most 1,000 bytes" in refused("a.yaml", files)


def test_the_digested_bytes_of_a_plugin_are_those_that_run(tmp_path, monkeypatch, capsys):
    """The file is swapped right after it was read."""
    good, bad = PLUGIN.format(code="", hook="pass"), f"open({str(tmp_path / 'ran')!r}, 'w')"
    path = tmp_path / "plugin.py"
    path.write_text(good)
    whole = loading.read_bytes

    def swapped(*arguments):
        data = whole(*arguments)
        path.write_text(bad)
        return data

    monkeypatch.setattr(loading, "read_bytes", swapped)
    assert loading.load_file(path) == []
    assert loading.digest_bytes(good.encode()) in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_module_beside_a_plugin_may_not_change_meanwhile(tmp_path):
    (tmp_path / "beside_it.py").write_text("VALUE = 1")
    code = f"import beside_it\nopen({str(tmp_path / 'beside_it.py')!r}, 'a').write('#')"
    (tmp_path / "plugin.py").write_text(
        "import sys; sys.path.insert(0, __file__.rpartition('/')[0])\n" + PLUGIN.format(code=code, hook="pass")
    )
    with pytest.raises(UserError, match="a module beside it changed while it was imported"):
        loading.load_file(tmp_path / "plugin.py")


@pytest.mark.parametrize("name", ["pipe.py", "folder.py", "device.py"])
def test_a_plugin_that_is_no_file(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "device.py").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=name):
        loading.load_file(tmp_path / name)
