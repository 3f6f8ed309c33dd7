"""A draw is a function of weights, seed, rollout, row and number; prompts that leave no room are not drawn for."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
import torch
from architectures import FOREST, VOCABULARY, build

from alignzoo.core.errors import UserError
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.models.continuous_batching import SharedBatch
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.rollouts.draw import Draws, draw
from alignzoo.rollouts.prompts import Prompts
from alignzoo.rollouts.scores import TokenValues, at_temperature, score_rows
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.scorer import Scorer

CONFIG = RolloutConfig(completions=3, max_new_tokens=6, rewards=())


class Letters:
    """The least of a tokenizer that the sampler reads."""

    eos_token_id = 0
    name_or_path = "letters"
    added_tokens_decoder = MappingProxyType({})

    def decode(self, tokens, **_):
        return " ".join(map(str, tokens))


@pytest.fixture(scope="module")
def model():
    with torch.no_grad():
        found = build(FOREST["llama"]())
        for parameter in found.parameters():
            parameter.mul_(2)
    return found


def some(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, VOCABULARY, size).astype(np.int32)


PROMPTS = [some(1, 5), some(2, 9), some(1, 5)]
"""The first and the last are equal."""


def completions(model, places, seed=0, rollout=0, config=CONFIG, **more) -> dict[tuple[int, int], list[int]]:
    found = draw(model, Letters(), [PROMPTS[i] for i in places], places, config, seed=seed, rollout=rollout, **more)
    each = len(found) // len(places)
    return {(row, n): found[i * each + n].tolist() for i, row in enumerate(places) for n in range(each)}


def test_a_draw_depends_on_its_key_alone(model):
    whole = completions(model, [0, 1, 2])
    assert len({tuple(tokens) for tokens in whole.values()}) == 9  # equal prompts and numbers differ
    for places in ([2], [1, 0], [0, 2, 1]):
        assert completions(model, places) == {key: tokens for key, tokens in whole.items() if key[0] in places}
    fewer = completions(model, [0, 1, 2], numbers=range(2))
    assert fewer == {key: tokens for key, tokens in whole.items() if key[1] < 2}
    assert completions(model, [0, 1, 2], seed=1) != whole
    assert completions(model, [0, 1, 2], rollout=1) != whole


def test_a_draw_does_not_depend_on_the_batch(model, monkeypatch):
    """The recipe's tokens of a batch reach the sampler, down to one draw at a time."""
    completions(model, [0, 1, 2])  # chooses how to decode, with steps of its own
    rows, step = [], SharedBatch.step
    monkeypatch.setattr(SharedBatch, "step", lambda batch, tokens: rows.append(len(tokens)) or step(batch, tokens))
    found, widest = [], []
    for tokens in (1, 40, RolloutConfig.model_fields["batch_tokens"].default):
        rows.clear()
        config = CONFIG.model_copy(update={"batch_tokens": tokens})
        found.append(completions(model, [0, 1, 2], config=config))
        widest.append(max(rows))
    assert widest[0] == 1 < widest[1] < widest[2] == 9
    assert found[0] == found[1] == found[2]


def test_greedy_draws_are_the_likeliest_once_a_prompt(model):
    greedy = completions(model, [0, 1, 2], greedy=True)
    assert set(greedy) == {(0, 0), (1, 0), (2, 0)}
    assert greedy[0, 0] == greedy[2, 0]
    ids = torch.tensor(PROMPTS[0]).long()[None]
    assert greedy[0, 0][0] == int(model(ids).logits[0, -1].argmax())


def test_draws_survive_arrays():
    draws = Draws(
        np.array([4, 5, 0, 6], np.int32), np.array([0, 3, 4]), np.array([True, False]), np.array([-1.0, -2.0])
    )
    again = Draws.from_arrays(draws.arrays())
    assert [tokens.tolist() for tokens in again] == [[4, 5, 0], [6]]
    assert again.finished.tolist() == [True, False]
    assert again.lengths.tolist() == [3, 1]


def rows(*sizes: int) -> TokenizedRows:
    return TokenizedRows(
        Trees.build(Tree(f"r{n}", some(n, size), (Branch(some(9, 3)),)) for n, size in enumerate(sizes)), ()
    )


def test_prompts_without_room_are_left_out_and_counted():
    said: list[str] = []
    found = Prompts.of(rows(4, 20, 6), 16, 8, said.append)
    assert found.rows.tolist() == [0, 2]
    assert said == ["rollout: 1 prompts leave no room for 8 new tokens, and are left out"]
    assert found.ids(np.array([1])) == ["r2"]
    with pytest.raises(UserError, match="no prompt leaves room for 14 new tokens in 16"):
        Prompts.of(rows(4, 20, 6), 16, 14, said.append)


def test_probes_have_the_longest_prompt_and_draws_up_to_the_limit():
    trees = Prompts.of(rows(*[4] * 80, 30, *[5] * 80), 64, 8, print).probes(4, 8, VOCABULARY)
    assert max(len(tree.prompt) for tree in trees) == 30
    assert [len(branch.tokens) for branch in trees[0].branches] == [8, 5, 3, 1]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
@pytest.mark.parametrize("statistics", [(), ("entropy", "reverse_kl")])
def test_log_probs_at_a_temperature_are_those_of_divided_logits(model, temperature, statistics):
    """Values and gradients against the plain forward of one sequence, in float64."""
    double, other = build(FOREST["llama"]()).double(), build(FOREST["llama"](), seed=1).double().requires_grad_(False)
    tree = Tree("one", PROMPTS[1], (Branch(some(4, 5)),))
    scorer, live = Scorer(double), Scorer(other) if statistics else None
    with at_temperature(temperature, scorer, live):
        found = scorer(lay_out([tree]), statistics, live)
    ids = torch.from_numpy(np.concatenate([tree.prompt, tree.branches[0].tokens])).long()[None]
    start = len(tree.prompt)
    p, q = ((one(ids).logits[0] / temperature).log_softmax(-1)[start - 1 : -1] for one in (double, other))
    want = {"log_prob": p.gather(1, ids[0, start:, None])[:, 0]}
    if statistics:
        want |= {"entropy": -(p.exp() * p).sum(1), "reverse_kl": (p.exp() * (p - q)).sum(1)}
        want["ref_log_prob"] = q.gather(1, ids[0, start:, None])[:, 0]
    assert found.keys() == want.keys()
    for name, value in found.items():
        assert torch.allclose(value, want[name], rtol=1e-9, atol=1e-11), name
    mine, theirs = (
        torch.autograd.grad(one["log_prob"].square().sum(), double.get_input_embeddings().weight)
        for one in (found, want)
    )
    assert torch.allclose(mine[0], theirs[0], rtol=1e-6, atol=1e-10)
    assert scorer.temperature == 1


def test_scores_are_in_the_order_of_trees_whatever_the_budget(model):
    trees = Trees.build(
        Tree(f"{n}", some(n, 3 + n), (Branch(some(20 + n, 2 + n)), Branch(some(40 + n, 1)))) for n in range(5)
    )
    scorer = Scorer(model)
    whole, parts = (score_rows(scorer, trees, budget, print)["log_prob"] for budget in (10_000, 1))
    assert np.allclose(whole, parts, atol=1e-5)
    values = TokenValues(trees, whole)
    alone = scorer(lay_out([trees[3]]))["log_prob"].detach().numpy()
    assert np.allclose(np.concatenate([values.tokens(3, 0), values.tokens(3, 1)]), alone, atol=1e-5)
