"""A reply is what the policy, alone with its prompt, would have said: whatever the batch, and counted exactly."""

from __future__ import annotations

from functools import wraps

import numpy as np
import pytest
import torch
from architectures import CHANGING, FOREST, PLAIN, VOCABULARY, build, spread
from byte_tokenizer import byte_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo.core.errors import UserError
from alignzoo.models.decoding import BATCHED, SHARED, choose_strategy
from alignzoo.models.generation import end_tokens, generate_replies
from alignzoo.models.loading import use_gradient_checkpointing
from alignzoo.models.sampling import draw, nucleus

EVERY = FOREST | PLAIN
CORE = ("llama", "gpt2", "gpt_neox", "mamba")
"""What the fast lane has."""
MOST, LONGEST = 24, 21
BATCHES = {"1": 1, "3": 3 * (LONGEST + MOST), "8": 8 * (LONGEST + MOST), "all": 10**6}
"""Rows at least in a batch -> the budget that makes it so."""


def some_prompts(count: int = 11, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = [LONGEST, 1, *rng.integers(1, LONGEST, count - 2)]
    return [rng.integers(4, VOCABULARY, length).astype(np.int32) for length in lengths]


def replies(model, prompts, temperature=1.0, tokenizer=None, **options):
    options = {"max_new_tokens": MOST, "seed": 0} | options
    return generate_replies(model, tokenizer or byte_tokenizer(), prompts, temperature=temperature, **options)


def tokens_of(said) -> list[list[int]]:
    return [reply.tokens.tolist() for reply in said]


def plain_logits(model, prompt, reply) -> torch.Tensor:
    """What each token of the reply was drawn from: one forward, no cache, no padding."""
    ids = torch.from_numpy(np.concatenate([prompt, reply.tokens])).long()[None]
    with torch.no_grad():
        return model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]


# --- the same as one at a time


@pytest.mark.parametrize("name", [pytest.param(one, marks=() if one in CORE else pytest.mark.slow) for one in EVERY])
def test_greedy_is_what_transformers_generates_one_by_one(name):
    model, prompts, tokenizer = build(EVERY[name]()), some_prompts(5), byte_tokenizer()
    want = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt).long()[None]
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MOST, pad_token_id=0,
            eos_token_id=sorted(end_tokens(model, tokenizer)),
        )  # fmt: skip
        want.append(out[0, len(prompt) :].tolist())
    assert tokens_of(replies(model, prompts, temperature=0)) == want


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma3 (window)"])
def test_shared_prompts_are_exact_for_usual_models(name):
    """Otherwise the check before the first reply would make every model slow, and no result wrong."""
    prompts = some_prompts(5)
    assert len({len(prompt) for prompt in prompts}) > 1
    with torch.no_grad():
        assert choose_strategy(build(EVERY[name]()).eval(), prompts, [MOST] * 5) == SHARED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "opt", "gemma3 (window)", "bloom", "mamba"])
def test_what_is_drawn_does_not_depend_on_the_batch(name):
    model, prompts = build(EVERY[name]()), some_prompts()
    alone = tokens_of(replies(model, prompts, budget=BATCHES["1"]))
    assert len(set(map(len, alone))) > 1  # rows end apart from each other, so that batches shrink
    assert tokens_of(replies(model, prompts, budget=BATCHES["3"])) == alone
    assert tokens_of(replies(model, prompts, budget=BATCHES["8"])) == alone
    assert tokens_of(replies(model, prompts, budget=BATCHES["all"])) == alone


CHANGED = ["llama4 (chunk)", "phi3 (longrope)", "gemma3 (longrope)", "recurrent_gemma", "deepseek_v32 (top 16)"]


