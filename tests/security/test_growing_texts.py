"""A tokenizer or chat template that makes little of its trial and much of real text ends in its child, in a sentence."""

from __future__ import annotations

import time

import pytest
import yaml
from byte_tokenizer import byte_tokenizer
from tokenizers import Regex, decoders, normalizers, pre_tokenizers

from alignzoo.core.errors import UserError
from alignzoo.data import tokenize_pipeline
from alignzoo.data.row_reader import RowReader
from alignzoo.data.tokenize_pipeline import TokenizePipeline
from alignzoo.evaluation.judges import texts
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.rows import Completion, Row
from alignzoo.models import from_pretrained, tokenizers
from alignzoo.recipe.load import load_recipe

DOUBLED = [normalizers.Replace("q", "qq") for _ in range(40)]
SLOW = Regex("(x+x+)+y")
TEMPLATES = {
    "time": "{% if messages|length > 2 %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}x",
    "memory": "{% if messages|length > 2 %}{% set ns = namespace(t='ab') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}{% endif %}x",
}  # fmt: skip


class Rows(DataSource):
    """One pair with the letters that are doubled, and a chat of three messages."""

    name = "rows"
    chats: bool = False

    def read(self, split):
        prompt = tuple({"role": role, "content": "Hi"} for role in ("user", "assistant", "user"))
        for n in range(8):
            own = [({"role": "assistant", "content": text},) if self.chats else text for text in "ab"]
            pair = Completion(own[0]), Completion(own[1])
            yield Row(f"row {n}", prompt if self.chats else "q" + "x" * 40, pair, f"{n}")


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """`refused(tokenizer, chats)`: tokenize the rows, and return what is said, in a few seconds."""
    monkeypatch.setattr(tokenize_pipeline, "SECONDS", 0.5)
    node = {
        "objective": "dpo", "model": {"path": "nowhere"}, "data": {"name": "toy"},
        "train": {"optimizer": {"name": "sgd", "learning_rate": 1}},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(node))
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe

    def check(tokenizer, chats: bool = False) -> str:
        (tmp_path / "work").mkdir()
        reader = RowReader(Rows(chats=chats))
        began = time.monotonic()
        with pytest.raises(UserError) as error:
            TokenizePipeline(reader, tokenizer, recipe, tmp_path / "work").prepare(tmp_path / "rows")
        assert time.monotonic() - began < 300  # a hang, whatever the machine does besides
        return str(error.value)

    return check


@pytest.mark.slow
def test_a_normalizer_that_doubles_a_letter(refused):
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(DOUBLED)
    assert "tokenizing rows row " in refused(tokenizer)


def test_a_pattern_that_takes_exponential_time(refused):
    tokenizer = byte_tokenizer()
    own = tokenizer.backend_tokenizer.pre_tokenizer
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(SLOW, "isolated"), own])
    said = refused(tokenizer)  # the library has a limit of its own, which a busy machine may not reach in time
    assert "Regex search error: retry-limit-in-match over" in said or "tokenizing rows row " in said


@pytest.mark.slow
@pytest.mark.parametrize("takes", TEMPLATES)
def test_a_template_that_hangs_or_grows_in_long_chats_alone(refused, takes):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATES[takes]
    assert "tokenizing rows row " in refused(tokenizer, chats=True)


@pytest.mark.slow
def test_a_decoder_that_grows(monkeypatch):
    tokenizer = byte_tokenizer()
    own = tokenizer.backend_tokenizer.decoder
    tokenizer.backend_tokenizer.decoder = decoders.Sequence([own, *(decoders.Replace("q", "qq") for _ in range(40))])
    assert tokenizers.decode(tokenizer, [tokenizer("abc")["input_ids"]], skip_special_tokens=True) == ["abc"]
    monkeypatch.setattr(tokenizers, "SECONDS", 0.5)
    with pytest.raises(UserError, match="decoding tokens"):
        tokenizers.decode(tokenizer, [tokenizer("q")["input_ids"]])


@pytest.mark.slow
def test_a_classifier_that_makes_much_of_a_reply(monkeypatch):
    tokenizer = byte_tokenizer()
    assert texts.read(lambda: [texts.Text("abc")], tokenizer, 10, 3)[0]["input_ids"] == tokenizer("abc")["input_ids"]
    monkeypatch.setattr(texts, "SECONDS", 0.5)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(DOUBLED)
    with pytest.raises(UserError, match="tokenizing replies"):
        texts.read(lambda: [texts.Text("q")], tokenizer, 10, 1)


def test_a_tokenizer_slow_at_its_trial_is_not_used_again(tmp_path, monkeypatch):
    byte_tokenizer().save_pretrained(tmp_path / "slow")
    monkeypatch.setattr(from_pretrained, "MOST_SECONDS_OF_USE", -1.0)
    with pytest.raises(UserError, match=r"slow: the tokenizer or its chat template takes .* s for a few words"):
        tokenizers.pretrained_tokenizer(str(tmp_path / "slow"))
