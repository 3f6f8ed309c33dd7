"""Layouts against the model's own forward on what a short probe does not reach: windows, chunks, lengths, routers.

The oracle is a second model of the same weights that nothing of ours has touched, one sequence at a time.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers as hf
from architectures import CHANGING, FOREST, VOCABULARY, build, spread

from alignzoo.core.errors import UserError
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.models import oracle
from alignzoo.models.attention import NAME
from alignzoo.models.probes import probe, turning_points
from alignzoo.models.rope import length_rules, reset_frequencies
from alignzoo.scoring.forest import LAYOUTS, lay_out, sequences
from alignzoo.scoring.layout import choose_layout
from alignzoo.scoring.scorer import Scorer


def trees_of(lengths, seed: int = 0) -> list[Tree]:
    """Trees whose longest sequences have these lengths; the second branch is half as long as the first."""
    rng = np.random.default_rng(seed)

    def some(count: int) -> np.ndarray:
        return rng.integers(1, VOCABULARY, count).astype(np.int32)

    return [
        Tree(f"row {i}", some(n - n // 4), (Branch(some(n // 4)), Branch(some(n // 8))))
        for i, n in enumerate(lengths)
    ]  # fmt: skip


def untouched(name: str, trees: list[Tree], dtype=torch.float32) -> torch.Tensor:
    """Token log-probs of every sequence by a fresh model each: no state of an earlier forward."""
    found, model = [], spread(build(CHANGING[name]())).to(dtype)
    for tree, branch in sequences(trees):
        ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()
        first = len(tree.prompt) + branch.context
        with torch.no_grad():
            logits = copy.deepcopy(model)(ids[None], use_cache=False).logits[0].float()
        found.append(logits.log_softmax(-1)[first - 1 : -1].gather(1, ids[first:, None])[:, 0])
    return torch.cat(found)


LENGTHS = {
    "deepseek_v32 (top 16)": [40, 60, 90, 20],
    "gpt_neo (window)": [30, 24, 40, 28, 150, 36],
    "llama4 (chunk)": [30, 24, 40, 28, 150, 36],
    "phi3 (longrope)": [30, 80, 64, 65, 40, 70],
    "llama (dynamic rope)": [30, 80, 64, 65, 40, 80],
    "recurrent_gemma": [30, 50, 60, 20],
    "mistral (window)": [30, 50, 60, 20],
    "qwen3_next": [30, 50, 20],
    "gemma3 (longrope)": [30, 80, 40],
}
USED = {"deepseek_v32 (top 16)": "plain", "gpt_neo (window)": "plain", "recurrent_gemma": "plain"}


@pytest.mark.parametrize("name", LENGTHS)
def test_what_is_scored_is_what_the_untouched_model_gives_for_each_sequence_alone(name):
    trees = trees_of(LENGTHS[name])
    scorer = Scorer(spread(build(CHANGING[name]())))
    layout = choose_layout(scorer, Trees.build(trees), "auto")
    with torch.no_grad():
        got = scorer(lay_out(trees, layout.used))["log_prob"]
    assert (got - untouched(name, trees)).abs().max() <= 1e-4
    assert name not in USED or layout.used == USED[name]


def test_the_longest_row_is_probed_wherever_it_stands():
    """GPT-Neo drops its window of a tree's slots, not of a sequence's: seen in the last of 600 rows alone."""
    trees = Trees.build(trees_of([8] * 600 + [150]))
    points = turning_points(CHANGING["gpt_neo (window)"]())
    assert 64 in points
    assert probe(trees, points)[0].id == "row 600"
    scorer = Scorer(spread(build(CHANGING["gpt_neo (window)"]())))
    assert choose_layout(scorer, trees, "auto").used == "plain"


def test_rows_on_both_sides_of_a_length_in_the_config_are_probed():
    lengths = [20, 120, 63, 66, 40, 90, 30]
    found = probe(Trees.build(trees_of(lengths)), [64])
    assert {"row 1", "row 2", "row 3"} <= {tree.id for tree in found}


@pytest.mark.parametrize(
    ("name", "length"),
    [("deepseek_v32 (top 16)", 16), ("gpt_neo (window)", 64), ("llama4 (chunk)", 64), ("recurrent_gemma", 32)],
)
def test_window_chunk_and_top_k_of_a_config_are_lengths_to_probe(name, length):
    assert length in turning_points(CHANGING[name]())


def test_the_attention_of_the_model_is_switched_for_packed_rows_alone_and_not_for_the_oracle(monkeypatch):
    seen = []
    own = oracle.sequence_logits

    def spied(model, tokens):
        seen.append(model.config._attn_implementation)
        return own(model, tokens)

    monkeypatch.setattr(oracle, "sequence_logits", spied)
    scorer, trees = Scorer(build(FOREST["llama"]())), trees_of([20, 30])
    assert choose_layout(scorer, Trees.build(trees), "auto").used == "packed"
    assert set(seen) == {"sdpa"}
    assert scorer.model.config._attn_implementation == NAME
    within = []
    hook = scorer.model.register_forward_pre_hook(lambda own, _: within.append(own.config._attn_implementation))
    want = oracle.sequence_log_probs(scorer.model, trees[0].prompt, trees[0].branches[0])
    hook.remove()
    assert within == ["sdpa"], "the oracle runs with the attention that the model was loaded with"
    scorer(lay_out(trees, "plain"))
    assert scorer.model.config._attn_implementation == "sdpa"
    again = oracle.sequence_log_probs(scorer.model, trees[0].prompt, trees[0].branches[0])
    assert torch.equal(want, again)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["phi3 (longrope)", "llama (dynamic rope)"])
def test_a_rows_score_does_not_depend_on_its_neighbors_length_and_neither_does_its_gradient(name, layout):
    trees = trees_of([30, 90, 66, 20])  # the tree of 66 has branches on both sides of 64
    scorer = Scorer(spread(build(CHANGING[name]())), layout)
    got = scorer(lay_out(trees, layout))["log_prob"]
    assert (got - untouched(name, trees)).abs().max() <= 1e-4
    got.square().sum().backward()
    weight = next(scorer.model.parameters())
    together = weight.grad.clone()
    weight.grad = None
    for tree, branch in sequences(trees):
        scorer(lay_out([Tree(tree.id, tree.prompt, (branch,))], layout))["log_prob"].square().sum().backward()
    assert (weight.grad - together).norm() <= 1e-5 * together.norm()


def test_a_dynamic_rope_forgets_the_longest_sequence_that_it_has_seen():
    name = "llama (dynamic rope)"
    model, trees = spread(build(CHANGING[name]())), trees_of([90, 70])
    alone = untouched(name, trees[1:])
    for tree, branch in sequences(trees[:1]):
        oracle.sequence_log_probs(model, tree.prompt, branch)
    found = [oracle.sequence_log_probs(model, tree.prompt, branch) for tree, branch in sequences(trees[1:])]
    assert torch.equal(torch.cat(found), alone)
    reset_frequencies(model)
    assert int(model.model.rotary_emb.max_seq_len_cached) == 64


def test_yarn_and_llama3_frequencies_do_not_depend_on_the_length():
    for kind in ("yarn", "llama3", "linear"):
        more = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
        rope = {"rope_type": kind, "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 32, **more}
        if kind == "linear":
            del rope["original_max_position_embeddings"]
        config = hf.LlamaConfig(**FOREST["llama"]().to_dict() | {"rope_parameters": rope})
        assert length_rules(config) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_encoder_is_rejected_and_its_causal_form_is_not(dtype):
    """With untrained weights the later tokens move a log-prob by 4e-4 nats, less than layouts may differ by."""
    config = hf.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    trees = Trees.build(trees_of([20, 30]))
    with pytest.raises(UserError, match=r"BertLMHeadModel is not causal: .* row 1 .*\n?.*is_decoder"):
        choose_layout(Scorer(build(config).to(dtype)), trees, "auto")
    config.is_decoder = True
    assert choose_layout(Scorer(build(config).to(dtype)), trees, "auto").used == "packed"


LEAK = 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_a_leak_far_below_any_tolerance_is_rejected(monkeypatch, dtype, layout):
    """The last layer's norm gets a hundred-thousandth of the mean of the slots before, less than layouts may differ by."""
    model = build(FOREST["llama"]()).to(dtype)
    forward = model.model.norm.forward

    def leaking(hidden):
        mean = hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None].to(hidden.dtype)
        return forward(hidden + (1e-2 if dtype == torch.bfloat16 else LEAK) * mean)

    monkeypatch.setattr(model.model.norm, "forward", leaking)
    why = r"change by .* with tokens outside the sequence" if dtype == torch.float32 else "rejected"
    with pytest.raises(UserError, match=why):
        choose_layout(Scorer(model), Trees.build(trees_of([20, 30, 12])), layout)


