"""`alignzoo push` against a stand-in of the hub: what is sent, what is refused, and what a dry run shows."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import sys
import time

import pytest
import yaml
from checkout import ROOT
from finished_run import RECIPE, finished_run
from hub_stand_in import COMMIT, TOKEN, Repo, hub_stand_in
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from alignzoo.cli.app import _exit_code
from alignzoo.core.console import Screen
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.training.push import PushOptions, push_run

FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs") / "dpo_pairs-abababab")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that huggingface_hub takes for the only one, with a token for it."""
    with hub_stand_in() as stand_in:
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        close_session()
        yield stand_in
        close_session()


def push(run, repo="me/it", dry_run=False, **options):
    return push_run(run, repo, PushOptions(**options), Screen(quiet=True), dry_run)


def alignzoo(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["alignzoo", *map(str, words)])
    return _exit_code()


def test_a_policy_is_sent_as_one_commit(run, hub, monkeypatch, capsys):
    assert alignzoo(monkeypatch, "push", run, "me/it") == 0
    assert capsys.readouterr().out == f"{hub.url}/me/it/commit/{COMMIT}\n"
    repo = hub.repos["me/it"]
    assert set(repo.branches["main"]) == FILES
    assert repo.branches["main"]["model.safetensors"] == (run / "policy" / "model.safetensors").read_bytes()
    assert b'from_pretrained("me/it"' in repo.branches["main"]["README.md"]
    assert not repo.private
    assert hub.commits == ["Push the run dpo_pairs-abababab"]
    assert not list(run.glob(".push*"))


def test_a_second_push_replaces_weights_and_keeps_other_files(run, hub):
    mine = {"model-00001-of-00002.safetensors": b"old", "adapter_config.json": b"old", "notes.txt": b"mine"}
    hub.repos["me/it"] = Repo(branches={"main": dict(mine)})
    push(run)
    assert set(hub.repos["me/it"].branches["main"]) == FILES | {"notes.txt"}


def test_private_and_a_branch(run, hub):
    push(run, private=True, revision="v1")
    assert hub.repos["me/it"].private
    assert hub.repos["me/it"].branches["main"] == {}
    assert set(hub.repos["me/it"].branches["v1"]) == FILES


def test_nothing_goes_to_a_public_repository_as_private(run, hub):
    hub.repos["me/it"] = Repo()
    with pytest.raises(UserError, match=r"me/it: the repository exists and is public, so nothing was sent"):
        push(run, private=True)
    assert not hub.asked("preupload|PUT|commit")


def test_a_dry_run_shows_files_and_card_and_asks_nobody(run, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert alignzoo(monkeypatch, "push", run, "me/it", "--dry-run", "--license", "apache-2.0") == 0
    out = capsys.readouterr().out
    listing, _, card = out.partition("\n\n")
    size = (run / "policy" / "model.safetensors").stat().st_size
    assert re.search(rf"^model.safetensors +{size:,} bytes$", listing, re.M)
    assert {line.split()[0] for line in listing.splitlines()} == FILES
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["base_model"]) == ("apache-2.0", "meta-llama/Llama-3.2-1B")
    assert hub.requests == []
    assert not list(run.glob(".push*"))


@pytest.mark.parametrize(
    ("pattern", "status", "kind", "words"),
    [
        ("whoami", 401, UserError, "me/it: .* does not accept the token .*\n.*hf auth login"),
        (
            "repos/create",
            403,
            UserError,
            r"me/it: the token may not write there \(go away\); expected a repository of yours",
        ),
        ("commit/main", 409, UserError, r"me/it: another commit or repository is in the way \(go away\)"),
        ("commit/main", 412, UserError, "another commit"),
        ("validate-yaml", 400, UserError, "refused|README"),
        ("objects/batch", 403, UserError, "the token may not write there"),
        ("repos/create", 500, RunFailed, r"http://127.0.0.1:\d+ answered 500 \(go away\); push again"),
    ],
)
def test_a_refusal_has_its_cause_and_a_fix(run, hub, pattern, status, kind, words):
    hub.refusals[pattern] = status, "go away"
    with pytest.raises(kind, match=words) as error:
        push(run)
    assert TOKEN not in str(error.value)
    assert not list(run.glob(".push*"))


def test_a_token_that_can_only_read(run, hub):
    hub.role = "read"
    with pytest.raises(UserError, match="the token of me can only read; expected a token with write access"):
        push(run)
    assert not hub.repos


