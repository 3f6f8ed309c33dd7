import pytest
import torch
from alignzoo_soup import Soup
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo import UserError


def save(folder, seed, size=8):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=20, hidden_size=size, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, tie_word_embeddings=True)  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model


def test_the_soup_is_the_mean_of_the_weights(tmp_path):
    one, two = save(tmp_path / "a", 1), save(tmp_path / "b", 2)
    soup = Soup(paths=(str(tmp_path / "a"), str(tmp_path / "b"))).load_model(None, 0, "language_model")
    for a, b, c in zip(one.parameters(), two.parameters(), soup.parameters(), strict=True):
        assert torch.allclose(c, (a + b) / 2)


def test_weights_are_shares(tmp_path):
    one, _ = save(tmp_path / "a", 1), save(tmp_path / "b", 2)
    paths = (str(tmp_path / "a"), str(tmp_path / "b"))
    soup = Soup(paths=paths, weights=(3.0, 0.0)).load_model(None, 0, "language_model")
    assert all(torch.allclose(a, c) for a, c in zip(one.parameters(), soup.parameters(), strict=True))
    with pytest.raises(UserError, match="1 weights for 2 paths"):
        Soup(paths=paths, weights=(1.0,)).fingerprint()


def test_the_fingerprint_is_of_the_contents(tmp_path):
    save(tmp_path / "a", 1), save(tmp_path / "b", 2), save(tmp_path / "c", 1)
    first, moved, other = (
        Soup(paths=(str(tmp_path / x), str(tmp_path / y))).fingerprint() for x, y in ("ab", "cb", "bb")
    )
    assert first == moved != other


def test_other_shapes_and_empty_folders_are_errors(tmp_path):
    save(tmp_path / "a", 1), save(tmp_path / "b", 2, size=16)
    with pytest.raises(UserError, match="differ in shape"):
        Soup(paths=(str(tmp_path / "a"), str(tmp_path / "b"))).load_model(None, 0, "language_model")
    with pytest.raises(UserError, match="no model there"):
        Soup(paths=(str(tmp_path / "a"), str(tmp_path))).fingerprint()
