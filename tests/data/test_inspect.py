from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hh_rows import dialogue, hh_records

from alignzoo.cli.data import command
from alignzoo.core.errors import UserError
from alignzoo.data.statistics import NOTES, tokenization_notes

RECIPE = str(Path(__file__).parents[2] / "recipes" / "dpo_hh.yaml")


@pytest.fixture
def inspect(monkeypatch):
    """Run `alignzoo data inspect` and give what it printed."""
    monkeypatch.setenv("ALIGNZOO_PLUGINS", "")

    def run(path: str, *words: str) -> str:
        words = (RECIPE, f"data.path={path}", "model.tokenizer={train: bytes}", *words)
        done = CliRunner().invoke(command, ["inspect", *words], catch_exceptions=False)
        return done.stdout if "--json" in words else done.output

    return run


def rows(write) -> str:
    odd = {"chosen": dialogue("odd", "one", "q", "x"), "rejected": dialogue("odd", "two", "q", "y")}
    equal = {"chosen": dialogue("e", "same"), "rejected": dialogue("e", "same")}
    return write("hh.jsonl", [odd, *hh_records(30), equal])


def test_counts_lengths_and_the_marked_boundary(inspect, write):
    text = inspect(rows(write), "data.max_train_rows=5", "--rows", "1")
    assert re.search(
        r"32 rows read, \d+ used \(5 to train on, \d+ held out: taken from the training split, by group\)", text
    )
    assert "1 skipped, 2" in text
    assert "  skipped: 1 chosen equals rejected\n" in text
    assert "truncated" not in text
    assert re.search(r"^chosen +\d+\.\d +\d+ +\d+ +\d+$", text, re.M)
    joined = "\n".join(line.strip() for line in text.replace("<|endoftext|>", "END").replace("|", "").splitlines())
    prompt = "--- hh.jsonl:1 (train)\nprompt: 12 tokens\nuser ↵\n↵\nHuman: odd\n"
    chosen = "chosen: 41 tokens, 3 scored\nassistant ↵\n↵\nAssistant: one\nuser ↵\n↵\nHuman: q\nassistant ↵\n↵\nAssistant:\n⟦ xEND⟧\n"
    assert prompt + chosen in joined
    assert "Assistant: two\nuser ↵\n↵\nHuman: q\nassistant ↵\n↵\nAssistant:\n⟦ yEND⟧" in joined
    assert "hh.jsonl:2" not in text


def test_what_tokenizer_and_template_did_is_said(inspect, write):
    """From the counts alone: what makes them is held in test_tokenizers.py."""
    assert "1 rows whose dialogues differ before the last turn; no samples are drawn" in inspect(rows(write))
    report = {"boundary": dict.fromkeys(NOTES, 1200) | {"white space": 0}, "parted": 0}
    spans, thinking, turns, calls = tokenization_notes(report, "keep")
    assert spans.startswith("1,200 rows where a token spans the end of the prompt")
    assert "scored as given (as the template writes them with tokens.thinking=template" in thinking
    assert "thoughts in scored turns" in turns
    assert "tool calls" in calls
    assert "tokens.thinking=keep" in tokenization_notes(report, "template")[1]


def test_json_lists_every_skipped_row(inspect, write):
    report = json.loads(inspect(rows(write), "--json"))
    assert report["read"] == report["used"] + report["skipped"] == 32
    assert report["skipped_rows"] == [{"id": "hh.jsonl:32", "reason": "chosen equals rejected", "detail": ""}]


def test_a_mistake_is_the_users_and_has_its_line(inspect, write):
    with pytest.raises(UserError, match=r"hh\.jsonl:3: not JSON"):
        inspect(write("hh.jsonl", b"".join(json.dumps(r).encode() + b"\n" for r in hh_records(2)) + b"{\n"))


def test_what_a_terminal_obeys_is_shown_as_text(inspect, write):
    text = inspect(write("hh.jsonl", hh_records(30, "\x1b]0;title\x07")), "--rows", "1")
    assert "\x1b" not in text
    assert "\\u001b" in text.replace("|", "")


