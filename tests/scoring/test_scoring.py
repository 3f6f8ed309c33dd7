"""The forest's log-probs and gradients against the plain forward: one sequence at a time, nothing of ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import FOREST, PLAIN, VOCABULARY, build

from alignzoo.core.errors import UserError
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.interfaces.requirements import DIVERGENCES
from alignzoo.models.logits import per_sequence
from alignzoo.scoring import lm_head
from alignzoo.scoring import scorer as scorer_module
from alignzoo.scoring.forest import lay_out, sequences
from alignzoo.scoring.layout import choose_layout
from alignzoo.scoring.scorer import Scorer


def random_trees(count: int = 6, seed: int = 0) -> list[Tree]:
    rng = np.random.default_rng(seed)

    def some(low: int, high: int) -> np.ndarray:
        return rng.integers(1, VOCABULARY, rng.integers(low, high)).astype(np.int32)

    return [
        Tree(f"row {i}", some(1, 25), (Branch.scored_from(some(3, 18), i % 2), Branch(some(1, 14))))
        for i in range(count)
    ]


def plain_log_prob(model, tree, branch):
    ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()[None]
    first = len(tree.prompt) + branch.context
    log_probs = model(ids, use_cache=False).logits[0].log_softmax(-1)[first - 1 : -1]
    return log_probs.gather(1, ids[0, first:, None]).sum()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


CORE = ("llama", "gpt2", "gpt_neox", "gemma3 (window)")
"""What the fast lane has."""
CASES = [(name, layout) for name in FOREST for layout in ("packed", "padded")] + [
    (name, "plain") for name in FOREST | PLAIN
]


@pytest.mark.parametrize(
    ("name", "layout"), [pytest.param(*case, marks=() if case[0] in CORE else pytest.mark.slow) for case in CASES]
)
def test_log_probs_and_gradients_agree_with_the_plain_forward(name, layout):
    model, trees = build((FOREST | PLAIN)[name]()), random_trees()
    want = torch.stack([plain_log_prob(model, tree, branch) for tree, branch in sequences(trees)])
    want_gradient = gradients(model, want.square().sum())
    forest = lay_out(trees, layout)
    got = per_sequence(Scorer(model, layout)(forest)["log_prob"], forest.offsets)
    assert ((got - want).abs() / want.abs()).max() <= 1e-5
    got_gradient = gradients(model, got.square().sum())
    assert (got_gradient - want_gradient).norm() <= 1e-5 * want_gradient.norm()


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREST)
def test_the_fastest_layout_is_chosen_that_agrees(name):
    scorer = Scorer(build(FOREST[name]()))
    layout = choose_layout(scorer, Trees.build(random_trees()), "auto")
    assert (layout.used, scorer.layout, scorer.whole_head) == ("packed", "packed", False)
    assert "agrees with the one-sequence forward" in layout.reason


def test_a_model_whose_attention_was_chosen_by_hand_keeps_it_and_takes_the_mask():
    model = build(FOREST["llama"]())
    model.set_attn_implementation("eager")
    layout = choose_layout(Scorer(model), Trees.build(random_trees()), "auto")
    assert (layout.used, model.config._attn_implementation) == ("padded", "eager")
    assert layout.reason == "packed rejected: the model's attention can't be replaced"


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_the_plain_layout_is_chosen_with_a_reason_where_the_forest_fails(name):
    scorer = Scorer(build(PLAIN[name]()))
    layout = choose_layout(scorer, Trees.build(random_trees()), "auto")
    assert (layout.used, scorer.layout) == ("plain", "plain")
    assert "padded rejected: " in layout.reason


def test_a_model_that_ignores_the_mask_is_found_out(monkeypatch):
    """A silent disagreement is the dangerous one: the mask is dropped, everything runs, the numbers are wrong."""
    model = build(FOREST["llama"]())
    forward = model.model.forward

    def deaf(**inputs):
        if inputs.get("attention_mask") is not None and inputs["attention_mask"].dim() == 4:
            inputs["attention_mask"] = None
        return forward(**inputs)

    scorer = Scorer(model)
    monkeypatch.setattr(model.model, "forward", deaf)
    layout = choose_layout(scorer, Trees.build(random_trees()), "auto")
    assert layout.used == "plain"
    assert "log-probs differ by up to" in layout.reason


def test_a_forest_that_was_asked_for_and_fails_is_an_error():
    with pytest.raises(UserError, match=r"padded rejected.*\n.*train\.layout: auto"):
        choose_layout(Scorer(build(PLAIN["bloom"]())), Trees.build(random_trees()), "padded")


def test_a_head_that_does_more_than_a_product_uses_the_models_own_logits(monkeypatch):
    """Cohere scales its logits; a head unknown to us is noticed and taken from the model's forward."""
    import transformers as hf

    config = hf.CohereConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        logit_scale=0.25, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model, trees = build(config), random_trees()
    for parameter in model.parameters():
        parameter.data.mul_(5)  # random weights are so small that a scale would hide in the tolerance
    scorer = Scorer(model)
    layout = choose_layout(scorer, Trees.build(trees), "auto")
    assert scorer.whole_head
    assert "the model's own forward" in layout.reason
    forest = lay_out(trees, scorer.layout)
    want = torch.stack([plain_log_prob(model, tree, branch) for tree, branch in sequences(trees)])
    assert torch.allclose(per_sequence(scorer(forest)["log_prob"], forest.offsets), want, rtol=1e-5)