def test_without_a_token_or_switched_off(run, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert alignzoo(monkeypatch, "push", run, "me/it") == 2
    assert (
        "error: me/it: there is no token for the hub\n    `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="switched off by HF_HUB_OFFLINE"):
        push(run)
    assert hub.requests == []


@pytest.mark.parametrize("listens", [True, False], ids=["a hub that never answers", "nobody at the port"])
def test_no_network_is_told_within_seconds(run, hub, monkeypatch, listens):
    monkeypatch.setattr("alignzoo.training.push.SECONDS", 0.3)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listens:
            held.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{held.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(
            RunFailed, match=r"http://127.0.0.1:\d+ can't be reached or gave no valid answer: .+; push again"
        ):
            push(run)
        assert time.monotonic() - began < 30  # of a busy machine; 0.3 s on an idle one


@pytest.mark.parametrize("repo", ["it", "a/b/c", "me/it is", "/tmp/it", "me/"])
def test_what_is_no_id_is_refused_first(run, hub, repo):
    with pytest.raises(UserError, match=r"no id of a repository|the id has no user"):
        push(run, repo)
    assert hub.requests == []


def test_a_run_that_is_not_finished(run, hub, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(UserError, match="the run is not finished: it has no policy yet"):
        push(tmp_path / "half")
    assert hub.requests == []


def test_no_secret_and_no_path_of_this_machine_leaves_it(run, hub, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_API_KEY", "w7 is 31 words")
    template = "{{ messages[0].content }} key: w7 is 31 words"
    leaky = finished_run(tmp_path / "leaky")
    (leaky / "policy" / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=r"chat_template.jinja: a secret is in a file that would be sent"):
        push(leaky)
    (leaky / "policy" / "chat_template.jinja").write_text(f"{{{{ messages }}}} {leaky}/x")
    with pytest.raises(UserError, match=r"chat_template.jinja: the path of a folder of this machine"):
        push(leaky)
    (leaky / "policy" / "chat_template.jinja").write_text("{{ messages }}")
    (leaky / "policy" / "additional_chat_templates").mkdir()
    (leaky / "policy" / "additional_chat_templates" / "tools.jinja").write_text(template)
    with pytest.raises(UserError, match=r"additional_chat_templates/tools.jinja: a secret is in a file"):
        push(leaky)
    assert hub.asked("POST|PUT") == []


def test_an_adapter_on_a_folder_of_this_machine_needs_merge(hub, tmp_path):
    peft = pytest.importorskip("peft", reason="pip install 'alignzoo[lora]'")
    from transformers import AutoModelForCausalLM

    base = finished_run(tmp_path / "base")
    folder = finished_run(tmp_path / "adapted")
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    for path in folder.joinpath("policy").glob("*.safetensors"):
        path.unlink()
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base / "policy"), config)
    model.save_pretrained(folder / "policy")
    (folder / "policy" / "config.json").unlink()
    with pytest.raises(UserError, match=r"the adapter's base model is a folder of this machine.*\n.*--merge") as error:
        push(folder)
    assert str(tmp_path) not in str(error.value).replace(str(folder), "")
    sent = push(folder, merge=True, dry_run=True)
    assert "a LoRA adapter was merged" in sent.card
    assert set(sent.files) == FILES


@pytest.mark.slow
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_a_fresh_process_with_only_its_environment(run, tmp_path, xet):
    """As a user has it: HF_ENDPOINT and HF_TOKEN, and the Xet protocol where hf_xet is installed."""
    with hub_stand_in() as stand_in:
        stand_in.xet = str(tmp_path / "cas") if xet else ""
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_ENDPOINT": stand_in.url, "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "" if xet else "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        words = [sys.executable, "-m", "alignzoo.cli", "push", str(run), "me/it"]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{stand_in.url}/me/it/commit/{COMMIT}\n"
    assert set(stand_in.repos["me/it"].branches["main"]) == FILES
    sent, weights = (
        stand_in.repos["me/it"].branches["main"]["model.safetensors"],
        (run / "policy" / "model.safetensors").read_bytes(),
    )
    if xet:  # the weights went to the content-addressed storage, and the commit names their digest
        assert stand_in.asked("xet-write-token")
        assert sent == hashlib.sha256(weights).hexdigest().encode()
        assert any(path.stat().st_size for path in (tmp_path / "cas" / "xet" / "xorbs").iterdir())
    else:
        assert sent == weights