def test_rows_in_both_splits_and_truncated_rows_are_reported_everywhere(inspect, write, tmp_path):
    from alignzoo.cli.validate import command as validate

    write("hh/train.jsonl", hh_records(40))
    write("hh/test.jsonl", [*hh_records(3), *hh_records(4, "other")])
    path, words = str(tmp_path / "hh"), ["tokens.max_length=38", "tokens.max_prompt_length=37"]
    text = inspect(path, *words)
    overlap = (
        "overlap: 3 held-out rows are also training rows, 3 have a prompt that is trained on "
        "(eval.allow_overlap=true hides this line)\n"
    )
    cut = "truncated: the completions of 43 rows to tokens.max_length=38\n"
    assert cut + overlap in text
    assert "overlap" not in inspect(path, *words, "eval.allow_overlap=true")
    report = json.loads(inspect(path, *words, "--json"))
    assert report["overlap"] == {"rows": 3, "prompts": 3}
    assert report["truncated_completions"] == 43, "a prompt of 31 and a completion of 8 tokens; with other: 28 and 8"
    given = [RECIPE, f"data.path={path}", "model.tokenizer={train: bytes}", "train.batch_size=4"]
    done = CliRunner().invoke(validate, [*given, *words], catch_exceptions=False)
    assert done.stdout.count(overlap) == done.stdout.count(cut) == 2, "of the run and of its start"
    with pytest.raises(UserError, match="no tokenizer could be loaded from '/nowhere/at/all'"):  # as `run` would
        CliRunner().invoke(validate, [*given, "model.tokenizer=/nowhere/at/all"], catch_exceptions=False)


def test_a_second_look_tokenizes_nothing(inspect, write):
    path = rows(write)
    assert "tokenizing" in inspect(path)
    assert "rows from the store" in inspect(path)


@pytest.mark.slow
def test_one_row_or_the_worst_rows_are_shown(inspect, write):
    path = write("hh.jsonl", [*hh_records(20), *hh_records(2, "a much longer question")])
    third = inspect(path, "--row", "3")
    assert re.findall(r"^--- (\S+) \((\w+)\)", third, re.M) == [("hh.jsonl:3", "train")]
    held_out = json.loads(inspect(path, "--json"))["held_out"]
    shown = re.findall(r"^--- (\S+) \((\w+)\)", inspect(path, "--split", "held_out", "--rows", "99"), re.M)
    assert len(shown) == held_out
    assert {split for _, split in shown} == {"held_out"}
    by_id = inspect(path, "--row", shown[0][0])
    assert re.findall(r"^--- (\S+) \((\w+)\)", by_id, re.M) == shown[:1], "an id is found in any split"
    longest = re.findall(r"^--- (\S+) \(train\); (\d+) tokens", inspect(path, "--worst", "length", "--rows", "2"), re.M)
    assert [id for id, _ in longest] == ["hh.jsonl:21", "hh.jsonl:22"]
    assert "\nno row is truncated\n" in inspect(path, "--worst", "truncated")
    assert "\nno row is trained on and evaluated\n" in inspect(path, "--worst", "overlap")
    with pytest.raises(UserError, match=r"--row: there is no row 'hh\.jsonl:99'"):
        inspect(path, "--row", "hh.jsonl:99")
    for number in ("0", "²", "9" * 5000):
        with pytest.raises(UserError, match=r"--row: there is no row .*; expected a number up to \d+, or a row's id"):
            inspect(path, "--row", number)
    with pytest.raises(UserError, match="--row, --worst: a row is shown, or the worst ones; expected one of the two"):
        inspect(path, "--row", "1", "--worst", "length")
    with pytest.raises(UserError, match=r"--split: there are no rows of 'heldout'.*did you mean 'held_out'"):
        inspect(path, "--split", "heldout")


def test_rows_are_legible_at_80_columns_with_and_without_colors():
    from io import StringIO

    from alignzoo.cli.shown import print_legend, print_row
    from alignzoo.core.console import Console

    words = [f" word{i}" for i in range(60)]
    pieces = [["user", False, [*words, "\n"]], ["assistant", True, ["[/red]", "\x1b[2J", *words]]]
    row = {
        "id": "x",
        "split": "train",
        "cut": 3,
        "parts": [{"name": "prompt", "tokens": 200, "scored": 62, "pieces": pieces}],
    }
    for terminal in (False, True):
        file = StringIO()
        console = Console(file=file, force_terminal=terminal, width=80, color_system="standard" if terminal else None)
        print_legend(console)
        print_row(console, row)
        text = file.getvalue()
        assert ("\x1b[" in text) == terminal
        assert "\x1b[2J" not in text
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert max(map(len, plain.splitlines())) <= 80
        joined = re.sub(r"[\s|]+", "", plain)
        assert "⟦[/red]\\u001b[2Jword0word1" in joined
        assert "word59⟧...and77tokensmore" in joined
        assert "3tokensarecutoff" in joined
