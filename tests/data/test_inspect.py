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
    assert "truncated: 0 prompts, the completions of 0 rows\n" in text
    assert re.search(r"^chosen +\d+\.\d +\d+ +\d+ +\d+$", text, re.M)
    joined = text.replace("<|endoftext|>", "END").replace("|", "")
    assert (
        "--- hh.jsonl:1: 12 prompt tokens\n\n\nHuman: odd\nchosen (3 scored, after 38 tokens of its own context)"
        in joined
    )
    assert "Assistant: one\n\nHuman: q\n\nAssistant:⟦ xEND⟧" in joined
    assert "Assistant: two\n\nHuman: q\n\nAssistant:⟦ yEND⟧" in joined
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
    from alignzoo.data.statistics import data_warnings

    write("hh/train.jsonl", hh_records(40))
    write("hh/test.jsonl", [*hh_records(3), *hh_records(4, "other")])
    path, words = str(tmp_path / "hh"), ["tokens.max_length=38", "tokens.max_prompt_length=37"]
    text = inspect(path, *words)
    assert "in both splits: 3 held-out rows are also training rows\n" in text
    report = json.loads(inspect(path, *words, "--json"))
    assert report["in_both_splits"] == 3
    assert report["truncated_completions"] == 43, "a prompt of 31 and a completion of 8 tokens; with other: 28 and 8"
    said = "; truncated: 0 prompts, the completions of 43 rows; 3 held-out rows are also training rows"
    assert data_warnings(report) == said
    given = [RECIPE, f"data.path={path}", "model.tokenizer={train: bytes}", "train.batch_size=4"]
    done = CliRunner().invoke(validate, [*given, *words], catch_exceptions=False)
    assert done.stdout.count(f" flipped{said}\n") == 2, "of the run and of its start"
    done = CliRunner().invoke(validate, [*given, "model.tokenizer=/nowhere/at/all"], catch_exceptions=False)
    assert "; 3 held-out rows are also training rows; truncated: not known (" in done.stdout


def test_a_second_look_tokenizes_nothing(inspect, write):
    path = rows(write)
    assert "tokenizing" in inspect(path)
    assert "rows from the store" in inspect(path)
