"""Tokens and keys are in nothing that we write or print: canaries are planted wherever one may come from."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from io import StringIO

import pytest
from checkout import ROOT
from click.testing import CliRunner
from jobs import command, python

import alignzoo
from alignzoo.cli.app import alignzoo as cli
from alignzoo.compare.spec import read_comparison
from alignzoo.core.console import Screen
from alignzoo.core.door import read_json
from alignzoo.core.errors import Problem, UserError, first_line
from alignzoo.core.files import write_json, write_page
from alignzoo.core.redaction import printable, redact, register_secret
from alignzoo.core.streams import SafeStream
from alignzoo.recipe.load import load_recipe

CANARIES = {
    "HF_TOKEN": "hf_" + "CanaryHubToken" * 2 + "01",
    "HUGGING_FACE_HUB_TOKEN": "canary-hub-0123456789",
    "OPENAI_API_KEY": "sk-proj-canaryOpenAi0123456789",
    "ANTHROPIC_API_KEY": "sk-ant-api03-canaryAnthropic-0123",
    "WANDB_API_KEY": "0123456789canarywandb0123456789",
    "AWS_SECRET_ACCESS_KEY": "canary/aws+secret/0123456789",
    "DATABASE_PASSWORD": 'canary "quoted" \\ pass',
    "MY_JUDGE_SECRET": "canaryjudgesecret",
}


@pytest.fixture
def planted(monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)


def clean(text: str) -> None:
    lowered = text.lower()
    for name, value in CANARIES.items():
        for form in (value, json.dumps(value)[1:-1]):
            assert form.lower() not in lowered, name


@pytest.mark.parametrize("name", CANARIES)
def test_what_the_environment_calls_secret_is_hidden(name, planted):
    value = CANARIES[name]
    for text in (value, f"x{value}y", f"https://a.b/?q={value}", json.dumps({"a": value}), f"Bearer {value}"):
        clean(redact(text))
        clean(str(Problem(text, where=text, expected=text, nearest=text, hint=text)))


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://ann:s3cret@example.com/x", "https://***@example.com/x"),
        ("postgres://:pw@h/db", "postgres://***@h/db"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("{'authorization': 'Basic dXNlcjpw'}", "{'authorization': 'Basic ***'}"),
        ("a hf_abcdefghijklmnopqrstuvwx token", "a *** token"),
        ("sk-abcdefghij0123456789", "***"),
        ("ghp_" + "a1" * 18, "***"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
    ],
)
def test_so_is_what_looks_like_one(text, hidden):
    assert redact(text) == hidden


@pytest.mark.parametrize(
    "text",
    ["sk-learn", "task-specific-modeling-of-things", "hf_hub", "http://localhost:8000/v1", "the bearer of news",
     "a: b@c", "mailto:ann@example.com", "git@github.com:a/b", "0123456789abcdef" * 2, "authorization is needed"],
)  # fmt: skip
def test_words_that_are_no_secrets_stay(text):
    assert redact(text) == text or text == "authorization is needed"


def test_a_stand_in_for_a_key_is_a_word_like_others(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    monkeypatch.setenv("SSH_KEY", str(ROOT))
    assert redact(f"EMPTY {ROOT}") == f"EMPTY {ROOT}"


def test_a_value_that_is_remembered_is_hidden(monkeypatch):
    from alignzoo.core import redaction

    monkeypatch.setattr(redaction, "_registered", set())
    register_secret("canary-from-a-variable-of-another-name")
    assert redact("x canary-from-a-variable-of-another-name") == "x ***"


def test_files_the_screen_and_streams_are_without(planted, tmp_path, capfd):
    everything = " ".join(CANARIES.values())
    write_page(tmp_path / "a.html", everything)
    clean((tmp_path / "a.html").read_text())
    clean(first_line(RuntimeError(everything)))  # which run folders keep
    Screen().info(everything)
    stream = StringIO()
    veil = SafeStream(stream)
    print(everything, file=veil)
    logging.StreamHandler(veil).emit(logging.makeLogRecord({"msg": everything}))
    clean(stream.getvalue())
    captured = capfd.readouterr()
    clean(captured.out + captured.err)


def test_pages_show_what_a_terminal_obeys_and_what_reorders_text(tmp_path):
    write_page(tmp_path / "a.html", "<p>a\x1b[31m\u202e b</p>\n")
    assert (tmp_path / "a.html").read_text() == "<p>a\\u001b[31m\\u202e b</p>\n"


def test_what_a_terminal_obeys_is_shown_as_text():
    assert (
        printable("a\x1b]0;title\x07\x1b[31mred\r\n\tü \u202e漢")
        == "a\\u001b]0;title\\u0007\\u001b[31mred\\u000d\n\tü \\u202e漢"
    )


RECIPES = {
    "api_key": "eval: {judges: [{name: chat, model: m, api_key: KEY}]}",
    "judge's apiKey": "eval: {judges: [{name: chat, model: m, apiKey: KEY}]}",
    "hf_token": "model: {hf_token: KEY}",
    "token": "data: {token: KEY}",
    "password": "reporters: [{name: tracker, password: KEY}]",
    "by its looks": "model: {path: hf_abcdefghijklmnopqrstuvwxyz}",
    "in an address": "data: {path: 'https://ann:KEY@example.com/x.jsonl'}",
    "by its value": f"model: {{config: {{note: 'x {CANARIES['WANDB_API_KEY']}'}}}}",
    "in a list": f"data: {{path: [a, {CANARIES['MY_JUDGE_SECRET']}]}}",
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_with_a_secret_is_rejected_and_the_secret_not_repeated(text, planted, tmp_path):
    text = text.replace("KEY", "plain-canary-value")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"extends: sft_hh\n{text}\n")
    for words in (["validate", str(path)], ["run", str(path)], ["show", str(path)], ["compare", str(path), "dpo_hh"]):
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, UserError)
        said = str(done.exception)
        assert "a recipe holds no" in said or "a recipe holds none" in said
        assert "environment variable" in said
        assert f"{path}:2" in said
        assert "plain-canary-value" not in said
        clean(said)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("word", ["eval.judges=[{name: chat, model: m, api_key: plain-canary-value}]",
                                  "model.path=https://u:plain-canary-value@h/m", "objective.password=plain-canary-value"])  # fmt: skip
def test_neither_on_the_command_line(word):
    with pytest.raises(UserError) as error:
        load_recipe("dpo_hh", [word])
    assert "plain-canary-value" not in str(error.value)
    assert "holds no" in str(error.value)


def test_nor_in_a_comparison(tmp_path):
    path = tmp_path / "compare.yaml"
    path.write_text("recipes: [sft_hh, dpo_hh]\njudges: [{name: chat, model: m, api_key: plain-canary-value}]")
    with pytest.raises(UserError, match=r"judges\.0\.api_key: a recipe holds no secret"):
        read_comparison(path)
    done = CliRunner().invoke(
        cli, ["compare", "sft_hh", "dpo_hh", "--judge", "{name: chat, model: m, token: plain-canary-value}"]
    )
    assert "judges.0.token: a recipe holds no secret" in str(done.exception)


def test_names_of_variables_and_special_tokens_are_no_secrets():
    load_recipe(
        "sft_hh", ["eval.judges=[{name: chat, model: m, key_env: MY_API_KEY}]", "eval.replies.max_new_tokens=4"]
    )


PLUGIN = '''
import os
from alignzoo import Judge, Metric, Reporter, hookimpl

class Leaky(Judge):
    """Fails with all that it knows."""
    name = "leaky"
    source = "nobody 2026"

    def prefers(self, prompts, first, second):
        raise RuntimeError(f"401 for {dict(os.environ)} Authorization: Bearer canary-in-a-header")

class Diary(Reporter):
    """Fails too."""
    name = "diary"

    def on_start(self, folder, recipe, step):
        print(os.environ["HF_TOKEN"])
        raise RuntimeError(os.environ["OPENAI_API_KEY"])

@hookimpl
def register_judges():
    return [Leaky]

@hookimpl
def register_reporters():
    return [Diary]
'''


@pytest.mark.slow
def test_a_whole_run_and_a_comparison_leave_no_canary(planted, tmp_path):
    """A judge and a reporter that tell all they know, a tracker, a run that fails: then every file and word is read."""
    (tmp_path / "leaky.py").write_text(PLUGIN)
    more = "reporters: [html, diary]"
    recipe = tmp_path / "leaky.yaml"
    recipe.write_text(f"extends: sft_hh\nplugins: [./leaky.py]\neval: {{judges: [leaky]}}\n{more}\n")
    smallest = str(ROOT / "recipes/scale/smallest.yaml")

    def run(*words, code=0):
        done = command(*words, folder=tmp_path, ALIGNZOO_TRACEBACK="1").wait()
        assert done.returncode == code, done.stderr
        clean(done.stdout + done.stderr)
        assert "canary-in-a-header" not in done.stdout + done.stderr
        return done

    said = run("run", str(recipe), "--with", smallest)
    assert "judge leaky failed" in said.stderr
    assert "reporter diary failed" in said.stderr
    run("compare", "sft_hh", "dpo_hh", "--with", smallest, "--seeds", "1", "--samples", "2")
    run("run", "dpo_hh", f"data.path=/nowhere/{CANARIES['MY_JUDGE_SECRET']}", code=2)
    run("run", CANARIES["HF_TOKEN"], code=2)
    run("run", "dpo_hh", f"train.epochs={CANARIES['WANDB_API_KEY']}", code=2)
    run(CANARIES["HF_TOKEN"], code=2)
    run("run", "--" + CANARIES["HF_TOKEN"], code=2)
    files = [path for root in ("runs", "cache") for path in (tmp_path / root).rglob("*") if path.is_file()]
    assert len(files) > 40
    for path in files:
        clean(path.read_bytes().decode("utf-8", "replace"))
        assert b"canary-in-a-header" not in path.read_bytes(), path


@pytest.mark.slow
def test_an_error_nobody_expected_has_a_traceback_without_secrets(planted):
    code = (
        "import sys, os\nfrom alignzoo import cli\n"
        "def broken(**_):\n    raise OSError(f'GET https://u:pw12@h {dict(os.environ)}')\n"
        "cli.alignzoo.callback = broken\nsys.argv = ['alignzoo', 'list']\ncli.main()"
    )
    done = python("-c", code).wait()
    assert done.returncode == 1
    assert "OSError: GET https://***@h" in done.stderr
    clean(done.stderr)


def test_a_hub_error_tells_no_token(planted, monkeypatch):
    """What a client says of its request, with the header in it."""
    import transformers

    from alignzoo.models import from_pretrained

    def refuse(*_, **__):
        raise OSError(f"401 Client Error, headers={{'authorization': 'Bearer {os.environ['HF_TOKEN']}'}}")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    monkeypatch.setattr(from_pretrained, "hub_problem", lambda: "")
    monkeypatch.setattr(from_pretrained, "_names_at_hub", refuse)
    with pytest.raises(UserError) as error:
        alignzoo.run("sft_hh", ["model={path: a/b}"])
    assert "401 Client Error" in str(error.value)
    clean(str(error.value))


def test_warnings_pass_the_veil(planted):
    stream = StringIO()
    text = warnings.formatwarning(os.environ["HF_TOKEN"], UserWarning, "x.py", 1)
    SafeStream(stream).writelines([text])
    clean(stream.getvalue())


def test_what_is_read_again_is_written_as_it_is(monkeypatch, tmp_path):
    """A variable's value may be a word of our own files, and the data may hold what looks like a key."""
    monkeypatch.setenv("SORT_KEY", "finished")
    monkeypatch.setenv("OBJECTIVE_KEY", "preference_accuracy")
    values = {
        "finished": True,
        "eval": {"preference_accuracy": 1.0},
        "text": "see sk-abcdefghij0123456789",
        "sk-" * 99: 1,
    }
    write_json(tmp_path / "a.json", values)
    assert read_json(tmp_path / "a.json") == values
    stream = StringIO()
    print(json.dumps({"finished": 1}), file=SafeStream(stream, words=False))  # stdout, which programs read
    assert json.loads(stream.getvalue()) == {"finished": 1}
    load_recipe("dpo_hh", {"train.epochs": 1, "name": "finished"})
    assert redact("finished") == "***"  # on the screen


LONG = {
    "sk": "sk-" * 60_000, "dots": "a." * 90_000, "schemes": "a.b.c://x:" * 18_000, "address": "a-" * 90_000 + "://" + "x:" * 90_000,
    "headers": "authorization " * 13_000, "spaces": "authorization: bearer " + " " * 180_000, "user": "http://" + "u" * 180_000,
    "password": "http://u:" + "u" * 180_000, "hub": "hf_" * 60_000, "slack": "xoxb-" * 36_000, "colons": "x://" + ":" * 180_000,
}  # fmt: skip


@pytest.mark.parametrize("text", LONG.values(), ids=list(LONG))
def test_redaction_takes_time_in_proportion_to_the_text(text):
    """Whatever is quadratic takes minutes for 180 KB."""
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 2
