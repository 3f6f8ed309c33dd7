"""`alignzoo generate`: the replies are those that an evaluation of the run draws with the same settings."""

from __future__ import annotations

import json
import shutil
import signal

import click
import pytest
from click.testing import CliRunner
from transformers import AutoTokenizer

import alignzoo
from alignzoo.cli import alignzoo as cli
from alignzoo.compare.measure import measure
from alignzoo.compare.results import SAMPLES
from alignzoo.compare.spec import Sampling
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.core.redaction import printable
from alignzoo.core.signals import Interrupted
from alignzoo.data.row_reader import RowReader
from alignzoo.recipe.load import load_recipe
from alignzoo.training.chat import Conversation
from alignzoo.training.generate import Drawing, reply_to_file

pytestmark = pytest.mark.slow

RECIPE, SMALLEST = "recipes/sft_hh.yaml", "tests/smallest.yaml"
QUIET = Screen(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run, and id -> prompt of its data."""
    root = tmp_path_factory.mktemp("generate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
        overrides = ["train.max_steps=6", "eval.replies={num_prompts: 4, max_new_tokens: 12}"]
        folder = alignzoo.run(RECIPE, overrides, [SMALLEST]).folder
        resolved = load_recipe(folder)
        prompts = {row.id: row.prompt for _, row in RowReader(resolved.recipe.data).used()}
        measured = measure(resolved, folder, Sampling(prompts=5, tokens=9, seed=3), (), None, QUIET)
    return folder, prompts, measured.path


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(run, wanted: list[dict], path):
    """A file with the prompts of records of an evaluation, in another order and with one more."""
    texts = [run[1][one["id"]] for one in wanted]
    records = [{"prompt": text} for text in (*reversed(texts), "\n\nHuman: Hello?\n\nAssistant:")]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_greedy_replies_are_those_after_training(run, tmp_path):
    samples = lines(run[0] / "samples.jsonl")
    assert len(samples) == 4
    output = tmp_path / "replies.jsonl"
    file = asked(run, samples, tmp_path / "prompts.jsonl")
    done = CliRunner().invoke(cli, ["generate", str(run[0]), str(file), "-o", str(output)])
    assert done.exit_code == 0, done.output
    found = lines(output)
    assert [one["reply"] for one in found[:-1]] == [one["after"] for one in reversed(samples)]
    assert [one["finished"] for one in found[:-1]] == [one["after_finished"] for one in reversed(samples)]
    assert [one["prompt"] for one in found[:-1]] == [one["prompt"] for one in reversed(samples)]
    assert all(one["tokens"] <= 12 and one["log_prob"] < 0 for one in found)


def test_draws_are_those_of_a_comparison(run, tmp_path):
    samples = lines(run[2] / SAMPLES)
    assert len({one["reply"] for one in samples}) > 1
    file = asked(run, samples, tmp_path / "prompts.jsonl")
    found = reply_to_file(run[0], file, Drawing(temperature=1.0, max_new_tokens=9, seed=3), QUIET)
    assert [one["reply"] for one in found[:-1]] == [one["reply"] for one in reversed(samples)]
    assert [one["tokens"] for one in found[:-1]] == [one["length"] for one in reversed(samples)]
    other = reply_to_file(run[0], file, Drawing(temperature=1.0, max_new_tokens=9, seed=4), QUIET)
    assert [one["reply"] for one in other] != [one["reply"] for one in found]
    twice = reply_to_file(run[0], file, Drawing(temperature=1.0, max_new_tokens=9, seed=3, samples=2), QUIET)
    assert [one["reply"] for one in twice[::2]] == [one["reply"] for one in found]
    assert [one["reply"] for one in twice[1::2]] != [one["reply"] for one in found]


def test_what_has_no_reply_is_an_error_at_its_place(run, tmp_path):
    empty, wrong = tmp_path / "empty.jsonl", tmp_path / "wrong.jsonl"
    empty.write_text('{"prompt": " "}\n')
    wrong.write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"prompt": [{"role": "user", "content": "hi"}]}) + "\n")
    for file, said in (
        (empty, r"empty\.jsonl: no row can be used: empty prompt"),
        (wrong, r"wrong\.jsonl:2"),
        (tmp_path / "no.jsonl", "no.jsonl"),
        (chats, r"chats\.jsonl: a prompt is chat messages"),
    ):
        with pytest.raises(UserError, match=said):
            reply_to_file(run[0], file, Drawing(), QUIET)
    with pytest.raises(UserError, match="not a run folder"):
        CliRunner().invoke(
            cli, ["generate", str(tmp_path), str(empty), "-o", str(tmp_path / "x")], catch_exceptions=False
        )


def test_a_prompt_is_written_as_it_was_read(run, tmp_path):
    text, file, output = "Authorization: Bearer abcdefgh12345", tmp_path / "prompts.jsonl", tmp_path / "replies.jsonl"
    file.write_text(json.dumps({"prompt": text}) + "\n")
    done = CliRunner().invoke(cli, ["generate", str(run[0]), str(file), "-o", str(output), "--max-new-tokens", "2"])
    assert done.exit_code == 0, done.output
    assert lines(output)[0]["prompt"] == text


def test_a_turn_that_is_no_text_is_a_sentence(run):
    talk = Conversation(run[0], Drawing(max_new_tokens=2), QUIET)
    with pytest.raises(UserError, match="the turn is not valid Unicode"):
        talk.reply("half \udcff")
    assert talk.turns == []


def test_a_signal_at_the_prompt_keeps_its_exit_code(run, monkeypatch):
    def stopped(text):
        raise Interrupted("stopped", signal.SIGTERM)

    monkeypatch.setattr("click.termui.visible_prompt_func", stopped)
    with pytest.raises(click.Abort) as error:  # click's own, from which `main` takes the exit code
        cli(["chat", str(run[0])], standalone_mode=False)
    assert error.value.__cause__.code == 128 + signal.SIGTERM


def chat(*arguments: str, said: str):
    return CliRunner().invoke(cli, ["chat", *arguments, "--max-new-tokens", "8"], input=said)


def likeliest(folder, tmp_path, prompt) -> str:
    """The reply that `generate` writes to one prompt."""
    (tmp_path / "one.jsonl").write_text(json.dumps({"prompt": prompt}) + "\n")
    (line,) = reply_to_file(folder, tmp_path / "one.jsonl", Drawing(max_new_tokens=8), QUIET)
    return line["reply"]


def test_a_conversation_streams_the_replies_of_generate_after_every_turn(run, tmp_path):
    talk, pieces = Conversation(run[0], Drawing(max_new_tokens=8), QUIET), []
    first = talk.reply("Hello?", pieces.append)
    assert "".join(pieces) == first
    assert len(pieces) > 2
    assert first == likeliest(run[0], tmp_path, "\n\nHuman: Hello?\n\nAssistant:")
    second = talk.reply("And now?")
    both = f"\n\nHuman: Hello?\n\nAssistant:{first}\n\nHuman: And now?\n\nAssistant:"
    assert second == likeliest(run[0], tmp_path, both)
    talk.clear()
    assert talk.reply("Hello?") == first


def test_a_conversation_is_rendered_by_the_models_chat_template(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / run[0].name)
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    tokenizer.save_pretrained(folder / "policy")
    talk = Conversation(folder, Drawing(max_new_tokens=8), QUIET)
    messages = [{"role": "user", "content": "Hello?"}]
    assert talk.reply("Hello?") == likeliest(folder, tmp_path, messages)
    assert talk._prompt([("user", "Hello?")]) == tuple(messages)


def test_the_terminal_shows_one_run_or_two(run):
    talk = Conversation(run[0], Drawing(max_new_tokens=8), QUIET)
    reply = printable(talk.reply("Hello?"))
    done = chat(str(run[0]), said="Hello?\n/new\nHello?\n/quit\n")
    assert done.exit_code == 0, done.output
    assert done.stdout.count(reply) == 2
    both = chat(str(run[0]), "--compare", str(run[0]), said="Hello?\n")
    assert both.exit_code == 0, both.output
    assert both.stdout.count(f"{run[0].name}:") == 2


def test_the_files_that_benchmarks_read(run, tmp_path):
    dialogue = "\n\nHuman: Why is the sea salt?\n\nAssistant:"
    reply = likeliest(run[0], tmp_path, dialogue).strip()
    question, options = "Why is the sea salt?", ["--max-new-tokens", "8", "-o", str(tmp_path / "out")]

    def written(record: dict, *more: str) -> str:
        (tmp_path / "my.set.json").write_text(json.dumps([record]))
        done = CliRunner().invoke(cli, ["generate", str(run[0]), str(tmp_path / "my.set.json"), *options, *more])
        assert done.exit_code == 0, done.exception
        return (tmp_path / "out").read_text()

    (own,) = json.loads(
        written(
            {"instruction": question, "output": "of rivers", "generator": "other", "dataset": "koala"},
            "--as",
            "alpaca_eval",
        )
    )
    assert own == {"instruction": question, "output": reply, "generator": run[0].name, "dataset": "koala"}
    (own,) = json.loads(written({"instruction": question}, "--as", "alpaca_eval"))
    assert own["dataset"] == "my"
    line = json.loads(written({"uid": "u1", "prompt": question, "category": "hard"}, "--as", "arena_hard"))
    assert (line["uid"], line["question_id"], line["model"], line["model_id"]) == ("u1", "u1", run[0].name, run[0].name)
    assert line["messages"] == [
        {"role": "user", "content": question},
        {"role": "assistant", "content": {"answer": reply}},
    ]
    assert [turn["content"] for choice in line["choices"] for turn in choice["turns"]] == [reply]
    line = json.loads(
        written(
            {"question_id": 81, "turns": [{"content": question}]},
            "--as",
            "arena_hard",
            "--samples",
            "2",
            "--temperature",
            "1",
        )
    )
    assert (line["question_id"], [choice["index"] for choice in line["choices"]]) == (81, [0, 1])
    with pytest.raises(UserError, match="one reply to each instruction"):
        CliRunner().invoke(
            cli, ["generate", str(run[0]), str(tmp_path / "my.set.json"), *options, "--as", "alpaca_eval", "--samples", "2", "--temperature", "1"],
            catch_exceptions=False,
        )  # fmt: skip
    (tmp_path / "two.json").write_text(json.dumps([{"question_id": 1, "turns": [{"content": "a"}, {"content": "b"}]}]))
    with pytest.raises(UserError, match="2 turns"):
        CliRunner().invoke(
            cli,
            ["generate", str(run[0]), str(tmp_path / "two.json"), *options, "--as", "arena_hard"],
            catch_exceptions=False,
        )
