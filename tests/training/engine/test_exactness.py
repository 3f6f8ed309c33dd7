"""Scores are held to the model's own forward for as long as a run lasts, and nothing else changes by it."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from steps import DPO, UNLIMITED, build, every, random_rows, take, tiny_llama

from alignzoo.core.console import Screen
from alignzoo.core.errors import RunFailed
from alignzoo.models.attention import NAME
from alignzoo.reference import scores
from alignzoo.reference.scores import score_reference, spot_check
from alignzoo.scoring.exactness import SpotCheck, must_stop, own_forward, routed
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.loop import watch_steps
from alignzoo.training.schedule import rows_of_step
from alignzoo.training.spot_checks import interval


def spoil(scorer, by, when=lambda: True):
    """Add to one token of each micro-batch, as a mask that is a little wrong does."""
    score = scorer.forward

    def wrong(*given):
        found = dict(score(*given))
        name = "scalar" if "scalar" in found else "log_prob"
        if when():
            found[name] = found[name] + by * (torch.arange(len(found[name])) == 0)
        return found

    scorer.forward = wrong


@pytest.mark.parametrize("name", ["dpo", "bradley_terry", "bco", "sft"])
def test_a_check_changes_no_weight_and_finds_nothing_where_nothing_is(tmp_path, name):
    """Of pairs, of a reward model, of a loss over the whole batch, and of rows cut to their chosen completion."""
    steps = []
    for checked in (False, True):
        engine = build(every()[name], tmp_path, layout="packed")
        if checked:
            engine.watch = watch_steps(engine)
            engine.watch.every = 1
        steps.append(take(engine, 3))
    plain, watched = steps
    assert all(torch.equal(one, watched.parameters[key]) for key, one in plain.parameters.items())
    assert len(engine.watch.history) == 3
    assert 0 < engine.watch.last.difference < 1e-5
    assert engine.watch.last.limit == 1e-3
    assert engine.watch.last.sequences == (2 if name == "sft" else 4)


def test_one_token_off_in_float32_stops_the_run_with_both_numbers(tmp_path):
    engine = build(DPO(), tmp_path, layout="packed", micro_batch_tokens=UNLIMITED)
    engine.watch = watch_steps(engine)
    engine.watch.every = 1
    engine.step(0)
    spoil(engine.scorer, 0.5)
    before = [one.detach().clone() for one in engine.scorer.model.parameters()]
    rows = rows_of_step(1, 40, engine.config, engine.seed)  # the longest is the first of the only micro-batch
    first = engine.builder.trees[int(max(rows, key=lambda row: engine.builder.trees.sizes[row]))]
    with pytest.raises(RunFailed) as error:
        engine.step(1)
    oracle = float(own_forward(engine.scorer)(first, first.branches[0])[0])
    assert (
        f"step 2: the scores are not the model's own: row {first.id}, scored token 1: {oracle + 0.5:.6g}, and"
        in str(error.value)
    )
    assert f"{oracle:.6g} by the model's own forward (a difference of 0.5, over the limit of 0.001)" in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(before, engine.scorer.model.parameters(), strict=True))


def test_in_bfloat16_three_of_the_last_five_checks_stop_it(tmp_path):
    engine = build(DPO(), tmp_path, layout="packed", micro_batch_tokens=UNLIMITED, dtype=torch.bfloat16)
    engine.watch = watch_steps(engine)
    engine.watch.every = 1
    spoiled = iter([True, False, False, False, True, False, True, True])
    spoil(engine.scorer, 3.0, lambda: next(spoiled))
    for step in range(7):
        engine.step(step)
    assert engine.watch.history == [True, False, False, False, True, False, True]
    with pytest.raises(RunFailed, match="step 8: the scores are not the model's own"):
        engine.step(7)


def test_when_a_run_has_to_stop():
    assert must_stop([False, True], strict=True)
    assert not must_stop([True, False], strict=True)
    assert not must_stop([True, True, False, False, False, True, True], strict=False)
    assert must_stop([True, False, True, False, True], strict=False)


@pytest.mark.parametrize("slots", [1, scores.FLUSH_SLOTS], ids=["a shard each", "one shard"])
def test_a_shard_over_the_limit_is_never_kept(tmp_path, monkeypatch, slots):
    monkeypatch.setattr(scores, "FLUSH_SLOTS", slots)
    trees, scorer = random_rows("pair"), Scorer(tiny_llama(), "packed")
    spoil(scorer, 0.5)
    with pytest.raises(
        RunFailed, match=r"reference pass: the scores are not the model's own: row row \d+, scored token 1"
    ):
        score_reference(scorer, trees, tmp_path / "bad", UNLIMITED, Screen(quiet=True))
    assert not list((tmp_path / "bad").glob("*.safetensors"))


def test_in_bfloat16_single_shards_over_the_limit_are_kept_and_logged(tmp_path, monkeypatch):
    """Three of the last five checks stop it, counted over the shards of all parts, the cache and the steps."""
    monkeypatch.setattr(scores, "FLUSH_SLOTS", 1)
    trees, said = random_rows("pair"), []
    scorer, screen = Scorer(tiny_llama().bfloat16(), "packed"), Screen(quiet=True)
    monkeypatch.setattr(screen, "info", said.append)
    spoiled = {1, 3}
    calls = itertools.count()
    spoil(scorer, 3.0, lambda: next(calls) in spoiled)
    spot = SpotCheck(scorer)
    found = score_reference(scorer, trees, tmp_path / "one", 500, screen, spot=spot)
    checks = spot_check(spot, [found])
    count = len(checks) - 1  # one for each shard, and the cache's
    assert count > 4
    assert len(list((tmp_path / "one").glob("*.safetensors"))) == count
    assert [i for i, check in enumerate(checks) if check.over] == [1, 3]
    assert sum("over the limit" in line for line in said) == 2
    assert checks[1].line(0)["difference"] > checks[1].line(0)["limit"]
    calls, spoiled = itertools.count(), {count - 1}
    assert score_reference(scorer, trees, tmp_path / "two", 500, screen, spot=spot)
    calls, spoiled = itertools.count(), {0, 1}  # with the last of the part before, three of five
    with pytest.raises(RunFailed, match="reference pass: the scores are not the model's own"):
        score_reference(scorer, trees, tmp_path / "three", 500, screen, spot=spot)
    assert len(list((tmp_path / "three").glob("*.safetensors"))) == 1


def test_the_longest_row_of_a_shard_is_always_checked(tmp_path):
    """Scores are wrong in rows of the largest width alone, which are scored last."""
    trees, scorer = random_rows("pair"), Scorer(tiny_llama(), "padded")
    score, widest = scorer.forward, int(trees.sizes.max())

    def wrong(forest):
        return {"log_prob": score(forest)["log_prob"] + 0.5 * (forest.tokens.shape[1] == widest)}

    scorer.forward = wrong
    with pytest.raises(RunFailed, match="reference pass: the scores are not the model's own"):
        score_reference(scorer, trees, tmp_path / "bad", UNLIMITED, Screen(quiet=True))


def test_what_the_cache_holds_is_checked_too(tmp_path):
    """Whoever scored it: a folder that was filled without a check."""
    trees, scorer = random_rows("pair"), Scorer(tiny_llama(), "packed")
    good = score_reference(scorer, trees, tmp_path / "good", 500, Screen(quiet=True))
    found = spot_check(SpotCheck(scorer), [good, None])[-1]
    assert 0 < found.difference < 1e-5
    other = Scorer(tiny_llama(seed=1), "packed")
    with pytest.raises(RunFailed, match="reference: the scores are not the model's own"):
        spot_check(SpotCheck(other), [good])


def test_the_oracle_is_the_model_as_transformers_made_it():
    """After the switch to attention by trees, which it never runs through."""
    model = tiny_llama()
    untouched, scorer = copy.deepcopy(model), Scorer(model, "packed")
    tree = random_rows("pair")[0]
    scorer(lay_out([tree], "packed"))
    assert model.config._attn_implementation == NAME
    ids = torch.from_numpy(np.concatenate([tree.prompt, tree.branches[1].tokens])).long()
    first = len(tree.prompt) + tree.branches[1].context
    with torch.no_grad():
        logits = untouched(ids[None]).logits[0, first - 1 : -1]
    want = logits.log_softmax(-1).gather(1, ids[first:, None])[:, 0]
    assert torch.equal(own_forward(scorer)(tree, tree.branches[1]), want)
    assert model.config._attn_implementation == NAME
    assert not routed(model)


def test_a_run_that_goes_on_checks_the_steps_that_it_would_have(tmp_path):
    """Every so many steps by the data alone, and whenever a row is longer than all before."""
    whole = build(DPO(), tmp_path, batch_size=4)
    whole.watch = watch_steps(whole)
    due, longest = [], 0
    for step in range(30):
        rows = rows_of_step(step, 40, whole.config, 0)
        if step % whole.watch.every == 0 or whole.builder.trees.sizes[rows].max() > longest:
            due.append(step)
        longest = max(longest, whole.builder.trees.sizes[rows].max())
    for start in (0, 7):
        watch, found = watch_steps(whole), []
        for step in range(start, 30):
            rows = rows_of_step(step, 40, whole.config, 0).tolist()
            watch.begin(step, rows, rows)
            found += [step] if watch._wanted else []
        assert found == [step for step in due if step >= start]
    assert len(due) < 12


def test_the_interval_keeps_checks_below_a_hundredth_of_the_slots():
    """64 rows of 300 slots on average, three forwards each; two rows of 512 slots, twice and eight times as dear."""
    sizes = np.array([88, 512] * 500)
    assert interval(sizes, 64) == int(np.ceil(2 * 2 * 8 * 512 / (0.01 * 3 * 64 * 300)))
    assert interval(np.array([10]), 10**6) == 1