@pytest.mark.parametrize("name", CHANGED)
def test_greedy_is_the_models_own_forward_across_every_length_that_changes_it(name):
    """Prompts below, at and above 64, where the chunk ends and the frequencies change; one reply crosses it."""
    model, rng = spread(build(CHANGING[name]())), np.random.default_rng(0)
    prompts = [rng.integers(4, VOCABULARY, length).astype(np.int32) for length in (58, 20, 70, 31)]
    said = tokens_of(replies(model, prompts, temperature=0, max_new_tokens=12))
    for prompt, tokens in zip(prompts, said, strict=True):
        ids = prompt.tolist()
        for token in tokens:
            with torch.no_grad():
                logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert token == int(logits.argmax())
            ids.append(token)
    assert tokens_of(replies(model, prompts[1:2], temperature=0, max_new_tokens=12)) == said[1:2]
    with torch.no_grad():  # with a cache, which a reply that crosses the length fills again
        assert "longrope" not in name or choose_strategy(model, prompts, [12] * 4) == BATCHED


def test_a_model_that_leaks_between_the_rows_of_a_batch_is_drawn_from_one_by_one(monkeypatch):
    from alignzoo.models import decoding

    model, prompts = build(FOREST["llama"]()), some_prompts(6)
    want = tokens_of(replies(model, prompts, budget=1))
    norm = model.model.norm.forward
    monkeypatch.setattr(model.model.norm, "forward", lambda hidden: norm(hidden + hidden.roll(1, 0) - hidden))
    monkeypatch.setattr(decoding, "_choices", decoding.WeakKeyDictionary())
    assert tokens_of(replies(model, prompts)) == want


def test_equal_prompts_are_read_once_and_replies_that_end_leave(monkeypatch):
    """With a budget for a few replies at a time others join, and forwards have no row of one that has ended."""
    model, (prompt, *others) = build(FOREST["llama"]()), some_prompts(4)
    prompts, sizes = [*[prompt] * 8, *others], []
    want, forward = replies(model, prompts, budget=1), model.forward

    def counted(**inputs):
        sizes.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(type(model), "forward", staticmethod(wraps(forward)(counted)))
    for budget in (10**6, 6 * MOST + 3 * LONGEST):
        sizes.clear()
        assert tokens_of(replies(model, prompts, budget=budget)) == tokens_of(want)
        read = (
            sum(map(len, [prompt, *others]))
            if budget == 10**6
            else sum(sizes) - sum(len(one.tokens) - 1 for one in want)
        )
        assert sum(sizes) == read + sum(len(one.tokens) - 1 for one in want)
        assert read <= 2 * len(prompt) + sum(map(len, others))
    assert max(sizes[1:]) <= max(LONGEST * 3, 6)


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_bfloat16_draws_under_autocast_and_reports_its_own_log_probs(name):
    model, prompts, kinds = build(EVERY[name]()), some_prompts(5), set()
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, output: kinds.add((output.dtype, module.weight.dtype)))
    said = replies(model, prompts, precision="bfloat16")
    hook.remove()
    assert (torch.bfloat16, torch.float32) in kinds
    for prompt, reply in zip(prompts, said, strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            log_probs = plain_logits(model, prompt, reply).float().log_softmax(-1)
        chosen = log_probs.gather(1, torch.from_numpy(reply.tokens).long()[:, None])
        assert reply.log_prob == pytest.approx(float(chosen.sum()), abs=0.02 * len(reply.tokens))


def test_a_long_prompt_does_not_narrow_the_batch_of_short_ones(monkeypatch):
    """Slots are as wide as the longest prompt; short prompts then come in a batch of their own."""
    model, prompts = build(FOREST["llama"]()), [np.full(200, 7, np.int32), *some_prompts(9)]
    want, forward, sizes = tokens_of(replies(model, prompts)), model.forward, []

    def counted(**inputs):
        sizes.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(type(model), "forward", staticmethod(wraps(forward)(counted)))
    assert tokens_of(replies(model, prompts, budget=9 * (LONGEST + MOST))) == want
    assert sizes[0] == 200
    assert sizes[MOST : MOST + 2] == [sum(map(len, prompts[1:])), 9]


def test_memory_that_runs_out_makes_batches_smaller_and_replies_no_different(monkeypatch):
    model, prompts = build(FOREST["llama"]()), some_prompts()
    want, forward, sizes = tokens_of(replies(model, prompts)), model.forward, []

    def limited(**inputs):
        sizes.append(inputs["input_ids"].numel())
        if sizes[-1] > 2 * LONGEST:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(**inputs)

    monkeypatch.setattr(type(model), "forward", staticmethod(wraps(forward)(limited)))
    assert tokens_of(replies(model, prompts)) == want
    assert sizes[0] == sum(map(len, prompts))
    assert sizes[-1] <= 2 * LONGEST


def test_what_is_drawn_does_not_depend_on_the_order_or_on_a_prompt_beside_it():
    model, prompts = build(FOREST["llama"]()), some_prompts()
    straight = tokens_of(replies(model, prompts))
    assert tokens_of(replies(model, prompts[::-1])) == straight[::-1]
    assert tokens_of(replies(model, prompts[3:4])) == straight[3:4]
    longer = np.full(60, 7, dtype=np.int32)
    assert tokens_of(replies(model, [longer, *prompts]))[1:] == straight


def test_a_model_without_a_cache_reads_everything_again(monkeypatch):
    from alignzoo.models import decoding

    model, prompts = build(FOREST["llama"]()), some_prompts(6)
    want = tokens_of(replies(model, prompts))
    monkeypatch.setattr(decoding, "CACHE_NAMES", ())
    assert tokens_of(replies(model, prompts)) == want


def test_dropout_is_off_and_the_model_is_left_as_it_was():
    import transformers as hf

    model = build(hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4))
    want = tokens_of(replies(model, some_prompts(3)))
    model.train()
    model.transformer.ln_f.eval()
    use_gradient_checkpointing(model)
    assert tokens_of(replies(model, some_prompts(3))) == want
    assert model.training
    assert not model.transformer.ln_f.training