def test_softcapped_logits_are_capped():
    import transformers as hf

    config = FOREST["gemma3 (window)"]().to_dict() | {"final_logit_softcapping": 0.5}
    model, trees = build(hf.Gemma3TextConfig(**config)), random_trees()
    forest = lay_out(trees)
    want = torch.stack([plain_log_prob(model, tree, branch) for tree, branch in sequences(trees)])
    assert torch.allclose(per_sequence(Scorer(model)(forest)["log_prob"], forest.offsets), want, rtol=1e-5)


@pytest.mark.parametrize("kept", [0, 40 * 4 * VOCABULARY, 2**29], ids=["recomputed", "some", "kept"])
@pytest.mark.parametrize("rows", [1, 7])
def test_the_chunked_head_changes_nothing(monkeypatch, rows, kept):
    model, trees = build(FOREST["llama"]()), random_trees()
    forest = lay_out(trees)
    want = Scorer(model)(forest)["log_prob"]
    want_gradient = gradients(model, want.square().sum())
    monkeypatch.setattr(lm_head, "CHUNK_BYTES", rows * 4 * VOCABULARY)
    monkeypatch.setattr(lm_head, "BLOCK_BYTES", {"cpu": 3 * 4 * VOCABULARY})
    monkeypatch.setattr(lm_head, "KEPT_BYTES", kept)
    got = Scorer(model)(forest)["log_prob"]
    assert torch.allclose(got, want, rtol=1e-6)
    assert torch.allclose(gradients(model, got.square().sum()), want_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_bfloat16_is_no_worse_than_the_plain_forward_in_bfloat16(layout):
    """The truth is float32; the forest may be off by as much as a plain bfloat16 forward is, and rounding."""
    model, trees = build(FOREST["llama"]()), random_trees(12)
    forest = lay_out(trees, layout)
    with torch.no_grad():
        truth = torch.stack([plain_log_prob(model, tree, branch) for tree, branch in sequences(trees)])
        with torch.autocast("cpu", torch.bfloat16):
            naive = torch.stack([plain_log_prob(model, tree, branch).float() for tree, branch in sequences(trees)])
        ours = per_sequence(Scorer(model, layout, "bfloat16")(forest)["log_prob"], forest.offsets)
    assert ours.dtype == torch.float32
    assert 0 < (ours - truth).abs().max() <= 2 * (naive - truth).abs().max() + 1e-2


def test_shared_prompts_get_the_gradient_of_both_completions():
    """Two equal branches: the gradient is twice that of one."""
    prompt, tail = np.array([5, 6, 7], np.int32), Branch(np.array([8, 9], np.int32))
    model = build(FOREST["llama"]())
    one, two = lay_out([Tree("a", prompt, (tail,))]), lay_out([Tree("a", prompt, (tail, tail))])
    single = gradients(model, Scorer(model)(one)["log_prob"].sum()).clone()
    assert torch.allclose(gradients(model, Scorer(model)(two)["log_prob"].sum()), 2 * single, rtol=1e-4, atol=1e-6)


def written_out(model, live, tree, branch):
    """Every statistic of one sequence's tokens, from the definitions, and the reference's log-probs."""
    ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()[None]
    first = len(tree.prompt) + branch.context
    p = model(ids, use_cache=False).logits[0].log_softmax(-1)[first - 1 : -1]
    with torch.no_grad():
        q = live(ids, use_cache=False).logits[0].log_softmax(-1)[first - 1 : -1]
    return {
        "log_prob": p.gather(1, ids[0, first:, None])[:, 0],
        "entropy": torch.distributions.Categorical(logits=p).entropy(),
        "log_collision_prob": p.exp().square().sum(1).log(),
        "forward_kl": torch.nn.functional.kl_div(p, q, log_target=True, reduction="none").sum(1),  # KL(q || p)
        "reverse_kl": torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(1),
        "ref_log_prob": q.gather(1, ids[0, first:, None])[:, 0],
    }


STATISTICS = ("entropy", "log_collision_prob", "forward_kl", "reverse_kl")


@pytest.mark.parametrize("elements", [2**25, 5 * VOCABULARY], ids=["one chunk", "many"])
@pytest.mark.parametrize("layout", ["packed", "padded", "plain"])
def test_statistics_and_a_live_reference_are_what_their_definitions_say(monkeypatch, elements, layout):
    monkeypatch.setattr(scorer_module, "HEAD_CHUNK_ELEMENTS", elements)
    model, live = build(FOREST["llama"]()).double(), build(FOREST["llama"](), seed=1).double().requires_grad_(False)
    for parameter in (*model.parameters(), *live.parameters()):
        parameter.data.mul_(2)  # so that distributions are far from uniform, and from each other
    trees = random_trees()
    forest = lay_out(trees, layout)
    got = Scorer(model, layout)(forest, STATISTICS, Scorer(live, layout))
    want = [written_out(model, live, tree, branch) for tree, branch in sequences(trees)]
    wanted = {name: torch.cat([one[name] for one in want]) for name in got}
    assert wanted.keys() == {"log_prob", "ref_log_prob", *STATISTICS}
    for name, values in got.items():
        assert torch.allclose(values, wanted[name], rtol=1e-9, atol=1e-12), name
    assert not got["ref_log_prob"].requires_grad
    got_gradient, want_gradient = (
        gradients(model, sum(found[name].square().sum() for name in ("log_prob", *STATISTICS))).clone()
        for found in (got, wanted)
    )
    assert (got_gradient - want_gradient).norm() <= 1e-6 * want_gradient.norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_live_reference_says_what_it_says_alone(precision):
    model, other, forest = build(FOREST["llama"]()), build(FOREST["llama"](), seed=1), lay_out(random_trees())
    live = Scorer(other.requires_grad_(False), precision=precision)
    beside = Scorer(model, precision=precision)(forest, DIVERGENCES, live)
    assert torch.allclose(beside["ref_log_prob"], live(forest)["log_prob"], rtol=1e-6)
    assert all((beside[name] > 0).all() for name in DIVERGENCES)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_policy_that_is_its_live_reference_has_ratios_and_kl_of_exactly_zero(precision):
    model, same, forest = build(FOREST["llama"]()), build(FOREST["llama"]()), lay_out(random_trees())
    live = Scorer(same.requires_grad_(False), precision=precision)
    found = Scorer(model, precision=precision)(forest, DIVERGENCES, live)
    assert torch.equal(found["log_prob"], found["ref_log_prob"])
    assert all((found[name] == 0).all() for name in DIVERGENCES)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_kl_needs_a_live_reference(name):
    with pytest.raises(ValueError, match=f"no statistic {name} without a live reference"):
        Scorer(build(FOREST["llama"]()))(lay_out(random_trees()), (name,))


@pytest.mark.parametrize("layout", ["padded", "plain"])
def test_a_reward_model_is_read_at_each_sequences_last_token(layout):
    """The oracle is transformers' own head, one sequence at a time."""
    import transformers as hf

    config = hf.LlamaConfig(**FOREST["llama"]().to_dict() | {"num_labels": 1, "pad_token_id": None})
    torch.manual_seed(0)
    model, trees = hf.AutoModelForSequenceClassification.from_config(config).eval(), random_trees()
    want = torch.stack([
        model(torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()[None]).logits[0, 0]
        for tree, branch in sequences(trees)
    ])  # fmt: skip
    got = Scorer(model, layout)(lay_out(trees, layout))
    assert got.keys() == {"scalar"}
    assert torch.allclose(got["scalar"], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["padded", "plain"])
def test_a_reward_model_with_tied_embeddings_is_a_language_model_too(layout):
    """The oracle is transformers' language model with the same body."""
    import transformers as hf

    from alignzoo.core.errors import UserError

    shape = FOREST["llama"]().to_dict() | {"num_labels": 1, "pad_token_id": None, "tie_word_embeddings": True}
    torch.manual_seed(0)
    model, trees = hf.AutoModelForSequenceClassification.from_config(hf.LlamaConfig(**shape)).eval(), random_trees()
    language = hf.LlamaForCausalLM(hf.LlamaConfig(**shape)).eval()
    language.model.load_state_dict(model.model.state_dict())
    want = Scorer(language, layout)(lay_out(trees, layout))["log_prob"]
    got = Scorer(model, layout)(lay_out(trees, layout), ("log_prob",))
    assert torch.allclose(got["log_prob"], want, rtol=1e-5, atol=1e-6)
    assert torch.equal(got["scalar"], Scorer(model, layout)(lay_out(trees, layout))["scalar"])
    model.config.tie_word_embeddings = False
    with pytest.raises(UserError, match="needs a language head too, and LlamaForSequenceClassification has none"):
        Scorer(model, layout)(lay_out(trees, layout), ("log_prob",))
