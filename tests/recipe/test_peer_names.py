"""Other trainers' keys: each names a key of ours that is there, and the error for it says so."""

from __future__ import annotations

import pytest
from checkout import ROOT

from alignzoo.cli.keys import explain
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.peer_names import LOSSES, PEERS
from alignzoo.registry.known_packages import PACKAGE_OF


@pytest.mark.parametrize("key", PEERS)
def test_it_names_a_key_of_ours(key):
    assert explain(PEERS[key].key.replace("references.reference", "references"))


def test_every_loss_of_other_trainers_is_one_of_ours():
    """The numbers are compared where TRL has the name: `Case(OURS, TRL'S)` in the tests of alignzoo-zoo."""
    ours = {peer.key for peer in LOSSES.values()}
    assert ours - set(PACKAGE_OF["objective"]) == {"dpo", "ipo", "sft"}
    cases = (ROOT / "plugins/alignzoo-zoo/tests/test_peer_trl.py").read_text(encoding="utf-8")
    named = {name.removeprefix("loss_type: "): peer.key for name, peer in LOSSES.items() if "loss_type" in name}
    assert len(named) > 15
    assert [name for name, key in named.items() if f'Case("{key}", "{name}' not in cases] == []


@pytest.mark.parametrize(
    ("override", "new"),
    [
        ("learning_rate=1e-6", "train.optimizer.learning_rate"),
        ("train.learning_rate=1e-6", "train.optimizer.learning_rate"),
        ("beta=0.1", "objective.beta"),
        ("train.bf16=true", "train.precision"),
        ("loss_type=sigmoid", "objective.name"),
        ("objective.loss_type=sigmoid", "objective.name"),
        ("train.per_device_train_batch_size=2", "train.batch_size"),
        ("gradient_accumulation_steps=8", "train.batch_size"),
        ("data.max_prompt_length=512", "tokens.max_prompt_length"),
        ("model.lora.lora_alpha=8", "model.lora.alpha"),
        ("model.model_name_or_path=x", "model.path"),
        ("sequence_len=512", "tokens.max_length"),
        ("pref_ftx=0.1", "objective"),
    ],
)
def test_the_error_for_an_unknown_key_names_ours(override, new):
    with pytest.raises(UserError) as error:
        load_recipe("sft_hh", [override])
    (problem,) = error.value.problems
    key = override.partition("=")[0]
    assert (problem.where, problem.what) == ("command line", f"{key}: the name of other trainers")
    assert (problem.expected, problem.hint) == (new, PEERS[key.rpartition(".")[2]].note)


def test_a_key_in_its_own_section_is_ours():
    with pytest.raises(UserError, match=r"objective\.beta: no such field"):
        load_recipe("sft_hh", ["objective.beta=1"])


def test_the_page_shows_every_name():
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    assert all(f"| `{key}` | `{peer.key}` |" in page for key, peer in PEERS.items())