# --- what is said of a reply


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "bloom"])
@pytest.mark.parametrize(("temperature", "top_p"), [(0, 1.0), (0.7, 0.8), (1.5, 1.0)])
def test_log_prob_and_entropy_are_the_untempered_policys(name, temperature, top_p):
    model, prompts = build(EVERY[name]()), some_prompts(5)
    for prompt, reply in zip(prompts, replies(model, prompts, temperature, top_p=top_p), strict=True):
        log_probs = plain_logits(model, prompt, reply).log_softmax(-1)
        chosen = log_probs.gather(1, torch.from_numpy(reply.tokens).long()[:, None])
        assert reply.log_prob == pytest.approx(float(chosen.sum()), rel=1e-5)
        assert reply.entropy == pytest.approx(float(-(log_probs.exp() * log_probs).sum(1).mean()), rel=1e-5)


def test_a_reply_ends_with_its_end_of_sequence_token_which_is_no_text():
    model, tokenizer = build(FOREST["llama"]()), byte_tokenizer()
    long = {i: reply for i, reply in enumerate(replies(model, some_prompts(), temperature=0)) if not reply.finished}
    assert {len(reply.tokens) for reply in long.values()} == {MOST}
    stop = int(long[0].tokens[4])  # let what comes fifth be the end
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stop)
    short = replies(model, some_prompts(), temperature=0, tokenizer=tokenizer)
    assert any(short[i].finished for i in long)
    assert not all(short[i].finished for i in long)
    for i, before in long.items():
        whole, after = before.tokens.tolist(), short[i]
        assert after.finished == (stop in whole)
        assert after.tokens.tolist() == (whole[: whole.index(stop) + 1] if stop in whole else whole)
        assert after.text == tokenizer.decode([token for token in after.tokens if token != stop])


def test_a_chat_model_also_ends_its_turn_with_a_token_of_its_own():
    model, tokenizer = build(FOREST["llama"]()), byte_tokenizer()
    model.generation_config.eos_token_id = [3, 50]
    assert end_tokens(model, tokenizer) == {1, 3}  # 50 is an ordinary token of this tokenizer: not meant for it


