"""Files that a command is asked to write, and the numbers that replies are drawn with: refused before the work."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from alignzoo.cli import alignzoo
from alignzoo.compare.spec import Sampling
from alignzoo.core.errors import UserError
from alignzoo.core.files import check_output
from alignzoo.recipe.find import find_recipe
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.recipe.sampling import LEAST_TEMPERATURE, LEAST_TOP_P, check_temperature


def test_an_output_is_a_regular_file(tmp_path):
    kept, link, pipe = tmp_path / "kept.jsonl", tmp_path / "link.jsonl", tmp_path / "pipe"
    kept.write_text("old")
    link.symlink_to(kept)
    os.mkfifo(pipe)
    for path in (kept, tmp_path / "new" / "x.jsonl"):
        check_output(path)
    for path, said in (
        (link, "link.jsonl: not a regular file"), (pipe, "pipe: not a regular file"), (tmp_path / "new", "new: not a "),
        (kept / "x", "could not be written"), (tmp_path / ("a" * 300), "file name too long"), (tmp_path / "", "not a "),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            check_output(path)
    with pytest.raises(UserError, match="no file name"):
        check_output(type(kept)(""))
    assert kept.read_text() == "old"
    assert link.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"kept.jsonl", "link.jsonl", "new", "pipe"}


def test_an_output_replaces_no_file_of_a_run_or_of_the_cache(tmp_path):
    run, shard = tmp_path / "dpo_hh-0123abcd", tmp_path / "shard"
    for folder, mark in ((run, "started.txt"), (shard, "about.json")):
        folder.mkdir()
        (folder / mark).write_text("{}")
    (run / "summary.json").write_text("{}")
    for path in (run / "summary.json", shard / "new.json"):
        with pytest.raises(UserError, match="a file of a run or of the cache"):
            check_output(path)
    for path in (run / "mine.json", run / "eval" / "own.json"):
        check_output(path)
    assert not (shard / "new.json").exists()


@pytest.mark.parametrize(
    "command", [["chat", "dpo_hh"], ["eval", "dpo_hh"], ["generate", "dpo_hh", "prompts.jsonl", "-o", "x"]]
)
@pytest.mark.parametrize("option", ["--temperature=nan", "--temperature=inf", "--temperature=1e-300", "--temperature=-1",
                                    "--top-p=nan", "--top-p=1e-300", "--top-p=0", "--top-p=2"])  # fmt: skip
def test_numbers_that_no_reply_can_be_drawn_with(command, option):
    done = CliRunner().invoke(alignzoo, [*command, option])
    assert done.exit_code == 2
    assert f"Invalid value for '{option.partition('=')[0]}'" in done.output


@pytest.mark.parametrize("value", [1e-300, float("inf"), float("nan")])
def test_a_comparison_refuses_them_too(value):
    with pytest.raises(ValueError, match="temperature"):
        Sampling(temperature=value)


def test_samples_of_the_likeliest_token_are_refused(tmp_path):
    done = CliRunner().invoke(alignzoo, ["generate", "dpo_hh", "p.jsonl", "-o", str(tmp_path / "x"), "--samples", "2"])
    assert isinstance(done.exception, UserError)
    assert "--temperature above 0" in str(done.exception)


def test_the_prompts_are_not_replaced_by_the_replies(tmp_path):
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    done = CliRunner().invoke(
        alignzoo, ["generate", "dpo_hh", str(prompts), "-o", f"{tmp_path}/../{tmp_path.name}/p.jsonl"]
    )
    assert isinstance(done.exception, UserError)
    assert "the prompts would be replaced" in str(done.exception)


def test_the_home_of_nobody_is_no_recipe():
    with pytest.raises(UserError, match="no such recipe"):
        find_recipe("~nobody-of-that-name/x.yaml")


@pytest.mark.parametrize(
    "command",
    [["plot", "dpo", "-o"], ["eval", "dpo_hh", "-o"], ["generate", "dpo_hh", "p.jsonl", "-o"]],
    ids=lambda one: one[0],
)
def test_a_link_is_no_output_of_any_command(tmp_path, command):
    kept, link = tmp_path / "kept.svg", tmp_path / "link.svg"
    kept.write_text("old")
    link.symlink_to(kept)
    done = CliRunner().invoke(alignzoo, [*command, str(link)])
    assert isinstance(done.exception, UserError), done.output
    assert "not a regular file" in str(done.exception)
    assert kept.read_text() == "old"


def test_a_recipes_draws_have_the_same_bounds():
    with pytest.raises(ValueError, match="temperature"):
        RolloutConfig(temperature=LEAST_TEMPERATURE / 2)
    with pytest.raises(ValueError, match="top_p"):
        RolloutConfig(top_p=LEAST_TOP_P / 2)
    RolloutConfig(temperature=LEAST_TEMPERATURE, top_p=LEAST_TOP_P)
    assert check_temperature(0) == 0