def test_a_mixture_of_experts_in_bfloat16_is_trained_in_packed_rows():
    """A router at a near tie flips between any two shapes, by whole nats: its choices are held to the oracle's."""
    model = spread(build(CHANGING["mixtral (8 experts)"]())).to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scorer = Scorer(model)
    assert choose_layout(scorer, Trees.build(trees_of([40, 50, 80, 20] * 3)), "auto").used == "packed"
    assert all(tensor.dtype == torch.bfloat16 for tensor in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_router_at_a_near_tie_is_held_to_the_choice_of_the_oracle():
    """Two experts tie, and the number of tokens in a forward decides between them, as rounding does."""
    model = spread(build(CHANGING["mixtral (8 experts)"]()))

    def tilt(gate, given):
        many = given[0].numel() // given[0].shape[-1] > 100  # packed rows, and no sequence alone
        gate.weight.data[1] = gate.weight.data[0] * (1 + (1e-6 if many else -1e-6))

    model.model.layers[0].mlp.gate.register_forward_pre_hook(tilt)
    assert choose_layout(Scorer(model), Trees.build(trees_of([40, 50, 80, 20])), "packed").used == "packed"


def test_experts_whose_rounding_depends_on_their_load_are_no_leak(monkeypatch):
    """Tokens that a sequence may not see change the load of its experts, unless their choices are repeated."""
    model = spread(build(CHANGING["mixtral (8 experts)"]()))
    experts = model.model.layers[0].mlp.experts
    forward = experts.forward

    def loaded(hidden, index, weights):
        return forward(hidden, index, weights) + 1e-8 * index.flatten().bincount()[index].sum(-1, keepdim=True)

    monkeypatch.setattr(experts, "forward", loaded)
    assert choose_layout(Scorer(model), Trees.build(trees_of([40, 50, 80, 20])), "packed").used == "packed"


def test_a_wrong_choice_of_experts_is_no_near_tie(monkeypatch):
    """Repeated choices do not hide a router that reads other tokens."""
    model = spread(build(CHANGING["mixtral (8 experts)"]()))
    gate = model.model.layers[0].mlp.gate
    forward = gate.forward
    monkeypatch.setattr(
        gate, "forward", lambda hidden, *more: forward(hidden + torch.cat([hidden[:1], hidden[:-1]]), *more)
    )
    with pytest.raises(UserError, match="can't be scored"):
        choose_layout(Scorer(model), Trees.build(trees_of([40, 50, 80, 20])), "packed")


@pytest.mark.parametrize("name", ["mistral (window)", "gemma3 (window)"])
def test_a_token_just_inside_the_window_moves_a_score_and_one_just_outside_does_not(name):
    config = FOREST[name]()
    config.num_hidden_layers, config.layer_types = 1, None if name.startswith("mistral") else ["sliding_attention"]
    window, model = config.sliding_window, spread(build(config))
    tree = trees_of([40])[0]
    for layout in LAYOUTS:
        scorer = Scorer(model, layout)
        moved = []
        for back in (window - 1, window):  # counted from the slot that predicts the last token
            whole = np.concatenate([tree.prompt, tree.branches[0].tokens])
            whole[len(whole) - 2 - back] += 1 if whole[len(whole) - 2 - back] < 90 else -1
            cut = len(tree.prompt)
            changed = Tree(tree.id, whole[:cut], (Branch(whole[cut:]), tree.branches[1]))
            scored = [
                scorer(lay_out([one], layout))["log_prob"][len(tree.branches[0].tokens) - 1] for one in (tree, changed)
            ]
            moved.append(bool(scored[0] != scored[1]))
        assert moved == [True, False], layout