def test_a_reply_ends_where_the_models_positions_do():
    import transformers as hf

    model = build(hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=24))
    prompts = some_prompts(4)
    prompts[1] = np.full(24, 9, dtype=np.int32)
    for prompt, reply in zip(prompts, replies(model, prompts, temperature=0), strict=True):
        assert len(reply.tokens) == min(MOST, 24 - len(prompt) + 1)
    with pytest.raises(UserError, match="a prompt has 25 tokens and the model has 24 positions"):
        replies(model, [*prompts, np.full(25, 9, dtype=np.int32)])


def test_no_prompts_no_replies():
    assert replies(build(FOREST["llama"]()), []) == []


def test_a_prompt_without_tokens_is_rejected():
    with pytest.raises(ValueError, match="a prompt is empty"):
        replies(build(FOREST["llama"]()), [np.zeros(0, dtype=np.int32)])


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}, {"budget": 0}]
)
def test_settings_that_mean_nothing_are_rejected(wrong):
    with pytest.raises(ValueError, match="expected temperature"):
        replies(build(FOREST["llama"]()), some_prompts(2), **wrong)


def test_progress_counts_every_reply():
    finished = []
    model, prompts = build(FOREST["llama"]()), some_prompts()
    replies(model, prompts, budget=BATCHES["3"], progress=lambda n, note: finished.append(n))
    assert sum(finished) == len(prompts)


# --- chance


def test_the_seed_matters_and_nothing_else_random_does():
    model, prompts = build(FOREST["llama"]()), some_prompts()
    first = tokens_of(replies(model, prompts, seed=1))
    torch.manual_seed(7)
    np.random.seed(7)
    assert tokens_of(replies(model, prompts, seed=1)) == first
    assert tokens_of(replies(model, prompts, seed=2)) != first


def test_the_same_prompt_again_gets_another_reply_and_the_same_ones_each_time():
    model, prompt = build(FOREST["llama"]()), some_prompts()[0]
    three = tokens_of(replies(model, [prompt] * 3))
    assert len(set(map(tuple, three))) == 3
    assert tokens_of(replies(model, [prompt, some_prompts()[2], prompt]))[::2] == three[:2]


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.3, 0.7)])
def test_tokens_come_as_often_as_the_policy_says(temperature, top_p):
    """Pearson's chi-squared over the vocabulary: its mean is the degrees of freedom, its deviation sqrt(2 dof)."""
    model, prompt, count = build(FOREST["llama"]()), np.array([5, 9, 20]), 4000
    with torch.no_grad():
        model.lm_head.weight *= 6  # initial weights say nothing: make some tokens likelier than others
        logits = model(torch.from_numpy(prompt)[None]).logits[0, -1]
    said = replies(model, [prompt] * count, temperature, top_p=top_p, max_new_tokens=1)
    seen = np.bincount([reply.tokens[0] for reply in said], minlength=VOCABULARY)
    probs = (logits.double() / temperature).softmax(-1).numpy()
    order = np.argsort(-probs)
    kept = order[: int((probs[order].cumsum() < top_p).sum()) + 1]
    assert seen[np.setdiff1d(order, kept)].sum() == 0
    want = probs[kept] / probs[kept].sum() * count
    freedom = len(kept) - 1
    assert freedom > 15
    assert abs(((seen[kept] - want) ** 2 / want).sum() - freedom) < 4 * np.sqrt(2 * freedom)


