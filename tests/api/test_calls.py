"""`alignzoo.run` and the other calls, with everything in memory."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_inputs import RECIPE, ROWS, TRAIN

import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.training import records

pytestmark = pytest.mark.slow
RANKED = [{"prompt": f"{n}?", "completions": [" a", " b", " cc"], "scores": [3, 1, 2]} for n in range(12)]


class Half(alignzoo.Objective):
    """Half of DPO's loss."""

    name = "half"
    reference = "sequence"

    def implicit_reward(self, scored):
        return 0.1 * scored.log_ratio

    def loss(self, pair):
        margin = self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected)
        return -torch.nn.functional.logsigmoid(margin) / 2


@pytest.fixture
def given(model, tokenizer):
    return {"data": ROWS, "model": model, "tokenizer": tokenizer}


def test_a_run_is_found_again_and_its_calls_read_it(given, model):
    before = copy.deepcopy(model.state_dict())
    result = alignzoo.run(RECIPE, **given)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert alignzoo.run(RECIPE, **given | {"data": [dict(row) for row in ROWS]}) == result
    assert [*result.metrics[result.metrics.kind == "train"].step] == [1, 2]
    rows = alignzoo.score(result, split="held_out")
    assert {row["split"] for row in rows} == {"held_out"}
    assert len(rows[0]["chosen"]["policy_token_log_probs"]) == rows[0]["chosen"]["length"]
    replies = alignzoo.generate(result, ["1+1?", {"prompt": "2+1?"}], temperature=1, samples=2, max_new_tokens=3)
    assert [reply["prompt"] for reply in replies] == ["1+1?", "1+1?", "2+1?", "2+1?"]
    assert replies == alignzoo.generate(result.folder, ["1+1?", "2+1?"], temperature=1, samples=2, max_new_tokens=3)
    for bad in ({"temperature": -1}, {"top_p": 0}, {"samples": 2}, {"max_new_tokens": 0}):
        with pytest.raises(UserError, match=next(iter(bad))):
            alignzoo.generate(result, ["1+1?"], **bad)


def test_metrics_are_dictionaries_without_pandas(given, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    assert records.as_table([{"step": 1}]) == [{"step": 1}]


def test_a_class_in_memory_trains_and_is_scored(given):
    result = alignzoo.run(RECIPE, objective=Half(), **given)
    assert result.summary["objective"]["name"] == "half"
    assert result.summary["plugins"][0]["package"] == "(in memory)"
    assert len(alignzoo.score(result, split="all")) == len(ROWS)
    assert alignzoo.generate(result, ["1"], max_new_tokens=2)[0]["tokens"] <= 2


@pytest.mark.parametrize("objective", ["dpo", "sft", "half"])
def test_a_loop_of_ones_own_makes_the_runs_weights(given, model, objective):
    """The batches in their order, with the run's optimizer and clipping: the same policy to the last bit."""
    from transformers import AutoModelForCausalLM

    given["objective"] = Half() if objective == "half" else objective
    result = alignzoo.run(RECIPE, **given)
    batches = alignzoo.batches(RECIPE, **given)
    assert batches.model is model
    assert len(batches) == 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    losses = []
    for batch in batches:
        losses.append(batch.backward()["loss"])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
    trained = AutoModelForCausalLM.from_pretrained(result.policy).state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    assert losses == [*result.metrics[result.metrics.kind == "train"].loss]


def test_parts_have_the_inputs_and_add_up_to_the_batch(given, model):
    batches = alignzoo.batches(RECIPE, {"train.micro_batch_tokens": 16}, **given)
    batch = next(iter(batches))
    parts = list(batch)
    assert len(parts) > 1
    assert sorted(name for part in parts for name in part.ids) == sorted(batch.ids)
    (term, pair), *_ = parts[0].inputs
    assert term.name == "dpo"
    assert pair.chosen.log_prob.requires_grad
    assert not pair.chosen.ref_log_prob.requires_grad
    assert torch.equal(pair.chosen.log_prob.detach(), pair.chosen.ref_log_prob)  # before the first step
    losses = torch.cat([term.loss(example) for part in parts for term, example in part.inputs])
    assert sum(float(part.loss.detach()) for part in parts) == pytest.approx(float(losses.detach().mean()), abs=1e-6)
    assert float(batch.loss().detach()) == pytest.approx(float(losses.detach().mean()), abs=1e-6)
    whole = torch.autograd.grad(batch.loss(), model.lm_head.weight)[0]
    batch.backward()
    torch.testing.assert_close(model.lm_head.weight.grad, whole)


def test_batches_leave_no_copy_of_the_model(given, tmp_path):
    alignzoo.batches(RECIPE, **given)
    assert not [path.name for path in (tmp_path / "runs" / "inputs").iterdir() if path.name.startswith("model")]


def test_a_model_in_a_section_is_the_one_that_is_trained(model, tokenizer):
    assert alignzoo.batches(RECIPE | {"data": ROWS, "model": model}, tokenizer=tokenizer).model is model


def test_batches_of_draws_are_refused(given):
    rollout = {"rollout": {"rewards": ["length"], "max_new_tokens": 4}}
    with pytest.raises(UserError, match="the recipe draws completions"):
        alignzoo.batches(RECIPE | rollout, **given)


def test_recipes_in_memory_are_compared(given):
    result = alignzoo.compare(
        [RECIPE, RECIPE | {"objective": Half()}], seeds=1, samples={"prompts": 0}, overrides={"train.max_steps": 1},
        **given,
    )  # fmt: skip
    assert [*result.rows.label] == ["dpo", "half"]
    assert {run["state"] for row in result.table["rows"] for point in row["points"] for run in point["runs"]} == {
        "done"
    }
    assert (result.folder / "report.html").is_file()
    with pytest.raises(UserError, match="two recipes are named dpo"):
        alignzoo.compare([RECIPE, RECIPE], **given)
    with pytest.raises(UserError, match="seed"):
        alignzoo.compare([RECIPE], sedes=2, **given)


def test_lists_are_batches_too(model, tokenizer):
    recipe = RECIPE | {"train": TRAIN | {"max_steps": 1}}
    batch = next(iter(alignzoo.batches(recipe, data=RANKED, model=model, tokenizer=tokenizer)))
    assert len(batch.ids) == 4
    assert torch.isfinite(batch.loss())
