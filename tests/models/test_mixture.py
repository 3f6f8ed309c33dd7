"""Draws of a mixture of two models, against an enumeration of all completions in float64."""

from __future__ import annotations

from itertools import product
from types import MappingProxyType

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.models.generation import generate_replies
from alignzoo.models.mixture import MixedBatch, Mixture, mixed_strategy

SYMBOLS, LENGTH = 3, 3
PROMPT = np.array([1, 2, 2, 1])


class Symbols:
    """The least of a tokenizer that the sampler reads: no symbol ends a completion."""

    eos_token_id = SYMBOLS
    name_or_path = "symbols"
    added_tokens_decoder = MappingProxyType({})


@pytest.fixture(scope="module")
def models():
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=SYMBOLS, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=32, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )  # fmt: skip
        model = LlamaForCausalLM(config).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8)
        found.append(model)
    return found


def mixed(models, share: float, temperature: float = 1.0) -> dict[tuple[int, ...], float]:
    """The probability of each completion: at each token pi^(1 - c) mu^c, normalized, from plain forwards."""
    found = {}
    for tokens in product(range(SYMBOLS), repeat=LENGTH):
        ids = torch.tensor([[*PROMPT, *tokens]])
        with torch.no_grad():
            first, second = ((one(ids).logits[0, len(PROMPT) - 1 : -1] / temperature).softmax(-1) for one in models)
        both = first ** (1 - share) * second**share
        probs = both / both.sum(1, keepdim=True)
        found[tokens] = float(probs[torch.arange(LENGTH), list(tokens)].prod())
    assert sum(found.values()) == pytest.approx(1)
    return found


def drawn(models, share: float, count: int, **options):
    mixture = Mixture(models[1], share)
    return generate_replies(
        models[0], Symbols(), [PROMPT] * count, temperature=options.pop("temperature", 1.0), max_new_tokens=LENGTH,
        seed=0, texts=False, mixture=mixture, keys=[(n,) for n in range(count)], **options,
    )  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_log_prob_of_a_draw_is_that_of_the_enumeration(models, share):
    want = mixed(models, share)
    for reply in drawn(models, share, 12):
        assert reply.log_prob == pytest.approx(np.log(want[tuple(reply.tokens.tolist())]), abs=1e-9)


def test_draws_have_the_frequencies_of_the_enumeration(models):
    """3,000 draws: Pearson's statistic over 26 degrees of freedom is above 60 once in 6,000 seeds."""
    want, count = mixed(models, 0.5), 3000
    seen = dict.fromkeys(want, 0)
    for reply in drawn(models, 0.5, count):
        seen[tuple(reply.tokens.tolist())] += 1
    apart = sum((seen[y] - count * p) ** 2 / (count * p) for y, p in want.items())
    assert apart < 60
    other = mixed(models, 0.0)
    assert sum((seen[y] - count * p) ** 2 / (count * p) for y, p in other.items()) > 200


def test_a_temperature_mixes_both_at_it(models):
    """The likeliest completion of the tempered mixture has the frequency that it should have."""
    want = mixed(models, 0.5, temperature=0.5)
    best = max(want, key=want.__getitem__)
    found = [tuple(reply.tokens.tolist()) for reply in drawn(models, 0.5, 400, temperature=0.5)]
    spread = 4 * (want[best] * (1 - want[best]) / 400) ** 0.5
    assert found.count(best) / 400 == pytest.approx(want[best], abs=spread)


def test_self_play_and_the_reference_alone_are_the_ends(models):
    for share, model in ((0.0, models[0]), (1.0, models[1])):
        plain = generate_replies(
            model, Symbols(), [PROMPT] * 8, temperature=1.0, max_new_tokens=LENGTH, seed=0, texts=False,
            keys=[(n,) for n in range(8)],
        )  # fmt: skip
        assert [one.tokens.tolist() for one in drawn(models, share, 8)] == [one.tokens.tolist() for one in plain]


def test_no_batch_changes_a_draw(models):
    whole, alone = drawn(models, 0.5, 6), drawn(models, 0.5, 6, budget=1)
    assert [one.tokens.tolist() for one in whole] == [one.tokens.tolist() for one in alone]


def test_the_slower_strategy_serves_both():
    assert mixed_strategy("shared", "shared") == "batched"
    assert mixed_strategy("shared", "uncached") == "uncached"
    assert mixed_strategy("single", "batched") == "single"


def test_rows_leave_both_models_together(models):
    batch = MixedBatch(models[0], Mixture(models[1], 0.5), [PROMPT, PROMPT[:2], PROMPT[1:]])
    batch.logits()
    batch.append(torch.tensor([0, 1, 2]), np.ones(3, bool))
    batch.keep(np.array([2]))
    found = batch.logits()
    alone = MixedBatch(models[0], Mixture(models[1], 0.5), [np.array([*PROMPT[1:], 2])]).logits()
    assert torch.allclose(found, alone, atol=1e-9)