def test_the_nucleus_is_that_of_a_full_sort():
    """Ties and flat tails: of equal tokens the first are in."""
    probs = torch.rand(64, 500, generator=torch.Generator().manual_seed(0)).pow(6)
    probs[::2] = (probs[::2] * 20).round() / 20 + 1e-6
    probs = probs / probs.sum(1, keepdim=True)
    for top_p in (0.05, 0.5, 0.9, 0.999):
        descending, order = probs.double().sort(dim=1, descending=True, stable=True)
        before = descending.cumsum(1) - descending
        want = torch.zeros_like(probs, dtype=torch.bool).scatter(1, order, before < top_p)
        near = (before - top_p).abs().min(1).values < 1e-6  # at the border rounding decides
        assert torch.equal((nucleus(probs, top_p) > 0)[~near], want[~near])
        assert near.sum() < 16


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 128, 131, 1000])
def test_a_draw_by_blocks_is_the_search_over_the_whole_distribution(size):
    """The same bisections as one search, in float64."""
    generator = torch.Generator().manual_seed(size)
    probs = torch.rand(300, size, generator=generator, dtype=torch.float64).pow(4)
    uniforms = torch.rand(300, 24, generator=generator, dtype=torch.float64)
    before = torch.nn.functional.pad(probs.cumsum(1), (1, 0)).numpy()
    for row, token in enumerate(draw(probs, uniforms).tolist()):
        first, width = 0, 1 << (size - 1).bit_length()
        for k in range((size - 1).bit_length()):
            width //= 2
            low, middle, high = (before[row, min(at, size)] for at in (first, first + width, first + 2 * width))
            first += width * bool(uniforms[row, k] * (high - low) >= middle - low)
        assert token == first


def test_the_nucleus_is_the_fewest_tokens_that_hold_the_share():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.97, 0.01, 0.01, 0.01]])
    assert (nucleus(probs, 0.7) > 0).tolist() == [[False, True, False, True], [True, False, False, False]]
    assert (nucleus(probs, 0.5) > 0).tolist() == [[False, True, False, False], [True, False, False, False]]
    assert torch.equal(nucleus(probs, 0.9999), probs)


def test_a_token_without_mass_is_never_drawn():
    probs = torch.tensor([[0.0, 0.0, 1e-30, 0.0, 0.0]]).expand(4, 5)
    ends = torch.tensor([0.0, 0.5, 1 - 2**-53, 1e-300], dtype=torch.float64)[:, None].expand(4, 24)
    assert draw(probs, ends).tolist() == [2, 2, 2, 2]


@pytest.mark.slow
def test_rounding_changes_what_is_drawn_as_rarely_as_it_is_small():
    """Zipf's tail, logits that move by 1e-4: one number in the cumulative distribution changes 1 draw in 30."""
    rng = np.random.default_rng(0)
    size, rows, noise = 20_000, 2_000, 1e-4
    logits = torch.from_numpy(-np.log(1 + rng.permutation(size)))
    moved = logits + noise * torch.from_numpy(rng.standard_normal(size))
    uniforms = torch.from_numpy(rng.random((rows, 24)))
    before, after = (one.softmax(0).expand(rows, size) for one in (logits, moved))
    changed = (draw(before, uniforms) != draw(after, uniforms)).double().mean()
    single = [torch.searchsorted(one[0].cumsum(0), uniforms[:, 0].contiguous()) for one in (before, after)]
    assert (single[0] != single[1]).double().mean() > 0.02
    assert changed < 10 * noise


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_what_the_cpu_draws():
    model, prompts = build(FOREST["llama"]()), some_prompts()
    on_cpu = tokens_of(replies(model, prompts, top_p=0.95))
    assert tokens_of(replies(model.cuda(), prompts, top_p=0.95)) == on_cpu


class Conversions(TorchDispatchMode):
    """Counts conversions to bfloat16 of tensors with one of some shapes."""

    def __init__(self, shapes):
        super().__init__()
        self.shapes, self.count = shapes, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.count += args[0].shape in self.shapes
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_bfloat16_converts_each_weight_once_also_frozen_ones(name):
    said, counts = [], []
    for trained in (True, False):
        model = build(EVERY[name]()).requires_grad_(trained)
        weights = [one for one in model.parameters() if one.dim() == 2]
        with Conversions({one.shape for one in weights}) as seen:
            said.append(tokens_of(replies(model, some_prompts(3), precision="bfloat16")))
        counts.append(seen.count)
        assert {one.requires_grad for one in model.parameters()} == {trained}
    assert said[0] == said[1]
    assert max(map(len, said[0])) > 2
    assert 0 < counts[1] == counts[0] <= len(weights)
